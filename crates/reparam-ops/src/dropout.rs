//! Dropout whose randomness is a function of where it is used.

use burn::tensor::{Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

/// What determines a dropout mask: the same key gives the same mask, on any number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DropoutKey {
    /// The run's seed.
    pub seed: u64,
    /// The forward pass: counts micro-batches over the whole run.
    pub step: u64,
    /// The tensor: differs for every place where dropout is used.
    pub tensor: u64,
}

/// Elements that share one stream of random numbers, so that blocks can be made in parallel.
const BLOCK: usize = 1 << 16;

/// Sets each element to zero with probability `p` and divides the others by `1 - p`.
///
/// Element `i` depends on the key and `i` alone: its block's stream is ChaCha8 seeded by the key,
/// stream number `i / 65536`.
///
/// # Cost
///
/// The mask is kept for the backward pass, as large as `x`.
///
/// # Panics
///
/// Panics unless `0 <= p < 1`.
pub fn dropout(x: Tensor<2>, p: f32, key: DropoutKey) -> Tensor<2> {
    assert!((0.0..1.0).contains(&p), "dropout needs 0 <= p < 1, got {p}");
    if p == 0.0 {
        return x;
    }
    let mask = mask(x.dims().iter().product(), p, key);
    let data = TensorData::new(mask, x.dims()).convert_dtype(x.dtype());
    let target = (&x.device(), x.dtype());
    x * Tensor::from_data(data, target)
}

/// The mask of a tensor: zero, or `1 / (1 - p)`.
pub(crate) fn mask(len: usize, p: f32, key: DropoutKey) -> Vec<f32> {
    let kept = factor(p);
    let mut mask = vec![0.0; len];
    mask.par_chunks_mut(BLOCK)
        .enumerate()
        .for_each(|(block_idx, block)| {
            for (value, is_kept) in block.iter_mut().zip(draws(block_idx, p, key)) {
                if is_kept {
                    *value = kept;
                }
            }
        });
    mask
}

/// The same as bits, from the lowest one of the first word on: set where the mask is not zero.
pub(crate) fn bits(len: usize, p: f32, key: DropoutKey) -> Vec<u64> {
    const BITS: usize = u64::BITS as usize;
    let mut words = vec![0; len.div_ceil(BITS)];
    words
        .par_chunks_mut(BLOCK / BITS)
        .enumerate()
        .for_each(|(block_idx, block)| {
            let mut draws = draws(block_idx, p, key);
            for word in block {
                for (bit, is_kept) in (0..BITS).zip(&mut draws) {
                    *word |= u64::from(is_kept) << bit;
                }
            }
        });
    words
}

/// What is kept is multiplied by this.
pub(crate) fn factor(p: f32) -> f32 {
    1.0 / (1.0 - p)
}

/// Whether the elements of a block are kept, one after the other.
fn draws(block_idx: usize, p: f32, key: DropoutKey) -> impl Iterator<Item = bool> {
    assert!((0.0..1.0).contains(&p), "dropout needs 0 <= p < 1, got {p}");
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&key.seed.to_le_bytes());
    seed[8..16].copy_from_slice(&key.step.to_le_bytes());
    seed[16..24].copy_from_slice(&key.tensor.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(seed);
    rng.set_stream(block_idx as u64);
    // A draw below the threshold drops the element.
    let threshold = (f64::from(p) * 2f64.powi(32)) as u32;
    std::iter::repeat_with(move || rng.next_u32() >= threshold)
}
