//! What recurrent layers of a decoder read of a source.

use burn::tensor::{Tensor, activation};
use reparam::{ForwardContext, Linear};
use reparam_ops::{AttentionConfig, RecurrentState, attention};

use super::Source;
use crate::architecture::{GlobalAttentionSpec, StartSpec};
use crate::named::{List, Named, unnamed_module};

/// The states that layers begin with, and attention behind the last layer.
#[derive(Debug, Clone)]
pub struct RecurrentCross {
    /// Of each layer, what it begins with.
    pub starts: List<Start>,
    /// Attention to the states of the encoder.
    pub attention: GlobalAttention,
}

unnamed_module!(RecurrentCross, modules: [starts, attention], data: []);

/// What a layer begins with: see [`StartSpec`].
#[derive(Debug, Clone)]
pub struct Start {
    /// Of the state.
    pub h: Option<Named<Linear>>,
    /// Of the cell state.
    pub c: Option<Named<Linear>>,
    /// What it is.
    pub spec: StartSpec,
}

unnamed_module!(Start, modules: [h, c], data: [spec]);

/// Attention of states to those of a source: see [`GlobalAttentionSpec`].
#[derive(Debug, Clone)]
pub struct GlobalAttention {
    /// The layers of the score: none, `W_a`, or `W_h`, `W_s` and `v`.
    pub inputs: List<Named<Linear>>,
    /// `W_c`
    pub output: Named<Linear>,
    /// What it is.
    pub spec: GlobalAttentionSpec,
}

unnamed_module!(GlobalAttention, modules: [inputs, output], data: [spec]);

impl RecurrentCross {
    /// The states that `n` targets begin with, each with a source of its own or all with the only one.
    pub(super) fn first(
        &self,
        source: &Source,
        n: usize,
        context: &ForwardContext,
    ) -> Vec<RecurrentState> {
        let start = |start: &Start| {
            let last = &source.last[start.spec.from.clone()];
            let begin = |states: Vec<Tensor<2>>, layer: &Option<Named<Linear>>| {
                let state = Tensor::cat(states, 1);
                let state = match layer {
                    Some(layer) => layer.forward(state, context),
                    None => state,
                };
                let [n_sources, _] = state.dims();
                match n_sources == n {
                    true => state,
                    false => state.repeat_dim(0, n),
                }
            };
            let c: Option<Vec<_>> = last.iter().map(|state| state.c.clone()).collect();
            let h = last.iter().map(|state| state.h.clone());
            RecurrentState {
                h: begin(h.collect(), &start.h),
                c: c.map(|c| begin(c, &start.c)),
            }
        };
        self.starts.iter().map(start).collect()
    }
}

impl GlobalAttention {
    /// `h~`, `[N, d]`, of the states of targets.
    pub(super) fn forward(
        &self,
        h: Tensor<2>,
        source: &Source,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let states = source.states.clone();
        let dot = |q: Tensor<2>| {
            let [_, head_dim] = states.dims();
            let config = AttentionConfig {
                n_heads: 1,
                n_kv_heads: 1,
                head_dim,
                scale: 1.0,
                causal: false,
                window: None,
                soft_cap: None,
            };
            attention(q, states.clone(), states.clone(), config, &source.segments)
        };
        let read = match &self.inputs[..] {
            [] => dot(h.clone()),
            [query] => dot(query.forward(h.clone(), context)),
            [query, key, energy] => {
                let q = query.forward(h.clone(), context);
                let k = key.forward(states.clone(), context);
                additive([q, k], source, |x| energy.forward(x, context))
            }
            others => unreachable!("a score of {} layers", others.len()),
        };
        let joined = Tensor::cat(vec![read, h], 1);
        self.output.forward(joined, context).tanh()
    }
}

/// `sum_j softmax_j(energy(tanh(q_i + k_j))) s_j`, of the queries of each segment one behind the other.
///
/// # Cost
///
/// A row of `q` for each pair of query and key is kept for the backward pass.
fn additive(
    [q, k]: [Tensor<2>; 2],
    source: &Source,
    energy: impl FnOnce(Tensor<2>) -> Tensor<2>,
) -> Tensor<2> {
    let [_, width] = q.dims();
    let segments = source.segments.iter();
    let sums = segments.clone().map(|of| {
        let q = q.clone().narrow(0, of.q_start, of.q_len);
        let k = k.clone().narrow(0, of.k_start, of.k_len);
        let sums = q.unsqueeze_dim::<3>(1) + k.unsqueeze_dim::<3>(0);
        sums.tanh().reshape([of.q_len * of.k_len, width])
    });
    // One product for all of them, so that a dropout of its method draws for each pair.
    let scores = energy(Tensor::cat(sums.collect(), 0));
    let mut next = 0;
    let rows = segments.map(|of| {
        let n = of.q_len * of.k_len;
        let scores = scores.clone().narrow(0, next, n);
        next += n;
        let weights = activation::softmax(scores.reshape([of.q_len, of.k_len]), 1);
        weights.matmul(source.states.clone().narrow(0, of.k_start, of.k_len))
    });
    Tensor::cat(rows.collect(), 0)
}
