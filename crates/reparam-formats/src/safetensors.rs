//! The writer of safetensors files.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use half::{bf16, f16};

use crate::FormatError;
use crate::atomic::{write_through, write_with};
use crate::checkpoint::{Dtype, header};

/// A tensor to be written.
#[derive(Debug, Clone, Copy)]
pub struct TensorToWrite<'a> {
    /// The name; `__metadata__` is the format's own and not allowed.
    pub name: &'a str,
    /// The shape; empty for a scalar.
    pub shape: &'a [usize],
    /// The numbers.
    pub data: TensorData<'a>,
}

/// The numbers of a tensor to be written, row-major.
#[derive(Debug, Clone, Copy)]
pub enum TensorData<'a> {
    /// Numbers that are stored as the given floating point type, rounded to the nearest (ties to
    /// even).
    Values(&'a [f32], Dtype),
    /// Bytes that are already of the given type, little-endian; they are stored as they are.
    Bytes(&'a [u8], Dtype),
}

impl<'a> TensorToWrite<'a> {
    /// Returns a tensor that is stored as F32.
    pub fn f32(name: &'a str, shape: &'a [usize], values: &'a [f32]) -> Self {
        Self {
            name,
            shape,
            data: TensorData::Values(values, Dtype::F32),
        }
    }

    fn dtype(&self) -> Dtype {
        match self.data {
            TensorData::Values(_, dtype) | TensorData::Bytes(_, dtype) => dtype,
        }
    }

    /// Checks the shape against the numbers and returns the size in the file, in bytes.
    fn checked_size(&self) -> Result<usize, FormatError> {
        let invalid = |detail| FormatError::InvalidTensor {
            name: self.name.to_owned(),
            detail,
        };
        if self.name == "__metadata__" {
            return Err(invalid("the name belongs to the format".to_owned()));
        }
        let dtype = self.dtype();
        let given = match self.data {
            TensorData::Values(_, dtype) if !dtype.is_float() => {
                return Err(invalid(format!("cannot store f32 numbers as {dtype}")));
            }
            TensorData::Values(values, _) => values.len().checked_mul(dtype.size()),
            TensorData::Bytes(bytes, _) => Some(bytes.len()),
        };
        match header::byte_count(self.shape, dtype) {
            Some(size) if given == Some(size) => Ok(size),
            _ => Err(invalid(format!(
                "shape {:?} of dtype {dtype} does not fit {} bytes",
                self.shape,
                given.unwrap_or(usize::MAX)
            ))),
        }
    }
}

/// Writes tensors to one safetensors file, in the given order, replacing an older file in one step.
///
/// The bytes depend on the arguments alone. With the tensors sorted by name and all of one type
/// they are the bytes that the reference implementation writes.
///
/// # Errors
///
/// [`FormatError::InvalidTensor`] for a shape that does not fit, a repeated or reserved name;
/// [`FormatError::Permission`], [`FormatError::DiskFull`] or [`FormatError::Io`]. The target is
/// then untouched and no temporary file is left.
pub fn write_safetensors(
    path: &Path,
    tensors: &[TensorToWrite<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<(), FormatError> {
    let header = render_header(tensors, metadata)?;
    write_with(path, |writer| write_all(writer, &header, tensors))
}

/// Returns the bytes of a file of these tensors; `path` is what errors call it.
pub(crate) fn safetensors_bytes(
    path: &Path,
    tensors: &[TensorToWrite<'_>],
) -> Result<Vec<u8>, FormatError> {
    let header = render_header(tensors, &BTreeMap::new())?;
    let mut bytes = Vec::new();
    write_all(&mut bytes, &header, tensors)
        .map_err(|error| FormatError::io("write", path, error))?;
    Ok(bytes)
}

fn write_all<W: Write>(
    writer: &mut W,
    header: &str,
    tensors: &[TensorToWrite<'_>],
) -> io::Result<()> {
    writer.write_all(&(header.len() as u64).to_le_bytes())?;
    writer.write_all(header.as_bytes())?;
    for tensor in tensors {
        match tensor.data {
            TensorData::Bytes(bytes, _) => writer.write_all(bytes)?,
            TensorData::Values(values, dtype) => write_values(writer, values, dtype)?,
        }
    }
    Ok(())
}

/// A tensor whose numbers are given while the file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamedTensor {
    /// The name; `__metadata__` is the format's own and not allowed.
    pub name: String,
    /// The shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// The element type.
    pub dtype: Dtype,
}

impl StreamedTensor {
    /// Returns the size in the file, in bytes; `None` if it is larger than the address space.
    pub fn n_bytes(&self) -> Option<usize> {
        let dims = self.shape.iter();
        dims.copied()
            .try_fold(self.dtype.size(), |size, dim| size.checked_mul(dim))
    }
}

/// Takes the bytes of one tensor, little-endian and row-major, a part at a time.
pub type TakeBytes<'a, E> = dyn FnMut(&[u8]) -> Result<(), E> + 'a;

/// Writes a file whose numbers are made one tensor after another, replacing an older file in one step. `fill` is asked for the
/// bytes of each tensor in turn.
///
/// # Errors
///
/// [`FormatError::InvalidTensor`] for a repeated or reserved name, or where `fill` gives other than the bytes of the shape; what `fill`
/// fails with; those of the file system. The target is then untouched.
pub fn write_streamed<E: From<FormatError>>(
    path: &Path,
    tensors: &[StreamedTensor],
    metadata: &BTreeMap<String, String>,
    mut fill: impl FnMut(&StreamedTensor, &mut TakeBytes<'_, E>) -> Result<(), E>,
) -> Result<(), E> {
    let mut entries = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let too_large = || FormatError::InvalidTensor {
            name: tensor.name.clone(),
            detail: "it would be larger than the address space".to_owned(),
        };
        entries.push(HeaderEntry {
            name: &tensor.name,
            shape: &tensor.shape,
            dtype: tensor.dtype,
            size: tensor.n_bytes().ok_or_else(too_large)?,
        });
    }
    let header = render(&entries, metadata)?;
    write_through(path, |writer| {
        let failed = |source| FormatError::io("write", path, source);
        writer
            .write_all(&(header.len() as u64).to_le_bytes())
            .and_then(|()| writer.write_all(header.as_bytes()))
            .map_err(failed)?;
        for (tensor, entry) in tensors.iter().zip(&entries) {
            let mut given = 0;
            fill(tensor, &mut |bytes| {
                given += bytes.len();
                Ok(writer.write_all(bytes).map_err(failed)?)
            })?;
            if given != entry.size {
                return Err(FormatError::InvalidTensor {
                    name: tensor.name.clone(),
                    detail: format!("{given} bytes were given for {}", entry.size),
                }
                .into());
            }
        }
        Ok(())
    })
}

/// What the header says of a tensor.
struct HeaderEntry<'a> {
    name: &'a str,
    shape: &'a [usize],
    dtype: Dtype,
    size: usize,
}

fn render_header(
    tensors: &[TensorToWrite<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<String, FormatError> {
    let entries = tensors.iter().map(|tensor| {
        Ok(HeaderEntry {
            name: tensor.name,
            shape: tensor.shape,
            dtype: tensor.dtype(),
            size: tensor.checked_size()?,
        })
    });
    render(&entries.collect::<Result<Vec<_>, FormatError>>()?, metadata)
}

/// Renders the header, padded with blanks so that the data begins at a multiple of 8 bytes.
fn render(
    tensors: &[HeaderEntry<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<String, FormatError> {
    // A JSON string literal is what `Value::String` prints.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut seen = HashSet::new();
    let mut entries = Vec::with_capacity(tensors.len() + 1);
    if !metadata.is_empty() {
        let pairs: Vec<String> = metadata
            .iter()
            .map(|(key, value)| format!("{}:{}", quoted(key), quoted(value)))
            .collect();
        entries.push(format!("\"__metadata__\":{{{}}}", pairs.join(",")));
    }
    let mut begin = 0_usize;
    for tensor in tensors {
        let invalid = |detail: &str| FormatError::InvalidTensor {
            name: tensor.name.to_owned(),
            detail: detail.to_owned(),
        };
        if tensor.name == "__metadata__" {
            return Err(invalid("the name belongs to the format"));
        }
        if !seen.insert(tensor.name) {
            return Err(invalid("the name is given twice"));
        }
        let end = begin.checked_add(tensor.size);
        let end = end.ok_or_else(|| invalid("the file would be larger than the address space"))?;
        let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        let mut entry = quoted(tensor.name);
        // Writing to a string cannot fail.
        let _ = write!(
            entry,
            ":{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{begin},{end}]}}",
            tensor.dtype,
            shape.join(",")
        );
        entries.push(entry);
        begin = end;
    }
    let mut header = format!("{{{}}}", entries.join(","));
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    Ok(header)
}

/// Converts and writes numbers, without a copy of the whole tensor.
fn write_values<W: Write>(writer: &mut W, values: &[f32], dtype: Dtype) -> io::Result<()> {
    const CHUNK: usize = 4096;
    let mut bytes = Vec::with_capacity(CHUNK * dtype.size());
    for chunk in values.chunks(CHUNK) {
        bytes.clear();
        match dtype {
            Dtype::BF16 => {
                bytes.extend(
                    chunk
                        .iter()
                        .flat_map(|value| bf16::from_f32(*value).to_le_bytes()),
                );
            }
            Dtype::F16 => {
                bytes.extend(
                    chunk
                        .iter()
                        .flat_map(|value| f16::from_f32(*value).to_le_bytes()),
                );
            }
            Dtype::F64 => {
                bytes.extend(
                    chunk
                        .iter()
                        .flat_map(|value| f64::from(*value).to_le_bytes()),
                );
            }
            // Every type that is not floating point was refused before the file was made.
            _ => bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes())),
        }
        writer.write_all(&bytes)?;
    }
    Ok(())
}
