//! The body of a model: everything but its head.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};
use reparam::{ForwardContext, Linear, Weight};
use reparam_ops::fused::frozen_embedding;
use reparam_ops::{RecurrentState, RotaryTable, Segment, Segments, embedding};

use crate::ModelError;
use crate::architecture::{
    Architecture, AttentionSpec, BlockSpec, DirectionSpec, ExpertsSpec, FeedForwardSpec,
    Initialization, MixerSpec, NormSpec, NormsSpec, PositionsSpec, RecurrentCrossSpec,
    RecurrentSpec, RelativeSpec, RotarySpec, StateSpaceSpec, TableSpec,
};
use crate::cache::KvCache;
use crate::layers::{
    Attention, Block, Conv, CrossAttention, Direction, Distances, Embedding, Experts, FeedForward,
    GlobalAttention, Mixer, Norm, Norms, Recurrent, RecurrentCross, Scan, Sequences, SharedExpert,
    Source, Start, StateSpace, dropped,
};
use crate::loader::{ExpertModules, Init, Loader};
use crate::named::{List, Named, unnamed_module};
use crate::precision::{narrowed, rounded_to_bf16, widened};

/// Embeddings and blocks, as an [`Architecture`] describes them.
///
/// The last norm is part of it, and is applied by a call of its own: heads may do that in one operation with theirs.
#[derive(Debug, Clone)]
pub struct Transformer {
    /// Token vectors.
    pub tokens: Named<Embedding>,
    /// All that comes after them.
    pub stack: Stack,
}

unnamed_module!(Transformer, modules: [tokens, stack], data: []);

impl Deref for Transformer {
    type Target = Stack;

    fn deref(&self) -> &Stack {
        &self.stack
    }
}

impl DerefMut for Transformer {
    fn deref_mut(&mut self) -> &mut Stack {
        &mut self.stack
    }
}

/// All of a [`Transformer`] but the table of token vectors, which the two stacks of an encoder-decoder share.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Learned positions.
    pub positions: Option<Named<Embedding>>,
    /// Token types.
    pub token_types: Option<Named<Embedding>>,
    /// The norm of their sum.
    pub embedding_norm: Option<Named<Norm>>,
    /// From the width of the table of token vectors to that of what is added to them.
    pub token_projection: Option<Named<Linear>>,
    /// From the width of the tables to that of the blocks.
    pub projection: Option<Named<Linear>>,
    /// What scores are biased with by distance, `[buckets, heads]`, or the vectors of distances, `[rows, d]`.
    pub relative: Option<Named<Embedding>>,
    /// The norm of the vectors of distances.
    pub relative_norm: Option<Named<Norm>>,
    /// Recurrent layers.
    pub recurrent: Option<Recurrent>,
    /// State-space layers.
    pub state_space: Option<StateSpace>,
    /// The blocks.
    pub blocks: List<Block>,
    /// The norm after the last block.
    pub norm: Option<Named<Norm>>,
    /// What it is.
    pub architecture: Arc<Architecture>,
    /// Positions that are not learned.
    sinusoids: Option<Sinusoids>,
    /// Whether fused halves of blocks keep their input alone and compute their activations again in the backward pass: less memory
    /// for about a third more time. What is not fused does not look at it.
    pub recompute: bool,
}

unnamed_module!(
    Stack,
    modules: [
        positions,
        token_types,
        token_projection,
        embedding_norm,
        projection,
        relative,
        relative_norm,
        recurrent,
        state_space,
        blocks,
        norm
    ],
    data: [architecture, sinusoids, recompute]
);

/// The input of a forward pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tokens<'a> {
    pub(crate) ids: &'a [u32],
    pub(crate) positions: &'a [u32],
    /// Without them all are of type 0.
    pub(crate) types: Option<&'a [u32]>,
}

