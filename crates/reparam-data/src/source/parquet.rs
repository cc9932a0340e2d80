//! The rows of a Parquet file, as JSON has them.

use std::any::Any;
use std::collections::HashMap;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::metadata::FileMetaData;
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use reparam_formats::file::InputFile;
use serde::Deserialize;
use serde_json::{Map, Number, Value};

use super::input::digested;
use super::{DocumentSource, FileDigest};
use crate::error::{DataError, Result};

mod differences;
mod footer;
mod pages;
#[cfg(test)]
mod tests;

use pages::Checked;

/// A result, or what is wrong with a file in words.
type Said<T> = std::result::Result<T, String>;

/// The key under which the `datasets` library keeps what it knows of the columns.
const HUGGINGFACE: &str = "huggingface";

/// Reads the rows of a file, in order. The line of a row's place is its number.
///
/// Of columns that `is_wanted` does not want, those with lists, objects and bytes are not read: they may be images. Numbers that
/// the metadata of the `datasets` library has names for, which are labels, become these names; -1, which stands for no label,
/// becomes null.
///
/// # Errors
///
/// [`DataError::Parquet`] for a file that is none, or is damaged; [`DataError::NoRows`]; those of `each`.
///
/// # Cost
///
/// In memory one page and one dictionary of each column that is read, and one row. A page has at most 2 GiB, which a small file
/// can hold compressed. The values of a dictionary and the lengths of texts, of which a page says how many there are, take no more
/// than their bytes can hold: at most 8 times those of a dictionary, and 256 MiB for lengths. A footer has at most 16 MiB.
pub(crate) fn rows(
    path: &Path,
    is_wanted: impl Fn(&str) -> bool,
    mut each: impl FnMut(Result<Map<String, Value>>, DocumentSource) -> Result<()>,
) -> Result<FileDigest> {
    let (file, digest) = digested(path)?;
    let invalid = |message: String| DataError::Parquet {
        path: path.to_owned(),
        message,
    };
    footer::check(&file).map_err(invalid)?;
    let chunks = Chunks(Arc::new(file));
    let reader = guarded(|| SerializedFileReader::new(chunks).map(Checked)).map_err(invalid)?;
    let metadata = reader.metadata().file_metadata();
    let names = label_names(metadata);
    let columns = columns(metadata.schema(), is_wanted).map_err(invalid)?;
    let mut rows = guarded(|| reader.get_row_iter(Some(columns))).map_err(invalid)?;
    let path: Arc<Path> = Arc::from(path);
    for line in 1.. {
        let Some(row) = guarded(|| rows.next().transpose()).map_err(invalid)? else {
            if line == 1 {
                return Err(DataError::NoRows {
                    path: path.to_path_buf(),
                });
            }
            break;
        };
        let columns = row.into_columns().into_iter();
        let object = columns.map(|(name, field)| {
            let value = match names.get(&name) {
                Some(names) => named(value(field), names),
                None => value(field),
            };
            (name, value)
        });
        let place = DocumentSource {
            path: Arc::clone(&path),
            line,
            item: None,
        };
        each(Ok(object.collect()), place)?;
    }
    Ok(digest)
}

/// Chooses the columns to read: all, if none is wanted, so that an error can name them.
fn columns(schema: &Type, is_wanted: impl Fn(&str) -> bool) -> Said<Type> {
    use parquet::basic::Type as Physical;
    let fields = schema.get_fields();
    let is_small = |field: &Type| {
        let is_text = |field: &Type| {
            let info = field.get_basic_info();
            info.logical_type_ref().is_some()
                || info.converted_type() != parquet::basic::ConvertedType::NONE
        };
        match field {
            Type::GroupType { .. } => false,
            Type::PrimitiveType { physical_type, .. } => match physical_type {
                Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY => is_text(field),
                _ => true,
            },
        }
    };
    let has_wanted = fields.iter().any(|field| is_wanted(field.name()));
    let chosen = fields
        .iter()
        .filter(|field| !has_wanted || is_wanted(field.name()) || is_small(field));
    let builder = Type::group_type_builder(schema.name());
    let chosen = builder.with_fields(chosen.cloned().collect()).build();
    chosen.map_err(|error| error.to_string())
}

