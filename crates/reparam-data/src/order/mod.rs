//! Which blocks a step sees.
//!
//! The order is a function of the seed, the number of blocks, the batch size and the step. Nothing is carried
//! from step to step, so a resumed run sees what the uninterrupted one would have seen.

use std::sync::{Arc, Mutex, PoisonError};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::error::{DataError, Result};

#[cfg(test)]
mod tests;

/// Keeps this stream apart from every other use of the same seed.
const DOMAIN: &[u8; 16] = b"reparam order v1";

/// Returns a random permutation of `0..n`, a function of `n`, `seed` and `epoch` alone.
///
/// The algorithm is part of the contract, so that a run can be repeated with a later version:
///
/// 1. The generator is ChaCha with 12 rounds, counter and stream 0; its 32-byte key is `seed` and `epoch`, both
///    64 bits little-endian, then the 16 bytes `reparam order v1`.
/// 2. Fisher and Yates: starting from the identity, for `i` from `n - 1` down to 1, swap entry `i` with entry `j`,
///    where `j` is uniform on `0..=i`.
/// 3. A uniform number below `b` is the upper half of the 128-bit product `x * b`, where `x` is the next 64-bit
///    word of the generator; `x` is drawn again while the lower half is below `2^64 mod b` (Lemire, "Fast random
///    integer generation in an interval", arXiv 1805.10941).
#[must_use]
pub fn permutation(n: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..].copy_from_slice(DOMAIN);
    let mut rng = ChaCha12Rng::from_seed(key);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        let j = below(&mut rng, i as u64 + 1);
        order.swap(i, j as usize);
    }
    order
}

/// A uniform number in `0..bound`.
fn below(rng: &mut ChaCha12Rng, bound: u64) -> u64 {
    // 2^64 mod bound, computed in 64 bits.
    let threshold = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(bound);
        if product as u64 >= threshold {
            return (product >> 64) as u64;
        }
    }
}

/// The blocks of every batch of a run.
///
/// Epochs follow each other without a gap: block number `k` of the run (`k = step * batch_size + place`) is entry
/// `k mod n_blocks` of the order of epoch `k / n_blocks`. So every batch has `batch_size` blocks, also where an
/// epoch ends within one, and every block is seen once an epoch. If there are fewer blocks than `batch_size`, a
/// batch spans several epochs and has a block more than once.
#[derive(Debug)]
pub struct BatchPlan {
    n_blocks: usize,
    batch_size: usize,
    seed: u64,
    shuffle: bool,
    /// The last epoch asked for, because steps mostly come one after the other.
    cache: Mutex<Option<(u64, Arc<[usize]>)>>,
}

impl BatchPlan {
    /// Plans batches of `batch_size` blocks; without `shuffle` every epoch has the blocks in order.
    ///
    /// # Errors
    ///
    /// [`DataError::NoBlocks`] and [`DataError::ZeroBatchSize`].
    pub fn new(n_blocks: usize, batch_size: usize, seed: u64, shuffle: bool) -> Result<Self> {
        if n_blocks == 0 {
            return Err(DataError::NoBlocks);
        }
        if batch_size == 0 {
            return Err(DataError::ZeroBatchSize);
        }
        Ok(Self {
            n_blocks,
            batch_size,
            seed,
            shuffle,
            cache: Mutex::new(None),
        })
    }

    /// Returns the blocks of the batch of step `step`, counted from 0 over the whole run.
    ///
    /// # Cost
    ///
    /// `O(batch_size)`, and `O(n_blocks)` the first time an epoch is asked for.
    #[must_use]
    pub fn batch(&self, step: u64) -> Vec<usize> {
        let n_blocks = self.n_blocks as u128;
        // 128 bits hold the product of any step and batch size.
        let first = u128::from(step) * self.batch_size as u128;
        (first..first + self.batch_size as u128)
            .map(|block| self.block((block / n_blocks) as u64, (block % n_blocks) as usize))
            .collect()
    }

    /// Returns the epoch, from 0, that step `step` begins in.
    #[must_use]
    pub fn epoch(&self, step: u64) -> u64 {
        (u128::from(step) * self.batch_size as u128 / self.n_blocks as u128) as u64
    }

    /// Returns the number of steps after which every block has been seen at least `epochs` times.
    #[must_use]
    pub fn steps_for(&self, epochs: u64) -> u64 {
        (u128::from(epochs) * self.n_blocks as u128).div_ceil(self.batch_size as u128) as u64
    }

    /// Number of blocks a batch has.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn block(&self, epoch: u64, place: usize) -> usize {
        if !self.shuffle {
            return place;
        }
        // The cache is written in one piece, so a panic elsewhere cannot have left it half done.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cache {
            Some((cached, order)) if *cached == epoch => order[place],
            _ => {
                let order: Arc<[usize]> = permutation(self.n_blocks, self.seed, epoch).into();
                let block = order[place];
                *cache = Some((epoch, order));
                block
            }
        }
    }
}

/// Returns how many of `n` pieces come before the held-out part: train on `..k`, evaluate on `k..`.
///
/// The held-out part is the contiguous tail, `round(n * eval_fraction)` pieces, but at least one and not all.
/// It is not drawn at random: pieces of one document resemble their neighbours, and a random choice would put
/// neighbours of nearly every held-out piece into the training part.
///
/// With `eval_fraction = 0` nothing is held out and the result is `n`.
///
/// # Errors
///
/// [`DataError::EvalFraction`] unless `0 <= eval_fraction < 1`; [`DataError::TooFewToSplit`] for a positive
/// fraction of fewer than two pieces.
pub fn split(n: usize, eval_fraction: f64) -> Result<usize> {
    if !(0.0..1.0).contains(&eval_fraction) {
        return Err(DataError::EvalFraction {
            fraction: eval_fraction,
        });
    }
    if eval_fraction == 0.0 {
        return Ok(n);
    }
    if n < 2 {
        return Err(DataError::TooFewToSplit { pieces: n });
    }
    let held_out = (n as f64 * eval_fraction).round() as usize;
    Ok(n - held_out.clamp(1, n - 1))
}
