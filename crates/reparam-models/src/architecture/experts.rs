//! Feed-forward layers that each token chooses from.

use std::ops::Range;

use super::{Architecture, FeedForwardSpec, LinearSpec};

/// The experts of a feed-forward layer, of which a router chooses some for each token.
///
/// ```text
/// p = softmax(x W_router')                        in f32
/// y = sum over the k largest p_e of  w_e f_e(x)   w_e = p_e, or p_e over the sum of the k
///   + sigmoid(x g') shared(x)                     if there is a shared expert
/// ```
///
/// `f_e` is what the [`FeedForwardSpec`] says with the weights of expert `e`. In memory the experts' weights are one below the
/// other, [`gate_up`](Self::gate_up) and [`down`](Self::down), under the names that transformers gives them.
///
/// # References
///
/// Jiang et al., *Mixtral of Experts* (arXiv 2401.04088), section 2.1; Dai et al., *DeepSeekMoE* (arXiv 2401.06066), section 3.2, for the
/// shared expert. Without the losses that balance the experts.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertsSpec {
    /// The number of experts.
    pub n_experts: usize,
    /// How many of them a token goes through.
    pub per_token: usize,
    /// Whether the weights of those sum to one.
    pub normalize: bool,
    /// From the hidden states to a number for each expert.
    pub router: LinearSpec,
    /// The path of the experts: `gate_up_proj` and `down_proj` are in it.
    pub path: String,
    /// How checkpoints call the router's weight and the place of the experts, where that is not as above.
    pub stored: Option<[String; 2]>,
    /// What checkpoints call gate, up and down of an expert.
    pub names: [&'static str; 3],
    /// Whether PEFT takes these names for the experts' in all layers, so that those of a layer without experts cannot be adapted.
    pub taken_by_peft: bool,
    /// What every token goes through besides, and what it is multiplied by the sigmoid of.
    pub shared: Option<Box<SharedExpertSpec>>,
}

/// The expert of all tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct SharedExpertSpec {
    /// What it is.
    pub feed_forward: FeedForwardSpec,
    /// To the number whose sigmoid it is multiplied by.
    pub gate: LinearSpec,
}

/// Which rows of a parameter that is several experts' a tensor of a checkpoint has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpertPart {
    /// The path of the parameter.
    pub parameter: String,
    /// The rows.
    pub rows: Range<usize>,
}

impl ExpertsSpec {
    /// Returns the path of the joined gate and up of all experts, `[E 2 inner, d]`.
    pub fn gate_up(&self) -> String {
        format!("{}.gate_up_proj", self.path)
    }

    /// Returns the path of the down of all experts, `[E d, inner]`.
    pub fn down(&self) -> String {
        format!("{}.down_proj", self.path)
    }

    /// How a checkpoint calls the weight of the router.
    pub(crate) fn stored_router(&self) -> String {
        match &self.stored {
            Some([router, _]) => router.clone(),
            None => format!("{}.weight", self.router.path),
        }
    }

    /// How a checkpoint calls gate, up and down of an expert.
    pub(crate) fn stored_layers(&self, expert: usize) -> [String; 3] {
        let place = match &self.stored {
            Some([_, place]) => place,
            None => &self.path,
        };
        self.names
            .map(|name| format!("{place}.{expert}.{name}.weight"))
    }

    pub(super) fn check(&self, layer: &FeedForwardSpec) -> Option<String> {
        let (n, k) = (self.n_experts, self.per_token);
        if !(1..=n).contains(&k) {
            return Some(format!("a token goes through {k} of {n} experts"));
        }
        let is_plain = layer.gated && layer.inputs.len() == 1;
        let mut layers = layer.inputs.iter().chain([&layer.output]);
        if !is_plain || layers.any(|layer| layer.bias || layer.transposed) {
            return Some("experts have gate and up in one layer, and no biases".to_owned());
        }
        if layer.dropouts() != [None; 2] {
            return Some("experts have no dropout".to_owned());
        }
        if self.router.d_out != n || self.router.bias {
            return Some(format!("the router does not choose among {n} experts"));
        }
        let shared = self.shared.as_ref()?;
        if shared.gate.d_out != 1 || shared.feed_forward.experts.is_some() {
            return Some("a shared expert is one layer with one gate".to_owned());
        }
        shared.feed_forward.check_widths()
    }
}

impl Architecture {
    /// Iterates over the layers with experts: what each expert is, and which there are.
    pub(crate) fn experts(&self) -> impl Iterator<Item = (&FeedForwardSpec, &ExpertsSpec)> {
        let layers = self.blocks.iter().map(|block| &block.feed_forward);
        layers.filter_map(|layer| Some((layer, layer.experts.as_ref()?)))
    }

    /// The linear layers of feed-forward layers that no adapter of PEFT can be of: see [`ExpertsSpec::taken_by_peft`].
    pub(super) fn beside_experts(&self) -> impl Iterator<Item = &LinearSpec> {
        let some = self.experts().any(|(_, experts)| experts.taken_by_peft);
        let layers = self.blocks.iter().map(|block| &block.feed_forward);
        let dense = layers.filter(move |layer| some && layer.experts.is_none());
        dense.flat_map(|layer| layer.inputs.iter().chain([&layer.output]))
    }

    /// Returns whether some feed-forward layers have experts.
    pub fn has_experts(&self) -> bool {
        self.experts().next().is_some()
    }

    /// Returns the parameters of routers and experts in the model's order: full path, number of experts (1 for a router), and shape in
    /// memory.
    pub fn expert_parameters(&self) -> Vec<(String, usize, [usize; 2])> {
        let layers = self.experts().flat_map(|(layer, experts)| {
            let n = experts.n_experts;
            let (width, inner) = (layer.output.d_out, layer.output.d_in);
            let router = format!("{}.weight", experts.router.path);
            [
                (self.full_path(&router), 1, [n, width]),
                (
                    self.full_path(&experts.gate_up()),
                    n,
                    [n * 2 * inner, width],
                ),
                (self.full_path(&experts.down()), n, [n * width, inner]),
            ]
        });
        layers.collect()
    }

    /// Returns the tensors, by their full names, that a checkpoint may have of routers and experts, each with the part of the parameter
    /// that it is: those of the experts one by one, and all of them in one tensor.
    pub fn expert_parts(&self) -> Vec<(String, ExpertPart)> {
        let mut parts = Vec::new();
        for (layer, experts) in self.experts() {
            let n_experts = experts.n_experts;
            let (width, inner) = (layer.output.d_out, layer.output.d_in);
            let router = format!("{}.weight", experts.router.path);
            let (gate_up, down) = (experts.gate_up(), experts.down());
            let mut put = |stored: String, path: &str, rows: Range<usize>| {
                let parameter = self.full_path(path);
                parts.push((self.full_path(&stored), ExpertPart { parameter, rows }));
            };
            put(experts.stored_router(), &router, 0..n_experts);
            put(router.clone(), &router, 0..n_experts);
            put(gate_up.clone(), &gate_up, 0..n_experts * 2 * inner);
            put(down.clone(), &down, 0..n_experts * width);
            for expert in 0..n_experts {
                let [gate, up, out] = experts.stored_layers(expert);
                let first = expert * 2 * inner;
                put(gate, &gate_up, first..first + inner);
                put(up, &gate_up, first + inner..first + 2 * inner);
                put(out, &down, expert * width..(expert + 1) * width);
            }
        }
        parts
    }
}
