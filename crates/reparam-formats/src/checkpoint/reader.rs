//! Reading a tensor from the front to the back.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use super::{Dtype, TensorView};
use crate::FormatError;

/// A tensor that is read once, in pieces, from its file.
///
/// Unlike the pages of a memory map, what was read does not stay part of the process's memory.
#[derive(Debug)]
pub struct TensorReader {
    file: File,
    path: PathBuf,
    dtype: Dtype,
    buffer: Vec<u8>,
}

impl TensorReader {
    pub(super) fn open(path: PathBuf, begin: usize, dtype: Dtype) -> Result<Self, FormatError> {
        let mut file =
            File::open(&path).map_err(|source| FormatError::io("read", &path, source))?;
        file.seek(SeekFrom::Start(begin as u64))
            .map_err(|source| FormatError::io("read", &path, source))?;
        Ok(Self {
            file,
            path,
            dtype,
            buffer: Vec::new(),
        })
    }

    /// Reads the next elements as `f32`, converted as by [`TensorView::to_f32_vec`].
    ///
    /// # Errors
    ///
    /// [`FormatError::NotFloat`] for integers and booleans; [`FormatError::Io`] if the file ends before the tensor does.
    pub fn read_f32(&mut self, to: &mut [f32]) -> Result<(), FormatError> {
        self.buffer.resize(to.len() * self.dtype.size(), 0);
        self.file
            .read_exact(&mut self.buffer)
            .map_err(|source| FormatError::io("read", &self.path, source))?;
        let view = TensorView {
            dtype: self.dtype,
            shape: &[to.len()],
            bytes: &self.buffer,
        };
        view.read_f32(to)
    }
}
