//! The two files of an adapter directory, whatever the method.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::adapter::Tensor;
use super::{CONFIG_FILE, PeftError, WEIGHTS_FILE, is_inside};
use crate::FormatError;
use crate::atomic::{AtomicDirectory, write_file_atomic};
use crate::checkpoint::Checkpoint;
use crate::config::JsonObject;
use crate::file::{self, read_text};
use crate::mlx::MlxAdapter;
use crate::safetensors::{TensorToWrite, write_safetensors};

/// What PEFT puts before a module's path in Hugging Face's naming.
pub(super) const PREFIX: &str = "base_model.model.";
/// What it puts before a tensor that the layers share, such as `vera_A`.
const SHARED_PREFIX: &str = "base_model.";

/// How the name of a weight of the base ends that is stored because its module is adapted.
const BASE_WEIGHT: &str = ".base_layer.weight";

/// An adapter as it is stored: its configuration and its tensors.
///
/// Tensors are named as in the file but for what PEFT puts before every name:
/// `model.layers.0.self_attn.q_proj.lora_A.weight`, and `vera_A` for one that all layers share.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterFiles {
    /// `adapter_config.json`.
    pub config: JsonObject,
    /// `adapter_model.safetensors`.
    pub tensors: BTreeMap<String, Tensor>,
}

impl AdapterFiles {
    /// Puts an adapter together.
    pub fn new(config: Map<String, Value>, tensors: BTreeMap<String, Tensor>) -> Self {
        Self {
            config: JsonObject::new(Path::new(CONFIG_FILE), config),
            tensors,
        }
    }

    /// Reads the directory of an adapter.
    ///
    /// Tensors of F32, F16 and BF16 are read as `f32`, exactly.
    ///
    /// # Errors
    ///
    /// [`PeftError::NotAnAdapter`], [`PeftError::OfMlx`]; [`FormatError::PickleOnly`], [`FormatError::NoSuchFile`] and
    /// those of a safetensors file; [`FormatError::NonFinite`]; [`PeftError::UnexpectedTensor`] for a name
    /// that is none of PEFT's; a configuration that is not a JSON object.
    pub fn load(directory: &Path) -> Result<Self, PeftError> {
        let config = Self::load_config(directory)?;
        let path = directory.to_path_buf();
        let weights = directory.join(WEIGHTS_FILE);
        let pickle = "adapter_model.bin".to_owned();
        if !file::is_there(&weights)? && directory.join(&pickle).exists() {
            return Err(FormatError::PickleOnly {
                path,
                files: vec![pickle],
            }
            .into());
        }
        if MlxAdapter::is_in(directory) && !file::is_there(&weights)? {
            return Err(PeftError::OfMlx { path });
        }
        let file = Checkpoint::open_file(&weights)?;
        let mut tensors = BTreeMap::new();
        for (name, stored) in file.tensors() {
            let shared = || {
                name.strip_prefix(SHARED_PREFIX)
                    .filter(|name| !name.contains('.'))
            };
            let Some(short) = name.strip_prefix(PREFIX).or_else(shared) else {
                let reason = "names of adapter tensors begin with base_model.model.";
                return Err(PeftError::UnexpectedTensor {
                    name: name.to_owned(),
                    reason,
                });
            };
            let tensor = Tensor {
                shape: stored.shape.to_vec(),
                data: stored.to_finite_f32_vec()?,
            };
            if tensors
                .insert(without_adapter_name(short), tensor)
                .is_some()
            {
                return Err(PeftError::UnexpectedTensor {
                    name: name.to_owned(),
                    reason: "the same tensor is there without the name of the adapter",
                });
            }
        }
        Ok(Self { config, tensors })
    }

    /// Reads the configuration alone.
    ///
    /// # Errors
    ///
    /// [`FormatError::NoSuchDirectory`], [`PeftError::NotAnAdapter`], and a configuration that is not a JSON object.
    pub fn load_config(directory: &Path) -> Result<JsonObject, PeftError> {
        let path = directory.to_path_buf();
        if !directory.is_dir() {
            return Err(FormatError::NoSuchDirectory { path }.into());
        }
        let config_path = directory.join(CONFIG_FILE);
        if !file::is_there(&config_path)? {
            return Err(PeftError::NotAnAdapter { path });
        }
        Ok(JsonObject::parse(&config_path, &read_text(&config_path)?)?)
    }

