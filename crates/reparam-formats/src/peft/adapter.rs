//! A LoRA adapter: its configuration and its tensors, as a directory and in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::files::{PREFIX, is_module_of};
use super::parameters::parameters_at;
use super::{
    AdapterFiles, Bias, CONFIG_FILE, LoraAdapterConfig, LoraNumbers, LoraRules, ModuleMatcher,
    PeftError,
};

const A_SUFFIX: &str = ".lora_A.weight";
const B_SUFFIX: &str = ".lora_B.weight";
const MAGNITUDE_SUFFIX: &str = ".lora_magnitude_vector";
const BASE_BIAS_SUFFIX: &str = ".base_layer.bias";
const BIAS_SUFFIX: &str = ".bias";

/// A tensor in memory, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// The shape.
    pub shape: Vec<usize>,
    /// The elements, as many as the product of the shape.
    pub data: Vec<f32>,
}

/// The two factors of an adapted module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraPair<'a> {
    /// A, of shape r x in.
    pub a: &'a Tensor,
    /// B, of shape out x r.
    pub b: &'a Tensor,
    /// Rank, alpha and scaling. The factors are stored unscaled.
    pub numbers: LoraNumbers,
}

/// A LoRA adapter whose tensors and configuration agree.
///
/// Tensors are named as in the file but for the prefix `base_model.model.`, such as
/// `model.layers.0.self_attn.q_proj.lora_A.weight`.
#[derive(Debug, Clone)]
pub struct PeftAdapter {
    config: LoraAdapterConfig,
    tensors: BTreeMap<String, Tensor>,
    /// The adapted modules, by path.
    modules: BTreeMap<String, LoraNumbers>,
    /// The adapted parameters that are no linear layer's, by path.
    parameters: BTreeMap<String, LoraNumbers>,
}

impl PeftAdapter {
    /// Returns the name of a module's factor A.
    pub fn a_name(module: &str) -> String {
        format!("{module}{A_SUFFIX}")
    }

    /// Returns the name of a module's factor B.
    pub fn b_name(module: &str) -> String {
        format!("{module}{B_SUFFIX}")
    }

    /// Returns the name of a module's bias, which depends on whether the module is adapted.
    pub fn bias_name(module: &str, is_adapted: bool) -> String {
        format!(
            "{module}{}",
            if is_adapted {
                BASE_BIAS_SUFFIX
            } else {
                BIAS_SUFFIX
            }
        )
    }

    /// Puts an adapter together and checks that its parts agree.
    ///
    /// # Errors
    ///
    /// [`PeftError::UnexpectedTensor`], [`PeftError::IncompletePair`], [`PeftError::WrongRank`],
    /// [`PeftError::BadTensor`], [`PeftError::NotTargeted`], [`PeftError::Empty`], and those of
    /// [`LoraAdapterConfig::validate`].
    pub fn new(
        config: LoraAdapterConfig,
        tensors: BTreeMap<String, Tensor>,
    ) -> Result<Self, PeftError> {
        config.validate()?;
        let rules = LoraRules::new(&config)?;
        let matcher = match &config.target_modules {
            Some(_) => Some(ModuleMatcher::new(&config)?),
            None => None,
        };
        let mut paths = BTreeSet::new();
        for (name, tensor) in &tensors {
            check_tensor(name, tensor)?;
            if let Some(path) = name.strip_suffix(A_SUFFIX).or(name.strip_suffix(B_SUFFIX)) {
                paths.insert(path);
            }
        }
        for (name, tensor) in &tensors {
            check_name(name, tensor, &config, &paths)?;
        }
        if paths.is_empty() {
            return Err(PeftError::Empty);
        }
        let of_parameters = parameters_at(&config.target_parameters, &paths)?;
        let mut modules = BTreeMap::new();
        let mut parameters = BTreeMap::new();
        for path in paths {
            let factor = |name: String, missing| {
                let module = path.to_owned();
                tensors
                    .get(&name)
                    .ok_or(PeftError::IncompletePair { module, missing })
            };
            let a = factor(Self::a_name(path), "lora_A")?;
            let b = factor(Self::b_name(path), "lora_B")?;
            if let Some(parameter) = of_parameters.get(path) {
                let numbers = rules.numbers_for(parameter)?;
                // The rank of each expert, one after the other.
                let all = a.shape[0];
                if all != b.shape[1] || !all.is_multiple_of(numbers.rank) {
                    return Err(PeftError::WrongRank {
                        module: parameter.clone(),
                        expected: numbers.rank,
                        a_shape: a.shape.clone(),
                        b_shape: b.shape.clone(),
                    });
                }
                parameters.insert(parameter.clone(), numbers);
                continue;
            }
            let numbers = rules.numbers_for(path)?;
            if a.shape[0] != numbers.rank || b.shape[1] != numbers.rank {
                return Err(PeftError::WrongRank {
                    module: path.to_owned(),
                    expected: numbers.rank,
                    a_shape: a.shape.clone(),
                    b_shape: b.shape.clone(),
                });
            }
            if let Some(matcher) = &matcher
                && !matcher.matches(path)?
            {
                return Err(PeftError::NotTargeted {
                    module: path.to_owned(),
                });
            }
            modules.insert(path.to_owned(), numbers);
        }
        Ok(Self {
            config,
            tensors,
            modules,
            parameters,
        })
    }

