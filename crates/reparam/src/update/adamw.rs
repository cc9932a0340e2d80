//! Adam's preconditioning.

use super::{GradientTransform, StepContext, UpdateError, state};
use crate::parameters::ParameterList;

/// Divides a running mean of the gradients by the root of a running mean of their squares.
///
/// ```text
/// m_t = beta1 m_{t-1} + (1 - beta1) g_t
/// v_t = beta2 v_{t-1} + (1 - beta2) g_t^2
/// u   = (m_t / (1 - beta1^t)) / (sqrt(v_t) / sqrt(1 - beta2^t) + eps) + weight_decay * theta
/// ```
///
/// The decay is decoupled: it is multiplied by the learning rate but not preconditioned. With
/// `weight_decay = 0` this is Adam.
///
/// # References
///
/// Kingma and Ba (arXiv 1412.6980), algorithm 1; Loshchilov and Hutter (arXiv 1711.05101),
/// algorithm 2. Differs from the latter as PyTorch does: the decay is multiplied by the learning
/// rate. `eps` is added after the bias correction, as in PyTorch.
///
/// # Cost
///
/// Two numbers a parameter.
#[derive(Debug, Clone)]
pub struct AdamW {
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    exp_avg: ParameterList,
    exp_avg_sq: ParameterList,
}

impl Default for AdamW {
    /// PyTorch's defaults, without decay.
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            exp_avg: Vec::new(),
            exp_avg_sq: Vec::new(),
        }
    }
}

impl AdamW {
    /// Creates the transform.
    ///
    /// # Errors
    ///
    /// Fails unless both betas are in `[0, 1)`, `eps` is positive and the decay not negative.
    pub fn new(beta1: f64, beta2: f64, eps: f64, weight_decay: f64) -> Result<Self, UpdateError> {
        for (setting, beta) in [("beta1", beta1), ("beta2", beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(UpdateError::Setting {
                    setting,
                    expected: "in [0, 1)",
                    found: beta.to_string(),
                });
            }
        }
        super::clip::positive("eps", eps)?;
        super::WeightDecay::new(weight_decay)?;
        Ok(Self {
            beta1,
            beta2,
            eps,
            weight_decay,
            ..Self::default()
        })
    }
}

impl GradientTransform for AdamW {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn transform(
        &mut self,
        updates: ParameterList,
        context: &StepContext<'_>,
    ) -> Result<ParameterList, UpdateError> {
        for group in [&self.exp_avg, &self.exp_avg_sq] {
            state::check(self.name(), group, &updates, context)?;
        }
        if self.exp_avg.is_empty() {
            self.exp_avg = updates
                .iter()
                .map(|gradient| gradient.clone().with_values(gradient.values.zeros_like()))
                .collect();
            self.exp_avg_sq.clone_from(&self.exp_avg);
        }
        let step = context.step as f64;
        let correction1 = 1.0 - self.beta1.powf(step);
        let root_correction2 = (1.0 - self.beta2.powf(step)).sqrt();
        let moments = self.exp_avg.iter_mut().zip(&mut self.exp_avg_sq);
        Ok(updates
            .into_iter()
            .zip(moments)
            .zip(context.parameters)
            .map(|((gradient, (mean, square)), parameter)| {
                let g = gradient.values.clone();
                // Written as an interpolation, `m + (1 - beta1) (g - m)`, which is PyTorch's order
                // of operations and loses less to rounding once the mean has settled.
                mean.values =
                    mean.values.clone() + (g.clone() - mean.values.clone()) * (1.0 - self.beta1);
                square.values =
                    square.values.clone() * self.beta2 + g.clone() * g * (1.0 - self.beta2);
                let root = square.values.clone().sqrt() / root_correction2 + self.eps;
                let mut u = mean.values.clone() / root / correction1;
                if self.weight_decay != 0.0 {
                    u = u + parameter.values.clone() * self.weight_decay;
                }
                gradient.with_values(u)
            })
            .collect())
    }

    fn state(&self) -> ParameterList {
        let mut state = state::prefixed("exp_avg", &self.exp_avg);
        state.extend(state::prefixed("exp_avg_sq", &self.exp_avg_sq));
        state
    }

    fn load_state(&mut self, state: ParameterList) -> Result<(), UpdateError> {
        let mut state = state::Loaded::new(self.name(), state);
        self.exp_avg = state.take_group("exp_avg");
        self.exp_avg_sq = state.take_group("exp_avg_sq");
        state.finish()
    }
}
