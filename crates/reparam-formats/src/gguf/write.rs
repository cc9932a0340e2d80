//! The writer: header, then numbers.

use std::io::Write as _;
use std::path::Path;

use super::rounding::{Errors, WrittenTensor};
use super::value::append_text;
use super::{GgufDtype, GgufError, GgufValue};
use crate::FormatError;
use crate::atomic::write_through;

const VERSION: u32 = 3;
/// Where each tensor may begin.
const ALIGNMENT: usize = 32;

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorEntry {
    pub(super) name: String,
    /// Row-major; the file has it the other way around.
    pub(super) shape: Vec<usize>,
    pub(super) dtype: GgufDtype,
}

impl TensorEntry {
    /// Returns elements and bytes.
    fn size(&self) -> Result<(usize, usize), FormatError> {
        let n = self
            .shape
            .iter()
            .try_fold(1_usize, |n, dim| n.checked_mul(*dim));
        let row = self.shape.last().copied().unwrap_or(1);
        let size = n
            .filter(|_| row.is_multiple_of(self.dtype.block()))
            .and_then(|n| Some((n, self.dtype.n_bytes(n)?)));
        size.ok_or_else(|| FormatError::InvalidTensor {
            name: self.name.clone(),
            detail: format!("{:?} cannot be stored as {}", self.shape, self.dtype),
        })
    }
}

/// Takes the numbers of one tensor, whole blocks at a time.
pub(super) type Take<'a, E> = dyn FnMut(&[f64]) -> Result<(), E> + 'a;

/// Writes a file, replacing an older one in one step. `fill` is asked for the numbers of each tensor in turn.
/// Returns what rounding them cost.
pub(super) fn write<E>(
    path: &Path,
    metadata: &[(String, GgufValue)],
    tensors: &[TensorEntry],
    mut fill: impl FnMut(&TensorEntry, &mut Take<'_, E>) -> Result<(), E>,
) -> Result<Vec<WrittenTensor>, E>
where
    E: From<FormatError> + From<GgufError>,
{
    let mut written = Vec::with_capacity(tensors.len());
    let (header, sizes) = header(metadata, tensors)?;
    write_through(path, |writer| {
        let failed = |source| FormatError::io("write", path, source);
        writer.write_all(&header).map_err(failed)?;
        let mut bytes = Vec::new();
        for (tensor, (n_elements, n_bytes)) in tensors.iter().zip(sizes) {
            let mut taken = 0;
            let mut errors = Errors::default();
            fill(tensor, &mut |values| {
                taken += values.len();
                check_range(tensor, values)?;
                errors.add(values, tensor.dtype);
                bytes.clear();
                tensor.dtype.append(values, &mut bytes);
                Ok(writer.write_all(&bytes).map_err(failed)?)
            })?;
            if taken != n_elements {
                return Err(FormatError::InvalidTensor {
                    name: tensor.name.clone(),
                    detail: format!("{taken} numbers were given for {n_elements}"),
                }
                .into());
            }
            let padding = n_bytes.next_multiple_of(ALIGNMENT) - n_bytes;
            writer
                .write_all(&[0; ALIGNMENT][..padding])
                .map_err(failed)?;
            written.push(errors.of(&tensor.name, tensor.dtype));
        }
        Ok::<_, E>(())
    })?;
    Ok(written)
}

fn check_range(tensor: &TensorEntry, values: &[f64]) -> Result<(), GgufError> {
    let largest = tensor.dtype.largest();
    match values.iter().find(|value| value.abs() > largest) {
        None => Ok(()),
        Some(value) => Err(GgufError::BeyondRange {
            tensor: tensor.name.clone(),
            value: *value,
            dtype: tensor.dtype,
        }),
    }
}

/// Elements and bytes of each tensor.
type Sizes = Vec<(usize, usize)>;

/// Renders all that stands before the numbers, and returns with it the sizes of the tensors.
fn header(
    metadata: &[(String, GgufValue)],
    tensors: &[TensorEntry],
) -> Result<(Vec<u8>, Sizes), FormatError> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        append_text(&mut bytes, key);
        value.append(&mut bytes);
    }
    let mut offset = 0_u64;
    let mut sizes = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let (n_elements, n_bytes) = tensor.size()?;
        append_text(&mut bytes, &tensor.name);
        bytes.extend((tensor.shape.len() as u32).to_le_bytes());
        for dim in tensor.shape.iter().rev() {
            bytes.extend((*dim as u64).to_le_bytes());
        }
        bytes.extend(tensor.dtype.id().to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        offset += n_bytes.next_multiple_of(ALIGNMENT) as u64;
        sizes.push((n_elements, n_bytes));
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    Ok((bytes, sizes))
}
