//! Models and adapters in the formats of other programs.

use std::path::{Path, PathBuf};

use reparam_data::TextTokenizer;
use reparam_formats::FormatError;
use reparam_formats::chat_templates::TemplateText;
use reparam_formats::config::ModelJson;
use reparam_formats::file::InputFile;
use reparam_formats::gguf::{
    AdapterOptions, GgufDtype, GgufTokenizer, ModelOptions, TokenizerFiles, write_adapter,
    write_model,
};
use reparam_formats::hub::HubOptions;
use reparam_formats::mlx::{MlxAdapter, from_peft, to_peft};
use reparam_formats::weights::Weights as _;

use crate::merge::{MergeError, MergedWeights, Opened, check_free};
use crate::model_files::{ModelFiles, TOKENIZER};
use crate::open::{OpenedModel, model_directory};
use crate::session::load_adapter;
use crate::task::ModelRequest;
use crate::{Result, TrainError};

/// Writes a whole model for llama.cpp, with its adapter merged into it if it has one; returns the type of its matrices.
///
/// Without a type, matrices have that of the table of token vectors. What llama.cpp does otherwise than the model is added to the
/// warnings of the request.
///
/// # Numerics
///
/// The adapter is merged in f64, and each number rounded once.
///
/// # Errors
///
/// [`ModelError::NotInGguf`](reparam_models::ModelError::NotInGguf) for a model that llama.cpp would compute otherwise,
/// [`TrainError::Gguf`] for a tokenizer that it does not have, a model and an adapter that do not fit, and those of files.
pub fn model_to_gguf(
    request: &ModelRequest,
    dtype: Option<GgufDtype>,
    output: &Path,
    hub: &HubOptions,
) -> Result<GgufDtype> {
    check_gguf(output)?;
    let (request, hub) = &request.found(hub)?;
    request.runtime.run(|| {
        let adapter = request.adapter.iter().map(|path| (path.clone(), 1.0));
        let adapters: Vec<(PathBuf, f64)> = adapter.collect();
        let opened = Opened::find(request, &adapters, hub)?;
        let mut weights = opened.weights(request)?;
        let OpenedModel {
            files,
            architecture,
            tokenizer,
            ..
        } = &opened.model;
        let families = &request.catalog.families;
        let model = families.gguf(architecture, weights.is_tied())?;
        let rows = architecture.vocab_size;
        let tokenizer = gguf_tokenizer(files, tokenizer, opened.template()?, rows)?;
        for note in model.notes.iter().chain(tokenizer.notes()) {
            request.warnings.add(note.clone());
        }
        let dtype = match dtype {
            Some(dtype) => dtype,
            None => stored_type(&mut weights, &architecture.head_names().1)?,
        };
        let name = files.directory().file_name();
        let name = name.and_then(|name| name.to_str());
        let options = ModelOptions { dtype, name };
        write_model(output, &model, &tokenizer, &mut weights, options)?;
        Ok(dtype)
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
