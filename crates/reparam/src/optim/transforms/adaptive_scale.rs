//! A scale that follows the gradient's signal and noise.

use crate::optim::entry::{TransformEntry, one};
use crate::optim::error::Result;
use crate::optim::math::Noise;
use crate::optim::state;
use crate::optim::transform::{GradientTransform, StepContext, Transformed, map, placed};
use crate::parameters::ParameterList;
use crate::schema::{Range, SettingKind, Settings, number, optional};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "adaptive_scale",
    summary: "Scale by the share of the gradient that is signal, measured over the last steps",
    formula: "u = lambda_t g,  lambda_t = max(signal / (signal + noise), lambda_min)",
    source: "arXiv 1705.07774, section 3 (one factor for all elements)",
    optimizer: None,
    settings: &[
        number("beta", Range::InsideUnit, 0.9, "decay of the running means"),
        optional(
            "lambda_min",
            SettingKind::Number(Range::UpToOne),
            "1/sqrt(T)",
            "the least scale",
        ),
    ],
    build: |settings, _| {
        one(AdaptiveScale::new(
            settings.number("beta")?,
            settings.optional("lambda_min", Settings::number)?,
        )?)
    },
};

/// Multiplies the gradients by the share of them that is signal, as measured over the last steps.
///
/// ```text
/// u = lambda_t g,   lambda_t = max(S / (S + N), lambda_min),   lambda_1 = lambda_min
/// ```
///
/// `S` estimates the squared norm of the true gradient and `N` the variance of the noise on it, from
/// running means of the gradients and of their squared norm (decay `beta`, corrected for their start and
/// for the mean's own noise). `lambda_min` is `1/sqrt(T)` unless given: what the constant scale would be.
/// A gradient without noise is not scaled down, one that is all noise is scaled by `lambda_min`. A change
/// of the true gradient within the window `1 / (1 - beta)` counts as noise.
///
/// # References
///
/// Balles and Hennig, *Dissecting Adam* (arXiv 1705.07774), section 3: the factor `1 / (1 + eta^2)` of
/// the variance-adapted step, with their estimate of the noise (equations 12 to 14). Differs from their
/// SVAG in taking one factor for all elements, and a lower bound.
///
/// # Cost
///
/// One number a parameter.
#[derive(Debug, Clone)]
pub struct AdaptiveScale {
    noise: Noise,
    lambda_min: Option<f64>,
    lambda: f64,
}

impl AdaptiveScale {
    /// Creates the transform; a usual `beta` is 0.9, and `lambda_min` is `1/sqrt(T)` if `None`.
    ///
    /// # Errors
    ///
    /// Fails unless `beta` is between 0 and 1, and `lambda_min` greater than 0 and at most 1.
    pub fn new(beta: f64, lambda_min: Option<f64>) -> Result<Self> {
        Range::InsideUnit.check("beta", beta)?;
        if let Some(lambda) = lambda_min {
            Range::UpToOne.check("lambda_min", lambda)?;
        }
        Ok(Self {
            noise: Noise::new(beta),
            lambda_min,
            lambda: 1.0,
        })
    }

    /// Returns the scale of the last step, 1 before the first.
    pub fn lambda(&self) -> f64 {
        self.lambda
    }
}

impl GradientTransform for AdaptiveScale {
    placed!("adaptive_scale", VaryingScale);

    fn transform(&mut self, updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        let estimate = self.noise.observe(&updates, context, "adaptive_scale")?;
        let least = self
            .lambda_min
            .unwrap_or_else(|| 1.0 / (context.horizon as f64).sqrt());
        self.lambda = match estimate.noise {
            Some(noise) if estimate.total > 0.0 => (1.0 - noise / estimate.total).clamp(least, 1.0),
            _ => least,
        };
        Ok(map(updates, |update| update.values.clone() * self.lambda))
    }

    fn state(&self) -> ParameterList {
        let mut state = self.noise.state();
        state.push(state::scalar("lambda", self.lambda));
        state
    }

    fn load_state(&mut self, state: ParameterList) -> Result<()> {
        let mut state = state::Loaded::new(self.name(), state);
        self.noise.load(&mut state)?;
        self.lambda = state.take_scalar("lambda")?;
        state.finish()
    }
}
