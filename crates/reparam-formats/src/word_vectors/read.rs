//! Reading word vectors.

use super::error::{RowProblem, WordVectorError};
use super::pieces::{Found, Pieces};
use super::{Layout, WordVectors};
use crate::file::InputFile;

/// The longest line, in bytes: some hundred thousand numbers.
const LINE: usize = 1 << 22;
/// The longest word of a binary file, in bytes.
const WORD: usize = 1 << 16;
/// What is looked at behind a header to tell text from numbers, in bytes.
const PROBE: usize = 1 << 12;

/// Where the reading is, for messages.
struct Reader<'a> {
    pieces: Pieces<'a>,
    line: u64,
}

pub(super) fn read(
    file: &InputFile,
    layout: Option<Layout>,
) -> Result<WordVectors, WordVectorError> {
    let mut reader = Reader {
        pieces: Pieces::new(file),
        line: 0,
    };
    let Some(first) = reader.line()? else {
        return Err(reader.empty());
    };
    let header = header(&first);
    let layout = match (layout, header) {
        (Some(layout), _) => layout,
        (None, None) => Layout::Glove,
        (None, Some(_)) if reader.is_text()? => Layout::Word2vecText,
        (None, Some(_)) => Layout::Word2vecBinary,
    };
    match (layout, header) {
        (Layout::Glove, _) => reader.glove(&first),
        (_, None) => Err(WordVectorError::Header {
            path: file.path().to_path_buf(),
            found: first.chars().take(200).collect(),
        }),
        (Layout::Word2vecText, Some(sizes)) => reader.text(sizes),
        (Layout::Word2vecBinary, Some(sizes)) => reader.binary(sizes),
    }
}

/// The numbers of words and dimensions.
fn header(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let sizes = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    fields.next().is_none().then_some(sizes)
}

