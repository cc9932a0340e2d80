//! What the benchmarks share: the shapes of SmolLM2-135M with 2048 tokens, numbers to compute with,
//! and the check of an answer.

#![allow(dead_code, reason = "no benchmark uses all of it")]

use divan::counter::ItemsCount;
use reparam_kernels::{Bf16, Number};

pub(crate) const N: usize = 2048;
pub(crate) const HIDDEN: usize = 576;
pub(crate) const INTERMEDIATE: usize = 1536;
pub(crate) const HEADS: usize = 9;
pub(crate) const KV_HEADS: usize = 3;
pub(crate) const HEAD_DIM: usize = 64;
pub(crate) const VOCABULARY: usize = 49152;
pub(crate) const RANK: usize = 16;

/// Numbers between minus `bound` and `bound`, the same in every run.
pub(crate) fn numbers_within<T: Number>(bound: f32, seed: u32, len: usize) -> Vec<T> {
    (0..len as u32)
        .map(|i| {
            let mixed = (i ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
            let mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35);
            T::from_f32(bound * ((mixed >> 8) as f32 / (1 << 23) as f32 - 1.0))
        })
        .collect()
}

/// Numbers in -1..1.
pub(crate) fn numbers(seed: u32, len: usize) -> Vec<f32> {
    numbers_within(1.0, seed, len)
}

/// Numbers in -1..1, rounded.
pub(crate) fn bf16(seed: u32, len: usize) -> Vec<Bf16> {
    numbers_within(1.0, seed, len)
}

pub(crate) fn floats(x: &[Bf16]) -> Vec<f32> {
    x.iter().map(|x| x.to_f32()).collect()
}

/// Stops the benchmark if the greatest difference is more than `tolerance` times the greatest
/// magnitude, or a number is NaN.
#[track_caller]
pub(crate) fn check<T: Number>(what: &str, actual: &[T], expected: &[f32], tolerance: f32) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let magnitude = expected.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    for (i, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let error = (actual.to_f32() - expected).abs();
        assert!(
            error <= tolerance * magnitude,
            "{what}[{i}]: {actual:?} is not {expected}; magnitude {magnitude:e}"
        );
    }
}

/// Operations, so that divan's items per second are FLOP/s.
pub(crate) fn flops(count: usize) -> ItemsCount {
    ItemsCount::new(count)
}
