//! A body with the output head of a language model.

use std::borrow::Cow;
use std::sync::Arc;

use burn::module::Param;
use burn::tensor::{DType, Device, Tensor};
use reparam::methods::{AttachedModule, planned};
use reparam::parameters::{self, NamedTensor};
use reparam::{ForwardContext, Linear, OutputHead};
use reparam_formats::checkpoint::Checkpoint;
use reparam_ops::fused::{
    BlockCache, FusedLinear, FusedNorm, norm_linear_cross_entropy, norm_logits, with_team,
};
use reparam_ops::{
    LinearPlan, RecurrentState, Segments, linear, linear_cross_entropy, segments_from_bounds,
    soft_cap,
};

use crate::architecture::{Architecture, LinearSpec};
use crate::cache::{KvCache, LayerCache, TensorCache};
use crate::layers::Attention;
use crate::loader::Loader;
use crate::named::{Named, unnamed_module};
use crate::precision::{narrowed, widened};
use crate::transformer::{Tokens, Transformer};
use crate::{ModelError, Precision};

/// A flat batch of token sequences.
#[derive(Debug, Clone, Copy)]
pub struct TokenBatch<'a> {
    /// The tokens of all sequences, one after the other.
    pub input_ids: &'a [u32],
    /// The position of each token in its sequence.
    pub position_ids: &'a [u32],
    /// The cumulative starts of the sequences; the last entry is the number of tokens.
    pub bounds: &'a [usize],
}

impl<'a> TokenBatch<'a> {
    pub(crate) fn tokens(self) -> Tokens<'a> {
        Tokens {
            ids: self.input_ids,
            positions: self.position_ids,
            types: None,
        }
    }
}

/// A language model that predicts the next token.
#[derive(Debug, Clone)]
pub struct CausalLm {
    /// Everything but the head.
    pub body: Transformer,
    /// From the hidden states to what the head reads.
    pub projection: Option<Named<Linear>>,
    /// The output head; `None` if it is the table of token vectors.
    pub head: Option<Named<OutputHead<Linear>>>,
}

unnamed_module!(CausalLm, modules: [body, projection, head], data: []);

impl CausalLm {
    /// Loads a model onto a device, frozen.
    ///
    /// Where `config.json` ties the output head to the embedding and the checkpoint has both, a head with other numbers is used,
    /// as in transformers, and [`architecture`](Self::architecture) then says that it is not tied. Of tied weights either
    /// name will do.
    ///
    /// # Errors
    ///
    /// Fails when the checkpoint's tensors are not exactly those of the description, or one of them holds NaN or infinity, or
    /// the model is none that predicts the next token.
    pub fn load(
        checkpoint: &Checkpoint,
        mut architecture: Architecture,
        device: &Device,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        if architecture.seq2seq.is_none() && !architecture.is_causal() {
            return Err(ModelError::NotCausal {
                model_type: architecture.model_type,
            });
        }
        let mut loader = Loader::new(checkpoint, device, precision, &architecture.prefix);
        let (head_name, table) = architecture.head_names();
        if architecture.head.tied && loader.has(&head_name) {
            if !loader.has(&table) {
                loader.take_from(&table, &head_name);
            } else if !loader.are_equal(&head_name, &table)? {
                architecture.head.tied = false;
            }
        }
        let architecture = Arc::new(architecture);
        let tied = architecture.head.tied;
        // Older exporters wrote buffers and the tied head along.
        let ignored = |name: &str| {
            let mut buffers = architecture.buffers.iter();
            buffers.any(|buffer| name.ends_with(buffer)) || (tied && name == head_name)
        };
        loader.load(&architecture.bias_keys, ignored, |loader| {
            Self::build(loader, &architecture)
        })
    }

    /// Asks a loader for the parts.
    pub(crate) fn build(
        loader: &mut Loader<'_>,
        architecture: &Arc<Architecture>,
    ) -> Result<Self, ModelError> {
        let body = Transformer::load(loader, architecture, &architecture.prefix)?;
        let head = &architecture.head;
        loader.enter(&architecture.prefix);
        let projection = head.projection.as_ref().map(|spec| loader.linear(spec));
        loader.enter("");
        let head = (!head.tied).then(|| {
            let (width, vocab_size) = (architecture.head_width(), architecture.vocab_size);
            loader.head(&LinearSpec {
                bias: head.bias,
                ..LinearSpec::new(&head.path, width, vocab_size)
            })
        });
        Ok(Self {
            body,
            projection,
            head,
        })
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
        let weight = self.body.tokens.weight.with_own_id();
        let head = Named::new(path, OutputHead(Linear { weight, bias: None }));
        Self {
            head: Some(head),
            ..self
        }
    }

