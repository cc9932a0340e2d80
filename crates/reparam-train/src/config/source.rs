//! Where a piece of configuration was written, and how to show it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The longest piece of a source line that a [`Location`] shows, in characters.
///
/// Long enough for every line a person writes, short enough that a generated file of one huge line
/// does not flood the terminal.
const SHOWN_CHARS: usize = 120;

/// A text that configuration is read from: the run file, or one command-line override.
#[derive(Debug)]
pub(super) struct Source {
    /// The file's path as the user wrote it, or the flag such as `--set`.
    pub(super) name: String,
    pub(super) text: String,
    /// Line numbers mean something in a file and nothing in a flag.
    pub(super) is_file: bool,
}

/// A range of bytes in a [`Source`].
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) source: Arc<Source>,
    pub(super) range: Range<usize>,
}

impl Span {
    /// The text that the span covers.
    pub(super) fn text(&self) -> &str {
        self.source.text.get(self.range.clone()).unwrap_or("")
    }

    /// The place to show in an error.
    pub(super) fn location(&self) -> Location {
        let text = &self.source.text;
        let start = floor_char_boundary(text, self.range.start);
        let end = floor_char_boundary(text, self.range.end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |n| start + n);
        let line = text[line_start..line_end].trim_end_matches('\r');
        // A span over several lines is underlined to the end of its first.
        let end = end.min(line_start + line.len()).max(start);

        let before = text[line_start..start].chars().count();
        let marked = text[start..end].chars().count().max(1);
        // Show a window that contains the start of the marked part.
        let skip = (before + marked.min(SHOWN_CHARS / 2)).saturating_sub(SHOWN_CHARS);
        let excerpt: String = line
            .chars()
            .skip(skip)
            .take(SHOWN_CHARS)
            // One column for each character, or the underline would be misplaced.
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let column = before - skip;
        let length = marked.min(SHOWN_CHARS.saturating_sub(column)).max(1);
        Location {
            source_name: self.source.name.clone(),
            line: self
                .source
                .is_file
                .then(|| text[..line_start].matches('\n').count() + 1),
            excerpt,
            column,
            length,
        }
    }
}

/// The last character boundary of `text` at or before byte `index`.
fn floor_char_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// The place in the run file, or in a command-line override, that an error is about.
///
/// Its `Display` is a few lines that show the place with the offending part underlined:
///
/// ```text
///   --> run.toml:12
///    |
/// 12 | lerning_rate = 1e-3
///    | ^^^^^^^^^^^^
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    source_name: String,
    line: Option<usize>,
    excerpt: String,
    column: usize,
    length: usize,
}

impl Location {
    /// The path of the run file as it was given, or the flag that the value came from.
    #[must_use]
    pub fn source_name(&self) -> &str {
        &self.source_name
    }

    /// The line in the file, counted from 1; `None` for a command-line override.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// The line itself; of a very long line, the part around the place.
    #[must_use]
    pub fn excerpt(&self) -> &str {
        &self.excerpt
    }

    /// The place in one word, `run.toml:12` or `--set train.max_steps=x`.
    #[must_use]
    pub fn short(&self) -> String {
        match self.line {
            Some(line) => format!("{}:{line}", self.source_name),
            None => format!("{} {}", self.source_name, self.excerpt),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.map(|line| line.to_string()).unwrap_or_default();
        let gutter = number.len();
        match self.line {
            Some(line) => writeln!(f, "{:gutter$}--> {}:{line}", "", self.source_name)?,
            None => writeln!(f, "{:gutter$}--> {}", "", self.source_name)?,
        }
        writeln!(f, "{:gutter$} |", "")?;
        writeln!(f, "{number} | {}", self.excerpt)?;
        write!(
            f,
            "{:gutter$} | {:column$}{:^<length$}",
            "",
            "",
            "",
            column = self.column,
            length = self.length
        )
    }
}
