//! What layers keep of the tokens that were already seen: keys and values, or states.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use reparam::ForwardContext;
use reparam_ops::fused::BlockCache;
use reparam_ops::{RecurrentState, Segment, Segments};

use crate::layers::MixerState;

/// The keys and values of one sequence, or of several that are equally long, for every layer of a model that does not change.
///
/// The buffers grow by doubling: most steps write one row and copy
/// nothing, and a generation that may be long takes no memory for what it never says. A clone goes on by itself: what several
/// texts begin with is read once.
#[derive(Debug, Clone)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
    /// The states of recurrent layers, by layer, then by direction, once a token was seen.
    pub(crate) states: Vec<RecurrentState>,
    /// The states of state-space layers, of a single sequence, once a token was seen.
    pub(crate) mixers: Vec<MixerState>,
    /// How many tokens were seen.
    pub(crate) seen: usize,
    /// What passes share: the plans of the layers.
    pub(crate) context: ForwardContext,
    /// The tokens of a single sequence that were seen, where a longer one may have to be read again.
    pub(crate) tokens: Vec<u32>,
    capacity: usize,
}

impl KvCache {
    /// Creates an empty cache for up to `capacity` tokens.
    pub(crate) fn new(layers: Vec<LayerCache>, capacity: usize) -> Self {
        Self {
            layers,
            states: Vec::new(),
            mixers: Vec::new(),
            seen: 0,
            context: ForwardContext::generation(),
            tokens: Vec::new(),
            capacity,
        }
    }

    /// Returns how many tokens were seen.
    pub fn len(&self) -> usize {
        self.seen
    }

    /// Forgets what layers made of the tokens, which are to be read again.
    pub(crate) fn begin_again(&mut self, layers: Vec<LayerCache>) {
        self.layers = layers;
        self.states.clear();
        self.mixers.clear();
        self.seen = 0;
    }

    /// Has each sequence go on from one of those before, by number.
    pub(crate) fn reorder(&mut self, from: &[usize]) {
        if from.iter().enumerate().all(|(to, from)| to == *from) {
            return;
        }
        let from: Vec<i64> = from.iter().map(|from| *from as i64).collect();
        let from = TensorData::new(from.clone(), [from.len()]);
        let on = |device: &Device| Tensor::<1, Int>::from_data(from.clone(), device);
        for layer in &mut self.layers {
            if let LayerCache::Tensors(cache) = layer {
                let from = on(&cache.k.device());
                cache.reorder(&from);
            }
        }
        for RecurrentState { h, c } in &mut self.states {
            for state in std::iter::once(h).chain(c) {
                *state = state.clone().select(0, on(&state.device()));
            }
        }
    }

    /// Makes room for up to `capacity` tokens.
    pub(crate) fn make_room(&mut self, capacity: usize) {
        self.capacity = self.capacity.max(capacity);
        for layer in &mut self.layers {
            if let LayerCache::Tensors(cache) = layer {
                cache.capacity = cache.capacity.max(capacity);
            }
        }
    }

    /// Returns whether no token was seen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many tokens fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

/// The tokens that a new cache has room for.
const FIRST_ROWS: usize = 64;

/// The part of a cache that belongs to one layer.
#[derive(Debug, Clone)]
pub(crate) enum LayerCache {
    /// Of a layer that computes in `f32`.
    Tensors(Box<TensorCache>),
    /// Of a fused layer.
    Fused(BlockCache),
}

/// Keys and values as tensors, of one sequence or of several that are equally long.
#[derive(Debug, Clone)]
pub(crate) struct TensorCache {
    /// `[sequences, rows, width]`, of which the first `len` rows are in use.
    k: Tensor<3>,
    v: Tensor<3>,
    len: usize,
    capacity: usize,
    /// Keys and values of the source, which is that of all sequences; `None` before they are first asked for.
    pub(crate) source: Option<[Tensor<2>; 2]>,
}

impl TensorCache {
    /// Creates an empty cache for `sequences` of up to `capacity` tokens with `width` numbers of keys and as many of values.
    pub(crate) fn new(
        sequences: usize,
        width: usize,
        capacity: usize,
        (device, dtype): (&Device, DType),
    ) -> Self {
        let rows = capacity.min(FIRST_ROWS);
        Self {
            k: Tensor::zeros([sequences, rows, width], (device, dtype)),
            v: Tensor::zeros([sequences, rows, width], (device, dtype)),
            len: 0,
            capacity,
            source: None,
        }
    }

    /// Adds the keys and values of new tokens, as many of each sequence, and returns all of them, with the segments in which
    /// the new tokens see everything up to themselves.
    pub(crate) fn append(
        &mut self,
        k: Tensor<2>,
        v: Tensor<2>,
    ) -> (Tensor<2>, Tensor<2>, Segments) {
        let [sequences, _, _] = self.k.dims();
        let [all_new, width] = k.dims();
        let n_new = all_new / sequences;
        let rows = [0..sequences, self.len..self.len + n_new, 0..width];
        // Taking the buffer out leaves one owner, so that the assignment happens in place.
        let placeholder = || Tensor::zeros([0, 0, 0], &k.device());
        let keys = std::mem::replace(&mut self.k, placeholder());
        let values = std::mem::replace(&mut self.v, placeholder());
        let [k, v] = [k, v].map(|new| new.reshape([sequences, n_new, width]));
        let end = self.len + n_new;
        self.k = self.roomy(keys, end).slice_assign(rows.clone(), k);
        self.v = self.roomy(values, end).slice_assign(rows, v);
        self.len = end;
        let [_, held, _] = self.k.dims();
        let segments = (0..sequences).map(|sequence| Segment {
            q_start: sequence * n_new,
            q_len: n_new,
            k_start: sequence * held,
            k_len: end,
        });
        let flat = |buffer: &Tensor<3>| buffer.clone().reshape([sequences * held, width]);
        (flat(&self.k), flat(&self.v), segments.collect())
    }

    /// Has each sequence go on from one of those before.
    fn reorder(&mut self, from: &Tensor<1, Int>) {
        for buffer in [&mut self.k, &mut self.v] {
            *buffer = buffer.clone().select(0, from.clone());
        }
    }

    /// Returns a buffer with at least `rows` rows that begins like `buffer`.
    fn roomy(&self, buffer: Tensor<3>, rows: usize) -> Tensor<3> {
        let [sequences, held, width] = buffer.dims();
        if rows <= held {
            return buffer;
        }
        let grown = held.saturating_mul(2).min(self.capacity).max(rows);
        let shape = [sequences, grown, width];
        Tensor::zeros(shape, (&buffer.device(), buffer.dtype()))
            .slice_assign([0..sequences, 0..held, 0..width], buffer)
    }
}
