//! LoRA-FA: only B is trained, by the gradient that fits the full one best.

use super::clip::positive;
use super::linalg::{as_matrix, damped_inverse};
use super::pairs::{is_a, lora_pairs, require_pairs};
use super::table::{
    BETA1, BETA2, Fallback, SettingKind, SettingSpec, TransformEntry, WEIGHT_DECAY, eps, optimizer,
};
use super::{
    AdamW, EpsPlacement, Freeze, GradientTransform, OptimError, Placed, Role, StepContext,
    WeightDecay,
};
use crate::parameters::{NamedTensor, ParameterList, flatten};

pub(super) const ENTRY: TransformEntry = TransformEntry {
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
        SettingSpec {
            key: "scaling",
            kind: SettingKind::Positive,
            fallback: Fallback::Absent("that of the method"),
            meaning: "the scaling s of the product s B A",
        },
    ],
    build: |settings, context| {
        let scaling = settings.optional("scaling").or(context.lora_scaling);
        let scaling = scaling.ok_or(OptimError::MissingSetting {
            transform: "lora_fa",
            setting: "scaling",
        })?;
        let adamw = AdamW::new(
            settings.number("beta1")?,
            settings.number("beta2")?,
            settings.number("eps")?,
            0.0,
        )?;
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
    pub fn new(scaling: f64) -> Result<Self, OptimError> {
        positive("scaling", scaling)?;
        Ok(Self { scaling })
    }
}

impl GradientTransform for LoraFa {
    fn name(&self) -> &'static str {
        "lora_fa"
    }

    fn transform(
        &mut self,
        mut updates: ParameterList,
        context: &StepContext<'_>,
    ) -> Result<ParameterList, OptimError> {
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

    fn check(&self, parameters: &[NamedTensor], _horizon: u64) -> Result<(), OptimError> {
        require_pairs(self.name(), parameters)
    }

    fn roles(&self) -> Vec<Placed> {
        Placed::everywhere(self.name(), Role::PairPrecondition)
    }
}
