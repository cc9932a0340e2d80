//! Models with more tokens than they were made with: what a run adds, and what an adapter was trained with.

use std::ops::Range;

use reparam::methods;
use reparam_data::TextTokenizer;
use reparam_data::tokenizer::{NewToken, with_new_tokens};
use reparam_formats::checkpoint::{Checkpoint, StoredTensor};
use reparam_formats::rounding;
use reparam_formats::safetensors::{TensorData, TensorToWrite};
use reparam_models::Architecture;
use serde_json::{Map, Value};

use crate::config::Catalog;
use crate::model_files::{CONFIG, ModelFiles};
use crate::open::OpenedModel;
use crate::preflight::Finding;
use crate::session::load_tokenizer;
use crate::{Result, TrainError};

mod adapter;

pub(crate) use adapter::AdapterTokens;

/// The key of `config.json` that says how many rows the table has.
const VOCAB_SIZE: &str = "vocab_size";

/// What the covariance of the table's rows is multiplied by for a new row: that of transformers' `resize_token_embeddings`.
const COVARIANCE: f64 = 1e-9;

/// The seed of new rows, whatever that of a run: an adapter does not have those that nobody trains, and trained ones are added to
/// what the table has, so that the table has to be the same wherever an adapter is used.
const SEED: u64 = 0;

impl OpenedModel {
    /// Adds tokens to the tokenizer, and rows to the table and a head of its own where there are fewer than tokens. Returns with
    /// it the ids of those that are new, or that had no row.
    ///
    /// A row begins as the mean of the rows there are plus normal noise of 1e-9 times their covariance, as transformers' do
    /// (`mean_resizing`): `mean + sqrt(1e-9 / V) sum_i g_i (e_i - mean)` with `g_i` drawn from the number of the row. One that
    /// the table has already, because it was padded, stays as it is.
    pub(crate) fn with_new_tokens(
        self,
        tokens: &[NewToken],
        (catalog, dropout): (&Catalog, Option<f64>),
    ) -> Result<(Self, Vec<u32>)> {
        let directory = self.files.directory().to_owned();
        let mut added = with_new_tokens(&directory, |name| self.files.bytes(name), tokens)?;
        let before = self.architecture.vocab_size;
        let mut notes = self.notes.clone();
        let is_special = |token: &String| {
            let mut tokens = tokens.iter();
            tokens.any(|new| new.special && new.content == *token)
        };
        for (token, id) in added.known {
            if id as usize >= before {
                added.new.push((token, id));
                continue;
            }
            let key = match is_special(&token) {
                true => "data.add_special_tokens",
                false => "data.add_tokens",
            };
            let token = reparam_formats::shown(&token).to_string();
            notes.push(Finding::warning(
                "model",
                format!("`{token}` in {key} is a token already (id {id}), which is not trained by itself"),
                format!("leave it out of {key}"),
            ));
        }
        added.new.sort_by_key(|(_, id)| *id);
        let files = self.files.with_files(added.files);
        let ids: Vec<u32> = added.new.iter().map(|(_, id)| *id).collect();
        let needed = ids.last().map_or(0, |last| *last as usize + 1);
        let more = grows(&files, before, needed)?;
        let files = grown(files, &self.architecture, more.len(), |name, stored| {
            drawn_rows(name, stored, more.clone())
        })?;
        Ok((described(files, notes, (catalog, dropout))?, ids))
    }

    /// Whether the output head is the table of token vectors, in the weights, too: a head with other numbers is one of its own,
    /// whatever `config.json` says.
    pub(crate) fn is_tied(&self) -> Result<bool> {
        is_tied(self.files.weights(), &self.architecture)
    }
}

/// As [`OpenedModel::is_tied`].
pub(crate) fn is_tied(weights: &Checkpoint, architecture: &Architecture) -> Result<bool> {
    let (head, table) = architecture.head_names();
    let stored = |name: &str| stored_name(weights, architecture, name);
    Ok(architecture.head.tied
        && match (stored(&head), stored(&table)) {
            (Some(head), Some(table)) => weights.are_equal(&head, &table)?,
            _ => true,
        })
}

