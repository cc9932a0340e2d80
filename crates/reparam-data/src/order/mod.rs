//! Which blocks a step sees.
//!
//! The order is a function of the seed, the number of blocks, the batch size and the step. Nothing is carried
//! from step to step, so a resumed run sees what the uninterrupted one would have seen.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::error::{DataError, Result};

mod held_out;
#[cfg(test)]
mod tests;

pub(crate) use held_out::{Candidate, HeldOut, hold_out_documents};
pub use held_out::{ContentHash, Size, hold_out};

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
pub(crate) fn below(rng: &mut ChaCha12Rng, bound: u64) -> u64 {
    // 2^64 mod bound, computed in 64 bits.
    let threshold = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(bound);
        if product as u64 >= threshold {
            return (product >> 64) as u64;
        }
    }
}

/// A uniform number in `0..1`, with 53 bits.
pub(crate) fn unit(rng: &mut ChaCha12Rng) -> f64 {
    // As many bits as a number has.
    (rng.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// The blocks of every batch of a run.
///
/// An epoch has every block once, and no step has blocks of two epochs: with `n` blocks, batches of `b` blocks and `a`
/// batches in a step, an epoch has `ceil(n / (a b))` steps. The last step of an epoch has what is left: its last batch
/// may be smaller, and the batches behind that are empty. So all that a run of whole epochs learns is the data times the
/// epochs, whatever the size of its batches.
///
/// Batches are numbered over the whole run: step `s` has the batches `a s .. a (s + 1)`.
#[derive(Debug)]
pub struct BatchPlan {
    n_blocks: usize,
    batch_size: usize,
    accumulation: u64,
    seed: u64,
    shuffle: bool,
    /// The last epoch asked for, because steps mostly come one after the other.
    cache: Mutex<Option<(u64, Arc<[usize]>)>>,
}

impl BatchPlan {
    /// Plans batches of `batch_size` blocks, one a step; without `shuffle` every epoch has the blocks in order.
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
            accumulation: 1,
            seed,
            shuffle,
            cache: Mutex::new(None),
        })
    }

    /// Sets how many batches a step has, at least 1.
    #[must_use]
    pub fn with_accumulation(self, batches: usize) -> Self {
        Self {
            accumulation: batches.max(1) as u64,
            ..self
        }
    }

    /// Returns the blocks of batch `number`, counted from 0 over the whole run; none behind the end of an epoch.
    ///
    /// # Cost
    ///
    /// `O(batch_size)`, and `O(n_blocks)` the first time an epoch is asked for.
    #[must_use]
    pub fn batch(&self, number: u64) -> Vec<usize> {
        let epoch = number / self.batches_in_epoch();
        self.places(number)
            .map(|place| self.block(epoch, place))
            .collect()
    }

    /// Returns how many blocks batch `number` has.
    #[must_use]
    pub fn batch_len(&self, number: u64) -> usize {
        self.places(number).len()
    }

    /// Returns how many times the data have been gone through before batch `number`: a whole number and the part of the
    /// epoch that it is in.
    #[must_use]
    pub fn epochs_before(&self, number: u64) -> f64 {
        let epoch = number / self.batches_in_epoch();
        epoch as f64 + self.places(number).start as f64 / self.n_blocks as f64
    }

    /// Returns the number of steps that go through the data `epochs` times, which need not be whole; at least 1.
    #[must_use]
    pub fn steps_for(&self, epochs: f64) -> u64 {
        let seen = (epochs * self.n_blocks as f64).ceil() as u128;
        let (whole, rest) = (seen / self.n_blocks as u128, seen % self.n_blocks as u128);
        let steps =
            whole * u128::from(self.steps_in_epoch()) + rest.div_ceil(self.blocks_in_step());
        u64::try_from(steps).unwrap_or(u64::MAX).max(1)
    }

    /// Returns the number of steps in an epoch.
    #[must_use]
    pub fn steps_in_epoch(&self) -> u64 {
        (self.n_blocks as u128).div_ceil(self.blocks_in_step()) as u64
    }

    /// Number of blocks that a batch has, but for the last of an epoch.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Number of batches in a step.
    #[must_use]
    pub fn accumulation(&self) -> u64 {
        self.accumulation
    }

    fn blocks_in_step(&self) -> u128 {
        // 128 bits hold the product of any two sizes.
        self.batch_size as u128 * u128::from(self.accumulation)
    }

    /// Empty ones included. At most one step's batches more than blocks, which 64 bits hold.
    fn batches_in_epoch(&self) -> u64 {
        self.steps_in_epoch().saturating_mul(self.accumulation)
    }

    /// The places in the order of their epoch that a batch has.
    fn places(&self, number: u64) -> Range<usize> {
        let place = |batches: u64| {
            let place = u128::from(batches) * self.batch_size as u128;
            place.min(self.n_blocks as u128) as usize
        };
        let first = number % self.batches_in_epoch();
        place(first)..place(first + 1)
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
