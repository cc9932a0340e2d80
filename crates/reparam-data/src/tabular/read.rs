//! Reading columns of numbers from a CSV file.

use std::path::Path;

use reparam_formats::nearest;
use serde::{Deserialize, Serialize};

use super::error::{Result, TabularError};
use super::number::{Cell, Notation};
use super::table::Table;
use crate::source::{Dialect, FileDigest, Records, read_data, utf8};

#[cfg(test)]
mod tests;

/// How many lines an error lists.
const LISTED: usize = 10;

/// What to do with rows in which a value is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingPolicy {
    /// Refuse the file.
    #[default]
    Error,
    /// Leave these rows out and keep their lines in [`Table::dropped`].
    DropRows,
}

/// Which columns of a file to read, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The column to predict.
    pub target: String,
    /// The columns to predict from, in the order that the table shall have; `None` takes every other column in the
    /// order of the file.
    pub features: Option<Vec<String>>,
    /// What to do with rows in which one of these columns has no value.
    pub missing: MissingPolicy,
}

/// Reads the selected columns of a CSV file.
///
/// The format is that of RFC 4180 with a header: cells separated by commas (or by semicolons, tabs or bars, if these and not
/// commas divide the first line), quoted by `"` where they hold a comma, a
/// quote (doubled) or a line end. A quote that is not closed, and text after a closing quote, are errors. Lines end in `\n` or `\r\n`; a byte order mark is allowed; blank lines are no
/// rows. White space around a cell or a name is no part of it.
///
/// A value is missing if the cell is empty or `NA`, `N/A`, `NaN`, `null` or `?` in any case. Any other cell of a
/// selected column must be a finite decimal number such as `-1.5e3`. Decimals behind a comma and separators between thousands
/// are understood if all selected cells can be read in one such way only. Columns that are not selected may hold anything,
/// and may have no name or that of another.
///
/// # Errors
///
/// [`TabularError`], first group of variants; of several errors the one that is met first reading downwards, except
/// that missing values under [`MissingPolicy::Error`] are reported together after the last row.
///
/// # Cost
///
/// The file's bytes are in memory beside the table.
pub fn read_csv(path: &Path, selection: &Selection) -> Result<Table> {
    read(
        path,
        Target::Needed(&selection.target),
        selection.features.as_deref(),
        (selection.missing, Notation::Plain),
    )
}

/// Reads the features of a CSV file to predict from, and what is known of the target.
///
/// Where the file has no column of the target, or lacks its value in a row, `y` is empty: rows without a target are
/// what predictions are for. Where `notation`, that of the table that was learned from, is not the plain one, no other one is
/// tried: `1.234` would be a thousandth of what it was there.
///
/// # Errors
///
/// As [`read_csv`].
pub fn read_features(
    path: &Path,
    features: &[String],
    target: &str,
    missing: MissingPolicy,
    notation: Notation,
) -> Result<Table> {
    read(
        path,
        Target::IfThere(target),
        Some(features),
        (missing, notation),
    )
}

/// The column to predict.
#[derive(Clone, Copy)]
enum Target<'a> {
    /// Every row needs a value.
    Needed(&'a str),
    /// It is read where every row has one.
    IfThere(&'a str),
}

impl<'a> Target<'a> {
    fn name(self) -> Option<&'a str> {
        let (Self::Needed(name) | Self::IfThere(name)) = self;
        Some(name)
    }
}

fn header(path: &Path, records: &mut Records<&[u8]>) -> Result<Vec<String>> {
    let Some((_, header)) = records.next()? else {
        return Err(TabularError::EmptyFile {
            path: path.to_owned(),
        });
    };
    Ok(header.iter().map(|name| name.trim().to_owned()).collect())
}

/// Finds out how the numbers in some columns are written.
fn notation(path: &Path, text: &str, columns: &[usize]) -> Result<Option<Notation>> {
    let mut records = Records::new(path, text, Dialect::of_csv(text));
    records.next()?;
    let mut cells = Vec::new();
    while let Some((_, record)) = records.next()? {
        let selected = columns
            .iter()
            .map(|column| record.get(*column).unwrap_or_default());
        // Cells that are plain in both senses tell nothing.
        let telling = selected
            .map(str::trim)
            .filter(|cell| !cell.bytes().all(|byte| byte.is_ascii_digit()));
        cells.extend(telling.map(str::to_owned));
    }
    Notation::of(cells.iter().map(String::as_str)).map_err(|(text, [point, comma])| {
        TabularError::EitherNumber {
            path: path.to_owned(),
            text,
            point,
            comma,
        }
    })
}

fn read(
    path: &Path,
    target: Target<'_>,
    features: Option<&[String]>,
    (policy, known): (MissingPolicy, Notation),
) -> Result<Table> {
    let (bytes, digest) = read_data(path)?;
    let text = utf8(path, &bytes)?;
    let read = |notation| {
        read_text(
            (path, text),
            digest.clone(),
            target,
            features,
            (policy, notation),
        )
    };
    match read(known) {
        // Numbers as spreadsheets write them in other countries.
        Err(error @ TabularError::NotANumber { .. }) if known.is_plain() => {
            let names = header(path, &mut Records::new(path, text, Dialect::of_csv(text)))?;
            let target = target
                .name()
                .filter(|name| names.iter().any(|known| known == name));
            let Columns { features, target } = select(path, &names, target, features)?;
            let columns: Vec<usize> = features.into_iter().chain(target).collect();
            match notation(path, text, &columns)? {
                None | Some(Notation::Plain) => Err(error),
                Some(notation) => read(notation),
            }
        }
        read => read,
    }
}

