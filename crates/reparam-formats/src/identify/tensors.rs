//! The tensors of a safetensors file, to be shown and not to be read.

use std::path::Path;

use super::{Kind, expect_kind_of};
use crate::FormatError;
use crate::checkpoint::header;
use crate::file::InputFile;

/// A tensor as a header describes it, of whatever type it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTensor {
    /// Its name.
    pub name: String,
    /// Its element type in the file's words, such as `F8_E4M3`.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its size in the file, in bytes.
    pub bytes: u64,
}

/// Lists the tensors of a safetensors file, in the order of their names.
///
/// Nothing but the header is read, and types that [`Checkpoint`](crate::checkpoint::Checkpoint) does not read, such as those of 8
/// and 4 bits, are listed like the others.
///
/// # Errors
///
/// [`FormatError::AnotherKind`], [`FormatError::InvalidHeader`], [`FormatError::Truncated`], and those of reading the file.
pub fn list_tensors(path: &Path) -> Result<Vec<ListedTensor>, FormatError> {
    let file = InputFile::open(path)?;
    expect_kind_of(&file, &Kind::Safetensors)?;
    let (header, _) = header::read(&file)?;
    let tensors = header.tensors.into_iter().map(|(name, tensor)| {
        let (begin, end) = tensor.data_offsets;
        ListedTensor {
            name,
            dtype: tensor.dtype,
            shape: tensor.shape,
            bytes: end.saturating_sub(begin),
        }
    });
    let mut tensors: Vec<ListedTensor> = tensors.collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}
