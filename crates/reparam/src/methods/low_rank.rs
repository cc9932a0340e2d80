//! The low-rank part of a weight, `s B A`, or of the weights of experts.

use burn::tensor::Tensor;
use reparam_ops::{DropoutKey, LinearPlan, LowRank};

use super::lora::{A, B};
use super::{Base, ExpertParameter, Method, Theta};
use crate::ForwardContext;

/// The low-rank part of one adapted weight.
#[derive(Debug, Clone)]
pub(super) struct LowRankPart {
    /// The effective multiplier.
    pub(super) scaling: f64,
    /// The dropout probability.
    pub(super) dropout: f64,
    /// Tells this weight's dropout masks from others'; from the name of `A`.
    pub(super) dropout_tensor: u64,
    /// Whose factors they are, if those of experts: they are side by side in PEFT's order. `A` is `[E r, d_in]` with the experts one below
    /// the other, and `B` is `[d_out, r E]`, in which column `j E + e` is column `j` of expert `e`.
    pub(super) experts: Option<ExpertParameter>,
}

/// The names of the factors: each parameter of the same module that is adapted later wraps those before it.
pub(super) fn names(experts: Option<&ExpertParameter>) -> [String; 2] {
    let inside = "base_layer.".repeat(experts.map_or(0, |experts| experts.wrapped));
    [A, B].map(|name| format!("{inside}{name}"))
}

impl LowRankPart {
    fn factors(&self, theta: &Theta<'_>) -> [Tensor<2>; 2] {
        match &self.experts {
            None => [A, B].map(|name| theta.matrix(name)),
            experts => names(experts.as_ref()).map(|name| theta.matrix(&name)),
        }
    }

    pub(super) fn term(&self, theta: &Theta<'_>, context: &ForwardContext) -> LowRank {
        let [a, b] = self.factors(theta);
        LowRank {
            a,
            b,
            scaling: self.scaling,
            dropout: dropout(self.dropout, self.dropout_tensor, context),
        }
    }
}

/// Returns the probability and the key of this pass's dropout, if there is any.
pub(super) fn dropout(
    probability: f64,
    tensor: u64,
    context: &ForwardContext,
) -> Option<(f32, DropoutKey)> {
    let key = context.dropout_key(tensor)?;
    // A probability just below one must not become one by rounding.
    let p = (probability as f32).min(1.0 - f32::EPSILON);
    (p > 0.0).then_some((p, key))
}

/// LoRA on one weight is its low-rank part.
impl Method for LowRankPart {
    /// `W0 + s B A`, of experts an expert at a time.
    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Tensor<2> {
        let [a, b] = self.factors(theta);
        let n_experts = self.experts.as_ref().map_or(1, |experts| experts.n_experts);
        if n_experts == 1 {
            return base + b.matmul(a) * self.scaling;
        }
        let ([rows, d_in], [d_out, _]) = (a.dims(), b.dims());
        let rank = rows / n_experts;
        let a = a.reshape([n_experts, rank, d_in]);
        let b = b.reshape([d_out, rank, n_experts]).permute([2, 0, 1]);
        let change = b.matmul(a).reshape([n_experts * d_out, d_in]);
        base + change * self.scaling
    }

    fn plan(
        &self,
        _base: &Base<'_>,
        theta: &Theta<'_>,
        context: &ForwardContext,
    ) -> Option<LinearPlan> {
        Some(LinearPlan {
            low_rank: vec![self.term(theta, context)],
            ..LinearPlan::default()
        })
    }

    fn has_dropout(&self) -> bool {
        self.dropout > 0.0
    }
}
