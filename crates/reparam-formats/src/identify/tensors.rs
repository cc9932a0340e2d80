//! The tensors of a safetensors file, to be shown and not to be read.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Kind, expect_kind_of};
use crate::FormatError;
use crate::file::InputFile;

/// The largest header that is looked at, in bytes: the limit of the format.
const MOST_BYTES: u64 = 100_000_000;

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

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// Lists the tensors of a safetensors file, in the order of their names.
///
/// Nothing but the header is read, and types that [`Checkpoint`](crate::checkpoint::Checkpoint) does not read, such as those of 8
/// and 4 bits, are listed like the others.
///
/// # Errors
///
/// [`FormatError::AnotherKind`], [`FormatError::InvalidHeader`], and those of reading the file.
pub fn list_tensors(path: &Path) -> Result<Vec<ListedTensor>, FormatError> {
    let file = InputFile::open(path)?;
    expect_kind_of(&file, &Kind::Safetensors)?;
    let invalid = |detail: String| FormatError::InvalidHeader {
        path: path.to_path_buf(),
        detail,
    };
    if file.len() < 8 {
        return Err(invalid("it has no length".to_owned()));
    }
    let mut length = [0; 8];
    file.read_at(&mut length, 0)?;
    let length = u64::from_le_bytes(length);
    if length > MOST_BYTES {
        return Err(invalid(format!("it would be {length} bytes long")));
    }
    let mut header = vec![0; length.min(file.len() - 8) as usize];
    file.read_at(&mut header, 8)?;
    let header: Map<String, Value> =
        serde_json::from_slice(&header).map_err(|error| invalid(error.to_string()))?;
    let tensors = header
        .into_iter()
        .filter(|(name, _)| name != "__metadata__");
    let tensors = tensors.map(|(name, entry)| {
        let entry = Entry::deserialize(entry)
            .map_err(|error| invalid(format!("tensor '{name}': {error}")))?;
        let (begin, end) = entry.data_offsets;
        Ok(ListedTensor {
            name,
            dtype: entry.dtype,
            shape: entry.shape,
            bytes: end.saturating_sub(begin),
        })
    });
    let mut tensors: Vec<ListedTensor> = tensors.collect::<Result<_, FormatError>>()?;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}
