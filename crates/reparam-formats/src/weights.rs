//! Where a conversion takes weights from.

use crate::FormatError;
use crate::checkpoint::{Checkpoint, Dtype};

/// Weights by name: those of a checkpoint, or what something makes of them.
///
/// Numbers are read a part at a time, so a conversion never holds more than it works on.
pub trait Weights {
    /// Why a weight cannot be had.
    type Error: From<FormatError>;

    /// Returns the shape of a weight, row-major.
    ///
    /// # Errors
    ///
    /// Fails when there is none of that name.
    fn shape(&mut self, name: &str) -> Result<Vec<usize>, Self::Error>;

    /// Returns the type in which a weight is stored.
    ///
    /// # Errors
    ///
    /// As [`shape`](Self::shape).
    fn dtype(&mut self, name: &str) -> Result<Dtype, Self::Error>;

    /// Reads the elements from `first` on, as many as `to` takes.
    ///
    /// # Errors
    ///
    /// Fails when there is no such weight, it cannot be read, or a number is not finite.
    fn read(&mut self, name: &str, first: usize, to: &mut [f64]) -> Result<(), Self::Error>;
}

/// A checkpoint as it is.
impl Weights for &Checkpoint {
    type Error = FormatError;

    fn shape(&mut self, name: &str) -> Result<Vec<usize>, FormatError> {
        Ok(self.require(name)?.shape.to_vec())
    }

    fn dtype(&mut self, name: &str) -> Result<Dtype, FormatError> {
        Ok(self.require(name)?.dtype)
    }

    fn read(&mut self, name: &str, first: usize, to: &mut [f64]) -> Result<(), FormatError> {
        self.require(name)?.read_finite_f64(first, to)
    }
}
