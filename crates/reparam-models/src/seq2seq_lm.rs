//! An encoder-decoder with the output head of a language model.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use reparam::methods::planned;
use reparam::parameters::{self, NamedTensor, ParameterList};
use reparam::{ForwardContext, Linear, OutputHead};
use reparam_formats::checkpoint::Checkpoint;
use reparam_ops::{
    IGNORE_INDEX, LinearPlan, Segment, Segments, linear, segments_from_bounds,
    smoothed_linear_cross_entropy,
};

use crate::architecture::{Architecture, LinearSpec, Seq2SeqSpec};
use crate::cache::{KvCache, LayerCache, TensorCache};
use crate::layers::{Embedding, Source, dropped};
use crate::loader::Loader;
use crate::named::{Named, unnamed_module};
use crate::precision::widened;
use crate::transformer::{Sight, Stack, Tokens};
use crate::{ModelError, Precision, TokenBatch};

/// A model that writes a target for a source, as a [`Seq2SeqSpec`] says.
#[derive(Debug, Clone)]
pub struct Seq2SeqLm {
    /// Token vectors, of the source and of the target.
    pub tokens: Named<Embedding>,
    /// What reads the source.
    pub encoder: Stack,
    /// What writes the target.
    pub decoder: Stack,
    /// The output head; `None` if it is the table of token vectors.
    pub head: Option<Named<OutputHead<Linear>>>,
    /// What is added to the logits, if the checkpoint had it and it is not zero.
    logits_bias: Option<Arc<[f32]>>,
    spec: Arc<Seq2SeqSpec>,
}

unnamed_module!(
    Seq2SeqLm,
    modules: [tokens, encoder, decoder, head],
    data: [logits_bias, spec]
);

impl Seq2SeqLm {
    /// Loads a model onto a device, frozen.
    ///
    /// The table of token vectors may have any of the names that transformers knows it by. A head with other numbers is used, as
    /// in [`CausalLm::load`](crate::CausalLm::load). The table and the head are `f32` in every precision.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotSeq2Seq`] for a model without an encoder, and [`ModelError::OwnTable`] if a stack has another table; fails
    /// when the checkpoint's tensors are not exactly those of the description, or one of them holds NaN or infinity.
    pub fn load(
        checkpoint: &Checkpoint,
        mut architecture: Architecture,
        (device, precision): (&Device, Precision),
    ) -> Result<Self, ModelError> {
        let Some(spec) = architecture.seq2seq.as_deref().cloned() else {
            let model_type = architecture.model_type;
            return Err(ModelError::NotSeq2Seq { model_type });
        };
        architecture.check()?;
        let mut loader = Loader::new(checkpoint, device, precision, &architecture.prefix);
        let copies = find_table(&mut loader, &mut architecture, &spec)?;
        let (architecture, spec) = (Arc::new(architecture), Arc::new(spec));
        let ignored = |name: &str| {
            let mut buffers = architecture.buffers.iter();
            buffers.any(|end| name.ends_with(end)) || copies.iter().any(|copy| copy == name)
        };
        let model = loader.load(&architecture.bias_keys, ignored, |loader| {
            Ok(Self::build(loader, &architecture, &spec))
        })?;
        Ok(model.no_grad())
    }

    /// Asks a loader for the parts.
    pub(crate) fn build(
        loader: &mut Loader<'_>,
        architecture: &Arc<Architecture>,
        spec: &Arc<Seq2SeqSpec>,
    ) -> Self {
        let vocab_size = architecture.vocab_size;
        let (width, table) = (architecture.table_width(), &architecture.embedding.tokens);
        loader.enter(&architecture.prefix);
        loader.begin_as(architecture.init, None);
        let tokens = loader.dense(|loader| loader.embedding(table, vocab_size, width));
        let encoder = Stack::load(loader, &Arc::new(spec.encoder.clone()));
        let decoder = Stack::load(loader, architecture);
        loader.enter("");
        let head = &architecture.head;
        let own = LinearSpec::new(&head.path, architecture.width, vocab_size);
        let logits_bias = spec
            .logits_bias
            .and_then(|name| loader.optional_values(name, &[1, vocab_size]))
            // Added, it costs a copy of the head.
            .filter(|bias| bias.iter().any(|x| *x != 0.0));
        Self {
            tokens,
            encoder,
            decoder,
            head: (!head.tied).then(|| loader.dense(|loader| loader.head(&own))),
            logits_bias: logits_bias.map(Into::into),
            spec: spec.clone(),
        }
    }

