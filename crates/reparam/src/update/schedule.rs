//! Learning-rate schedules.

use super::UpdateError;

/// How the learning rate changes over a run, as a multiplier in `[0, 1]`.
///
/// Steps count from zero here: the first step of a run with warm-up has a multiplier of zero, as
/// in `transformers`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// Always one.
    Constant,
    /// A warm-up, then a decay over the rest of the run.
    Warmup {
        /// Steps over which the multiplier rises linearly from zero.
        warmup_steps: u64,
        /// What follows.
        decay: Decay,
        /// The multiplier at the end of the decay.
        min_ratio: f64,
    },
}

/// The part of a schedule after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// None.
    None,
    /// A straight line to the minimum at the horizon.
    Linear,
    /// Half a cosine wave to the minimum at the horizon.
    Cosine,
}

impl Schedule {
    /// Creates a schedule with warm-up.
    ///
    /// # Errors
    ///
    /// Fails unless `min_ratio` is in `[0, 1]`.
    pub fn warmup(warmup_steps: u64, decay: Decay, min_ratio: f64) -> Result<Self, UpdateError> {
        if !(0.0..=1.0).contains(&min_ratio) {
            return Err(UpdateError::Setting {
                setting: "min_learning_rate_ratio",
                expected: "in [0, 1]",
                found: min_ratio.to_string(),
            });
        }
        Ok(Self::Warmup {
            warmup_steps,
            decay,
            min_ratio,
        })
    }

    /// Returns the multiplier of step `step` (from zero) of `horizon` steps.
    ///
    /// With `p = (step - warmup) / (horizon - warmup)` and the minimum `m`:
    ///
    /// ```text
    /// linear:  m + (1 - m) (1 - p)
    /// cosine:  m + (1 - m) (1 + cos(pi p)) / 2
    /// ```
    pub fn multiplier(&self, step: u64, horizon: u64) -> f64 {
        let Self::Warmup {
            warmup_steps,
            decay,
            min_ratio,
        } = *self
        else {
            return 1.0;
        };
        if step < warmup_steps {
            return step as f64 / warmup_steps as f64;
        }
        let rest = horizon.saturating_sub(warmup_steps).max(1);
        let progress = ((step - warmup_steps) as f64 / rest as f64).min(1.0);
        let falling = match decay {
            Decay::None => 1.0,
            Decay::Linear => 1.0 - progress,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        min_ratio + (1.0 - min_ratio) * falling
    }
}
