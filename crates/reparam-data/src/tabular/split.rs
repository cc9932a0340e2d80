//! Which rows are held out for the test.

use serde::{Deserialize, Serialize};

use super::error::{Result, TabularError};
use crate::order::permutation;

#[cfg(test)]
mod tests;

/// The rows of a table in two parts, each in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// The rows to learn from, counted from 0.
    pub train: Vec<usize>,
    /// The rows held out.
    pub test: Vec<usize>,
}

/// Parts the rows `0..n` at random, a function of the arguments alone.
///
/// The test set is the first `ceil(n * test_fraction)` entries of [`permutation`]`(n, seed, 0)`, the rest is the
/// training set; the product is rounded to `f64` before the ceiling is taken. The size is that of scikit-learn's
/// `train_test_split`, the choice is not.
///
/// # Errors
///
/// [`TabularError::TestFraction`] unless `0 < test_fraction < 1`; [`TabularError::EmptyPart`] if a part would have
/// no rows.
pub fn split_rows(n: usize, test_fraction: f64, seed: u64) -> Result<Split> {
    if !(test_fraction > 0.0 && test_fraction < 1.0) {
        let fraction = test_fraction;
        return Err(TabularError::TestFraction { fraction });
    }
    let n_test = (n as f64 * test_fraction).ceil() as usize;
    let empty = |part| TabularError::EmptyPart {
        rows: n,
        fraction: test_fraction,
        part,
    };
    if n_test == 0 {
        return Err(empty("the test"));
    }
    if n_test >= n {
        return Err(empty("training"));
    }
    let mut test = permutation(n, seed, 0);
    let mut train = test.split_off(n_test);
    test.sort_unstable();
    train.sort_unstable();
    Ok(Split { train, test })
}
