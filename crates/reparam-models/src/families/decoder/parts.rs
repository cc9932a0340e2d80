//! Layers, norms and paths in which families differ.

use super::Decoder;
use crate::Architecture;
use crate::architecture::{
    AttentionSpec, BlockSpec, FeedForwardSpec, LinearSpec, NormSpec, NormsSpec, TableSpec,
};

impl Decoder<'_> {
    /// Returns a layer of a block.
    pub(in crate::families) fn linear(
        &self,
        layer: usize,
        name: &str,
        [d_in, d_out]: [usize; 2],
        bias: bool,
    ) -> LinearSpec {
        LinearSpec {
            bias,
            ..LinearSpec::new(self.path(layer, name), d_in, d_out)
        }
    }

    /// Returns a norm before half a block alone.
    pub(in crate::families) fn before(&self, layer: usize, name: &str) -> NormsSpec {
        NormsSpec {
            before: Some(self.norm(self.path(layer, name))),
            ..NormsSpec::default()
        }
    }

    /// Makes a feed-forward layer one without a gate.
    pub(in crate::families) fn without_gate(
        &self,
        layer: usize,
        [up, down]: [&str; 2],
        bias: bool,
        feed_forward: &mut FeedForwardSpec,
    ) {
        feed_forward.gated = false;
        feed_forward.inputs = vec![self.linear(layer, up, [self.width, self.inner], bias)];
        feed_forward.output = self.linear(layer, down, [self.inner, self.width], bias);
    }

    /// Gives a feed-forward layer gate and up in one layer.
    pub(in crate::families) fn joined_gate(
        &self,
        layer: usize,
        feed_forward: &mut FeedForwardSpec,
    ) {
        let sizes = [self.width, self.inner.saturating_mul(2)];
        feed_forward.inputs = vec![self.linear(layer, "mlp.gate_up_proj", sizes, false)];
    }

    /// Gives attention the layers of the paths: queries, keys and values apart, and the output.
    pub(in crate::families) fn attention_layers(
        &self,
        layer: usize,
        [q, k, v, output]: [&str; 4],
        attention: &mut AttentionSpec,
    ) {
        let widths = attention.widths();
        let inputs = [q, k, v].into_iter().zip(widths);
        let linear = |name: &str, sizes| self.linear(layer, name, sizes, false);
        attention.inputs = inputs
            .map(|(name, width)| linear(name, [self.width, width]))
            .collect();
        attention.output = linear(output, [widths[0], self.width]);
    }

    /// Gives attention one layer for queries, keys and values, and the output.
    pub(in crate::families) fn joined_attention(
        &self,
        layer: usize,
        [qkv, output]: [&str; 2],
        bias: bool,
        attention: &mut AttentionSpec,
    ) {
        let widths = attention.widths();
        let joined = widths.into_iter().fold(0, usize::saturating_add);
        attention.inputs = vec![self.linear(layer, qkv, [self.width, joined], bias)];
        attention.output = self.linear(layer, output, [widths[0], self.width], bias);
    }

    /// Gives a block the layers that Megatron's models have: queries, keys and values in one, inside of `attention`, and no gate.
    pub(in crate::families) fn megatron_layers(
        &self,
        layer: usize,
        attention: &str,
        [attention_bias, bias]: [bool; 2],
        block: &mut BlockSpec,
    ) {
        let layers = ["query_key_value", "dense"].map(|name| format!("{attention}.{name}"));
        let layers = layers.each_ref().map(String::as_str);
        self.joined_attention(layer, layers, attention_bias, &mut block.attention);
        let layers = ["mlp.dense_h_to_4h", "mlp.dense_4h_to_h"];
        self.without_gate(layer, layers, bias, &mut block.feed_forward);
    }

    /// Gives a block the norms of GPT-2's.
    pub(in crate::families) fn gpt2_norms(&self, layer: usize, block: &mut BlockSpec) {
        block.attention_norms = self.before(layer, "ln_1");
        block.feed_forward_norms = self.before(layer, "ln_2");
    }

    /// Gives a model the paths of GPT-2's: of the body, of its tokens and of its last norm.
    pub(in crate::families) fn gpt2_paths(&self, architecture: &mut Architecture) {
        architecture.prefix = "transformer".to_owned();
        architecture.embedding.tokens = "wte".to_owned();
        architecture.norm = Some(self.norm("ln_f"));
    }

    /// Returns a norm of the hidden states.
    pub(in crate::families) fn norm(&self, path: impl Into<String>) -> NormSpec {
        NormSpec {
            path: path.into(),
            kind: self.norm,
            width: self.width,
            eps: self.eps,
        }
    }

    /// Gives attention a norm of each head of queries and of keys.
    pub(in crate::families) fn norm_heads(&self, layer: usize, attention: &mut AttentionSpec) {
        let norm = |name: &str| NormSpec {
            width: self.head_dim,
            ..self.norm(self.path(layer, &format!("self_attn.{name}")))
        };
        attention.q_norm = Some(norm("q_norm"));
        attention.k_norm = Some(norm("k_norm"));
    }

    /// Gives both halves of a block a norm before and one behind, as Gemma has them since its second version.
    pub(in crate::families) fn norm_outputs(&self, layer: usize, block: &mut BlockSpec) {
        let norm = |name: &str| Some(self.norm(self.path(layer, name)));
        block.attention_norms.inside = norm("post_attention_layernorm");
        block.feed_forward_norms.before = norm("pre_feedforward_layernorm");
        block.feed_forward_norms.inside = norm("post_feedforward_layernorm");
    }
}

/// Gives a model learned positions: a table of a row for each, behind `offset` rows that no token has.
pub(in crate::families) fn learned_positions(
    path: &str,
    offset: usize,
    architecture: &mut Architecture,
) {
    architecture.embedding.positions = Some(TableSpec {
        path: path.to_owned(),
        rows: architecture.max_positions.saturating_add(offset),
        offset,
    });
}

/// Says whether queries, keys and values have biases, and whether the output has one.
pub(in crate::families) fn bias_attention(
    attention: &mut AttentionSpec,
    inputs: bool,
    output: bool,
) {
    for linear in &mut attention.inputs {
        linear.bias = inputs;
    }
    attention.output.bias = output;
}

/// Says whether the layers of a feed-forward layer have biases.
pub(in crate::families) fn bias_feed_forward(feed_forward: &mut FeedForwardSpec, bias: bool) {
    let inputs = feed_forward.inputs.iter_mut();
    for linear in inputs.chain([&mut feed_forward.output]) {
        linear.bias = bias;
    }
}