/// What a checkpoint calls a tensor of transformers' class: one that was saved without a head lacks the name of the body.
fn stored_name(weights: &Checkpoint, architecture: &Architecture, name: &str) -> Option<String> {
    let prefix = format!("{}.", architecture.prefix);
    let short = name.strip_prefix(&prefix).unwrap_or(name);
    let mut names = [name, short].into_iter();
    names
        .find(|name| weights.get(name).is_some())
        .map(str::to_owned)
}

/// The rows that a table gets to have as many as are needed; refused if that is more of them than there are tokens, since what a
/// file calls an id is no size.
fn grows(files: &ModelFiles, before: usize, needed: usize) -> Result<Range<usize>> {
    let rows = before..needed.max(before);
    if rows.is_empty() {
        return Ok(rows);
    }
    let tokens = tokenizer_of(files)?.vocab_size();
    match rows.len() > tokens {
        true => Err(TrainError::TokensBeyond {
            index: needed - 1,
            tokens,
        }),
        false => Ok(rows),
    }
}

fn tokenizer_of(files: &ModelFiles) -> Result<TextTokenizer> {
    load_tokenizer(files, &Default::default())
}

/// Describes a model anew.
fn described(
    files: ModelFiles,
    notes: Vec<Finding>,
    (catalog, dropout): (&Catalog, Option<f64>),
) -> Result<OpenedModel> {
    let mut architecture = catalog.families.describe(files.json())?;
    if let Some(dropout) = dropout {
        architecture.set_dropout(dropout)?;
    }
    let tokenizer = load_tokenizer(&files, &architecture.special)?;
    let tokenizer = tokenizer.with_embedding_rows(architecture.vocab_size);
    Ok(OpenedModel {
        files,
        architecture,
        tokenizer,
        notes,
    })
}

/// Adds `more` rows to the table and to a head of its own; `make` makes them for a tensor by its name in the class.
fn grown(
    files: ModelFiles,
    architecture: &Architecture,
    more: usize,
    make: impl Fn(&str, &StoredTensor<'_>) -> Result<Vec<f32>>,
) -> Result<ModelFiles> {
    if more == 0 {
        return Ok(files);
    }
    let weights = files.weights();
    let (head, table) = architecture.head_names();
    let stored = |name: &str| stored_name(weights, architecture, name);
    let is_tied = is_tied(weights, architecture)?;
    let mut longer: Vec<(String, Vec<usize>, Longer)> = Vec::new();
    for name in [&head, &table] {
        let Some(stored) = stored(name) else {
            continue;
        };
        // What is one weight stays one.
        let name = if is_tied { &table } else { name };
        longer.push(longer_tensor(weights, &stored, |tensor| {
            make(name, tensor)
        })?);
    }
    let bias = format!("{}.bias", architecture.head.path);
    if let Some(name) = stored(&bias) {
        let mean = |stored: &StoredTensor<'_>| {
            let values = stored.to_finite_f32_vec()?;
            let sum: f64 = values.iter().map(|value| f64::from(*value)).sum();
            Ok(vec![(sum / values.len().max(1) as f64) as f32; more])
        };
        longer.push(longer_tensor(weights, &name, mean)?);
    }
    let tensors: Vec<TensorToWrite<'_>> = longer
        .iter()
        .map(|(name, shape, longer)| TensorToWrite {
            name,
            shape,
            data: TensorData::Bytes(&longer.bytes, longer.dtype),
        })
        .collect();
    let mut config = files.json().json.map().clone();
    config.insert(
        VOCAB_SIZE.to_owned(),
        (architecture.vocab_size + more).into(),
    );
    files.with_tensors(&tensors, config)
}

/// The bytes of a tensor with more rows.
struct Longer {
    bytes: Vec<u8>,
    dtype: reparam_formats::checkpoint::Dtype,
}

