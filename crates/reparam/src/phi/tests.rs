//! Laws of the methods.
