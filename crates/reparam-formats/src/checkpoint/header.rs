//! The header of a safetensors file.
//!
//! A file is: 8 bytes, the length N of the header as a little-endian integer; N bytes of JSON,
//! `{"name": {"dtype": .., "shape": [..], "data_offsets": [begin, end]}, .., "__metadata__": {..}}`;
//! then the data, to which the offsets refer. The tensors have to cover the data without a gap and
//! without overlap. The format is described at <https://github.com/huggingface/safetensors>.
//!
//! The header is parsed here and not by the `safetensors` crate, because the messages have to name
//! the tensor, its type and the sizes, and because that crate keeps only the last of two tensors
//! with one name. The tests hold both readers against each other.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::Dtype;
use crate::file::InputFile;
use crate::{FormatError, shown};

/// The largest header that is accepted, in bytes; the limit of the reference implementation.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// One tensor of a header, with its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Where the bytes begin, counted from the beginning of the file.
    pub(crate) begin: u64,
    /// Where they end.
    pub(crate) end: u64,
}

/// A parsed and checked header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// In the order of the data.
    pub(crate) entries: Vec<Entry>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Reads the header of a file as it is written, and where the data begin.
pub(crate) fn read(file: &InputFile) -> Result<(RawHeader, u64), FormatError> {
    let path = file.path();
    let found = file.len();
    let truncated = |part, needed| FormatError::Truncated {
        path: path.to_path_buf(),
        part,
        needed,
        found,
    };
    let invalid = |detail| FormatError::InvalidHeader {
        path: path.to_path_buf(),
        detail,
    };

    if found < 8 {
        return Err(truncated("length field", 8));
    }
    let mut length = [0; 8];
    file.read_at(&mut length, 0)?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(invalid(format!(
            "a length of {header_bytes} bytes is beyond the format's limit of {MAX_HEADER_BYTES}"
        )));
    }
    let data_begin = 8 + header_bytes;
    if data_begin > found {
        return Err(truncated("header", data_begin));
    }
    // The limit above makes the conversion exact on every machine.
    let mut json = vec![0; header_bytes as usize];
    file.read_at(&mut json, 8)?;
    let json =
        std::str::from_utf8(&json).map_err(|error| invalid(format!("not UTF-8: {error}")))?;
    if !json.starts_with('{') {
        return Err(invalid("it does not begin with '{'".to_owned()));
    }
    let raw =
        serde_json::from_str(json).map_err(|error| invalid(format!("not valid JSON: {error}")))?;
    Ok((raw, data_begin))
}

/// Reads the header of a file and checks every rule of the format.
pub(crate) fn parse(file: &InputFile) -> Result<Header, FormatError> {
    let (raw, data_begin) = read(file)?;
    let path = file.path();
    let found = file.len();
    let data_len = found - data_begin;
    let invalid = |detail| FormatError::InvalidHeader {
        path: path.to_path_buf(),
        detail,
    };

    let mut seen = HashSet::new();
    let mut entries = Vec::with_capacity(raw.tensors.len());
    for (name, info) in raw.tensors {
        if !seen.insert(name.clone()) {
            let path = path.to_path_buf();
            return Err(FormatError::DuplicateTensor {
                name,
                first: path.clone(),
                second: path,
            });
        }
        let Some(dtype) = Dtype::from_name(&info.dtype) else {
            let path = path.to_path_buf();
            return Err(FormatError::UnsupportedDtype {
                name,
                dtype: info.dtype,
                path,
            });
        };
        let needed = byte_count(&info.shape, dtype).map(|bytes| bytes as u64);
        let (begin, end) = info.data_offsets;
        if end.checked_sub(begin) != needed || needed.is_none() {
            return Err(invalid(format!(
                "tensor '{}' of dtype {dtype} and shape {:?} does not fill its offsets {begin} to {end}",
                shown(&name),
                info.shape
            )));
        }
        entries.push(Entry {
            name,
            dtype,
            shape: info.shape,
            begin,
            end,
        });
    }

    entries.sort_by_key(|entry| (entry.begin, entry.end));
    let mut covered = 0;
    for entry in &entries {
        if entry.begin != covered {
            return Err(invalid(format!(
                "tensor '{}' begins at {} where {covered} was expected, so tensors overlap or leave \
                 a gap",
                shown(&entry.name),
                entry.begin
            )));
        }
        covered = entry.end;
    }
    if covered > data_len {
        return Err(FormatError::Truncated {
            path: path.to_path_buf(),
            part: "data",
            needed: data_begin.saturating_add(covered),
            found,
        });
    }
    if covered < data_len {
        return Err(FormatError::TrailingBytes {
            path: path.to_path_buf(),
            extra: data_len - covered,
        });
    }
    // All offsets are within the file now, so these sums cannot overflow.
    for entry in &mut entries {
        entry.begin += data_begin;
        entry.end += data_begin;
    }
    Ok(Header {
        entries,
        metadata: raw.metadata,
    })
}

/// Returns the size of a tensor in bytes, or `None` if it overflows.
pub(crate) fn byte_count(shape: &[usize], dtype: Dtype) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |product, &dim| product.checked_mul(dim))?
        .checked_mul(dtype.size())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTensor {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) data_offsets: (u64, u64),
}

/// The header as written: a list, so that a name that occurs twice is still seen.
pub(crate) struct RawHeader {
    pub(crate) tensors: Vec<(String, RawTensor)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;

        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = RawHeader;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object with one entry a tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut tensors = Vec::new();
                let mut metadata = None;
                while let Some(name) = map.next_key::<String>()? {
                    if name != "__metadata__" {
                        tensors.push((name, map.next_value()?));
                    } else if metadata.replace(map.next_value()?).is_some() {
                        return Err(A::Error::custom("__metadata__ occurs twice"));
                    }
                }
                Ok(RawHeader {
                    tensors,
                    metadata: metadata.unwrap_or_default(),
                })
            }
        }

        deserializer.deserialize_map(HeaderVisitor)
    }
}
