//! Where the token ids of a corpus are: in memory, or in a file of which parts are read as they are asked for.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use reparam_formats::FormatError;
use reparam_formats::file::InputFile;
use sha2::{Digest, Sha256};

use crate::error::{DataError, Result};

/// The bytes of an id in a file.
pub(crate) const WIDTH: usize = size_of::<u32>();

/// How many ids are read at once.
const AT_ONCE: usize = 1 << 14;

/// The ids of all documents, one behind the other.
#[derive(Debug, Clone)]
pub(crate) enum Ids {
    Memory(Vec<u32>),
    /// `len` ids of a file, from byte `begin` on.
    Stored {
        file: Arc<InputFile>,
        begin: u64,
        len: usize,
    },
}

impl Default for Ids {
    fn default() -> Self {
        Self::Memory(Vec::new())
    }
}

impl Ids {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Memory(ids) => ids.len(),
            Self::Stored { len, .. } => *len,
        }
    }

    /// Appends those of a range to `to`.
    ///
    /// # Errors
    ///
    /// [`DataError::File`] if the file cannot be read, or is no longer what it was.
    pub(crate) fn read(&self, range: Range<usize>, to: &mut Vec<u32>) -> Result<()> {
        let (file, begin) = match self {
            Self::Memory(ids) => {
                to.extend_from_slice(&ids[range]);
                return Ok(());
            }
            Self::Stored { file, begin, .. } => (file, *begin),
        };
        let mut at = range.start;
        let mut bytes = vec![0; range.len().min(AT_ONCE) * WIDTH];
        while at < range.end {
            let n = (range.end - at).min(AT_ONCE);
            let part = &mut bytes[..n * WIDTH];
            let place = begin + (at * WIDTH) as u64;
            file.read_at(part, place).map_err(DataError::File)?;
            let (words, _) = part.as_chunks::<WIDTH>();
            to.extend(words.iter().map(|word| u32::from_le_bytes(*word)));
            at += n;
        }
        Ok(())
    }
}

/// Equal ids are equal wherever they are.
impl PartialEq for Ids {
    fn eq(&self, other: &Self) -> bool {
        let all = |ids: &Self| {
            let mut all = Vec::new();
            ids.read(0..ids.len(), &mut all).is_ok().then_some(all)
        };
        self.len() == other.len() && all(self).is_some_and(|ids| all(other) == Some(ids))
    }
}

impl Eq for Ids {}

/// Where ids go while documents are encoded.
pub(crate) trait Sink {
    fn put(&mut self, ids: &[u32]) -> Result<()>;

    /// Makes room for so many more ids and no others, where that costs nothing until they are there.
    fn reserve(&mut self, _ids: usize) {}

    /// Says that a document has ended: its ids stay.
    fn ended(&mut self) {}

    /// Takes back the ids behind the last document, up to whose end there are `len`.
    fn truncate(&mut self, len: usize) -> Result<()>;
}

impl Sink for Vec<u32> {
    fn put(&mut self, ids: &[u32]) -> Result<()> {
        self.extend_from_slice(ids);
        Ok(())
    }

    fn reserve(&mut self, ids: usize) {
        self.reserve_exact(ids);
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        Self::truncate(self, len);
        Ok(())
    }
}

/// Writes ids into a file behind what is there, and digests them.
#[derive(Debug)]
pub(crate) struct FileSink<'w, 'f> {
    path: &'w Path,
    writer: &'w mut BufWriter<&'f File>,
    /// Where the first id is.
    begin: u64,
    digest: Sha256,
    /// The digest after the last document.
    kept: Sha256,
    bytes: Vec<u8>,
}

impl<'w, 'f> FileSink<'w, 'f> {
    /// Begins at byte `begin` of a file, to which `digest` leads.
    pub(crate) fn new(
        path: &'w Path,
        writer: &'w mut BufWriter<&'f File>,
        begin: u64,
        digest: Sha256,
    ) -> Self {
        Self {
            path,
            writer,
            begin,
            kept: digest.clone(),
            digest,
            bytes: Vec::new(),
        }
    }

    /// Gives back the writer and the digest.
    pub(crate) fn into_parts(self) -> (&'w mut BufWriter<&'f File>, Sha256) {
        (self.writer, self.digest)
    }

    fn failed(&self, source: io::Error) -> DataError {
        DataError::Cache(FormatError::io("write", self.path, source))
    }
}

impl Sink for FileSink<'_, '_> {
    fn put(&mut self, ids: &[u32]) -> Result<()> {
        for ids in ids.chunks(AT_ONCE) {
            self.bytes.clear();
            self.bytes
                .extend(ids.iter().flat_map(|id| id.to_le_bytes()));
            self.digest.update(&self.bytes);
            let written = self.writer.write_all(&self.bytes);
            written.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    fn ended(&mut self) {
        self.kept = self.digest.clone();
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        let end = self.begin + (len * WIDTH) as u64;
        let moved = self.writer.seek(SeekFrom::Start(end));
        let cut = moved.and_then(|_| self.writer.get_ref().set_len(end));
        cut.map_err(|error| self.failed(error))?;
        self.digest = self.kept.clone();
        Ok(())
    }
}