    /// Reads the directory of an adapter.
    ///
    /// Tensors of F32, F16 and BF16 are read as `f32`, exactly.
    ///
    /// # Errors
    ///
    /// Those of [`AdapterFiles::load`], [`LoraAdapterConfig::parse`] and [`PeftAdapter::new`].
    pub fn load(directory: &Path) -> Result<Self, PeftError> {
        Self::from_files(AdapterFiles::load(directory)?)
    }

    /// Checks what was read.
    ///
    /// # Errors
    ///
    /// Those of [`LoraAdapterConfig::parse`] and [`PeftAdapter::new`].
    pub fn from_files(files: AdapterFiles) -> Result<Self, PeftError> {
        Self::new(LoraAdapterConfig::from_json(&files.config)?, files.tensors)
    }

    /// Writes the directory of the adapter: `adapter_config.json` and
    /// `adapter_model.safetensors`, both or neither.
    ///
    /// The same adapter gives the same bytes. An older adapter in the directory is replaced; other
    /// files in it are kept.
    ///
    /// # Errors
    ///
    /// [`PeftError::PatternOrder`], and those of [`AdapterFiles::save`]. The directory is then what it was.
    pub fn save(&self, directory: &Path) -> Result<(), PeftError> {
        self.check_writable()?;
        AdapterFiles::new(self.config.to_map(), self.tensors.clone()).save(directory)
    }

    /// Checks that the patterns mean the same in the sorted order in which they are written, as
    /// [`save`](Self::save) does.
    ///
    /// # Errors
    ///
    /// [`PeftError::PatternOrder`].
    pub fn check_writable(&self) -> Result<(), PeftError> {
        let written = LoraAdapterConfig::parse(Path::new(CONFIG_FILE), &self.config.render())?;
        let rules = LoraRules::new(&written)?;
        for (module, numbers) in self.modules.iter().chain(&self.parameters) {
            let module = module.clone();
            if rules.rank_for(&module)? != numbers.rank {
                return Err(PeftError::PatternOrder {
                    option: "rank_pattern",
                    module,
                });
            }
            if rules.alpha_for(&module)? != numbers.alpha {
                return Err(PeftError::PatternOrder {
                    option: "alpha_pattern",
                    module,
                });
            }
        }
        Ok(())
    }

    /// Returns the configuration.
    pub fn config(&self) -> &LoraAdapterConfig {
        &self.config
    }

    /// Returns all tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// Iterates over the paths of the adapted modules, sorted.
    pub fn module_paths(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }

    /// Iterates over the paths of the adapted parameters that are no linear layer's, sorted.
    pub fn parameter_paths(&self) -> impl Iterator<Item = &str> {
        self.parameters.keys().map(String::as_str)
    }

    /// Returns the factors of an adapted module.
    pub fn pair(&self, module: &str) -> Option<LoraPair<'_>> {
        let numbers = *self.modules.get(module)?;
        let a = self.tensors.get(&Self::a_name(module))?;
        let b = self.tensors.get(&Self::b_name(module))?;
        Some(LoraPair { a, b, numbers })
    }

    /// Returns the stored bias of a module, adapted or not.
    pub fn bias(&self, module: &str) -> Option<&Tensor> {
        self.tensors
            .get(&Self::bias_name(module, self.modules.contains_key(module)))
    }

    /// Returns the rank of an adapted module.
    pub fn rank_for(&self, module: &str) -> Option<usize> {
        self.modules.get(module).map(|numbers| numbers.rank)
    }

    /// Returns the numerator of an adapted module's scaling.
    pub fn alpha_for(&self, module: &str) -> Option<f64> {
        self.modules.get(module).map(|numbers| numbers.alpha)
    }

    /// Returns what `B A` of an adapted module is multiplied by.
    pub fn scaling_for(&self, module: &str) -> Option<f64> {
        self.modules.get(module).map(|numbers| numbers.scaling)
    }
}