/// What tokens see in a forward pass.
#[derive(Debug, Clone)]
pub(crate) struct Sight {
    pub(crate) segments: Segments,
    /// What the blocks of a decoder with a source attend to.
    pub(crate) source: Option<Source>,
}

impl Transformer {
    /// Fills the modules from a checkpoint; `prefix` is where the body is in the class of the whole model, empty for a class
    /// without a head.
    ///
    /// # Errors
    ///
    /// Fails when the description contradicts itself or is that of an encoder-decoder. Tensors that are missing or do not fit are
    /// reported by [`Loader::load`].
    pub(crate) fn load(
        loader: &mut Loader<'_>,
        architecture: &Arc<Architecture>,
        prefix: &str,
    ) -> Result<Self, ModelError> {
        let all = &**architecture;
        all.check()?;
        if all.seq2seq.is_some() {
            return Err(ModelError::IsSeq2Seq {
                model_type: all.model_type.clone(),
            });
        }
        // The names of tensors follow from the prefix of the class that is loaded.
        let own = match all.prefix == prefix {
            true => architecture.clone(),
            false => Arc::new(Architecture {
                prefix: prefix.to_owned(),
                ..all.clone()
            }),
        };
        loader.enter(prefix);
        loader.begin_as(all.init, None);
        let transformer = Self {
            tokens: loader.embedding(&all.embedding.tokens, all.vocab_size, all.table_width()),
            stack: Stack::load(loader, &own),
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
        let sequences = self.sequences(tokens.positions, segments, cache.as_deref());
        self.run(h, (tokens.positions, &sequences), cache, context)
    }

    /// The hidden states before the first layer, of the tokens or of `vectors` in place of theirs.
    pub(crate) fn embed(
        &self,
        tokens: Tokens<'_>,
        vectors: Option<Tensor<2>>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let table = (&self.tokens, vectors);
        self.stack.embed(table, None, tokens, context)
    }

    /// What the blocks of a forward pass share.
    pub(crate) fn sequences(
        &self,
        positions: &[u32],
        segments: Segments,
        cache: Option<&KvCache>,
    ) -> Sequences {
        let sight = Sight {
            segments,
            source: None,
        };
        self.stack.sequences(positions, sight, cache, &self.tokens)
    }

    pub(crate) fn device(&self) -> Device {
        self.tokens.weight.device()
    }

    pub(crate) fn dtype(&self) -> DType {
        self.tokens.weight.dtype()
    }
}

/// The angles of a batch. Only long sequences are turned by frequencies of their own.
fn rotary_table(
    rotary: &RotarySpec,
    positions: &[u32],
    segments: &Segments,
    longest: usize,
) -> RotaryTable {
    let table = |positions: &[u32], length: usize| {
        let factor = rotary.attention_factor as f32;
        let frequencies = rotary.frequencies(length);
        let table = RotaryTable::new(positions, &frequencies, factor, rotary.head_dim);
        match rotary.interleaved {
            true => table.interleaved(),
            false => table,
        }
    };
    if segments.is_empty() || !rotary.changes(0, longest) {
        return table(positions, longest);
    }
    let of = |segment: &Segment| {
        let tokens = segment.q_start..segment.q_start + segment.q_len;
        table(&positions[tokens], segment.k_len)
    };
    RotaryTable::join(segments.iter().map(of))
}

impl Stack {
    /// Fills the modules from where the loader is; the description is checked.
    pub(crate) fn load(loader: &mut Loader<'_>, architecture: &Arc<Architecture>) -> Self {
        let all = &**architecture;
        let embedding = &all.embedding;
        let table = |loader: &mut Loader<'_>, table: &Option<TableSpec>| {
            let table = table.as_ref()?;
            Some(loader.embedding(&table.path, table.rows, all.added_width()))
        };
        let positions = table(loader, &embedding.positions);
        let sinusoids = embedding.sinusoids.as_ref();
        let width = all.added_width();
        Self {
            positions,
            token_types: table(loader, &embedding.token_types),
            token_projection: embedding
                .token_projection
                .as_ref()
                .map(|spec| loader.linear(spec)),
            embedding_norm: norm(loader, &embedding.norm),
            projection: embedding
                .projection
                .as_ref()
                .map(|spec| loader.dense(|loader| loader.linear(spec))),
            recurrent: all
                .recurrent
                .as_ref()
                .map(|spec| recurrent(loader, spec, all.init)),
            state_space: all
                .state_space
                .as_ref()
                .map(|spec| state_space(loader, spec)),
            relative: all.relative.as_ref().and_then(|spec| {
                let heads = all.blocks[0].attention.n_heads;
                let (path, rows, width, init) = match spec {
                    RelativeSpec::Slopes(_) => return None,
                    RelativeSpec::Bias(spec) => {
                        let init = Initialization::Normal(spec.std);
                        (&spec.path, spec.buckets, heads, init)
                    }
                    RelativeSpec::Vectors(spec) => (&spec.path, 2 * spec.span, all.width, all.init),
                };
                loader.begin_as(init, None);
                let table = loader.dense(|loader| loader.embedding(path, rows, width));
                loader.begin_as(all.init, None);
                Some(table)
            }),
            relative_norm: match &all.relative {
                Some(RelativeSpec::Vectors(spec)) => norm(loader, &spec.norm),
                Some(RelativeSpec::Slopes(_) | RelativeSpec::Bias(_)) | None => None,
            },
            blocks: List(all.blocks.iter().map(|spec| block(loader, spec)).collect()),
            norm: norm(loader, &all.norm),
            architecture: architecture.clone(),
            sinusoids: sinusoids.map(|spec| {
                let name = format!("{}.weight", spec.path);
                match loader.optional_values(&name, &[spec.rows, width]) {
                    Some(stored) => Sinusoids::Stored(stored.into()),
                    None => Sinusoids::Computed,
                }
            }),
            recompute: false,
        }
    }

