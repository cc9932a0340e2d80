//! RMSprop.

use crate::optim::entry::{TransformEntry, WEIGHT_DECAY, eps, optimizer};
use crate::optim::error::Result;
use crate::optim::state;
use crate::optim::transform::{GradientTransform, StepContext, Transformed, placed};
use crate::optim::transforms::l2;
use crate::parameters::ParameterList;
use crate::schema::{Range, flag, number};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "rmsprop",
    summary: "Divide by the root of a running mean of the squared gradients",
    formula: "u = momentum(g / (sqrt(v) + eps))",
    source: "Hinton 2012, lecture 6e, as in torch.optim.RMSprop",
    optimizer: optimizer(1e-3),
    settings: &[
        number(
            "alpha",
            Range::BelowOne,
            0.99,
            "decay of the mean of squares",
        ),
        eps(1e-8),
        number(
            "momentum",
            Range::BelowOne,
            0.0,
            "decay of the velocity; 0 for none",
        ),
        flag(
            "centered",
            false,
            "divide by the standard deviation instead",
        ),
        WEIGHT_DECAY,
    ],
    build: |settings, _| {
        let mut parts = l2(settings)?;
        parts.push(Box::new(RmsProp::new(
            settings.number("alpha")?,
            settings.number("eps")?,
            settings.number("momentum")?,
            settings.flag("centered")?,
        )?));
        Ok(parts)
    },
};

/// Divides the gradients by the root of a running mean of their squares.
///
/// ```text
/// v_t = alpha v_{t-1} + (1 - alpha) g_t^2
/// m_t = alpha m_{t-1} + (1 - alpha) g_t                      centered only, else m_t = 0
/// d_t = g_t / (sqrt(v_t - m_t^2) + eps)
/// b_t = momentum b_{t-1} + d_t,   b_0 = 0
/// u   = b_t
/// ```
///
/// # References
///
/// Hinton, *Neural networks for machine learning*, lecture 6e (2012); centered: Graves (arXiv
/// 1308.0850), equation 38. `eps` is outside the root, as in PyTorch.
///
/// # Cost
///
/// One number a parameter, one more if centered and one more with momentum.
#[derive(Debug, Clone)]
pub struct RmsProp {
    alpha: f64,
    eps: f64,
    momentum: f64,
    centered: bool,
    square_avg: ParameterList,
    grad_avg: ParameterList,
    momentum_buffer: ParameterList,
}

impl RmsProp {
    /// Creates the transform; PyTorch's values are 0.99, 1e-8, 0 and false.
    ///
    /// # Errors
    ///
    /// Fails unless `alpha` and `momentum` are in `[0, 1)` and `eps` is positive.
    pub fn new(alpha: f64, eps: f64, momentum: f64, centered: bool) -> Result<Self> {
        Range::Positive.check("eps", eps)?;
        Ok(Self {
            alpha: Range::BelowOne.check("alpha", alpha)?,
            eps,
            momentum: Range::BelowOne.check("momentum", momentum)?,
            centered,
            square_avg: Vec::new(),
            grad_avg: Vec::new(),
            momentum_buffer: Vec::new(),
        })
    }
}

impl GradientTransform for RmsProp {
    placed!("rmsprop", Precondition);

    fn transform(&mut self, mut updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        let name = self.name();
        state::ready_zeros(name, &mut self.square_avg, &updates, context)?;
        if self.centered {
            state::ready_zeros(name, &mut self.grad_avg, &updates, context)?;
        }
        if self.momentum > 0.0 {
            state::ready_zeros(name, &mut self.momentum_buffer, &updates, context)?;
        }
        for (place, update) in updates.iter_mut().enumerate() {
            let g = update.values.clone();
            let square = &mut self.square_avg[place].values;
            *square = square.clone() * self.alpha + g.clone() * g.clone() * (1.0 - self.alpha);
            let mut variance = square.clone();
            if self.centered {
                let mean = &mut self.grad_avg[place].values;
                *mean = mean.clone() + (g.clone() - mean.clone()) * (1.0 - self.alpha);
                // A variance of nearly nothing may come out below zero.
                variance = (variance - mean.clone() * mean.clone()).clamp_min(0.0);
            }
            let mut direction = g / (variance.sqrt() + self.eps);
            if self.momentum > 0.0 {
                let buffer = &mut self.momentum_buffer[place].values;
                *buffer = buffer.clone() * self.momentum + direction;
                direction = buffer.clone();
            }
            update.values = direction;
        }
        Ok(updates)
    }

    state::kept!(square_avg, grad_avg, momentum_buffer);
}
