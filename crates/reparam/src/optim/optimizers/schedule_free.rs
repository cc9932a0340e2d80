//! Schedule-free AdamW.

use crate::optim::entry::{BETA2, TransformEntry, WEIGHT_DECAY, eps, optimizer};
use crate::optim::error::Result;
use crate::optim::state;
use crate::optim::transform::{GradientTransform, StepContext, Transformed, map, placed};
use crate::parameters::{NamedTensor, ParameterList};
use crate::schema::{Range, number};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "schedule_free_adamw",
    summary: "AdamW whose schedule is replaced by an average of the parameters",
    formula: "z moves by g / (sqrt(v) + eps), x averages z, the gradient is taken between them",
    source: "arXiv 2405.15682, algorithm 1",
    optimizer: optimizer(2.5e-3),
    settings: &[
        number(
            "beta1",
            Range::InsideUnit,
            0.9,
            "where between z and x the gradient is taken",
        ),
        BETA2,
        eps(1e-8),
        WEIGHT_DECAY,
        number(
            "weight_step_power",
            Range::NonNegative,
            0.0,
            "power of the step in the average's weights",
        ),
        number(
            "weight_lr_power",
            Range::NonNegative,
            2.0,
            "power of the learning rate in the average's weights",
        ),
    ],
    build: |settings, _| {
        let adamw = ScheduleFreeAdamW::new(
            settings.number("beta1")?,
            settings.number("beta2")?,
            settings.number("eps")?,
            settings.number("weight_decay")?,
        )?;
        let adamw = adamw.with_weighting(
            settings.number("weight_step_power")?,
            settings.number("weight_lr_power")?,
        )?;
        Ok(vec![Box::new(adamw)])
    },
};

/// AdamW whose schedule is replaced by an average of the parameters.
///
/// The parameters in training are `y`, between the sequence `z` that the gradients move and its average
/// `x`, which is what is evaluated and saved:
///
/// ```text
/// v_t = beta2 v_{t-1} + (1 - beta2) g_t^2
/// d   = g_t / (sqrt(v_t / (1 - beta2^t)) + eps) + weight_decay * y_t
/// w_t = t^r max_{i<=t}(eta_i)^weight_lr_power,   c_t = w_t / sum_{i<=t} w_i
/// z_{t+1} = z_t - eta_t d
/// y_{t+1} = (1 - c_t) y_t + c_t z_t + eta_t (beta1 (1 - c_t) - 1) d
/// x       = y + (1 - 1/beta1) (z - y)
/// ```
///
/// It moves `y` by itself, with the learning rate of the step, so it stands last in a chain. Use a
/// constant schedule, with a warm-up if need be.
///
/// # References
///
/// Defazio et al., *The road less scheduled* (arXiv 2405.15682), algorithm 1, in the form of the
/// `schedulefree` package's `AdamWScheduleFree`.
///
/// # Cost
///
/// Two numbers a parameter.
#[derive(Debug, Clone)]
pub struct ScheduleFreeAdamW {
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    r: f64,
    weight_lr_power: f64,
    z: ParameterList,
    exp_avg_sq: ParameterList,
    weight_sum: f64,
    largest_rate: f64,
}

impl ScheduleFreeAdamW {
    /// Creates the transform; the package's values are 0.9, 0.999, 1e-8 and 0.
    ///
    /// # Errors
    ///
    /// Fails unless `beta1` is between 0 and 1, `beta2` in `[0, 1)`, `eps` positive and the decay not
    /// negative.
    pub fn new(beta1: f64, beta2: f64, eps: f64, weight_decay: f64) -> Result<Self> {
        // The average is found by dividing by beta1.
        Range::Positive.check("eps", eps)?;
        Range::NonNegative.check("weight_decay", weight_decay)?;
        Ok(Self {
            beta1: Range::InsideUnit.check("beta1", beta1)?,
            beta2: Range::BelowOne.check("beta2", beta2)?,
            eps,
            weight_decay,
            r: 0.0,
            weight_lr_power: 2.0,
            z: Vec::new(),
            exp_avg_sq: Vec::new(),
            weight_sum: 0.0,
            largest_rate: 0.0,
        })
    }

