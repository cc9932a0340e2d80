//! What a model is made of: the description that a family makes and blocks read.
//!
//! Paths are those of the modules in transformers, inside of the body's class (`layers.0.self_attn.q_proj`); in a class with
//! a head they stand behind [`Architecture::prefix`].

mod experts;
mod heads;
mod recurrent;
mod relative;
mod rotary;
mod seq2seq;
mod state_space;
mod stored;

use reparam_formats::config::SpecialTokens;
use reparam_ops::Activation;

pub use self::experts::{ExpertPart, ExpertsSpec, SharedExpertSpec};
pub use self::heads::{
    HeadActivation, HeadsSpec, MaskedSpec, Pooling, PredictorSpec, TransformSpec,
};
pub use self::recurrent::{
    DirectionSpec, GlobalAttentionSpec, RecurrentCrossSpec, RecurrentSpec, ScoreSpec, StartSpec,
};
pub use self::relative::{
    PositionLayer, PositionsSpec, RelativeBiasSpec, RelativeSpec, RelativeVectorsSpec,
};
pub use self::rotary::{RotarySpec, StretchSpec};
pub use self::seq2seq::{CrossSpec, Seq2SeqSpec};
pub use self::state_space::{MixerSpec, StateSpaceSpec, StepsSpec};
use crate::ModelError;

/// A whole model.
///
/// ```text
/// h      = norm(factor * tokens[id] + positions[position] + types[type])
/// h      = recurrent layers(h)
/// h      = state-space layers(h)
/// h      = block(h)                          for each block
/// logits = head(norm(h))
/// ```
///
/// What a model does not have is left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// `model_type` in `config.json`.
    pub model_type: String,
    /// The width of the hidden states.
    pub width: usize,
    /// The number of token ids.
    pub vocab_size: usize,
    /// The longest sequence that the model was made for, in tokens.
    pub max_positions: usize,
    /// The tokens that begin, end and fill up documents.
    pub special: SpecialTokens,
    /// Where the body is in a class with a head, such as `model`; empty if it has no name of its own there.
    pub prefix: String,
    /// What comes before the blocks.
    pub embedding: EmbeddingSpec,
    /// Recurrent layers.
    pub recurrent: Option<RecurrentSpec>,
    /// State-space layers.
    pub state_space: Option<StateSpaceSpec>,
    /// The kinds of rotary positions that attention layers choose from.
    pub rotary: Vec<RotarySpec>,
    /// What scores are made of by distance.
    pub relative: Option<RelativeSpec>,
    /// What an encoder-decoder has besides; the rest is then its decoder.
    pub seq2seq: Option<Box<Seq2SeqSpec>>,
    /// The blocks.
    pub blocks: Vec<BlockSpec>,
    /// The norm after the last block.
    pub norm: Option<NormSpec>,
    /// The output head of a causal language model.
    pub head: HeadSpec,
    /// The heads of other tasks.
    pub heads: HeadsSpec,
    /// How the names of tensors end that checkpoints may hold and the model does not need: buffers.
    pub buffers: Vec<&'static str>,
    /// The keys of `config.json` that give layers their biases, with a part of the layers' paths.
    pub bias_keys: Vec<(&'static str, &'static str)>,
    /// What the numbers of a new model are drawn from.
    pub init: Initialization,
}

/// What the numbers of a new model are drawn from. Norms start at 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Initialization {
    /// As in transformers: weights and tables are normal with mean 0 and this standard deviation, biases 0.
    Normal(f64),
    /// As in torch: tables are normal with mean 0 and standard deviation 1, weights and biases of linear layers uniform in
    /// `+-1/sqrt(d_in)`, of recurrent layers in `+-1/sqrt(hidden)`.
    Torch,
}

