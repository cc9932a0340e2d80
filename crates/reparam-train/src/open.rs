//! Finding and opening what a request names: a model, the result of a run, or an adapter that says its base.

use std::path::{Path, PathBuf};

use reparam_data::{Phase, TextTokenizer};
use reparam_formats::FormatError;
use reparam_formats::hub::{HubOptions, Progress, is_dataset, resolve_dataset, resolve_model};
use reparam_formats::identify::{Kind, identify, list_tensors, quantization};
use reparam_formats::peft::{AdapterFiles, CONFIG_FILE, PeftError};
use reparam_models::Architecture;
use serde_json::Map;

use crate::config::Catalog;
use crate::model_files::ModelFiles;
use crate::preflight::Finding;
use crate::run_dir::model_of;
use crate::session::load_tokenizer;
use crate::task::ModelRequest;
use crate::{Result, Stop, TrainError};

/// A model that was found and described, and whose weights are not read yet.
#[derive(Debug)]
pub(crate) struct OpenedModel {
    pub(crate) files: ModelFiles,
    pub(crate) architecture: Architecture,
    pub(crate) tokenizer: TextTokenizer,
    /// What the user should know of it.
    pub(crate) notes: Vec<Finding>,
}

impl OpenedModel {
    /// Opens a model; `dropout` is another than it says.
    pub(crate) fn open(
        spec: &str,
        hub: &HubOptions,
        catalog: &Catalog,
        dropout: Option<f64>,
    ) -> Result<Self> {
        let directory = model_directory(spec, hub)?;
        let refuse = |by| FormatError::Quantized {
            path: directory.clone(),
            by,
        };
        // A family that is not known, and numbers that are not read, are said before anything of the weights.
        let files = ModelFiles::open(&directory, |json| {
            catalog.families.describe(json)?;
            match quantization(json.json.map(), std::iter::empty()) {
                Some(by) => Err(refuse(by).into()),
                None => Ok(()),
            }
        });
        // The types of 8 bits and less are not read; what is beside such weights still tells what they are.
        let files = files.map_err(|error| match &error {
            TrainError::Format(FormatError::UnsupportedDtype { path, .. }) => {
                let tensors = list_tensors(path).unwrap_or_default();
                let names = tensors.iter().map(|tensor| tensor.name.as_str());
                quantization(&Map::new(), names).map_or(error, |by| refuse(by).into())
            }
            _ => error,
        })?;
        let mut architecture = catalog.families.describe(files.json())?;
        if let Some(dropout) = dropout {
            architecture.set_dropout(dropout)?;
        }
        if let Some(by) = quantization(files.json().json.map(), files.weights().names()) {
            return Err(refuse(by).into());
        }
        let tokenizer = load_tokenizer(&files, &architecture.special)?;
        let tokenizer = tokenizer.with_embedding_rows(architecture.vocab_size);
        Ok(Self {
            files,
            architecture,
            tokenizer,
            notes: Vec::new(),
        })
    }
}

/// Finds the directory of a model; that of a run with a whole model will do.
///
/// # Errors
///
/// Says of anything else what it is.
pub(crate) fn model_directory(spec: &str, hub: &HubOptions) -> Result<PathBuf> {
    let path = Path::new(spec);
    // A file can only be no directory; a link to nothing can be no hub id.
    if path.is_file() || (path.is_symlink() && !path.exists()) {
        return Err(not_a_model(path, identify(path)?));
    }
    let directory = model_of(resolve_model(spec, hub)?)?;
    if directory.join("config.json").symlink_metadata().is_ok() {
        return Ok(directory);
    }
    let kind = identify(&directory)?;
    if let Kind::Model(model) = &kind {
        // Weights of another program say more than that the configuration is missing.
        let gguf = model.weights.iter().find(|name| name.ends_with(".gguf"));
        return match gguf {
            Some(name) => Err(not_a_model(&directory.join(name), Kind::Gguf)),
            None => Ok(directory),
        };
    }
    Err(not_a_model(&directory, kind))
}

fn not_a_model(path: &Path, kind: Kind) -> TrainError {
    let path = path.to_owned();
    match kind {
        Kind::Adapter => TrainError::AdapterAsModel {
            base: base_of(&path).ok().flatten(),
            adapter: path,
        },
        Kind::Runs(runs) => TrainError::SeveralRuns { path, runs },
        kind => FormatError::AnotherKind {
            path,
            kind,
            wanted: "the directory of a model",
        }
        .into(),
    }
}

