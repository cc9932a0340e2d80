//! What llama.cpp calls the tensors of a model.

use reparam_formats::gguf::{GgufWeight, Layout, Source};

use super::{GgufFamily, GgufHead};
use crate::Architecture;
use crate::architecture::{
    BlockSpec, ExpertsSpec, FeedForwardSpec, LinearSpec, NormKind, NormSpec,
};

/// Returns the tensors of the checkpoint with their names in a file.
pub(super) fn weights(
    family: &GgufFamily,
    architecture: &Architecture,
    is_tied: bool,
) -> Vec<GgufWeight> {
    let mut all = Names {
        architecture,
        weights: Vec::new(),
    };
    let table = architecture.full_path(&architecture.embedding.tokens);
    all.put(
        "token_embd.weight",
        &table,
        "weight",
        Layout::AsStored,
        false,
    );
    if let Some(positions) = &architecture.embedding.positions {
        let path = architecture.full_path(&positions.path);
        // llama.cpp adds them to token vectors in f32.
        all.put(
            "position_embd.weight",
            &path,
            "weight",
            Layout::AsStored,
            true,
        );
    }
    for (layer, block) in architecture.blocks.iter().enumerate() {
        all.block(family, layer, block);
    }
    if let Some(norm) = &architecture.norm {
        all.norm("output_norm", norm);
    }
    match (is_tied, family.head) {
        (false, _) => all.put(
            "output.weight",
            &architecture.head.path,
            "weight",
            Layout::AsStored,
            false,
        ),
        (true, GgufHead::Own) => {
            all.put("output.weight", &table, "weight", Layout::AsStored, false)
        }
        (true, GgufHead::OwnOrTable | GgufHead::Table) => {}
    }
    if architecture.head.bias {
        let path = &architecture.head.path;
        all.put("output.bias", path, "bias", Layout::AsStored, true);
    }
    all.weights
}

struct Names<'a> {
    architecture: &'a Architecture,
    weights: Vec<GgufWeight>,
}

impl Names<'_> {
    fn put(&mut self, name: &str, path: &str, field: &str, layout: Layout, keeps_f32: bool) {
        self.weights.push(GgufWeight {
            name: name.to_owned(),
            source: Source::Stored {
                name: format!("{path}.{field}"),
                layout,
                keeps_f32,
            },
        });
    }

    fn norm(&mut self, name: &str, norm: &NormSpec) {
        if norm.kind == NormKind::LayerWithoutWeight {
            return;
        }
        let path = self.architecture.full_path(&norm.path);
        let layout = match norm.kind {
            NormKind::RmsPlusOne => Layout::PlusOne,
            _ => Layout::AsStored,
        };
        self.put(&format!("{name}.weight"), &path, "weight", layout, true);
        if norm.kind == NormKind::Layer {
            self.put(
                &format!("{name}.bias"),
                &path,
                "bias",
                Layout::AsStored,
                true,
            );
        }
    }

    fn linear(&mut self, name: &str, linear: &LinearSpec, layout: Layout) {
        let path = self.architecture.full_path(&linear.path);
        let of_weight = match linear.transposed {
            true => Layout::Transposed,
            false => layout,
        };
        self.put(&format!("{name}.weight"), &path, "weight", of_weight, false);
        if linear.bias {
            self.put(&format!("{name}.bias"), &path, "bias", layout, true);
        }
    }

    fn feed_forward(&mut self, block: usize, layer: &FeedForwardSpec, end: &str) {
        let name = |name: &str| format!("blk.{block}.{name}{end}");
        // Up alone without a gate, or with both in one layer.
        let inputs: &[&str] = match layer.inputs.len() {
            1 => &["ffn_up"],
            _ => &["ffn_gate", "ffn_up"],
        };
        for (of, linear) in inputs.iter().zip(&layer.inputs) {
            self.linear(&name(of), linear, Layout::AsStored);
        }
        self.linear(&name("ffn_down"), &layer.output, Layout::AsStored);
    }

    fn experts(&mut self, block: usize, layer: &FeedForwardSpec, experts: &ExpertsSpec) {
        let name = |name: &str| format!("blk.{block}.{name}.weight");
        let full = |path: &str| self.architecture.full_path(path);
        let (width, inner) = (layer.output.d_out, layer.output.d_in);
        let names: Vec<[String; 3]> = (0..experts.n_experts)
            .map(|expert| experts.stored_layers(expert).map(|name| full(&name)))
            .collect();
        let gate_up = experts.gate_up();
        let parts = [
            ("ffn_gate_exps", &gate_up, 0..inner),
            ("ffn_up_exps", &gate_up, inner..2 * inner),
            ("ffn_down_exps", &experts.down(), 0..width),
        ];
        let parts = parts.into_iter().enumerate();
        let parts = parts.map(|(place, (of, joined, rows))| GgufWeight {
            name: name(of),
            source: Source::Experts {
                each: names.iter().map(|names| names[place].clone()).collect(),
                joined: full(joined),
                rows,
            },
        });
        let router = GgufWeight {
            name: name("ffn_gate_inp"),
            source: Source::Stored {
                name: full(&experts.stored_router()),
                layout: Layout::AsStored,
                // Which experts are chosen hangs on its last digits.
                keeps_f32: true,
            },
        };
        let all: Vec<GgufWeight> = std::iter::once(router).chain(parts).collect();
        self.weights.extend(all);
        if let Some(shared) = &experts.shared {
            self.feed_forward(block, &shared.feed_forward, "_shexp");
            let gate = self.architecture.full_path(&shared.gate.path);
            let of = format!("blk.{block}.ffn_gate_inp_shexp.weight");
            self.put(&of, &gate, "weight", Layout::AsStored, true);
        }
    }

    fn block(&mut self, family: &GgufFamily, layer: usize, block: &BlockSpec) {
        let name = |name: &str| format!("blk.{layer}.{name}");
        let (attention, feed_forward) = (&block.attention, &block.feed_forward);
        // What a checkpoint has as neighbours stays so.
        let are_apart = self
            .architecture
            .rotary
            .iter()
            .all(|kind| !kind.interleaved);
        let pairs = |heads| match family.rotates_neighbours && are_apart {
            true => Layout::Pairs { heads },
            false => Layout::AsStored,
        };
        let heads = [
            pairs(attention.n_heads),
            pairs(attention.n_kv_heads),
            Layout::AsStored,
        ];
        let inputs: &[(&str, Layout)] = match attention.inputs.len() {
            1 => &[("attn_qkv", Layout::AsStored)],
            _ => &[
                ("attn_q", heads[0]),
                ("attn_k", heads[1]),
                ("attn_v", heads[2]),
            ],
        };
        for ((of, layout), linear) in inputs.iter().zip(&attention.inputs) {
            self.linear(&name(of), linear, *layout);
        }
        self.linear(&name("attn_output"), &attention.output, Layout::AsStored);
        match &feed_forward.experts {
            None => self.feed_forward(layer, feed_forward, ""),
            Some(experts) => self.experts(layer, feed_forward, experts),
        }
        let norms = [
            ("attn_norm", &block.attention_norms.before),
            ("post_attention_norm", &block.attention_norms.inside),
            ("attn_q_norm", &attention.q_norm),
            ("attn_k_norm", &attention.k_norm),
            ("ffn_norm", &block.feed_forward_norms.before),
            ("post_ffw_norm", &block.feed_forward_norms.inside),
        ];
        for (of, norm) in norms {
            if let Some(norm) = norm {
                self.norm(&name(of), norm);
            }
        }
    }
}