    /// What the blocks of a forward pass over tokens of the table share.
    pub(crate) fn sequences(
        &self,
        positions: &[u32],
        sight: Sight,
        cache: Option<&KvCache>,
        tokens: &Embedding,
    ) -> Sequences {
        // Tokens that follow others in a cache see those, too.
        let last = cache.and(positions.last());
        let n_keys = last.map_or(0, |last| *last as usize + 1);
        let keys = sight.segments.iter().map(|segment| segment.k_len);
        let longest = keys.fold(n_keys, usize::max);
        let (bias, distances) = self.relative(longest, &tokens.weight);
        let table = |rotary: &RotarySpec| rotary_table(rotary, positions, &sight.segments, longest);
        Sequences {
            rotary: self.architecture.rotary.iter().map(table).collect(),
            bias,
            distances,
            segments: sight.segments,
            source: sight.source,
            recompute: self.recompute,
        }
    }

    /// Runs the layers on embedded tokens: the hidden states after the last one, `[N, d]`, not normalized.
    pub(crate) fn run(
        &self,
        h: Tensor<2>,
        (positions, sequences): (&[u32], &Sequences),
        mut cache: Option<&mut KvCache>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let states = cache.as_mut().map(|cache| &mut cache.states);
        let h = self.recur(h, sequences, states, context);
        let mixers = cache.as_mut().map(|cache| &mut cache.mixers);
        let h = match &self.state_space {
            Some(layers) => layers.forward(h, sequences, mixers, context),
            None => h,
        };
        self.run_blocks(h, (positions, sequences), cache, context)
    }

    /// Runs the recurrent layers: see [`Recurrent::forward`].
    pub(crate) fn recur(
        &self,
        h: Tensor<2>,
        sequences: &Sequences,
        states: Option<&mut Vec<RecurrentState>>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        match &self.recurrent {
            Some(recurrent) => recurrent.forward(h, sequences, states, context),
            None => h,
        }
    }

