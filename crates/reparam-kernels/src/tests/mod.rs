//! Tests of the kernels against references in `f64`, on every instruction set of the machine and for
//! several numbers of threads.

mod activation;
mod attention;
mod bf16;
mod causal_conv;
mod cross_entropy;
mod embedding;
mod exp;
mod gated;
mod isa;
mod linear;
mod matmul;
mod norm;
mod normal;
mod number;
mod packed;
mod recurrent;
mod reference;
mod rotary;
mod selective_scan;
mod swiglu;
mod team;
mod unaligned;

use proptest::prelude::ProptestConfig;

use crate::isa::{IN_FORCE, Token};
use crate::{Bf16, Isa, KernelError};

/// The half-distance between 1 and the next `f32`: the error of one rounding.
const UNIT: f64 = f32::EPSILON as f64 / 2.0;

/// Instruction sets in turn; each is chosen until the next is asked for.
struct Tokens(std::vec::IntoIter<Token>);

impl Iterator for Tokens {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let token = self.0.next();
        IN_FORCE.set(token);
        token
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        IN_FORCE.set(None);
    }
}

/// All instruction sets of this machine.
fn tokens() -> Tokens {
    let available = Isa::available().into_iter().filter_map(Isa::token);
    Tokens(available.collect::<Vec<_>>().into_iter())
}

/// Those of [`tokens`], and products with emulated tile registers.
fn tokens_with_tiles() -> Tokens {
    let all: Vec<_> = tokens().chain([Token::EmulatedAmx]).collect();
    Tokens(all.into_iter())
}

/// So many cases of a law, or as many as `PROPTEST_CASES` says if those are fewer.
fn cases(most: u32) -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig {
        cases: most.min(asked.cases),
        ..asked
    }
}

/// Numbers in -1..1 that depend on `seed` alone (splitmix64).
fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..len)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            // 24 bits, all of which an f32 holds.
            (z >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// The nearest bf16 numbers.
fn halves(x: &[f32]) -> Vec<Bf16> {
    x.iter().map(|&x| Bf16::from_f32(x)).collect()
}

fn floats(x: &[Bf16]) -> Vec<f32> {
    x.iter().map(|x| x.to_f32()).collect()
}

/// Asserts that all errors are at most `tolerance` times the greatest expected magnitude, or 0.1 if
/// that is more: the inputs are of size one, and a sum that cancels keeps the errors of its terms.
#[track_caller]
fn assert_close(what: &str, actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}: length");
    let magnitude = expected.iter().fold(0.1_f64, |max, x| max.max(x.abs()));
    for (i, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(actual) - expected).abs();
        // Written so that NaN fails.
        assert!(
            error <= tolerance * magnitude,
            "{what}[{i}]: {actual} is not {expected}; error {error:e}, magnitude {magnitude:e}"
        );
    }
}

/// Asserts that the length of the argument `name` was refused.
#[track_caller]
fn assert_refused<T: std::fmt::Debug>(name: &str, result: Result<T, KernelError>) {
    match result {
        Err(KernelError::Length { name: found, .. }) => assert_eq!(found, name),
        other => panic!("{name}: {other:?}"),
    }
}

/// Runs `kernel` in pools of 1, 2 and 3 threads and asserts that all bits of its outputs are equal.
#[track_caller]
fn assert_threads_agree(what: &str, kernel: impl Fn() -> Vec<Vec<f32>> + Send + Sync) {
    let token = IN_FORCE.get();
    let run = |threads| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a small thread pool")
            .install(|| {
                IN_FORCE.set(token);
                kernel()
                    .iter()
                    .map(|x| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
                    .collect::<Vec<_>>()
            })
    };
    let expected = run(1);
    for threads in [2, 3] {
        assert!(run(threads) == expected, "{what} on {threads} threads");
    }
}
