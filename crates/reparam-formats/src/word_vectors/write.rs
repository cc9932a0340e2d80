//! Writing word vectors.

use std::io::{self, Write};
use std::path::Path;

use super::error::WordVectorError;
use super::{Layout, WordVectors};
use crate::atomic::write_with;

pub(super) fn write(
    vectors: &WordVectors,
    path: &Path,
    layout: Layout,
) -> Result<(), WordVectorError> {
    for (row, word) in vectors.words().iter().enumerate() {
        check(
            word,
            row == 0 && layout == Layout::Glove && vectors.dim() == 1,
        )?;
    }
    Ok(write_with(path, |writer| fill(vectors, layout, writer))?)
}

/// Refuses words that a reader would take apart.
fn check(word: &str, may_be_header: bool) -> Result<(), WordVectorError> {
    let problem = if word.is_empty() {
        "it is empty"
    } else if word.contains(|c: char| c.is_ascii_whitespace() || c == '\u{b}') {
        "it has white space in it"
    } else if may_be_header && word.parse::<u64>().is_ok() {
        "with the one number behind it, it would be read as a header"
    } else {
        return Ok(());
    };
    Err(WordVectorError::Unwritable {
        word: word.to_owned(),
        problem,
    })
}

fn fill(vectors: &WordVectors, layout: Layout, writer: &mut impl Write) -> io::Result<()> {
    if layout != Layout::Glove {
        writeln!(writer, "{} {}", vectors.words().len(), vectors.dim())?;
    }
    let rows = vectors.table().chunks_exact(vectors.dim());
    for (word, row) in vectors.words().iter().zip(rows) {
        writer.write_all(word.as_bytes())?;
        if layout == Layout::Word2vecBinary {
            writer.write_all(b" ")?;
            for number in row {
                writer.write_all(&number.to_le_bytes())?;
            }
        } else {
            // The fewest digits that give the same f32 again.
            for number in row {
                write!(writer, " {number}")?;
            }
        }
        writer.write_all(b"\n")?;
    }
    Ok(())
}