fn read_text(
    (path, text): (&Path, &str),
    digest: FileDigest,
    target: Target<'_>,
    features: Option<&[String]>,
    (policy, notation): (MissingPolicy, Notation),
) -> Result<Table> {
    let names_features = features.is_some();
    let is_needed = matches!(target, Target::Needed(_));
    let mut records = Records::new(path, text, Dialect::of_csv(text));
    let header = header(path, &mut records)?;
    let target = match target {
        Target::Needed(name) => Some(name),
        Target::IfThere(name) => header.iter().any(|known| known == name).then_some(name),
    };
    let Columns { features, target } = select(path, &header, target, features)?;
    let mut all_known = target.is_some();

    let mut table = Table {
        features: features
            .iter()
            .map(|column| header[*column].clone())
            .collect(),
        target: target.map_or_else(String::new, |target| header[target].clone()),
        x: Vec::new(),
        y: Vec::new(),
        rows: Vec::new(),
        n_rows: 0,
        dropped: Vec::new(),
        digest: Some(digest),
        notation,
    };
    // Which columns have a missing value somewhere.
    let mut missing = vec![false; header.len()];
    let mut values = Vec::with_capacity(features.len() + 1);
    let mut number = 0;
    while let Some((line, record)) = records.next()? {
        if record.len() != header.len() {
            let (path, expected, found) = (path.to_owned(), header.len(), record.len());
            return Err(TabularError::Ragged {
                path,
                line,
                expected,
                found,
            });
        }
        values.clear();
        let mut complete = true;
        for column in features.iter().copied().chain(target) {
            let text = record.get(column).unwrap_or_default().trim();
            let owned = || (path.to_owned(), header[column].clone(), text.to_owned());
            match notation.read(text) {
                Cell::Number(value) => values.push(value),
                Cell::Missing if Some(column) == target && !is_needed => all_known = false,
                Cell::Missing => {
                    complete = false;
                    missing[column] = true;
                }
                Cell::NotFinite => {
                    let (path, column, text) = owned();
                    return Err(TabularError::NotFiniteCell {
                        path,
                        line,
                        column,
                        text,
                    });
                }
                Cell::Text => {
                    let named = Some(column) == target || names_features;
                    let (path, column, text) = owned();
                    return Err(TabularError::NotANumber {
                        path,
                        line,
                        column,
                        text,
                        named,
                        notation,
                    });
                }
            }
        }
        if complete {
            if values.len() > features.len() {
                table.y.extend(values.pop());
            }
            table.x.append(&mut values);
            table.rows.push(number);
        } else {
            table.dropped.push(line);
        }
        number += 1;
    }
    table.n_rows = table.rows.len();
    if !all_known {
        table.y.clear();
    }
    if !table.dropped.is_empty() && policy == MissingPolicy::Error {
        let rows = table.dropped.len();
        table.dropped.truncate(LISTED);
        let columns = features.into_iter().chain(target);
        let columns = columns.filter(|column| missing[*column]);
        return Err(TabularError::MissingValues {
            path: path.to_owned(),
            rows,
            of: number,
            lines: table.dropped,
            columns: columns.map(|column| header[column].clone()).collect(),
        });
    }
    if table.n_rows == 0 {
        let dropped = table.dropped.len();
        return Err(TabularError::NoRows {
            path: path.to_owned(),
            dropped,
        });
    }
    Ok(table)
}

/// Checks that every column has a name of its own.
fn check_names(path: &Path, header: &[String]) -> Result<()> {
    for (column, name) in header.iter().enumerate() {
        if name.is_empty() {
            return Err(TabularError::EmptyName {
                path: path.to_owned(),
                column: column + 1,
            });
        }
        if let Some(first) = header[..column].iter().position(|earlier| earlier == name) {
            return Err(TabularError::DuplicateName {
                path: path.to_owned(),
                name: name.clone(),
                first: first + 1,
                second: column + 1,
            });
        }
    }
    Ok(())
}

/// Places in the header.
struct Columns {
    /// The features, at least one.
    features: Vec<usize>,
    target: Option<usize>,
}

/// Finds the selected columns.
fn select(
    path: &Path,
    header: &[String],
    target: Option<&str>,
    features: Option<&[String]>,
) -> Result<Columns> {
    let find = |role: &'static str, wanted: &str| {
        let mut columns = (0..header.len()).filter(|column| header[*column] == wanted);
        match (columns.next(), columns.next()) {
            (Some(column), None) => Ok(column),
            (Some(first), Some(second)) => Err(TabularError::DuplicateName {
                path: path.to_owned(),
                name: wanted.to_owned(),
                first: first + 1,
                second: second + 1,
            }),
            (None, _) => Err(TabularError::UnknownColumn {
                path: path.to_owned(),
                role,
                name: wanted.to_owned(),
                nearest: nearest(wanted, header.iter().map(String::as_str)).map(str::to_owned),
                columns: header.to_vec(),
            }),
        }
    };
    let target_name = target.unwrap_or_default().to_owned();
    let target = target.map(|name| find("target", name)).transpose()?;
    let features = match features {
        // All are used, so each needs a name of its own.
        None => {
            check_names(path, header)?;
            (0..header.len())
                .filter(|column| Some(*column) != target)
                .collect()
        }
        Some(names) => {
            let mut features = Vec::with_capacity(names.len());
            for name in names {
                let column = find("features", name)?;
                if Some(column) == target {
                    return Err(TabularError::TargetIsFeature { name: name.clone() });
                }
                if features.contains(&column) {
                    return Err(TabularError::RepeatedFeature { name: name.clone() });
                }
                features.push(column);
            }
            features
        }
    };
    if features.is_empty() {
        return Err(TabularError::NoFeatures {
            target: target_name,
        });
    }
    Ok(Columns { features, target })
}