/// The vectors of tokens and what is added to them.
///
/// All are as wide as the hidden states, unless a projection makes them so.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingSpec {
    /// The path of the table of token vectors, `[vocab_size, width]`.
    pub tokens: String,
    /// What token vectors are multiplied by.
    pub factor: Option<f64>,
    /// The table of learned positions.
    pub positions: Option<TableSpec>,
    /// The table of positions that are not learned: sines, then cosines, computed where a checkpoint has none.
    pub sinusoids: Option<TableSpec>,
    /// The table of token types.
    pub token_types: Option<TableSpec>,
    /// From the width of the table of token vectors to that of what is added to them.
    pub token_projection: Option<LinearSpec>,
    /// The norm of the sum, or of what the projection makes of it if that is how wide it is.
    pub norm: Option<NormSpec>,
    /// The probability of the dropout after the norm; `None` if the family has none there.
    pub dropout: Option<f64>,
    /// From the width of the tables to that of the hidden states: before the norm if that is as wide as those, else after the dropout.
    pub projection: Option<LinearSpec>,
}

/// A table of vectors besides that of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSpec {
    /// The path.
    pub path: String,
    /// The number of rows.
    pub rows: usize,
    /// The row of number 0.
    pub offset: usize,
}

/// A norm over vectors of `width` elements.
#[derive(Debug, Clone, PartialEq)]
pub struct NormSpec {
    /// The path.
    pub path: String,
    /// What it computes.
    pub kind: NormKind,
    /// The number of elements that are normalized together.
    pub width: usize,
    /// What is added to the mean square.
    pub eps: f64,
}

/// What a norm computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// `x / rms(x) * w`
    Rms,
    /// `x / rms(x) * (1 + w)`
    RmsPlusOne,
    /// `(x - mean(x)) / std(x) * w + b`
    Layer,
    /// `(x - mean(x)) / std(x) * w`
    LayerWithoutBias,
    /// `(x - mean(x)) / std(x)`
    LayerWithoutWeight,
}

/// A linear layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearSpec {
    /// The path.
    pub path: String,
    /// The width of the input.
    pub d_in: usize,
    /// The width of the output.
    pub d_out: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// Whether the checkpoint stores the weight as `[d_in, d_out]`. In memory it is `[d_out, d_in]` all the same.
    pub transposed: bool,
    /// How the checkpoint calls weight and bias, where that is not `path.weight` and `path.bias`.
    pub stored: Option<[String; 2]>,
    /// The standard deviation of the weight of a new layer, where that is not [`Architecture::init`]'s.
    pub std: Option<f64>,
}

impl LinearSpec {
    /// Has the weight of a new layer drawn with a standard deviation of its own.
    #[must_use]
    pub fn with_std(self, std: f64) -> Self {
        let std = Some(std);
        Self { std, ..self }
    }

    /// Returns a layer without a bias that is stored as `[d_out, d_in]`.
    pub fn new(path: impl Into<String>, d_in: usize, d_out: usize) -> Self {
        Self {
            path: path.into(),
            d_in,
            d_out,
            bias: false,
            transposed: false,
            stored: None,
            std: None,
        }
    }
}

/// A block: attention, in a decoder with a source attention to that, then a feed-forward layer.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockSpec {
    /// Attention.
    pub attention: AttentionSpec,
    /// The norms around it.
    pub attention_norms: NormsSpec,
    /// Attention to the source of an encoder-decoder.
    pub cross: Option<CrossSpec>,
    /// The feed-forward layer.
    pub feed_forward: FeedForwardSpec,
    /// The norms around it.
    pub feed_forward_norms: NormsSpec,
    /// Whether the feed-forward layer reads what attention reads, the input of the block, in place of what attention makes of it:
    ///
    /// ```text
    /// h' = h + attention(before(h)) + feed_forward(before'(h))
    /// ```
    ///
    /// `before'` is attention's `before` where the feed-forward layer has no norm of its own.
    pub parallel: bool,
}

impl BlockSpec {
    /// Puts both halves side by side, behind the norm of attention.
    pub fn share_norm(&mut self) {
        self.feed_forward_norms.before = None;
        self.parallel = true;
    }

    fn check_parallel(&self) -> Option<String> {
        if !self.parallel {
            return None;
        }
        let norms = [&self.attention_norms, &self.feed_forward_norms];
        let is_plain = self.cross.is_none() && norms.iter().all(|norms| norms.after.is_none());
        let reason = "parallel halves have no norm after their sum, and read no source";
        (!is_plain).then(|| reason.to_owned())
    }
}

