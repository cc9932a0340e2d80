//! A model with its tokenizer, ready to work with.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use reparam::methods::WeightLayout;
use reparam_data::{SpecialIds, TextTokenizer};
use reparam_formats::checkpoint::{Checkpoint, Dtype};
use reparam_formats::config::{GenerationConfig, ModelJson, SpecialTokens};
use reparam_formats::hub::{HubOptions, resolve_model};
use reparam_formats::peft::{AdapterFiles, CONFIG_FILE};
use reparam_models::{CausalLm, Precision};
use reparam_ops::runtime::Runtime;

use crate::config::Catalog;
use crate::run_dir::model_of;
use crate::task::ModelRequest;
use crate::{TrainError, config};

/// A loaded model, its tokenizer and where they came from.
#[derive(Debug)]
pub struct Session {
    /// The model, frozen, on a device without autodiff.
    pub model: CausalLm,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
    /// The tokens that end a text.
    pub end_of_text: Vec<u32>,
    /// The directory of the model.
    pub directory: PathBuf,
    /// Where its family was found and methods are looked up.
    pub catalog: Catalog,
    /// What it computes with.
    pub runtime: Runtime,
}

impl Session {
    /// [`open_request`](Self::open_request) for a model without an adapter, of the built-in families.
    ///
    /// # Errors
    ///
    /// As that.
    pub fn open(
        model: &str,
        hub: &HubOptions,
        precision: config::Precision,
    ) -> Result<Self, TrainError> {
        let request = ModelRequest::new(model).with_precision(precision);
        Self::open_request(&request, hub)
    }

    /// [`open_request`](Self::open_request) for a model with an adapter, of the built-in families and methods.
    ///
    /// # Errors
    ///
    /// As that.
    pub fn open_with_adapter(
        model: &str,
        adapter: &Path,
        hub: &HubOptions,
        precision: config::Precision,
    ) -> Result<Self, TrainError> {
        let request = ModelRequest::new(model).with_precision(precision);
        Self::open_request(&request.with_adapter(adapter), hub)
    }

    /// Finds, loads and checks a model, and attaches its adapter if the request names one. The directory of a run that resulted
    /// in a whole model will do.
    ///
    /// The precision `Auto` is bf16 if the machine multiplies bf16 natively, the checkpoint's weights are bf16 and the adapter
    /// has nothing that bf16 does not run, else f32: weights are never rounded without being asked.
    ///
    /// # Errors
    ///
    /// Fails when the model is not found, a file of it is missing or damaged, its tensors are not
    /// those of its configuration, a weight is not finite, or the tokenizer has ids that the
    /// embedding lacks; and as [`with_adapter`](Self::with_adapter).
    pub fn open_request(request: &ModelRequest, hub: &HubOptions) -> Result<Self, TrainError> {
        request.runtime.run(|| {
            let Some(directory) = &request.adapter else {
                return Ok(Self::open_base(request, hub, true, None)?.0);
            };
            let adapter = load_adapter(directory)?;
            let runs_packed = runs_packed(&request.catalog, &adapter)?;
            let (session, _) = Self::open_base(request, hub, runs_packed, None)?;
            session.attach(adapter)
        })?
    }

    /// Opens what a request names without its adapter, for something that runs in bf16, or does not, and with another dropout
    /// than the model says; returns with it what it computes in.
    ///
    /// # Errors
    ///
    /// As [`open_request`](Self::open_request).
    pub fn open_base(
        request: &ModelRequest,
        hub: &HubOptions,
        runs_in_bf16: bool,
        dropout: Option<f64>,
    ) -> Result<(Self, Precision), TrainError> {
        let open = || Self::open_here(request, hub, runs_in_bf16, dropout);
        request.runtime.run(open)?
    }

    /// [`open_base`](Self::open_base) with the runtime in force.
    fn open_here(
        request: &ModelRequest,
        hub: &HubOptions,
        runs_in_bf16: bool,
        dropout: Option<f64>,
    ) -> Result<(Self, Precision), TrainError> {
        let directory = model_of(resolve_model(&request.model, hub)?)?;
        let catalog = request.catalog.clone();
        let mut architecture = catalog.families.describe(&ModelJson::load(&directory)?)?;
        if let Some(dropout) = dropout {
            architecture.set_dropout(dropout)?;
        }
        let special = architecture.special.clone();
        let tokenizer = load_tokenizer(&directory, &special)?;
        tokenizer.check_against_embedding(architecture.vocab_size)?;
        // The map is dropped at the end of this function: its pages would count as ours.
        let checkpoint = Checkpoint::open(&directory)?;
        let wanted = request.precision;
        let precision = wanted.resolve(runs_in_bf16 && is_stored_as_bf16(&checkpoint));
        let model = CausalLm::load(&checkpoint, architecture, &Device::flex(), precision)?;
        let generation = GenerationConfig::load(&directory)?.unwrap_or_default();
        let end_of_text = if generation.eos_token_ids.is_empty() {
            special.eos
        } else {
            generation.eos_token_ids
        };
        let session = Self {
            model,
            tokenizer,
            end_of_text,
            directory,
            catalog,
            runtime: request.runtime.clone(),
        };
        Ok((session, precision))
    }

    /// Attaches a PEFT adapter.
    ///
    /// # Errors
    ///
    /// Fails when the adapter is damaged, was made for another model, or has what the session's precision does not run.
    pub fn with_adapter(self, directory: &Path) -> Result<Self, TrainError> {
        let adapter = load_adapter(directory)?;
        let runtime = self.runtime.clone();
        runtime.run(|| self.attach(adapter))?
    }

    fn attach(self, adapter: AdapterFiles) -> Result<Self, TrainError> {
        let adapter = adapter.over(&Checkpoint::open(&self.directory)?)?;
        let methods = &self.catalog.methods;
        let (model, _, _) = methods.attach_adapter(self.model, &adapter, WeightLayout::OutIn)?;
        Ok(Self { model, ..self })
    }
}

/// Returns whether an adapter runs on weights that are packed.
pub(crate) fn runs_packed(catalog: &Catalog, adapter: &AdapterFiles) -> Result<bool, TrainError> {
    let (spec, _) = catalog.methods.of_adapter(adapter)?;
    // A module that is saved whole is none of those that are packed.
    let saved = adapter.config.strings("modules_to_save")?;
    Ok(spec.runs_packed && saved.is_none_or(|saved| saved.is_empty()))
}

pub(crate) fn load_adapter(directory: &Path) -> Result<AdapterFiles, TrainError> {
    if !directory.is_dir() {
        return Err(TrainError::NoSuchAdapter {
            directory: directory.to_owned(),
        });
    }
    let is_adapter = |path: &Path| path.join(CONFIG_FILE).exists();
    if !is_adapter(directory) && is_adapter(&directory.join("adapter")) {
        return Err(TrainError::RunInsteadOfAdapter {
            directory: directory.to_owned(),
        });
    }
    Ok(AdapterFiles::load(directory)?)
}

/// Returns whether all matrices of a checkpoint are bf16, so that packing them rounds nothing.
fn is_stored_as_bf16(checkpoint: &Checkpoint) -> bool {
    checkpoint
        .tensors()
        .all(|(_, tensor)| tensor.shape.len() < 2 || tensor.dtype == Dtype::BF16)
}

pub(crate) fn load_tokenizer(
    directory: &Path,
    special: &SpecialTokens,
) -> Result<TextTokenizer, TrainError> {
    let ids = SpecialIds {
        bos: special.bos,
        eos: special.eos.clone(),
        pad: special.pad,
    };
    Ok(TextTokenizer::from_model_dir(directory, &ids)?)
}
