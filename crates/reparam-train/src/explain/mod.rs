//! Why a model says what it says: how much each token of its input counts for a score.
//!
//! ```text
//! text --task--> Subject: a score as a function of token vectors --attribute--> Explanation --> JSON, page
//! ```

mod attribute;
mod page;
#[cfg(test)]
mod tests;

use reparam_data::{EncodedSpans, TextTokenizer};
use serde::Serialize;

pub(crate) use self::attribute::{Asked, Input, Subject, attribute};
pub use self::page::page;
use crate::task::ModelRequest;
use crate::{Result, TrainError};

/// How attributions are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Attribution {
    /// The gradient along the way from a baseline, times the way (Sundararajan, Taly and Yan, arXiv 1703.01365).
    #[default]
    IntegratedGradients,
    /// The gradient times the token vector.
    GradientTimesInput,
    /// What attention looks at through all layers (Abnar and Zuidema, arXiv 2005.00928): not signed, and the same for every target.
    Rollout,
    /// What the score loses without a word.
    Occlusion,
}

impl Attribution {
    /// All, with the words for them.
    pub const ALL: [(&'static str, Self); 4] = [
        ("integrated-gradients", Self::IntegratedGradients),
        ("gradient-x-input", Self::GradientTimesInput),
        ("rollout", Self::Rollout),
        ("occlusion", Self::Occlusion),
    ];

    /// Returns the word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

/// What stands where nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// The mask token.
    Mask,
    /// The padding token.
    Pad,
    /// The token for what the vocabulary does not have.
    Unk,
    /// A vector of zeros.
    Zero,
}

impl Baseline {
    /// All, with the words for them.
    pub const ALL: [(&'static str, Self); 4] = [
        ("mask", Self::Mask),
        ("pad", Self::Pad),
        ("unk", Self::Unk),
        ("zero", Self::Zero),
    ];
}

/// What is to be explained.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainRequest {
    /// The model, with what is attached to it. It computes in f32.
    pub model: ModelRequest,
    /// The text; of a language model what comes before the explained token.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// How it is explained.
    pub method: Attribution,
    /// The label, or the text that a language model goes on with; what the model predicts, if absent.
    pub target: Option<String>,
    /// Of tags, the word whose tag is explained, counted from 0.
    pub word: Option<usize>,
    /// Points on the way from the baseline, of integrated gradients; [`STEPS`](Self::STEPS) if absent.
    pub steps: Option<usize>,
    /// Where that way begins, or what hides a word; the first that the tokenizer has of mask, padding and unknown token, else zeros,
    /// and for words that they are left out.
    pub baseline: Option<Baseline>,
    /// How many tokens of a language model are generated and explained; one if absent.
    pub max_new_tokens: Option<usize>,
    /// The most tokens that the model sees at once; as in [`EvalRequest`](crate::EvalRequest).
    pub sequence_length: Option<usize>,
}

impl ExplainRequest {
    /// Asks why a model says what it says of a text.
    pub fn new(model: ModelRequest, text: impl Into<String>) -> Self {
        Self {
            model,
            text: text.into(),
            pair: None,
            method: Attribution::default(),
            target: None,
            word: None,
            steps: None,
            baseline: None,
            max_new_tokens: None,
            sequence_length: None,
        }
    }

    /// The points on the way from the baseline, if nothing else is asked for.
    pub const STEPS: usize = 64;

    /// Refuses options that the method does not look at.
    pub(crate) fn check(&self) -> Result<()> {
        use Attribution::{IntegratedGradients, Occlusion};
        let is_looked_at = |methods: &[Attribution]| methods.contains(&self.method);
        let options = [
            (
                "--steps",
                self.steps.is_some() && !is_looked_at(&[IntegratedGradients]),
            ),
            (
                "--baseline",
                self.baseline.is_some() && !is_looked_at(&[IntegratedGradients, Occlusion]),
            ),
        ];
        match options.into_iter().find(|(_, is_idle)| *is_idle) {
            None => Ok(()),
            Some((option, _)) => Err(TrainError::OptionOfMethod {
                option,
                method: self.method.name(),
            }),
        }
    }

    /// Refuses options that a task does not look at; `looked_at` are those that it does.
    pub(crate) fn refuse(&self, task: &'static str, looked_at: &[&str]) -> Result<()> {
        let options = [
            ("--pair", self.pair.is_some()),
            ("--word", self.word.is_some()),
            ("--max-new-tokens", self.max_new_tokens.is_some()),
        ];
        let mut given = options.into_iter().filter(|(_, is_given)| *is_given);
        match given.find(|(option, _)| !looked_at.contains(option)) {
            None => Ok(()),
            Some((option, _)) => Err(TrainError::NoFields { task, option }),
        }
    }

