//! The values of a file's metadata.

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names are the format's own types")]
pub enum GgufValue {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
}

/// The format's numbers of types.
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

impl GgufValue {
    /// Adds the type and the value.
    pub(super) fn append(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::U32(value) => append(bytes, U32, &value.to_le_bytes()),
            Self::F32(value) => append(bytes, F32, &value.to_le_bytes()),
            Self::Bool(value) => append(bytes, BOOL, &[u8::from(*value)]),
            Self::Text(text) => {
                bytes.extend(TEXT.to_le_bytes());
                append_text(bytes, text);
            }
            Self::Texts(texts) => {
                begin_array(bytes, TEXT, texts.len());
                for text in texts {
                    append_text(bytes, text);
                }
            }
            Self::I32s(values) => {
                begin_array(bytes, I32, values.len());
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
            Self::F32s(values) => {
                begin_array(bytes, F32, values.len());
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
    }
}

fn append(bytes: &mut Vec<u8>, kind: u32, value: &[u8]) {
    bytes.extend(kind.to_le_bytes());
    bytes.extend(value);
}

fn begin_array(bytes: &mut Vec<u8>, kind: u32, len: usize) {
    bytes.extend(ARRAY.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend((len as u64).to_le_bytes());
}

/// Adds a text with its length before it.
pub(super) fn append_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}