    /// Returns what the model is made of.
    pub fn architecture(&self) -> &Architecture {
        &self.body.architecture
    }

    /// Returns the number of rows of the embedding.
    pub fn vocab_size(&self) -> usize {
        self.architecture().vocab_size
    }

    /// Checks that the model has positions for sequences of `n_tokens`.
    ///
    /// # Errors
    ///
    /// [`ModelError::TooLong`] if positions are learned and there are fewer.
    pub fn check_length(&self, n_tokens: usize) -> Result<(), ModelError> {
        match self.architecture().max_tokens() {
            Some(limit) if n_tokens > limit => Err(ModelError::TooLong { n_tokens, limit }),
            _ => Ok(()),
        }
    }

    /// Returns whether transformers stores a tensor of this model as `[d_in, d_out]`, which in memory is `[d_out, d_in]`.
    pub fn stored_transposed(&self, name: &str) -> bool {
        self.architecture().stores_transposed(name)
    }

    /// Returns whether transformers stores the weight of any of these layers as `[d_in, d_out]`: what PEFT calls
    /// `fan_in_fan_out`.
    pub fn stores_transposed(&self, modules: &[AttachedModule]) -> bool {
        modules
            .iter()
            .any(|module| self.stored_transposed(&format!("{}.weight", module.module)))
    }

    /// Returns the effective weights as transformers stores them: under the names of the class with the head, and transposed
    /// where the family's layers are.
    ///
    /// # Cost
    ///
    /// A copy of the whole model: every packed weight is decoded to a tensor of `f32`.
    pub fn to_tensors(&self) -> Vec<NamedTensor> {
        self.architecture().stored(parameters::effective(self))
    }

    /// Returns the scaled sum of the negative log-likelihoods of the labelled tokens, `[1]`.
    ///
    /// See [`linear_cross_entropy`] for `labels` and `scale`.
    pub fn loss(
        &self,
        batch: TokenBatch<'_>,
        labels: &[i32],
        scale: f32,
        context: &ForwardContext,
    ) -> Tensor<1> {
        self.loss_of(self.hidden(batch, context), labels, scale, context)
    }

    /// Returns the loss of [`loss`](Self::loss) of sequences that begin with `states`, and the states after their last tokens.
    ///
    /// There is a state for each recurrent layer; without any, all begin with zeros. No gradient flows into the states, nor
    /// through those that are returned: a loss of later tokens does not reach what was before them.
    ///
    /// # Shapes
    ///
    /// With `B` sequences and `H` units, `h` and, of an LSTM, `c` are `[B, H]`.
    ///
    /// # Panics
    ///
    /// Unless the model [has a state](Architecture::has_state), and for states of other shapes.
    pub fn loss_from(
        &self,
        batch: TokenBatch<'_>,
        labels: &[i32],
        scale: f32,
        states: Vec<RecurrentState>,
        context: &ForwardContext,
    ) -> (Tensor<1>, Vec<RecurrentState>) {
        assert!(self.architecture().has_state(), "a model without states");
        let device = self.body.device();
        let detached = |x: Tensor<2>| x.detach().to_device(&device);
        let all = |states: Vec<RecurrentState>| -> Vec<RecurrentState> {
            let states = states
                .into_iter()
                .map(|RecurrentState { h, c }| RecurrentState {
                    h: detached(h),
                    c: c.map(detached),
                });
            states.collect()
        };
        let mut cache = KvCache::new(Vec::new(), batch.input_ids.len());
        cache.states = all(states);
        let segments = segments_from_bounds(batch.bounds);
        let h = (self.body).forward(batch.tokens(), segments, Some(&mut cache), context);
        let loss = self.loss_of(h, labels, scale, context);
        (loss, all(cache.states))
    }

