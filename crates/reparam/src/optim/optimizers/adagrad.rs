//! Adagrad.

use crate::optim::entry::{TransformEntry, WEIGHT_DECAY, eps, optimizer};
use crate::optim::error::Result;
use crate::optim::state;
use crate::optim::transform::{GradientTransform, StepContext, Transformed, placed};
use crate::optim::transforms::l2;
use crate::parameters::ParameterList;
use crate::schema::{Range, number};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "adagrad",
    summary: "Divide by the root of the sum of all squared gradients so far",
    formula: "u = g / (sqrt(sum g^2) + eps) / (1 + (t - 1) lr_decay)",
    source: "Duchi et al. 2011, as in torch.optim.Adagrad",
    optimizer: optimizer(1e-2),
    settings: &[
        number(
            "lr_decay",
            Range::NonNegative,
            0.0,
            "decay of the learning rate with the steps",
        ),
        eps(1e-10),
        number(
            "initial_accumulator_value",
            Range::NonNegative,
            0.0,
            "initial value of the sum",
        ),
        WEIGHT_DECAY,
    ],
    build: |settings, _| {
        let mut parts = l2(settings)?;
        parts.push(Box::new(Adagrad::new(
            settings.number("lr_decay")?,
            settings.number("eps")?,
            settings.number("initial_accumulator_value")?,
        )?));
        Ok(parts)
    },
};

/// Divides the gradients by the root of the sum of all their squares so far.
///
/// ```text
/// s_t = s_{t-1} + g_t^2,   s_0 = initial_accumulator_value
/// u   = g_t / (sqrt(s_t) + eps) / (1 + (t - 1) lr_decay)
/// ```
///
/// # References
///
/// Duchi, Hazan and Singer, *Adaptive subgradient methods* (2011), with PyTorch's decay and `eps`.
///
/// # Cost
///
/// One number a parameter.
#[derive(Debug, Clone)]
pub struct Adagrad {
    lr_decay: f64,
    eps: f64,
    initial_accumulator_value: f64,
    sum: ParameterList,
}

impl Adagrad {
    /// Creates the transform; PyTorch's values are 0, 1e-10 and 0.
    ///
    /// # Errors
    ///
    /// Fails when a number is negative or `eps` is not positive.
    pub fn new(lr_decay: f64, eps: f64, initial_accumulator_value: f64) -> Result<Self> {
        Range::NonNegative.check("lr_decay", lr_decay)?;
        Range::Positive.check("eps", eps)?;
        Range::NonNegative.check("initial_accumulator_value", initial_accumulator_value)?;
        Ok(Self {
            lr_decay,
            eps,
            initial_accumulator_value,
            sum: Vec::new(),
        })
    }
}

impl GradientTransform for Adagrad {
    placed!("adagrad", Precondition);

    fn transform(&mut self, updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        let fill = self.initial_accumulator_value;
        state::ready(
            self.name(),
            &mut self.sum,
            &updates,
            context,
            fill,
            |update| Some(update.shape.clone()),
        )?;
        let decay = 1.0 + (context.step - 1) as f64 * self.lr_decay;
        Ok(updates
            .into_iter()
            .zip(&mut self.sum)
            .map(|(gradient, sum)| {
                let g = gradient.values.clone();
                sum.values = sum.values.clone() + g.clone() * g.clone();
                let u = g / (sum.values.clone().sqrt() + self.eps) / decay;
                gradient.with_values(u)
            })
            .collect())
    }

    state::kept!(sum);
}
