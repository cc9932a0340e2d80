//! Initial values that depend on a seed and a name only.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Returns a number that differs from name to name and is the same on every machine.
///
/// This is the 64-bit FNV-1a hash.
pub(crate) fn name_key(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn generator(seed: u64, name: &str) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&name_key(name).to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// Returns a number in `[0, 1)`, a multiple of 2^-53.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * 2f64.powi(-53)
}

/// Returns numbers uniform in `[-bound, bound)`, which follow from `seed` and `name` alone.
pub fn uniform(len: usize, bound: f64, seed: u64, name: &str) -> Vec<f32> {
    let mut rng = generator(seed, name);
    (0..len)
        .map(|_| ((2.0 * unit(&mut rng) - 1.0) * bound) as f32)
        .collect()
}

/// Returns normal numbers of the given standard deviation, by the Box-Muller transform. They follow from `seed` and `name` alone.
pub fn normal(len: usize, std: f64, seed: u64, name: &str) -> Vec<f32> {
    let mut rng = generator(seed, name);
    (0..len)
        .map(|_| {
            // One minus a number in [0, 1) is never zero, so the logarithm is finite.
            let radius = (-2.0 * (1.0 - unit(&mut rng)).ln()).sqrt();
            let angle = std::f64::consts::TAU * unit(&mut rng);
            (radius * angle.cos() * std) as f32
        })
        .collect()
}
