//! Momentum.

use crate::optim::entry::{OptimizerEntry, TransformEntry, WEIGHT_DECAY, one};
use crate::optim::error::{OptimError, Result};
use crate::optim::state;
use crate::optim::transform::{GradientTransform, StepContext, Transformed, placed};
use crate::optim::transforms::l2;
use crate::parameters::ParameterList;
use crate::schema::{Range, SchemaError, SettingSpec, flag, number};

const MOMENTUM_SETTINGS: [SettingSpec; 2] = [
    number("momentum", Range::InsideUnit, 0.9, "decay of the velocity"),
    flag("nesterov", false, "take the gradient ahead of the velocity"),
];

pub(crate) const MOMENTUM: TransformEntry = TransformEntry {
    kind: "momentum",
    summary: "Accumulate a velocity",
    formula: "v = momentum v + g;  u = v, or g + momentum v with nesterov",
    source: "Sutskever et al. 2013, as in torch.optim.SGD",
    optimizer: None,
    settings: &MOMENTUM_SETTINGS,
    build: |settings, _| {
        one(Momentum::new(
            settings.number("momentum")?,
            settings.flag("nesterov")?,
        )?)
    },
};

pub(crate) const SGD: TransformEntry = TransformEntry {
    kind: "sgd",
    summary: "Gradient descent, with momentum if asked for",
    formula: "u = momentum(g + weight_decay theta)",
    source: "torch.optim.SGD",
    optimizer: Some(OptimizerEntry {
        learning_rate: None,
    }),
    settings: &[
        number(
            "momentum",
            Range::BelowOne,
            0.0,
            "decay of the velocity; 0 for none",
        ),
        flag("nesterov", false, "take the gradient ahead of the velocity"),
        WEIGHT_DECAY,
    ],
    build: |settings, _| {
        let (momentum, nesterov) = (settings.number("momentum")?, settings.flag("nesterov")?);
        let mut parts = l2(settings)?;
        if momentum > 0.0 {
            parts.push(Box::new(Momentum::new(momentum, nesterov)?));
        } else if nesterov {
            return Err(OptimError::Schema(SchemaError::NoEffect {
                setting: "nesterov",
                reason: "`momentum` is 0",
                fix: "set `momentum`, such as momentum = 0.9, or remove `nesterov`",
            }));
        }
        Ok(parts)
    },
};

/// Accumulates a velocity, as PyTorch's SGD does.
///
/// ```text
/// v_1 = g_1
/// v_t = momentum * v_{t-1} + g_t
/// u   = v_t                      or, with Nesterov,   u = g_t + momentum * v_t
/// ```
///
/// # References
///
/// Sutskever et al., *On the importance of initialization and momentum in deep learning* (2013).
/// Differs from the paper as PyTorch does: the learning rate multiplies the velocity instead of
/// the gradient inside it.
#[derive(Debug, Clone)]
pub struct Momentum {
    momentum: f64,
    nesterov: bool,
    velocity: ParameterList,
}

impl Momentum {
    /// Creates the transform; `momentum` must be in `(0, 1)`.
    pub fn new(momentum: f64, nesterov: bool) -> Result<Self> {
        Ok(Self {
            momentum: Range::InsideUnit.check("momentum", momentum)?,
            nesterov,
            velocity: Vec::new(),
        })
    }
}

impl GradientTransform for Momentum {
    placed!("momentum", Linear);

    fn transform(&mut self, updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        // From zero, the first velocity is the first gradient.
        state::ready_zeros(self.name(), &mut self.velocity, &updates, context)?;
        for (velocity, gradient) in self.velocity.iter_mut().zip(&updates) {
            velocity.values = velocity.values.clone() * self.momentum + gradient.values.clone();
        }
        if !self.nesterov {
            return Ok(self.velocity.clone());
        }
        Ok(updates
            .into_iter()
            .zip(&self.velocity)
            .map(|(gradient, velocity)| {
                let values = gradient.values.clone() + velocity.values.clone() * self.momentum;
                gradient.with_values(values)
            })
            .collect())
    }

    state::kept!(velocity);
}