fn longer_tensor(
    weights: &Checkpoint,
    name: &str,
    make: impl FnOnce(&StoredTensor<'_>) -> Result<Vec<f32>>,
) -> Result<(String, Vec<usize>, Longer)> {
    let stored = weights.require(name)?;
    let rows = make(&stored)?;
    let mut shape = stored.shape.to_vec();
    let width: usize = shape[1..].iter().product();
    shape[0] += rows.len() / width.max(1);
    let mut bytes = stored.bytes()?;
    let rows: Vec<f64> = rows.into_iter().map(f64::from).collect();
    rounding::append(&rows, stored.dtype, &mut bytes)?;
    let dtype = stored.dtype;
    Ok((name.to_owned(), shape, Longer { bytes, dtype }))
}

/// Draws rows, in f64.
fn drawn_rows(name: &str, stored: &StoredTensor<'_>, new: Range<usize>) -> Result<Vec<f32>> {
    let table = stored.to_finite_f32_vec()?;
    let width = stored.shape.get(1).copied().unwrap_or(1).max(1);
    let n_rows = table.len() / width;
    let mut mean = vec![0.0; width];
    for row in table.chunks_exact(width) {
        for (sum, value) in mean.iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
    for sum in &mut mean {
        *sum /= n_rows.max(1) as f64;
    }
    let std = (COVARIANCE / n_rows.max(1) as f64).sqrt();
    let rows = new.map(|row| {
        let factors = methods::normal(n_rows, std, SEED, &format!("{name} row {row}"));
        let mut noise = vec![0.0; width];
        let mut total = 0.0;
        for (factor, row) in factors.iter().zip(table.chunks_exact(width)) {
            let factor = f64::from(*factor);
            total += factor;
            for (sum, value) in noise.iter_mut().zip(row) {
                *sum += factor * f64::from(*value);
            }
        }
        let row = noise.iter().zip(&mean);
        let row = row.map(|(noise, mean)| (mean + noise - total * mean) as f32);
        row.collect::<Vec<f32>>()
    });
    Ok(rows.collect::<Vec<_>>().concat())
}

impl ModelFiles {
    /// Puts other tensors in the place of those that have their names, and another configuration.
    fn with_tensors(
        self,
        tensors: &[TensorToWrite<'_>],
        config: Map<String, Value>,
    ) -> Result<Self> {
        let config = format!("{:#}\n", Value::Object(config));
        let path = self.directory().join(CONFIG);
        let json = reparam_formats::config::ModelJson::parse(&path, &config)?;
        let files = self.map_weights(|weights| Ok(weights.with_tensors(tensors)?), json)?;
        Ok(files.with_files([(CONFIG, config.into_bytes())]))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The mean of many draws is that of the rows, and their covariance 1e-9 times that of the rows.
    #[test]
    fn new_rows_have_mean_and_covariance_of_the_others() {
        let table = [[1.0, 2.0], [3.0, -1.0], [5.0, 2.0], [-1.0, 1.0_f32]];
        let flat: Vec<f32> = table.concat();
        let checkpoint =
            Checkpoint::in_memory(Path::new("m"), &[TensorToWrite::f32("t", &[4, 2], &flat)]);
        let checkpoint = checkpoint.expect("a checkpoint");
        let stored = checkpoint.require("t").expect("a tensor");
        let drawn = |rows| drawn_rows("t", &stored, rows).expect("rows");
        let rows = drawn(4..4004);
        // A row follows from its number alone.
        assert_eq!(rows[2 * 7..], drawn(11..4004));
        assert_ne!(rows[..2], rows[2..4]);
        let mean = [2.0, 1.0];
        let of = |rows: &[[f64; 2]], i: usize, j: usize| {
            let products = rows
                .iter()
                .map(|row| (row[i] - mean[i]) * (row[j] - mean[j]));
            products.sum::<f64>() / rows.len() as f64
        };
        let wide = |row: &[f32]| [f64::from(row[0]), f64::from(row[1])];
        let drawn: Vec<[f64; 2]> = rows.chunks_exact(2).map(wide).collect();
        let given: Vec<[f64; 2]> = table.iter().map(|row| wide(row)).collect();
        for (i, j) in [(0, 0), (0, 1), (1, 1)] {
            let (found, expected) = (of(&drawn, i, j) / COVARIANCE, of(&given, i, j));
            // Four standard errors of 4000 draws, and the rounding to f32 of numbers near 2.
            let bound = 4.0 * (2.0 * 5.5 * 5.5 / 4000.0_f64).sqrt() + 1e-2;
            assert!(
                (found - expected).abs() < bound,
                "{i} {j}: {found} {expected}"
            );
        }
    }
}