/// Where the norms of half a block `f` are, and what it is multiplied by:
///
/// ```text
/// h' = after(h + factor * inside(f(before(h))))
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NormsSpec {
    /// On the input.
    pub before: Option<NormSpec>,
    /// On the output, before it is added.
    pub inside: Option<NormSpec>,
    /// On the sum.
    pub after: Option<NormSpec>,
    /// What is added is multiplied by this.
    pub factor: Option<f64>,
}

/// Self-attention.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    /// Queries, keys and values: three layers, or one whose output holds them side by side.
    pub inputs: Vec<LinearSpec>,
    /// Whether the output of that one layer holds the heads in groups: for each key head its queries, its key and its value.
    pub grouped: bool,
    /// Back to the hidden states.
    pub output: LinearSpec,
    /// The norm of each head of the queries, or of all of them if it is as wide.
    pub q_norm: Option<NormSpec>,
    /// The norm of each head of the keys, or of all of them if it is as wide.
    pub k_norm: Option<NormSpec>,
    /// Which weights these norms have.
    pub norm_weights: HeadWeights,
    /// Queries, keys and values are kept within this of 0, before any norm.
    pub clip: Option<f64>,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// What scores are multiplied by.
    pub scale: f64,
    /// Whether a token sees only itself and what is before it.
    pub causal: bool,
    /// How many keys a query sees at most: with `causal` itself and those before it, else those less than this away.
    pub window: Option<usize>,
    /// Scores become `cap * tanh(score / cap)`.
    pub soft_cap: Option<f64>,
    /// Which of [`Architecture::rotary`] turns queries and keys.
    pub rotary: Option<usize>,
    /// What it makes of the vectors of distances, [`RelativeSpec::Vectors`].
    pub positions: Option<PositionsSpec>,
    /// The probability of the dropout of the weights that values are summed with; `None` if the family has none there.
    pub dropout: Option<f64>,
    /// The probability of the dropout of the output, before anything else is done with it; `None` if the family has none there.
    pub output_dropout: Option<f64>,
}

/// Which weights the norms of heads have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeadWeights {
    /// The same for all heads, or, of a norm that is as wide as all of them, of its own for each element.
    #[default]
    Shared,
    /// Of its own for each head, as rows of one matrix, `[heads, head_dim]`.
    Rows,
    /// Of its own for each head, whose vector is that of a norm at `path.norms.HEAD`.
    Apart,
}

impl AttentionSpec {
    /// Returns whether the fused operation has all that it does, but for dropout and what scores are made of by distance.
    pub(crate) fn fuses(&self) -> bool {
        self.positions.is_none() && self.clip.is_none() && self.norm_weights == HeadWeights::Shared
    }

    /// Returns the widths of queries, keys and values.
    pub fn widths(&self) -> [usize; 3] {
        let kv = self.n_kv_heads * self.head_dim;
        [self.n_heads * self.head_dim, kv, kv]
    }

    /// What is dropped out of it in training: weights, and the output.
    pub(crate) fn dropouts(&self) -> [Option<f64>; 2] {
        [self.dropout, self.output_dropout]
    }

    fn check_widths(&self) -> Option<String> {
        let widths = self.widths();
        let found: Vec<usize> = self.inputs.iter().map(|linear| linear.d_out).collect();
        let is_joined = found == [widths.iter().sum::<usize>()];
        let fits = found == widths || is_joined;
        if self.grouped && !is_joined {
            return Some("heads in groups are those of one layer".to_owned());
        }
        (!fits).then(|| {
            format!("queries, keys and values have the widths {widths:?}, their layers {found:?}")
        })
    }

    fn check_norms(&self) -> Option<String> {
        if self.norm_weights == HeadWeights::Shared {
            return None;
        }
        let fits = |norm: &NormSpec| {
            norm.width == self.head_dim
                && matches!(norm.kind, NormKind::Rms | NormKind::LayerWithoutBias)
        };
        let mut norms = self.q_norm.iter().chain(&self.k_norm);
        let reason = "norms with weights for each head are as wide as one, and have no bias";
        (!norms.all(fits)).then(|| reason.to_owned())
    }

