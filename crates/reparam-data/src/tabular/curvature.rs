//! How steep the loss of a linear model can be.

use nalgebra::DMatrix;

use super::TabularError;
use super::error::Result;

/// Returns the curvature of the mean squared error of a linear model: the largest eigenvalue of its second
/// derivative.
///
/// ```text
/// L(w, b) = 1/N sum_i (x_i w + b - y_i)^2,   H = 2/N [X 1]'[X 1]
/// ```
///
/// Plain gradient descent is stable while its learning rate, times lambda if there is one, is below
/// `2 / curvature`. The target does not matter.
///
/// # Errors
///
/// [`TabularError::NoFeatures`] for numbers that are no whole rows of features.
///
/// # Cost
///
/// `n (d + 1)^2` multiplications, and the eigenvalues of a matrix of `d + 1` rows.
pub fn curvature(x: &[f64], n_features: usize) -> Result<f64> {
    if n_features == 0 || x.len() < n_features || !x.len().is_multiple_of(n_features) {
        return Err(TabularError::NoFeatures {
            target: "the target".to_owned(),
        });
    }
    let n = x.len() / n_features;
    let with_ones = DMatrix::from_fn(n, n_features + 1, |row, column| {
        if column == n_features {
            1.0
        } else {
            x[row * n_features + column]
        }
    });
    let hessian = with_ones.transpose() * &with_ones * (2.0 / n as f64);
    Ok(hessian.symmetric_eigenvalues().max())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_largest_eigenvalue() {
        // Two features of variance one with correlation -0.5, mean zero: eigenvalues of [[1, r], [r, 1]].
        let (a, b) = (1.0, 0.5_f64);
        let c = (1.0 - b * b).sqrt();
        let x: Vec<f64> = [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)]
            .iter()
            .flat_map(|(u, v)| [a * u, -b * u + c * v])
            .collect();
        assert!((curvature(&x, 2).unwrap() - 3.0).abs() < 1e-12);
        // Without features that vary, the bias is what is left.
        assert!((curvature(&[0.0, 0.0], 1).unwrap() - 2.0).abs() < 1e-12);
        // A mean far from zero makes it steep.
        assert!(curvature(&[100.0, 101.0], 1).unwrap() > 2e4);
    }

    #[test]
    fn rows_have_to_be_whole() {
        curvature(&[1.0, 2.0, 3.0], 2).unwrap_err();
    }
}
