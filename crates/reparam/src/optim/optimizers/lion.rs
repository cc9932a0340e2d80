//! Lion: the sign of an interpolated momentum.

use crate::optim::entry::{TransformEntry, WEIGHT_DECAY, one, optimizer};
use crate::optim::error::Result;
use crate::optim::rules::{Placed, Role};
use crate::optim::state;
use crate::optim::transform::{GradientTransform, StepContext, Transformed};
use crate::parameters::ParameterList;
use crate::schema::{Range, number};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "lion",
    summary: "The sign of an interpolation between momentum and gradient",
    formula: "u = sign(beta1 m + (1 - beta1) g) + weight_decay theta;  m = beta2 m + (1 - beta2) g",
    source: "arXiv 2302.06675, algorithm 2",
    optimizer: optimizer(3e-5),
    settings: &[
        number(
            "beta1",
            Range::BelowOne,
            0.9,
            "share of the momentum in the direction",
        ),
        number("beta2", Range::BelowOne, 0.99, "decay of the momentum"),
        WEIGHT_DECAY,
    ],
    build: |settings, _| {
        one(Lion::new(
            settings.number("beta1")?,
            settings.number("beta2")?,
            settings.number("weight_decay")?,
        )?)
    },
};

/// Moves by the sign of an interpolation between momentum and gradient.
///
/// ```text
/// u   = sign(beta1 m_{t-1} + (1 - beta1) g_t) + weight_decay * theta
/// m_t = beta2 m_{t-1} + (1 - beta2) g_t
/// ```
///
/// The learning rate wants to be 3 to 10 times smaller than Adam's, the decay larger by as much.
///
/// # References
///
/// Chen et al. (arXiv 2302.06675), algorithm 2, and optax's `lion`.
///
/// # Cost
///
/// One number a parameter.
#[derive(Debug, Clone)]
pub struct Lion {
    beta1: f64,
    beta2: f64,
    weight_decay: f64,
    exp_avg: ParameterList,
}

impl Lion {
    /// Creates the transform; usual betas are 0.9 and 0.99.
    ///
    /// # Errors
    ///
    /// Fails unless both betas are in `[0, 1)` and the decay is not negative.
    pub fn new(beta1: f64, beta2: f64, weight_decay: f64) -> Result<Self> {
        Range::NonNegative.check("weight_decay", weight_decay)?;
        Ok(Self {
            beta1: Range::BelowOne.check("beta1", beta1)?,
            beta2: Range::BelowOne.check("beta2", beta2)?,
            weight_decay,
            exp_avg: Vec::new(),
        })
    }
}

impl GradientTransform for Lion {
    fn name(&self) -> &'static str {
        "lion"
    }

    fn transform(&mut self, updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        state::ready_zeros(self.name(), &mut self.exp_avg, &updates, context)?;
        Ok(updates
            .into_iter()
            .zip(&mut self.exp_avg)
            .zip(context.parameters)
            .map(|((gradient, mean), parameter)| {
                let g = gradient.values.clone();
                let m = mean.values.clone();
                let mixed = m.clone() * self.beta1 + g.clone() * (1.0 - self.beta1);
                mean.values = m * self.beta2 + g * (1.0 - self.beta2);
                let mut u = mixed.sign();
                if self.weight_decay != 0.0 {
                    u = u + parameter.values.clone() * self.weight_decay;
                }
                gradient.with_values(u)
            })
            .collect())
    }

    fn roles(&self) -> Vec<Placed> {
        let mut roles = Placed::everywhere(self.name(), Role::MeanSign);
        roles.extend(
            (self.weight_decay > 0.0)
                .then(|| Placed::everywhere(self.name(), Role::Decay))
                .into_iter()
                .flatten(),
        );
        roles
    }

    state::kept!(exp_avg);
}
