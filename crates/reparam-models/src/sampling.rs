//! Choosing the next token from its logits.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::ModelError;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// What logits are divided by; zero takes the largest logit.
    pub temperature: f64,
    /// Keep only this many of the largest logits; zero keeps all.
    pub top_k: usize,
    /// Keep only the smallest set of tokens whose probabilities add up to this; one keeps all.
    pub top_p: f64,
    /// The seed; the same seed gives the same text.
    pub seed: u64,
}

impl Sampling {
    /// Returns greedy decoding: always the largest logit, the first of equals.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            seed: 0,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ModelError> {
        let error = |setting, expected, found: f64| {
            Err(ModelError::Sampling {
                setting,
                expected,
                found: found.to_string(),
            })
        };
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return error("temperature", "zero or a positive number", self.temperature);
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return error("top_p", "in (0, 1]", self.top_p);
        }
        Ok(())
    }
}

/// Chooses tokens one after the other.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling) -> Self {
        Self {
            sampling,
            rng: ChaCha8Rng::seed_from_u64(sampling.seed),
        }
    }

    /// Draws other numbers from the same seed in each stream.
    pub(crate) fn with_stream(mut self, stream: u64) -> Self {
        self.rng.set_stream(stream);
        self
    }

    /// Returns the next token, or `None` when a logit is NaN or plus infinity, or no token is left to choose from.
    ///
    /// The filters apply in the order of `transformers`: temperature, top-k, top-p.
    pub(crate) fn choose(&mut self, logits: &[f32]) -> Option<u32> {
        let is_broken = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
        if logits.iter().any(is_broken) || logits.iter().all(|logit| logit.is_infinite()) {
            return None;
        }
        if self.sampling.temperature == 0.0 {
            return Some(argmax(logits));
        }
        let mut candidates: Vec<(u32, f64)> = logits
            .iter()
            .enumerate()
            .map(|(id, &logit)| (id as u32, f64::from(logit)))
            .collect();
        // Stable, so that equal logits keep the order of their ids on every machine.
        candidates.sort_by(|a, b| b.1.total_cmp(&a.1));
        if self.sampling.top_k > 0 {
            candidates.truncate(self.sampling.top_k);
        }
        let largest = candidates[0].1;
        let mut total = 0.0;
        for (_, weight) in &mut candidates {
            // Dividing the difference, not the logits, keeps a tiny temperature from overflowing.
            *weight = ((*weight - largest) / self.sampling.temperature).exp();
            total += *weight;
        }
        if self.sampling.top_p < 1.0 {
            let mut before = 0.0;
            let kept = candidates
                .iter()
                .take_while(|(_, weight)| {
                    let keep = before < self.sampling.top_p * total;
                    before += weight;
                    keep
                })
                .count();
            candidates.truncate(kept.max(1));
            total = candidates.iter().map(|(_, weight)| weight).sum();
        }
        let unit = (self.rng.next_u64() >> 11) as f64 * 2f64.powi(-53);
        let mut rest = unit * total;
        for &(id, weight) in &candidates {
            if rest < weight {
                return Some(id);
            }
            rest -= weight;
        }
        // Rounding may leave a trifle after the last candidate.
        candidates.last().map(|&(id, _)| id)
    }
}

/// Returns the index of the largest logit, the first of equals.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(sampling: Sampling, logits: &[f32], n: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling);
        (0..n)
            .map(|_| sampler.choose(logits).expect("finite logits"))
            .collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(draw(Sampling::greedy(), &[0.0, 3.0, 3.0], 2), [1, 1]);
    }

    #[test]
    fn each_stream_has_numbers_of_its_own() {
        let sampling = Sampling {
            temperature: 1.0,
            seed: 7,
            ..Sampling::greedy()
        };
        let draw = |stream| -> Vec<u32> {
            let mut sampler = Sampler::new(sampling).with_stream(stream);
            let tokens = (0..32).map(|_| sampler.choose(&[0.0; 16]));
            tokens.map(|token| token.expect("finite logits")).collect()
        };
        assert_eq!(draw(0), self::draw(sampling, &[0.0; 16], 32));
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn nan_is_reported() {
        let mut sampler = Sampler::new(Sampling::greedy());
        assert_eq!(sampler.choose(&[0.0, f32::NAN]), None);
    }

    #[test]
    fn nothing_is_chosen_of_nothing() {
        for temperature in [0.0, 1.0] {
            let mut sampler = Sampler::new(Sampling {
                temperature,
                ..Sampling::greedy()
            });
            assert_eq!(sampler.choose(&[f32::NEG_INFINITY; 3]), None);
            assert_eq!(sampler.choose(&[f32::NEG_INFINITY, 0.0]), Some(1));
        }
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let sampling = Sampling {
            temperature: 2.0,
            seed: 3,
            ..Sampling::greedy()
        };
        // Divided by the temperature these are log 1 and log 3.
        let logits = [0.0, 2.0 * 3f32.ln()];
        let n = 20_000;
        let ones = draw(sampling, &logits, n)
            .iter()
            .filter(|&&id| id == 1)
            .count();
        // Five standard deviations of a binomial with p = 3/4.
        let deviation = 5.0 * (n as f64 * 0.75 * 0.25).sqrt();
        assert!((ones as f64 - 0.75 * n as f64).abs() < deviation, "{ones}");
    }

    #[test]
    fn top_k_and_top_p_leave_out_the_tail() {
        let logits = [1.0, 0.9, 0.8, -9.0];
        let top_k = Sampling {
            temperature: 1.0,
            top_k: 2,
            ..Sampling::greedy()
        };
        assert!(draw(top_k, &logits, 200).iter().all(|&id| id < 2));
        let top_p = Sampling {
            temperature: 1.0,
            top_p: 0.3,
            ..Sampling::greedy()
        };
        assert!(draw(top_p, &logits, 200).iter().all(|&id| id == 0));
    }

    #[test]
    fn a_tiny_temperature_is_nearly_greedy() {
        let sampling = Sampling {
            temperature: 1e-310,
            ..Sampling::greedy()
        };
        assert!(
            draw(sampling, &[0.1, 0.3, -0.2], 20)
                .iter()
                .all(|&id| id == 1)
        );
    }

    #[test]
    fn a_seed_determines_the_draws() {
        let sampling = Sampling {
            temperature: 1.0,
            seed: 11,
            ..Sampling::greedy()
        };
        let logits = [0.1, 0.2, 0.3, 0.4];
        assert_eq!(draw(sampling, &logits, 50), draw(sampling, &logits, 50));
    }
}
