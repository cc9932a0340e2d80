//! Differentiable operations on Burn tensors, each with a hand-written backward pass.
//!
//! A language model needs few operations, and how they are fused and what they keep for the
//! backward pass decides how fast it trains and how much memory that takes. Every operation here
//! exists twice:
//!
//! - a **native** form that calls [`reparam_kernels`] and registers its own backward step with
//!   Burn's autodiff. It runs for `f32` tensors on Burn's CPU backend (Flex);
//! - a **reference** form in [`mod@reference`], a plain composition of Burn operations. It runs
//!   everywhere else (other backends, `f64`, gradient checkpointing devices), and it is what the
//!   tests hold the native form against.
//!
//! Callers do not choose: the functions of this crate look at the tensors and take the native form
//! where it exists.
//!
//! Tokens are flat. A batch of sequences is one list of `N` tokens and [`Segments`] that say where
//! each sequence starts, so there is no padding anywhere and hidden states are `[N, d]`.
//!
//! # Panics
//!
//! Like Burn's own tensor functions, the operations panic when shapes do not fit together: that is
//! a mistake in the calling program, not in a user's input.

mod activation;
mod attention;
mod dropout;
mod embedding;
mod experts;
pub mod fused;
mod linear;
mod loss;
mod native;
mod norm;
pub mod profile;
mod recurrent;
pub mod reference;
mod rotary;
pub mod runtime;
mod state_space;
#[cfg(test)]
mod tests;

pub use activation::{activation, gated, swiglu};
pub use attention::{
    AttentionConfig, ScoreTerms, attention, attention_with, attention_with_dropout,
};
pub use dropout::{DropoutKey, dropout};
pub use embedding::embedding;
pub use experts::{ExpertRows, expert_linear};
pub use linear::{LinearPlan, LowRank, linear};
pub use loss::{IGNORE_INDEX, linear_cross_entropy, smoothed_linear_cross_entropy, soft_cap};
pub use norm::{layer_norm, rms_norm};
pub use recurrent::{RecurrentState, recurrent};
pub use reparam_kernels::attention::Segment;
pub use reparam_kernels::gated::Activation;
pub use reparam_kernels::recurrent::Cell;
pub use rotary::{RotaryTable, rotary};
pub use state_space::{ScanInputs, causal_conv, selective_scan};

use std::sync::Arc;

/// Where the sequences of a flat batch lie: shared, because every layer's backward keeps it.
pub type Segments = Arc<[Segment]>;

/// Returns the segments of a training batch, in which every sequence attends to itself.
///
/// `bounds` are the cumulative starts `[0, len_1, len_1 + len_2, ...]`, the last entry being the
/// number of tokens.
///
/// ```
/// let segments = reparam_ops::segments_from_bounds(&[0, 3, 7]);
/// assert_eq!(segments.len(), 2);
/// assert_eq!((segments[1].q_start, segments[1].k_len), (3, 4));
/// ```
pub fn segments_from_bounds(bounds: &[usize]) -> Segments {
    bounds
        .windows(2)
        .map(|pair| Segment::document(pair[0], pair[1] - pair[0]))
        .collect()
}
