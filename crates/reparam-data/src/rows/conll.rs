//! Sentences of tagged tokens, one token a line.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::error::Result;
use super::read::{File, Row};
use crate::error::DataError;
use crate::source::{Column, DocumentSource};

#[cfg(test)]
mod tests;

/// What begins a line that stands between documents and is no token.
const DOCUMENT: &str = "-DOCSTART-";

/// Where a line has a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    First,
    /// The last cell, if it is not the only one.
    Last,
    /// By number, from 0.
    Number(usize),
}

impl Cell {
    fn of<'a>(self, cells: &[&'a str]) -> Option<&'a str> {
        match self {
            Self::First => cells.first().copied(),
            Self::Last => cells.get(1..)?.last().copied(),
            Self::Number(number) => cells.get(number).copied(),
        }
    }
}

impl File<'_> {
    /// Reads sentences: lines of cells, each sentence ended by a blank line or the beginning of a document.
    ///
    /// Cells are told apart by tabs if the line has one, else by spaces, any number of them. A sentence whose lines have no
    /// cell for the tag has no `tags`.
    pub(super) fn sentences(&self, rows: &mut Vec<Result<Row>>) -> Result<()> {
        let path: Arc<Path> = Arc::from(self.path);
        let place = |line| DocumentSource {
            path: Arc::clone(&path),
            line,
            item: None,
        };
        let first_row = rows.len();
        let mut columns = None;
        let mut sentence: Vec<&str> = Vec::new();
        // A border behind the last line ends the last sentence.
        for (content, line) in self.text.lines().chain([""]).zip(1..) {
            if !is_border(content) {
                sentence.push(content);
                continue;
            }
            let Some(first) = sentence.first() else {
                continue;
            };
            let begin = place(line - sentence.len());
            let (token, tag) = match columns {
                Some(columns) => columns,
                None => {
                    let width = cells(first).len();
                    *columns.insert((
                        self.cell("tokens", Cell::First, width, &begin)?,
                        self.cell("tags", Cell::Last, width, &begin)?,
                    ))
                }
            };
            rows.push(self.sentence(&sentence, token, tag, begin));
            sentence.clear();
        }
        if rows.len() == first_row {
            return Err(DataError::NoDocuments {
                path: self.path.to_owned(),
                lines: self.text.lines().count(),
            }
            .into());
        }
        Ok(())
    }

    /// Where the lines have a field. Only numbers can say it, for there is no header.
    fn cell(
        &self,
        field: &'static str,
        default: Cell,
        width: usize,
        place: &DocumentSource,
    ) -> Result<Cell> {
        match self.fields.table_column(field) {
            Some(Column::Number(number)) => Ok(Cell::Number(number)),
            Some(Column::Name(name)) if self.fields.names(field) => {
                let columns = format!("{width} columns without names");
                Err(self.no_column(place, field, &name, &[&columns]))
            }
            Some(Column::Name(_)) | None => Ok(default),
        }
    }

    fn sentence(
        &self,
        lines: &[&str],
        token: Cell,
        tag: Cell,
        place: DocumentSource,
    ) -> Result<Row> {
        let (mut tokens, mut tags) = (Vec::new(), Vec::new());
        let mut widest = 0;
        for (content, line) in lines.iter().zip(place.line..) {
            let cells = cells(content);
            widest = widest.max(cells.len());
            let Some(text) = token.of(&cells) else {
                return Err(DataError::Ragged {
                    place: DocumentSource {
                        line,
                        ..place.clone()
                    },
                    expected: match token {
                        Cell::Number(number) => number + 1,
                        Cell::First | Cell::Last => 1,
                    },
                    found: cells.len(),
                }
                .into());
            };
            tokens.push(Value::from(text));
            tags.extend(tag.of(&cells).map(Value::from));
        }
        let mut values = vec![("tokens", Value::Array(tokens))];
        if self.schema.reads("tags") && !tags.is_empty() {
            values.push(("tags", Value::Array(tags)));
        } else if self.demands("tags") && self.schema.reads("tags") {
            let column = self.fields.key("tags");
            let found = format!("{widest} columns");
            return Err(self.no_column(&place, "tags", column, &[&found]));
        }
        Ok(Row { place, values })
    }
}

fn is_border(line: &str) -> bool {
    // Some files have tabs on their blank lines. Other white space may be a token.
    line.starts_with(DOCUMENT) || line.trim_matches([' ', '\t', '\r']).is_empty()
}

fn cells(line: &str) -> Vec<&str> {
    if line.contains('\t') {
        line.split('\t')
            .map(|cell| cell.trim_matches(' '))
            .collect()
    } else {
        line.split(' ').filter(|cell| !cell.is_empty()).collect()
    }
}