    /// Sets how the average weighs later steps (`r`, 0 by default: alike) and larger learning rates
    /// (`weight_lr_power`, 2 by default).
    ///
    /// # Errors
    ///
    /// Fails when one is negative.
    pub fn with_weighting(self, r: f64, weight_lr_power: f64) -> Result<Self> {
        Range::NonNegative.check("weight_step_power", r)?;
        Range::NonNegative.check("weight_lr_power", weight_lr_power)?;
        Ok(Self {
            r,
            weight_lr_power,
            ..self
        })
    }
}

impl GradientTransform for ScheduleFreeAdamW {
    placed!("schedule_free_adamw", Move);

    fn transform(&mut self, updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        let name = self.name();
        if self.z.is_empty() && context.step == 1 {
            self.z = context.parameters.to_vec();
        }
        state::ready_zeros(name, &mut self.z, &updates, context)?;
        state::ready_zeros(name, &mut self.exp_avg_sq, &updates, context)?;
        for (square, gradient) in self.exp_avg_sq.iter_mut().zip(&updates) {
            let g = gradient.values.clone();
            let old = square.values.clone() * self.beta2;
            square.values = old + g.clone() * g * (1.0 - self.beta2);
        }
        let eta = context.learning_rate;
        if eta == 0.0 {
            // The first step of a warm-up. The average has no weight yet, and nothing moves; but the
            // mean of squares counts every step, as its correction does.
            return Ok(map(updates, |update| update.values.zeros_like()));
        }
        let root_correction2 = (1.0 - self.beta2.powf(context.step as f64)).sqrt();
        self.largest_rate = self.largest_rate.max(eta);
        let weight =
            (context.step as f64).powf(self.r) * self.largest_rate.powf(self.weight_lr_power);
        self.weight_sum += weight;
        let share = weight / self.weight_sum;
        let mut result = Vec::with_capacity(updates.len());
        for (place, gradient) in updates.into_iter().enumerate() {
            let y = context.parameters[place].values.clone();
            let g = gradient.values.clone();
            let square = self.exp_avg_sq[place].values.clone();
            let mut d = g / (square.sqrt() / root_correction2 + self.eps);
            if self.weight_decay != 0.0 {
                d = d + y.clone() * self.weight_decay;
            }
            let z = &mut self.z[place].values;
            // What is subtracted, times the learning rate, from y.
            let u =
                (y - z.clone()) * (share / eta) + d.clone() * (1.0 - self.beta1 * (1.0 - share));
            *z = z.clone() - d * eta;
            result.push(gradient.with_values(u));
        }
        Ok(result)
    }

    fn evaluated(&self, parameters: &[NamedTensor]) -> Option<ParameterList> {
        let z = state::in_order(&self.z, parameters)?;
        let share = 1.0 - 1.0 / self.beta1;
        let pairs = parameters.iter().zip(z);
        Some(
            pairs
                .map(|(y, z)| {
                    let values = y.values.clone() + (z.values.clone() - y.values.clone()) * share;
                    y.clone().with_values(values)
                })
                .collect(),
        )
    }

    fn state(&self) -> ParameterList {
        let mut state = state::groups(&[("z", &self.z), ("exp_avg_sq", &self.exp_avg_sq)]);
        state.push(state::scalar("weight_sum", self.weight_sum));
        state.push(state::scalar("largest_rate", self.largest_rate));
        state
    }

    fn load_state(&mut self, state: ParameterList) -> Result<()> {
        let mut state = state::Loaded::new(self.name(), state);
        self.z = state.take_group("z");
        self.exp_avg_sq = state.take_group("exp_avg_sq");
        self.weight_sum = state.take_scalar("weight_sum")?;
        self.largest_rate = state.take_scalar("largest_rate")?;
        state.finish()
    }
}