/// Reads the name of the base that an adapter was trained on.
fn base_of(adapter: &Path) -> Result<Option<String>> {
    let config = AdapterFiles::load_config(adapter)?;
    Ok(config.str("base_model_name_or_path")?.map(str::to_owned))
}

/// The adapter that a directory is, or that a run in it resulted in; `None` if a model is there.
fn adapter_in(directory: &Path) -> Option<PathBuf> {
    let has = |path: PathBuf| path.symlink_metadata().is_ok();
    if has(directory.join("config.json")) || has(directory.join("model").join("config.json")) {
        return None;
    }
    let inside = directory.join("adapter");
    let is_adapter = |path: &&Path| has(path.join(CONFIG_FILE));
    [directory, &inside]
        .into_iter()
        .find(is_adapter)
        .map(Path::to_owned)
}

impl ModelRequest {
    /// Returns the request of an adapter on the base that its configuration names, which [`found`](Self::found) looks up.
    ///
    /// # Errors
    ///
    /// [`TrainError::NoSuchAdapter`], and a directory that has none.
    pub fn of_adapter(&self, adapter: &Path) -> Result<Self> {
        if !adapter.exists() {
            return Err(TrainError::NoSuchAdapter {
                directory: adapter.to_owned(),
            });
        }
        let directory = adapter_in(adapter).ok_or_else(|| PeftError::NotAnAdapter {
            path: adapter.to_owned(),
        })?;
        Ok(Self {
            model: directory.display().to_string(),
            adapter: None,
            ..self.clone()
        })
    }

    /// Returns the request with its base and adapter told apart: where an adapter, or a run that resulted in one, is given as the
    /// model, its own configuration says the base. Returns with it where a base of the hub is looked up.
    ///
    /// A base that is a path is looked for where the process works, as it was when the adapter was trained.
    ///
    /// # Errors
    ///
    /// [`TrainError::AdapterAsModel`] if the adapter says no base or another adapter is asked for as well;
    /// [`TrainError::NoSuchBase`] if the base is not found.
    pub fn found(&self, hub: &HubOptions) -> Result<(Self, HubOptions)> {
        let Some(adapter) = adapter_in(Path::new(&self.model)) else {
            return Ok((self.clone(), hub.clone()));
        };
        let config = AdapterFiles::load_config(&adapter)?;
        let base = config.str("base_model_name_or_path")?.map(str::to_owned);
        let Some(base) = base.filter(|_| self.adapter.is_none()) else {
            return Err(TrainError::AdapterAsModel {
                adapter,
                base: None,
            });
        };
        let mut hub = hub.clone();
        if let Some(revision) = config.str("revision")? {
            hub.revision = revision.to_owned();
        }
        model_directory(&base, &hub).map_err(|source| TrainError::NoSuchBase {
            adapter: adapter.clone(),
            base: base.clone(),
            source: Box::new(source),
        })?;
        let request = Self {
            model: base,
            adapter: Some(adapter),
            ..self.clone()
        };
        Ok((request, hub))
    }
}

/// Returns the files of data that paths stand for, those of a data set on the hub in its place.
///
/// # Errors
///
/// Those of [`resolve_dataset`].
pub(crate) fn data_files(
    paths: &[PathBuf],
    hub: &HubOptions,
    watch: Stop<'_>,
) -> Result<Vec<PathBuf>> {
    Ok(files_of_paths(paths, hub, watch)?.concat())
}

/// As [`data_files`], for each path by itself.
pub(crate) fn files_of_paths(
    paths: &[PathBuf],
    hub: &HubOptions,
    watch: Stop<'_>,
) -> Result<Vec<Vec<PathBuf>>> {
    let mut tell = |progress: Progress<'_>| {
        watch.at(Phase::Downloading, progress.done, progress.total);
    };
    let mut files = |path: &PathBuf| match path.to_str().filter(|text| is_dataset(text)) {
        Some(address) => Ok(resolve_dataset(address, hub, &mut tell)?),
        None => Ok(vec![path.clone()]),
    };
    paths.iter().map(&mut files).collect()
}