    /// Returns the names of the head's weight and of the table of token vectors, if they are one.
    pub fn tied_names(&self) -> Option<(String, String)> {
        let is_tied = self.head.is_none();
        is_tied.then(|| self.architecture().head_names())
    }

    /// Gives a model whose head is the table of token vectors a head of its own with the same numbers, so that a method can be
    /// attached to the one without the other.
    ///
    /// # Cost
    ///
    /// None until one of the two is changed: they share their memory.
    #[must_use]
    pub fn with_own_head(self) -> Self {
        if self.head.is_some() {
            return self;
        }
        let path = self.architecture().head.path.clone();
        let weight = self.tokens.weight.with_own_id();
        let head = Named::new(path, OutputHead(Linear { weight, bias: None }));
        Self {
            head: Some(head),
            ..self
        }
    }

    /// Returns what the decoder is made of, and with it the model.
    pub fn architecture(&self) -> &Architecture {
        &self.decoder.architecture
    }

    /// Returns what the model has besides its decoder.
    pub fn spec(&self) -> &Seq2SeqSpec {
        &self.spec
    }

    /// Returns the class of transformers.
    pub fn class(&self) -> &'static str {
        self.spec.class
    }

    /// Returns the effective weights under the names of transformers.
    pub fn to_tensors(&self) -> ParameterList {
        let mut tensors = self.architecture().stored(parameters::effective(self));
        if let Some(name) = self.spec.logits_bias {
            let zeros = || vec![0.0; self.architecture().vocab_size];
            let bias = self
                .logits_bias
                .as_ref()
                .map_or_else(zeros, |bias| bias.to_vec());
            let shape = vec![1, bias.len()];
            let data = TensorData::new(bias, [shape[1]]);
            tensors.push(NamedTensor {
                name: name.to_owned(),
                shape,
                values: Tensor::from_data(data, &self.device().inner()),
            });
        }
        tensors
    }

    /// Checks that the model has positions for a source and a target of so many tokens.
    ///
    /// # Errors
    ///
    /// [`ModelError::TooLong`] if positions are those of a table and there are fewer.
    pub fn check_lengths(&self, n_source: usize, n_target: usize) -> Result<(), ModelError> {
        let of = [
            (&self.spec.encoder, n_source),
            (self.architecture(), n_target),
        ];
        for (stack, n_tokens) in of {
            if let Some(limit) = stack.max_tokens().filter(|limit| n_tokens > *limit) {
                return Err(ModelError::TooLong { n_tokens, limit });
            }
        }
        Ok(())
    }

    /// Returns the tokens that the decoder is given where `labels` are what it is to say: those of each target one place later,
    /// behind the start token. A label that is not learned from stands as the padding token, as in transformers.
    ///
    /// # Panics
    ///
    /// Panics unless the last of `bounds` is the number of labels.
    pub fn decoder_input(&self, labels: &[i32], bounds: &[usize]) -> Vec<u32> {
        let start = self.spec.decoder_start;
        let hidden = self.architecture().special.pad.unwrap_or(start);
        let token = |label: &i32| match *label {
            IGNORE_INDEX => hidden,
            label => label as u32,
        };
        let targets = bounds.windows(2).map(|pair| &labels[pair[0]..pair[1]]);
        let shifted = targets.filter_map(<[i32]>::split_last).flat_map(|target| {
            let (last, before) = target;
            let first = if self.spec.last_starts {
                token(last)
            } else {
                start
            };
            std::iter::once(first).chain(before.iter().map(token))
        });
        shifted.collect()
    }

    /// Returns the scaled sum of the negative log-likelihoods of the labelled tokens, `[1]`, with labels smoothed by
    /// `label_smoothing`: see [`smoothed_linear_cross_entropy`].
    ///
    /// `labels` has one label for each token of the target, which is the [decoder's input](Self::decoder_input).
    ///
    /// # Panics
    ///
    /// Panics unless there are as many sources as targets.
    pub fn loss(
        &self,
        source: TokenBatch<'_>,
        target: TokenBatch<'_>,
        labels: &[i32],
        (scale, label_smoothing): (f32, f32),
        context: &ForwardContext,
    ) -> Tensor<1> {
        let h = self.hidden(source, target, context);
        let (head, plan) = self.planned_head(context);
        let bias = self.logits_bias.as_ref().map(|bias| bias_like(bias, &h));
        smoothed_linear_cross_entropy(h, (head, bias), plan, labels, (scale, label_smoothing))
    }

    /// Returns the logits of every token of the target, `[N, vocab]`.
    ///
    /// # Panics
    ///
    /// Panics unless there are as many sources as targets.
    pub fn logits(
        &self,
        source: TokenBatch<'_>,
        target: TokenBatch<'_>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        self.logits_of(self.hidden(source, target, context), context)
    }

    /// Returns the normalized hidden states of sources, `[N, d]`.
    pub fn encode(&self, source: TokenBatch<'_>, context: &ForwardContext) -> Tensor<2> {
        self.read(source, Segments::from([]), context).states
    }

    /// Encodes sources for a decoder; `segments` says which tokens of it see what.
    pub(crate) fn read(
        &self,
        source: TokenBatch<'_>,
        segments: Segments,
        context: &ForwardContext,
    ) -> Source {
        let sight = Sight {
            segments: segments_from_bounds(source.bounds),
            source: None,
        };
        let tokens = source.tokens();
        let h = self.embed(&self.encoder, tokens, context);
        let sequences = self
            .encoder
            .sequences(tokens.positions, sight, None, &self.tokens);
        let mut last = Vec::new();
        let h = self.encoder.recur(h, &sequences, Some(&mut last), context);
        let run = (tokens.positions, &sequences);
        let h = self.encoder.run_blocks(h, run, None, context);
        Source {
            states: self.last(&self.encoder, h, context),
            segments,
            last,
        }
    }

    /// Returns an empty cache for `n` targets of up to `capacity` tokens of the same source.
    pub(crate) fn new_cache(&self, n: usize, capacity: usize) -> KvCache {
        let place = (&self.device().inner(), self.tokens.weight.dtype());
        let layers = self.decoder.blocks.iter().map(|block| {
            let [_, width, _] = block.attention.spec.widths();
            let cache = TensorCache::new(n, width, capacity, place);
            LayerCache::Tensors(Box::new(cache))
        });
        KvCache::new(layers.collect(), capacity)
    }

    /// Reads one source for `n` targets.
    pub(crate) fn read_for(&self, source: TokenBatch<'_>, n: usize) -> Source {
        let segment = Segment {
            q_start: 0,
            q_len: n,
            k_start: 0,
            k_len: source.input_ids.len(),
        };
        let context = ForwardContext::generation();
        self.read(source, Segments::from([segment]), &context)
    }

    /// Feeds the next token of each cached target of a [source](Self::read_for) and returns their logits, `[n, vocab]`.
    pub(crate) fn next_logits(
        &self,
        tokens: &[u32],
        source: &Source,
        cache: &mut KvCache,
    ) -> Tensor<2> {
        let positions = vec![cache.len() as u32; tokens.len()];
        let context = cache.context.clone();
        let bounds: Vec<usize> = (0..=tokens.len()).collect();
        let sight = Sight {
            // Attention to what was seen takes those of its cache.
            segments: segments_from_bounds(&bounds),
            source: Some(source.clone()),
        };
        let tokens = Tokens {
            ids: tokens,
            positions: &positions,
            types: None,
        };
        let h = self.embed(&self.decoder, tokens, &context);
        let sequences = self
            .decoder
            .sequences(&positions, sight, Some(cache), &self.tokens);
        let run = (&positions[..], &sequences);
        let h = self.decoder.run(h, run, Some(cache), &context);
        let h = self.last(&self.decoder, h, &context);
        self.logits_of(self.scaled(h), &context)
    }

    /// What the head is given, `[N, d]`.
    fn hidden(
        &self,
        source: TokenBatch<'_>,
        target: TokenBatch<'_>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let (from, to) = (source.bounds, target.bounds);
        assert_eq!(from.len(), to.len(), "each target has a source");
        let pairs = to.windows(2).zip(from.windows(2));
        let pairs = pairs.map(|(to, from)| Segment {
            q_start: to[0],
            q_len: to[1] - to[0],
            k_start: from[0],
            k_len: from[1] - from[0],
        });
        let sight = Sight {
            segments: segments_from_bounds(to),
            source: Some(self.read(source, pairs.collect(), context)),
        };
        let tokens = target.tokens();
        let h = self.embed(&self.decoder, tokens, context);
        let sequences = self
            .decoder
            .sequences(tokens.positions, sight, None, &self.tokens);
        let run = (tokens.positions, &sequences);
        let h = self.decoder.run(h, run, None, context);
        self.scaled(self.last(&self.decoder, h, context))
    }

    pub(crate) fn embed(
        &self,
        stack: &Stack,
        tokens: Tokens<'_>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let table = (&self.tokens, None);
        stack.embed(table, self.spec.unlearned, tokens, context)
    }

    /// The last norm of a stack and the dropout behind it.
    fn last(&self, stack: &Stack, h: Tensor<2>, context: &ForwardContext) -> Tensor<2> {
        let h = widened(stack.normalized(h));
        let path = stack.norm.as_ref().map_or("", |norm| norm.path());
        dropped(h, self.spec.output_dropout, path, context)
    }

    fn scaled(&self, h: Tensor<2>) -> Tensor<2> {
        match self.architecture().head.factor {
            Some(factor) => h * factor,
            None => h,
        }
    }

    fn logits_of(&self, h: Tensor<2>, context: &ForwardContext) -> Tensor<2> {
        let (head, plan) = self.planned_head(context);
        let logits = linear(h, head, plan);
        match &self.logits_bias {
            Some(bias) => {
                let bias = bias_like(bias, &logits);
                logits + bias.unsqueeze::<2>()
            }
            None => logits,
        }
    }

    /// The output head with the plan of what is attached.
    fn planned_head(&self, context: &ForwardContext) -> (Tensor<2>, LinearPlan) {
        let weight = match &self.head {
            Some(head) => &head.weight,
            None => &self.tokens.weight,
        };
        planned(weight.param(), context)
    }

    fn device(&self) -> Device {
        self.tokens.weight.device()
    }
}

