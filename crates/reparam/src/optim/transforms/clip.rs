//! Bounding the gradients.

use crate::optim::entry::{TransformEntry, one};
use crate::optim::error::Result;
use crate::optim::math::global_norm;
use crate::optim::transform::{GradientTransform, StepContext, Transformed, map, placed};
use crate::parameters::ParameterList;
use crate::schema::{Range, SettingKind, number, required};

pub(crate) const BY_VALUE: TransformEntry = TransformEntry {
    kind: "clip_by_value",
    summary: "Bound every element",
    formula: "u = min(max(g, -max_value), max_value)",
    source: "as torch.nn.utils.clip_grad_value_",
    optimizer: None,
    settings: &[required(
        "max_value",
        SettingKind::Number(Range::Positive),
        "1.0",
        "the largest magnitude of an element",
    )],
    build: |settings, _| one(ClipByValue::new(settings.number("max_value")?)?),
};

pub(crate) const BY_GLOBAL_NORM: TransformEntry = TransformEntry {
    kind: "clip_by_global_norm",
    summary: "Bound the norm of all gradients together, keeping their direction",
    formula: "u = g min(1, max_norm / |g|)",
    source: "arXiv 1211.5063, algorithm 1",
    optimizer: None,
    settings: &[number("max_norm", Range::Positive, 1.0, "the largest norm")],
    build: |settings, _| one(ClipByGlobalNorm::new(settings.number("max_norm")?)?),
};

/// Scales all gradients down together when their norm is above a bound.
///
/// ```text
/// u = g * min(1, max_norm / (|g| + 1e-6))
/// ```
///
/// # References
///
/// Pascanu et al. (arXiv 1211.5063), algorithm 1; the 1e-6 is that of PyTorch's
/// `clip_grad_norm_`.
#[derive(Debug, Clone)]
pub struct ClipByGlobalNorm {
    max_norm: f64,
}

impl ClipByGlobalNorm {
    /// Creates the transform; `max_norm` must be positive.
    pub fn new(max_norm: f64) -> Result<Self> {
        Range::Positive.check("clip_grad_norm", max_norm)?;
        Ok(Self { max_norm })
    }
}

impl GradientTransform for ClipByGlobalNorm {
    placed!("clip_by_global_norm", Bound);

    fn transform(&mut self, updates: ParameterList, _context: &StepContext<'_>) -> Transformed {
        let factor = self.max_norm / (global_norm(&updates) + 1e-6);
        if factor >= 1.0 {
            return Ok(updates);
        }
        Ok(map(updates, |update| update.values.clone() * factor))
    }
}

/// Bounds every element to `[-max_value, max_value]`.
#[derive(Debug, Clone)]
pub struct ClipByValue {
    max_value: f64,
}

impl ClipByValue {
    /// Creates the transform; `max_value` must be positive.
    pub fn new(max_value: f64) -> Result<Self> {
        Range::Positive.check("clip_grad_value", max_value)?;
        Ok(Self { max_value })
    }
}

impl GradientTransform for ClipByValue {
    placed!("clip_by_value", Bound);

    fn transform(&mut self, updates: ParameterList, _context: &StepContext<'_>) -> Transformed {
        let bound = self.max_value;
        Ok(map(updates, |update| {
            update.values.clone().clamp(-bound, bound)
        }))
    }
}
