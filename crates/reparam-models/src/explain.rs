//! Models as functions of the vectors of their tokens, and what their attention looks at: what explanations are made of.

use burn::tensor::Tensor;
use reparam::ForwardContext;
use reparam_ops::{embedding, segments_from_bounds};

use crate::causal_lm::{CausalLm, TokenBatch};
use crate::precision::widened;
use crate::predictor::{Predictor, RowTokens, select};
use crate::transformer::{Tokens, Transformer};

impl Transformer {
    /// The rows of the table of tokens, `[N, d]`; `None` if it is packed.
    fn vectors(&self, ids: &[u32]) -> Option<Tensor<2>> {
        let table = self.tokens.weight.dense().ok()?;
        Some(embedding(table, ids))
    }

    /// The hidden states after the last block, not normalized, of given vectors of tokens.
    fn hidden_of(
        &self,
        vectors: Tensor<2>,
        tokens: Tokens<'_>,
        bounds: &[usize],
        context: &ForwardContext,
    ) -> Tensor<2> {
        let h = self.embed(tokens, Some(vectors), context);
        let sequences = self.sequences(tokens.positions, segments_from_bounds(bounds), None);
        self.run(h, (tokens.positions, &sequences), None, context)
    }

    /// How much each token of one sequence looks at each in every block, `[heads, N, N]`; `None` if layers do not attend.
    fn attention_weights(
        &self,
        tokens: Tokens<'_>,
        context: &ForwardContext,
    ) -> Option<Vec<Tensor<3>>> {
        if self.recurrent.is_some() || self.state_space.is_some() {
            return None;
        }
        let bounds = [0, tokens.ids.len()];
        let sequences = self.sequences(tokens.positions, segments_from_bounds(&bounds), None);
        let mut h = self.embed(tokens, None, context);
        let mut all = Vec::with_capacity(self.blocks.len());
        for block in self.blocks.iter() {
            all.push(block.attention_weights(&h, &sequences, context)?);
            h = block.forward(h, &sequences, None, context);
        }
        Some(all)
    }
}

impl Predictor {
    /// Returns the vectors of tokens before any factor, position or norm, `[N, d]`; `None` if their table is packed.
    pub fn token_vectors(&self, ids: &[u32]) -> Option<Tensor<2>> {
        self.body.vectors(ids)
    }

    /// Returns the [outputs](Self::outputs) of rows whose tokens have these vectors, whatever their ids are.
    ///
    /// # Shapes
    ///
    /// - vectors: `[N, d]`, as [`token_vectors`](Self::token_vectors) gives them
    pub fn outputs_of_vectors(
        &self,
        vectors: Tensor<2>,
        rows: RowTokens<'_>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let h = self
            .body
            .hidden_of(vectors, rows.tokens(), rows.bounds, context);
        self.outputs_of(widened(self.body.normalized(h)), rows.bounds, context)
    }

    /// Returns how much each token of one row looks at each in every block, `[heads, N, N]`, where all that one looks at is one;
    /// `None` if layers do not attend.
    pub fn attention_weights(
        &self,
        row: RowTokens<'_>,
        context: &ForwardContext,
    ) -> Option<Vec<Tensor<3>>> {
        self.body.attention_weights(row.tokens(), context)
    }
}

impl CausalLm {
    /// Returns the vectors of tokens before any factor, position or norm, `[N, d]`; `None` if their table is packed.
    pub fn token_vectors(&self, ids: &[u32]) -> Option<Tensor<2>> {
        self.body.vectors(ids)
    }

    /// Returns the [logits](Self::logits) of the last token of each sequence, `[R, vocab]`, where tokens have these vectors,
    /// whatever their ids are.
    ///
    /// # Shapes
    ///
    /// - vectors: `[N, d]`, as [`token_vectors`](Self::token_vectors) gives them
    pub fn last_logits_of_vectors(
        &self,
        vectors: Tensor<2>,
        batch: TokenBatch<'_>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let h = self
            .body
            .hidden_of(vectors, batch.tokens(), batch.bounds, context);
        let lasts = batch.bounds[1..].iter().map(|end| end - 1);
        self.logits_of(select(h, lasts), context)
    }

    /// Returns how much each token of one sequence looks at each in every block, `[heads, N, N]`, where all that one looks at is
    /// one; `None` if layers do not attend.
    pub fn attention_weights(
        &self,
        sequence: TokenBatch<'_>,
        context: &ForwardContext,
    ) -> Option<Vec<Tensor<3>>> {
        self.body.attention_weights(sequence.tokens(), context)
    }
}
