//! Models and adapters in the formats of other programs.

mod rounded;

use std::path::{Path, PathBuf};

use reparam_data::TextTokenizer;
use reparam_formats::FormatError;
use reparam_formats::chat_templates::TemplateText;
use reparam_formats::config::ModelJson;
use reparam_formats::file::InputFile;
use reparam_formats::gguf::{
    AdapterOptions, GgufDtype, GgufTokenizer, ModelOptions, TokenizerFiles, WrittenTensor,
    write_adapter, write_model,
};
use reparam_formats::hub::HubOptions;
use reparam_formats::mlx::{MlxAdapter, from_peft, to_peft};
use reparam_formats::weights::Weights as _;

use crate::merge::{Agreement, MergeError, MergedWeights, Opened, check_free};
use crate::model_files::{ModelFiles, TOKENIZER};
use crate::open::{OpenedModel, model_directory};
use crate::session::load_adapter;
use crate::task::{DEFAULT_LENGTH, DataRequest, ModelRequest};
use crate::{Result, Stop, TrainError};

/// What is written for llama.cpp, and what is said of it.
#[derive(Debug, Clone)]
pub struct GgufRequest {
    /// The model, with the adapter that is merged into it, if any.
    pub model: ModelRequest,
    /// The type of matrices; that of the table of token vectors if absent.
    pub dtype: Option<GgufDtype>,
    /// Texts on which the model and the file are compared.
    pub data: Option<DataRequest>,
    /// The most tokens that both see at once.
    pub sequence_length: usize,
}

impl GgufRequest {
    /// Asks for a model as it is.
    #[must_use]
    pub fn new(model: ModelRequest, dtype: Option<GgufDtype>) -> Self {
        Self {
            model,
            dtype,
            data: None,
            sequence_length: DEFAULT_LENGTH,
        }
    }
}

/// What a file for llama.cpp came to.
#[derive(Debug, Clone)]
pub struct GgufReport {
    /// The type of its matrices.
    pub dtype: GgufDtype,
    /// Its tensors, with what rounding cost.
    pub tensors: Vec<WrittenTensor>,
    /// How close what the file computes in f32 is to the model, if that was asked for.
    pub agreement: Option<Agreement>,
}

impl GgufReport {
    /// Returns the tensors that are written in fewer bits than f32 has, and lose something by it.
    pub fn rounded(&self) -> impl Iterator<Item = &WrittenTensor> {
        let fewer = self.tensors.iter().filter(|of| of.dtype != GgufDtype::F32);
        fewer.filter(|of| of.max_error > 0.0)
    }

    /// Returns the one of them that loses most, relative to its norm.
    #[must_use]
    pub fn worst(&self) -> Option<&WrittenTensor> {
        let rounded = self.rounded();
        rounded.max_by(|a, b| a.relative_error.total_cmp(&b.relative_error))
    }
}

/// Writes a whole model for llama.cpp, with its adapter merged into it if it has one.
///
/// What llama.cpp does otherwise than the model is added to the warnings of the request.
///
/// # Numerics
///
/// The adapter is merged in f64, and each number rounded once. The comparison is of the weights as the file has them, computed in
/// f32; llama.cpp also rounds activations where it multiplies quantized weights.
///
/// # Errors
///
/// [`ModelError::NotInGguf`](reparam_models::ModelError::NotInGguf) for a model that llama.cpp would compute otherwise,
/// [`TrainError::Gguf`] for a tokenizer that it does not have, a model and an adapter that do not fit, and those of files.
///
/// # Cost
///
/// A comparison takes the memory of two models in f32, and for as long as it runs the disk of one.
pub fn model_to_gguf(
    request: &GgufRequest,
    output: &Path,
    hub: &HubOptions,
    stop: Stop<'_>,
) -> Result<GgufReport> {
    check_gguf(output)?;
    let (model_request, hub) = &request.model.found(hub)?;
    model_request.runtime.run(|| {
        let adapter = model_request.adapter.iter().map(|path| (path.clone(), 1.0));
        let adapters: Vec<(PathBuf, f64)> = adapter.collect();
        let opened = Opened::find(model_request, &adapters, hub)?;
        let mut weights = opened.weights(model_request)?;
        let OpenedModel {
            files,
            architecture,
            tokenizer,
            ..
        } = &opened.model;
        let families = &model_request.catalog.families;
        let model = families.gguf(architecture, weights.is_tied())?;
        let rows = architecture.vocab_size;
        let tokenizer = gguf_tokenizer(files, tokenizer, opened.template()?, rows)?;
        for note in model.notes.iter().chain(tokenizer.notes()) {
            model_request.warnings.add(note.clone());
        }
        let dtype = match request.dtype {
            Some(dtype) => dtype,
            None => stored_type(&mut weights, &architecture.head_names().1)?,
        };
        let compared = request.data.as_ref().map(|data| {
            let result = (&opened, &model, dtype);
            let on = (data, request.sequence_length);
            rounded::compare(model_request, result, on, (output, hub), stop)
        });
        let agreement = compared.transpose()?;
        let name = files.directory().file_name();
        let name = name.and_then(|name| name.to_str());
        let options = ModelOptions { dtype, name };
        let tensors = write_model(output, &model, &tokenizer, &mut weights, options)?;
        Ok(GgufReport {
            dtype,
            tensors,
            agreement,
        })
    })?
}

