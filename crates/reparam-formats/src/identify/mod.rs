//! What a file or a directory is, by what is in it.
//!
//! A file with the wrong name or content is recognized before it is read as something else, so that an error says what it is
//! and what works instead of which byte did not fit.

mod bytes;
mod directory;
mod quantized;
mod tensors;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use bytes::{kind_of_bytes, kind_of_text};
pub use directory::{ModelDirectory, identify};
pub use quantized::{Quantization, quantization};
pub use tensors::{ListedTensor, list_tensors};

use crate::FormatError;
use crate::file::InputFile;

/// How many bytes at the beginning of a file tell what it is.
pub const HEAD_BYTES: usize = 4096;

/// What a file or a directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Tensors in the safetensors format.
    Safetensors,
    /// The text that Git LFS leaves in place of a file which was not downloaded.
    LfsPointer,
    /// A model for llama.cpp.
    Gguf,
    /// A file of `torch.save`: a ZIP archive around a pickle.
    PyTorch,
    /// A pickle, as older versions of PyTorch and joblib write.
    Pickle,
    /// The model of a SentencePiece tokenizer.
    SentencePiece,
    /// An array of NumPy.
    Numpy,
    /// A ZIP archive of NumPy's arrays.
    Npz,
    /// A gzip archive.
    Gzip,
    /// A bzip2 archive.
    Bzip2,
    /// An xz archive.
    Xz,
    /// A Zstandard archive.
    Zstd,
    /// A ZIP archive.
    Zip,
    /// A 7-Zip archive.
    SevenZip,
    /// A tar archive.
    Tar,
    /// A table in the Parquet format.
    Parquet,
    /// A table in the Arrow format.
    Arrow,
    /// A spreadsheet or another document of an office program.
    Office,
    /// A PDF document.
    Pdf,
    /// A database of SQLite.
    Sqlite,
    /// An HDF5 file, as Keras writes.
    Hdf5,
    /// An image, by its format.
    Image(ImageKind),
    /// A web page, as a failed download leaves behind.
    Html,
    /// One JSON value.
    Json,
    /// A JSON object on each line.
    JsonLines,
    /// A table as text, with this character between its columns.
    Table(char),
    /// Text that is none of the above.
    Text,
    /// Bytes that are nothing known.
    Unknown,
    /// A file without a byte.
    EmptyFile,
    /// Neither a file nor a directory: a pipe, a socket or a device.
    Special,
    /// The directory of a PEFT adapter.
    Adapter,
    /// The directory of a run.
    Run,
    /// A directory in which runs are, by their names.
    Runs(Vec<String>),
    /// The directory of a model.
    Model(ModelDirectory),
    /// A directory with a tokenizer and no model.
    Tokenizer,
    /// A directory without a file.
    EmptyDirectory,
    /// A directory that is nothing known.
    Directory,
}

/// The format of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the formats' own")]
pub enum ImageKind {
    Png,
    Jpeg,
    Gif,
    Webp,
    Tiff,
    Bmp,
}

