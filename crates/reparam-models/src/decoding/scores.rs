//! What is done to the scores of the next token before one is chosen.

use super::DecodingConfig;

/// Replaces logits by their log-softmax.
pub(super) fn log_softmax(scores: &mut [f32]) {
    let max = scores.iter().fold(f32::NEG_INFINITY, |max, x| max.max(*x));
    if max == f32::NEG_INFINITY {
        return;
    }
    let sum: f64 = scores.iter().map(|x| f64::from(x - max).exp()).sum();
    let shift = max + sum.ln() as f32;
    for score in scores {
        *score -= shift;
    }
}

/// Changes the scores of what may come after `tokens`, which begin with the start token, in the order of transformers.
pub(super) fn process(config: &DecodingConfig, tokens: &[u32], scores: &mut [f32]) {
    let n_new = tokens.len() - 1;
    repetition_penalty(config.repetition_penalty as f32, tokens, scores);
    no_repeated_ngrams(config.no_repeat_ngram_size, tokens, scores);
    bad_words(config, tokens, scores);
    if n_new < config.min_new_tokens {
        for token in &config.eos {
            scores[*token as usize] = f32::NEG_INFINITY;
        }
    }
    if let Some(token) = config.forced_bos.filter(|_| n_new == 0) {
        force(&[token], scores);
    }
    if n_new + 1 == config.max_new_tokens && !config.forced_eos.is_empty() {
        force(&config.forced_eos, scores);
    }
    if config.renormalize_logits {
        log_softmax(scores);
    }
}

fn force(tokens: &[u32], scores: &mut [f32]) {
    scores.fill(f32::NEG_INFINITY);
    for token in tokens {
        scores[*token as usize] = 0.0;
    }
}

fn repetition_penalty(penalty: f32, tokens: &[u32], scores: &mut [f32]) {
    if penalty == 1.0 {
        return;
    }
    let mut seen = tokens.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for token in seen {
        let score = &mut scores[token as usize];
        if *score < 0.0 {
            *score *= penalty;
        } else {
            *score /= penalty;
        }
    }
}

fn no_repeated_ngrams(size: usize, tokens: &[u32], scores: &mut [f32]) {
    if size == 0 || tokens.len() < size {
        return;
    }
    let last = &tokens[tokens.len() + 1 - size..];
    for ngram in tokens.windows(size) {
        if ngram[..size - 1] == *last {
            scores[ngram[size - 1] as usize] = f32::NEG_INFINITY;
        }
    }
}

/// A token that ends a target is no bad word by itself.
fn bad_words(config: &DecodingConfig, tokens: &[u32], scores: &mut [f32]) {
    for word in &config.bad_words {
        let Some((last, before)) = word.split_last() else {
            continue;
        };
        let ends = before.is_empty() && config.eos.contains(last);
        if !ends && tokens.ends_with(before) {
            scores[*last as usize] = f32::NEG_INFINITY;
        }
    }
}
