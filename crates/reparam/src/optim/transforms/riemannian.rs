//! Riemannian preconditioning of low-rank factors.

use crate::optim::entry::{TransformEntry, one};
use crate::optim::error::Result;
use crate::optim::math::{as_matrix, damped_inverse};
use crate::optim::rules::{lora_pairs, require_products};
use crate::optim::transform::{GradientTransform, StepContext, Transformed, placed};
use crate::parameters::{NamedTensor, ParameterList, flatten};
use crate::schema::{Range, number};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "riemannian",
    summary: "Precondition the factors A and B by each other's Gram matrices",
    formula: "u_A = (B'B + reg I)^-1 g_A,  u_B = g_B (A A' + reg I)^-1",
    source: "arXiv 2402.02347, equation 2, as in PEFT",
    optimizer: None,
    settings: &[number(
        "reg",
        Range::Positive,
        1e-2,
        "added to the Gram matrices' diagonals",
    )],
    build: |settings, _| one(Riemannian::new(settings.number("reg")?)?),
};

/// Preconditions the factors of `B A` so that the product moves alike however it is split into them.
///
/// ```text
/// u_A = (B'B + reg I)^-1 g_A
/// u_B = g_B (A A' + reg I)^-1
/// ```
///
/// Up to `reg`, replacing `A` by `M A` and `B` by `B M^-1` changes nothing in how the product moves.
///
/// # References
///
/// Zhang and Pilanci (arXiv 2402.02347), equation 2, with PEFT's default `reg`. PEFT takes a
/// pseudo-inverse; a damped Gram matrix has a true one, here by Cholesky in `f64`.
///
/// # Cost
///
/// For every pair two Gram matrices of rank by rank and their inverses.
#[derive(Debug, Clone, Copy)]
pub struct Riemannian {
    reg: f64,
}

impl Riemannian {
    /// Creates the transform; `reg` must be positive, PEFT's is 0.01.
    pub fn new(reg: f64) -> Result<Self> {
        Range::Positive.check("reg", reg)?;
        Ok(Self { reg })
    }
}

impl GradientTransform for Riemannian {
    placed!("riemannian", PairPrecondition);

    fn transform(&mut self, mut updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        for pair in lora_pairs(context.parameters) {
            let (a, b) = (&context.parameters[pair.a], &context.parameters[pair.b]);
            let factors = as_matrix(a).zip(as_matrix(b));
            let gradients = as_matrix(&updates[pair.a]).zip(as_matrix(&updates[pair.b]));
            let Some(((a_values, b_values), (g_a, g_b))) = factors.zip(gradients) else {
                continue;
            };
            let gram_a = a_values.clone().matmul(a_values.transpose());
            let gram_b = b_values.clone().transpose().matmul(b_values);
            let of_a = damped_inverse(&gram_b, self.reg, self.name(), &b.name)?;
            let of_b = damped_inverse(&gram_a, self.reg, self.name(), &a.name)?;
            updates[pair.a].values = flatten(of_a.matmul(g_a));
            updates[pair.b].values = flatten(g_b.matmul(of_b));
        }
        Ok(updates)
    }

    fn check(&self, parameters: &[NamedTensor], _horizon: u64) -> Result<()> {
        require_products(self.name(), parameters)
    }
}
