//! A file of data, read from its beginning to its end: plain, or expanded while it is read.
//!
//! How a file is compressed, its first bytes say; its name may, as in `a.jsonl.gz`. The members of a gzip file and the frames of
//! a Zstandard file follow one another, as `cat a.gz b.gz` writes them.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use reparam_formats::FormatError;
use reparam_formats::file::InputFile;
use reparam_formats::identify::{Kind, kind_of_bytes};
use sha2::{Digest, Sha256};

use super::content::not_opened;
use super::{FileDigest, hex};
use crate::error::{DataError, Result};

#[cfg(test)]
mod tests;

/// How many bytes are read at once.
pub(super) const PIECE: usize = 1 << 16;

/// The most bytes that a compressed file may become where it is read as a whole, or that a line of it may have: a few kilobytes
/// can hold terabytes of zeros.
const MAX_EXPANDED: u64 = 4 << 30;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    /// The last extension that such files have.
    const EXTENSIONS: [&str; 3] = ["gz", "zst", "zstd"];

    fn of_bytes(head: &[u8]) -> Option<Self> {
        // A skippable frame of Zstandard, which parallel writers put first: its number, then its size.
        let skippable = matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
        match kind_of_bytes(head) {
            Some(Kind::Gzip) => Some(Self::Gzip),
            Some(Kind::Zstd) => Some(Self::Zstd),
            _ => skippable.then_some(Self::Zstd),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// The name that a file has without the extension of its compression.
pub(crate) fn expanded_name(path: &Path) -> Cow<'_, Path> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let is_compressed = extension.is_some_and(|extension| {
        let known = Compression::EXTENSIONS.iter();
        known
            .into_iter()
            .any(|known| known.eq_ignore_ascii_case(extension))
    });
    match is_compressed {
        true => path.with_extension("").into(),
        false => path.into(),
    }
}

/// A file that is being read.
pub(crate) struct Input {
    path: PathBuf,
    reader: Reader,
    /// The most bytes that may be in memory at once.
    limit: u64,
}

enum Reader {
    Plain(Raw),
    Gzip(Box<BufReader<MultiGzDecoder<Raw>>>),
    Zstd(BufReader<zstd::Decoder<'static, Raw>>),
}

/// The bytes of the file itself.
type Raw = BufReader<Digesting>;

/// Digests what is read of a file.
struct Digesting {
    file: InputFile,
    at: u64,
    digest: Sha256,
}

impl Read for Digesting {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let left = self.file.len() - self.at;
        let length = to.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let to = &mut to[..length];
        self.file.read_at(to, self.at).map_err(io::Error::other)?;
        self.digest.update(&*to);
        self.at += length as u64;
        Ok(length)
    }
}

