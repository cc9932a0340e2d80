//! The task `token-classification`: a tag for each word, such as those of named entities.

use std::borrow::Cow;
use std::path::PathBuf;

use burn::tensor::{Int, Tensor, TensorData};
use reparam::schema::SettingSpec;
use reparam_data::EncodedRow;
use reparam_data::rows::{
    EntityScore, EntityScorer, Labels, RowBatch, RowError, RowFormat, Rows, RowsOptions,
    TAGGED_TOKENS, TOKENS, TokenRow, encode_tokens, log_softmax, read_rows, token_rows,
};
use reparam_models::Architecture;
use reparam_models::architecture::PredictorSpec;
use serde_json::{Value, json};

use super::rows::weights::{CLASS_WEIGHTS, class_weights, one_class_loss};
use super::rows::{
    Confusion, Encoder, Item, Outputs, OverRows, Purpose, RowTask, Rules, Window, plain_tokens,
};
use crate::config::RowsKeys;
use crate::explain::{ExplainRequest, Shown};
use crate::numbers::csv_cell;
use crate::seen::Token;
use crate::task::DEFAULT_LENGTH;
use crate::{Metrics, Result, TrainError};

/// Rows of words with their tags.
pub type TokenClassification = OverRows<Words>;

/// The settings of `[data]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WordKeys;

impl RowsKeys for WordKeys {
    type Format = RowFormat;
    const OWN: &'static [SettingSpec] = &[CLASS_WEIGHTS];
}

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

/// How the tags of a row are met.
#[derive(Debug)]
pub struct TagScore {
    entities: EntityScore,
    /// The sum over the words whose first token the model saw.
    loss: f64,
    /// Their classes, as they are and as they are predicted.
    pairs: Vec<(usize, usize)>,
}

impl RowTask for Words {
    const NAME: &'static str = "token-classification";
    const SUMMARY: &'static str = "tags words, as those of named entities";
    const UNIT: &'static str = "tokens";
    const TASK_TYPE: &'static str = "TOKEN_CLS";
    const CLASS: &'static str = "ForTokenClassification";
    const HEAD: &'static str = "token-classification";
    const LENGTH: usize = DEFAULT_LENGTH;
    const EXPLAINED: Option<&'static [&'static str]> = Some(&["--word"]);

    type Keys = WordKeys;
    type Row = TokenRow;
    /// Tokens, by their place in the row, with their classes.
    type Target = Vec<(usize, usize)>;
    type About = AboutWords;
    type Scored = TagScore;

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

    fn class_weights(items: &[Item<Self>], rules: &Rules) -> Result<Vec<f32>> {
        let windows = items.iter().flat_map(|item| &item.windows);
        let words = windows.flat_map(|window| &window.target);
        class_weights(rules, words.map(|(_, class)| *class))
    }

    fn weight(target: &Vec<(usize, usize)>, rules: &Rules) -> f64 {
        let words = target.iter();
        words
            .map(|(_, class)| f64::from(rules.class_weight(*class)))
            .sum()
    }

    fn loss(
        outputs: Tensor<2>,
        batch: &RowBatch,
        targets: &[&Vec<(usize, usize)>],
        rules: &Rules,
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
        Ok(one_class_loss(logits, &classes, rules, scale))
    }

    fn score(item: &Item<Self>, outputs: &[Outputs], rules: &Rules) -> TagScore {
        let (logits, n) = (&outputs[0], rules.labels.len());
        let losses = item.windows[0].target.iter().map(|(place, class)| {
            let of_token = &logits[place * n..(place + 1) * n];
            -log_softmax(of_token, *class)
        });
        let classes = &item.about.classes;
        let predicted = predicted(&item.about, logits, n);
        let pairs = classes.iter().zip(&predicted);
        TagScore {
            loss: losses.sum(),
            pairs: pairs.filter_map(|(a, p)| Some((*a, (*p)?))).collect(),
            entities: EntityScorer::new(&rules.labels).score(classes, &predicted),
        }
    }

    fn metrics<'a>(scored: impl Iterator<Item = &'a TagScore>, rules: &Rules) -> Result<Metrics> {
        let mut entities = EntityScorer::new(&rules.labels);
        let (mut loss, mut seen) = (0.0, 0);
        for row in scored {
            entities.count(&row.entities);
            loss += row.loss;
            seen += row.pairs.len();
        }
        let metrics = entities.finish().ok_or(RowError::NoLabels)?;
        Ok(Metrics::lower_is_better("loss", loss / seen as f64)
            .with("precision", metrics.precision)
            .with("recall", metrics.recall)
            .with("f1", metrics.f1)
            .with("accuracy", metrics.accuracy)
            .with("tokens", metrics.tokens))
    }

    fn labels_of(item: &Item<Self>) -> Vec<usize> {
        let targets = item.windows.iter().flat_map(|window| &window.target);
        targets.map(|(_, class)| *class).collect()
    }

    fn shown(window: &Window<Vec<(usize, usize)>>, rules: &Rules) -> (Vec<Token>, Option<String>) {
        let mut tokens = plain_tokens(&window.row);
        for (place, class) in &window.target {
            let token = &mut tokens[*place];
            token.learned = true;
            token.label = Some(rules.labels.names()[*class].clone());
        }
        (tokens, None)
    }

    /// By word, of those that the model saw.
    fn confusion(scored: &[TagScore], rules: &Rules) -> Option<Confusion> {
        let pairs = scored.iter().flat_map(|row| row.pairs.iter().copied());
        Some(Confusion::of(rules.labels.names(), pairs))
    }

    /// The words are what is between white space.
    fn to_explain(
        request: &ExplainRequest,
        encoder: &Encoder<'_>,
    ) -> Result<(EncodedRow, Shown, Option<usize>)> {
        let words: Vec<String> = request.text.split_whitespace().map(str::to_owned).collect();
        let tokenizer = encoder.tokenizer;
        let (encoded, of_tokens) = tokenizer.encode_tokens_of_words(&words, encoder.length)?;
        let problem = match request.word {
            None => {
                "say with --word, counted from 0, which word's tag is to be explained".to_owned()
            }
            Some(word) => match encoded.first.get(word) {
                Some(Some(place)) => {
                    let shown = Shown::of_words(&words, of_tokens);
                    return Ok((encoded.row, shown, Some(*place)));
                }
                Some(None) => format!("the word {word} has no token or was cut off"),
                None => format!(
                    "there is no word {word} among {}, counted from 0",
                    words.len()
                ),
            },
        };
        Err(TrainError::NothingToExplain { problem })
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
