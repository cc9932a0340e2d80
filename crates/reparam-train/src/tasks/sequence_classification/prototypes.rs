//! Classes as the means of the vectors of their examples.
//!
//! With `f` an embedding model and `e(x) = f(x) / |f(x)|`, the prototype of class `c` is `p_c`, the mean of `e` over its
//! examples, and the logit of `c` for a row `x` is `cos(f(x), p_c) / t`.
//!
//! Snell, Swersky and Zemel, "Prototypical networks for few-shot learning" (2017, arXiv 1703.05175), take the mean of `f` itself
//! and the logit `-|f(x) - p_c|^2`. Between vectors of length 1 that is `2 cos - 2`: what differs is that lengths do not
//! count here, neither those of texts nor those of prototypes, and that `t` is one number, that of the model's own training.

use std::collections::HashSet;

use reparam_data::rows::{Classified, Labels, TextRow};
use reparam_formats::hub::HubOptions;

use super::examples::{ByExamples, Example, Said};
use crate::task::{DataRequest, ExamplesRequest, LABEL_WORDS, ModelRequest};
use crate::tasks::embedding::{SentenceRow, Sentences};
use crate::tasks::rows::vectors::Asked;
use crate::{ExamplesError, Result, Stop, Warnings};

/// An embedding model with the prototype of each class.
#[derive(Debug)]
pub(super) struct Prototypes {
    model: Asked,
    /// The prototype of each class, scaled to a length of 1.
    means: Vec<Vec<f64>>,
    temperature: f64,
    /// The examples that the prototypes are made of.
    used: HashSet<String>,
    warnings: Warnings,
}

impl Prototypes {
    /// Makes the prototypes: of the first examples of each class, as many as are asked for, else of all.
    pub(super) fn open(
        (request, data): (&ModelRequest, &DataRequest),
        asked: &ExamplesRequest,
        (labels, examples): (&Labels, Vec<Example>),
        length: Option<usize>,
        (hub, stop): (&HubOptions, Stop<'_>),
    ) -> Result<Self> {
        let options = [
            ("--template", data.template.is_some()),
            (LABEL_WORDS, !asked.words.is_empty()),
        ];
        if let Some((option, _)) = options.into_iter().find(|(_, is_given)| *is_given) {
            let model = "an embedding model";
            return Err(ExamplesError::NoEffect { option, model }.into());
        }
        let model = Asked::open::<Sentences>(request, length, hub)?;
        let mut counts = vec![0; labels.len()];
        let taken = examples.iter().filter(|(_, class)| {
            counts[*class] += 1;
            asked.shots.is_none_or(|shots| counts[*class] <= shots)
        });
        let taken: Vec<&Example> = taken.collect();
        for (label, found) in labels.names().iter().zip(counts) {
            if let Some(wanted) = asked.shots.filter(|wanted| found < *wanted || *wanted == 0) {
                return Err(ExamplesError::TooFew {
                    wanted,
                    found,
                    label: Some(label.clone()),
                }
                .into());
            }
        }
        let texts: Vec<&TextRow> = taken.iter().map(|(text, _)| text).collect();
        let vectors = vectors(&model, &texts, stop)?;
        let width = vectors.first().map_or(0, |(vector, _)| vector.len());
        let mut means = vec![vec![0.0; width]; labels.len()];
        for ((_, class), (vector, _)) in taken.iter().zip(&vectors) {
            let mean = &mut means[*class];
            mean.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
        }
        Ok(Self {
            // Its length does not count, so the sum will do for the mean.
            means: means.into_iter().map(normalized).collect(),
            temperature: model.settings().number("temperature")?,
            used: texts.iter().map(|row| row.text.clone()).collect(),
            warnings: request.warnings.clone(),
            model,
        })
    }
}

impl ByExamples for Prototypes {
    fn fits(&self, row: &TextRow) -> Result<()> {
        is_one_text(row)
    }

    fn say(&mut self, rows: &[&TextRow], stop: Stop<'_>) -> Result<Vec<Said>> {
        let vectors = vectors(&self.model, rows, stop)?.into_iter();
        let all = vectors.map(|(vector, is_cut)| {
            let cosine =
                |mean: &Vec<f64>| -> f64 { mean.iter().zip(&vector).map(|(a, b)| a * b).sum() };
            let logits = self.means.iter().map(cosine);
            Said {
                logits: logits.map(|x| (x / self.temperature) as f32).collect(),
                by_length: None,
                is_cut,
            }
        });
        Ok(all.collect())
    }

    fn length(&self) -> usize {
        self.model.length::<Sentences>()
    }

    fn check(&self, rows: &[Classified]) {
        let known = rows
            .iter()
            .filter(|row| self.used.contains(&row.text.text))
            .count();
        if known > 0 {
            self.warnings.add(format!(
                "{known} of {} rows are among the examples that their classes are made of, and are easier than others",
                rows.len()
            ));
        }
    }
}

fn is_one_text(row: &TextRow) -> Result<()> {
    match row.text_pair {
        None => Ok(()),
        Some(_) => Err(ExamplesError::Pair {
            place: row.place.clone(),
            problem: "an embedding is of one text, and the row has a `text_pair`",
        }
        .into()),
    }
}

/// The vectors of texts, scaled to a length of 1, and whether each text was cut.
fn vectors(model: &Asked, rows: &[&TextRow], stop: Stop<'_>) -> Result<Vec<(Vec<f64>, bool)>> {
    rows.iter().try_for_each(|row| is_one_text(row))?;
    let texts = rows.iter().map(|row| SentenceRow::Text((*row).clone()));
    let outputs = model.outputs::<Sentences>(texts.collect(), stop)?;
    let vectors = outputs.into_iter().map(|(windows, is_cut)| {
        let vector = windows.into_iter().next().unwrap_or_default();
        let vector = vector.into_iter().map(f64::from).collect();
        (normalized(vector), is_cut)
    });
    Ok(vectors.collect())
}

/// Scales a vector to a length of 1; that of zeros stays.
fn normalized(vector: Vec<f64>) -> Vec<f64> {
    let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    let length = if length > 0.0 { length } else { 1.0 };
    vector.into_iter().map(|x| x / length).collect()
}
