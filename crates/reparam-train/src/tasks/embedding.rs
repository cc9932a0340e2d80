//! The task `embedding`: vectors of texts, near to one another where the texts are alike.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;

use burn::tensor::{Int, Tensor, TensorData, activation};
use reparam::schema::{Range, SettingKind, SettingSpec, number, optional};
use reparam_data::rows::{
    AnchorScore, EMBEDDING, LabelKind, Labels, Pair, PairRow, RECALL_AT, Retrieval,
    RetrievalScorer, RowBatch, RowFormat, Rows, RowsOptions, TEXT, TextRow, encode_texts,
    pair_rows, pearson, read_rows, spearman, text_rows,
};
use reparam_data::{ContentHash, DocumentSource};
use reparam_models::architecture::{Pooling, PredictorSpec};
use reparam_models::{Architecture, normalized};
use serde_json::{Value, json};

use super::rows::{
    Encoder, Item, Outputs, OverRows, Purpose, RowTask, Rules, Window, plain_tokens,
};
use crate::config::{RowsKeys, TEXT_SETTING};
use crate::model_files::{MODULES, POOLING, SENTENCES};
use crate::numbers::given;
use crate::seen::Token;
use crate::task::{BOOTSTRAP, NORMALIZE, POOLING as POOLING_OPTION};
use crate::{Metrics, Result, TrainError};

/// Rows of texts that are alike, or not.
pub type Embedding = OverRows<Sentences>;

/// What the task `embedding` is.
#[derive(Debug)]
pub struct Sentences;

/// The settings of `[data]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddingKeys;

/// What is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Contrastive,
    Triplet,
    Cosent,
    Cosine,
}

const LOSSES: [&str; 4] = ["contrastive", "triplet", "cosent", "cosine"];

impl Loss {
    const ALL: [(&'static str, Self); 4] = [
        (LOSSES[0], Self::Contrastive),
        (LOSSES[1], Self::Triplet),
        (LOSSES[2], Self::Cosent),
        (LOSSES[3], Self::Cosine),
    ];

    fn name(self) -> &'static str {
        LOSSES[self as usize]
    }
}

/// The loss that a run file asks for, else what fits the first text.
fn loss_of<'a>(mut roles: impl Iterator<Item = &'a Role>, rules: &Rules) -> Result<Loss> {
    let asked = rules
        .settings
        .optional("loss", |all, key| all.choice(key, &Loss::ALL))?;
    Ok(asked.unwrap_or(match roles.next() {
        Some(Role::First(_)) => Loss::Cosent,
        _ => Loss::Contrastive,
    }))
}

impl RowsKeys for EmbeddingKeys {
    type Format = RowFormat;
    const OWN: &'static [SettingSpec] = &[
        TEXT_SETTING,
        optional(
            "loss",
            SettingKind::Word(&LOSSES),
            "contrastive for anchors, cosent for scores",
            "what is learned: contrastive compares each anchor with all positives of its batch, triplet with its \
             negative; cosent learns the order of scores, cosine the scores themselves",
        ),
        number(
            "temperature",
            Range::Factor,
            0.05,
            "what contrastive and cosent divide cosines by",
        ),
        number(
            "margin",
            Range::Factor,
            5.0,
            "distance by which triplet keeps negatives behind positives",
        ),
    ];
}

/// A row: texts to compare, or one to predict from.
#[derive(Debug)]
pub enum SentenceRow {
    /// Texts that are alike, or not.
    Pair(PairRow),
    /// A text, or two.
    Text(TextRow),
}

/// What a text is in its row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Role {
    /// The first of two texts, with how alike they are.
    First(f64),
    /// The second one.
    Second,
    /// What is compared.
    Anchor,
    /// What is like it.
    Positive,
    /// What is not.
    Negative,
    /// A text to predict from.
    Alone,
}

/// How the vectors of a row compare.
#[derive(Debug)]
pub enum SentenceScore {
    /// Of two texts with how alike they are: the cosine and that.
    Pair(f64, f64),
    /// Of an anchor and a positive: the row and both vectors, which are compared with those of all rows.
    Ranked(PairRow, [Outputs; 2]),
    /// An anchor that has been compared with the positives of all rows.
    Anchor(AnchorScore),
    /// Of a text alone there is nothing to measure.
    Alone,
}

