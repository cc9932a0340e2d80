//! Adam's preconditioning.

use crate::optim::entry::{BETA1, BETA2, TransformEntry, WEIGHT_DECAY, eps, one, optimizer};
use crate::optim::error::Result;
use crate::optim::rules::Placed;
use crate::optim::state;
use crate::optim::transform::{GradientTransform, StepContext, Transformed};
use crate::optim::transforms::l2;
use crate::parameters::ParameterList;
use crate::schema::{Range, SettingSpec, Settings};

/// The settings that Adam and AdamW share.
const SETTINGS: [SettingSpec; 4] = [BETA1, BETA2, eps(1e-8), WEIGHT_DECAY];

pub(crate) const ADAM: TransformEntry = TransformEntry {
    kind: "adam",
    summary: "Adam; weight_decay is added to the gradient",
    formula: "u = m / (sqrt(v) + eps), running means of g and g^2, corrected for their start",
    source: "arXiv 1412.6980, algorithm 1, as in torch.optim.Adam",
    optimizer: optimizer(2e-4),
    settings: &SETTINGS,
    build: |settings, _| {
        let mut parts = l2(settings)?;
        parts.push(Box::new(AdamW::of(settings, 0.0)?));
        Ok(parts)
    },
};

pub(crate) const ADAMW: TransformEntry = TransformEntry {
    kind: "adamw",
    summary: "Adam with decoupled weight decay",
    formula: "u = m / (sqrt(v) + eps) + weight_decay theta",
    source: "arXiv 1711.05101, algorithm 2, as in torch.optim.AdamW",
    optimizer: optimizer(2e-4),
    settings: &SETTINGS,
    build: |settings, _| one(AdamW::of(settings, settings.number("weight_decay")?)?),
};

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
    eps_placement: EpsPlacement,
    weight_decay: f64,
    exp_avg: ParameterList,
    exp_avg_sq: ParameterList,
}

/// Where `eps` meets the root of the second moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EpsPlacement {
    /// After the bias correction, `sqrt(v / (1 - beta2^t)) + eps`, as in the paper's algorithm and in
    /// PyTorch.
    #[default]
    AfterCorrection,
    /// Before it, `(sqrt(v) + eps) / sqrt(1 - beta2^t)`, as in the end of the paper's section 2 and in
    /// the older AdamW of transformers, which PEFT's LoRA-FA and GaLore's package are made of.
    BeforeCorrection,
}

impl Default for AdamW {
    /// PyTorch's defaults, without decay.
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            eps_placement: EpsPlacement::default(),
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
    pub fn new(beta1: f64, beta2: f64, eps: f64, weight_decay: f64) -> Result<Self> {
        Range::Positive.check("eps", eps)?;
        Range::NonNegative.check("weight_decay", weight_decay)?;
        Ok(Self {
            beta1: Range::BelowOne.check("beta1", beta1)?,
            beta2: Range::BelowOne.check("beta2", beta2)?,
            eps,
            weight_decay,
            ..Self::default()
        })
    }

    /// Creates the transform with the other numbers of an entry.
    pub(crate) fn of(settings: &Settings, weight_decay: f64) -> Result<Self> {
        let (beta1, beta2) = (settings.number("beta1")?, settings.number("beta2")?);
        Self::new(beta1, beta2, settings.number("eps")?, weight_decay)
    }

    /// Sets where `eps` is added.
    pub fn with_eps_placement(self, eps_placement: EpsPlacement) -> Self {
        Self {
            eps_placement,
            ..self
        }
    }
}

impl GradientTransform for AdamW {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn transform(&mut self, updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        for group in [&mut self.exp_avg, &mut self.exp_avg_sq] {
            state::ready_zeros("adamw", group, &updates, context)?;
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
                let root = square.values.clone().sqrt();
                let root = match self.eps_placement {
                    EpsPlacement::AfterCorrection => root / root_correction2 + self.eps,
                    EpsPlacement::BeforeCorrection => (root + self.eps) / root_correction2,
                };
                let mut u = mean.values.clone() / root / correction1;
                if self.weight_decay != 0.0 {
                    u = u + parameter.values.clone() * self.weight_decay;
                }
                gradient.with_values(u)
            })
            .collect())
    }

    fn roles(&self) -> Vec<Placed> {
        Placed::preconditioner(self.name(), self.weight_decay)
    }

    state::kept!(exp_avg, exp_avg_sq);
}
