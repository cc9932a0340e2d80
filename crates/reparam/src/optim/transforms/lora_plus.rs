//! LoRA+: another learning rate for B.

use crate::optim::entry::{TransformEntry, one};
use crate::optim::error::Result;
use crate::optim::rules::{is_b, require_pairs};
use crate::optim::transform::{GradientTransform, StepContext, Transformed, map, placed};
use crate::parameters::{NamedTensor, ParameterList};
use crate::schema::{Range, number};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "lora_plus",
    summary: "LoRA+: multiply the learning rate of B",
    formula: "u_B = ratio g_B",
    source: "arXiv 2402.12354, section 4",
    optimizer: None,
    settings: &[number(
        "ratio",
        Range::Positive,
        16.0,
        "learning rate of B over that of A",
    )],
    build: |settings, _| one(LoraPlus::new(settings.number("ratio")?)?),
};

/// Multiplies the updates of the factor `B`, and of vectors, by a ratio of learning rates.
///
/// ```text
/// u_B = ratio * g_B,   u_A = g_A
/// ```
///
/// It stands after the preconditioner, which would divide the ratio out, so that a decoupled decay before
/// it is multiplied too.
///
/// # References
///
/// Hayou et al. (arXiv 2402.12354), section 4; which parameters have the larger rate is as in PEFT's
/// `create_loraplus_optimizer`.
#[derive(Debug, Clone, Copy)]
pub struct LoraPlus {
    ratio: f64,
}

impl LoraPlus {
    /// Creates the transform; `ratio` must be positive, the paper's is 16.
    pub fn new(ratio: f64) -> Result<Self> {
        Range::Positive.check("ratio", ratio)?;
        Ok(Self { ratio })
    }
}

impl GradientTransform for LoraPlus {
    placed!("lora_plus", Ratio);

    fn transform(&mut self, updates: ParameterList, _context: &StepContext<'_>) -> Transformed {
        Ok(map(updates, |update| {
            if is_b(&update.name) || update.shape.len() == 1 {
                update.values.clone() * self.ratio
            } else {
                update.values.clone()
            }
        }))
    }

    fn check(&self, parameters: &[NamedTensor], _horizon: u64) -> Result<()> {
        require_pairs(self.name(), parameters)
    }
}
