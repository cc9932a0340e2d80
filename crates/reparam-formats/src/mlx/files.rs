//! The two files of an adapter of MLX.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::MlxError;
use crate::atomic::{AtomicDirectory, write_file_atomic};
use crate::checkpoint::Checkpoint;
use crate::config::JsonObject;
use crate::file::{self, read_text};
use crate::peft::Tensor;
use crate::safetensors::{TensorToWrite, write_safetensors};

/// The name of the file of tensors.
pub const WEIGHTS_FILE: &str = "adapters.safetensors";
const CONFIG_FILE: &str = "adapter_config.json";

/// An adapter of MLX.
#[derive(Debug, Clone, PartialEq)]
pub struct MlxAdapter {
    /// Whether the rows of the adapted weights have trained lengths (DoRA).
    pub is_dora: bool,
    /// The rank of all modules.
    pub rank: usize,
    /// What the product of the factors is multiplied by.
    pub scale: f64,
    /// The probability with which inputs were zeroed in training.
    pub dropout: f64,
    /// The model that is adapted, if it is said.
    pub model: Option<String>,
    /// The tensors: `<module>.lora_a`, `<module>.lora_b`, of DoRA `<module>.m`.
    pub tensors: BTreeMap<String, Tensor>,
}

impl MlxAdapter {
    /// Returns whether a directory has an adapter of MLX.
    pub fn is_in(directory: &Path) -> bool {
        directory.join(WEIGHTS_FILE).is_file()
    }

    /// Reads a directory.
    ///
    /// # Errors
    ///
    /// [`MlxError::NotAnAdapter`], [`MlxError::NoPlace`] for weights that were trained whole, and damaged files.
    pub fn load(directory: &Path) -> Result<Self, MlxError> {
        let weights = directory.join(WEIGHTS_FILE);
        if !file::is_there(&weights)? {
            let path = directory.to_path_buf();
            return Err(MlxError::NotAnAdapter { path });
        }
        let path = directory.join(CONFIG_FILE);
        let config = JsonObject::parse(&path, &read_text(&path)?)?;
        let is_dora = match config.str("fine_tune_type")?.unwrap_or(LOW_RANK) {
            LOW_RANK => false,
            "dora" => true,
            _ => {
                let reason = "it has to be lora or dora";
                return Err(config.invalid("fine_tune_type", reason).into());
            }
        };
        let key = "lora_parameters";
        let settings = config.object(key)?.ok_or_else(|| config.missing(key))?;
        let number = |key| settings.f64(key);
        let scale = number("scale")?.ok_or_else(|| settings.missing("scale"))?;
        if !scale.is_finite() {
            return Err(settings.invalid("scale", "it has to be finite").into());
        }
        let mut tensors = BTreeMap::new();
        for (name, stored) in Checkpoint::open_file(&weights)?.tensors() {
            let tensor = Tensor {
                shape: stored.shape.to_vec(),
                data: stored.to_finite_f32_vec()?,
            };
            tensors.insert(name.to_owned(), tensor);
        }
        Ok(Self {
            is_dora,
            rank: settings.required_size("rank")?,
            scale,
            dropout: number("dropout")?.unwrap_or(0.0),
            model: config.str("model")?.map(str::to_owned),
            tensors,
        })
    }

    /// Writes the directory, both files or neither.
    ///
    /// # Errors
    ///
    /// Those of [`AtomicDirectory`] and [`write_safetensors`].
    pub fn save(&self, directory: &Path) -> Result<(), MlxError> {
        let target = AtomicDirectory::create(directory)?;
        let mut keys: Vec<&str> = self
            .tensors
            .keys()
            .filter_map(|name| key_of(name))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let config = json!({
            "fine_tune_type": if self.is_dora { "dora" } else { LOW_RANK },
            "lora_parameters": {
                "dropout": self.dropout,
                "keys": keys,
                "rank": self.rank,
                "scale": self.scale,
            },
            "model": self.model,
            // All of them: a module without factors in the file keeps a B of zeros.
            "num_layers": -1,
        });
        let text = format!("{config:#}\n");
        write_file_atomic(&target.path().join(CONFIG_FILE), text.as_bytes())?;
        let tensors: Vec<TensorToWrite<'_>> = self
            .tensors
            .iter()
            .map(|(name, tensor)| TensorToWrite::f32(name, &tensor.shape, &tensor.data))
            .collect();
        let metadata = BTreeMap::from([("format".to_owned(), "mlx".to_owned())]);
        write_safetensors(&target.path().join(WEIGHTS_FILE), &tensors, &metadata)?;
        Ok(target.commit()?)
    }
}

/// MLX's word for adapters of two factors.
const LOW_RANK: &str = "lora";

/// Returns the path of a tensor's module inside of its layer, or in the model where it is in none.
fn key_of(name: &str) -> Option<&str> {
    let (module, _) = name.rsplit_once('.')?;
    let mut end = 0;
    for part in module.split('.') {
        end += part.len() + 1;
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(inside) = module.get(end..).filter(|_| is_number) {
            return Some(inside);
        }
    }
    Some(module)
}
