//! Models with more tokens than they were made with: what a run adds, and what an adapter was trained with.

use std::path::Path;

use reparam::methods::{self, TrainableRows};
use reparam_data::tokenizer::{NewToken, with_new_tokens};
use reparam_formats::checkpoint::{Checkpoint, StoredTensor};
use reparam_formats::file;
use reparam_formats::peft::{AdapterFiles, TrainedTokens};
use reparam_formats::rounding;
use reparam_formats::safetensors::{TensorData, TensorToWrite};
use reparam_models::Architecture;
use serde_json::{Map, Value};

use crate::config::Catalog;
use crate::model_files::{CONFIG, ModelFiles, TOKENIZER};
use crate::open::OpenedModel;
use crate::preflight::Finding;
use crate::session::{adapter_directory, load_tokenizer};
use crate::{Result, TrainError};

/// The key of `config.json` that says how many rows the table has.
const VOCAB_SIZE: &str = "vocab_size";

/// What the covariance of the table's rows is multiplied by for a new row: that of transformers' `resize_token_embeddings`.
const COVARIANCE: f64 = 1e-9;

/// The tokens of an adapter beside its method.
pub(crate) struct AdapterTokens {
    pub(crate) rows: TrainedTokens,
    /// The files of its tokenizer, if it has one of its own.
    files: Vec<(&'static str, Vec<u8>)>,
}

impl AdapterTokens {
    /// Takes them out of an adapter that was read from a directory; `None` if it has none.
    pub(crate) fn take(adapter: &mut AdapterFiles, directory: &Path) -> Result<Option<Self>> {
        let Some(rows) = adapter.take_tokens()? else {
            return Ok(None);
        };
        let directory = adapter_directory(directory);
        let mut files = Vec::new();
        for name in TOKENIZER {
            let path = directory.join(name);
            if file::is_there(&path)? {
                files.push((name, file::read(&path)?));
            }
        }
        if files.iter().all(|(name, _)| *name != TOKENIZER[0]) {
            files.clear();
        }
        Ok(Some(Self { rows, files }))
    }

    /// The rows that are trained of a model: those of a head that is the table are the table's.
    pub(crate) fn layers(&self, tied: Option<&(String, String)>) -> Result<Vec<TrainableRows>> {
        let layers = &self.rows.layers;
        let module = |weight: &str| weight.strip_suffix(".weight").unwrap_or(weight).to_owned();
        let tied = tied.map(|(head, table)| (module(head), module(table)));
        let mut all = Vec::new();
        for (path, rows) in layers {
            if let Some((head, table)) = &tied
                && path == head
            {
                if layers.get(table) != Some(rows) {
                    return Err(TrainError::TiedTokens { head: head.clone() });
                }
                continue;
            }
            all.push(TrainableRows::of_adapter(path, rows));
        }
        Ok(all)
    }
}

impl OpenedModel {
    /// Adds tokens to the tokenizer, and rows to the table and a head of its own where there are fewer than tokens. Returns with
    /// it the ids of those that are new.
    ///
    /// A row begins as the mean of the rows there are plus normal noise of 1e-9 times their covariance, as transformers' do
    /// (`mean_resizing`): `mean + sqrt(1e-9 / V) sum_i g_i (e_i - mean)` with `g_i` drawn from the seed and the token. One that
    /// the table has already, because it was padded, stays as it is.
    pub(crate) fn with_new_tokens(
        self,
        tokens: &[NewToken],
        seed: u64,
        (catalog, dropout): (&Catalog, Option<f64>),
    ) -> Result<(Self, Vec<u32>)> {
        let directory = self.files.directory().to_owned();
        let added = with_new_tokens(&directory, |name| self.files.bytes(name), tokens)?;
        let mut notes = self.notes.clone();
        for (token, id) in &added.known {
            let token = reparam_formats::shown(token).to_string();
            notes.push(Finding::warning(
                "model",
                format!("`{token}` in data.add_tokens is a token already (id {id}), which is not trained by itself"),
                "leave it out of data.add_tokens",
            ));
        }
        let files = self.files.with_files(added.files);
        let ids: Vec<u32> = added.new.iter().map(|(_, id)| *id).collect();
        let needed = ids.last().map_or(0, |last| *last as usize + 1);
        let before = self.architecture.vocab_size;
        // A token that the table was too short for has no row either.
        let label = |row: usize| {
            let mut new = added.new.iter();
            let new = new.find(|(_, id)| *id as usize == row);
            new.map_or_else(|| format!("row {row}"), |(token, _)| token.clone())
        };
        let more: Vec<String> = (before..needed).map(label).collect();
        let files = grown(files, &self.architecture, &more, |name, stored| {
            drawn_rows(name, stored, &more, seed)
        })?;
        Ok((described(files, notes, (catalog, dropout))?, ids))
    }