    fn loss_of(
        &self,
        h: Tensor<2>,
        labels: &[i32],
        scale: f32,
        context: &ForwardContext,
    ) -> Tensor<1> {
        match self.packed_head(context) {
            Some(head) => {
                let (h, norm) = self.packed_last(h, context);
                norm_linear_cross_entropy(h, norm, head, self.soft_cap(), labels, scale)
            }
            None => {
                let h = self.scaled(self.read_by_head(h, context));
                let (weight, bias, plan) = self.dense_head(context);
                linear_cross_entropy(h, (weight, bias), plan, self.soft_cap(), labels, scale)
            }
        }
    }

    /// Returns the logits of every token, `[N, vocab]`.
    pub fn logits(&self, batch: TokenBatch<'_>, context: &ForwardContext) -> Tensor<2> {
        self.logits_of(self.hidden(batch, context), context)
    }

    /// Returns the bytes that keys and values of so many tokens take, and what state-space layers keep of all of them.
    pub fn cache_bytes(&self, n_tokens: usize) -> u128 {
        let layers = self.body.blocks.iter().map(|block| {
            let [_, width, _] = block.attention.spec.widths();
            let number = match self.caches_fused(&block.attention) {
                true => 2,
                false => 4,
            };
            2 * number * width as u128
        });
        let tokens = layers.sum::<u128>().saturating_mul(n_tokens as u128);
        let state_space = self.architecture().state_space.as_ref();
        tokens.saturating_add(state_space.map_or(0, |spec| 4 * spec.kept() as u128))
    }

    /// Whether a layer decodes as one operation, which has a cache of its own.
    fn caches_fused(&self, attention: &Attention) -> bool {
        attention.is_packed() && attention.spec.fuses() && self.architecture().relative.is_none()
    }

    /// Returns an empty cache for a sequence of up to `capacity` tokens.
    pub fn new_cache(&self, capacity: usize) -> KvCache {
        let device = self.body.device().inner();
        let dtype = match self.body.dtype() {
            DType::BF16 => DType::F32,
            dtype => dtype,
        };
        let layers = self.body.blocks.iter().map(|block| {
            let [_, width, _] = block.attention.spec.widths();
            match self.caches_fused(&block.attention) {
                true => LayerCache::Fused(BlockCache::default()),
                false => {
                    let cache = TensorCache::new(1, width, capacity, (&device, dtype));
                    LayerCache::Tensors(Box::new(cache))
                }
            }
        });
        KvCache::new(layers.collect(), capacity)
    }

    /// Feeds the next tokens of a cached sequence and returns the last one's logits, `[1, vocab]`.
    ///
    /// # Cost
    ///
    /// Of the new tokens alone, unless rotary positions of the types `longrope` or `dynamic` turn the longer sequence otherwise: then all
    /// of it is read again, with `longrope` once, with `dynamic` at each call beyond the model's length.
    ///
    /// # Panics
    ///
    /// Panics when the cache is full or `tokens` is empty.
    pub fn next_logits(&self, tokens: &[u32], cache: &mut KvCache) -> Tensor<2> {
        self.logits_of_last(1, tokens, cache)
    }

    /// Feeds the next tokens of a cached sequence and returns the logits of all of them, `[n, vocab]`.
    ///
    /// # Panics
    ///
    /// As [`next_logits`](Self::next_logits).
    pub fn all_next_logits(&self, tokens: &[u32], cache: &mut KvCache) -> Tensor<2> {
        self.logits_of_last(tokens.len(), tokens, cache)
    }

    fn logits_of_last(&self, count: usize, tokens: &[u32], cache: &mut KvCache) -> Tensor<2> {
        let capacity = cache.capacity();
        assert!(
            !tokens.is_empty() && cache.len() + tokens.len() <= capacity,
            "the cache holds {capacity} tokens"
        );
        let tokens = &*self.unread(tokens, cache);
        let start = cache.len();
        let positions: Vec<u32> = (start..start + tokens.len()).map(|p| p as u32).collect();
        let context = cache.context.clone();
        let none = Segments::from([]);
        let input = Tokens {
            ids: tokens,
            positions: &positions,
            types: None,
        };
        let logits = || {
            let h = self.body.forward(input, none, Some(cache), &context);
            self.logits_of(h.narrow(0, tokens.len() - count, count), &context)
        };
        // A single token is many short products; those of more tokens, and of f32 weights, share their work otherwise.
        if tokens.len() == 1 && self.body.tokens.weight.as_packed().is_some() {
            with_team(logits)
        } else {
            logits()
        }
    }

