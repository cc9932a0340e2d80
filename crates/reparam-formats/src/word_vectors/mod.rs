//! Tables of word vectors: GloVe's text, word2vec's text and word2vec's binary files.
//!
//! | layout | file |
//! | --- | --- |
//! | [`Layout::Glove`] | a line a word: the word, then its numbers, with a space before each |
//! | [`Layout::Word2vecText`] | a line with the numbers of words and of dimensions, then lines as GloVe's |
//! | [`Layout::Word2vecBinary`] | that first line, then for each word its text, a space and its numbers as little-endian f32; a line end behind them or none |
//!
//! A header's sizes are compared with the size of the file before anything is allocated, and a file is read a piece at a time, so
//! reading takes the memory of the table and its words and no more.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let scratch = tempfile::tempdir()?;
//! # let path = scratch.path().join("vectors.txt");
//! use reparam_formats::word_vectors::{Layout, WordVectors};
//!
//! let vectors = WordVectors::new(vec!["king".into(), "queen".into()], 2, vec![0.5, 1.0, 0.25, -1.0])?;
//! vectors.write(&path, Layout::Glove)?;
//! assert_eq!(std::fs::read_to_string(&path)?, "king 0.5 1\nqueen 0.25 -1\n");
//! let read = WordVectors::read(&path, None)?;
//! assert_eq!(read.vector("queen"), Some(&[0.25, -1.0][..]));
//! # Ok(())
//! # }
//! ```

use std::collections::HashMap;
use std::path::Path;

use crate::file::InputFile;

mod error;
mod pieces;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use error::{RowProblem, WordVectorError};

/// How a file of word vectors is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// GloVe's text: no header.
    Glove,
    /// word2vec's text: a header.
    Word2vecText,
    /// word2vec's binary form.
    Word2vecBinary,
}

/// Words, and a vector for each: a table `[n, d]` in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct WordVectors {
    words: Vec<String>,
    dim: usize,
    table: Vec<f32>,
    index: HashMap<String, usize>,
    duplicates: usize,
}

/// The vectors of a vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected {
    /// `[n, d]` in the order of the vocabulary; zero for words that were not found.
    pub table: Vec<f32>,
    /// Of each word, whether it was found.
    pub found: Vec<bool>,
}

impl WordVectors {
    /// Makes a table of words and the rows of their vectors. Of a word that occurs again the first row counts, and the others are
    /// left out.
    ///
    /// # Errors
    ///
    /// [`WordVectorError::Shape`] unless there are `dim` numbers a word, at least one of each; [`WordVectorError::NotFinite`], for
    /// such a table could not be read again.
    pub fn new(words: Vec<String>, dim: usize, table: Vec<f32>) -> Result<Self, WordVectorError> {
        if dim == 0 || words.is_empty() || words.len().checked_mul(dim) != Some(table.len()) {
            return Err(WordVectorError::Shape {
                words: words.len(),
                dim,
                values: table.len(),
            });
        }
        if let Some(at) = table.iter().position(|number| !number.is_finite()) {
            return Err(WordVectorError::NotFinite {
                word: words[at / dim].clone(),
                dimension: at % dim,
            });
        }
        let mut vectors = Self::empty(dim);
        vectors.words.reserve_exact(words.len());
        vectors.table.reserve_exact(table.len());
        for (word, row) in words.into_iter().zip(table.chunks_exact(dim)) {
            vectors.push(word, row);
        }
        Ok(vectors)
    }

    /// Reads a file; without a layout it is told by its content.
    ///
    /// # Errors
    ///
    /// [`WordVectorError`]: those of the file, and what is wrong with which line or row.
    pub fn read(path: &Path, layout: Option<Layout>) -> Result<Self, WordVectorError> {
        read::read(&InputFile::open(path)?, layout)
    }

    /// Writes a file, replacing an older one in one step. Numbers are written so that reading gives the same bits.
    ///
    /// # Errors
    ///
    /// [`WordVectorError::Unwritable`] for a word that would be read as something else; those of the file system.
    pub fn write(&self, path: &Path, layout: Layout) -> Result<(), WordVectorError> {
        write::write(self, path, layout)
    }

    /// The words, in the order of the file.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The length of a vector.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All vectors, a row a word.
    #[must_use]
    pub fn table(&self) -> &[f32] {
        &self.table
    }

    /// The row of a word.
    #[must_use]
    pub fn id(&self, word: &str) -> Option<usize> {
        self.index.get(word).copied()
    }

    /// The vector of a word.
    #[must_use]
    pub fn vector(&self, word: &str) -> Option<&[f32]> {
        self.id(word).map(|id| self.row(id))
    }

    /// The vector of row `id`; empty if there is none.
    #[must_use]
    pub fn row(&self, id: usize) -> &[f32] {
        self.table.chunks_exact(self.dim).nth(id).unwrap_or(&[])
    }

    /// Rows that were left out because their word had one before.
    #[must_use]
    pub fn duplicates(&self) -> usize {
        self.duplicates
    }

    /// The vectors of a vocabulary, such as a tokenizer's, by their exact spelling.
    #[must_use]
    pub fn select<S: AsRef<str>>(&self, vocabulary: &[S]) -> Selected {
        let mut table = vec![0.0; vocabulary.len() * self.dim];
        let rows = table.chunks_exact_mut(self.dim);
        let found = rows
            .zip(vocabulary)
            .map(|(row, word)| {
                let vector = self.vector(word.as_ref());
                vector.map(|vector| row.copy_from_slice(vector)).is_some()
            })
            .collect();
        Selected { table, found }
    }

    fn empty(dim: usize) -> Self {
        Self {
            words: Vec::new(),
            dim,
            table: Vec::new(),
            index: HashMap::new(),
            duplicates: 0,
        }
    }

    fn push(&mut self, word: String, row: &[f32]) {
        if self.index.contains_key(&word) {
            self.duplicates += 1;
            return;
        }
        self.index.insert(word.clone(), self.words.len());
        self.words.push(word);
        self.table.extend_from_slice(row);
    }
}
