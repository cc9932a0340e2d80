//! The body of a model: everything but its head.

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};
use reparam::{ForwardContext, Linear};
use reparam_ops::fused::frozen_embedding;
use reparam_ops::{RotaryTable, Segments, embedding};

use crate::ModelError;
use crate::architecture::{Architecture, BlockSpec, NormSpec, NormsSpec, RotarySpec, TableSpec};
use crate::cache::KvCache;
use crate::layers::{Attention, Block, Embedding, FeedForward, Norm, Norms, Sequences, dropped};
use crate::loader::Loader;
use crate::named::{List, Named, unnamed_module};

/// Embeddings and blocks, as an [`Architecture`] describes them.
///
/// The last norm is part of it, and is applied by a call of its own: heads may do that in one operation with theirs.
#[derive(Debug, Clone)]
pub struct Transformer {
    /// Token vectors.
    pub tokens: Named<Embedding>,
    /// Learned positions.
    pub positions: Option<Named<Embedding>>,
    /// Token types.
    pub token_types: Option<Named<Embedding>>,
    /// The norm of their sum.
    pub embedding_norm: Option<Named<Norm>>,
    /// From the width of the tables to that of the blocks.
    pub projection: Option<Named<Linear>>,
    /// The blocks.
    pub blocks: List<Block>,
    /// The norm after the last block.
    pub norm: Option<Named<Norm>>,
    /// What it is.
    pub architecture: Arc<Architecture>,
    /// Whether layers with packed weights keep their input alone and compute their activations again in the backward pass:
    /// less memory for about a third more time. Layers with ordinary weights do not look at it.
    pub recompute: bool,
}

unnamed_module!(
    Transformer,
    modules: [tokens, positions, token_types, embedding_norm, projection, blocks, norm],
    data: [architecture, recompute]
);

/// The input of a forward pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tokens<'a> {
    pub(crate) ids: &'a [u32],
    pub(crate) positions: &'a [u32],
    /// Without them all are of type 0.
    pub(crate) types: Option<&'a [u32]>,
}

impl Transformer {
    /// Fills the modules from a checkpoint; `prefix` is where the body is in the class of the whole model, empty for a class
    /// without a head.
    ///
    /// # Errors
    ///
    /// Fails when the description contradicts itself. Tensors that are missing or do not fit are reported by
    /// [`Loader::load`].
    pub(crate) fn load(
        loader: &mut Loader<'_>,
        architecture: &Arc<Architecture>,
        prefix: &str,
    ) -> Result<Self, ModelError> {
        let all = &**architecture;
        all.check()?;
        loader.enter(prefix);
        let embedding = &all.embedding;
        let table = |loader: &mut Loader<'_>, table: &Option<TableSpec>| {
            let table = table.as_ref()?;
            Some(loader.embedding(&table.path, table.rows, all.table_width()))
        };
        let transformer = Self {
            tokens: loader.embedding(&embedding.tokens, all.vocab_size, all.table_width()),
            positions: table(loader, &embedding.positions),
            token_types: table(loader, &embedding.token_types),
            embedding_norm: norm(loader, &embedding.norm),
            projection: embedding
                .projection
                .as_ref()
                .map(|spec| loader.linear(spec)),
            blocks: List(all.blocks.iter().map(|spec| block(loader, spec)).collect()),
            norm: norm(loader, &all.norm),
            architecture: architecture.clone(),
            recompute: false,
        };
        loader.enter("");
        Ok(transformer)
    }

    /// The hidden states after the last block, `[N, d]`, not normalized.
    pub(crate) fn forward(
        &self,
        tokens: Tokens<'_>,
        segments: Segments,
        cache: Option<&mut KvCache>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let h = self.embed(tokens, None, context);
        let sequences = self.sequences(tokens.positions, segments);
        self.forward_embedded(h, &sequences, cache, context)
    }

    /// [`forward`](Self::forward) from the hidden states before the first block.
    pub(crate) fn forward_embedded(
        &self,
        mut h: Tensor<2>,
        sequences: &Sequences,
        mut cache: Option<&mut KvCache>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        for (index, block) in self.blocks.iter().enumerate() {
            let cache = cache.as_mut().map(|cache| &mut cache.layers[index]);
            h = block.forward(h, sequences, cache, context);
        }
        h
    }

    /// What the blocks of a forward pass share.
    pub(crate) fn sequences(&self, positions: &[u32], segments: Segments) -> Sequences {
        let table = |rotary: &RotarySpec| {
            RotaryTable::new(positions, &rotary.inverse_frequencies, rotary.head_dim)
        };
        Sequences {
            rotary: self.architecture.rotary.iter().map(table).collect(),
            segments,
            recompute: self.recompute,
        }
    }

    /// The hidden states before the first block, of the tokens or of `vectors` in place of theirs.
    pub(crate) fn embed(
        &self,
        tokens: Tokens<'_>,
        vectors: Option<Tensor<2>>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let spec = &self.architecture.embedding;
        let offset = |table: &Option<TableSpec>| table.as_ref().map_or(0, |table| table.offset);
        let positions = rows(tokens.positions, offset(&spec.positions));
        let zeros = || vec![0; tokens.ids.len()];
        let types = tokens.types.map_or_else(zeros, <[u32]>::to_vec);
        let types = rows(&types, offset(&spec.token_types));
        let factor = spec.factor.map(|factor| factor as f32);
        let mut tables = match vectors {
            None => vec![(&self.tokens, tokens.ids, factor)],
            Some(_) => Vec::new(),
        };
        tables.extend(
            self.positions
                .iter()
                .map(|table| (table, &positions[..], None)),
        );
        tables.extend(
            self.token_types
                .iter()
                .map(|table| (table, &types[..], None)),
        );
        let vectors = vectors.map(|vectors| match factor {
            Some(factor) => vectors * factor,
            None => vectors,
        });
        let mut h = match vectors {
            None => sum_of_rows(&tables, &self.device()),
            Some(vectors) if tables.is_empty() => vectors,
            Some(vectors) => vectors + sum_of_rows(&tables, &self.device()),
        };
        if let Some(norm) = &self.embedding_norm {
            h = norm.forward(h);
        }
        let h = dropped(h, spec.dropout, self.tokens.path(), context);
        match &self.projection {
            Some(projection) => projection.forward(h, context),
            None => h,
        }
    }

    /// Applies the last norm.
    pub(crate) fn normalized(&self, h: Tensor<2>) -> Tensor<2> {
        match &self.norm {
            Some(norm) => norm.forward(h),
            None => h,
        }
    }

    pub(crate) fn device(&self) -> Device {
        self.tokens.weight.device()
    }

    pub(crate) fn dtype(&self) -> DType {
        self.tokens.weight.dtype()
    }
}