    /// Says how an input is explained, whose tokens are of these words.
    pub(crate) fn asked<'a>(
        &self,
        tokenizer: &'a TextTokenizer,
        words: &'a [Option<usize>],
    ) -> Asked<'a> {
        Asked {
            method: self.method,
            steps: self.steps.unwrap_or(Self::STEPS),
            baseline: self.baseline,
            special: tokenizer.special_tokens(),
            words,
        }
    }
}

/// How much each token counts for a score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The word for how it was made.
    pub method: &'static str,
    /// What is explained: a label, or a token.
    pub target: String,
    /// The logit of that.
    pub score: f64,
    /// Its probability.
    pub probability: f64,
    /// What stands where nothing is said: `mask`, `pad`, `unk`, `zero` or, of words that are left out, `drop`.
    pub baseline: Option<&'static str>,
    /// The logit for that, of integrated gradients.
    pub baseline_score: Option<f64>,
    /// How far the sum of the attributions is from `score - baseline_score`.
    pub completeness_error: Option<f64>,
    /// The points on the way from the baseline.
    pub steps: Option<usize>,
    /// The tokens, as the vocabulary has them.
    pub tokens: Vec<String>,
    /// What each token counts.
    pub attributions: Vec<f64>,
    /// The words, each with the sum over its tokens.
    pub words: Vec<WordAttribution>,
    /// The texts, cut into words and what is between them.
    #[serde(skip)]
    pub(crate) pieces: Vec<(String, Option<f64>)>,
}

/// What a word counts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WordAttribution {
    /// The word.
    pub text: String,
    /// The sum over its tokens.
    pub attribution: f64,
}

/// The texts of an input, and where its words stand in them.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Text between words and words, each with its number.
    pieces: Vec<(String, Option<usize>)>,
    /// Of each token the number of its word.
    pub(crate) words: Vec<Option<usize>>,
}

impl Shown {
    /// That of a text or a pair.
    pub(crate) fn of_spans(encoded: &EncodedSpans, text: &str, pair: Option<&str>) -> Self {
        let mut pieces = Vec::new();
        let spans = || encoded.spans.iter().enumerate();
        for (in_pair, text) in [(false, Some(text)), (true, pair)] {
            let Some(text) = text else {
                continue;
            };
            if in_pair {
                pieces.push(("\n".to_owned(), None));
            }
            let mut end = 0;
            for (number, span) in spans().filter(|(_, span)| span.in_pair == in_pair) {
                // Tokens of a byte each may end inside of a character.
                let between = text.get(end..span.bytes.start).unwrap_or_default();
                let word = text.get(span.bytes.clone()).unwrap_or("\u{fffd}");
                pieces.push((between.to_owned(), None));
                pieces.push((word.to_owned(), Some(number)));
                end = span.bytes.end;
            }
            pieces.push((text.get(end..).unwrap_or_default().to_owned(), None));
        }
        Self {
            pieces,
            words: encoded.words.clone(),
        }
    }

    /// That of words with a space between them; `words` says of each token which one it is of.
    pub(crate) fn of_words(texts: &[String], words: Vec<Option<usize>>) -> Self {
        let pieces = texts
            .iter()
            .enumerate()
            .flat_map(|(number, word)| [(word.clone(), Some(number)), (" ".to_owned(), None)]);
        Self {
            pieces: pieces.collect(),
            words,
        }
    }

    /// Adds a token that is a word of its own.
    pub(crate) fn push(&mut self, text: String) {
        let number = self.n_words();
        self.pieces.push((text, Some(number)));
        self.words.push(Some(number));
    }

    fn n_words(&self) -> usize {
        self.pieces
            .iter()
            .filter(|(_, word)| word.is_some())
            .count()
    }

    /// Says what was found of an input that these texts are.
    pub(crate) fn explained(
        &self,
        (tokenizer, ids): (&TextTokenizer, &[u32]),
        (method, target): (Attribution, String),
        found: attribute::Found,
        probability: f64,
    ) -> Explanation {
        let mut sums = vec![0.0; self.n_words()];
        for (word, attribution) in self.words.iter().zip(&found.attributions) {
            if let Some(word) = word {
                sums[*word] += attribution;
            }
        }
        let of = |word: &Option<usize>| word.map(|word| sums[word]);
        let pieces = self.pieces.iter();
        let pieces: Vec<_> = pieces
            .map(|(text, word)| (text.clone(), of(word)))
            .collect();
        let words = pieces.iter().filter_map(|(text, attribution)| {
            Some(WordAttribution {
                text: text.trim().to_owned(),
                attribution: (*attribution)?,
            })
        });
        let token = |id: &u32| tokenizer.token(*id).unwrap_or_else(|| id.to_string());
        Explanation {
            method: method.name(),
            target,
            score: found.score,
            probability,
            baseline: found.baseline,
            baseline_score: found.baseline_score,
            completeness_error: found.completeness_error,
            steps: found.steps,
            tokens: ids.iter().map(token).collect(),
            words: words.collect(),
            attributions: found.attributions,
            pieces,
        }
    }
}
