//! Tokens one by one, and beam search.

use super::scores::{log_softmax, process};
use super::{Decoder, DecodingConfig, EarlyStopping, Hypothesis};
use crate::ModelError;
use crate::sampling::Sampler;

/// What is added to the scores of what must not be chosen, as in transformers.
const NEVER: f32 = -1e9;

/// One token each time, the most likely one or one that is drawn.
pub(super) fn one_by_one(
    decoder: &mut Decoder<'_>,
    config: &DecodingConfig,
) -> Result<Hypothesis, ModelError> {
    let mut sampler = Sampler::new(config.sampling).with_stream(config.stream);
    let mut tokens = vec![config.decoder_start];
    for _ in 0..config.max_new_tokens {
        let mut scores = decoder.next(&tokens[tokens.len() - 1..])?;
        process(config, &tokens, &mut scores);
        let position = tokens.len() - 1;
        let token = sampler
            .choose(&scores)
            .ok_or(ModelError::NonFinite { position })?;
        tokens.push(token);
        if config.eos.contains(&token) {
            break;
        }
    }
    Ok(Hypothesis {
        tokens: tokens.split_off(1),
        score: None,
    })
}

/// A target that is still written.
#[derive(Debug, Clone)]
struct Beam {
    /// With the start token.
    tokens: Vec<u32>,
    /// Its log-likelihood.
    score: f32,
}

/// A beam and the token that goes on with it.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    beam: usize,
    token: u32,
    score: f32,
    /// Whether the target ends with it.
    ends: bool,
}

/// A place among the finished targets.
#[derive(Debug, Clone)]
struct Finished {
    tokens: Vec<u32>,
    score: f32,
    is_finished: bool,
}

/// Follows the most likely targets, each step those with the greatest log-likelihoods of all that go on with one of them, and
/// keeps the best that ended, by their log-likelihood divided by a power of their length.
pub(super) fn beams(
    decoder: &mut Decoder<'_>,
    config: &DecodingConfig,
) -> Result<Vec<Hypothesis>, ModelError> {
    let n = config.num_beams;
    // All beams begin alike, and only the first is gone on with.
    let start = |beam: usize| Beam {
        tokens: vec![config.decoder_start],
        score: if beam == 0 { 0.0 } else { NEVER },
    };
    let mut running: Vec<Beam> = (0..n).map(start).collect();
    let mut finished = Vec::new();
    for n_new in 1..=config.max_new_tokens {
        let last = |beam: &Beam| beam.tokens[beam.tokens.len() - 1];
        let last: Vec<u32> = running.iter().map(last).collect();
        let mut scores = decoder.next(&last)?;
        let vocab_size = scores.len() / n;
        for (beam, scores) in running.iter().zip(scores.chunks_exact_mut(vocab_size)) {
            log_softmax(scores);
            process(config, &beam.tokens, scores);
            scores.iter_mut().for_each(|score| *score += beam.score);
        }
        // So many that as many beams as before go on, whichever of them end.
        let wanted = (1 + config.eos.len()).max(2) * n;
        let candidates = best(&scores, wanted).into_iter().map(|place| {
            let token = (place % vocab_size) as u32;
            Candidate {
                beam: place / vocab_size,
                token,
                score: scores[place],
                ends: config.eos.contains(&token) || n_new == config.max_new_tokens,
            }
        });
        let candidates: Vec<Candidate> = candidates.collect();
        let grown = |of: &Candidate| {
            let before = running[of.beam].tokens.iter();
            before.copied().chain([of.token]).collect::<Vec<u32>>()
        };

        let penalized =
            |score: f32, len: usize| score / (len as f64).powf(config.length_penalty) as f32;
        let ended = candidates.iter().enumerate().map(|(rank, of)| {
            // Those behind are there to go on only.
            let is_finished = of.ends && rank < n;
            Finished {
                tokens: grown(of),
                score: penalized(of.score, n_new) + if is_finished { 0.0 } else { NEVER },
                is_finished,
            }
        });
        let empty = (finished.len()..n).map(|_| Finished {
            tokens: vec![config.decoder_start],
            score: NEVER,
            is_finished: false,
        });
        finished.extend(empty);
        finished.extend(ended);
        let all: Vec<f32> = finished.iter().map(|of| of.score).collect();
        finished = best(&all, n)
            .into_iter()
            .map(|place| finished[place].clone())
            .collect();

        let going: Vec<f32> = candidates
            .iter()
            .map(|of| of.score + if of.ends { NEVER } else { 0.0 })
            .collect();
        let chosen = best(&going, n);
        let from: Vec<usize> = chosen.iter().map(|at| candidates[*at].beam).collect();
        let next = chosen.iter().map(|at| Beam {
            tokens: grown(&candidates[*at]),
            score: going[*at],
        });
        running = next.collect();
        if candidates.iter().all(|of| of.ends) {
            break;
        }
        let length = match config.early_stopping {
            EarlyStopping::Never if config.length_penalty > 0.0 => config.max_new_tokens,
            _ => n_new,
        };
        let possible = penalized(running[0].score, length);
        let worst = finished
            .iter()
            .map(|of| of.score)
            .fold(f32::INFINITY, f32::min);
        let improves = finished
            .iter()
            .any(|of| possible > if of.is_finished { worst } else { NEVER });
        let is_full = finished.iter().all(|of| of.is_finished);
        if !improves || (is_full && config.early_stopping == EarlyStopping::Full) {
            break;
        }
        decoder.cache.reorder(&from);
    }
    let found = finished.into_iter().filter(|of| of.is_finished);
    let found = found.take(config.num_return_sequences);
    Ok(found
        .map(|mut of| Hypothesis {
            tokens: of.tokens.split_off(1),
            score: Some(of.score),
        })
        .collect())
}

/// The places of the greatest numbers, in order; of equal ones, the first.
fn best(scores: &[f32], n: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..scores.len()).collect();
    let order = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
    if n < places.len() {
        places.select_nth_unstable_by(n, order);
        places.truncate(n);
    }
    places.sort_unstable_by(order);
    places
}