    fn check_positions(&self, relative: Option<&RelativeSpec>) -> Option<String> {
        let positions = self.positions.as_ref()?;
        if !matches!(relative, Some(RelativeSpec::Vectors(_))) {
            return Some("its positions have no vectors".to_owned());
        }
        let is_plain = self.inputs.len() == 3
            && self.n_kv_heads == self.n_heads
            && self.rotary.is_none()
            && self.q_norm.is_none()
            && self.k_norm.is_none()
            && self.clip.is_none();
        if !is_plain {
            let reason = "attention with positions has three inputs, a key head for each query head, and neither norms, clipping nor rotary positions";
            return Some(reason.to_owned());
        }
        let width = self.n_heads * self.head_dim;
        let mut layers = positions.layers().into_iter().flatten();
        let other = layers.find(|layer| layer.d_out != width)?;
        Some(format!(
            "keys have the width {width}, those of positions {}",
            other.d_out
        ))
    }

    fn check_heads(&self, rotary: &[RotarySpec]) -> Option<String> {
        if self.n_kv_heads == 0
            || self.n_heads == 0
            || !self.n_heads.is_multiple_of(self.n_kv_heads)
        {
            return Some("its key heads do not divide its query heads".to_owned());
        }
        let fits = |rotary: &RotarySpec| {
            let turned = 2 * rotary.inverse_frequencies.len();
            rotary.head_dim == self.head_dim
                && (1..=rotary.head_dim).contains(&turned)
                && rotary.stretch_fits()
        };
        let fits = self
            .rotary
            .is_none_or(|index| rotary.get(index).is_some_and(fits));
        (!fits).then(|| "its rotary positions do not fit its heads".to_owned())
    }
}

/// A feed-forward layer: `down(act(gate(x)) * up(x))` if it is gated, else `down(act(up(x)))`.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedForwardSpec {
    /// Gate and up: two layers, or one whose output holds them side by side; up alone without a gate.
    pub inputs: Vec<LinearSpec>,
    /// Whether there is a gate.
    pub gated: bool,
    /// Back to the hidden states.
    pub output: LinearSpec,
    /// The activation function.
    pub activation: Activation,
    /// The experts, each of which is what the rest says, if it is several layers that tokens choose from.
    pub experts: Option<ExpertsSpec>,
    /// The probability of the dropout before the last layer; `None` if the family has none there.
    pub inner_dropout: Option<f64>,
    /// The probability of the dropout of the output, before anything else is done with it; `None` if the family has none there.
    pub output_dropout: Option<f64>,
}

impl FeedForwardSpec {
    /// What is dropped out of it in training: before the last layer, and behind it.
    pub(crate) fn dropouts(&self) -> [Option<f64>; 2] {
        [self.inner_dropout, self.output_dropout]
    }

    fn check_experts(&self) -> Option<String> {
        self.experts.as_ref()?.check(self)
    }

    fn check_widths(&self) -> Option<String> {
        let inner = self.output.d_in;
        let found: Vec<usize> = self.inputs.iter().map(|linear| linear.d_out).collect();
        let fits = match self.gated {
            true => found == [inner; 2] || found == [2 * inner],
            false => found == [inner],
        };
        (!fits)
            .then(|| format!("the feed-forward layer has the width {inner}, its inputs {found:?}"))
    }
}

/// The output head of a causal language model.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadSpec {
    /// The path, in the class with the head.
    pub path: String,
    /// Whether its weight is the table of token vectors.
    pub tied: bool,
    /// Whether it has a bias; one that is tied has none.
    pub bias: bool,
    /// From the width of the hidden states to that of its input; the path is one of the body.
    pub projection: Option<LinearSpec>,
    /// What hidden states, and so logits, are multiplied by.
    pub factor: Option<f64>,
    /// Logits become `cap * tanh(logit / cap)`.
    pub soft_cap: Option<f64>,
}

impl HeadSpec {
    /// Returns a head at a path.
    pub fn new(path: impl Into<String>, tied: bool) -> Self {
        Self {
            path: path.into(),
            tied,
            bias: false,
            projection: None,
            factor: None,
            soft_cap: None,
        }
    }
}

