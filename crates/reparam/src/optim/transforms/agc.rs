//! Bounding a gradient by the weights it belongs to.

use crate::optim::entry::{TransformEntry, one};
use crate::optim::error::Result;
use crate::optim::math::as_matrix;
use crate::optim::rules::{Placed, Role};
use crate::optim::transform::{GradientTransform, StepContext, Transformed, map_with_parameters};
use crate::parameters::{NamedTensor, ParameterList, flatten};
use crate::schema::{Range, number};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "clip_by_unit_norm",
    summary: "Adaptive gradient clipping: bound each unit's gradient by its weights",
    formula: "u_i = g_i min(1, clipping max(|W_i|, eps) / |g_i|),  i a row",
    source: "arXiv 2102.06171, equation 3",
    optimizer: None,
    settings: &[
        number(
            "clipping",
            Range::Positive,
            0.01,
            "maximum ratio of the two norms",
        ),
        number("eps", Range::Positive, 1e-3, "minimum norm of the weights"),
    ],
    build: |settings, _| {
        one(ClipByUnitNorm::new(
            settings.number("clipping")?,
            settings.number("eps")?,
        )?)
    },
};

/// Scales down the gradient of a unit whose norm is large beside that of its weights.
///
/// ```text
/// bound_i = clipping * max(|W_i|, eps)
/// u_i     = g_i * bound_i / |g_i|     if |g_i| >= bound_i,   g_i otherwise
/// ```
///
/// A unit `i` is a row of a weight `[d_out, d_in]`, all that belongs to one output; a tensor of one
/// axis is one unit.
///
/// # References
///
/// Brock et al., adaptive gradient clipping (arXiv 2102.06171), equation 3; the thresholds are
/// optax's `adaptive_grad_clip`, whose weights are transposed, so that its units are columns.
#[derive(Debug, Clone)]
pub struct ClipByUnitNorm {
    clipping: f64,
    eps: f64,
}

/// Keeps the division from a zero gradient.
const SMALLEST_NORM: f64 = 1e-6;

impl ClipByUnitNorm {
    /// Creates the transform; both numbers must be positive, usual values are 0.01 and 1e-3.
    pub fn new(clipping: f64, eps: f64) -> Result<Self> {
        Range::Positive.check("clipping", clipping)?;
        Range::Positive.check("eps", eps)?;
        Ok(Self { clipping, eps })
    }
}

impl GradientTransform for ClipByUnitNorm {
    fn name(&self) -> &'static str {
        "clip_by_unit_norm"
    }

    fn transform(&mut self, updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        Ok(map_with_parameters(
            updates,
            context,
            |update, parameter| {
                let units = |tensor: &NamedTensor| {
                    as_matrix(tensor).unwrap_or_else(|| tensor.values.clone().unsqueeze::<2>())
                };
                let norm =
                    |matrix: burn::tensor::Tensor<2>| (matrix.clone() * matrix).sum_dim(1).sqrt();
                let gradient = units(update);
                let size = norm(gradient.clone());
                let bound = norm(units(parameter)).clamp_min(self.eps) * self.clipping;
                let is_large = size.clone().greater_equal(bound.clone());
                let factor = bound / size.clamp_min(SMALLEST_NORM);
                let factor = factor.ones_like().mask_where(is_large, factor);
                flatten(gradient * factor)
            },
        ))
    }

    fn roles(&self) -> Vec<Placed> {
        Placed::relative(Placed::everywhere(self.name(), Role::Bound))
    }
}