    /// Runs the blocks.
    pub(crate) fn run_blocks(
        &self,
        mut h: Tensor<2>,
        (positions, sequences): (&[u32], &Sequences),
        mut cache: Option<&mut KvCache>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        for (index, block) in self.blocks.iter().enumerate() {
            let cache = cache.as_mut().map(|cache| &mut cache.layers[index]);
            h = block.forward(h, sequences, cache, context);
        }
        if let (Some(cache), Some(last)) = (cache, positions.last()) {
            cache.seen = *last as usize + 1;
        }
        h
    }

    /// What is added to the scores of sequences of up to `n_keys` tokens, `[heads, 2 n_keys - 1]`, or the vectors of their distances.
    fn relative(&self, n_keys: usize, tokens: &Weight) -> (Option<Tensor<2>>, Option<Distances>) {
        let reach = n_keys.max(1) as isize - 1;
        let far = -reach..=reach;
        let spec = self.architecture.relative.as_ref();
        if let Some(RelativeSpec::Slopes(slopes)) = spec {
            let of_head = |slope: f64| far.clone().map(move |far| slope * far as f64);
            let biases: Vec<f64> = slopes.iter().copied().flat_map(of_head).collect();
            let biases = TensorData::new(biases, [slopes.len(), far.count()]);
            // Scores of packed layers are in f32, too.
            let dtype = match tokens.dtype() {
                DType::BF16 => DType::F32,
                dtype => dtype,
            };
            let biases = biases.convert_dtype(dtype);
            let biases = Tensor::from_data(biases, (&tokens.device(), dtype));
            return (Some(biases), None);
        }
        let Some((table, spec)) = self.relative.as_ref().zip(spec) else {
            return (None, None);
        };
        let table = table.weight.dense();
        let table = table.expect("what distances are looked up in is never packed");
        match spec {
            RelativeSpec::Slopes(_) => (None, None),
            RelativeSpec::Bias(spec) => {
                let buckets: Vec<u32> = far.map(|far| spec.bucket(far)).collect();
                (Some(embedding(table, &buckets).transpose()), None)
            }
            RelativeSpec::Vectors(spec) => {
                // Rows go down as distances go up; what no distance has is left out.
                let (first, last) = (spec.row(reach), spec.row(-reach));
                let rows: Vec<u32> = (first..=last).collect();
                let vectors = embedding(table, &rows);
                let vectors = match &self.relative_norm {
                    Some(norm) => norm.forward(vectors),
                    None => vectors,
                };
                let places = far.map(|far| spec.row(far) - first).collect();
                (None, Some(Distances { vectors, places }))
            }
        }
    }