impl Architecture {
    /// Returns whether anything is dropped out in training.
    pub fn has_dropout(&self) -> bool {
        let mut all = self.clone();
        all.dropouts().into_iter().any(|p| *p > 0.0)
    }

    /// Sets the probability, in 0..1, of the dropout at each place where the family has one; 0 turns it off.
    ///
    /// # Errors
    ///
    /// [`ModelError::NoDropout`] if there is no such place.
    pub fn set_dropout(&mut self, probability: f64) -> Result<(), ModelError> {
        let mut is_somewhere = false;
        for p in self.dropouts() {
            *p = probability;
            is_somewhere = true;
        }
        if is_somewhere {
            return Ok(());
        }
        Err(ModelError::NoDropout {
            model_type: self.model_type.clone(),
        })
    }

    fn dropouts(&mut self) -> Vec<&mut f64> {
        let blocks = self.blocks.iter_mut();
        let blocks = blocks.flat_map(|block| {
            let cross = block.cross.iter_mut().map(|cross| &mut cross.attention);
            let attention = std::iter::once(&mut block.attention).chain(cross);
            let attention = attention.flat_map(|of| {
                let positions = of.positions.iter_mut().map(|of| &mut of.dropout);
                [&mut of.dropout, &mut of.output_dropout]
                    .into_iter()
                    .chain(positions)
            });
            let FeedForwardSpec {
                inner_dropout,
                output_dropout,
                ..
            } = &mut block.feed_forward;
            attention.chain([inner_dropout, output_dropout])
        });
        let seq2seq = self.seq2seq.iter_mut();
        let seq2seq = seq2seq.flat_map(|spec| {
            let encoder = spec.encoder.dropouts().into_iter();
            encoder.chain(&mut spec.output_dropout)
        });
        let embedding = std::iter::once(&mut self.embedding.dropout);
        let recurrent = self.recurrent.iter_mut().map(|spec| &mut spec.dropout);
        let all = embedding
            .chain(recurrent)
            .chain(blocks)
            .chain(self.heads.dropouts());
        all.flatten().chain(seq2seq).collect()
    }

    /// Checks that the parts fit together, which blocks rely on.
    ///
    /// # Errors
    ///
    /// [`ModelError::Description`].
    pub fn check(&self) -> Result<(), ModelError> {
        let refuse = |block: usize, reason: String| {
            Err(ModelError::Description {
                model_type: self.model_type.clone(),
                block,
                reason,
            })
        };
        if let Some(reason) = self
            .recurrent
            .as_ref()
            .and_then(|spec| spec.check(self.width))
        {
            return refuse(0, reason);
        }
        let state_space = self.state_space.as_ref();
        if let Some(reason) = state_space.and_then(|spec| spec.check(self.width)) {
            return refuse(0, reason);
        }
        if state_space.is_some() && self.seq2seq.is_some() {
            return refuse(0, "state-space layers read no source".to_owned());
        }
        if self.blocks.is_empty() && self.recurrent.is_none() && state_space.is_none() {
            return refuse(0, "there is none".to_owned());
        }
        if self.head.tied && self.head.bias {
            return refuse(
                0,
                "a head that is the table of tokens has no bias".to_owned(),
            );
        }
        if let Some(reason) = self.check_projections() {
            return refuse(0, reason);
        }
        for (index, block) in self.blocks.iter().enumerate() {
            let cross = block.cross.as_ref();
            let checks = [
                block.attention.check_widths(),
                block.attention.check_heads(&self.rotary),
                block.attention.check_norms(),
                block.attention.check_positions(self.relative.as_ref()),
                cross.and_then(|cross| cross.attention.check_widths()),
                cross.and_then(|cross| cross.attention.check_heads(&self.rotary)),
                cross.and_then(CrossSpec::check),
                block.feed_forward.check_widths(),
                block.feed_forward.check_experts(),
                block.check_parallel(),
            ];
            if let Some(reason) = checks.into_iter().flatten().next() {
                return refuse(index, reason);
            }
            if block.cross.is_some() != self.seq2seq.is_some() {
                return refuse(
                    index,
                    "a source is read by all blocks or by none".to_owned(),
                );
            }
            let heads = |block: &BlockSpec| block.attention.n_heads;
            if self.relative.is_some() && heads(block) != heads(&self.blocks[0]) {
                return refuse(index, "heads that share a bias are as many".to_owned());
            }
        }
        if let Some(reason) = self.relative.as_ref().and_then(RelativeSpec::check) {
            return refuse(0, reason);
        }
        let Some(spec) = &self.seq2seq else {
            return match self.recurrent.as_ref().and_then(|of| of.cross.as_ref()) {
                Some(_) => refuse(0, "there is no source to read".to_owned()),
                None => Ok(()),
            };
        };
        if let Some(reason) = self.check_source(spec) {
            return refuse(0, reason);
        }
        spec.encoder.check()
    }

