//! Sharpness-aware minimization.

use crate::optim::entry::{TransformEntry, one};
use crate::optim::error::{OptimError, Result};
use crate::optim::math::global_norm;
use crate::optim::transform::{GradientTransform, StepContext, Transformed, placed};
use crate::parameters::{NamedTensor, ParameterList};
use crate::schema::{Range, number};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "sam",
    summary: "Take the gradient where the loss is worst nearby",
    formula: "g at theta + rho g / |g|",
    source: "arXiv 2010.01412, algorithm 1",
    optimizer: None,
    settings: &[number("rho", Range::Positive, 0.05, "how far away")],
    build: |settings, _| one(Sam::new(settings.number("rho")?)?),
};

/// Takes the gradient where the loss is worst nearby.
///
/// ```text
/// probe:  theta + rho g / (|g| + 1e-12),   |g| over all parameters together
/// u     = the gradient there
/// ```
///
/// A step needs two gradients: [`Optimizer::probe_list`](crate::optim::Optimizer::probe_list) returns the point, the
/// caller takes the gradient there and steps with it from the old parameters.
///
/// # References
///
/// Foret et al. (arXiv 2010.01412), algorithm 1 with `p = 2`.
///
/// # Cost
///
/// A second forward and backward pass a step.
#[derive(Debug, Clone)]
pub struct Sam {
    rho: f64,
    /// Whether the point of the coming step was handed out.
    probed: bool,
}

impl Sam {
    /// Creates the transform; `rho` must be positive, the paper's value is 0.05.
    pub fn new(rho: f64) -> Result<Self> {
        Range::Positive.check("rho", rho)?;
        Ok(Self { rho, probed: false })
    }
}

impl GradientTransform for Sam {
    placed!("sam", Probe);

    fn transform(&mut self, updates: ParameterList, _context: &StepContext<'_>) -> Transformed {
        // Without the probe this would be plain descent under another name.
        if !std::mem::take(&mut self.probed) {
            return Err(OptimError::NotProbed {
                transform: self.name(),
            });
        }
        Ok(updates)
    }

    fn probe(
        &mut self,
        gradients: &[NamedTensor],
        context: &StepContext<'_>,
    ) -> Result<Option<ParameterList>> {
        self.probed = true;
        let factor = self.rho / (global_norm(gradients) + 1e-12);
        let point = gradients.iter().zip(context.parameters);
        Ok(Some(
            point
                .map(|(gradient, parameter)| {
                    let values = parameter.values.clone() + gradient.values.clone() * factor;
                    parameter.clone().with_values(values)
                })
                .collect(),
        ))
    }
}
