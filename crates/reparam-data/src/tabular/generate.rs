//! Linear problems whose solution is known.

use std::f64::consts::TAU;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::error::{Result, TabularError};
use super::number::Notation;
use super::table::Table;

#[cfg(test)]
mod tests;

/// Keeps these streams apart from every other use of the same seed.
const DOMAIN: &[u8; 16] = b"reparam table v1";

/// The most numbers, `samples * features`, that are generated: 800 MB.
pub const MAX_NUMBERS: usize = 100_000_000;

/// A linear problem to generate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// Rows, 2 or more.
    pub samples: usize,
    /// Columns of the features, 1 or more.
    pub features: usize,
    /// Standard deviation of the noise on the target, 0 or more.
    pub noise: f64,
    /// What the numbers are drawn from.
    pub seed: u64,
}

/// A linear problem and its solution.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Features `x1`, `x2`, ... and the target `y`.
    pub table: Table,
    /// The coefficients `w`, one a feature, that the target was made with.
    pub coefficients: Vec<f64>,
}

/// Generates `y_i = sum_j w_j x_ij + noise * e_i`.
///
/// The features `x_ij` and `e_i` are standard normal and the coefficients `w_j` uniform in `[0, 100)`, as in
/// scikit-learn's `make_regression` with every feature informative; as there, the intercept is 0.
///
/// The algorithm is part of the contract, so that a problem can be made again with a later version:
///
/// 1. Coefficients, features and noise each have a generator of their own, so that none changes with the number of
///    the others: ChaCha with 12 rounds, counter and stream 0; its 32-byte key is `seed`, 64 bits little-endian,
///    then 0 for the coefficients, 1 for the features or 2 for the noise, likewise, then the 16 bytes
///    `reparam table v1`.
/// 2. `w_j = 100 u_j`, where `u` is the upper 53 bits of the next 64-bit word times `2^-53`.
/// 3. Normal numbers come in pairs from two words each (Box and Muller, "A note on the generation of random normal
///    deviates", 1958): `r cos(2 pi u)` and `r sin(2 pi u)` with `r = sqrt(-2 ln(v))`, where `v` is the upper 53
///    bits of the first word plus 1, times `2^-53`, and `u` is made of the second word as in step 2. The features
///    are filled row by row.
/// 4. The sum over `j` runs upwards and starts at 0; then the noise is added.
///
/// The words are the same everywhere; the last digit of a logarithm, sine or cosine may differ between platforms.
///
/// # Errors
///
/// [`TabularError::TooFewSamples`], [`TabularError::ZeroFeatures`], [`TabularError::Noise`] and
/// [`TabularError::TooLarge`] (above [`MAX_NUMBERS`]).
///
/// # Cost
///
/// `O(samples * features)` time and 8 bytes a number.
pub fn generate(problem: &Generate) -> Result<Generated> {
    let &Generate {
        samples,
        features,
        noise,
        seed,
    } = problem;
    if samples < 2 {
        return Err(TabularError::TooFewSamples { samples });
    }
    if features == 0 {
        return Err(TabularError::ZeroFeatures);
    }
    if !(noise.is_finite() && noise >= 0.0) {
        return Err(TabularError::Noise { noise });
    }
    let count = samples
        .checked_mul(features)
        .filter(|count| *count <= MAX_NUMBERS);
    let Some(count) = count else {
        let limit = MAX_NUMBERS;
        return Err(TabularError::TooLarge {
            samples,
            features,
            limit,
        });
    };

    let mut rng = stream(seed, 0);
    let coefficients: Vec<f64> = (0..features).map(|_| 100.0 * uniform(&mut rng)).collect();
    let x = normal(&mut stream(seed, 1), count);
    let e = normal(&mut stream(seed, 2), samples);
    let y: Vec<f64> = x
        .chunks_exact(features)
        .zip(e)
        .map(|(row, e)| {
            let sum = row
                .iter()
                .zip(&coefficients)
                .fold(0.0, |sum, (x, w)| sum + w * x);
            sum + noise * e
        })
        .collect();
    if y.iter().any(|y| !y.is_finite()) {
        return Err(TabularError::Noise { noise });
    }
    let table = Table {
        features: (1..=features)
            .map(|feature| format!("x{feature}"))
            .collect(),
        target: "y".to_owned(),
        x,
        y,
        rows: (0..samples).collect(),
        n_rows: samples,
        dropped: Vec::new(),
        digest: None,
        notation: Notation::Plain,
    };
    Ok(Generated {
        table,
        coefficients,
    })
}

fn stream(seed: u64, part: u64) -> ChaCha12Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&part.to_le_bytes());
    key[16..].copy_from_slice(DOMAIN);
    ChaCha12Rng::from_seed(key)
}

/// The upper 53 bits of the next word, as many as a 64-bit number holds exactly.
fn bits(rng: &mut ChaCha12Rng) -> u64 {
    rng.next_u64() >> 11
}

/// A uniform number in `[0, 1)`.
fn uniform(rng: &mut ChaCha12Rng) -> f64 {
    const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
    bits(rng) as f64 * UNIT
}

/// `count` standard normal numbers.
fn normal(rng: &mut ChaCha12Rng, count: usize) -> Vec<f64> {
    const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
    let mut numbers = Vec::with_capacity(count + 1);
    while numbers.len() < count {
        // In (0, 1], for the logarithm of 0 does not exist.
        let v = (bits(rng) + 1) as f64 * UNIT;
        let angle = TAU * uniform(rng);
        let radius = (-2.0 * v.ln()).sqrt();
        numbers.extend([radius * angle.cos(), radius * angle.sin()]);
    }
    numbers.truncate(count);
    numbers
}