    /// Leaves out the weights that PEFT stores of the base, beside an output head or an embedding that is adapted, after it has
    /// checked that they are those of this base.
    ///
    /// `tied` pairs names of the base that are one weight: the checkpoint need have only one of them.
    ///
    /// # Errors
    ///
    /// [`PeftError::OtherBase`], and those of reading the base.
    pub fn over(mut self, base: &Checkpoint, tied: &[(&str, &str)]) -> Result<Self, PeftError> {
        let saved = self.config.strings("modules_to_save")?.unwrap_or_default();
        let trains_biases = !matches!(self.config.str("bias")?, None | Some("none"));
        let stored: Vec<String> = self.tensors.keys().cloned().collect();
        for name in stored {
            let (of_base, is_certain) = match name.strip_suffix(BASE_WEIGHT) {
                Some(module) => (format!("{module}.weight"), true),
                None => (name.clone(), false),
            };
            let of_tied = tied.iter().find_map(|(a, b)| match &*of_base {
                name if name == *a => Some(*b),
                name if name == *b => Some(*a),
                _ => None,
            });
            let weight = base.get(&of_base).or_else(|| base.get(of_tied?));
            // A bias that is trained is no copy either.
            if trains_biases && name.ends_with(".bias") {
                continue;
            }
            let refuse = |problem| PeftError::OtherBase {
                name: of_base.clone(),
                problem,
            };
            let weight = match weight {
                // A module that is saved whole is trained, and no copy.
                Some(_) if !is_certain && is_module_of(&of_base, &saved) => continue,
                Some(weight) => weight,
                None if is_certain => return Err(refuse("the base has none")),
                None => continue,
            };
            let stored = &self.tensors[&name];
            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
            if weight.shape != stored.shape
                || !weight.to_f32_vec()?.iter().zip(&stored.data).all(same)
            {
                return Err(refuse("that of the base is another"));
            }
            self.tensors.remove(&name);
        }
        Ok(self)
    }

    /// Leaves out the weights that PEFT stores of the base, whatever they are.
    #[must_use]
    pub fn without_base(mut self) -> Self {
        self.tensors.retain(|name, _| !name.ends_with(BASE_WEIGHT));
        self
    }

    /// Writes the directory of the adapter: `adapter_config.json` and
    /// `adapter_model.safetensors`, both or neither.
    ///
    /// The same adapter gives the same bytes. An older adapter in the directory is replaced; other
    /// files in it are kept.
    ///
    /// # Errors
    ///
    /// Those of [`AtomicDirectory`] and [`write_safetensors`]. The directory is then what it was.
    pub fn save(&self, directory: &Path) -> Result<(), PeftError> {
        self.save_with(directory, &[])
    }

    /// [`save`](Self::save) with more files beside the two, each a name and a text, which PEFT does not look at.
    ///
    /// # Errors
    ///
    /// As that.
    pub fn save_with(&self, directory: &Path, more: &[(&str, &str)]) -> Result<(), PeftError> {
        let target = AtomicDirectory::create(directory)?;
        for (name, text) in more {
            write_file_atomic(&target.path().join(name), text.as_bytes())?;
        }
        let config_path = target.path().join(CONFIG_FILE);
        let text = render(Value::Object(self.config.map().clone()));
        write_file_atomic(&config_path, text.as_bytes())?;
        let names: Vec<String> = self.tensors.keys().map(|name| stored_name(name)).collect();
        let mut tensors: Vec<TensorToWrite<'_>> = names
            .iter()
            .zip(self.tensors.values())
            .map(|(name, tensor)| TensorToWrite::f32(name, &tensor.shape, &tensor.data))
            .collect();
        tensors.sort_by(|a, b| a.name.cmp(b.name));
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        write_safetensors(&target.path().join(WEIGHTS_FILE), &tensors, &metadata)?;
        target.commit()?;
        Ok(())
    }

    /// Returns the word for the method, such as `LORA`.
    ///
    /// # Errors
    ///
    /// Fails when the configuration does not say it.
    pub fn peft_type(&self) -> Result<&str, PeftError> {
        let peft_type = self.config.str("peft_type")?;
        Ok(peft_type.ok_or_else(|| self.config.missing("peft_type"))?)
    }
}

/// Whether a tensor belongs to one of these modules or to a module [inside](is_inside) of one.
pub(super) fn is_module_of(tensor: &str, modules: &[String]) -> bool {
    let module = tensor.rsplit_once('.').map_or(tensor, |(module, _)| module);
    is_inside(module, modules)
}

/// Takes out the name that an adapter has among others in memory. PEFT leaves it out when it saves one, and some trainers that
/// save by themselves do not: `lora_A.default.weight` or `ia3_l.default`. It stands nowhere else; a module may have the name, too.
fn without_adapter_name(name: &str) -> String {
    let mut parts: Vec<&str> = name.split('.').collect();
    let last = parts.len() - 1;
    // Before it is the name of a tensor.
    let at = [last, last.saturating_sub(1)].into_iter();
    if let Some(at) = at.filter(|at| *at > 0).find(|at| parts[*at] == "default") {
        parts.remove(at);
    }
    parts.join(".")
}

/// Returns the text of a configuration: its keys sorted, as PEFT sorts them, and everything in ASCII,
/// because PEFT reads it in the encoding of the system, which need not be UTF-8.
pub(super) fn render(mut config: Value) -> String {
    config.sort_all_objects();
    let mut text = String::new();
    for character in format!("{config:#}").chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

/// Returns the name in the file. A name of one part is that of a tensor which the layers share.
fn stored_name(name: &str) -> String {
    if name.contains('.') {
        format!("{PREFIX}{name}")
    } else {
        format!("{SHARED_PREFIX}{name}")
    }
}