    /// Gives the model the tokenizer of an adapter, and as many rows as its tokens need.
    pub(crate) fn with_adapter_tokens(
        self,
        tokens: Option<&AdapterTokens>,
        (catalog, dropout): (&Catalog, Option<f64>),
    ) -> Result<Self> {
        let Some(AdapterTokens { rows, files }) = tokens else {
            return Ok(self);
        };
        let own = self.files.with_files(files.clone());
        let before = self.architecture.vocab_size;
        let trained = rows.layers.values().flat_map(|layer| &layer.indices);
        let trained = trained.max().map_or(0, |most| *most as usize + 1);
        let stored = rows.tables.values().map(|table| table.shape[0]).max();
        let needed = trained.max(stored.unwrap_or(0));
        let known = tokens_of(&own)?.max(before);
        if needed > known.max(stored.unwrap_or(0)) {
            // What no tokenizer has may be any number.
            return Err(TrainError::TokensBeyond {
                index: needed - 1,
                tokens: known,
            });
        }
        let more: Vec<String> = (before..needed).map(|row| format!("row {row}")).collect();
        let own = grown(own, &self.architecture, &more, |name, stored| {
            let module = name.strip_suffix(".weight").unwrap_or(name);
            match rows.tables.get(module) {
                Some(table) if table.shape[1..] == stored.shape[1..] => {
                    Ok(table.data[before * table.shape[1]..].to_vec())
                }
                _ => drawn_rows(name, stored, &more, 0),
            }
        })?;
        described(own, self.notes, (catalog, dropout))
    }
}

/// How many tokens the tokenizer of a model has, by the largest id.
fn tokens_of(files: &ModelFiles) -> Result<usize> {
    let tokenizer = load_tokenizer(files, &Default::default())?;
    Ok(tokenizer.max_id() as usize + 1)
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

/// Adds rows to the table and to a head of its own; `make` makes them for a tensor by its name in the class.
fn grown(
    files: ModelFiles,
    architecture: &Architecture,
    more: &[String],
    make: impl Fn(&str, &StoredTensor<'_>) -> Result<Vec<f32>>,
) -> Result<ModelFiles> {
    if more.is_empty() {
        return Ok(files);
    }
    let weights = files.weights();
    let (head, table) = architecture.head_names();
    let prefix = format!("{}.", architecture.prefix);
    // A checkpoint without a head lacks the name of the body.
    let stored = |name: &str| -> Option<String> {
        let short = name.strip_prefix(&prefix).unwrap_or(name);
        let mut names = [name, short].into_iter();
        names
            .find(|name| weights.get(name).is_some())
            .map(str::to_owned)
    };
    let mut longer: Vec<(String, Vec<usize>, Longer)> = Vec::new();
    if let (Some(a), Some(b)) = (stored(&head), stored(&table))
        && architecture.head.tied
        && weights.are_equal(&a, &b)?
    {
        // They stay one weight.
        for name in [a, b] {
            longer.push(longer_tensor(weights, &name, |stored| {
                make(&table, stored)
            })?);
        }
    } else {
        for name in [&head, &table] {
            if let Some(stored) = stored(name) {
                longer.push(longer_tensor(weights, &stored, |tensor| {
                    make(name, tensor)
                })?);
            }
        }
    }
    let bias = format!("{}.bias", architecture.head.path);
    if let Some(name) = stored(&bias) {
        let mean = |stored: &StoredTensor<'_>| {
            let values = stored.to_finite_f32_vec()?;
            let sum: f64 = values.iter().map(|value| f64::from(*value)).sum();
            Ok(vec![(sum / values.len().max(1) as f64) as f32; more.len()])
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
        (architecture.vocab_size + more.len()).into(),
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

/// Draws the rows of new tokens, in f64.
fn drawn_rows(
    name: &str,
    stored: &StoredTensor<'_>,
    tokens: &[String],
    seed: u64,
) -> Result<Vec<f32>> {
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
    let rows = tokens.iter().map(|token| {
        let factors = methods::normal(n_rows, std, seed, &format!("{name} {token}"));
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
        let tokens: Vec<String> = (0..4000).map(|at| at.to_string()).collect();
        let rows = drawn_rows("t", &stored, &tokens, 5).expect("rows");
        assert_eq!(rows, drawn_rows("t", &stored, &tokens, 5).expect("rows"));
        assert_ne!(rows, drawn_rows("t", &stored, &tokens, 6).expect("rows"));
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
