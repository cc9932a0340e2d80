//! Tests of the file formats through the public interface.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod adapters;
mod checkpoint;
mod config;
mod hub;
mod peft;
mod writer;