    /// Checks what stands between the table of token vectors and the hidden states, and between these and the head.
    fn check_projections(&self) -> Option<String> {
        let EmbeddingSpec {
            token_projection,
            projection,
            ..
        } = &self.embedding;
        let width = self.width;
        let reaches = |linear: &LinearSpec| linear.d_out == width;
        let fits = match (token_projection, projection) {
            (Some(_), Some(_)) => false,
            (tokens, all) => tokens.iter().chain(all).all(reaches),
        };
        let begins = |linear: &LinearSpec| linear.d_in == width;
        let head = &self.head;
        let is_narrow = token_projection.is_some() || head.projection.is_some();
        let ends = !(is_narrow && head.tied) || self.head_width() == self.table_width();
        let fits = fits && ends && head.projection.iter().all(begins);
        (!fits).then(|| format!("its projections do not fit hidden states of {width} numbers"))
    }

    /// Checks what the stack of a decoder takes from its encoder.
    fn check_source(&self, spec: &Seq2SeqSpec) -> Option<String> {
        let (start, vocab_size) = (spec.decoder_start, self.vocab_size);
        if start as usize >= vocab_size {
            return Some(format!(
                "targets begin with the token {start} of {vocab_size}"
            ));
        }
        if spec.encoder.table_width() != self.table_width() {
            return Some("encoder and decoder have one table of token vectors".to_owned());
        }
        let recurrent = self.recurrent.as_ref()?;
        match (&recurrent.cross, &spec.encoder.recurrent) {
            (Some(cross), Some(encoder)) => cross.check(recurrent, encoder),
            _ => Some("recurrent layers of a decoder read those of an encoder".to_owned()),
        }
    }

    /// Returns whether any half of a block runs as one operation in training where weights are packed: one without dropout of its
    /// own, and attention without scores by distance.
    pub fn fuses_in_training(&self) -> bool {
        let mut blocks = self.blocks.iter();
        let fuses = blocks.any(|block| self.fused_halves(block).contains(&true));
        let mut encoder = self.seq2seq.iter();
        fuses || encoder.any(|spec| spec.encoder.fuses_in_training())
    }

    /// Returns whether attention and the feed-forward layer of one of its blocks are one operation each in training where weights are
    /// packed. Attention to a source never is.
    pub fn fused_halves(&self, block: &BlockSpec) -> [bool; 2] {
        let is_off = |p: Option<f64>| p.is_none_or(|p| p == 0.0);
        let BlockSpec {
            attention,
            feed_forward,
            ..
        } = block;
        let attends = self.relative.is_none() && attention.fuses();
        [
            attends && attention.dropouts().into_iter().all(is_off),
            feed_forward.experts.is_none() && feed_forward.dropouts().into_iter().all(is_off),
        ]
    }

    /// Returns whether no token sees what comes after it; those of a source do.
    pub fn is_causal(&self) -> bool {
        let recurrent = self.recurrent.as_ref();
        self.seq2seq.is_none()
            && !recurrent.is_some_and(RecurrentSpec::is_bidirectional)
            && self.blocks.iter().all(|block| block.attention.causal)
    }

    /// Returns the number of recurrent layers, state-space layers and blocks, of an encoder-decoder those of the decoder.
    pub fn n_layers(&self) -> usize {
        let recurrent = self.recurrent.as_ref();
        let state_space = self.state_space.as_ref();
        recurrent.map_or(0, |spec| spec.layers.len())
            + state_space.map_or(0, |spec| spec.layers.len())
            + self.blocks.len()
    }