/// The names of the classes of columns of labels.
fn label_names(metadata: &FileMetaData) -> HashMap<String, Vec<String>> {
    #[derive(Deserialize)]
    struct Known {
        info: Info,
    }
    #[derive(Deserialize)]
    struct Info {
        features: HashMap<String, Value>,
    }
    let mut entries = metadata.key_value_metadata().into_iter().flatten();
    let known = entries.find(|entry| entry.key == HUGGINGFACE);
    let known = known.and_then(|entry| serde_json::from_str(entry.value.as_deref()?).ok());
    let Some(Known { info }) = known else {
        return HashMap::new();
    };
    let names = |feature: &Value| {
        // A list of labels, one a token, has them inside.
        let inside = feature.get("feature").filter(|inside| inside.is_object());
        let feature = inside.unwrap_or(feature);
        let names = feature
            .get("names")
            .filter(|_| feature["_type"] == "ClassLabel");
        serde_json::from_value(names?.clone()).ok()
    };
    let features = info.features.into_iter();
    features
        .filter_map(|(column, feature)| Some((column, names(&feature)?)))
        .collect()
}

/// Puts the names of labels in the place of their numbers.
fn named(value: Value, names: &[String]) -> Value {
    match value {
        Value::Array(list) => list.into_iter().map(|value| named(value, names)).collect(),
        Value::Number(number) => match number.as_i64() {
            Some(-1) => Value::Null,
            index => {
                let index = index.and_then(|index| usize::try_from(index).ok());
                let name = index.and_then(|index| names.get(index));
                name.map_or(Value::Number(number), |name| Value::from(name.as_str()))
            }
        },
        other => other,
    }
}

/// Returns a value as JSON has it. Times are written as text, bytes that are no text as a list of numbers, which nothing takes
/// for one; a number that is none is null.
fn value(field: Field) -> Value {
    let number = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float16(value) => number(value.into()),
        Field::Float(value) => number(value.into()),
        Field::Double(value) => number(value),
        Field::Str(value) => value.into(),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => text.into(),
            Err(_) => bytes.data().into(),
        },
        Field::Group(row) => {
            let columns = row.into_columns().into_iter();
            Value::Object(columns.map(|(name, field)| (name, value(field))).collect())
        }
        Field::ListInternal(list) => list.elements().iter().cloned().map(value).collect(),
        Field::MapInternal(map) => {
            let entry = |(key, field): &(Field, Field)| {
                let key = match value(key.clone()) {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                (key, value(field.clone()))
            };
            Value::Object(map.entries().iter().map(entry).collect())
        }
        Field::Decimal(_)
        | Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_) => field.to_string().into(),
    }
}

/// Runs the library, which panics on some files that contradict themselves and on types that it does not know.
fn guarded<T>(work: impl FnOnce() -> parquet::errors::Result<T>) -> Said<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(payload) => Err(said(payload.as_ref())),
    }
}

/// Returns what a panic said.
fn said(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it contradicts itself").to_owned()
}

/// The file, of which the library reads parts whose places the file itself says.
struct Chunks(Arc<InputFile>);

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Chunks {
    type T = Part;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Part> {
        Ok(Part {
            file: Arc::clone(&self.0),
            at: start,
            buffer: Vec::new(),
            read: 0,
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > self.0.len()) {
            return Err(ParquetError::EOF(format!(
                "{length} bytes at {start} are beyond the end of the file"
            )));
        }
        let mut bytes = vec![0; length];
        let read = self.0.read_at(&mut bytes, start);
        read.map_err(|error| ParquetError::External(Box::new(error)))?;
        Ok(bytes.into())
    }
}

/// What stands from a place on.
struct Part {
    file: Arc<InputFile>,
    /// The place behind the buffer.
    at: u64,
    buffer: Vec<u8>,
    /// How much of the buffer has been read.
    read: usize,
}

impl Read for Part {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        // Headers are read a few bytes at a time.
        const AT_ONCE: u64 = 1 << 13;
        if self.read == self.buffer.len() {
            let left = self.file.len().saturating_sub(self.at);
            self.buffer.resize(left.min(AT_ONCE) as usize, 0);
            self.read = 0;
            let read = self.file.read_at(&mut self.buffer, self.at);
            read.map_err(io::Error::other)?;
            self.at += self.buffer.len() as u64;
        }
        let mut unread = &self.buffer[self.read..];
        let read = unread.read(to)?;
        self.read += read;
        Ok(read)
    }
}
