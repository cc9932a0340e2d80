//! What is done to texts before they become tokens, for models that are not given raw text.
//!
//! A language model of today is given texts as they are, and nothing here is on by itself. Word vectors, small classifiers
//! and recommenders learn better from texts whose writing was made uniform. [`TextOptions`] says what is done; the steps
//! come in this order, whatever the order in which they are written down:
//!
//! 1. [`strip_html`](TextOptions::strip_html): tags go, entities become what they stand for. First, because entities
//!    hide characters that the later steps look at.
//! 2. [`strip_control`](TextOptions::strip_control): before normalization, because a hidden character between a letter and
//!    its accent keeps the two apart.
//! 3. [`normalize`](TextOptions::normalize).
//! 4. [`lowercase`](TextOptions::lowercase): behind normalization, because compatible forms have capital letters; what it
//!    changed is normalized again.
//! 5. [`segment`](TextOptions::segment): words with one space between them.
//! 6. [`stop_words`](TextOptions::stop_words): words that say little go.
//!
//! What comes out is a function of the options and the text alone, so it is the same in training and in prediction as long as
//! the options are kept with the model. (A later version of the Unicode tables or of the dictionary may split a few
//! texts otherwise.) [`TextReport`] says what each step did.
//!
//! ```
//! use reparam_data::preprocess::{Preprocessor, Segment, StopWords, TextOptions};
//!
//! let options = TextOptions {
//!     strip_html: true,
//!     lowercase: true,
//!     segment: Segment::Words,
//!     stop_words: StopWords::En,
//!     ..TextOptions::default()
//! };
//! let preprocessor = Preprocessor::new(&options)?;
//! assert_eq!(preprocessor.apply("<p>The food &amp; the <b>Wine</b>"), "food & wine");
//! # Ok::<(), reparam_data::preprocess::PreprocessError>(())
//! ```

use std::borrow::Cow;

mod control;
mod entities;
mod error;
mod html;
mod options;
mod report;
mod segment;
mod stop_words;
#[cfg(test)]
mod tests;
mod unicode;

pub use control::strip_control;
pub use entities::decode_entities;
pub use error::PreprocessError;
pub use html::strip_html;
pub use options::{Normalize, Segment, StopWords, TextOptions};
pub use report::{Sample, Step, StepReport, TextReport};

use segment::Segmenter;
pub(crate) use segment::is_han;
use stop_words::StopList;

/// Does to texts what [`TextOptions`] say. Clones share the dictionary.
#[derive(Debug, Clone)]
pub struct Preprocessor {
    options: TextOptions,
    segmenter: Segmenter,
    stop_list: StopList,
}

impl Preprocessor {
    /// Prepares the steps; with Chinese segmentation this reads a dictionary, which takes about a second.
    ///
    /// # Errors
    ///
    /// [`PreprocessError::StopWordsUnsegmented`] if stop words are to go from texts that are not split so that they are found.
    pub fn new(options: &TextOptions) -> Result<Self, PreprocessError> {
        options.check()?;
        Ok(Self {
            options: options.clone(),
            segmenter: Segmenter::new(options.segment),
            stop_list: StopList::new(options.stop_words),
        })
    }

    /// What it was made with.
    #[must_use]
    pub fn options(&self) -> &TextOptions {
        &self.options
    }

    /// Does all steps to a text; one that no step changes is not copied.
    ///
    /// A text that becomes shorter than [`TextOptions::min_length`] is given like any other: whether its row is left out is
    /// decided by [`is_short`](Self::is_short), in training alone, for a prediction has a line for every row.
    #[must_use]
    pub fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.run(text, |_, _, _, _| {})
    }

    /// Returns whether a text that [`apply`](Self::apply) has made is shorter than the least length.
    #[must_use]
    pub fn is_short(&self, processed: &str) -> bool {
        let least = self.options.min_length;
        least > 0 && processed.trim().chars().take(least).count() < least
    }

    /// [`apply`](Self::apply) to a row for training, counted in a report; `None` for a row that is left out as too short.
    pub fn apply_row<'a>(&self, text: &'a str, report: &mut TextReport) -> Option<Cow<'a, str>> {
        let processed = self.run(text, |step, before, after, words| {
            report.step(step, before, after, words);
        });
        let is_kept = !self.is_short(&processed);
        report.row(text, &processed, is_kept);
        is_kept.then_some(processed)
    }

    /// Does the steps that are on, and tells of each the text before, the text behind, and the words it took out.
    fn run<'a>(&self, text: &'a str, mut tell: impl FnMut(Step, &str, &str, u64)) -> Cow<'a, str> {
        let options = &self.options;
        let form = options.normalize;
        let mut text = Cow::Borrowed(text);
        let mut step = |step, is_on: bool, work: &dyn Fn(&str) -> (Option<String>, u64)| {
            if !is_on {
                return;
            }
            let (changed, words) = work(&text);
            tell(step, &text, changed.as_deref().unwrap_or(&text), words);
            if let Some(changed) = changed {
                text = Cow::Owned(changed);
            }
        };
        step(Step::StripHtml, options.strip_html, &|text| {
            (owned(strip_html(text)), 0)
        });
        step(Step::StripControl, options.strip_control, &|text| {
            (owned(strip_control(text)), 0)
        });
        step(Step::Normalize, form != Normalize::None, &|text| {
            (owned(unicode::normalize(text, form)), 0)
        });
        step(Step::Lowercase, options.lowercase, &|text| {
            (owned(unicode::lowercase(text, form)), 0)
        });
        step(Step::Segment, options.segment != Segment::None, &|text| {
            (owned(self.segmenter.segment(text)), 0)
        });
        step(
            Step::StopWords,
            options.stop_words != StopWords::None,
            &|text| {
                let (kept, words) = self.stop_list.remove(text);
                (owned(kept), words)
            },
        );
        text
    }
}

/// The text that a step has made, if it has made one.
fn owned(text: Cow<'_, str>) -> Option<String> {
    match text {
        Cow::Borrowed(_) => None,
        Cow::Owned(text) => Some(text),
    }
}
