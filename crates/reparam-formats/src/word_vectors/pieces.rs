//! A file a piece at a time.

use crate::FormatError;
use crate::file::InputFile;

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// Reads a file from its beginning; what was taken is forgotten.
pub(super) struct Pieces<'a> {
    file: &'a InputFile,
    /// How much of the file was read.
    read: u64,
    buffer: Vec<u8>,
    /// How much of the buffer was taken.
    taken: usize,
}

/// What is found before a delimiter.
pub(super) enum Found<'a> {
    /// The bytes before it, which are taken together with it.
    Before(&'a [u8]),
    /// The rest of the file, which does not have it; taken, too.
    Rest(&'a [u8]),
    /// More bytes than are looked at.
    TooLong,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(file: &'a InputFile) -> Self {
        Self {
            file,
            read: 0,
            buffer: Vec::new(),
            taken: 0,
        }
    }

    pub(super) fn file(&self) -> &'a InputFile {
        self.file
    }

    /// Bytes of the file that were not taken.
    pub(super) fn left(&self) -> u64 {
        self.file.len() - self.read + (self.buffer.len() - self.taken) as u64
    }

    /// Takes the bytes before a delimiter, of which there may be `most`, and the delimiter.
    pub(super) fn before(&mut self, delimiter: u8, most: usize) -> Result<Found<'_>, FormatError> {
        let mut searched = 0;
        loop {
            let rest = &self.buffer[self.taken + searched..];
            if let Some(at) = rest.iter().position(|byte| *byte == delimiter) {
                let begin = self.taken;
                let end = begin + searched + at;
                self.taken = end + 1;
                return Ok(match end - begin > most {
                    true => Found::TooLong,
                    false => Found::Before(&self.buffer[begin..end]),
                });
            }
            searched += rest.len();
            if searched > most {
                return Ok(Found::TooLong);
            }
            if !self.fill()? {
                let begin = std::mem::replace(&mut self.taken, self.buffer.len());
                return Ok(Found::Rest(&self.buffer[begin..]));
            }
        }
    }

    /// Takes so many bytes; `None` if the file has not as many.
    pub(super) fn take(&mut self, bytes: usize) -> Result<Option<&[u8]>, FormatError> {
        match self.peek(bytes)?.len() == bytes {
            false => Ok(None),
            true => {
                let begin = self.taken;
                self.taken += bytes;
                Ok(Some(&self.buffer[begin..self.taken]))
            }
        }
    }

    /// The next bytes, fewer at the end of the file, which are not taken.
    pub(super) fn peek(&mut self, bytes: usize) -> Result<&[u8], FormatError> {
        while self.buffer.len() - self.taken < bytes && self.fill()? {}
        let end = self.buffer.len().min(self.taken + bytes);
        Ok(&self.buffer[self.taken..end])
    }

    /// Reads another piece; `false` at the end of the file.
    fn fill(&mut self) -> Result<bool, FormatError> {
        let bytes = (self.file.len() - self.read).min(PIECE as u64) as usize;
        if bytes == 0 {
            return Ok(false);
        }
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let old = self.buffer.len();
        self.buffer.resize(old + bytes, 0);
        self.file.read_at(&mut self.buffer[old..], self.read)?;
        self.read += bytes as u64;
        Ok(true)
    }
}
