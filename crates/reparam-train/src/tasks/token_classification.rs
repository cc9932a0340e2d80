//! The task `token-classification`: a tag for each word, such as those of named entities.

use std::borrow::Cow;
use std::path::PathBuf;

use burn::tensor::{Int, Tensor, TensorData};
use reparam_data::rows::{
    EntityScorer, Labels, RowBatch, RowError, Rows, RowsOptions, TAGGED_TOKENS, TOKENS, TokenRow,
    encode_tokens, log_softmax, read_rows, token_rows,
};
use reparam_models::architecture::PredictorSpec;
use reparam_models::{Architecture, ClassTargets, class_loss};
use serde_json::{Value, json};

use super::rows::{Encoder, Item, Outputs, OverRows, Purpose, RowTask, Rules, Window};
use crate::config::NoKeys;
use crate::numbers::csv_cell;
use crate::task::DEFAULT_LENGTH;
use crate::{Metrics, Result};

/// Rows of words with their tags.
pub type TokenClassification = OverRows<Words>;

/// What the task `token-classification` is.
///
/// What is said of a word is said of its first token; the others are not learned.
#[derive(Debug)]
pub struct Words;

/// What is known of a row of words.
#[derive(Debug, Clone)]
pub struct AboutWords {
    /// The place of each word's first token; `None` if it has none or was cut off.
    first: Vec<Option<usize>>,
    /// The class of each word; none in a row to predict from.
    classes: Vec<usize>,
}

/// Adds up how tags are met.
#[derive(Debug)]
pub struct TagScorer {
    entities: EntityScorer,
    n_classes: usize,
    loss: f64,
    /// Words whose first token the model saw.
    seen: usize,
}

impl RowTask for Words {
    const NAME: &'static str = "token-classification";
    const SUMMARY: &'static str = "tags words, as those of named entities";
    const UNIT: &'static str = "tokens";
    const TASK_TYPE: &'static str = "TOKEN_CLS";
    const CLASS: &'static str = "ForTokenClassification";
    const HEAD: &'static str = "token-classification";
    const LENGTH: usize = DEFAULT_LENGTH;

    type Keys = NoKeys;
    type Row = TokenRow;
    /// Tokens, by their place in the row, with their classes.
    type Target = Vec<(usize, usize)>;
    type About = AboutWords;
    type Scorer = TagScorer;

    fn header(_: &Rules) -> &'static str {
        "row,tags"
    }

    fn head(
        architecture: &Architecture,
        _: &dyn Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Option<PredictorSpec>> {
        Ok(architecture.heads.token.clone())
    }

    fn read(paths: &[PathBuf], options: &RowsOptions, purpose: Purpose) -> Result<Rows<TokenRow>> {
        let schema = match purpose {
            Purpose::Learn | Purpose::Measure => &TAGGED_TOKENS,
            Purpose::Predict => &TOKENS,
        };
        Ok(token_rows(read_rows(paths, schema, options)?))
    }

    fn texts(row: &TokenRow) -> Vec<Cow<'_, str>> {
        vec![row.tokens.join(" ").into()]
    }

    fn labels<'a>(rows: impl Iterator<Item = &'a TokenRow>) -> Result<Labels> {
        Ok(Labels::of_tags(rows)?)
    }

    fn encode(
        rows: Rows<TokenRow>,
        encoder: &Encoder<'_>,
        has_targets: bool,
    ) -> Result<Rows<Item<Self>>> {
        let rows = match has_targets {
            true => {
                let tagged = encoder.rules.labels.tags(rows)?;
                tagged.and_then(|tagged| Ok((tagged.row, tagged.classes)))
            }
            false => rows.and_then(|row| Ok((row, Vec::new()))),
        };
        let Encoder {
            tokenizer,
            length,
            watch,
            ..
        } = *encoder;
        let encoded = encode_tokens(rows, tokenizer, length, |(row, _)| row, watch)?;
        Ok(encoded.and_then(|((row, classes), words)| {
            let pairs = words.first.iter().zip(&classes);
            let target = pairs.filter_map(|(first, class)| Some(((*first)?, *class)));
            Ok(Item {
                content: row.content(),
                place: row.place,
                truncated: words.row.truncated,
                windows: vec![Window {
                    target: target.collect(),
                    row: words.row,
                }],
                about: AboutWords {
                    first: words.first,
                    classes,
                },
            })
        }))
    }

    fn weight(target: &Vec<(usize, usize)>) -> f64 {
        target.len() as f64
    }

    fn loss(
        outputs: Tensor<2>,
        batch: &RowBatch,
        targets: &[&Vec<(usize, usize)>],
        _: &Rules,
        scale: f32,
    ) -> Result<Tensor<1>> {
        let rows = batch.bounds.iter().zip(targets);
        let tokens = rows.flat_map(|(start, target)| {
            target
                .iter()
                .map(move |(place, class)| ((start + place) as i64, *class))
        });
        let (places, classes): (Vec<i64>, Vec<usize>) = tokens.unzip();
        let n = places.len();
        let places = Tensor::<1, Int>::from_data(TensorData::new(places, [n]), &outputs.device());
        let logits = outputs.select(0, places);
        Ok(class_loss(logits, ClassTargets::One(&classes), scale))
    }

    fn scorer(rules: &Rules) -> TagScorer {
        TagScorer {
            entities: EntityScorer::new(&rules.labels),
            n_classes: rules.labels.len(),
            loss: 0.0,
            seen: 0,
        }
    }

    fn score(scorer: &mut TagScorer, item: &Item<Self>, outputs: &[Outputs]) {
        let logits = &outputs[0];
        let n = scorer.n_classes;
        for (place, class) in &item.windows[0].target {
            let of_token = &logits[place * n..(place + 1) * n];
            scorer.loss -= log_softmax(of_token, *class);
            scorer.seen += 1;
        }
        let predicted = predicted(&item.about, logits, n);
        scorer.entities.add(&item.about.classes, &predicted);
    }

    fn finish(scorer: TagScorer, _: &Rules) -> Result<Metrics> {
        let metrics = scorer.entities.finish().ok_or(RowError::NoLabels)?;
        Ok(
            Metrics::lower_is_better("loss", scorer.loss / scorer.seen as f64)
                .with("precision", metrics.precision)
                .with("recall", metrics.recall)
                .with("f1", metrics.f1)
                .with("accuracy", metrics.accuracy)
                .with("tokens", metrics.tokens),
        )
    }

    fn prediction(item: &Item<Self>, outputs: &[Outputs], rules: &Rules) -> (Value, String) {
        let names = rules.labels.names();
        let tags = predicted(&item.about, &outputs[0], names.len());
        let tags: Vec<Option<&str>> = tags
            .into_iter()
            .map(|class| class.map(|class| names[class].as_str()))
            .collect();
        let words: Vec<&str> = tags.iter().map(|tag| tag.unwrap_or("null")).collect();
        let line = csv_cell(&words.join(" "));
        (json!({ "tags": tags }), line)
    }
}

/// The class of each word with the largest logit, the first of equals.
fn predicted(about: &AboutWords, logits: &[f32], n_classes: usize) -> Vec<Option<usize>> {
    let of_word = |first: usize| {
        let logits = &logits[first * n_classes..(first + 1) * n_classes];
        let largest = |best: usize, class: usize| match logits[class] > logits[best] {
            true => class,
            false => best,
        };
        (0..n_classes).reduce(largest).unwrap_or(0)
    };
    about.first.iter().map(|first| first.map(of_word)).collect()
}