impl RowTask for Sentences {
    const NAME: &'static str = "embedding";
    const SUMMARY: &'static str =
        "makes vectors of texts, near to one another where the texts are alike";
    const UNIT: &'static str = "rows";
    const TASK_TYPE: &'static str = "FEATURE_EXTRACTION";
    const FILE: Option<&'static str> = Some(MODULES);
    const CLASS: &'static str = "";
    const HEAD: &'static str = "embedding";
    const HAS_LABELS: bool = false;
    const TOGETHER: bool = true;
    const LENGTH: usize = 512;
    const OPTIONS: &'static [&'static str] = &[BOOTSTRAP, POOLING_OPTION, NORMALIZE];
    const FILES: &'static [&'static str] = &[MODULES, POOLING];

    type Keys = EmbeddingKeys;
    type Row = SentenceRow;
    type Target = Role;
    /// The pair, in a row to measure on.
    type About = Option<PairRow>;
    type Scored = SentenceScore;

    fn header(_: &Rules) -> &'static str {
        "row,embedding"
    }

    /// As `modules.json` says; else the mean of the hidden states, not normalized.
    fn head(
        architecture: &Architecture,
        file: &dyn Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Option<PredictorSpec>> {
        if architecture.is_causal() {
            return Ok(None);
        }
        let parsed = |name: &str| -> Result<Option<Value>> {
            let Some(bytes) = file(name) else {
                return Ok(None);
            };
            let parsed = serde_json::from_slice(&bytes);
            parsed.map(Some).map_err(|error| TrainError::Card {
                path: name.into(),
                problem: error.to_string(),
            })
        };
        let mut pooling = Pooling::Mean;
        let mut normalize = false;
        for module in parsed(MODULES)?
            .iter()
            .filter_map(Value::as_array)
            .flatten()
        {
            let kind = module["type"].as_str().unwrap_or_default();
            match kind.rsplit('.').next() {
                Some("Transformer" | "Pooling") => {}
                Some("Normalize") => normalize = true,
                _ => {
                    return Err(TrainError::Card {
                        path: MODULES.into(),
                        problem: format!("the module `{kind}` is not supported"),
                    });
                }
            }
        }
        if let Some(config) = parsed(POOLING)? {
            let modes = config.as_object().into_iter().flatten();
            let on = modes.filter(|(_, value)| **value == Value::Bool(true));
            let on: Vec<&str> = on
                .filter_map(|(key, _)| key.strip_prefix("pooling_mode_"))
                .collect();
            pooling = match on[..] {
                ["mean_tokens"] | [] => Pooling::Mean,
                ["cls_token"] => Pooling::First,
                _ => {
                    return Err(TrainError::Card {
                        path: POOLING.into(),
                        problem: format!("pooling by {} is not supported", on.join(" and ")),
                    });
                }
            };
        }
        Ok(Some(PredictorSpec::pooled(pooling, normalize)))
    }

    fn read(
        paths: &[PathBuf],
        options: &RowsOptions,
        purpose: Purpose,
    ) -> Result<Rows<SentenceRow>> {
        Ok(match purpose {
            Purpose::Predict => text_rows(read_rows(paths, &TEXT, options)?)
                .and_then(|row| Ok(SentenceRow::Text(row))),
            Purpose::Learn | Purpose::Measure => pair_rows(read_rows(paths, &EMBEDDING, options)?)
                .and_then(|row| Ok(SentenceRow::Pair(row))),
        })
    }

    fn length(file: &dyn Fn(&str) -> Option<Vec<u8>>) -> usize {
        let parsed = file(SENTENCES).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let length = parsed.and_then(|config| config["max_seq_length"].as_u64());
        length.map_or(Self::LENGTH, |length| length as usize)
    }

    fn check(items: &[Item<Self>], rules: &Rules, purpose: Purpose) -> Result<()> {
        let pairs = || {
            items
                .iter()
                .filter_map(|item| Some((item, item.about.as_ref()?)))
        };
        if purpose == Purpose::Measure {
            let mut scores = pairs().filter_map(|(_, row)| match row.pair {
                Pair::Scored { score, .. } => Some(score),
                Pair::Ranked { .. } => None,
            });
            let Some(first) = scores.next() else {
                return Ok(());
            };
            return match scores.all(|score| score == first) {
                true => Err(TrainError::NoCorrelation),
                false => Ok(()),
            };
        }
        let loss = loss_of(
            items
                .iter()
                .flat_map(|item| &item.windows)
                .map(|w| &w.target),
            rules,
        )?;
        for (item, row) in pairs() {
            let needs = match (loss, &row.pair) {
                (Loss::Contrastive, Pair::Ranked { .. })
                | (
                    Loss::Triplet,
                    Pair::Ranked {
                        negative: Some(_), ..
                    },
                )
                | (Loss::Cosent | Loss::Cosine, Pair::Scored { .. }) => continue,
                (Loss::Contrastive, _) => "anchor and positive",
                (Loss::Triplet, _) => "anchor, positive and negative",
                (Loss::Cosent | Loss::Cosine, _) => "text, text_pair and score",
            };
            return Err(TrainError::LossNeeds {
                place: item.place.clone(),
                loss: loss.name(),
                needs,
            });
        }
        Ok(())
    }

    fn texts(row: &SentenceRow) -> Vec<Cow<'_, str>> {
        let texts = match row {
            SentenceRow::Pair(PairRow { pair, .. }) => match pair {
                Pair::Scored {
                    text, text_pair, ..
                } => vec![text, text_pair],
                Pair::Ranked {
                    anchor,
                    positive,
                    negative,
                } => [anchor, positive].into_iter().chain(negative).collect(),
            },
            SentenceRow::Text(row) => [&row.text].into_iter().chain(&row.text_pair).collect(),
        };
        texts.into_iter().map(|text| text.as_str().into()).collect()
    }

    fn texts_mut(row: &mut SentenceRow) -> Vec<&mut String> {
        match row {
            SentenceRow::Pair(PairRow { pair, .. }) => match pair {
                Pair::Scored {
                    text, text_pair, ..
                } => vec![text, text_pair],
                Pair::Ranked {
                    anchor,
                    positive,
                    negative,
                } => [anchor, positive].into_iter().chain(negative).collect(),
            },
            SentenceRow::Text(row) => {
                let texts = [&mut row.text].into_iter();
                texts.chain(&mut row.text_pair).collect()
            }
        }
    }

    fn shown(window: &Window<Role>, _: &Rules) -> (Vec<Token>, Option<String>) {
        let label = match window.target {
            Role::First(score) => format!("text, score {}", given(score)),
            Role::Second => "text_pair".to_owned(),
            Role::Anchor => "anchor".to_owned(),
            Role::Positive => "positive".to_owned(),
            Role::Negative => "negative".to_owned(),
            Role::Alone => "text".to_owned(),
        };
        (plain_tokens(&window.row), Some(label))
    }

    fn labels<'a>(_: impl Iterator<Item = &'a SentenceRow>) -> Result<Labels> {
        Ok(Labels::new(vec!["vector".to_owned()], LabelKind::One)?)
    }

    fn encode(rows: Rows<SentenceRow>, encoder: &Encoder<'_>, _: bool) -> Result<Rows<Item<Self>>> {
        let Encoder {
            tokenizer,
            length,
            watch,
            ..
        } = *encoder;
        let encoded = encode_texts(rows, tokenizer, length, parts, watch)?;
        Ok(encoded.and_then(|(row, encoded)| {
            let roles = roles(&row);
            Ok(Item {
                truncated: encoded.iter().any(|row| row.truncated),
                windows: roles
                    .into_iter()
                    .zip(encoded)
                    .map(|(target, row)| Window { row, target })
                    .collect(),
                content: content(&row),
                place: place(&row).clone(),
                about: match row {
                    SentenceRow::Pair(pair) => Some(pair),
                    SentenceRow::Text(_) => None,
                },
            })
        }))
    }

    fn weight(role: &Role, _: &Rules) -> f64 {
        match role {
            Role::First(_) | Role::Anchor => 1.0,
            Role::Second | Role::Positive | Role::Negative | Role::Alone => 0.0,
        }
    }

    fn loss(
        outputs: Tensor<2>,
        _: &RowBatch,
        targets: &[&Role],
        rules: &Rules,
        scale: f32,
    ) -> Result<Tensor<1>> {
        let loss = loss_of(targets.iter().copied(), rules)?;
        let factor = (1.0 / rules.settings.number("temperature")?) as f32;
        let rows = |wanted: &dyn Fn(&Role) -> bool| {
            let places = targets.iter().enumerate();
            let places = places.filter_map(|(place, role)| wanted(role).then_some(place as i64));
            let places: Vec<i64> = places.collect();
            let n = places.len();
            let places = TensorData::new(places, [n]);
            let places = Tensor::<1, Int>::from_data(places, &outputs.device());
            (outputs.clone().select(0, places), n)
        };
        let role = |wanted: Role| rows(&|role| *role == wanted);
        if matches!(loss, Loss::Cosent | Loss::Cosine) {
            let (first, n) = rows(&|role| matches!(role, Role::First(_)));
            let cosines = normalized(first) * normalized(role(Role::Second).0);
            let cosines = cosines.sum_dim(1).reshape([n]);
            let scores = targets.iter().filter_map(|role| match role {
                Role::First(score) => Some(*score as f32),
                _ => None,
            });
            let scores: Vec<f32> = scores.collect();
            if loss == Loss::Cosent {
                return Ok(cosent(cosines * factor, &scores) * (scale * n as f32));
            }
            let place = (&cosines.device(), cosines.dtype());
            let scores = TensorData::new(scores, [n]).convert_dtype(cosines.dtype());
            let scores = Tensor::<1>::from_data(scores, place);
            return Ok((cosines - scores).powi_scalar(2).sum() * scale);
        }
        let (anchors, n) = role(Role::Anchor);
        let (positives, _) = role(Role::Positive);
        let (negatives, n_negatives) = role(Role::Negative);
        if loss == Loss::Triplet {
            let margin = rules.settings.number("margin")?;
            let distance = |other: Tensor<2>| {
                let difference = anchors.clone() - other;
                (difference.powi_scalar(2).sum_dim(1) + 1e-12).sqrt()
            };
            let behind = distance(positives) - distance(negatives) + margin;
            return Ok(activation::relu(behind).sum() * scale);
        }
        let candidates = match n_negatives {
            0 => positives,
            _ => Tensor::cat(vec![positives, negatives], 0),
        };
        let cosines = normalized(anchors).matmul(normalized(candidates).transpose());
        let log_probabilities = activation::log_softmax(cosines * factor, 1);
        let own = TensorData::new((0..n as i64).collect::<Vec<_>>(), [n, 1]);
        let own = Tensor::<2, Int>::from_data(own, &outputs.device());
        Ok(log_probabilities.gather(1, own).sum() * -scale)
    }

    fn score(item: &Item<Self>, outputs: &[Outputs], _: &Rules) -> SentenceScore {
        let Some(row) = &item.about else {
            return SentenceScore::Alone;
        };
        match &row.pair {
            Pair::Scored { score, .. } => {
                SentenceScore::Pair(cosine(&outputs[0], &outputs[1]), *score)
            }
            Pair::Ranked { .. } => {
                let vectors = [0, 1].map(|text| outputs[text].clone());
                SentenceScore::Ranked(row.clone(), vectors)
            }
        }
    }

    fn metrics<'a>(scored: impl Iterator<Item = &'a SentenceScore>, _: &Rules) -> Result<Metrics> {
        let (mut cosines, mut scores, mut ranked) = (Vec::new(), Vec::new(), Vec::new());
        let mut found = RetrievalScorer::new();
        let mut examples = 0_usize;
        for row in scored {
            examples += 1;
            match row {
                SentenceScore::Pair(cosine, score) => {
                    cosines.push(*cosine);
                    scores.push(*score);
                }
                SentenceScore::Ranked(row, vectors) => ranked.push((row, vectors)),
                SentenceScore::Anchor(score) => found.count(score),
                SentenceScore::Alone => {}
            }
        }
        let mut metrics: Option<Metrics> = None;
        let mut add = |name: &str, value: f64| {
            metrics = Some(match metrics.take() {
                None => Metrics::higher_is_better(name, value),
                Some(metrics) => metrics.with(name, value),
            });
        };
        if !scores.is_empty() {
            let of = |f: fn(&[f64], &[f64]) -> Option<f64>| f(&cosines, &scores);
            let none = || TrainError::NoCorrelation;
            add("spearman", of(spearman).ok_or_else(none)?);
            add("pearson", of(pearson).ok_or_else(none)?);
        }
        anchors(&ranked)
            .iter()
            .for_each(|anchor| found.count(anchor));
        if let Some(found) = found.finish() {
            add("mrr", found.mrr);
            for (k, recall) in RECALL_AT.iter().zip(found.recall) {
                add(&format!("recall@{k}"), recall);
            }
        }
        let metrics = metrics.ok_or(TrainError::NoCorrelation)?;
        Ok(metrics.with("examples", examples))
    }

    /// Anchors are drawn again, not what they are compared with: fewer different texts would be easier to tell apart.
    fn drawable(scored: Vec<SentenceScore>) -> Vec<SentenceScore> {
        let is_ranked = |row: &SentenceScore| matches!(row, SentenceScore::Ranked(..));
        let (ranked, mut drawable): (Vec<_>, Vec<_>) = scored.into_iter().partition(is_ranked);
        let ranked = ranked.iter().filter_map(|row| match row {
            SentenceScore::Ranked(row, vectors) => Some((row, vectors)),
            _ => None,
        });
        let ranked: Vec<_> = ranked.collect();
        drawable.extend(anchors(&ranked).into_iter().map(SentenceScore::Anchor));
        drawable
    }

    fn prediction(_: &Item<Self>, outputs: &[Outputs], _: &Rules) -> (Value, String) {
        match outputs {
            [first, second, ..] => {
                let similarity = cosine(first, second);
                (
                    json!({ "similarity": similarity }),
                    format!("{similarity:.6}"),
                )
            }
            _ => {
                let vector = outputs.first().map(Vec::as_slice).unwrap_or_default();
                let numbers: Vec<String> = vector.iter().map(f32::to_string).collect();
                (json!({ "embedding": vector }), numbers.join(" "))
            }
        }
    }
}

