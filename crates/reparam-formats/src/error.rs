//! Errors of reading and writing files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::{Dtype, LoadMismatch};
use crate::identify::{Kind, Quantization};
use crate::{shown, shown_sentence};

/// Says why a file or a checkpoint could not be read or written.
///
/// Every variant carries the values that were found; [`FormatError::hint`] says what to do about
/// them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The path of a model or adapter does not exist, or is not a directory.
    #[error("no such directory: {}", path.display())]
    NoSuchDirectory {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// A file that has to be there is missing.
    #[error("no such file: {}", path.display())]
    NoSuchFile {
        /// The missing file.
        path: PathBuf,
    },
    /// A file or directory is something else than what was wanted of it.
    #[error("{} is {}, not {wanted}", path.display(), kind.name())]
    AnotherKind {
        /// The path.
        path: PathBuf,
        /// What is there.
        kind: Kind,
        /// What was wanted, with its article.
        wanted: &'static str,
    },
    /// A link leads to nothing.
    #[error("{} is a link to {}, which does not exist", path.display(), target.display())]
    BrokenLink {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// The weights of a model are quantized in a way that is not read.
    #[error("the weights in {} are quantized by {}, which is not read", path.display(), by.name())]
    Quantized {
        /// The directory.
        path: PathBuf,
        /// By what.
        by: Quantization,
    },
    /// A file was cut while it was read.
    #[error("{} became shorter while it was read: it had {before} bytes and has {now}", path.display())]
    Shortened {
        /// The file.
        path: PathBuf,
        /// Its length when it was opened.
        before: u64,
        /// Its length now.
        now: u64,
    },
    /// A file was written to while it was read.
    #[error("{} was changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A text is not UTF-8.
    #[error("{} is not UTF-8 text: byte {offset} is the first that is wrong", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// How many bytes before it are right.
        offset: usize,
    },
    /// A directory holds no weights in a format that is read here.
    #[error("no weights found in {}", path.display())]
    NoWeights {
        /// The directory.
        path: PathBuf,
        /// Other `.safetensors` files in it, which may be what was meant.
        candidates: Vec<String>,
    },
    /// A directory holds its weights as pickles only.
    #[error("{} holds only pickled weights ({}), which are not read because unpickling runs arbitrary code", path.display(), first_names(files))]
    PickleOnly {
        /// The directory.
        path: PathBuf,
        /// The pickle files found.
        files: Vec<String>,
    },
    /// The index names a shard that is not there.
    #[error("the index {} names the shard '{shard}', which does not exist", index.display(), shard = shown(shard))]
    MissingShard {
        /// The index file.
        index: PathBuf,
        /// The shard's file name.
        shard: String,
    },
    /// The index is not what `model.safetensors.index.json` has to be.
    #[error("invalid index {}: {detail}", path.display(), detail = shown_sentence(detail))]
    InvalidIndex {
        /// The index file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The index says that a tensor is in a shard which does not contain it.
    #[error("the index places tensor '{name}' in {}, which does not contain it", shard.display(), name = shown(name))]
    TensorNotInShard {
        /// The tensor.
        name: String,
        /// The shard.
        shard: PathBuf,
    },
    /// One tensor is stored twice.
    #[error("tensor '{name}' is stored twice: in {} and in {}", first.display(), second.display(), name = shown(name))]
    DuplicateTensor {
        /// The tensor.
        name: String,
        /// Where it was found first.
        first: PathBuf,
        /// Where it was found again; equal to `first` when one header repeats it.
        second: PathBuf,
    },
    /// A file is shorter than its own header says.
    #[error("{} is truncated: its {part} needs {needed} bytes, the file has {found}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Which part does not fit: `length field`, `header` or `data`.
        part: &'static str,
        /// The size in bytes that the file needs at least.
        needed: u64,
        /// The size in bytes that it has.
        found: u64,
    },
    /// A file is longer than its tensors.
    #[error("{} has {extra} bytes after its last tensor", path.display())]
    TrailingBytes {
        /// The file.
        path: PathBuf,
        /// The number of bytes that belong to no tensor.
        extra: u64,
    },
    /// A safetensors header breaks the format.
    #[error("invalid safetensors header in {}: {detail}", path.display(), detail = shown_sentence(detail))]
    InvalidHeader {
        /// The file.
        path: PathBuf,
        /// Which rule is broken.
        detail: String,
    },
    /// A tensor has an element type that is not supported.
    #[error("tensor '{name}' in {} has the unsupported dtype {dtype}", path.display(), name = shown(name), dtype = shown(dtype))]
    UnsupportedDtype {
        /// The tensor.
        name: String,
        /// The type as written in the header.
        dtype: String,
        /// The file.
        path: PathBuf,
    },
    /// A tensor of integers or booleans was asked for as floating point numbers.
    #[error("tensor of dtype {dtype} is not floating point")]
    NotFloat {
        /// The element type.
        dtype: Dtype,
    },
    /// A tensor is not in the checkpoint.
    #[error("no tensor '{name}' in {}", path.display(), name = shown(name))]
    NoSuchTensor {
        /// The tensor that was asked for.
        name: String,
        /// The checkpoint.
        path: PathBuf,
        /// The most similar name in the checkpoint, if one is similar.
        nearest: Option<String>,
    },
    /// A tensor has another shape than the model needs.
    #[error("tensor '{name}' in {} has shape {found:?}, expected {expected:?}", path.display(), name = shown(name))]
    WrongShape {
        /// The tensor.
        name: String,
        /// The shape that the model needs.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
        /// The file.
        path: PathBuf,
    },
    /// A tensor contains a NaN or an infinity.
    #[error("tensor '{name}' in {} is not finite: element {index} is {value}", path.display(), name = shown(name))]
    NonFinite {
        /// The tensor.
        name: String,
        /// The file.
        path: PathBuf,
        /// The flat (row-major) index of the first such element.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// A number of a tensor is larger than `f32` can be.
    #[error("element {index} of tensor '{name}' in {} is {value}, which is beyond f32", path.display(), name = shown(name))]
    BeyondF32 {
        /// The tensor.
        name: String,
        /// The file.
        path: PathBuf,
        /// The flat (row-major) index of the first such element.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// A checkpoint and a model do not agree.
    #[error("{0}")]
    Mismatch(Box<LoadMismatch>),
    /// A tensor to be written is inconsistent.
    #[error("cannot write tensor '{name}': {detail}", name = shown(name), detail = shown_sentence(detail))]
    InvalidTensor {
        /// The tensor.
        name: String,
        /// What is wrong.
        detail: String,
    },
    /// The target of an atomic directory is something else than a directory.
    #[error("{} exists and is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The user may not do this here, or the file system is read-only.
    #[error("cannot {action} {}: permission denied", path.display())]
    Permission {
        /// What was tried, such as `write`.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The disk or the user's quota is full.
    #[error("cannot {action} {}: no space left", path.display())]
    DiskFull {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Any other error of the file system.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl FormatError {
    /// Sorts an error of the file system into the variant that tells the user what to do.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Permission {
                    action,
                    path,
                    source,
                }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull {
                action,
                path,
                source,
            },
            io::ErrorKind::NotFound if action == "read" => match fs::read_link(&path) {
                Ok(target) => Self::BrokenLink { path, target },
                Err(_) => Self::NoSuchFile { path },
            },
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }

    /// Returns what the user can do about the error, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoSuchDirectory { .. } => {
                "give the path of a directory that contains config.json and model.safetensors"
                    .to_owned()
            }
            Self::AnotherKind { kind, .. } => return kind.hint().map(str::to_owned),
            Self::BrokenLink { .. } => {
                "restore what the link leads to, or put the file itself in its place; a link in the hub's \
                 cache breaks when its blobs are deleted: download the model again"
                    .to_owned()
            }
            Self::Quantized { .. } => {
                "use the model that it was made from, with weights in F32, BF16 or F16; `precision = \"int8\"` \
                 reads that unquantized model in 8 bits"
                    .to_owned()
            }
            Self::Shortened { .. } | Self::Changed { .. } => {
                "wait until whatever writes the file has finished, and try again; a file that is replaced by a \
                 rename may be replaced at any time"
                    .to_owned()
            }
            Self::NotText { .. } => {
                "the file is damaged, or not what its name says; fetch or write it again".to_owned()
            }
            Self::NoWeights { candidates, .. } if candidates.is_empty() => {
                "the directory needs model.safetensors, or model.safetensors.index.json and the shards \
                 it names"
                    .to_owned()
            }
            Self::NoWeights { candidates, .. } => {
                if candidates.iter().any(|name| name == "adapter_model.safetensors") {
                    "this is an adapter; give the base model's directory as the model and this one as \
                     the adapter"
                        .to_owned()
                } else {
                    format!(
                        "the weights have to be called model.safetensors, or be named in \
                         model.safetensors.index.json; found {}",
                        first_names(candidates)
                    )
                }
            }
            Self::PickleOnly { files, .. } if files.iter().any(|name| name.starts_with("adapter_")) => {
                "write safetensors once, in Python: PeftModel.from_pretrained(BASE, DIR)\
                 .save_pretrained(NEW_DIR)"
                    .to_owned()
            }
            Self::PickleOnly { .. } => {
                "write safetensors once, in Python: AutoModelForCausalLM.from_pretrained(DIR)\
                 .save_pretrained(NEW_DIR)"
                    .to_owned()
            }
            Self::MissingShard { .. } | Self::TensorNotInShard { .. } => {
                "download or copy the model again; all shards of one index belong together".to_owned()
            }
            Self::Truncated { .. } => {
                "the download or copy was cut short; fetch the file again".to_owned()
            }
            Self::TrailingBytes { .. } | Self::InvalidHeader { .. } | Self::InvalidIndex { .. } => {
                "the file is damaged or is not what its name says; fetch or write it again".to_owned()
            }
            Self::UnsupportedDtype { .. } => {
                "convert the checkpoint to F32, BF16 or F16 first".to_owned()
            }
            Self::NoSuchTensor { nearest: Some(nearest), .. } => {
                format!("did you mean '{nearest}'?")
            }
            Self::WrongShape { .. } => {
                "config.json and the weights are of different models".to_owned()
            }
            Self::NonFinite { .. } | Self::BeyondF32 { .. } => {
                "the checkpoint is from a run that diverged, or is damaged; use an earlier one"
                    .to_owned()
            }
            Self::Mismatch(mismatch) => return mismatch.hint(),
            Self::Permission { .. } => {
                "choose a directory that you may write to, or change its permissions".to_owned()
            }
            Self::DiskFull { .. } => {
                "free some space or choose another disk; nothing was overwritten".to_owned()
            }
            Self::NotADirectory { .. } => "choose another path, or remove that file".to_owned(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::FileTooLarge => {
                "raise the limit on the size of files (ulimit -f)".to_owned()
            }
            Self::NoSuchFile { .. }
            | Self::DuplicateTensor { .. }
            | Self::NotFloat { .. }
            | Self::NoSuchTensor { nearest: None, .. }
            | Self::InvalidTensor { .. }
            | Self::Io { .. } => return None,
        };
        Some(text)
    }
}

/// How many names an error message lists before it only counts them.
pub(crate) const NAMES_SHOWN: usize = 10;

/// Joins the first names of a list and counts the rest.
pub(crate) fn first_names<S: AsRef<str>>(names: &[S]) -> String {
    let mut text = String::new();
    for (position, name) in names.iter().take(NAMES_SHOWN).enumerate() {
        let separator = if position == 0 { "" } else { ", " };
        text.push_str(&format!("{separator}{}", shown(name)));
    }
    if names.len() > NAMES_SHOWN {
        text.push_str(&format!(" and {} more", names.len() - NAMES_SHOWN));
    }
    text
}
