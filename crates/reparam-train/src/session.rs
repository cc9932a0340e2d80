//! A model with its tokenizer, ready to work with.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use reparam::methods::{Methods, WeightLayout};
use reparam_data::{SpecialIds, TextTokenizer};
use reparam_formats::checkpoint::{Checkpoint, Dtype};
use reparam_formats::config::{GenerationConfig, ModelJson, SpecialTokens};
use reparam_formats::hub::{HubOptions, resolve_model};
use reparam_formats::peft::{AdapterFiles, CONFIG_FILE};
use reparam_models::{CausalLm, Families, Precision};

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
}

impl Session {
    /// Finds, loads and checks a model.
    ///
    /// `precision` is what it computes in. `Auto` is bf16 if the machine multiplies bf16 natively and the checkpoint's weights
    /// are bf16, else f32: weights are never rounded without being asked.
    ///
    /// # Errors
    ///
    /// Fails when the model is not found, a file of it is missing or damaged, its tensors are not
    /// those of its configuration, a weight is not finite, or the tokenizer has ids that the
    /// embedding lacks.
    pub fn open(
        model: &str,
        hub: &HubOptions,
        precision: config::Precision,
    ) -> Result<Self, TrainError> {
        Self::open_for(model, hub, precision, true, None).map(|(session, _)| session)
    }

    /// [`Session::open`] for something that runs in bf16, or does not, and with another dropout than the model says; returns
    /// with it what it computes in.
    pub(crate) fn open_for(
        model: &str,
        hub: &HubOptions,
        precision: config::Precision,
        runs_in_bf16: bool,
        dropout: Option<f64>,
    ) -> Result<(Self, Precision), TrainError> {
        let directory = resolve_model(model, hub)?;
        let mut architecture = Families::builtin().describe(&ModelJson::load(&directory)?)?;
        if let Some(dropout) = dropout {
            architecture.set_dropout(dropout);
        }
        let special = architecture.special.clone();
        let tokenizer = load_tokenizer(&directory, &special)?;
        tokenizer.check_against_embedding(architecture.vocab_size)?;
        // The map is dropped at the end of this function: its pages would count as ours.
        let checkpoint = Checkpoint::open(&directory)?;
        let precision = precision.resolve(runs_in_bf16 && is_stored_as_bf16(&checkpoint));
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
        };
        Ok((session, precision))
    }

    /// Finds and loads what a request names.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`open_with_adapter`](Self::open_with_adapter).
    pub fn open_request(request: &ModelRequest, hub: &HubOptions) -> Result<Self, TrainError> {
        match &request.adapter {
            None => Self::open(&request.model, hub, request.precision),
            Some(adapter) => {
                Self::open_with_adapter(&request.model, adapter, hub, request.precision)
            }
        }
    }

    /// [`Session::open`] with a PEFT adapter attached. `Auto` is f32, too, if the adapter has what bf16 does not run,
    /// such as factors of the output head.
    ///
    /// # Errors
    ///
    /// Those of [`Session::open`] and [`Session::with_adapter`].
    pub fn open_with_adapter(
        model: &str,
        adapter: &Path,
        hub: &HubOptions,
        precision: config::Precision,
    ) -> Result<Self, TrainError> {
        let adapter = load_adapter(adapter)?;
        let (spec, _) = Methods::builtin().of_adapter(&adapter)?;
        let runs_in_bf16 = spec.runs_packed;
        let (session, _) = Self::open_for(model, hub, precision, runs_in_bf16, None)?;
        session.attach(&adapter)
    }

    /// Attaches a PEFT adapter.
    ///
    /// # Errors
    ///
    /// Fails when the adapter is damaged, was made for another model, or has what the session's precision does not run.
    pub fn with_adapter(self, directory: &Path) -> Result<Self, TrainError> {
        self.attach(&load_adapter(directory)?)
    }

    fn attach(self, adapter: &AdapterFiles) -> Result<Self, TrainError> {
        let (model, _, _) =
            Methods::builtin().attach_adapter(self.model, adapter, WeightLayout::OutIn)?;
        Ok(Self { model, ..self })
    }
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
