//! The bytes of a file of cells from the last record on: what the reader makes of them does not say how they were written.

use std::io::{self, Read};
use std::path::Path;

use super::FileDigest;
use crate::error::{DataError, Result};
use crate::source::content::{MARK, check_head};
use crate::source::input::Input;

/// How many bytes of a file tell what separates its cells.
const HEAD: usize = 1 << 20;

/// Where bytes come from.
pub(crate) trait Source {
    /// Reads more, where so many are kept in memory; nothing at the end.
    fn more(&mut self, to: &mut [u8], kept: usize) -> Result<usize>;
}

impl Source for &[u8] {
    fn more(&mut self, to: &mut [u8], _: usize) -> Result<usize> {
        let (now, rest) = self.split_at(to.len().min(self.len()));
        to[..now.len()].copy_from_slice(now);
        *self = rest;
        Ok(now.len())
    }
}

/// A file that is read from behind its byte order mark on.
pub(crate) struct Opened {
    input: Input,
    /// What was read to find out what separates cells.
    head: Vec<u8>,
    /// How much of it has been handed on.
    used: usize,
    /// Whether it is all of the file.
    is_whole: bool,
}

impl Opened {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut input = Input::open(path)?;
        let mut head = Vec::new();
        let mut is_whole = false;
        while head.len() < HEAD && !is_whole {
            let before = head.len();
            head.extend_from_slice(input.head()?);
            let read = head.len() - before;
            input.consume(read);
            is_whole = read == 0;
        }
        check_head(path, &head)?;
        let mut mark = [0; MARK.len_utf8()];
        let mark = MARK.encode_utf8(&mut mark).as_bytes();
        Ok(Self {
            used: match head.starts_with(mark) {
                true => mark.len(),
                false => 0,
            },
            input,
            head,
            is_whole,
        })
    }

    /// The bytes of the byte order mark, before anything is read.
    pub(super) fn mark(&self) -> usize {
        self.used
    }

    /// The beginning of the file, and whether that is all of it.
    pub(super) fn head(&self) -> (&[u8], bool) {
        (&self.head[self.used..], self.is_whole)
    }

    pub(super) fn finish(self) -> Result<FileDigest> {
        self.input.finish()
    }
}

impl Source for Opened {
    fn more(&mut self, to: &mut [u8], kept: usize) -> Result<usize> {
        let from_head = self.used < self.head.len();
        let next = match from_head {
            true => &self.head[self.used..],
            false => self.input.head()?,
        };
        let now = to.len().min(next.len());
        to[..now].copy_from_slice(&next[..now]);
        match from_head {
            true => self.used += now,
            false => self.input.consume(now),
        }
        self.input.check_length(kept + now)?;
        Ok(now)
    }
}

/// What is read, of which the part from the beginning of the last record on is kept.
pub(super) struct Window<S> {
    pub(super) source: S,
    /// The bytes from `base` on.
    bytes: Vec<u8>,
    /// Where they stand, counted from the first that was read.
    base: u64,
    /// Where the last record begins; what is before is forgotten with the next read.
    begin: u64,
    /// Why nothing more could be read.
    pub(super) failed: Option<DataError>,
}

impl<S: Source> Window<S> {
    pub(super) fn new(source: S) -> Self {
        Self {
            source,
            bytes: Vec::new(),
            base: 0,
            begin: 0,
            failed: None,
        }
    }

    /// Where the last record begins.
    pub(super) fn begin(&self) -> u64 {
        self.begin
    }

    pub(super) fn begin_at(&mut self, begin: u64) {
        self.begin = begin;
    }

    /// The bytes between two places that are not before the last record.
    pub(super) fn between(&self, from: u64, to: u64) -> &[u8] {
        let at = |place: u64| place.saturating_sub(self.base) as usize;
        self.bytes.get(at(from)..at(to)).unwrap_or_default()
    }

    /// All bytes from the last record on that were read.
    pub(super) fn kept(&self) -> &[u8] {
        self.between(self.begin, self.base + self.bytes.len() as u64)
    }
}

impl<S: Source> Read for Window<S> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let forgotten = self.begin - self.base;
        self.bytes.drain(..forgotten as usize);
        self.base = self.begin;
        match self.source.more(to, self.bytes.len()) {
            Ok(read) => {
                self.bytes.extend_from_slice(&to[..read]);
                Ok(read)
            }
            Err(error) => {
                self.failed = Some(error);
                Err(io::Error::other("its input failed"))
            }
        }
    }
}
