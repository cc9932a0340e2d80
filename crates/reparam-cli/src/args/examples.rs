//! Arguments for models that tell rows apart by examples.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use reparam_train::ExamplesRequest;

use super::at_least;
use crate::context::Context;

#[derive(Debug, Args)]
pub(crate) struct ExampleArgs {
    /// Solved examples, for a classification by a model without a head: a language model reads some before each row, an
    /// embedding model compares rows with the mean of each class
    #[arg(long, value_name = "PATH")]
    examples: Option<PathBuf>,
    /// Number of examples: before each row, or for an embedding model of each class; default there: all
    #[arg(long, allow_negative_numbers = true, value_name = "K", value_parser = at_least(0))]
    shots: Option<usize>,
    /// What a language model says for labels, as in negative=bad,positive=good; default: their names
    #[arg(long, value_name = "LABEL=WORD,..", value_parser = label_words)]
    label_words: Option<BTreeMap<String, String>>,
}

impl ExampleArgs {
    /// Whether some are drawn.
    pub(crate) fn are_drawn(&self) -> bool {
        self.shots.is_some_and(|shots| shots > 0)
    }

    /// Returns what is asked for, drawn by a seed; `None` if nothing is.
    pub(crate) fn asked(self, seed: u64, context: &Context) -> Option<ExamplesRequest> {
        let asked = ExamplesRequest {
            path: self.examples.map(|path| context.expand(path)),
            shots: self.shots,
            words: self.label_words.unwrap_or_default(),
            seed,
        };
        let unasked = ExamplesRequest {
            seed,
            ..ExamplesRequest::default()
        };
        (asked != unasked).then_some(asked)
    }
}

fn label_words(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut words = BTreeMap::new();
    for part in text.split(',') {
        let pair = part.split_once('=');
        let pair = pair.map(|(label, word)| (label.trim(), word.trim()));
        let Some((label, word)) =
            pair.filter(|(label, word)| !label.is_empty() && !word.is_empty())
        else {
            return Err(format!("`{part}` is not LABEL=WORD"));
        };
        if words.insert(label.to_owned(), word.to_owned()).is_some() {
            return Err(format!("`{label}` has two words"));
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_pairs_with_a_label_each() {
        let words = label_words("negative=bad, positive = very good").expect("pairs");
        let expected = [("negative", "bad"), ("positive", "very good")];
        let expected = expected.map(|(label, word)| (label.to_owned(), word.to_owned()));
        assert_eq!(words, BTreeMap::from(expected));
        for text in ["", "a", "a=", "=b", "a=b,", "a=b,a=c"] {
            label_words(text).expect_err(text);
        }
    }
}
