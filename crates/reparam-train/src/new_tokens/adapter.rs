//! The tokens that an adapter was trained with, on its base.

use std::path::Path;

use reparam::methods::TrainableRows;
use reparam_data::{FileDigest, TextTokenizer};
use reparam_formats::checkpoint::StoredTensor;
use reparam_formats::file;
use reparam_formats::peft::{AdapterFiles, PeftError, Tensor, TrainedTokens};

use super::{described, drawn_rows, grown, grows, is_tied, stored_name, tokenizer_of};
use crate::config::Catalog;
use crate::model_files::{ModelFiles, TOKENIZER};
use crate::open::OpenedModel;
use crate::session::adapter_directory;
use crate::{Result, TrainError};

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
        let tied = tied.map(|(head, table)| (module(head), module(table)));
        let mut all = Vec::new();
        for (path, rows) in layers {
            if let Some((head, table)) = tied
                && path == head
            {
                if layers.get(table) != Some(rows) {
                    return Err(TrainError::TiedTokens {
                        head: head.to_owned(),
                    });
                }
                continue;
            }
            if self.rows.copies.contains(path) {
                return Err(PeftError::UnexpectedTensor {
                    name: path.clone(),
                    reason: "trainable_token_indices does not name it, and it is not the table in this base",
                }
                .into());
            }
            all.push(TrainableRows::of_adapter(path, rows));
        }
        Ok(all)
    }

    /// Refuses an adapter with a method on a head that is the table of its base, beside rows of the table: the head would then
    /// have a weight of its own, and whether it has the rows is nowhere said.
    pub(crate) fn check_head(
        &self,
        adapter: &AdapterFiles,
        tied: Option<&(String, String)>,
    ) -> Result<()> {
        let Some((head, _)) = tied else {
            return Ok(());
        };
        let head = module(head);
        let is_of_head = |name: &String| {
            let rest = name.strip_prefix(head);
            rest.is_some_and(|rest| rest.starts_with('.'))
        };
        match adapter.tensors.keys().any(is_of_head) {
            true => Err(TrainError::TokensAndHead {
                head: head.to_owned(),
            }),
            false => Ok(()),
        }
    }

    /// Refuses an adapter whose tokenizer is not the one of a model that is loaded already.
    pub(crate) fn check_tokenizer(&self, own: &TextTokenizer, directory: &Path) -> Result<()> {
        let mut files = self.files.iter();
        let Some((name, bytes)) = files.find(|(name, _)| *name == TOKENIZER[0]) else {
            return Ok(());
        };
        let directory = adapter_directory(directory);
        let theirs = FileDigest::of(&directory.join(name), bytes);
        match theirs.sha256 == own.digest().sha256 {
            true => Ok(()),
            false => Err(TrainError::AdapterTokenizer { directory }),
        }
    }
}

/// The layer that has a weight.
fn module(weight: &str) -> &str {
    weight.strip_suffix(".weight").unwrap_or(weight)
}

/// A whole table that an adapter has of its base.
struct StoredTable<'a> {
    /// The weight's name in transformers' class.
    weight: String,
    tensor: &'a Tensor,
    /// Whether it is the base's, with more rows, and not trained.
    is_copy: bool,
}

