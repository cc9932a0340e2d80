//! The words of texts, as the tokenizer will see them.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    Tokenizer,
};

use super::error::VocabularyError;
use super::files::{Model, Special, steps};
use super::options::TokenizerOptions;
use crate::error::DataError;
use crate::tokenizer::check_white_space;

/// How often each word occurs, by code point.
pub(super) type Counts = BTreeMap<String, u64>;

/// Texts that are split at once by a thread.
const AT_ONCE: usize = 256;

/// Counts what the tokenizer's normalizer and pre-tokenizer make of the texts. Sums of whole numbers do not depend on the
/// order, so neither does the result on the threads.
pub(super) fn count<S: AsRef<str> + Sync>(
    texts: &[S],
    options: &TokenizerOptions,
    special: &Special,
) -> Result<Counts, VocabularyError> {
    let steps = Tokenizer::from_bytes(steps(options)).map_err(library)?;
    let parts = texts.par_chunks(AT_ONCE).enumerate();
    let counted: Result<HashMap<String, u64>, VocabularyError> = parts
        .map(|(part, texts)| {
            let mut counts = HashMap::new();
            for (index, text) in texts.iter().enumerate() {
                let add = |word: &str| match counts.get_mut(word) {
                    Some(count) => *count += 1,
                    None => {
                        counts.insert(word.to_owned(), 1);
                    }
                };
                words(&steps, text.as_ref(), add).map_err(|error| VocabularyError::Text {
                    index: part * AT_ONCE + index,
                    error: Box::new(error),
                })?;
            }
            Ok(counts)
        })
        // The error of the first text that has one, whichever thread is the first.
        .collect::<Vec<_>>()
        .into_iter()
        .reduce(|all, part| Ok(merged(all?, part?)))
        .unwrap_or_else(|| Ok(HashMap::new()));
    let mut counts: Counts = counted?.into_iter().collect();
    // The tokenizer takes these out of a text before it splits it.
    counts.retain(|word, _| !word.is_empty() && !special.tokens.contains(&word.as_str()));
    if counts.is_empty() {
        return Err(VocabularyError::NoWords { texts: texts.len() });
    }
    Ok(counts)
}

fn words(steps: &Tokenizer, text: &str, mut add: impl FnMut(&str)) -> Result<(), DataError> {
    check_white_space(text)?;
    let failed = |error: tokenizers::Error| DataError::Encode {
        message: error.to_string(),
    };
    let mut normalized = NormalizedString::from(text);
    if let Some(normalizer) = steps.get_normalizer() {
        normalizer.normalize(&mut normalized).map_err(failed)?;
    }
    let mut split = PreTokenizedString::from(normalized);
    if let Some(pre_tokenizer) = steps.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut split).map_err(failed)?;
    }
    let splits = split.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
    splits.into_iter().for_each(|(word, _, _)| add(word));
    Ok(())
}

fn merged(all: HashMap<String, u64>, part: HashMap<String, u64>) -> HashMap<String, u64> {
    let (mut large, small) = match all.len() < part.len() {
        true => (part, all),
        false => (all, part),
    };
    for (word, count) in small {
        *large.entry(word).or_default() += count;
    }
    large
}

fn library(error: tokenizers::Error) -> VocabularyError {
    VocabularyError::Library {
        message: error.to_string(),
    }
}

/// The words that occur often enough, by count and then by code point, as many as there is room for; and how many are left
/// out.
pub(super) fn vocabulary(counts: &Counts, room: usize, min_count: u64) -> (Model, usize) {
    let mut words: Vec<(&String, u64)> =
        counts.iter().map(|(word, count)| (word, *count)).collect();
    // They are in the order of code points, and a stable sort keeps it among equals.
    words.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let frequent = words.iter().take_while(|(_, count)| *count >= min_count);
    let words: Vec<String> = frequent
        .take(room)
        .map(|(word, _)| (*word).clone())
        .collect();
    let left_out = counts.len() - words.len();
    (Model::Words(words), left_out)
}