/// The bias of logits in the type and on the device of other numbers.
fn bias_like(bias: &[f32], like: &Tensor<2>) -> Tensor<1> {
    let data = TensorData::new(bias.to_vec(), [bias.len()]).convert_dtype(like.dtype());
    Tensor::from_data(data, (&like.device(), like.dtype()))
}

/// Finds where a checkpoint has the table of token vectors, and whether its head is another; returns the names of the copies, which
/// need not be read.
fn find_table(
    loader: &mut Loader<'_>,
    architecture: &mut Architecture,
    spec: &Seq2SeqSpec,
) -> Result<Vec<String>, ModelError> {
    let (head, table) = architecture.head_names();
    let copies = spec.table_copies.iter();
    let copies = copies.map(|path| format!("{}.weight", architecture.full_path(path)));
    let mut copies: Vec<String> = copies.filter(|name| loader.has(name)).collect();
    let has_head = architecture.head.tied && loader.has(&head);
    let other = copies.first().or(has_head.then_some(&head));
    if let Some(stored) = other.filter(|_| !loader.has(&table)) {
        loader.take_from(&table, stored);
    }
    for name in &copies {
        if !loader.are_equal(name, &table)? {
            return Err(ModelError::OwnTable {
                name: loader.stored(name),
                table: loader.stored(&table),
            });
        }
    }
    if has_head {
        match loader.are_equal(&head, &table)? {
            true => copies.push(head),
            false => architecture.head.tied = false,
        }
    }
    let stored = loader.stored(&table);
    let names = copies.iter().map(|name| loader.stored(name));
    Ok(names.filter(|name| *name != stored).collect())
}
