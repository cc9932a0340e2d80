//! What is drawn.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::order::unit;

/// Keeps these streams apart from every other use of the same seed.
const DOMAIN: &[u8; 16] = b"reparam words v1";

/// The random numbers of an epoch.
///
/// The generator is ChaCha with 12 rounds; its key is seed and epoch, both 64 bits little-endian, then [`DOMAIN`]. In stream 0 the
/// 32-bit words `2 p` and `2 p + 1` decide whether position `p` is kept; stream `2 p + 1` has its window, stream `2 p + 2` the
/// drawn words of its examples, one after the other.
pub(super) struct Draws {
    kept: ChaCha12Rng,
    others: ChaCha12Rng,
}

impl Draws {
    pub(super) fn new(seed: u64, epoch: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&epoch.to_le_bytes());
        key[16..].copy_from_slice(DOMAIN);
        let generator = ChaCha12Rng::from_seed(key);
        Self {
            kept: generator.clone(),
            others: generator,
        }
    }

    /// A number in `0..1`, with 53 bits, for a position.
    pub(super) fn uniform(&mut self, position: usize) -> f64 {
        self.kept.set_word_pos(2 * position as u128);
        unit(&mut self.kept)
    }

    /// The generator of a position's window.
    pub(super) fn window(&mut self, position: usize) -> &mut ChaCha12Rng {
        self.stream(2 * position as u64 + 1)
    }

    /// Goes to the drawn words of a position.
    pub(super) fn negatives(&mut self, position: usize) {
        self.stream(2 * position as u64 + 2);
    }

    /// The generator, where it stands.
    pub(super) fn next(&mut self) -> &mut ChaCha12Rng {
        &mut self.others
    }

    fn stream(&mut self, stream: u64) -> &mut ChaCha12Rng {
        self.others.set_stream(stream);
        self.others.set_word_pos(0);
        &mut self.others
    }
}

/// Draws words in proportion to `count^0.75`.
#[derive(Debug, Clone)]
pub(super) struct Negatives {
    /// Sums of the weights up to each word.
    sums: Vec<f64>,
}

impl Negatives {
    pub(super) fn new(counts: &[u64]) -> Self {
        let mut sum = 0.0;
        let sums = counts.iter().map(|&count| {
            // Two roots, which every machine rounds alike, as it need not a power.
            let root = (count as f64).sqrt();
            sum += root * root.sqrt();
            sum
        });
        Self {
            sums: sums.collect(),
        }
    }

    /// Draws a word that is not `target`. At least two words have to have a weight.
    pub(super) fn draw(&self, rng: &mut ChaCha12Rng, target: u32) -> u32 {
        let total = self.sums.last().copied().unwrap_or_default();
        loop {
            let at = unit(rng) * total;
            // Words without weight have the sum of the word before them, so none is found. Rounding may lead behind the last.
            let drawn = self.sums.partition_point(|sum| *sum <= at);
            if drawn < self.sums.len() && drawn != target as usize {
                return drawn as u32;
            }
        }
    }
}
