//! Signs instead of sizes.

use crate::optim::entry::{TransformEntry, one, optimizer};
use crate::optim::transform::{GradientTransform, StepContext, Transformed, map, placed};
use crate::parameters::ParameterList;

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "sign",
    summary: "Keep the signs only: every parameter moves by the learning rate",
    formula: "u = sign(g)",
    source: "arXiv 1802.04434, algorithm 1",
    optimizer: optimizer(1e-4),
    settings: &[],
    build: |_, _| one(Sign),
};

/// Replaces every element by its sign.
///
/// ```text
/// u = sign(g),   sign(0) = 0
/// ```
///
/// Every parameter moves by exactly the learning rate: bounded steps whatever the gradient is. The
/// loss then ends in a band around the minimum as wide as the learning rate; decay it.
///
/// # References
///
/// Bernstein et al., signSGD (arXiv 1802.04434), algorithm 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sign;

impl GradientTransform for Sign {
    placed!("sign", Sign);

    fn transform(&mut self, updates: ParameterList, _context: &StepContext<'_>) -> Transformed {
        Ok(map(updates, |update| update.values.clone().sign()))
    }
}
