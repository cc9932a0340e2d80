//! Which layers of a model a method is attached to, and which biases go along.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use reparam_formats::peft::{
    LoraAdapterConfig, LoraNumbers, LoraRules, ModuleMatcher, TargetModules,
};

use super::{MethodError, Setting};

/// What Burn calls the container of a reparameterization's parameters.
pub(crate) const REPARAMETERIZATION: &str = "Reparameterization";

/// The key of [`Selection::target_modules`] in a run file.
pub(super) const TARGET_MODULES: Setting = Setting {
    key: "target_modules",
    default: "\"all-linear\"",
    meaning: "trained modules: a list of names, or a regex",
};

/// The key of [`Selection::bias`] in a run file.
pub(super) const BIAS: Setting = Setting {
    key: "bias",
    default: "\"none\"",
    meaning: "biases trained along: none, or all",
};

/// In which order a layer stores its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightLayout {
    /// `[d_out, d_in]`: PyTorch, the checkpoints, [`crate::Linear`].
    #[default]
    OutIn,
    /// `[d_in, d_out]`: Burn's `nn::Linear`.
    InOut,
}

/// Which biases are trained along with a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Biases {
    /// None.
    #[default]
    None,
    /// All of the model's.
    All,
}

/// Which linear layers a method is attached to.
///
/// LoRA has its own settings, which are PEFT's and more.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Which linear layers; `all-linear` leaves out the output head.
    pub target_modules: TargetModules,
    /// Which of them are not, by the same rules.
    pub exclude_modules: Option<TargetModules>,
    /// Which existing biases are trained along.
    pub bias: Biases,
    /// In which order the model's linear layers store their weights.
    pub weight_layout: WeightLayout,
}

impl Default for Selection {
    /// Every linear layer but the output head, stored as in PyTorch, and no bias.
    fn default() -> Self {
        Self {
            target_modules: TargetModules::AllLinear,
            exclude_modules: None,
            bias: Biases::None,
            weight_layout: WeightLayout::OutIn,
        }
    }
}

impl Selection {
    /// Sets which linear layers are selected.
    pub fn with_target_modules(self, target_modules: TargetModules) -> Self {
        Self {
            target_modules,
            ..self
        }
    }

    /// Sets which of them are not.
    pub fn with_exclude_modules(self, exclude_modules: TargetModules) -> Self {
        Self {
            exclude_modules: Some(exclude_modules),
            ..self
        }
    }

    /// Sets which biases are trained along.
    pub fn with_bias(self, bias: Biases) -> Self {
        Self { bias, ..self }
    }

    /// Sets in which order the model's linear layers store their weights.
    pub fn with_weight_layout(self, weight_layout: WeightLayout) -> Self {
        Self {
            weight_layout,
            ..self
        }
    }

    /// Returns the selected layers, in order.
    ///
    /// # Errors
    ///
    /// Fails when nothing is selected, or an entry matches nothing.
    pub(super) fn select<'a>(
        &self,
        linears: &'a [LinearModule],
    ) -> Result<Vec<&'a LinearModule>, MethodError> {
        // The matcher reads its rules from PEFT's configuration, whose rules they are.
        select_modules(
            &LoraAdapterConfig {
                target_modules: Some(self.target_modules.clone()),
                exclude_modules: self.exclude_modules.clone(),
                ..LoraAdapterConfig::default()
            },
            linears,
        )
    }
}

/// A linear layer found in a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearModule {
    /// Its path, empty if the model itself is the layer.
    pub path: String,
    /// The shape of its weight, as stored.
    pub shape: [usize; 2],
    /// The name of the method that is attached to the weight, if any.
    pub method: Option<String>,
    /// Whether the weight itself is not there, but packed for fused operations.
    pub is_packed: bool,
}

impl LinearModule {
    /// Returns whether a method is attached to the weight.
    pub fn is_reparameterized(&self) -> bool {
        self.method.is_some()
    }

    /// Returns the path of the weight.
    pub(super) fn weight_path(&self) -> String {
        self.tensor_name("weight")
    }

    /// Returns the name of a tensor beside the weight.
    pub(super) fn tensor_name(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// Returns `(d_out, d_in)`.
    pub(super) fn dims(&self, layout: WeightLayout) -> (usize, usize) {
        let [rows, cols] = self.shape;
        match layout {
            WeightLayout::OutIn => (rows, cols),
            WeightLayout::InOut => (cols, rows),
        }
    }

    /// Returns whether this is the head that PEFT's `all-linear` leaves out.
    pub(super) fn is_output_head(&self) -> bool {
        self.path.rsplit('.').next() == Some("lm_head")
    }
}

/// A selected layer with its rank, alpha and scaling.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) module: &'a LinearModule,
    pub(super) numbers: LoraNumbers,
}

