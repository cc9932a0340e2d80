//! The halves of a decoder layer as one operation each, over bf16 activations.
//!
//! A step of a language model reads and writes far more memory between its products than the products need. Here what
//! happens between them is done while the numbers are at hand, nothing is kept that can be made again cheaply, and Burn's graph has one
//! node for half a layer, so that a hidden state has one reader and its gradient is summed in place.
//!
//! The operations run where weights are frozen, with or without low-rank factors. Everything else goes through
//! the operations of the crate's root.

mod attention_block;
mod buffer;
mod frozen;
mod head;
mod mlp_block;
mod norm;
mod stack;
mod states;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::ops::NodeGuard;

pub use attention_block::{AttentionBlock, BlockCache, attention_block, attention_block_cached};
pub use frozen::{FrozenWeight, FusedLinear, FusedLowRank};
pub use head::{frozen_embedding, norm_linear_cross_entropy, norm_logits};
pub use mlp_block::{MlpBlock, mlp_block};
pub use norm::FusedNorm;

/// What a forward pass leaves to its backward pass.
///
/// Burn wants states that can be cloned, but it hands out each once; so the clone shares, and whoever asks first has it.
#[derive(Debug)]
struct Kept<T>(Arc<Mutex<Option<T>>>);

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Kept<T> {
    /// Keeps `value`, or nothing if it is to be computed again.
    fn new(value: T, recompute: bool) -> Self {
        Self(Arc::new(Mutex::new((!recompute).then_some(value))))
    }

    /// What was kept, or what `again` computes.
    fn take(&self, again: impl FnOnce() -> T) -> T {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.unwrap_or_else(again)
    }
}

/// The guards of the input and of all factors as the array that Burn wants.
fn guards<const N: usize>(input: NodeGuard, factors: Vec<NodeGuard>) -> [NodeGuard; N] {
    let all: Vec<_> = std::iter::once(input).chain(factors).collect();
    match all.try_into() {
        Ok(guards) => guards,
        Err(_) => unreachable!("two guards a layer"),
    }
}
