//! Where the time of a step goes.
//!
//! In a runtime that measures, the native operations add up how long each kind of work takes and how many operations it
//! is. The clock is read twice for each kernel call, some fifty nanoseconds; nothing is measured otherwise.

use std::time::{Duration, Instant};

use crate::runtime::Runtime;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Products with frozen weights, low-rank terms, biases and residuals included.
    Linear,
    /// Products of the trained factors alone: `x A'`, `dy B`, and the gradients of `A` and `B`. In `f32` they are
    /// measured with the linear layers, in time but not in operations.
    LowRank,
    /// Attention.
    Attention,
    /// The output head with its loss and gradient.
    Loss,
    /// Normalization.
    Norm,
    /// Gated activations.
    Activation,
    /// Rotary positions.
    Rotary,
    /// The rows of the embedding.
    Embedding,
    /// The steps of recurrent layers, with their products, and the convolutions and scans of state-space layers.
    Recurrent,
}

impl Work {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Linear,
        Self::LowRank,
        Self::Attention,
        Self::Loss,
        Self::Norm,
        Self::Activation,
        Self::Rotary,
        Self::Embedding,
        Self::Recurrent,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::LowRank => "low_rank",
            Self::Attention => "attention",
            Self::Loss => "loss",
            Self::Norm => "norm",
            Self::Activation => "activation",
            Self::Rotary => "rotary",
            Self::Embedding => "embedding",
            Self::Recurrent => "recurrent",
        }
    }
}

/// What was measured of one kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measured {
    /// Time that passed on the thread that called.
    pub time: Duration,
    /// Additions and multiplications of matrix products; zero for work that is bound by memory.
    pub operations: f64,
}

/// What was measured, in the order of [`Work::ALL`].
pub(crate) type Sums = [Measured; Work::ALL.len()];

/// Runs a piece of work of that many operations.
#[inline]
pub(crate) fn measure<R>(work: Work, operations: f64, run: impl FnOnce() -> R) -> R {
    let Some(runtime) = Runtime::measuring() else {
        return run();
    };
    let started = Instant::now();
    let result = run();
    let time = started.elapsed();
    let sum = &mut runtime.sums()[work as usize];
    sum.time += time;
    sum.operations += operations;
    result
}

/// Operations of a product of `[m, k]` and `[k, n]`.
pub(crate) fn product(m: usize, k: usize, n: usize) -> f64 {
    2.0 * m as f64 * k as f64 * n as f64
}