/// Adds up rows of tables, each multiplied by a factor.
fn sum_of_rows(tables: &[(&Named<Embedding>, &[u32], Option<f32>)], device: &Device) -> Tensor<2> {
    let packed = tables.iter().map(|(table, ids, factor)| {
        let numbers = table.weight.as_packed()?;
        Some((numbers, *ids, *factor))
    });
    if let Some(packed) = packed.collect::<Option<Vec<_>>>() {
        return frozen_embedding(&packed, device);
    }
    let rows = tables.iter().map(|(table, ids, factor)| {
        let table = table.weight.dense();
        let rows = embedding(table.expect("the tables of a model are of one kind"), ids);
        match factor {
            Some(factor) => rows * *factor,
            None => rows,
        }
    });
    rows.reduce(|sum, rows| sum + rows)
        .unwrap_or_else(|| unreachable!("there is the table of tokens"))
}

fn rows(numbers: &[u32], offset: usize) -> Vec<u32> {
    numbers
        .iter()
        .map(|number| number + offset as u32)
        .collect()
}

fn norm(loader: &mut Loader<'_>, spec: &Option<NormSpec>) -> Option<Named<Norm>> {
    Some(loader.norm(spec.as_ref()?))
}

fn norms(loader: &mut Loader<'_>, spec: &NormsSpec) -> Norms {
    Norms {
        before: norm(loader, &spec.before),
        inside: norm(loader, &spec.inside),
        after: norm(loader, &spec.after),
    }
}

fn block(loader: &mut Loader<'_>, spec: &BlockSpec) -> Block {
    let BlockSpec {
        attention,
        feed_forward,
        ..
    } = spec;
    Block {
        attention: Attention {
            inputs: List(loader.linears(&attention.inputs)),
            output: loader.linear(&attention.output),
            q_norm: norm(loader, &attention.q_norm),
            k_norm: norm(loader, &attention.k_norm),
            spec: attention.clone(),
        },
        feed_forward: FeedForward {
            inputs: List(loader.linears(&feed_forward.inputs)),
            output: loader.linear(&feed_forward.output),
            spec: feed_forward.clone(),
        },
        attention_norms: norms(loader, &spec.attention_norms),
        feed_forward_norms: norms(loader, &spec.feed_forward_norms),
    }
}