/// Returns the linear layers of a model, in its order.
///
/// A layer is a struct named `Linear` with a two-dimensional `weight`: this crate's, Burn's, or a
/// user's own.
pub fn linear_modules<M: Module>(model: &M) -> Vec<LinearModule> {
    let mut find = FindLinears::default();
    model.visit(&mut find);
    find.found
}

/// Returns the linear layers of a model that carries no method yet; `kind` is about to be attached.
///
/// # Errors
///
/// [`MethodError::AlreadyAttached`]: attaching freezes everything else, an earlier method's state
/// included.
pub(super) fn unadapted_modules<M: Module>(
    model: &M,
    kind: &'static str,
) -> Result<Vec<LinearModule>, MethodError> {
    let linears = linear_modules(model);
    let attached = linears
        .iter()
        .find_map(|linear| Some((linear, linear.method.as_ref()?)));
    if let Some((linear, attached)) = attached {
        return Err(MethodError::already_attached(linear, attached, kind));
    }
    Ok(linears)
}

#[derive(Default)]
struct FindLinears {
    /// Names and container types from the root to here.
    path: Vec<(String, String)>,
    found: Vec<LinearModule>,
}

impl ModuleVisitor for FindLinears {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        if container_type == REPARAMETERIZATION
            && let Some(last) = self.found.last_mut()
            && names(&self.path) == last.weight_path()
        {
            last.method = Some(name.to_owned());
        }
        self.path.push((name.to_owned(), container_type.to_owned()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(((name, container), parents)) = self.path.split_last() else {
            return;
        };
        if D == 2 && name == "weight" && container == "Struct:Linear" {
            let shape = param.lazy_shape();
            self.found.push(LinearModule {
                path: names(parents),
                shape: [shape[0], shape[1]],
                method: None,
                is_packed: is_absent(param),
            });
        }
    }
}

/// Returns whether a parameter stands for a weight that is packed elsewhere: see [`crate::Linear::frozen`].
fn is_absent<const D: usize>(param: &Param<Tensor<D>>) -> bool {
    let mut first = param.base();
    for dim in 0..D {
        if first.dims()[dim] == 0 {
            return false;
        }
        first = first.narrow(dim, 0, 1);
    }
    first.into_data().iter::<f64>().all(f64::is_nan)
}

fn names(path: &[(String, String)]) -> String {
    let names: Vec<&str> = path.iter().map(|(name, _)| name.as_str()).collect();
    names.join(".")
}

/// Selects the layers that a new adapter's configuration names.
///
/// # Errors
///
/// Fails when nothing is selected, or an entry of `target_modules` or a pattern matches nothing.
pub(super) fn select<'a>(
    config: &LoraAdapterConfig,
    linears: &'a [LinearModule],
) -> Result<Vec<Target<'a>>, MethodError> {
    select_modules(config, linears)?;
    let targets = matching(config, linears)?;
    let paths: Vec<&str> = targets
        .iter()
        .map(|target| target.module.path.as_str())
        .collect();
    LoraRules::new(config)?.require_all(&paths)?;
    Ok(targets)
}

/// Selects the layers that the rules of a configuration name, and requires each rule to name some.
fn select_modules<'a>(
    config: &LoraAdapterConfig,
    linears: &'a [LinearModule],
) -> Result<Vec<&'a LinearModule>, MethodError> {
    let candidates = candidates(config, linears);
    let paths: Vec<&str> = candidates
        .iter()
        .map(|linear| linear.path.as_str())
        .collect();
    let matcher = ModuleMatcher::new(config)?;
    matcher.report(&paths)?.require_all()?;
    let mut selected = Vec::new();
    for module in candidates {
        if matcher.matches(&module.path)? {
            selected.push(module);
        }
    }
    Ok(selected)
}

/// Returns the layers that a configuration matches; entries that match nothing are no error, since
/// PEFT writes them too.
pub(super) fn matching<'a>(
    config: &LoraAdapterConfig,
    linears: &'a [LinearModule],
) -> Result<Vec<Target<'a>>, MethodError> {
    let matcher = ModuleMatcher::new(config)?;
    let rules = LoraRules::new(config)?;
    let mut targets = Vec::new();
    for module in candidates(config, linears) {
        if matcher.matches(&module.path)? {
            targets.push(Target {
                module,
                numbers: rules.numbers_for(&module.path)?,
            });
        }
    }
    Ok(targets)
}

fn candidates<'a>(
    config: &LoraAdapterConfig,
    linears: &'a [LinearModule],
) -> Vec<&'a LinearModule> {
    let all_linear = config.target_modules == Some(TargetModules::AllLinear);
    linears
        .iter()
        .filter(|linear| !(all_linear && linear.is_output_head()))
        .collect()
}
