//! Two files of text whose lines belong together, and lines of two cells.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::error::{Result, RowError};
use super::read::{File, Row, Rows, Schema};
use crate::error::DataError;
use crate::source::{Column, DocumentSource, paths, read_data, utf8};

#[cfg(test)]
mod tests;

/// The fields in the order of their files and cells.
const SIDES: [&str; 2] = ["source", "target"];

/// What stands between the cells of a line.
const BARS: &str = "||";

/// Reads pairs of files: line `n` of the first is the source of line `n` of the second.
///
/// Paths come in pairs, too. Those that stand for several files stand for as many, which are sorted and taken one by one.
pub(super) fn read_parallel(paths: &[PathBuf], schema: &Schema) -> Result<Rows<Row>> {
    if paths.is_empty() {
        return Err(DataError::NoPaths.into());
    }
    let mut rows = Rows {
        rows: Vec::new(),
        files: Vec::new(),
        left_out: Vec::new(),
    };
    let mut pairs = paths.chunks_exact(2);
    for pair in &mut pairs {
        let [sources, targets] = [&pair[0], &pair[1]].map(files);
        let (sources, targets) = (sources?, targets?);
        if sources.len() != targets.len() {
            return Err(RowError::UnpairedFiles {
                sources: sources.len(),
                targets: targets.len(),
            });
        }
        for (source, target) in sources.iter().zip(&targets) {
            aligned(source, target, schema, &mut rows)?;
        }
    }
    match pairs.remainder() {
        [] => Ok(rows),
        _ => Err(RowError::UnpairedFiles {
            sources: paths.len().div_ceil(2),
            targets: paths.len() / 2,
        }),
    }
}

/// The files of a path; no extension says that a text is one side of two.
fn files(path: &PathBuf) -> Result<Vec<PathBuf>> {
    Ok(paths::find(std::slice::from_ref(path), |_| true)?.files)
}

fn aligned(source: &Path, target: &Path, schema: &Schema, rows: &mut Rows<Row>) -> Result<()> {
    let files = [source, target];
    let read = [read_data(source)?, read_data(target)?];
    let mut sides = Vec::with_capacity(files.len());
    for ((path, (bytes, digest)), field) in files.into_iter().zip(&read).zip(SIDES) {
        rows.files.push(digest.clone());
        let text = utf8(path, bytes)?;
        if text.is_empty() {
            let path = path.to_owned();
            return Err(DataError::EmptyFile { path }.into());
        }
        sides.push((field, Arc::<Path>::from(path), text));
    }
    let [source_lines, target_lines] = [0, 1].map(|side: usize| sides[side].2.lines().count());
    if source_lines != target_lines {
        return Err(RowError::LineCounts {
            source_path: source.to_owned(),
            source_lines,
            target_path: target.to_owned(),
            target_lines,
        });
    }
    sides.retain(|(field, ..)| schema.reads(field));
    let mut lines: Vec<_> = sides.iter().map(|(.., text)| text.lines()).collect();
    for line in 1..=source_lines {
        let mut values = Vec::with_capacity(sides.len());
        let mut blank = None;
        for ((field, path, _), lines) in sides.iter().zip(&mut lines) {
            let content = lines.next().unwrap_or_default();
            if content.trim().is_empty() && blank.is_none() {
                // In the file of its side, which the place of the row is not.
                let place = place(path, line);
                blank = Some(RowError::Blank { place, field });
            }
            values.push((*field, Value::from(content)));
        }
        rows.rows.push(match (blank, sides.first()) {
            (Some(blank), _) => Err(blank),
            (None, Some((_, path, _))) => Ok(Row {
                place: place(path, line),
                values,
            }),
            (None, None) => continue,
        });
    }
    Ok(())
}

fn place(path: &Arc<Path>, line: usize) -> DocumentSource {
    DocumentSource {
        path: Arc::clone(path),
        line,
        item: None,
    }
}

impl File<'_> {
    /// Reads lines of cells between double bars, without a header: a source and its target, unless fields give their numbers.
    /// White space around a cell is no part of it; blank lines are no rows.
    pub(super) fn bars(&self, rows: &mut Vec<Result<Row>>) -> Result<()> {
        let path: Arc<Path> = Arc::from(self.path);
        let first_row = rows.len();
        let mut columns: Option<(usize, Vec<(&'static str, usize)>)> = None;
        let lines = self.text.lines().zip(1..);
        for (content, line) in lines.filter(|(content, _)| !content.trim().is_empty()) {
            let cells: Vec<&str> = content.split(BARS).map(str::trim).collect();
            let place = place(&path, line);
            let (width, columns) = match &columns {
                Some(columns) => columns,
                None => {
                    let found = self.numbers(cells.len(), &place)?;
                    columns.insert((cells.len(), found))
                }
            };
            rows.push(if cells.len() == *width {
                let values = columns.iter();
                let values = values.map(|(field, column)| (*field, Value::from(cells[*column])));
                let values = values.collect();
                Ok(Row { place, values })
            } else {
                Err(DataError::Ragged {
                    place,
                    expected: *width,
                    found: cells.len(),
                }
                .into())
            });
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

    /// The cell of each field in lines that have `width` of them.
    fn numbers(&self, width: usize, place: &DocumentSource) -> Result<Vec<(&'static str, usize)>> {
        let mut columns = Vec::new();
        for field in self.schema.read() {
            let number = match self.fields.table_column(field) {
                Some(Column::Number(number)) => Some(number),
                Some(Column::Name(_)) if self.fields.names(field) => None,
                // Where some cells are numbered, the others are not read.
                None => None,
                Some(Column::Name(_)) => SIDES.iter().position(|side| *side == field),
            };
            match number.filter(|number| *number < width) {
                Some(number) => columns.push((field, number)),
                None if self.demands(field) => {
                    let found = format!("{width} columns without names");
                    return Err(self.no_column(place, field, self.fields.key(field), &[&found]));
                }
                None => {}
            }
        }
        Ok(columns)
    }
}
