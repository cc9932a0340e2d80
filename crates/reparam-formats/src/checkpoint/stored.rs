//! A tensor in a file.

use std::path::Path;

use super::{Dtype, TensorView};
use crate::FormatError;
use crate::file::InputFile;

/// How many bytes are read at a time where they are not those that are wanted: they stay in the second-level cache.
const PIECE: usize = 1 << 18;

/// A tensor of a [`Checkpoint`](super::Checkpoint): its type, its shape and its place in a file.
///
/// Its bytes are in the file. Each method reads them by position, and none keeps them.
#[derive(Debug, Clone, Copy)]
pub struct StoredTensor<'a> {
    /// The element type.
    pub dtype: Dtype,
    /// The shape; empty for a scalar.
    pub shape: &'a [usize],
    pub(super) name: &'a str,
    pub(super) file: &'a InputFile,
    pub(super) begin: u64,
    pub(super) end: u64,
}

impl<'a> StoredTensor<'a> {
    /// Returns the number of elements.
    pub fn n_elements(&self) -> usize {
        self.n_bytes() / self.dtype.size()
    }

    /// Returns the number of bytes in the file.
    pub fn n_bytes(&self) -> usize {
        (self.end - self.begin) as usize
    }

    /// Returns the file.
    pub fn file(&self) -> &'a Path {
        self.file.path()
    }

    /// Returns the stored bytes, little-endian and row-major.
    ///
    /// # Errors
    ///
    /// Those of [`InputFile::read_at`].
    pub fn bytes(&self) -> Result<Vec<u8>, FormatError> {
        let mut bytes = vec![0; self.n_bytes()];
        self.file.read_at(&mut bytes, self.begin)?;
        Ok(bytes)
    }

    /// Hands the stored bytes to `take`, a piece at a time.
    pub(super) fn pieces(&self, take: impl FnMut(&[u8])) -> Result<(), FormatError> {
        self.file.pieces(self.begin, self.end, PIECE, take)
    }

    /// Returns the elements as `f32`.
    ///
    /// BF16 and F16 convert exactly (NaNs become quiet), F64 rounds to the nearest `f32`.
    ///
    /// # Errors
    ///
    /// [`FormatError::NotFloat`] for integers and booleans; those of [`InputFile::read_at`].
    ///
    /// # Cost
    ///
    /// F32 is read to where it stays; other types a quarter of a megabyte at a time.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>, FormatError> {
        self.check_float()?;
        let mut values = vec![0.0; self.n_elements()];
        self.read_f32(0, &mut values)?;
        Ok(values)
    }

    /// Returns the elements as `f32`, all of them finite.
    ///
    /// # Errors
    ///
    /// Those of [`to_f32_vec`](Self::to_f32_vec); [`FormatError::NonFinite`] with the first element that is not, and
    /// [`FormatError::BeyondF32`] with the first that `f32` cannot hold.
    pub fn to_finite_f32_vec(&self) -> Result<Vec<f32>, FormatError> {
        let values = self.to_f32_vec()?;
        let Some(index) = values.iter().position(|value| !value.is_finite()) else {
            return Ok(values);
        };
        self.check_finite()?;
        // A finite F64, the only type that is wider.
        let mut bytes = [0; 8];
        self.file
            .read_at(&mut bytes, self.begin + 8 * index as u64)?;
        Err(FormatError::BeyondF32 {
            name: self.name.to_owned(),
            path: self.file().to_path_buf(),
            index,
            value: f64::from_le_bytes(bytes),
        })
    }

    /// Reads the elements from `first` on, as many as `to` takes, converted as by [`to_f32_vec`](Self::to_f32_vec).
    ///
    /// # Errors
    ///
    /// As that.
    ///
    /// # Panics
    ///
    /// Panics when the tensor has fewer elements.
    pub fn read_f32(&self, first: usize, to: &mut [f32]) -> Result<(), FormatError> {
        assert!(
            to.len() <= self.n_elements() && first <= self.n_elements() - to.len(),
            "a tensor of {} elements has none from {first} to {}",
            self.n_elements(),
            first + to.len()
        );
        self.check_float()?;
        let size = self.dtype.size();
        let begin = self.begin + (first * size) as u64;
        if self.dtype == Dtype::F32 {
            self.file.read_at(bytemuck::cast_slice_mut(to), begin)?;
            // Nothing on machines that are little-endian themselves.
            for value in to {
                *value = f32::from_bits(u32::from_le(value.to_bits()));
            }
            return Ok(());
        }
        let end = begin + (to.len() * size) as u64;
        let mut rest = to;
        let mut result = Ok(());
        self.file.pieces(begin, end, PIECE, |bytes| {
            let piece = std::mem::take(&mut rest);
            let (now, later) = piece.split_at_mut(bytes.len() / size);
            rest = later;
            if result.is_ok() {
                result = self.view(bytes, &[now.len()]).read_f32(now);
            }
        })?;
        result
    }

    /// Reads the elements from `first` on, as many as `to` takes, exactly and all of them finite.
    ///
    /// # Errors
    ///
    /// [`FormatError::NotFloat`] for integers and booleans, [`FormatError::NonFinite`]; those of [`InputFile::read_at`].
    ///
    /// # Panics
    ///
    /// As [`read_f32`](Self::read_f32).
    pub fn read_finite_f64(&self, first: usize, to: &mut [f64]) -> Result<(), FormatError> {
        if self.dtype == Dtype::F64 {
            assert!(
                to.len() <= self.n_elements() && first <= self.n_elements() - to.len(),
                "a tensor of {} elements has none there",
                self.n_elements()
            );
            self.file
                .read_at(bytemuck::cast_slice_mut(to), self.begin + 8 * first as u64)?;
            for value in to.iter_mut() {
                *value = f64::from_bits(u64::from_le(value.to_bits()));
            }
        } else {
            let mut narrow = vec![0.0_f32; to.len()];
            self.read_f32(first, &mut narrow)?;
            for (wide, value) in to.iter_mut().zip(narrow) {
                *wide = f64::from(value);
            }
        }
        match to.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(index) => Err(FormatError::NonFinite {
                name: self.name.to_owned(),
                path: self.file().to_path_buf(),
                index: first + index,
                value: to[index],
            }),
        }
    }

    /// Checks that every element is finite. Integers are.
    ///
    /// # Errors
    ///
    /// [`FormatError::NonFinite`] with the first element that is not; those of [`InputFile::read_at`].
    pub fn check_finite(&self) -> Result<(), FormatError> {
        let mut found = None;
        let mut before = 0;
        self.pieces(|bytes| {
            let n = bytes.len() / self.dtype.size();
            if found.is_none() {
                let first = self.view(bytes, &[n]).first_non_finite();
                found = first.map(|(index, value)| (before + index, value));
            }
            before += n;
        })?;
        match found {
            None => Ok(()),
            Some((index, value)) => Err(FormatError::NonFinite {
                name: self.name.to_owned(),
                path: self.file().to_path_buf(),
                index,
                value,
            }),
        }
    }

    fn check_float(&self) -> Result<(), FormatError> {
        match self.dtype.is_float() {
            true => Ok(()),
            false => Err(FormatError::NotFloat { dtype: self.dtype }),
        }
    }

    /// A part of the tensor in memory.
    fn view<'b>(&self, bytes: &'b [u8], shape: &'b [usize]) -> TensorView<'b> {
        TensorView {
            dtype: self.dtype,
            shape,
            bytes,
        }
    }
}
