//! A confusion matrix as people read it.

use serde_json::Value;

use crate::error::Result;
use crate::format::{count, counted};
use crate::output::Printer;

/// The most labels that fit side by side.
const MOST_LABELS: usize = 12;

/// The most characters of a label.
const MOST_CHARACTERS: usize = 12;

/// How often each label is predicted as each.
pub(super) struct Matrix<'a> {
    labels: Vec<&'a str>,
    rows: Vec<Vec<u64>>,
}

impl<'a> Matrix<'a> {
    /// Takes the object that `eval` gives.
    pub(super) fn of(value: &'a Value) -> Option<Self> {
        let labels = value["labels"].as_array()?.iter();
        let rows = value["rows"].as_array()?.iter();
        Some(Self {
            labels: labels.map(Value::as_str).collect::<Option<_>>()?,
            rows: rows
                .map(|row| row.as_array()?.iter().map(Value::as_u64).collect())
                .collect::<Option<_>>()?,
        })
    }

    /// Prints a table: a line a label as it is, a column a label as it is predicted.
    pub(super) fn print(&self, printer: &mut Printer<'_>) -> Result<()> {
        let shown = self.shown();
        let names: Vec<String> = shown
            .iter()
            .map(|label| cut(&reparam_formats::shown(self.labels[*label]).to_string()))
            .collect();
        let numbers = shown
            .iter()
            .flat_map(|row| shown.iter().map(|column| count(self.rows[*row][*column])));
        let cells = names.iter().cloned().chain(numbers);
        let width = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        let line = |first: &str, cells: &mut dyn Iterator<Item = String>| {
            let cells: Vec<String> = cells.map(|cell| format!("{cell:>width$}")).collect();
            format!("{first:<width$}  {}", cells.join("  "))
        };
        printer.line("")?;
        printer.line("confusion: a line a label, a column its prediction")?;
        printer.line(&line("", &mut names.iter().cloned()))?;
        for (row, name) in shown.iter().zip(&names) {
            let mut numbers = shown.iter().map(|column| count(self.rows[*row][*column]));
            printer.line(&line(name, &mut numbers))?;
        }
        let left = self.labels.len() - shown.len();
        if left > 0 {
            let left = counted(left as u64, "rarer label");
            printer.line(&format!("{left} not shown; --json has all"))?;
        }
        Ok(())
    }

    /// The labels that are shown, in their order: those that most rows have or are predicted to have.
    fn shown(&self) -> Vec<usize> {
        let n = self.labels.len();
        let weight = |label: usize| {
            let column: u64 = self.rows.iter().map(|row| row[label]).sum();
            column + self.rows[label].iter().sum::<u64>()
        };
        let mut labels: Vec<usize> = (0..n).collect();
        labels.sort_by_key(|label| std::cmp::Reverse(weight(*label)));
        labels.truncate(MOST_LABELS);
        labels.sort_unstable();
        labels
    }
}

fn cut(label: &str) -> String {
    match label.chars().count() {
        n if n <= MOST_CHARACTERS => label.to_owned(),
        _ => {
            let start: String = label.chars().take(MOST_CHARACTERS - 1).collect();
            format!("{start}~")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_labels_that_most_rows_have_are_shown_in_their_order() {
        let n = MOST_LABELS + 3;
        let labels: Vec<String> = (0..n).map(|n| format!("label {n}")).collect();
        // The second one has no rows, and the last two have one.
        let of = |a: usize| match a {
            1 => 0,
            a if a + 2 >= n => 1,
            _ => 5,
        };
        let rows: Vec<Vec<usize>> = (0..n)
            .map(|a| (0..n).map(|p| if a == p { of(a) } else { 0 }).collect())
            .collect();
        let value = json!({ "labels": labels, "rows": rows });
        let shown = Matrix::of(&value).expect("a matrix").shown();
        let expected: Vec<usize> = (0..n - 2).filter(|n| *n != 1).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn long_labels_are_cut() {
        assert_eq!(cut("ham"), "ham");
        assert_eq!(cut("a very long label"), "a very long~");
    }
}
