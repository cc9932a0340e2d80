//! What can go wrong between a table and the numbers of a regression, with the values that say why.

use std::path::PathBuf;

use thiserror::Error;

use super::number::Notation;
use crate::error::DataError;
use reparam_formats::shown;

mod hint;

/// The result of this module's fallible functions.
pub type Result<T> = std::result::Result<T, TabularError>;

/// An error in a table, in the choice of its columns, or in the numbers of a regression.
///
/// The message says what is wrong; [`TabularError::hint`] says what to do about it. Lines and columns of a file
/// are counted from 1, the line of the header being 1 unless blank lines are above it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TabularError {
    // Reading.
    /// The file cannot be read, or is not UTF-8.
    #[error(transparent)]
    Read(#[from] DataError),
    /// The file has no header: no bytes, or nothing but blank lines.
    #[error("{} is empty", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// A column has no name.
    #[error("{}: column {column} of the header has no name", path.display())]
    EmptyName {
        /// The file.
        path: PathBuf,
        /// The column, counted from 1.
        column: usize,
    },
    /// Two columns have the same name.
    #[error("{}: columns {first} and {second} are both named `{name}`", path.display(), name = shown(name))]
    DuplicateName {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
        /// The first column of that name, counted from 1.
        first: usize,
        /// The second.
        second: usize,
    },
    /// A column that was asked for is not in the header.
    #[error("{}: no column `{name}` for the {role}, found {}", path.display(), some_of(columns), name = shown(name))]
    UnknownColumn {
        /// The file.
        path: PathBuf,
        /// `target` or `features`.
        role: &'static str,
        /// The name asked for.
        name: String,
        /// The column most like it.
        nearest: Option<String>,
        /// All columns of the file.
        columns: Vec<String>,
    },
    /// The target is named among the features, which would give the answer away.
    #[error("the target `{name}` is among the features", name = shown(name))]
    TargetIsFeature {
        /// The column.
        name: String,
    },
    /// A feature is named twice.
    #[error("the feature `{name}` is named twice", name = shown(name))]
    RepeatedFeature {
        /// The column.
        name: String,
    },
    /// There is no feature to predict from.
    #[error("there are no features to predict `{target}` from", target = shown(target))]
    NoFeatures {
        /// The target.
        target: String,
    },
    /// A record has another number of cells than the header.
    #[error("{}:{line}: expected {expected} cells as in the header, found {found}", path.display())]
    Ragged {
        /// The file.
        path: PathBuf,
        /// The line on which the record begins.
        line: usize,
        /// Columns of the header.
        expected: usize,
        /// Cells of the record.
        found: usize,
    },
    /// A cell is not a number.
    #[error("{}:{line}: column `{column}` is not a number: \"{}\"", path.display(), shown(text), column = shown(column))]
    NotANumber {
        /// The file.
        path: PathBuf,
        /// The line on which the record begins.
        line: usize,
        /// The column.
        column: String,
        /// The cell; the message quotes its first 40 characters.
        text: String,
        /// Whether the column was asked for by name, not taken because no features were named.
        named: bool,
        /// How the numbers of the table are written.
        notation: Notation,
    },
    /// Numbers can be read in two ways, and nothing in the table says which is meant.
    #[error("{}: \"{}\" may mean {point} or {comma}", path.display(), shown(text))]
    EitherNumber {
        /// The file.
        path: PathBuf,
        /// The first such cell.
        text: String,
        /// What it is if decimals are behind a point.
        point: f64,
        /// What it is if decimals are behind a comma.
        comma: f64,
    },
    /// A cell is infinite, too large for a 64-bit number, or a signed "nan".
    #[error("{}:{line}: column `{column}` is not finite: \"{}\"", path.display(), shown(text), column = shown(column))]
    NotFiniteCell {
        /// The file.
        path: PathBuf,
        /// The line on which the record begins.
        line: usize,
        /// The column.
        column: String,
        /// The cell; the message quotes its first 40 characters.
        text: String,
    },
    /// Values are missing, and the policy says that none may be.
    #[error("{}: missing values in {rows} of {of} rows, columns {}, lines {}",
        path.display(), some_of(columns), numbers(lines, *rows))]
    MissingValues {
        /// The file.
        path: PathBuf,
        /// Rows with a missing value.
        rows: usize,
        /// Rows of the file.
        of: usize,
        /// The lines of such rows, the first ten of them.
        lines: Vec<usize>,
        /// The columns in which values are missing, in the order of the features, the target last.
        columns: Vec<String>,
    },
    /// The file has a header and no rows, or every row was dropped.
    #[error("{} has no rows{}", path.display(), all_dropped(*dropped))]
    NoRows {
        /// The file.
        path: PathBuf,
        /// Rows that were dropped because of missing values.
        dropped: usize,
    },
    /// Predictions cannot be measured without the target of every row.
    #[error("{} does not have `{target}` in every row", path.display(), target = shown(target))]
    NoTarget {
        /// The file.
        path: PathBuf,
        /// The target.
        target: String,
    },

    // Generating.
    /// Fewer than two samples show no slope.
    #[error("cannot generate {samples} samples: at least 2 are needed")]
    TooFewSamples {
        /// Samples asked for.
        samples: usize,
    },
    /// A problem without features.
    #[error("cannot generate a problem with no features")]
    ZeroFeatures,
    /// The noise is no standard deviation, or so large that the targets overflow.
    #[error(
        "the noise is {noise:?}, expected a standard deviation: a finite number from 0 upwards"
    )]
    Noise {
        /// The noise asked for.
        noise: f64,
    },
    /// The problem would not fit into memory.
    #[error("{samples} samples of {features} features are more than {limit} numbers")]
    TooLarge {
        /// Samples asked for.
        samples: usize,
        /// Features asked for.
        features: usize,
        /// The most numbers that are generated.
        limit: usize,
    },

    // Splitting.
    /// The test fraction is not between 0 and 1.
    #[error("the test fraction is {fraction}, outside 0 < fraction < 1")]
    TestFraction {
        /// The fraction.
        fraction: f64,
    },
    /// One side of the split would be empty.
    #[error("a test fraction of {fraction} of {rows} rows leaves no row for {part}")]
    EmptyPart {
        /// Rows to split.
        rows: usize,
        /// The fraction.
        fraction: f64,
        /// `training` or `the test`.
        part: &'static str,
    },
    /// A row that the table does not have.
    #[error("row {row} was asked for, the table has {rows} rows")]
    RowOutside {
        /// The row, counted from 0.
        row: usize,
        /// Rows of the table.
        rows: usize,
    },

    // Numbers.
    /// Two slices do not fit together.
    #[error("{what} should have {expected} numbers, found {found}")]
    Length {
        /// What the slice holds.
        what: &'static str,
        /// How many it should have.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// There is nothing to measure or to fit.
    #[error("there are no rows to compute {what} of")]
    Nothing {
        /// What was to be computed.
        what: &'static str,
    },
    /// A number is NaN or infinite.
    #[error("{what} has a number that is not finite in row {row} (counted from 0): {value}")]
    NotFinite {
        /// What the slice holds.
        what: String,
        /// The row, counted from 0.
        row: usize,
        /// The number.
        value: f64,
    },
    /// Features have the same value in every row.
    #[error("constant over the {rows} rows: {}", some_of(columns))]
    ConstantFeatures {
        /// The features.
        columns: Vec<String>,
        /// Rows looked at.
        rows: usize,
    },
    /// The target has the same value in every row.
    #[error(
        "the target{} is constant over the {rows} rows: {value}",
        named(target)
    )]
    ConstantTarget {
        /// Its name, if it is known.
        target: Option<String>,
        /// Rows looked at.
        rows: usize,
        /// The value.
        value: f64,
    },
    /// The mean or the standard deviation of a column is outside of what a 64-bit number holds.
    #[error("{column} cannot be standardized: mean {mean:e}, standard deviation {scale:e}", column = shown(column))]
    Range {
        /// The column.
        column: String,
        /// The mean computed.
        mean: f64,
        /// The standard deviation computed.
        scale: f64,
    },
    /// The squares of a target are outside of what a 64-bit number holds.
    #[error(
        "squared errors of the target `{target}` cannot be computed: largest value {largest:e}, \
         standard deviation {scale:e}", target = shown(target)
    )]
    SquareRange {
        /// The target.
        target: String,
        /// The largest magnitude.
        largest: f64,
        /// The standard deviation.
        scale: f64,
    },
    /// Fewer rows than unknowns.
    #[error("{rows} rows cannot determine {features} coefficients and an intercept")]
    TooFewRows {
        /// Rows.
        rows: usize,
        /// Features.
        features: usize,
    },
    /// Some columns are linear combinations of others, so that the coefficients are not determined.
    #[error("the {columns} features are linearly dependent: their rank is {rank}")]
    RankDeficient {
        /// Numerical rank of the centred features.
        rank: usize,
        /// Features.
        columns: usize,
        /// Features that are linear combinations of those before them.
        dependent: Vec<String>,
    },
    /// The singular values were not found.
    #[error("the singular values of {columns} features were not found in {iterations} iterations")]
    NoConvergence {
        /// Features.
        columns: usize,
        /// Iterations tried.
        iterations: usize,
    },
}

/// Writes the first ten names as "`a`, `b`", and how many more there are.
fn some_of(names: &[String]) -> String {
    let quoted: Vec<_> = names
        .iter()
        .take(10)
        .map(|name| format!("`{}`", shown(name)))
        .collect();
    more(quoted, names.len())
}

/// Writes numbers, of which there are `count` in all.
fn numbers(numbers: &[usize], count: usize) -> String {
    more(numbers.iter().map(usize::to_string).collect(), count)
}

fn more(shown: Vec<String>, count: usize) -> String {
    let rest = count.saturating_sub(shown.len());
    let shown = shown.join(", ");
    if rest == 0 {
        shown
    } else {
        format!("{shown} and {rest} more")
    }
}

fn all_dropped(dropped: usize) -> String {
    match dropped {
        0 => String::new(),
        _ => format!(" left: all {dropped} have missing values"),
    }
}

fn named(target: &Option<String>) -> String {
    target
        .as_ref()
        .map_or_else(String::new, |name| format!(" `{name}`"))
}
