//! A model with its tokenizer, ready to work with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use reparam_data::{SpecialIds, TextTokenizer};
use reparam_formats::chat_templates::TemplateText;
use reparam_formats::checkpoint::{Checkpoint, Dtype};
use reparam_formats::config::{GenerationConfig, ModelJson, SpecialTokens};
use reparam_formats::hub::HubOptions;
use reparam_formats::identify::{Kind, identify};
use reparam_formats::peft::{AdapterFiles, CONFIG_FILE};
use reparam_formats::{FormatError, file};
use reparam_models::{CausalLm, ModelError, Precision};
use reparam_ops::runtime::Runtime;

use crate::adapter::attach_with_tokens;
use crate::config::Catalog;
use crate::model_files::{GENERATION, ModelFiles};
use crate::new_tokens::AdapterTokens;
use crate::open::OpenedModel;
use crate::task::ModelRequest;
use crate::{TrainError, Warnings, chat, config};

/// A loaded model, its tokenizer and where they came from.
#[derive(Debug)]
pub struct Session {
    /// The model, frozen, on a device without autodiff.
    pub model: CausalLm,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
    /// The tokens that end a text.
    pub end_of_text: Vec<u32>,
    /// The chat template of its adapter, if that has one of its own.
    pub adapter_template: Option<TemplateText>,
    /// What was read of the model's directory.
    pub files: Arc<ModelFiles>,
    /// Where its family was found and methods are looked up.
    pub catalog: Catalog,
    /// What it computes with.
    pub runtime: Runtime,
    /// Where is put what the user should know of it.
    pub warnings: Warnings,
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
        let (request, hub) = &request.found(hub)?;
        request.runtime.run(|| {
            let Some(directory) = &request.adapter else {
                return Ok(Self::open_base(request, hub, true, None)?.0);
            };
            let mut adapter = load_adapter(directory)?;
            let tokens = AdapterTokens::take(&mut adapter, directory)?;
            let catalog = &request.catalog;
            let runs_packed = runs_packed(catalog, &adapter)?;
            let opened = OpenedModel::open(&request.model, hub, catalog, None)?;
            let own = tokens.as_ref().map(|tokens| (tokens, &adapter));
            let opened = opened.with_adapter_tokens(own, (catalog, None))?;
            let (session, _) = Self::of(opened, request, runs_packed)?;
            let session = session.with_template_of(directory)?;
            session.attach(adapter, tokens.as_ref())
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
        let opened = OpenedModel::open(&request.model, hub, &request.catalog, dropout)?;
        Self::of(opened, request, runs_in_bf16)
    }

    /// Loads a model that is opened.
    pub(crate) fn of(
        opened: OpenedModel,
        request: &ModelRequest,
        runs_in_bf16: bool,
    ) -> Result<(Self, Precision), TrainError> {
        let catalog = request.catalog.clone();
        for note in opened.notes {
            request.warnings.add(note.message);
        }
        let (architecture, files) = (opened.architecture, opened.files);
        let wanted = request.precision;
        let precision = wanted.resolve(runs_in_bf16 && is_stored_as_bf16(files.weights()));
        let tied = architecture.head.tied;
        let model = CausalLm::load(files.weights(), architecture, &Device::flex(), precision)
            .map_err(|error| misfit(error, files.json()))?;
        if tied && !model.architecture().head.tied {
            request.warnings.add(format!(
                "config.json of {} says that the output head is the embedding (tie_word_embeddings), but the \
                 checkpoint has another `{}.weight`, which is used",
                request.model,
                model.architecture().head.path
            ));
        }
        let session = Self {
            end_of_text: end_of_text(&files, &opened.tokenizer)?,
            model,
            tokenizer: opened.tokenizer,
            adapter_template: None,
            files: Arc::new(files),
            catalog,
            runtime: request.runtime.clone(),
            warnings: request.warnings.clone(),
        };
        Ok((session, precision))
    }

    /// Attaches a PEFT adapter. One with tokens of its own needs [`open_request`](Self::open_request).
    ///
    /// # Errors
    ///
    /// Fails when the adapter is damaged, was made for another model, or has what the session's precision does not run;
    /// [`TrainError::AdapterTokenizer`].
    pub fn with_adapter(self, directory: &Path) -> Result<Self, TrainError> {
        let mut adapter = load_adapter(directory)?;
        let tokens = AdapterTokens::take(&mut adapter, directory)?;
        if let Some(tokens) = &tokens {
            tokens.check_tokenizer(&self.tokenizer, directory)?;
        }
        let runtime = self.runtime.clone();
        let session = self.with_template_of(directory)?;
        runtime.run(|| session.attach(adapter, tokens.as_ref()))?
    }

    fn with_template_of(self, adapter: &Path) -> Result<Self, TrainError> {
        Ok(Self {
            adapter_template: chat::template_of_adapter(&adapter_directory(adapter))?,
            ..self
        })
    }

    fn attach(
        self,
        adapter: AdapterFiles,
        tokens: Option<&AdapterTokens>,
    ) -> Result<Self, TrainError> {
        let methods = &self.catalog.methods;
        let adapter = (adapter, tokens);
        let (model, _, _) = attach_with_tokens(self.model, adapter, &self.files, methods)?;
        Ok(Self { model, ..self })
    }
}

/// Says of tensors that do not fit which sizes of a configuration they do not fit.
pub(crate) fn misfit(error: ModelError, json: &ModelJson) -> TrainError {
    match error {
        ModelError::Format(FormatError::Mismatch(mismatch)) => {
            let mismatch = mismatch.beside(&json.json);
            FormatError::Mismatch(Box::new(mismatch)).into()
        }
        error => error.into(),
    }
}

/// Returns the tokens that end a generated text: all that the model's two configurations name, and the one that training and
/// evaluation put at the end of a document.
fn end_of_text(files: &ModelFiles, tokenizer: &TextTokenizer) -> Result<Vec<u32>, TrainError> {
    let mut ends = tokenizer.special_tokens().stop.clone();
    if let Some(bytes) = files.bytes(GENERATION) {
        let path = files.directory().join(GENERATION);
        let text = file::text_of(&path, bytes.to_vec())?;
        ends.extend(GenerationConfig::parse(&path, &text)?.eos_token_ids);
    }
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

/// Returns whether an adapter runs on weights that are packed.
pub(crate) fn runs_packed(catalog: &Catalog, adapter: &AdapterFiles) -> Result<bool, TrainError> {
    let (spec, _) = catalog.methods.of_adapter(adapter)?;
    // A module that is saved whole is none of those that are packed.
    let saved = adapter.config.strings("modules_to_save")?;
    Ok(spec.runs_packed && saved.is_none_or(|saved| saved.is_empty()))
}

/// The directory of the adapter that a run resulted in, if that of the run is given.
pub(crate) fn adapter_directory(directory: &Path) -> PathBuf {
    let is_adapter = |path: &Path| path.join(CONFIG_FILE).exists();
    let inside = directory.join("adapter");
    match !is_adapter(directory) && is_adapter(&inside) {
        true => inside,
        false => directory.to_owned(),
    }
}

/// Reads an adapter from its directory, or from that of the run that resulted in it.
pub(crate) fn load_adapter(directory: &Path) -> Result<AdapterFiles, TrainError> {
    if !directory.exists() {
        return Err(TrainError::NoSuchAdapter {
            directory: directory.to_owned(),
        });
    }
    let directory = &adapter_directory(directory);
    let kind = identify(directory)?;
    if !directory.is_dir() || matches!(kind, Kind::Model(_) | Kind::Tokenizer) {
        return Err(FormatError::AnotherKind {
            path: directory.to_owned(),
            kind,
            wanted: "the directory of an adapter",
        }
        .into());
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
    files: &ModelFiles,
    special: &SpecialTokens,
) -> Result<TextTokenizer, TrainError> {
    let ids = SpecialIds {
        bos: special.bos,
        eos: special.eos.clone(),
        pad: special.pad,
    };
    // Of what was kept, which is what is saved beside a trained model.
    let bytes = |name: &str| files.bytes(name);
    Ok(TextTokenizer::from_bytes(files.directory(), &ids, bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is loaded is what was kept, whatever is in the directory by then.
    #[test]
    fn a_tokenizer_is_made_of_what_was_kept() {
        let place = tempfile::tempdir().expect("a directory");
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/stories260K");
        for entry in std::fs::read_dir(base).expect("a model") {
            let entry = entry.expect("a file");
            std::fs::copy(entry.path(), place.path().join(entry.file_name())).expect("copies");
        }
        let generation = place.path().join(GENERATION);
        std::fs::write(&generation, "{\"eos_token_id\": 7}").expect("writes");
        let files = ModelFiles::open(place.path(), |_| Ok(())).expect("a model");
        let tokenizer = load_tokenizer(&files, &SpecialTokens::default()).expect("a tokenizer");
        for name in ["tokenizer.json", "tokenizer_config.json", GENERATION] {
            let _ = std::fs::remove_file(place.path().join(name));
        }
        let again = load_tokenizer(&files, &SpecialTokens::default()).expect("a tokenizer");
        assert_eq!(again.digest(), tokenizer.digest());
        assert_eq!(again.special_tokens(), tokenizer.special_tokens());
        let ends = end_of_text(&files, &again).expect("ends");
        assert!(ends.contains(&7), "{ends:?}");
    }
}
