//! Checkpoints in the layout of Hugging Face: `model.safetensors`, or shards and their index.

mod digest;
mod dtype;
pub(crate) mod header;
mod stored;
mod strict;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

pub(crate) use digest::hexadecimal;
pub use digest::{sha256_bytes, sha256_file};
pub use dtype::Dtype;
pub use stored::StoredTensor;
pub use strict::{LoadMismatch, Misshaped};
pub use view::TensorView;

use crate::file::{self, InputFile};
use crate::identify::{Kind, expect_kind_of};
use crate::safetensors::{TensorToWrite, safetensors_bytes};
use crate::{FormatError, shown};
use header::Entry;

pub(crate) const SINGLE_FILE: &str = "model.safetensors";
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";

/// The tensors of a model directory.
///
/// Opening reads and checks the headers only; a tensor's bytes are read when they are asked for, by position from the files as
/// they were opened. A file that is replaced by a rename does no harm; one that is rewritten or cut in place is an error.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::path::Path;
/// use reparam_formats::checkpoint::Checkpoint;
///
/// # let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/stories260K");
/// let checkpoint = Checkpoint::open(&root)?;
/// let embedding = checkpoint.expect("model.embed_tokens.weight", &[512, 64])?;
/// assert_eq!(embedding.to_f32_vec()?.len(), 512 * 64);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    shards: Vec<Shard>,
    /// Where each tensor is: the shard, and the entry in it.
    tensors: BTreeMap<String, (usize, Entry)>,
}

#[derive(Debug)]
struct Shard {
    file: InputFile,
    metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens `model.safetensors` of a directory, or else all shards that
    /// `model.safetensors.index.json` names.
    ///
    /// # Errors
    ///
    /// [`FormatError::NoSuchDirectory`], [`FormatError::NoWeights`], [`FormatError::PickleOnly`];
    /// [`FormatError::InvalidIndex`], [`FormatError::MissingShard`],
    /// [`FormatError::TensorNotInShard`], [`FormatError::DuplicateTensor`] for shards;
    /// [`FormatError::Truncated`], [`FormatError::TrailingBytes`], [`FormatError::InvalidHeader`],
    /// [`FormatError::UnsupportedDtype`] for each file.
    pub fn open(directory: &Path) -> Result<Self, FormatError> {
        if !directory.is_dir() {
            return Err(FormatError::NoSuchDirectory {
                path: directory.to_path_buf(),
            });
        }
        let single = directory.join(SINGLE_FILE);
        if file::is_there(&single)? {
            let mut checkpoint = Self::open_file(&single)?;
            checkpoint.path = directory.to_path_buf();
            return Ok(checkpoint);
        }
        let index = directory.join(INDEX_FILE);
        if file::is_there(&index)? {
            return Self::open_shards(directory, &index);
        }
        Err(no_weights(directory))
    }

