//! Drawing rows again, to say how far a measure of them is to be trusted.
//!
//! The bootstrap (Efron, "Bootstrap methods: another look at the jackknife", 1979): of `n` rows, `n` are drawn with replacement, and
//! measured; many times over, the measures vary about as they would over other rows of the same kind.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::order::below;

#[cfg(test)]
mod tests;

/// Keeps this stream apart from every other use of the same seed.
const DOMAIN: &[u8; 16] = b"reparam draws v1";

/// Draws `n` of `n` rows with replacement: a function of `n`, `seed` and the number of the `sample` alone.
///
/// The generator is that of [`permutation`](crate::permutation), with other words in its key.
#[must_use]
pub fn resample(n: usize, seed: u64, sample: u64) -> Vec<usize> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&sample.to_le_bytes());
    key[16..].copy_from_slice(DOMAIN);
    let mut rng = ChaCha12Rng::from_seed(key);
    (0..n).map(|_| below(&mut rng, n as u64) as usize).collect()
}

/// The percentile interval of a level: what lies between the `(1 - level) / 2` quantile of some values and that of as much from
/// the other end. `None` without values.
///
/// ```
/// use reparam_data::percentile_interval;
///
/// let values = (0..=100).map(f64::from).collect();
/// assert_eq!(percentile_interval(values, 0.5), Some([25.0, 75.0]));
/// ```
#[must_use]
pub fn percentile_interval(mut values: Vec<f64>, level: f64) -> Option<[f64; 2]> {
    if values.is_empty() {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    // The lower place is mirrored, so that no rounding makes the two ends differ.
    let low = quantile(values.iter().copied(), values.len(), tail);
    let high = quantile(values.iter().rev().copied(), values.len(), tail);
    Some([low, high])
}

/// The quantile of sorted values, between two of them by their distance, as NumPy's default.
fn quantile(sorted: impl Iterator<Item = f64>, n: usize, at: f64) -> f64 {
    let place = at * (n - 1) as f64;
    let mut rest = sorted.skip(place as usize);
    let first = rest.next().unwrap_or(f64::NAN);
    match place.fract() {
        0.0 => first,
        share => first + (rest.next().unwrap_or(first) - first) * share,
    }
}