    /// Returns whether all that a token knows of those before it is the state of recurrent layers, which a later piece of the text can
    /// begin with.
    pub fn has_state(&self) -> bool {
        self.recurrent.is_some() && self.state_space.is_none() && self.blocks.is_empty()
    }

    /// Returns the width of the table of token vectors.
    pub fn table_width(&self) -> usize {
        match &self.embedding.token_projection {
            Some(projection) => projection.d_in,
            None => self.added_width(),
        }
    }

    /// Returns the width of what the embedding adds up.
    pub(crate) fn added_width(&self) -> usize {
        match (&self.embedding.projection, &self.recurrent) {
            (Some(projection), _) => projection.d_in,
            (None, Some(recurrent)) => recurrent.d_in(),
            (None, None) => self.width,
        }
    }

    /// Returns the width of what the output head reads.
    pub(crate) fn head_width(&self) -> usize {
        let projection = self.head.projection.as_ref();
        projection.map_or(self.width, |projection| projection.d_out)
    }

    /// Returns the names of the weight of the output head and of the table of token vectors.
    pub fn head_names(&self) -> (String, String) {
        let weight = |path: &str| format!("{path}.weight");
        (
            weight(&self.head.path),
            weight(&self.full_path(&self.embedding.tokens)),
        )
    }

    /// Returns how many tokens a sequence may have at most, if positions are those of a table.
    pub fn max_tokens(&self) -> Option<usize> {
        let EmbeddingSpec {
            positions,
            sinusoids,
            ..
        } = &self.embedding;
        let table = positions.as_ref().or(sinusoids.as_ref())?;
        Some(table.rows - table.offset)
    }

    /// Returns the linear layers of recurrent layers, state-space layers and blocks, in order, those of an encoder first, and those between the table of
    /// token vectors and them, and them and the head. Routers and experts are none.
    pub fn linears(&self) -> Box<dyn Iterator<Item = &LinearSpec> + '_> {
        let encoder = self.seq2seq.iter().flat_map(|spec| spec.encoder.linears());
        let recurrent = self.recurrent.iter().flat_map(RecurrentSpec::linears);
        let blocks = self.blocks.iter().flat_map(|block| {
            let BlockSpec {
                attention,
                cross,
                feed_forward,
                ..
            } = block;
            let cross = cross.iter().map(|cross| &cross.attention);
            let attention = std::iter::once(attention).chain(cross);
            let attention = attention.flat_map(|of| {
                let positions = of.positions.iter().flat_map(PositionsSpec::layers);
                let all = of.inputs.iter().chain(positions.flatten());
                all.chain([&of.output])
            });
            let shared = feed_forward.experts.as_ref().map(|of| of.shared.as_ref());
            let (layer, gate) = match shared {
                None => (Some(feed_forward), None),
                Some(None) => (None, None),
                Some(Some(shared)) => (Some(&shared.feed_forward), Some(&shared.gate)),
            };
            let layers = layer
                .into_iter()
                .flat_map(|of| of.inputs.iter().chain([&of.output]));
            attention.chain(layers).chain(gate)
        });
        let projections = [&self.embedding.token_projection, &self.head.projection];
        let projections = projections.into_iter().flatten();
        let state_space = self.state_space.iter().flat_map(StateSpaceSpec::linears);
        let layers = encoder.chain(recurrent).chain(state_space).chain(blocks);
        Box::new(layers.chain(projections))
    }

    /// Returns the paths of the linear layers that no adapter of PEFT can be of, and so none of ours is.
    pub fn untargeted(&self) -> Vec<String> {
        let state_space = self.state_space.iter();
        let layers = state_space.flat_map(StateSpaceSpec::read_past_adapters);
        let layers = layers.chain(self.beside_experts());
        layers.map(|linear| self.full_path(&linear.path)).collect()
    }

    /// Returns the path of a module of the body in the class that the prefix is of.
    pub fn full_path(&self, path: &str) -> String {
        match self.prefix.is_empty() {
            true => path.to_owned(),
            false => format!("{}.{path}", self.prefix),
        }
    }
}