impl Reader<'_> {
    fn glove(mut self, first: &str) -> Result<WordVectors, WordVectorError> {
        let dim = first.split(' ').count() - 1;
        if dim == 0 {
            return Err(self.row(RowProblem::Fields {
                expected: 1,
                found: 0,
            }));
        }
        let mut vectors = WordVectors::empty(dim);
        let mut row = Vec::with_capacity(dim);
        self.text_row(first, &mut row, &mut vectors)?;
        while let Some(line) = self.line()? {
            self.text_row(&line, &mut row, &mut vectors)?;
        }
        Ok(vectors)
    }

    fn text(mut self, sizes: (u64, u64)) -> Result<WordVectors, WordVectorError> {
        // A word, and a digit with a space before it for each number; the last line may lack its end.
        let mut vectors = self.sized(sizes, 2)?;
        let mut row = Vec::with_capacity(vectors.dim);
        let mut rows = 0;
        while let Some(line) = self.line()? {
            self.text_row(&line, &mut row, &mut vectors)?;
            rows += 1;
        }
        self.counted(sizes.0, rows)?;
        Ok(vectors)
    }

    fn binary(mut self, sizes: (u64, u64)) -> Result<WordVectors, WordVectorError> {
        let mut vectors = self.sized(sizes, 4)?;
        let bytes = vectors.dim * size_of::<f32>();
        let mut row = Vec::with_capacity(vectors.dim);
        for _ in 0..sizes.0 {
            self.line += 1;
            let word = self.word()?;
            let Some(numbers) = self.pieces.take(bytes)? else {
                return Err(self.row(RowProblem::CutShort));
            };
            row.clear();
            let numbers = numbers.as_chunks::<4>().0;
            row.extend(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            self.finite(&row)?;
            vectors.push(word, &row);
        }
        let mut rest = self.pieces.peek(PROBE)?.iter();
        if !rest.all(u8::is_ascii_whitespace) {
            return Err(self.count_error(sizes.0, sizes.0 + 1));
        }
        Ok(vectors)
    }

    /// The word of a binary row, without the line end of the row before it.
    fn word(&mut self) -> Result<String, WordVectorError> {
        let bytes = match self.pieces.before(b' ', WORD)? {
            Found::Before(bytes) => bytes.trim_ascii_start().to_vec(),
            Found::Rest(_) => return Err(self.row(RowProblem::CutShort)),
            Found::TooLong => return Err(self.row(RowProblem::TooLong { limit: WORD })),
        };
        match String::from_utf8(bytes) {
            Ok(word) if word.is_empty() => Err(self.row(RowProblem::NoWord)),
            Ok(word) => Ok(word),
            Err(_) => Err(self.row(RowProblem::NotUtf8)),
        }
    }

    /// A table as large as a header says, if the file can hold it: a word of a byte, and `bytes` a number.
    fn sized(&self, (words, dim): (u64, u64), bytes: u64) -> Result<WordVectors, WordVectorError> {
        let file = self.pieces.file();
        if words == 0 || dim == 0 {
            return Err(self.empty());
        }
        let header = file.len() - self.pieces.left();
        let a_row = dim.saturating_mul(bytes).saturating_add(1);
        let needed = words.saturating_mul(a_row).saturating_add(header);
        let too_short = || WordVectorError::TooShort {
            path: file.path().to_path_buf(),
            words,
            dim,
            needed,
            found: file.len(),
        };
        if needed > file.len() {
            return Err(too_short());
        }
        let numbers = usize::try_from(words * dim).map_err(|_| too_short())?;
        let mut vectors = WordVectors::empty(dim as usize);
        vectors.words.reserve_exact(words as usize);
        vectors.table.reserve_exact(numbers);
        Ok(vectors)
    }

    /// Reads a line of text: the last fields are the numbers, so a word may have spaces in it, as some of GloVe's have.
    fn text_row(
        &self,
        line: &str,
        row: &mut Vec<f32>,
        vectors: &mut WordVectors,
    ) -> Result<(), WordVectorError> {
        let dim = vectors.dim;
        row.clear();
        let mut fields = line.rsplitn(dim + 1, ' ');
        for text in fields.by_ref().take(dim) {
            match text.parse() {
                Ok(number) => row.push(number),
                // Too few fields: the first is the word.
                Err(_) if line.split(' ').count() <= dim => break,
                Err(_) => {
                    let text = text.chars().take(200).collect();
                    return Err(self.row(RowProblem::Number { text }));
                }
            }
        }
        let word = fields.next().unwrap_or_default();
        if row.len() < dim || line.split(' ').count() <= dim {
            return Err(self.row(RowProblem::Fields {
                expected: dim as u64,
                found: line.split(' ').count() as u64 - 1,
            }));
        }
        if word.is_empty() {
            return Err(self.row(RowProblem::NoWord));
        }
        row.reverse();
        self.finite(row)?;
        vectors.push(word.to_owned(), row);
        Ok(())
    }

    fn finite(&self, row: &[f32]) -> Result<(), WordVectorError> {
        match row.iter().position(|number| !number.is_finite()) {
            None => Ok(()),
            Some(at) => Err(self.row(RowProblem::NotFinite { index: at + 1 })),
        }
    }

    /// The next line that is not empty, without its end and the space that word2vec writes before it.
    fn line(&mut self) -> Result<Option<String>, WordVectorError> {
        loop {
            self.line += 1;
            let (bytes, is_last) = match self.pieces.before(b'\n', LINE)? {
                Found::Before(bytes) => (bytes.to_vec(), false),
                Found::Rest(bytes) => (bytes.to_vec(), true),
                Found::TooLong => return Err(self.row(RowProblem::TooLong { limit: LINE })),
            };
            let line = String::from_utf8(bytes).map_err(|_| self.row(RowProblem::NotUtf8))?;
            let line = line.trim_end_matches(['\r', ' ', '\t']);
            if !line.is_empty() {
                return Ok(Some(line.to_owned()));
            }
            if is_last {
                return Ok(None);
            }
        }
    }

    /// Whether what follows is text: numbers in binary have bytes that no text has.
    fn is_text(&mut self) -> Result<bool, WordVectorError> {
        let bytes = self.pieces.peek(PROBE)?;
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            // Cut in the middle of a character.
            Err(error) if error.error_len().is_none() => {
                std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => return Ok(false),
        };
        let is_binary = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
        Ok(!text.contains(is_binary))
    }

    fn counted(&self, expected: u64, found: u64) -> Result<(), WordVectorError> {
        match expected == found {
            true => Ok(()),
            false => Err(self.count_error(expected, found)),
        }
    }

    fn count_error(&self, expected: u64, found: u64) -> WordVectorError {
        WordVectorError::Count {
            path: self.pieces.file().path().to_path_buf(),
            expected,
            found,
        }
    }

    fn empty(&self) -> WordVectorError {
        WordVectorError::Empty {
            path: self.pieces.file().path().to_path_buf(),
        }
    }

    fn row(&self, problem: RowProblem) -> WordVectorError {
        WordVectorError::Row {
            path: self.pieces.file().path().to_path_buf(),
            line: self.line,
            problem,
        }
    }
}
