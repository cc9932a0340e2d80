//! Adapters merged into the weights of their base.

mod compare;
mod error;
mod lora;
mod report;
mod weights;
mod write;

use std::path::{Path, PathBuf};

use reparam_formats::atomic::{AtomicDirectory, write_file_atomic};
use reparam_formats::chat_templates::{TEMPLATE_FILE, TemplateText};
use reparam_formats::checkpoint::Dtype;
use reparam_formats::hub::HubOptions;
use reparam_formats::peft::AdapterFiles;
use serde_json::{Map, Value};

pub use self::compare::Agreement;
pub(crate) use self::compare::compare_sessions;
pub use self::error::MergeError;
pub use reparam::methods::FactorSize;

pub use self::lora::{LoraLayer, LoraReport, LoraRequest, LoraSource, to_lora};
pub use self::report::{MergeReport, MergedLayer};
pub(crate) use self::weights::MergedWeights;
use crate::chat::template_of_adapter;
use crate::model_files::{CONFIG, ModelFiles};
use crate::new_tokens::AdapterTokens;
use crate::open::OpenedModel;
use crate::session::{adapter_directory, load_adapter};
use crate::task::{DataRequest, ModelRequest};
use crate::{Result, Stop, cards};

/// The shard size of transformers.
pub const SHARD_SIZE: u64 = 5_000_000_000;

/// What is merged, and how the result is written.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeRequest {
    /// The base; its adapter is not looked at.
    pub model: ModelRequest,
    /// The adapters, each with what its change is multiplied by.
    pub adapters: Vec<(PathBuf, f64)>,
    /// The type of the weights; that of each tensor of the base if absent.
    pub dtype: Option<Dtype>,
    /// The most bytes of a file of weights.
    pub shard_size: u64,
    /// Texts on which the adapter and the merged model are compared.
    pub data: Option<DataRequest>,
    /// The most tokens that both see at once.
    pub sequence_length: usize,
    /// The largest mean divergence per token, in nats, with which the result is written.
    pub max_kl: Option<f64>,
}

impl MergeRequest {
    /// Asks for one adapter in its base, in the base's types.
    pub fn new(model: ModelRequest, adapters: Vec<(PathBuf, f64)>) -> Self {
        Self {
            model,
            adapters,
            dtype: None,
            shard_size: SHARD_SIZE,
            data: None,
            sequence_length: crate::task::DEFAULT_LENGTH,
            max_kl: None,
        }
    }
}

/// A base with adapters that are to be merged into it.
pub(crate) struct Opened {
    pub(crate) model: OpenedModel,
    adapters: Vec<(PathBuf, f64)>,
    /// What was read of them, with the rows of tokens that one may have.
    loaded: Vec<LoadedAdapter>,
}

/// An adapter, its rows of tokens, and what its change is multiplied by.
pub(crate) type LoadedAdapter = (AdapterFiles, Option<AdapterTokens>, f64);

impl Opened {
    /// Opens the base and checks that the adapters are of it.
    pub(crate) fn find(
        model: &ModelRequest,
        adapters: &[(PathBuf, f64)],
        hub: &HubOptions,
    ) -> Result<Self> {
        let mut opened = OpenedModel::open(&model.model, hub, &model.catalog, None)?;
        let mut loaded = Vec::new();
        let mut with_tokens: Option<&Path> = None;
        for (directory, factor) in adapters {
            if !factor.is_finite() {
                return Err(MergeError::Factor { factor: *factor }.into());
            }
            let mut adapter = load_adapter(directory)?;
            let tokens = AdapterTokens::take(&mut adapter, directory)?;
            if tokens.is_some() {
                if let Some(other) = with_tokens.replace(directory) {
                    return Err(MergeError::SeveralTokens {
                        first: other.to_owned(),
                        second: directory.clone(),
                    }
                    .into());
                }
                let place = (&model.catalog, None);
                let own = tokens.as_ref().map(|tokens| (tokens, &adapter));
                opened = opened.with_adapter_tokens(own, place)?;
            }
            loaded.push((adapter, tokens, *factor));
        }
        Ok(Self {
            model: opened,
            adapters: adapters.to_vec(),
            loaded,
        })
    }

    /// Returns the chat template that an adapter was trained with in place of the base's, of several the first one's.
    pub(crate) fn template(&self) -> Result<Option<TemplateText>> {
        let adapters = self.adapters.iter();
        let templates = adapters.map(|(path, _)| template_of_adapter(&adapter_directory(path)));
        Ok(templates
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .next())
    }