    /// Opens one safetensors file of any name.
    ///
    /// # Errors
    ///
    /// [`FormatError::NoSuchFile`], and those that [`Checkpoint::open`] gives for each file.
    pub fn open_file(path: &Path) -> Result<Self, FormatError> {
        let mut checkpoint = Self {
            path: path.to_path_buf(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
        };
        checkpoint.add_shard(InputFile::open(path)?)?;
        Ok(checkpoint)
    }

    /// Makes a checkpoint of tensors that are in no file; `path` is what errors call it.
    ///
    /// # Errors
    ///
    /// [`FormatError::InvalidTensor`] for a shape that does not fit, a repeated or reserved name.
    ///
    /// # Cost
    ///
    /// The numbers are held in memory once more.
    pub fn in_memory(path: &Path, tensors: &[TensorToWrite<'_>]) -> Result<Self, FormatError> {
        let bytes = safetensors_bytes(path, tensors)?;
        let mut checkpoint = Self {
            path: path.to_path_buf(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
        };
        checkpoint.add_shard(InputFile::of_bytes(path, bytes))?;
        Ok(checkpoint)
    }

    /// Puts tensors in the place of those that have their names, or beside the others; they are in no file.
    ///
    /// # Errors
    ///
    /// As [`in_memory`](Self::in_memory).
    ///
    /// # Cost
    ///
    /// The numbers are held in memory.
    pub fn with_tensors(mut self, tensors: &[TensorToWrite<'_>]) -> Result<Self, FormatError> {
        let bytes = safetensors_bytes(&self.path, tensors)?;
        let file = InputFile::of_bytes(&self.path, bytes);
        for tensor in tensors {
            self.tensors.remove(tensor.name);
        }
        self.add_shard(file)?;
        Ok(self)
    }

    fn open_shards(directory: &Path, index_path: &Path) -> Result<Self, FormatError> {
        let text = file::read(index_path)?;
        let index = ShardIndex::parse(index_path, &text)?;
        let mut checkpoint = Self {
            path: directory.to_path_buf(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
        };
        for shard in index.shards() {
            let path = directory.join(shard);
            if !file::is_there(&path)? {
                return Err(FormatError::MissingShard {
                    index: index_path.to_path_buf(),
                    shard: shard.to_owned(),
                });
            }
            checkpoint.add_shard(InputFile::open(&path)?)?;
        }
        for (name, shard) in &index.weight_map {
            let shard = directory.join(shard);
            if checkpoint.file_of(name) != Some(&shard) {
                return Err(FormatError::TensorNotInShard {
                    name: name.clone(),
                    shard,
                });
            }
        }
        Ok(checkpoint)
    }

    fn add_shard(&mut self, file: InputFile) -> Result<(), FormatError> {
        let path = file.path();
        expect_kind_of(&file, &Kind::Safetensors)?;
        let header = header::parse(&file)?;
        let shard = self.shards.len();
        for entry in header.entries {
            let name = entry.name.clone();
            if let Some((other, _)) = self.tensors.insert(name.clone(), (shard, entry)) {
                let first = self
                    .shards
                    .get(other)
                    .map_or(path, |other| other.file.path());
                return Err(FormatError::DuplicateTensor {
                    name,
                    first: first.to_path_buf(),
                    second: path.to_path_buf(),
                });
            }
        }
        self.shards.push(Shard {
            file,
            metadata: header.metadata,
        });
        Ok(())
    }

    /// Returns the directory or file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Iterates over the files, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.file.path())
    }

    /// Iterates over the names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Iterates over all tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, StoredTensor<'_>)> {
        self.tensors
            .iter()
            .map(|(name, (shard, entry))| (name.as_str(), self.stored(*shard, entry)))
    }

    /// Returns the number of elements of all tensors.
    pub fn total_parameters(&self) -> u64 {
        self.tensors()
            .map(|(_, tensor)| tensor.n_elements() as u64)
            .sum()
    }

    /// Returns the number of layers: of different beginnings of names up to the first part that is a number, such as
    /// `model.layers.7`.
    pub fn n_layers(&self) -> usize {
        let layer = |name: &'_ str| -> Option<usize> {
            let mut end = 0;
            name.split('.').find_map(|part| {
                end += part.len() + 1;
                let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
                is_number.then_some(end - 1)
            })
        };
        let layers = self.names().filter_map(|name| Some(&name[..layer(name)?]));
        layers.collect::<BTreeSet<_>>().len()
    }

    /// Returns the entry `key` of the files' own metadata, from the first file that has it.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.shards
            .iter()
            .find_map(|shard| shard.metadata.get(key))
            .map(String::as_str)
    }

    /// Returns the file that a tensor is in.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        self.tensors
            .get(name)
            .map(|(shard, _)| self.shards[*shard].file.path())
    }