    /// Looks up tokens, `[N, d]`, or takes `vectors` in place of what is looked up. The vector of `unlearned` gets no gradient here.
    pub(crate) fn embed(
        &self,
        (table, vectors): (&Named<Embedding>, Option<Tensor<2>>),
        unlearned: Option<u32>,
        tokens: Tokens<'_>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let spec = &self.architecture.embedding;
        let offset = |table: &Option<TableSpec>| table.as_ref().map_or(0, |table| table.offset);
        let positions = rows(tokens.positions, offset(&spec.positions));
        let zeros = || vec![0; tokens.ids.len()];
        let types = tokens.types.map_or_else(zeros, <[u32]>::to_vec);
        let types = rows(&types, offset(&spec.token_types));
        let factor = spec.factor.map(|factor| factor as f32);
        let device = table.weight.device();
        let is_packed = table.weight.as_packed().is_some();
        let own = match vectors {
            None => table.adapted_rows(tokens.ids),
            Some(_) => None,
        };
        let is_adapted = own.is_some();
        let factor = match factor {
            // As the operation over packed tables has it.
            Some(factor) if is_adapted && is_packed => Some(rounded_to_bf16(factor)),
            factor => factor,
        };
        let multiplied = |vectors: Tensor<2>| match factor {
            Some(factor) => vectors * factor,
            None => vectors,
        };
        let vectors = vectors.or(own).map(multiplied);
        let vectors = match &self.token_projection {
            None => vectors,
            Some(projection) => {
                let looked_up = || sum_of_rows(&[(table, tokens.ids, factor)], unlearned, &device);
                let narrow = widened(vectors.unwrap_or_else(looked_up));
                Some(projection.forward(narrow, context))
            }
        };
        let mut tables = match vectors {
            None => vec![(table, tokens.ids, factor)],
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
        let mut h = match vectors {
            None => sum_of_rows(&tables, unlearned, &device),
            Some(vectors) if tables.is_empty() => vectors,
            Some(vectors) => vectors + widened(sum_of_rows(&tables, None, &device)),
        };
        if is_adapted && is_packed {
            h = narrowed(h);
        }
        if let Some(table) = &self.sinusoids {
            let [n, width] = h.dims();
            let positions = rows(tokens.positions, offset(&spec.sinusoids));
            let rows = TensorData::new(table.rows(&positions, width), [n, width]);
            let place = (h.device(), h.dtype());
            let rows = Tensor::from_data(rows.convert_dtype(place.1), (&place.0, place.1));
            h = h + rows;
        }
        let project = |projection: &Named<Linear>, h: Tensor<2>| {
            let dtype = h.dtype();
            projection.forward(widened(h), context).cast(dtype)
        };
        let is_first = spec
            .norm
            .as_ref()
            .is_some_and(|norm| norm.width == self.architecture.width);
        let (first, last) = match is_first {
            true => (self.projection.as_ref(), None),
            false => (None, self.projection.as_ref()),
        };
        if let Some(projection) = first {
            h = project(projection, h);
        }
        if let Some(norm) = &self.embedding_norm {
            h = norm.forward(h);
        }
        // Two stacks with one table draw apart.
        let place = match &self.architecture.seq2seq {
            Some(_) => format!("{}.embedding", self.first_path()),
            None => table.path().to_owned(),
        };
        let h = dropped(h, spec.dropout, &place, context);
        match last {
            Some(projection) => project(projection, h),
            None => h,
        }
    }

    /// The path of a layer that no other stack has.
    fn first_path(&self) -> &str {
        let recurrent = self.recurrent.as_ref();
        let recurrent = recurrent.and_then(|recurrent| recurrent.layers.first()?.first());
        let mixer = self.state_space.as_ref().and_then(|of| of.layers.first());
        match (recurrent, mixer, self.blocks.first()) {
            (Some(direction), ..) => direction.hidden.path(),
            (None, Some(mixer), _) => mixer.output.path(),
            (None, None, Some(block)) => block.attention.output.path(),
            (None, None, None) => unreachable!("a description has a layer"),
        }
    }

    /// Applies the last norm.
    pub(crate) fn normalized(&self, h: Tensor<2>) -> Tensor<2> {
        match &self.norm {
            Some(norm) => norm.forward(h),
            None => h,
        }
    }
}

/// Positions that are not learned.
#[derive(Debug, Clone)]
enum Sinusoids {
    /// As a checkpoint has them, `[positions, d]`.
    Stored(Arc<[f32]>),
    /// `sin(p / 10000^(2 i / d))` for the `i` below half of `d`, then the cosines.
    ///
    /// Vaswani et al., *Attention Is All You Need* (arXiv 1706.03762), section 3.5; there sines and cosines alternate.
    Computed,
}

impl Sinusoids {
    /// The vectors of positions, one after the other.
    fn rows(&self, positions: &[u32], width: usize) -> Vec<f32> {
        let mut rows = Vec::with_capacity(positions.len() * width);
        match self {
            Self::Stored(table) => {
                for at in positions {
                    rows.extend_from_slice(&table[*at as usize * width..][..width]);
                }
            }
            Self::Computed => {
                let pairs = 0..width.div_ceil(2);
                let periods = pairs.map(|pair| 10_000f64.powf(2.0 * pair as f64 / width as f64));
                let periods: Vec<f64> = periods.collect();
                for at in positions {
                    let at = f64::from(*at);
                    rows.extend(periods.iter().map(|period| (at / period).sin() as f32));
                    let cosines = periods[..width / 2].iter();
                    rows.extend(cosines.map(|period| (at / period).cos() as f32));
                }
            }
        }
        rows
    }
}

/// Adds up rows of tables, each multiplied by a factor. A row of number `unlearned` gets no gradient.
fn sum_of_rows(
    tables: &[(&Named<Embedding>, &[u32], Option<f32>)],
    unlearned: Option<u32>,
    device: &Device,
) -> Tensor<2> {
    let packed = tables.iter().map(|(table, ids, factor)| {
        let numbers = table.weight.as_packed()?;
        Some((numbers, *ids, *factor))
    });
    if let Some(packed) = packed.collect::<Option<Vec<_>>>() {
        return frozen_embedding(&packed, device);
    }
    let rows = tables.iter().enumerate();
    let rows = rows.map(|(index, (table, ids, factor))| {
        if let Some(numbers) = table.weight.as_packed() {
            return widened(frozen_embedding(&[(numbers, ids, *factor)], device));
        }
        let rows = embedding(table.weight.param().val(), ids);
        let rows = match unlearned.filter(|_| index == 0) {
            Some(id) => without_gradient(rows, ids, id),
            None => rows,
        };
        match factor {
            Some(factor) => rows * *factor,
            None => rows,
        }
    });
    rows.reduce(|sum, rows| sum + rows)
        .unwrap_or_else(|| unreachable!("there is the table of tokens"))
}

/// Lets no gradient through the rows of one token.
fn without_gradient(rows: Tensor<2>, ids: &[u32], id: u32) -> Tensor<2> {
    if !rows.is_tracked() || !ids.contains(&id) {
        return rows;
    }
    let [n, _] = rows.dims();
    let learned = ids.iter().map(|other| f32::from(u8::from(*other != id)));
    let learned = TensorData::new(learned.collect(), [n, 1]).convert_dtype(rows.dtype());
    let learned: Tensor<2> = Tensor::from_data(learned, (&rows.device(), rows.dtype()));
    rows.clone() * learned.clone() + rows.detach() * (learned.neg() + 1.0)
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
        factor: spec.factor,
    }
}

