//! Reading columns of numbers from a CSV file.

use std::path::Path;

use reparam_formats::nearest;
use serde::{Deserialize, Serialize};

use super::error::{Result, TabularError};
use super::table::Table;
use crate::source::{Dialect, FileDigest, Records, read_file, utf8};

#[cfg(test)]
mod tests;

/// How a cell says that its value is missing, beside being empty; in any case of the letters.
const MISSING: [&str; 5] = ["na", "n/a", "nan", "null", "?"];

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
/// The format is that of RFC 4180 with a header: cells separated by commas, quoted by `"` where they hold a comma, a
/// quote (doubled) or a line end. A quote that is not closed, and text after a closing quote, are errors. Lines end in `\n` or `\r\n`; a byte order mark is allowed; blank lines are no
/// rows. White space around a cell or a name is no part of it.
///
/// A value is missing if the cell is empty or `NA`, `N/A`, `NaN`, `null` or `?` in any case. Any other cell of a
/// selected column must be a finite decimal number with a point, such as `-1.5e3`. Columns that are not selected may
/// hold anything.
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
        selection.missing,
    )
}

/// Reads the features of a CSV file to predict from, and what is known of the target.
///
/// Where the file has no column of the target, or lacks its value in a row, `y` is empty: rows without a target are
/// what predictions are for.
///
/// # Errors
///
/// As [`read_csv`].
pub fn read_features(
    path: &Path,
    features: &[String],
    target: &str,
    missing: MissingPolicy,
) -> Result<Table> {
    read(path, Target::IfThere(target), Some(features), missing)
}

/// The column to predict.
#[derive(Clone, Copy)]
enum Target<'a> {
    /// Every row needs a value.
    Needed(&'a str),
    /// It is read where every row has one.
    IfThere(&'a str),
}

fn header(path: &Path, records: &mut Records<'_>) -> Result<Vec<String>> {
    let Some((_, header)) = records.next()? else {
        return Err(TabularError::EmptyFile {
            path: path.to_owned(),
        });
    };
    let header: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
    check_names(path, &header)?;
    Ok(header)
}

fn read(
    path: &Path,
    target: Target<'_>,
    features: Option<&[String]>,
    policy: MissingPolicy,
) -> Result<Table> {
    let names_features = features.is_some();
    let is_needed = matches!(target, Target::Needed(_));
    let bytes = read_file(path)?;
    let digest = FileDigest::of(path, &bytes);
    let mut records = Records::new(path, utf8(path, &bytes)?, Dialect::Csv);
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
            match number_of(text) {
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

/// What a cell says.
enum Cell {
    Number(f64),
    Missing,
    NotFinite,
    Text,
}

/// Reads a cell without the white space around it.
fn number_of(text: &str) -> Cell {
    if text.is_empty() || MISSING.iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return Cell::Missing;
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Cell::Number(value),
        Ok(_) => Cell::NotFinite,
        Err(_) => Cell::Text,
    }
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
        header
            .iter()
            .position(|name| name == wanted)
            .ok_or_else(|| TabularError::UnknownColumn {
                path: path.to_owned(),
                role,
                name: wanted.to_owned(),
                nearest: nearest(wanted, header.iter().map(String::as_str)).map(str::to_owned),
                columns: header.to_vec(),
            })
    };
    let target_name = target.unwrap_or_default().to_owned();
    let target = target.map(|name| find("target", name)).transpose()?;
    let features = match features {
        None => (0..header.len())
            .filter(|column| Some(*column) != target)
            .collect(),
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