impl Kind {
    /// Returns what it is with its article, as part of a sentence: `a gzip archive`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Safetensors => "a safetensors file",
            Self::LfsPointer => "a Git LFS pointer",
            Self::Gguf => "a GGUF file",
            Self::PyTorch => "a pickle of PyTorch",
            Self::Pickle => "a pickle",
            Self::SentencePiece => "a SentencePiece model",
            Self::Numpy => "a NumPy array",
            Self::Npz => "an archive of NumPy arrays",
            Self::Gzip => "a gzip archive",
            Self::Bzip2 => "a bzip2 archive",
            Self::Xz => "an xz archive",
            Self::Zstd => "a Zstandard archive",
            Self::Zip => "a ZIP archive",
            Self::SevenZip => "a 7-Zip archive",
            Self::Tar => "a tar archive",
            Self::Parquet => "a Parquet file",
            Self::Arrow => "an Arrow file",
            Self::Office => "an office document",
            Self::Pdf => "a PDF document",
            Self::Sqlite => "a SQLite database",
            Self::Hdf5 => "an HDF5 file",
            Self::Image(ImageKind::Png) => "a PNG image",
            Self::Image(ImageKind::Jpeg) => "a JPEG image",
            Self::Image(ImageKind::Gif) => "a GIF image",
            Self::Image(ImageKind::Webp) => "a WebP image",
            Self::Image(ImageKind::Tiff) => "a TIFF image",
            Self::Image(ImageKind::Bmp) => "a BMP image",
            Self::Html => "a web page",
            Self::Json => "a JSON file",
            Self::JsonLines => "a file of JSON Lines",
            Self::Table(',') => "a table with commas (CSV)",
            Self::Table('\t') => "a table with tabs (TSV)",
            Self::Table(_) => "a table with semicolons",
            Self::Text => "a text file",
            Self::Unknown => "a file of unknown kind",
            Self::EmptyFile => "an empty file",
            Self::Special => "a pipe, socket or device",
            Self::Adapter => "an adapter",
            Self::Run => "the directory of a run",
            Self::Runs(_) => "a directory of runs",
            Self::Model(_) => "a model",
            Self::Tokenizer => "a tokenizer without a model",
            Self::EmptyDirectory => "an empty directory",
            Self::Directory => "a directory",
        }
    }

    /// Returns what it is without an article: `gzip archive`.
    pub fn noun(&self) -> &'static str {
        let name = self.name();
        let rest = name.split_once(' ').map_or(name, |(_, rest)| rest);
        match name.starts_with("the ") {
            true => name,
            false => rest,
        }
    }

    /// Returns a way that works with what it is, where one is known.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::LfsPointer => {
                "the file itself was not downloaded; run `git lfs install` and then `git lfs pull` in the \
                 repository, or download the file again"
            }
            Self::Gguf => {
                "GGUF files are for llama.cpp and often quantized; download the model's repository with \
                 model.safetensors, or in Python: AutoModelForCausalLM.from_pretrained(DIR, gguf_file=FILE)\
                 .save_pretrained(NEW_DIR)"
            }
            Self::PyTorch | Self::Pickle => {
                "pickles are not read, because unpickling runs arbitrary code; load it once in Python and \
                 write safetensors: from_pretrained(DIR), then save_pretrained(NEW_DIR)"
            }
            Self::SentencePiece => {
                "only tokenizer.json is read; in Python: AutoTokenizer.from_pretrained(DIR)\
                 .save_pretrained(DIR) writes one"
            }
            Self::Numpy | Self::Npz => {
                "in Python: numpy.savetxt(\"data.csv\", array, delimiter=\",\") makes a table of an array, \
                 safetensors.numpy.save_file(dict(numpy.load(FILE)), \"model.safetensors\") a file of tensors of an archive"
            }
            Self::Gzip => "unpack it first: gunzip -k FILE",
            Self::Bzip2 => "unpack it first: bunzip2 -k FILE",
            Self::Xz => "unpack it first: unxz -k FILE",
            Self::Zstd => "unpack it first: unzstd FILE",
            Self::Zip => "unpack it first: unzip FILE",
            Self::SevenZip => "unpack it first: 7z x FILE",
            Self::Tar => "unpack it first: tar xf FILE",
            Self::Parquet => {
                "in Python: pandas.read_parquet(FILE).to_json(\"data.jsonl\", orient=\"records\", lines=True, \
                 force_ascii=False)"
            }
            Self::Arrow => {
                "in Python: datasets.Dataset.from_file(FILE).to_json(\"data.jsonl\", force_ascii=False)"
            }
            Self::Office => "save it as CSV in the program that it was made with",
            Self::Pdf => "extract its text first: pdftotext FILE",
            Self::Sqlite => {
                "write the rows out first: sqlite3 -csv -header FILE \"select * from TABLE\" > data.csv"
            }
            Self::Html => {
                "the download went wrong, or the address was of a page about the file; download the file itself"
            }
            Self::EmptyFile => "the download or copy was cut short; fetch it again",
            Self::Special => "give a file; write what comes through the pipe to one first",
            Self::Adapter => "give it as --adapter, and as --model the base that it was trained on",
            Self::Run => "its result is in the subdirectory adapter or model",
            Self::Model(_) => "give it as --model",
            Self::Runs(_) => "give one of the runs in it",
            Self::Tokenizer => "download the model too: config.json and model.safetensors",
            Self::EmptyDirectory | Self::Directory => {
                "a model is a directory with config.json, model.safetensors and tokenizer.json"
            }
            Self::Safetensors
            | Self::Hdf5
            | Self::Image(_)
            | Self::Json
            | Self::JsonLines
            | Self::Table(_)
            | Self::Text
            | Self::Unknown => return None,
        })
    }
}

/// Refuses what is no file, and a file that is known to be of another kind than the one wanted.
///
/// Bytes that are nothing known are left to the reader, whose own error is better.
///
/// # Errors
///
/// [`FormatError::AnotherKind`], and those of reading its first bytes.
pub fn expect_kind(path: &Path, wanted: &Kind) -> Result<(), FormatError> {
    expect_kind_of(&InputFile::open(path)?, wanted)
}

/// [`expect_kind`] of a file that is open.
pub(crate) fn expect_kind_of(file: &InputFile, wanted: &Kind) -> Result<(), FormatError> {
    expect_kind_of_bytes(file.path(), &head_of(file)?, wanted)
}

/// [`expect_kind`] of the bytes of a file that was read, which is at `path`.
///
/// # Errors
///
/// [`FormatError::AnotherKind`].
pub fn expect_kind_of_bytes(path: &Path, bytes: &[u8], wanted: &Kind) -> Result<(), FormatError> {
    let head = &bytes[..bytes.len().min(HEAD_BYTES)];
    let is_page = |kind: &Kind| *kind == Kind::Html;
    let kind = kind_of_bytes(head).or_else(|| kind_of_text(head).filter(is_page));
    match kind.filter(|kind| kind != wanted) {
        None => Ok(()),
        Some(kind) => Err(FormatError::AnotherKind {
            path: path.to_path_buf(),
            kind,
            wanted: wanted.name(),
        }),
    }
}

/// Reads the first bytes of a file.
pub(crate) fn read_head(path: &Path) -> Result<Vec<u8>, FormatError> {
    head_of(&InputFile::open(path)?)
}

fn head_of(file: &InputFile) -> Result<Vec<u8>, FormatError> {
    let mut head = vec![0; file.len().min(HEAD_BYTES as u64) as usize];
    file.read_at(&mut head, 0)?;
    Ok(head)
}