impl OpenedModel {
    /// Gives the model the tokenizer of an adapter, and as many rows as its tokens need: those of the tables that PEFT stores of
    /// a model whose vocabulary grew, or drawn ones.
    pub(crate) fn with_adapter_tokens(
        self,
        tokens: Option<(&AdapterTokens, &AdapterFiles)>,
        (catalog, dropout): (&Catalog, Option<f64>),
    ) -> Result<Self> {
        let Some((AdapterTokens { rows, files }, adapter)) = tokens else {
            return Ok(self);
        };
        let own = self.files.with_files(files.clone());
        let before = self.architecture.vocab_size;
        let (head, table) = self.architecture.head_names();
        let is_tied = is_tied(own.weights(), &self.architecture)?;
        let stored = stored_tables(rows, adapter, [&head, &table])?;
        let trained = rows.layers.values().flat_map(|layer| &layer.indices);
        let trained = trained.max().map_or(0, |most| *most as usize + 1);
        let needed = check_tables(&stored, before, trained)?;
        let known = (tokenizer_of(&own)?.max_id() as usize).saturating_add(1);
        let known = known.max(before);
        if needed > known && stored.is_empty() {
            // What no tokenizer has may be any number.
            return Err(TrainError::TokensBeyond {
                index: needed - 1,
                tokens: known,
            });
        }
        for of in stored.iter().filter(|of| of.is_copy) {
            let name = if is_tied { &table } else { &of.weight };
            check_base(
                &own,
                stored_name(own.weights(), &self.architecture, name),
                of,
            )?;
        }
        if is_tied
            && let [first, second] = &stored[..]
            && first.tensor != second.tensor
        {
            return Err(TrainError::TiedTokens {
                head: module(&head).to_owned(),
            });
        }
        let more = match stored.is_empty() {
            true => grows(&own, before, needed)?,
            false => before..needed,
        };
        let make = |name: &str, base: &StoredTensor<'_>| {
            let mut stored = stored.iter();
            match stored.find(|of| of.weight == name || is_tied) {
                Some(of) if of.tensor.shape[1..] == base.shape[1..] => {
                    let width = of.tensor.shape[1];
                    Ok(of.tensor.data[before * width..].to_vec())
                }
                _ => drawn_rows(name, base, more.clone()),
            }
        };
        let own = grown(own, &self.architecture, more.len(), make)?;
        described(own, self.notes, (catalog, dropout))
    }
}

/// Finds the tables of an adapter. Of a layer that has no rows of its own PEFT stores the weight by its own name.
fn stored_tables<'a>(
    rows: &'a TrainedTokens,
    adapter: &'a AdapterFiles,
    weights: [&String; 2],
) -> Result<Vec<StoredTable<'a>>> {
    let is_known = |path: &&String| weights.iter().any(|weight| module(weight) == path.as_str());
    if let Some(other) = rows.tables.keys().find(|path| !is_known(path)) {
        return Err(PeftError::UnexpectedTensor {
            name: other.clone(),
            reason: "it is neither the table of token vectors nor the output head",
        }
        .into());
    }
    let saved = adapter.config.strings("modules_to_save")?;
    let saved = saved.unwrap_or_default();
    let found = weights.into_iter().filter_map(|weight| {
        let path = module(weight);
        let copy = rows.tables.get(path);
        let tensor = copy.or_else(|| adapter.tensors.get(weight))?;
        let last = path.rsplit('.').next().unwrap_or(path);
        let is_saved = saved.iter().any(|name| name == path || name == last);
        Some(StoredTable {
            weight: weight.clone(),
            tensor,
            is_copy: copy.is_some() || !is_saved,
        })
    });
    Ok(found.collect())
}

/// Returns how many rows are needed, once all tables have as many, and one for each token that is trained.
fn check_tables(stored: &[StoredTable<'_>], before: usize, trained: usize) -> Result<usize> {
    let is_matrix = |of: &StoredTable<'_>| of.tensor.shape.len() == 2;
    let rows = |of: &StoredTable<'_>| of.tensor.shape[0];
    let most = stored.iter().filter(|of| is_matrix(of)).map(rows).max();
    let needed = trained.max(most.unwrap_or(before)).max(before);
    match stored.iter().find(|of| !is_matrix(of) || rows(of) != needed) {
        None => Ok(needed),
        Some(of) => Err(PeftError::UnexpectedTensor {
            name: of.weight.clone(),
            reason: "it is no table with a row for each token of the base and of trainable_token_indices",
        }
        .into()),
    }
}

/// Checks that a table begins with the rows of the base, bit for bit.
fn check_base(files: &ModelFiles, name: Option<String>, of: &StoredTable<'_>) -> Result<()> {
    let refuse = |problem| PeftError::OtherBase {
        name: of.weight.clone(),
        problem,
    };
    let base = name.and_then(|name| files.weights().get(&name));
    let base = base.ok_or_else(|| refuse("the base has none"))?;
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
    let begins = base.shape.len() == 2
        && base.shape[1..] == of.tensor.shape[1..]
        && base.to_f32_vec()?.iter().zip(&of.tensor.data).all(same);
    match begins {
        true => Ok(()),
        false => Err(refuse("that of the base is another").into()),
    }
}