    /// Returns the text of the merged model's `config.json`: the base's with the type of the weights, whether head and embedding are
    /// one, and what the adapter says of its task, of several the first one that says something.
    pub(crate) fn config(&self, dtype: Option<Dtype>, unties: bool) -> Result<String> {
        let mut config = config_of(&self.model.files, dtype, unties);
        for (path, _) in &self.adapters {
            if cards::merge_into(&mut config, &adapter_directory(path))? {
                break;
            }
        }
        Ok(format!("{:#}\n", Value::Object(config)))
    }

    /// Writes what a merged model has beside its weights.
    pub(crate) fn write_beside(&self, directory: &Path, config: &str) -> Result<()> {
        write_companions(&self.model.files, directory)?;
        if let Some(template) = self.template()? {
            write_file_atomic(&directory.join(TEMPLATE_FILE), template.text.as_bytes())?;
        }
        Ok(write_file_atomic(
            &directory.join(CONFIG),
            config.as_bytes(),
        )?)
    }

    /// Returns the weights with the adapters in them.
    pub(crate) fn weights(&self, model: &ModelRequest) -> Result<MergedWeights<'_>> {
        let methods = &model.catalog.methods;
        let (files, architecture) = (&self.model.files, &self.model.architecture);
        MergedWeights::new(files, architecture, &self.loaded, methods)
    }
}

/// Merges adapters into their base and writes the result as a model directory, which is there as a whole or not at all.
///
/// Of several adapters, each change `W_i - W0` is multiplied by its factor, and their sum is added to `W0`.
///
/// # Numerics
///
/// All sums are in f64, and each number is rounded once, to the type in which it is written.
///
/// # Errors
///
/// Fails when model and adapter do not fit, [`MergeError::OutputTaken`], [`MergeError::TooFar`] if the merged model says something else than the
/// adapter by more than is asked for, and those of files; [`TrainError::Interrupted`](crate::TrainError::Interrupted).
pub fn merge(
    request: &MergeRequest,
    output: &Path,
    hub: &HubOptions,
    stop: Stop<'_>,
) -> Result<MergeReport> {
    request.model.runtime.run(|| {
        check_free(output)?;
        let opened = Opened::find(&request.model, &request.adapters, hub)?;
        let mut weights = opened.weights(&request.model)?;
        let directory = AtomicDirectory::create(output)?;
        let mut report = write::write(request, &mut weights, directory.path(), stop)?;
        let config = opened.config(request.dtype, weights.unties())?;
        opened.write_beside(directory.path(), &config)?;
        if let Some(data) = &request.data {
            let agreement = compare::compare(request, data, directory.path(), hub, stop)?;
            if let Some(bound) = request.max_kl.filter(|bound| agreement.kl > *bound) {
                let kl = agreement.kl;
                return Err(MergeError::TooFar { kl, bound }.into());
            }
            report.agreement = Some(agreement);
        }
        directory.commit()?;
        Ok(report)
    })?
}

/// Refuses a directory with files: an index or a shard of another model among them would be read with this one's.
pub(crate) fn check_free(output: &Path) -> Result<()> {
    let is_taken = std::fs::read_dir(output).is_ok_and(|mut entries| entries.next().is_some());
    match is_taken {
        true => Err(MergeError::OutputTaken {
            path: output.to_owned(),
        }
        .into()),
        false => Ok(()),
    }
}

/// Writes what the base has beside its weights.
fn write_companions(files: &ModelFiles, directory: &Path) -> Result<()> {
    for (name, bytes) in files.companions() {
        let path = directory.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|source| reparam_formats::FormatError::Io {
                action: "create",
                path: parent.to_owned(),
                source,
            })?;
        }
        write_file_atomic(&path, bytes)?;
    }
    Ok(())
}

/// The base's `config.json`, with the type of the weights and whether head and embedding are one.
fn config_of(files: &ModelFiles, dtype: Option<Dtype>, unties: bool) -> Map<String, Value> {
    let mut config: Map<String, Value> = files.json().json.map().clone();
    let word = dtype.and_then(|dtype| match dtype {
        Dtype::F32 => Some("float32"),
        Dtype::F16 => Some("float16"),
        Dtype::BF16 => Some("bfloat16"),
        _ => None,
    });
    if let Some(word) = word {
        // transformers 4 and 5 have different words for it.
        let known = ["dtype", "torch_dtype"].into_iter();
        let there: Vec<&str> = known.filter(|key| config.contains_key(*key)).collect();
        let keys = if there.is_empty() {
            vec!["dtype"]
        } else {
            there
        };
        for key in keys {
            config.insert(key.to_owned(), word.into());
        }
    }
    if unties {
        config.insert("tie_word_embeddings".to_owned(), false.into());
    }
    config
}