/// Checks that a tensor has as many elements as its shape says, and at least one.
fn check_tensor(name: &str, tensor: &Tensor) -> Result<(), PeftError> {
    let n_elements = tensor
        .shape
        .iter()
        .try_fold(1_usize, |product, dim| product.checked_mul(*dim));
    if n_elements == Some(tensor.data.len()) && !tensor.data.is_empty() {
        return Ok(());
    }
    Err(bad_tensor(
        name,
        tensor,
        "the shape has to give the number of elements, at least 1",
    ))
}

fn bad_tensor(name: &str, tensor: &Tensor, reason: &'static str) -> PeftError {
    PeftError::BadTensor {
        name: name.to_owned(),
        shape: tensor.shape.clone(),
        n_elements: tensor.data.len(),
        reason,
    }
}

/// Checks that a tensor is one that a LoRA adapter with this configuration has.
fn check_name(
    name: &str,
    tensor: &Tensor,
    config: &LoraAdapterConfig,
    adapted: &BTreeSet<&str>,
) -> Result<(), PeftError> {
    let bias = config.bias;
    let unexpected = |reason| {
        Err(PeftError::UnexpectedTensor {
            name: format!("{PREFIX}{name}"),
            reason,
        })
    };
    if name.ends_with(A_SUFFIX) || name.ends_with(B_SUFFIX) {
        if tensor.shape.len() != 2 {
            return Err(bad_tensor(name, tensor, "a factor is a matrix"));
        }
        return Ok(());
    }
    if let (true, Some(module)) = (config.use_dora, name.strip_suffix(MAGNITUDE_SUFFIX)) {
        return match (adapted.contains(module), tensor.shape.len()) {
            (true, 1) => Ok(()),
            (true, _) => Err(bad_tensor(name, tensor, "a magnitude is a vector")),
            (false, _) => unexpected("its module has no factors"),
        };
    }
    // A whole module, stored beside the adapter.
    if is_module_of(name, &config.modules_to_save) {
        return Ok(());
    }
    // Part of a name, and what a tensor with it belongs to.
    let foreign = [
        (
            "lora_B.bias",
            "it is the bias of lora_B that lora_bias adds",
        ),
        (
            "lora_magnitude_vector",
            "it is DoRA's magnitude, but use_dora is not set",
        ),
        (
            "lora_embedding_",
            "adapters of embeddings are not supported",
        ),
        ("lora_diag", "it is KaSA's diagonal"),
        ("lora_velora_embed", "it is VeLoRA's embedding"),
        (
            "token_adapter.",
            "it holds rows of the embedding (trainable_token_indices)",
        ),
        ("modules_to_save.", "it is a whole module (modules_to_save)"),
        (
            "base_layer.weight",
            "it is a weight of the base, stored because an embedding is adapted",
        ),
    ];
    if let Some((_, reason)) = foreign.iter().find(|(part, _)| name.contains(part)) {
        return unexpected(reason);
    }
    let (module, is_base_layer) = match name.strip_suffix(BASE_BIAS_SUFFIX) {
        Some(module) => (module, true),
        None => match name.strip_suffix(BIAS_SUFFIX) {
            Some(module) => (module, false),
            None => return unexpected("it is no part of a LoRA adapter"),
        },
    };
    if tensor.shape.len() != 1 {
        return Err(bad_tensor(name, tensor, "a bias is a vector"));
    }
    match bias {
        Bias::None => unexpected("it is a bias, but the configuration says bias = none"),
        _ if is_base_layer != adapted.contains(module) => unexpected(
            "a bias is called base_layer.bias exactly if its module is adapted, and this one's name \
             and module disagree",
        ),
        Bias::LoraOnly if !is_base_layer => {
            unexpected("its module is not adapted, but the configuration says bias = lora_only")
        }
        Bias::All | Bias::LoraOnly => Ok(()),
    }
}
