//! Linear layers of several experts with packed weights, over `f32` activations.

use burn::backend::Flex;
use burn::backend::autodiff::ops::NodeGuard;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::buffer::Buffer;
use super::packed::{FusedLinear, PackedWeight};
use super::slices::{rounded, widened};
use super::stack::Stack;
use crate::experts::{check, expert_columns, put_expert_columns};
use crate::native::{self, from_values, primitive_and_tracked_node, values};
use crate::{ExpertRows, LinearPlan, LowRank};

/// [`expert_linear`](crate::expert_linear) over weights from [`PackedWeight::pack_experts`], which are frozen.
///
/// # Gradients
///
/// For `x`, `A` and `B`.
///
/// # Numerics
///
/// Those of [`packed_linear`](super::packed_linear).
///
/// # Cost
///
/// Each row costs what it costs in one layer. Keeps `x` in bf16 where the factors are trained, and `x A'`.
///
/// # Panics
///
/// Panics when the shapes do not fit, or the term has dropout.
pub fn packed_expert_linear(
    x: Tensor<2>,
    weight: &PackedWeight,
    low_rank: Option<LowRank>,
    rows: &ExpertRows,
) -> Tensor<2> {
    check(x.dims(), weight.dims(), low_rank.as_ref(), rows);
    let n_experts = weight.n_experts();
    assert_eq!(n_experts, rows.n_experts(), "rows for each expert");
    let autodiff = x.is_autodiff();
    let wants_x = x.is_tracked();
    let ([n, d_in], [all_out, _]) = (x.dims(), weight.dims());
    let d_out = all_out / n_experts;
    let factors = low_rank.map(|term| Factors::new(term, n_experts));
    let is_trained = factors.as_ref().is_some_and(|factors| factors.is_tracked);
    let (x, x_node) = primitive_and_tracked_node(x);
    let x = rounded(values(&x));

    let mut y = vec![0.0; n * d_out];
    let mut kept = Vec::new();
    for (expert, rows) in rows.used() {
        let layer = FusedLinear {
            weight: weight.expert(expert),
            bias: None,
            plan: factors
                .as_ref()
                .map(|factors| factors.plan(expert))
                .unwrap_or_default(),
        };
        let (mut stack, _) = Stack::single(layer);
        if is_trained {
            stack.track_factors();
        }
        let own = &x[rows.start * d_in..rows.end * d_in];
        let t = stack.project(own);
        y[rows.start * d_out..rows.end * d_out].copy_from_slice(&stack.forward_f32(own, &t));
        if wants_x || is_trained {
            kept.push((expert, rows, stack, t));
        }
    }
    let y = from_values(y, [n, d_out]);
    if !wants_x && !is_trained {
        return native::untracked(y, autodiff);
    }
    let x = is_trained.then_some(x);
    let [rank, a_len, b_len] = factors.as_ref().map_or([0; 3], |factors| {
        [
            factors.rank,
            values(&factors.a).len(),
            values(&factors.b).len(),
        ]
    });
    let nodes = factors.map_or([None, None], |factors| factors.nodes);
    let [a_node, b_node] = nodes;
    let nodes = [x_node, a_node, b_node].map(native::or_nothing);
    native::tracked(nodes, y, move |dy, [x_node, a_node, b_node], grads| {
        let dy = rounded(values(&dy));
        let mut dx = x_node.map(|_| Buffer::zeros(n * d_in));
        let mut da = vec![0.0; a_len];
        let mut db = vec![0.0; b_len];
        for (expert, rows, stack, t) in kept {
            let own = rows.start * d_in..rows.end * d_in;
            let own_dx = dx.as_mut().map(|dx| &mut dx[own.clone()]);
            let own_dy = &dy[rows.start * d_out..rows.end * d_out];
            let (pending, mut gradients) = stack.backward(own_dy, &t, own_dx);
            let Some(x) = &x else { continue };
            stack.input_gradients(&x[own], &pending, &mut gradients);
            for gradient in gradients {
                let [own_a, own_b] = gradient.into_factors();
                da[expert * rank * d_in..][..rank * d_in].copy_from_slice(&own_a);
                put_expert_columns(&own_b, n_experts, expert, &mut db);
            }
        }
        if let (Some(id), Some(dx)) = (x_node, dx) {
            grads.register::<Flex>(id, from_values(widened(&dx), [n, d_in]));
        }
        if let Some(id) = a_node {
            grads.register::<Flex>(id, from_values(da, [n_experts * rank, d_in]));
        }
        if let Some(id) = b_node {
            grads.register::<Flex>(id, from_values(db, [d_out, rank * n_experts]));
        }
    })
}

/// The factors of all experts.
struct Factors {
    a: FlexTensor,
    b: FlexTensor,
    n_experts: usize,
    d_in: usize,
    d_out: usize,
    rank: usize,
    scaling: f64,
    is_tracked: bool,
    nodes: [Option<NodeGuard>; 2],
}

impl Factors {
    fn new(term: LowRank, n_experts: usize) -> Self {
        let ([all_ranks, d_in], [d_out, _]) = (term.a.dims(), term.b.dims());
        let is_tracked = term.a.is_tracked() || term.b.is_tracked();
        let (a, a_node) = primitive_and_tracked_node(term.a);
        let (b, b_node) = primitive_and_tracked_node(term.b);
        Self {
            a,
            b,
            n_experts,
            d_in,
            d_out,
            rank: all_ranks / n_experts,
            scaling: term.scaling,
            is_tracked,
            nodes: [a_node, b_node],
        }
    }

    /// Those of one expert, outside of any graph.
    fn plan(&self, expert: usize) -> LinearPlan {
        let (rank, d_in) = (self.rank, self.d_in);
        let a = values(&self.a)[expert * rank * d_in..][..rank * d_in].to_vec();
        let b = expert_columns(values(&self.b), self.n_experts, expert);
        let tensor = |values: Vec<f32>, shape: [usize; 2]| {
            Tensor::from_primitive::<Flex>(from_values(values, shape))
        };
        LinearPlan {
            low_rank: vec![LowRank {
                a: tensor(a, [rank, d_in]),
                b: tensor(b, [self.d_out, rank]),
                scaling: self.scaling,
                dropout: None,
            }],
            ..LinearPlan::default()
        }
    }
}
