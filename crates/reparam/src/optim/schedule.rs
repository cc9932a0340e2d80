//! Learning-rate schedules.

use super::error::Result;
use crate::schema::Range;

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
    /// The inverse of the root of the steps, from one at the end of the warm-up; it has no end.
    InverseSqrt,
    /// Nothing, then a fall over the last steps: warm-up, stable, decay.
    Stable {
        /// The steps of the fall.
        decay_steps: u64,
        /// How it falls.
        shape: DecayShape,
    },
}

/// How a fall at the end of a run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecayShape {
    /// A straight line.
    Linear,
    /// Half a cosine wave.
    Cosine,
    /// `1 - sqrt(p)`: fast at first (arXiv 2405.18392).
    OneMinusSqrt,
}

impl DecayShape {
    /// Returns what is left, from 1 to 0, at the fraction `p` of the fall.
    fn remaining(self, p: f64) -> f64 {
        match self {
            Self::Linear => 1.0 - p,
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * p).cos()),
            Self::OneMinusSqrt => 1.0 - p.sqrt(),
        }
    }
}

/// What the inverse root counts as its first step without a warm-up, as in `transformers`.
const INVERSE_SQRT_TIMESCALE: u64 = 10_000;

impl Schedule {
    /// Creates a schedule with warm-up.
    ///
    /// # Errors
    ///
    /// Fails unless `min_ratio` is in `[0, 1]`.
    pub fn warmup(warmup_steps: u64, decay: Decay, min_ratio: f64) -> Result<Self> {
        Range::Unit.check("min_learning_rate_ratio", min_ratio)?;
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
    /// linear:        m + (1 - m) (1 - p)
    /// cosine:        m + (1 - m) (1 + cos(pi p)) / 2
    /// inverse sqrt:  m + (1 - m) sqrt(tau / (step - warmup + tau)),   tau = warmup, or 10000 without
    /// stable:        1 until decay_steps before the horizon, then m + (1 - m) shape(q),
    ///                q from 0 to 1 over the last decay_steps
    /// ```
    ///
    /// These are the schedules of `transformers`, except that every warm-up starts at zero: its
    /// `warmup_stable_decay` starts at the minimum.
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
            Decay::Linear => DecayShape::Linear.remaining(progress),
            Decay::Cosine => DecayShape::Cosine.remaining(progress),
            Decay::InverseSqrt => {
                let timescale = match warmup_steps {
                    0 => INVERSE_SQRT_TIMESCALE,
                    steps => steps,
                };
                let timescale = timescale as f64;
                let since = (step - warmup_steps) as f64 + timescale;
                (timescale / since).sqrt()
            }
            Decay::Stable { decay_steps, shape } => {
                let start = horizon.saturating_sub(decay_steps);
                let since = step.saturating_sub(start) as f64;
                shape.remaining((since / decay_steps.max(1) as f64).min(1.0))
            }
        };
        min_ratio + (1.0 - min_ratio) * falling
    }
}