fn recurrent(loader: &mut Loader<'_>, spec: &RecurrentSpec, init: Initialization) -> Recurrent {
    loader.begin_as(init, Some(spec.hidden));
    let mut direction = |of: &DirectionSpec| Direction {
        input: loader.linear(&of.input),
        hidden: loader.dense(|loader| loader.linear(&of.hidden)),
    };
    let layers = spec.layers.iter().map(|directions| {
        let directions = directions.iter().map(&mut direction);
        List(directions.collect())
    });
    let layers = List(layers.collect());
    loader.begin_as(init, None);
    Recurrent {
        layers,
        cross: spec.cross.as_ref().map(|of| recurrent_cross(loader, of)),
        spec: spec.clone(),
    }
}

fn recurrent_cross(loader: &mut Loader<'_>, spec: &RecurrentCrossSpec) -> RecurrentCross {
    let starts = spec.starts.iter().map(|start| Start {
        h: start.h.as_ref().map(|linear| loader.linear(linear)),
        c: start.c.as_ref().map(|linear| loader.linear(linear)),
        spec: start.clone(),
    });
    let starts = List(starts.collect());
    let attention = &spec.attention;
    let inputs = attention.score.linears().into_iter();
    RecurrentCross {
        starts,
        attention: GlobalAttention {
            inputs: List(inputs.map(|linear| loader.linear(linear)).collect()),
            output: loader.linear(&attention.output),
            spec: attention.clone(),
        },
    }
}

