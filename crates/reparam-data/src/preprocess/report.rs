//! What was done to the texts of a training.

use serde::{Deserialize, Serialize};

/// The longest part of a text that a report shows, in characters.
const SHOWN: usize = 200;

/// A step, in the order of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Tags go, entities are decoded.
    StripHtml,
    /// Characters go that are not shown.
    StripControl,
    /// Unicode's normal form.
    Normalize,
    /// Lower case.
    Lowercase,
    /// Words, with a space between them.
    Segment,
    /// Stop words go.
    StopWords,
}

/// What a step did to all texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step.
    pub step: Step,
    /// Texts that it changed.
    pub texts_changed: u64,
    /// Characters before it.
    pub characters_before: u64,
    /// Characters behind it; segmentation adds spaces, normal forms may be longer.
    pub characters_after: u64,
    /// Words that it took out; stop words only.
    pub words_removed: u64,
}

/// A text before and behind all steps, at most 200 characters of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Before.
    pub before: String,
    /// Behind.
    pub after: String,
    /// Whether its row was left out as too short.
    pub dropped: bool,
}

/// What preprocessing did, for JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextReport {
    /// Texts that were looked at.
    pub texts: u64,
    /// Texts that some step changed.
    pub texts_changed: u64,
    /// Rows that were left out as too short.
    pub dropped_short: u64,
    /// The steps that are on, in their order.
    pub steps: Vec<StepReport>,
    /// The first texts.
    pub samples: Vec<Sample>,
    /// How many texts are shown.
    #[serde(skip)]
    most_samples: usize,
}

impl TextReport {
    /// A report that shows the first `samples` texts.
    #[must_use]
    pub fn new(samples: usize) -> Self {
        Self {
            most_samples: samples,
            ..Self::default()
        }
    }

    pub(super) fn step(&mut self, step: Step, before: &str, after: &str, words_removed: u64) {
        let known = self.steps.iter().position(|report| report.step == step);
        let index = known.unwrap_or_else(|| {
            self.steps.push(StepReport {
                step,
                texts_changed: 0,
                characters_before: 0,
                characters_after: 0,
                words_removed: 0,
            });
            self.steps.len() - 1
        });
        let report = &mut self.steps[index];
        report.texts_changed += u64::from(before != after);
        report.characters_before += before.chars().count() as u64;
        report.characters_after += after.chars().count() as u64;
        report.words_removed += words_removed;
    }

    pub(super) fn row(&mut self, before: &str, after: &str, is_kept: bool) {
        self.texts += 1;
        self.texts_changed += u64::from(before != after);
        self.dropped_short += u64::from(!is_kept);
        if self.samples.len() < self.most_samples {
            self.samples.push(Sample {
                before: before.chars().take(SHOWN).collect(),
                after: after.chars().take(SHOWN).collect(),
                dropped: !is_kept,
            });
        }
    }
}
