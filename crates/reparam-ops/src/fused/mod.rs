//! The halves of a decoder layer as one operation each, over bf16 activations.
//!
//! A step of a language model reads and writes far more memory between its products than the products need. Here what
//! happens between them is done while the numbers are at hand, nothing is kept that can be made again cheaply, and Burn's graph has one
//! node for half a layer, so that a hidden state has one reader and its gradient is summed in place.
//!
//! The operations run where weights are frozen, with or without low-rank factors. What has no fused operation goes through those of
//! the crate's root in `f32`, with [`packed_linear`] for its layers.

mod attention_block;
mod block;
mod buffer;
mod experts;
mod head;
mod linear;
mod mlp_block;
mod norm;
mod packed;
mod residual;
mod slices;
mod stack;
mod states;
#[cfg(test)]
mod tests;

pub(crate) use buffer::Pool;
pub(crate) use states::States;

pub use attention_block::{AttentionBlock, BlockCache, attention_block, attention_block_cached};
pub use experts::packed_expert_linear;
pub use head::{frozen_embedding, norm_linear_cross_entropy, norm_logits};
pub use linear::packed_linear;
pub use mlp_block::{MlpBlock, mlp_block};
pub use norm::{FusedNorm, norm};
pub use packed::{FusedLinear, PackedDType, PackedWeight};
pub use reparam_kernels::team::with_team;
pub use residual::FusedNorms;