impl Input {
    /// Opens a file, and finds out how it is compressed.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = InputFile::open(path).map_err(|error| not_opened(path, error))?;
        let length = file.len();
        let raw = Digesting {
            file,
            at: 0,
            digest: Sha256::new(),
        };
        let mut raw = BufReader::with_capacity(PIECE, raw);
        let head = raw.fill_buf().map_err(|error| unreadable(path, error))?;
        let compression = Compression::of_bytes(head);
        let reader = match compression {
            None => Reader::Plain(raw),
            Some(Compression::Gzip) => Reader::Gzip(Box::new(BufReader::with_capacity(
                PIECE,
                MultiGzDecoder::new(raw),
            ))),
            Some(Compression::Zstd) => {
                let decoder = zstd::Decoder::with_buffer(raw);
                let decoder = decoder.map_err(|error| unreadable(path, error))?;
                Reader::Zstd(BufReader::with_capacity(PIECE, decoder))
            }
        };
        Ok(Self {
            path: path.to_owned(),
            reader,
            limit: if compression.is_some() {
                MAX_EXPANDED
            } else {
                length
            },
        })
    }

    #[cfg(test)]
    fn with_limit(self, limit: u64) -> Self {
        Self { limit, ..self }
    }

    /// The next bytes, as many as are there; none at the end.
    pub(crate) fn head(&mut self) -> Result<&[u8]> {
        // Asked for twice, because an error needs the rest of `self`.
        if let Err(error) = self.buffered().fill_buf() {
            return Err(self.failed(error));
        }
        Ok(self.buffered().fill_buf().unwrap_or_default())
    }

    /// Passes over bytes of the [`head`](Self::head).
    pub(super) fn consume(&mut self, bytes: usize) {
        self.buffered().consume(bytes);
    }

    /// Refuses to have so many bytes in memory at once.
    pub(super) fn check_length(&self, bytes: usize) -> Result<()> {
        match bytes as u64 > self.limit {
            true => Err(self.too_large()),
            false => Ok(()),
        }
    }

    /// Appends the next line with its end to `line`; nothing at the end of the file.
    pub(crate) fn line(&mut self, line: &mut Vec<u8>) -> Result<()> {
        let limit = self.limit;
        let mut limited = self.buffered().take(limit.saturating_add(1));
        match limited.read_until(b'\n', line) {
            Ok(read) if read as u64 > limit => Err(self.too_large()),
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Reads all that is left.
    pub(crate) fn all(&mut self) -> Result<Vec<u8>> {
        let limit = self.limit;
        let mut bytes = Vec::new();
        if let Reader::Plain(_) = self.reader {
            // The file system says it, and a sparse file of a few bytes may have any length.
            let length = usize::try_from(limit).unwrap_or(usize::MAX);
            if bytes.try_reserve_exact(length).is_err() {
                return Err(DataError::NoMemory {
                    path: self.path.clone(),
                    bytes: limit,
                });
            }
        }
        let mut limited = self.buffered().take(limit.saturating_add(1));
        match limited.read_to_end(&mut bytes) {
            Ok(_) if bytes.len() as u64 > limit => Err(self.too_large()),
            Ok(_) => Ok(bytes),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Returns what the file is, once all has been read: the digest is of its own bytes, compressed as they are.
    pub(crate) fn finish(self) -> Result<FileDigest> {
        let Self { path, reader, .. } = self;
        let mut raw = match reader {
            Reader::Plain(raw) => raw,
            Reader::Gzip(reader) => reader.into_inner().into_inner(),
            Reader::Zstd(reader) => reader.into_inner().finish(),
        };
        io::copy(&mut raw, &mut io::sink()).map_err(|error| unreadable(&path, error))?;
        let Digesting { at, digest, .. } = raw.into_inner();
        Ok(FileDigest {
            path,
            bytes: at,
            sha256: hex(&digest.finalize()),
        })
    }

    fn buffered(&mut self) -> &mut dyn BufRead {
        match &mut self.reader {
            Reader::Plain(reader) => reader,
            Reader::Gzip(reader) => reader,
            Reader::Zstd(reader) => reader,
        }
    }

    fn compression(&self) -> Option<Compression> {
        match &self.reader {
            Reader::Plain(_) => None,
            Reader::Gzip(_) => Some(Compression::Gzip),
            Reader::Zstd(_) => Some(Compression::Zstd),
        }
    }

    fn too_large(&self) -> DataError {
        DataError::ExpandedTooLarge {
            path: self.path.clone(),
            limit: self.limit,
        }
    }

    /// Tells a file that cannot be read from one that is no whole archive.
    fn failed(&self, error: io::Error) -> DataError {
        let is_of_file = error.raw_os_error().is_some()
            || error
                .get_ref()
                .is_some_and(|inner| inner.is::<FormatError>());
        match self.compression().filter(|_| !is_of_file) {
            None => unreadable(&self.path, error),
            Some(compression) => DataError::Damaged {
                path: self.path.clone(),
                compression: compression.name(),
                message: error.to_string(),
            },
        }
    }
}

/// The error for a file whose bytes cannot be read.
fn unreadable(path: &Path, error: io::Error) -> DataError {
    match error.downcast::<FormatError>() {
        Ok(error) => DataError::File(error),
        Err(source) => DataError::Unreadable {
            path: path.to_owned(),
            source,
        },
    }
}

/// Reads a whole file of data.
pub(crate) fn read_data(path: &Path) -> Result<(Vec<u8>, FileDigest)> {
    let mut input = Input::open(path)?;
    let bytes = input.all()?;
    Ok((bytes, input.finish()?))
}

/// Digests a file, compressed as it is.
pub(crate) fn digest(path: &Path) -> Result<FileDigest> {
    Input::open(path)?.finish()
}

/// Opens a file that is read by position, and digests it.
///
/// # Errors
///
/// [`DataError::OtherKind`] for one that is compressed, in which no position can be found.
pub(super) fn digested(path: &Path) -> Result<(InputFile, FileDigest)> {
    let input = Input::open(path)?;
    let is_compressed = |kind| DataError::OtherKind {
        path: path.to_owned(),
        kind,
    };
    let mut raw = match input.reader {
        Reader::Plain(raw) => raw,
        Reader::Gzip(_) => return Err(is_compressed(Kind::Gzip)),
        Reader::Zstd(_) => return Err(is_compressed(Kind::Zstd)),
    };
    io::copy(&mut raw, &mut io::sink()).map_err(|error| unreadable(path, error))?;
    let Digesting { file, at, digest } = raw.into_inner();
    let digest = FileDigest {
        path: path.to_owned(),
        bytes: at,
        sha256: hex(&digest.finalize()),
    };
    Ok((file, digest))
}
