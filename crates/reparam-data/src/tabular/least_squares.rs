//! The exact solution of the linear problem.

use nalgebra::linalg::SVD;
use nalgebra::{DMatrix, DVector};
use serde::{Deserialize, Serialize};

use super::error::{Result, TabularError};
use super::standardize::{check_matrix, usable};

#[cfg(test)]
mod tests;

/// The linear model `y = x w + b` with the smallest squared error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeastSquares {
    /// `w`, one coefficient a feature, in units of the target a unit of the feature.
    pub coefficients: Vec<f64>,
    /// `b`, in units of the target.
    pub intercept: f64,
    /// Numerical rank of the features; it equals their number, for anything else is an error.
    pub rank: usize,
    /// Largest over smallest singular value of the features, each centred and divided by its standard deviation:
    /// 1 for uncorrelated features. It bounds how much larger relative errors of the coefficients are than those
    /// of the data, and its square is how much slower gradient descent converges in the worst direction.
    pub condition: f64,
}

/// Finds `w` and `b` that minimize `sum_i (y_i - sum_j w_j x_ij - b)^2`.
///
/// Every feature is centred and divided by its standard deviation, the target is centred; then `A v = y` is solved
/// by Householder's QR decomposition, `R v = Q' y` (Golub and Van Loan, "Matrix Computations", 4th edition,
/// algorithm 5.3.2), and `w_j = v_j / scale_j`, `b = mean(y) - sum_j w_j mean_j`. The columns may so have very
/// different units and means far from 0. Rank and condition are those of the singular values of `R`, which are the
/// ones of `A`. A singular value counts as zero if it is at most the largest times
///
/// ```text
/// epsilon * max(rows, sqrt(features) * max_ij |x_ij| / scale_j)
/// ```
///
/// where the first term is the customary one and the second what centring has rounded away.
///
/// # Arguments
///
/// - `x`: `[rows, n_features]` in row-major order.
/// - `y`: `[rows]`.
///
/// # Errors
///
/// [`TabularError::NoFeatures`]; [`TabularError::Length`] unless `x` has as many rows as `y`;
/// [`TabularError::TooFewRows`] for fewer rows than features + 1; [`TabularError::NotFinite`] and
/// [`TabularError::Range`] for numbers that cannot be computed with; [`TabularError::ConstantFeatures`];
/// [`TabularError::RankDeficient`] if features are linear combinations of others;
/// [`TabularError::NoConvergence`]. Messages say `column 1` for the first feature; those of
/// [`Table::least_squares`](super::Table::least_squares) say its name.
///
/// # Cost
///
/// `2 rows n_features^2` floating-point operations, and one copy of `x`.
pub fn least_squares(x: &[f64], n_features: usize, y: &[f64]) -> Result<LeastSquares> {
    solve(x, n_features, y, |column| format!("column {}", column + 1))
}

/// [`least_squares`] with the features' names for the errors.
pub(super) fn solve(
    x: &[f64],
    n_features: usize,
    y: &[f64],
    name: impl Fn(usize) -> String,
) -> Result<LeastSquares> {
    let (n, rows) = (n_features, y.len());
    if n == 0 {
        return Err(TabularError::NoFeatures {
            target: "the target".to_owned(),
        });
    }
    check_matrix(x, n, rows)?;
    if rows <= n {
        return Err(TabularError::TooFewRows { rows, features: n });
    }
    let column = |column: usize| x.iter().skip(column).step_by(n).copied();
    let moments = (0..n)
        .map(|index| usable(column(index), || format!("feature `{}`", name(index))))
        .collect::<Result<Vec<_>>>()?;
    let target = usable(y.iter().copied(), || "the target".to_owned())?;
    let constant: Vec<String> = (0..n)
        .filter(|index| moments[*index].constant)
        .map(&name)
        .collect();
    if !constant.is_empty() {
        return Err(TabularError::ConstantFeatures {
            columns: constant,
            rows,
        });
    }

    // Columns of length 1, so that the diagonal of R is the sine of each one's angle to those before it.
    let length = (rows as f64).sqrt();
    let centred = DMatrix::from_iterator(
        rows,
        n,
        (0..n).flat_map(|index| {
            let moments = moments[index];
            column(index).map(move |x| (x - moments.mean) / moments.scale / length)
        }),
    );
    let mut projected = DVector::from_iterator(rows, y.iter().map(|y| y - target.mean));
    let qr = centred.qr();
    qr.q_tr_mul(&mut projected);
    let r = qr.unpack_r();

    // A few sweeps a singular value are the rule; the bound only keeps a strange matrix from running for ever.
    let iterations = 1000 + 100 * n;
    let svd = SVD::try_new_unordered(r.clone(), false, false, 5.0 * f64::EPSILON, iterations)
        .ok_or(TabularError::NoConvergence {
            columns: n,
            iterations,
        })?;
    let values = svd.singular_values;
    let rounded = moments
        .iter()
        .map(|m| m.largest / m.scale)
        .fold(0.0, f64::max);
    let relative = f64::EPSILON * (rows as f64).max((n as f64).sqrt() * rounded);
    let tolerance = relative * values.max();
    let rank = values.iter().filter(|value| **value > tolerance).count();
    if rank < n {
        let dependent = (0..n).filter(|index| r[(*index, *index)].abs() <= tolerance);
        let dependent = dependent.map(name).collect();
        return Err(TabularError::RankDeficient {
            rank,
            columns: n,
            dependent,
        });
    }

    let mut solution = projected.rows(0, n).into_owned();
    // Full rank was checked: no element of the diagonal is zero.
    let solved = r.solve_upper_triangular_mut(&mut solution);
    debug_assert!(
        solved,
        "a triangular matrix of full rank has no zero on its diagonal"
    );
    let coefficients: Vec<f64> = solution
        .iter()
        .zip(&moments)
        .map(|(v, moments)| v / length / moments.scale)
        .collect();
    let shift: f64 = coefficients
        .iter()
        .zip(&moments)
        .map(|(w, moments)| w * moments.mean)
        .sum();
    Ok(LeastSquares {
        coefficients,
        intercept: target.mean - shift,
        rank,
        condition: values.max() / values.min(),
    })
}

/// Predicts `x w + b` for features `[rows, coefficients.len()]` in row-major order.
///
/// # Errors
///
/// [`TabularError::NoFeatures`] without coefficients, [`TabularError::Length`] unless the rows of `x` are whole.
pub fn predict(x: &[f64], coefficients: &[f64], intercept: f64) -> Result<Vec<f64>> {
    let n = coefficients.len();
    if n == 0 {
        return Err(TabularError::NoFeatures {
            target: "the target".to_owned(),
        });
    }
    check_matrix(x, n, x.len() / n)?;
    let rows = x.chunks_exact(n);
    Ok(rows
        .map(|row| {
            intercept
                + row
                    .iter()
                    .zip(coefficients)
                    .map(|(x, w)| x * w)
                    .sum::<f64>()
        })
        .collect())
}