fn state_space(loader: &mut Loader<'_>, spec: &StateSpaceSpec) -> StateSpace {
    let (channels, taps) = (spec.channels, spec.taps);
    let mut layer = |of: &MixerSpec| {
        let [path, conv] = [&of.path, &of.conv].map(|path| loader.path(path));
        Mixer {
            norm: loader.norm(&of.norm),
            input: loader.linear(&of.input),
            conv: {
                let init = Init::Uniform((taps as f64).powf(-0.5));
                let (name, shape) = (format!("{conv}.weight"), [channels, 1, taps]);
                let weight = loader.parameter(&name, shape, init);
                let bias = format!("{conv}.bias");
                let bias = (of.conv_bias).then(|| loader.parameter(&bias, [channels], Init::Zeros));
                Named::new(conv, Conv { weight, bias })
            },
            selection: loader.linear(&of.selection),
            step: loader.steps(&of.step, of.steps),
            scan: {
                let shape = [channels, spec.states];
                let decays = loader.parameter(&format!("{path}.A_log"), shape, Init::LogCounts);
                let skips = loader.parameter(&format!("{path}.D"), [channels], Init::Ones);
                let scan = Scan {
                    A_log: decays,
                    D: skips,
                };
                Named::new(path, scan)
            },
            output: loader.linear(&of.output),
            spec: of.clone(),
        }
    };
    StateSpace {
        layers: List(spec.layers.iter().map(&mut layer).collect()),
        spec: spec.clone(),
    }
}

fn attention(loader: &mut Loader<'_>, spec: &AttentionSpec) -> Attention {
    let positions = spec.positions.as_ref();
    let [position_key, position_query] = positions.map_or([None; 2], PositionsSpec::layers);
    let norm = |norm: &Option<NormSpec>, heads: usize, loader: &mut Loader<'_>| {
        let norm = norm.as_ref()?;
        Some(loader.head_norm(norm, (spec.norm_weights, heads)))
    };
    Attention {
        inputs: List(loader.linears(&spec.inputs)),
        position_key: position_key.map(|layer| loader.linear(layer)),
        position_query: position_query.map(|layer| loader.linear(layer)),
        output: loader.linear(&spec.output),
        q_norm: norm(&spec.q_norm, spec.n_heads, loader),
        k_norm: norm(&spec.k_norm, spec.n_kv_heads, loader),
        spec: spec.clone(),
    }
}

fn feed_forward(loader: &mut Loader<'_>, spec: &FeedForwardSpec) -> FeedForward {
    FeedForward {
        inputs: List(loader.linears(&spec.inputs)),
        output: loader.linear(&spec.output),
        spec: spec.clone(),
    }
}

fn experts(loader: &mut Loader<'_>, layer: &FeedForwardSpec, spec: &ExpertsSpec) -> Experts {
    let ExpertModules {
        router,
        gate_up,
        down,
    } = loader.experts(layer, spec);
    let shared = spec.shared.as_ref().map(|shared| SharedExpert {
        feed_forward: feed_forward(loader, &shared.feed_forward),
        gate: loader.linear(&shared.gate),
    });
    Experts {
        router,
        gate_up,
        down,
        shared,
        layer: layer.clone(),
        spec: spec.clone(),
    }
}

fn block(loader: &mut Loader<'_>, spec: &BlockSpec) -> Block {
    let layer = &spec.feed_forward;
    Block {
        attention: attention(loader, &spec.attention),
        cross: spec.cross.as_ref().map(|cross| CrossAttention {
            attention: attention(loader, &cross.attention),
            norms: norms(loader, &cross.norms),
        }),
        feed_forward: layer.experts.is_none().then(|| feed_forward(loader, layer)),
        experts: layer
            .experts
            .as_ref()
            .map(|spec| experts(loader, layer, spec)),
        attention_norms: norms(loader, &spec.attention_norms),
        feed_forward_norms: norms(loader, &spec.feed_forward_norms),
        parallel: spec.parallel,
    }
}
