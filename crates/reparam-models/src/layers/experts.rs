//! Feed-forward layers that each token chooses from.

use burn::tensor::{Tensor, activation};
use reparam::{ExpertWeight, ForwardContext, Linear};
use reparam_ops::{ExpertRows, embedding, gated};

use super::FeedForward;
use crate::architecture::{ExpertsSpec, FeedForwardSpec};
use crate::named::{Named, side_by_side, unnamed_module};

/// The experts of a feed-forward layer: see [`ExpertsSpec`].
#[derive(Debug, Clone)]
pub struct Experts {
    /// From the hidden states to a number for each expert, `[E, d]`. It is never packed.
    pub router: Named<ExpertWeight>,
    /// Gate and up of each expert, `[E 2 inner, d]`.
    pub gate_up: Named<ExpertWeight>,
    /// Back to the hidden states, `[E d, inner]`.
    pub down: Named<ExpertWeight>,
    /// What every token goes through.
    pub shared: Option<SharedExpert>,
    /// What an expert is.
    pub layer: FeedForwardSpec,
    /// Which there are.
    pub spec: ExpertsSpec,
}

unnamed_module!(Experts, modules: [router, gate_up, down, shared], data: [layer, spec]);

/// What every token goes through, multiplied by the sigmoid of its gate.
#[derive(Debug, Clone)]
pub struct SharedExpert {
    /// The layer.
    pub feed_forward: FeedForward,
    /// To one number.
    pub gate: Named<Linear>,
}

unnamed_module!(SharedExpert, modules: [feed_forward, gate], data: []);

/// Which experts tokens go through, in the order of the tokens.
struct Routes {
    /// The rows of each expert.
    rows: ExpertRows,
    /// The token of each row.
    tokens: Vec<u32>,
    /// The row of each choice: the `k` of the first token, those of the second, and so on.
    places: Vec<u32>,
    /// The place of each choice among the probabilities.
    chosen: Vec<u32>,
}

impl Experts {
    /// # Cost
    ///
    /// That of `k` experts a token, whatever their number.
    pub(crate) fn forward(&self, x: Tensor<2>, context: &ForwardContext) -> Tensor<2> {
        let ExpertsSpec {
            n_experts,
            per_token,
            normalize,
            ..
        } = self.spec;
        let [n, width] = x.dims();
        let logits = self
            .router
            .forward(x.clone(), &ExpertRows::new(&[n]), context);
        let probabilities = activation::softmax(logits, 1);
        let numbers: Vec<f64> = probabilities.to_data().iter::<f64>().collect();
        let routes = Routes::choose(&numbers, n_experts, per_token);

        let rows = embedding(x.clone(), &routes.tokens);
        let joined = self.gate_up.forward(rows, &routes.rows, context);
        let [gate, up] = side_by_side([self.layer.output.d_in; 2])
            .map(|columns| joined.clone().narrow(1, columns.start, columns.len()));
        let inner = gated(gate, up, self.layer.activation);
        let outputs = self.down.forward(inner, &routes.rows, context);

        let flat = probabilities.reshape([n * n_experts, 1]);
        let weights = embedding(flat, &routes.chosen).reshape([n, per_token]);
        let weights = match normalize {
            true => weights.clone() / weights.sum_dim(1),
            false => weights,
        };
        let chosen = embedding(outputs, &routes.places).reshape([n, per_token, width]);
        let sum = (chosen * weights.unsqueeze_dim::<3>(2)).sum_dim(1);
        let sum = sum.reshape([n, width]);
        match &self.shared {
            Some(shared) => sum + shared.forward(x, context),
            None => sum,
        }
    }
}

impl SharedExpert {
    fn forward(&self, x: Tensor<2>, context: &ForwardContext) -> Tensor<2> {
        let gate = activation::sigmoid(self.gate.forward(x.clone(), context));
        self.feed_forward.forward(x, context) * gate
    }
}

impl Routes {
    /// Chooses the `k` largest of each row; of equal ones the first.
    fn choose(probabilities: &[f64], n_experts: usize, k: usize) -> Self {
        let n = probabilities.len() / n_experts;
        let mut chosen = Vec::with_capacity(n * k);
        let mut order: Vec<usize> = Vec::with_capacity(n_experts);
        for (token, row) in probabilities.chunks_exact(n_experts).enumerate() {
            order.clear();
            order.extend(0..n_experts);
            // The sort is stable. What is no number goes first, so that it is not hidden.
            let size = |expert: usize| match row[expert].is_nan() {
                true => f64::INFINITY,
                false => row[expert],
            };
            order.sort_by(|a, b| size(*b).total_cmp(&size(*a)));
            chosen.extend(order[..k].iter().map(|expert| token * n_experts + expert));
        }
        let mut by_expert: Vec<usize> = (0..chosen.len()).collect();
        by_expert.sort_by_key(|choice| chosen[*choice] % n_experts);
        let mut counts = vec![0; n_experts];
        let mut places = vec![0; chosen.len()];
        for (row, choice) in by_expert.iter().enumerate() {
            counts[chosen[*choice] % n_experts] += 1;
            places[*choice] = row as u32;
        }
        Self {
            rows: ExpertRows::new(&counts),
            tokens: by_expert.iter().map(|choice| (choice / k) as u32).collect(),
            places,
            chosen: chosen.iter().map(|place| *place as u32).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_goes_through_its_largest() {
        let probabilities = [0.1, 0.6, 0.3, 0.4, 0.2, 0.4, 0.3, 0.35, 0.35];
        let routes = Routes::choose(&probabilities, 3, 2);
        // Of equal ones the first: experts 0 and 2 of the second token, 1 and 2 of the third.
        assert_eq!(routes.chosen, [1, 2, 3, 5, 7, 8]);
        assert_eq!(routes.rows, ExpertRows::new(&[1, 2, 3]));
        assert_eq!(routes.tokens, [1, 0, 2, 0, 1, 2]);
        assert_eq!(routes.places, [1, 3, 0, 4, 2, 5]);
        let used: Vec<_> = ExpertRows::new(&[2, 0, 1]).used().collect();
        assert_eq!(used, [(0, 0..2), (2, 2..3)]);
    }

    #[test]
    fn what_is_no_number_is_not_hidden() {
        let routes = Routes::choose(&[0.5, f64::NAN, 0.5], 3, 1);
        assert_eq!(routes.chosen, [1]);
    }
}
