//! Keys and values of the tokens that were already seen.

use burn::tensor::{DType, Device, Tensor};
use reparam::ForwardContext;
use reparam_ops::fused::BlockCache;
use reparam_ops::{RecurrentState, Segment, Segments};

/// The keys and values of one sequence, for every layer of a model that does not change.
///
/// The buffers grow by doubling: most steps write one row and copy
/// nothing, and a generation that may be long takes no memory for what it never says.
#[derive(Debug)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
    /// The states of recurrent layers, once a token was seen.
    pub(crate) states: Vec<RecurrentState>,
    /// How many tokens were seen.
    pub(crate) seen: usize,
    /// What passes share: the plans of the layers.
    pub(crate) context: ForwardContext,
    capacity: usize,
}

impl KvCache {
    /// Creates an empty cache for up to `capacity` tokens.
    pub(crate) fn new(layers: Vec<LayerCache>, capacity: usize) -> Self {
        Self {
            layers,
            states: Vec::new(),
            seen: 0,
            context: ForwardContext::generation(),
            capacity,
        }
    }

    /// Returns how many tokens were seen.
    pub fn len(&self) -> usize {
        self.seen
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
#[derive(Debug)]
pub(crate) enum LayerCache {
    /// Of a layer with ordinary weights.
    Tensors(Box<TensorCache>),
    /// Of a layer with packed weights.
    Fused(BlockCache),
}

/// Keys and values as tensors.
#[derive(Debug)]
pub(crate) struct TensorCache {
    k: Tensor<2>,
    v: Tensor<2>,
    len: usize,
    capacity: usize,
}

impl TensorCache {
    /// Creates an empty cache for up to `capacity` tokens with `width` numbers of keys and as many of values.
    pub(crate) fn new(width: usize, capacity: usize, (device, dtype): (&Device, DType)) -> Self {
        let rows = capacity.min(FIRST_ROWS);
        Self {
            k: Tensor::zeros([rows, width], (device, dtype)),
            v: Tensor::zeros([rows, width], (device, dtype)),
            len: 0,
            capacity,
        }
    }

    /// Adds the keys and values of new tokens and returns all of them, with the segment in which
    /// the new tokens see everything up to themselves.
    pub(crate) fn append(
        &mut self,
        k: Tensor<2>,
        v: Tensor<2>,
    ) -> (Tensor<2>, Tensor<2>, Segments) {
        let [n_new, width] = k.dims();
        let rows = [self.len..self.len + n_new, 0..width];
        // Taking the buffer out leaves one owner, so that the assignment happens in place.
        let placeholder = || Tensor::zeros([0, 0], &k.device());
        let keys = std::mem::replace(&mut self.k, placeholder());
        let values = std::mem::replace(&mut self.v, placeholder());
        self.k = self.roomy(keys, rows[0].end).slice_assign(rows.clone(), k);
        self.v = self.roomy(values, rows[0].end).slice_assign(rows, v);
        self.len += n_new;
        let segment = Segment {
            q_start: 0,
            q_len: n_new,
            k_start: 0,
            k_len: self.len,
        };
        (self.k.clone(), self.v.clone(), Segments::from([segment]))
    }

    /// Returns a buffer with at least `rows` rows that begins like `buffer`.
    fn roomy(&self, buffer: Tensor<2>, rows: usize) -> Tensor<2> {
        let [held, width] = buffer.dims();
        if rows <= held {
            return buffer;
        }
        let grown = held.saturating_mul(2).min(self.capacity).max(rows);
        Tensor::zeros([grown, width], (&buffer.device(), buffer.dtype()))
            .slice_assign([0..held, 0..width], buffer)
    }
}