    /// What has to be read of a sequence that goes on with `tokens`: only those, unless the keys before them would be turned otherwise
    /// in the longer sequence. Then it is all of it, and the cache becomes empty.
    fn unread<'t>(&self, tokens: &'t [u32], cache: &mut KvCache) -> Cow<'t, [u32]> {
        let rotary = &self.architecture().rotary;
        if rotary.iter().all(|rotary| rotary.stretch.is_none()) {
            return Cow::Borrowed(tokens);
        }
        let (before, after) = (cache.len(), cache.len() + tokens.len());
        cache.tokens.extend_from_slice(tokens);
        if before == 0 || !rotary.iter().any(|rotary| rotary.changes(before, after)) {
            return Cow::Borrowed(tokens);
        }
        cache.begin_again(self.new_cache(cache.capacity()).layers);
        Cow::Owned(cache.tokens.clone())
    }

    /// The hidden states after the last block, `[N, d]`, not normalized.
    fn hidden(&self, batch: TokenBatch<'_>, context: &ForwardContext) -> Tensor<2> {
        let segments = segments_from_bounds(batch.bounds);
        self.body.forward(batch.tokens(), segments, None, context)
    }

    pub(crate) fn logits_of(&self, h: Tensor<2>, context: &ForwardContext) -> Tensor<2> {
        let logits = match self.packed_head(context) {
            Some(head) => {
                let (h, norm) = self.packed_last(h, context);
                norm_logits(h, norm, head)
            }
            None => {
                let (weight, bias, plan) = self.dense_head(context);
                let logits = linear(self.scaled(self.read_by_head(h, context)), weight, plan);
                match bias {
                    Some(bias) => logits + bias.unsqueeze::<2>(),
                    None => logits,
                }
            }
        };
        match self.soft_cap() {
            Some(cap) => soft_cap(logits, cap),
            None => logits,
        }
    }

    /// The last hidden states as the head reads them, but for the factor of the logits.
    fn read_by_head(&self, h: Tensor<2>, context: &ForwardContext) -> Tensor<2> {
        let h = self.body.normalized(h);
        match &self.projection {
            Some(projection) => projection.forward(widened(h), context),
            None => h,
        }
    }

    /// What the head is given, times the factor of the logits.
    fn scaled(&self, h: Tensor<2>) -> Tensor<2> {
        match self.architecture().head.factor {
            Some(factor) => h * factor,
            None => h,
        }
    }

    /// The last hidden states and the norm before a head that is packed; the norm has the factor of the logits, if there is one.
    fn packed_last(
        &self,
        h: Tensor<2>,
        context: &ForwardContext,
    ) -> (Tensor<2>, Option<FusedNorm>) {
        if self.projection.is_some() {
            let h = self.read_by_head(h, context);
            return (narrowed(self.scaled(h)), None);
        }
        let norm = self.body.norm.as_ref().map(|norm| norm.fused());
        let Some(factor) = self.architecture().head.factor else {
            return (narrowed(h), norm);
        };
        match norm {
            Some(norm) => {
                let norm = FusedNorm {
                    weight: norm.weight * factor,
                    shift: norm.shift.map(|shift| shift * factor),
                    ..norm
                };
                (narrowed(h), Some(norm))
            }
            None => (narrowed(widened(h) * factor), None),
        }
    }

    fn soft_cap(&self) -> Option<f32> {
        self.architecture().head.soft_cap.map(|cap| cap as f32)
    }

    /// The output head, if it is packed.
    fn packed_head(&self, context: &ForwardContext) -> Option<FusedLinear> {
        match &self.head {
            Some(head) => head.fused(context),
            None => self.body.tokens.weight.fused(context),
        }
    }

    /// The weight and the bias of the output head, if it is none that is packed, with the plan of what is attached.
    fn dense_head(&self, context: &ForwardContext) -> (Tensor<2>, Option<Tensor<1>>, LinearPlan) {
        let (weight, bias) = match &self.head {
            Some(head) => (&head.weight, head.bias.as_ref().map(Param::val)),
            None => (&self.body.tokens.weight, None),
        };
        let (weight, plan) = planned(weight.param(), context);
        (weight, bias, plan)
    }
}