/// Refuses a file that is none of GGUF: it may be what is converted.
fn check_gguf(output: &Path) -> Result<()> {
    const MAGIC: &[u8; 4] = b"GGUF";
    if !output.is_file() {
        return Ok(());
    }
    let mut begin = [0; MAGIC.len()];
    let read = InputFile::open(output).and_then(|file| file.read_at(&mut begin, 0));
    match read.is_ok() && begin == *MAGIC {
        true => Ok(()),
        false => Err(MergeError::OutputTaken {
            path: output.to_owned(),
        }
        .into()),
    }
}

/// The type of a stored tensor; f32 for one that GGUF has no type for.
fn stored_type(weights: &mut MergedWeights<'_>, name: &str) -> Result<GgufDtype> {
    Ok(GgufDtype::of(weights.dtype(name)?).unwrap_or(GgufDtype::F32))
}

/// Writes a LoRA adapter by itself for llama.cpp; without a model its configuration says the base, of which `config.json` is read.
///
/// # Errors
///
/// [`TrainError::Gguf`] for what llama.cpp's adapters have no place for; a base that is not found or that llama.cpp does not have.
pub fn adapter_to_gguf(
    adapter: &Path,
    model: Option<&ModelRequest>,
    dtype: GgufDtype,
    output: &Path,
    request: &ModelRequest,
    hub: &HubOptions,
) -> Result<()> {
    check_gguf(output)?;
    let files = load_adapter(adapter)?;
    let (base, hub) = match model {
        Some(model) => (model.model.clone(), hub.clone()),
        None => {
            let (found, hub) = request.of_adapter(adapter)?.found(hub)?;
            (found.model, hub)
        }
    };
    let directory = model_directory(&base, &hub)?;
    let json = ModelJson::load(&directory)?;
    let families = &request.catalog.families;
    let architecture = families.describe(&json)?;
    let base = families.gguf(&architecture, architecture.head.tied)?;
    Ok(write_adapter(
        output,
        files,
        &base,
        AdapterOptions { dtype },
    )?)
}

/// Writes an adapter of PEFT as one of MLX.
///
/// # Errors
///
/// [`TrainError::Mlx`] for what MLX's adapters have no place for, and those of files.
pub fn adapter_to_mlx(adapter: &Path, output: &Path) -> Result<()> {
    check_free(output)?;
    Ok(from_peft(load_adapter(adapter)?)?.save(output)?)
}

/// Writes an adapter of MLX as one of PEFT.
///
/// # Errors
///
/// [`TrainError::Mlx`] for what PEFT's adapters have no place for, and those of files.
pub fn adapter_to_peft(adapter: &Path, output: &Path) -> Result<()> {
    if !adapter.exists() {
        return Err(TrainError::NoSuchAdapter {
            directory: adapter.to_owned(),
        });
    }
    check_free(output)?;
    Ok(to_peft(&MlxAdapter::load(adapter)?)?.save(output)?)
}

/// Reads the tokenizer of a model as llama.cpp knows it.
fn gguf_tokenizer(
    files: &ModelFiles,
    tokenizer: &TextTokenizer,
    template: Option<TemplateText>,
    rows: usize,
) -> Result<GgufTokenizer> {
    let path = files.directory().join(TOKENIZER[0]);
    let Some(bytes) = files.bytes(TOKENIZER[0]) else {
        return Err(FormatError::NoSuchFile { path }.into());
    };
    let text = reparam_formats::file::text_of(&path, bytes.to_vec())?;
    let own = files.chat_templates()?;
    let template = template.as_ref().or_else(|| own.template(false));
    let special = tokenizer.special_tokens();
    Ok(GgufTokenizer::read(&TokenizerFiles {
        path: &path,
        tokenizer: &text,
        chat_template: template.map(|template| &*template.text),
        bos: special.bos,
        eos: special.eos,
        pad: special.pad,
        rows,
    })?)
}