    /// Returns a tensor.
    pub fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
        self.tensors
            .get(name)
            .map(|(shard, entry)| self.stored(*shard, entry))
    }

    fn stored<'a>(&'a self, shard: usize, entry: &'a Entry) -> StoredTensor<'a> {
        StoredTensor {
            dtype: entry.dtype,
            shape: &entry.shape,
            name: &entry.name,
            file: &self.shards[shard].file,
            begin: entry.begin,
            end: entry.end,
        }
    }

    /// Returns a tensor that has to be there.
    ///
    /// # Errors
    ///
    /// [`FormatError::NoSuchTensor`] with the most similar name.
    pub fn require(&self, name: &str) -> Result<StoredTensor<'_>, FormatError> {
        self.get(name).ok_or_else(|| FormatError::NoSuchTensor {
            name: name.to_owned(),
            path: self.path.clone(),
            nearest: crate::nearest(name, self.names()).map(str::to_owned),
        })
    }

    /// Returns a tensor that has to be there in the given shape.
    ///
    /// # Errors
    ///
    /// [`FormatError::NoSuchTensor`] or [`FormatError::WrongShape`].
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<StoredTensor<'_>, FormatError> {
        let tensor = self.require(name)?;
        if tensor.shape == shape {
            return Ok(tensor);
        }
        Err(FormatError::WrongShape {
            name: name.to_owned(),
            expected: shape.to_vec(),
            found: tensor.shape.to_vec(),
            path: tensor.file().to_path_buf(),
        })
    }

    /// Returns whether two tensors hold the same numbers in the same shape, whatever their types.
    ///
    /// # Errors
    ///
    /// [`FormatError::NoSuchTensor`], [`FormatError::NotFloat`]; those of [`InputFile::read_at`].
    pub fn are_equal(&self, a: &str, b: &str) -> Result<bool, FormatError> {
        const AT_ONCE: usize = 1 << 16;
        let (a, b) = (self.require(a)?, self.require(b)?);
        if a.shape != b.shape {
            return Ok(false);
        }
        let n = a.n_elements();
        let (mut of_a, mut of_b) = (vec![0.0; AT_ONCE], vec![0.0; AT_ONCE]);
        for first in (0..n).step_by(AT_ONCE) {
            let count = AT_ONCE.min(n - first);
            a.read_f32(first, &mut of_a[..count])?;
            b.read_f32(first, &mut of_b[..count])?;
            let same = |(a, b): (&f32, &f32)| a == b || a.to_bits() == b.to_bits();
            if !of_a.iter().zip(&of_b).take(count).all(same) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The part of `model.safetensors.index.json` that matters.
#[derive(Debug, Deserialize)]
pub(crate) struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Parses an index and checks that its shards are plain file names.
    pub(crate) fn parse(path: &Path, text: &[u8]) -> Result<Self, FormatError> {
        let invalid = |detail| FormatError::InvalidIndex {
            path: path.to_path_buf(),
            detail,
        };
        let index: Self =
            serde_json::from_slice(text).map_err(|error| invalid(error.to_string()))?;
        if index.weight_map.is_empty() {
            return Err(invalid("weight_map is empty".to_owned()));
        }
        for shard in index.shards() {
            // An index comes from the network; it must not reach outside of its directory.
            let mut components = Path::new(shard).components();
            let is_plain = matches!(components.next(), Some(Component::Normal(_)))
                && components.next().is_none()
                && !shard.contains('\\');
            if !is_plain {
                return Err(invalid(format!(
                    "'{}' is not a plain file name",
                    shown(shard)
                )));
            }
            if !shard.ends_with(".safetensors") {
                return Err(invalid(format!(
                    "'{}' is not a safetensors file",
                    shown(shard)
                )));
            }
        }
        Ok(index)
    }

    /// Returns the names of the shards, sorted and without repetition.
    pub(crate) fn shards(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}

/// Says why a directory without `model.safetensors` and without an index cannot be read.
fn no_weights(directory: &Path) -> FormatError {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(source) => return FormatError::io("read", directory, source),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let path = directory.to_path_buf();
    let candidates: Vec<String> = names
        .iter()
        .filter(|name| name.ends_with(".safetensors"))
        .cloned()
        .collect();
    let files: Vec<String> = names.into_iter().filter(|name| is_pickle(name)).collect();
    if candidates.is_empty() && !files.is_empty() {
        FormatError::PickleOnly { path, files }
    } else {
        FormatError::NoWeights { path, candidates }
    }
}

/// Returns whether a file of weights is a pickle, by its name.
pub(crate) fn is_pickle(name: &str) -> bool {
    let is_weights_bin = name.ends_with(".bin")
        && (name.starts_with("pytorch_model") || name.starts_with("adapter_model"));
    is_weights_bin
        || [".pt", ".pth", ".ckpt", ".pkl"]
            .iter()
            .any(|end| name.ends_with(end))
}
