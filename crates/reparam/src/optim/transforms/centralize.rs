//! Gradients without their mean.

use crate::optim::entry::{TransformEntry, one};
use crate::optim::math::as_matrix;
use crate::optim::transform::{GradientTransform, StepContext, Transformed, map, placed};
use crate::parameters::{ParameterList, flatten};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "centralize",
    summary: "Subtract the mean of each row of a gradient",
    formula: "u_ij = g_ij - mean_j(g_ij)",
    source: "arXiv 2004.01461, equation 1",
    optimizer: None,
    settings: &[],
    build: |_, _| one(Centralize),
};

/// Subtracts from every row of a gradient its mean.
///
/// ```text
/// u_ij = g_ij - mean_j(g_ij)        tensors of two or more axes; others pass unchanged
/// ```
///
/// A row is what belongs to one output: the first axis, as weights are `[d_out, d_in]`. Under
/// gradient descent the mean of every row of the weight then stays what it was.
///
/// # References
///
/// Yong et al., gradient centralization (arXiv 2004.01461), equation 1; the axis is that of optax's
/// `centralize`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Centralize;

impl GradientTransform for Centralize {
    placed!("centralize", Project);

    fn transform(&mut self, updates: ParameterList, _context: &StepContext<'_>) -> Transformed {
        Ok(map(updates, |update| match as_matrix(update) {
            None => update.values.clone(),
            Some(matrix) => {
                let mean = matrix.clone().mean_dim(1);
                flatten(matrix - mean)
            }
        }))
    }
}
