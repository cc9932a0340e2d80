//! LoRA-FA: only B is trained, by the gradient that fits the full one best.

use super::{AdamW, EpsPlacement};
use crate::optim::entry::{BETA1, BETA2, TransformEntry, WEIGHT_DECAY, eps, optimizer};
use crate::optim::error::Result;
use crate::optim::math::{as_matrix, damped_inverse};
use crate::optim::rules::{is_a, lora_pairs, require_products};
use crate::optim::transform::{GradientTransform, StepContext, Transformed, placed};
use crate::optim::transforms::{Freeze, WeightDecay};
use crate::parameters::{NamedTensor, ParameterList, flatten};
use crate::schema::{Range, SchemaError, SettingKind, Settings, optional};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "lora_fa",
    summary: "LoRA-FA: A stays, B is trained by AdamW on a preconditioned gradient",
    formula: "u_A = 0,  u_B = adamw(g_B (A A' + delta I)^-1 / s^2)",
    source: "arXiv 2308.03303, version 2, as in PEFT",
    optimizer: optimizer(2e-4),
    settings: &[
        BETA1,
        BETA2,
        eps(1e-6),
        WEIGHT_DECAY,
        optional(
            "scaling",
            SettingKind::Number(Range::Positive),
            "that of the method",
            "the scaling s of the product s B A",
        ),
    ],
    build: |settings, context| {
        let scaling = match settings.optional("scaling", Settings::number)? {
            Some(scaling) => scaling,
            None => context.lora_scaling.ok_or_else(|| SchemaError::Missing {
                kind: "lora_fa".to_owned(),
                setting: "scaling".to_owned(),
                example: "2.0",
            })?,
        };
        let adamw = AdamW::of(settings, 0.0)?;
        let weight_decay = settings.number("weight_decay")?;
        Ok(vec![
            Box::new(LoraFa::new(scaling)?),
            Box::new(adamw.with_eps_placement(EpsPlacement::BeforeCorrection)),
            Box::new(WeightDecay::of_moved(weight_decay)?),
            Box::new(Freeze::new(r".*lora_A\.weight")?),
        ])
    },
};

/// Replaces the gradient of `B` by the one that, through a fixed `A`, moves the weight most like its own
/// gradient would.
///
/// ```text
/// u_B = g_B (A A' + delta I)^-1 / s^2,   delta = 1e-8
/// u_A = 0
/// ```
///
/// A decoupled decay after it would still move `A`: put [`Freeze`] at the end, as the entry `lora_fa` of
/// the table does.
///
/// # References
///
/// Zhang et al. (arXiv 2308.03303, version 2), and PEFT's `LoraFAOptimizer` with its `delta`. PEFT
/// multiplies in bf16 where the machine has it; this computes the inverse in `f64` and multiplies in the
/// gradient's type.
///
/// # Cost
///
/// For every pair a Gram matrix of rank by rank and its inverse.
#[derive(Debug, Clone, Copy)]
pub struct LoraFa {
    scaling: f64,
}

const DELTA: f64 = 1e-8;

impl LoraFa {
    /// Creates the transform for a product `scaling * B A`; `scaling` must be positive.
    pub fn new(scaling: f64) -> Result<Self> {
        Range::Positive.check("scaling", scaling)?;
        Ok(Self { scaling })
    }
}

impl GradientTransform for LoraFa {
    placed!("lora_fa", PairPrecondition);

    fn transform(&mut self, mut updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        for pair in lora_pairs(context.parameters) {
            let a = &context.parameters[pair.a];
            let (Some(factor), Some(gradient)) = (as_matrix(a), as_matrix(&updates[pair.b])) else {
                continue;
            };
            let gram = factor.clone().matmul(factor.transpose());
            let inverse = damped_inverse(&gram, DELTA, self.name(), &a.name)?;
            let scale = 1.0 / (self.scaling * self.scaling);
            updates[pair.b].values = flatten(gradient.matmul(inverse) * scale);
        }
        for update in &mut updates {
            if is_a(&update.name) {
                update.values = update.values.zeros_like();
            }
        }
        Ok(updates)
    }

    fn check(&self, parameters: &[NamedTensor], _horizon: u64) -> Result<()> {
        require_products(self.name(), parameters)
    }
}
