//! A model with its tokenizer, ready to work with.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use reparam::phi::{self, WeightLayout};
use reparam_data::{SpecialIds, TextTokenizer};
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::{GenerationConfig, ModelConfig};
use reparam_formats::hub::{HubOptions, resolve_model};
use reparam_formats::peft::{CONFIG_FILE, PeftAdapter};
use reparam_models::{CausalLm, Generation, Precision, Sampling};

use crate::TrainError;

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
    /// # Errors
    ///
    /// Fails when the model is not found, a file of it is missing or damaged, its tensors are not
    /// those of its configuration, a weight is not finite, or the tokenizer has ids that the
    /// embedding lacks.
    pub fn open(model: &str, hub: &HubOptions, precision: Precision) -> Result<Self, TrainError> {
        let directory = resolve_model(model, hub)?;
        let config = ModelConfig::load(&directory)?;
        let tokenizer = load_tokenizer(&directory, &config)?;
        tokenizer.check_against_embedding(config.vocab_size)?;
        // The map is dropped at the end of this function: its pages would count as ours.
        let checkpoint = Checkpoint::open(&directory)?;
        let model = CausalLm::load(&checkpoint, &config, &Device::flex(), precision)?;
        let generation = GenerationConfig::load(&directory)?.unwrap_or_default();
        let end_of_text = if generation.eos_token_ids.is_empty() {
            config.eos_token_ids
        } else {
            generation.eos_token_ids
        };
        Ok(Self {
            model,
            tokenizer,
            end_of_text,
            directory,
        })
    }

    /// Attaches a PEFT adapter.
    ///
    /// # Errors
    ///
    /// Fails when the adapter is damaged or was made for another model.
    pub fn with_adapter(self, directory: &Path) -> Result<Self, TrainError> {
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
        let adapter = PeftAdapter::load(directory)?;
        let (model, _) = phi::attach_adapter(self.model, &adapter, WeightLayout::OutIn)?;
        Ok(Self { model, ..self })
    }

    /// Starts to continue a prompt, encoded as the tokenizer's own template does.
    ///
    /// Returns the prompt's tokens and the generation.
    ///
    /// # Errors
    ///
    /// Fails when the prompt encodes to nothing or a sampling setting is out of range.
    pub fn generate(
        &self,
        prompt: &str,
        max_new_tokens: usize,
        sampling: Sampling,
    ) -> Result<(Vec<u32>, Generation<'_>), TrainError> {
        let ids = self.tokenizer.encode(prompt, true)?;
        let generation = self
            .model
            .generate(&ids, max_new_tokens, sampling, &self.end_of_text)?;
        Ok((ids, generation))
    }
}

fn load_tokenizer(directory: &Path, config: &ModelConfig) -> Result<TextTokenizer, TrainError> {
    let ids = SpecialIds {
        bos: config.bos_token_id,
        eos: config.eos_token_ids.clone(),
        pad: config.pad_token_id,
    };
    Ok(TextTokenizer::from_model_dir(directory, &ids)?)
}