/// Compares each anchor with the positives of all rows.
fn anchors(ranked: &[(&PairRow, &[Outputs; 2])]) -> Vec<AnchorScore> {
    let mut vectors: HashMap<&str, &Outputs> = HashMap::new();
    for (row, [of_anchor, of_positive]) in ranked {
        if let Pair::Ranked {
            anchor, positive, ..
        } = &row.pair
        {
            vectors.entry(anchor).or_insert(of_anchor);
            vectors.entry(positive).or_insert(of_positive);
        }
    }
    let retrieval = Retrieval::of(ranked.iter().map(|(row, _)| *row));
    let anchors = retrieval.anchors.iter().zip(&retrieval.positives);
    let scores = anchors.map(|(anchor, positives)| {
        let anchor = vectors[anchor];
        let candidates = retrieval.candidates.iter();
        let similarities: Vec<f64> = candidates
            .map(|candidate| cosine(anchor, vectors[candidate]))
            .collect();
        RetrievalScorer::measure(&similarities, positives)
    });
    scores.collect()
}

/// The texts of a row.
fn parts(row: &SentenceRow) -> (Vec<&str>, &DocumentSource) {
    let texts: Vec<&str> = match row {
        SentenceRow::Text(row) => [Some(&row.text), row.text_pair.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect(),
        SentenceRow::Pair(row) => match &row.pair {
            Pair::Scored {
                text, text_pair, ..
            } => vec![text, text_pair],
            Pair::Ranked {
                anchor,
                positive,
                negative,
            } => [Some(anchor), Some(positive), negative.as_ref()]
                .into_iter()
                .flatten()
                .map(String::as_str)
                .collect(),
        },
    };
    (texts, place(row))
}

fn roles(row: &SentenceRow) -> Vec<Role> {
    match row {
        SentenceRow::Text(_) => vec![Role::Alone; 2],
        SentenceRow::Pair(row) => match &row.pair {
            Pair::Scored { score, .. } => vec![Role::First(*score), Role::Second],
            Pair::Ranked { .. } => vec![Role::Anchor, Role::Positive, Role::Negative],
        },
    }
}

fn place(row: &SentenceRow) -> &DocumentSource {
    match row {
        SentenceRow::Pair(row) => &row.place,
        SentenceRow::Text(row) => &row.place,
    }
}

fn content(row: &SentenceRow) -> ContentHash {
    match row {
        SentenceRow::Pair(row) => row.content(),
        SentenceRow::Text(row) => row.content(),
    }
}

/// `log(1 + sum exp(z_j - z_i))` over the pairs of rows with `score_i > score_j`.
fn cosent(z: Tensor<1>, scores: &[f32]) -> Tensor<1> {
    let (mut higher, mut lower) = (Vec::new(), Vec::new());
    for (i, a) in scores.iter().enumerate() {
        for (j, b) in scores.iter().enumerate() {
            if a > b {
                higher.push(i as i64);
                lower.push(j as i64);
            }
        }
    }
    let n = higher.len();
    if n == 0 {
        return z.sum() * 0.0;
    }
    let pick = |places: Vec<i64>| {
        let places = TensorData::new(places, [n]);
        let places = Tensor::<1, Int>::from_data(places, &z.device());
        z.clone().select(0, places)
    };
    let differences = pick(lower) - pick(higher);
    // The term of 1, and the largest taken out so that nothing overflows.
    let zero = Tensor::zeros([1], (&z.device(), z.dtype()));
    let all = Tensor::cat(vec![differences, zero], 0).reshape([1, n + 1]);
    let log_probabilities = activation::log_softmax(all.clone(), 1);
    // log sum exp = x_k - log softmax(x)_k, at the place of the 1, where x_k is 0.
    log_probabilities.slice([0..1, n..n + 1]).reshape([1]) * -1.0
}

/// The cosine of two vectors; 0 if one has no length.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let product = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    let lengths = (product(a, a) * product(b, b)).sqrt();
    if lengths == 0.0 {
        return 0.0;
    }
    product(a, b) / lengths
}
