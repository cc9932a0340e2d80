//! Keys and values of the tokens that were already seen.

use burn::tensor::{DType, Device, Tensor};
use reparam_ops::{Segment, Segments};

/// The keys and values of one sequence, for every layer.
///
/// The buffers hold `capacity` tokens from the start, so that a step writes one row and copies
/// nothing.
#[derive(Debug)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
    capacity: usize,
}

impl KvCache {
    /// Creates an empty cache for up to `capacity` tokens.
    pub(crate) fn new(
        n_layers: usize,
        width: usize,
        capacity: usize,
        (device, dtype): (&Device, DType),
    ) -> Self {
        let layers = (0..n_layers)
            .map(|_| LayerCache {
                k: Tensor::zeros([capacity, width], (device, dtype)),
                v: Tensor::zeros([capacity, width], (device, dtype)),
                len: 0,
            })
            .collect();
        Self { layers, capacity }
    }

    /// Returns how many tokens were seen.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.len)
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

/// The part of a cache that belongs to one layer.
#[derive(Debug)]
pub(crate) struct LayerCache {
    k: Tensor<2>,
    v: Tensor<2>,
    len: usize,
}

impl LayerCache {
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
        self.k = keys.slice_assign(rows.clone(), k.clone());
        self.v = values.slice_assign(rows, v);
        self.len += n_new;
        let segment = Segment {
            q_start: 0,
            q_len: n_new,
            k_start: 0,
            k_len: self.len,
        };
        (self.k.clone(), self.v.clone(), Segments::from([segment]))
    }
}
