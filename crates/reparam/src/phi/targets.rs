//! Which layers of a model a method is attached to.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use reparam_formats::peft::{
    LoraAdapterConfig, LoraNumbers, LoraRules, ModuleMatcher, TargetModules,
};

use super::{PhiError, WeightLayout};

/// A linear layer found in a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearModule {
    /// Its path, empty if the model itself is the layer.
    pub path: String,
    /// The shape of its weight, as stored.
    pub shape: [usize; 2],
    /// Whether a method is attached already.
    pub is_reparameterized: bool,
}

impl LinearModule {
    /// Returns the path of the weight.
    pub(super) fn weight_path(&self) -> String {
        if self.path.is_empty() {
            "weight".to_owned()
        } else {
            format!("{}.weight", self.path)
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
    fn is_output_head(&self) -> bool {
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

/// Returns the linear layers of a model that carries no method yet.
///
/// # Errors
///
/// [`PhiError::AlreadyAttached`]: attaching freezes everything else, an earlier method's state
/// included.
pub(super) fn unadapted_modules<M: Module>(model: &M) -> Result<Vec<LinearModule>, PhiError> {
    let linears = linear_modules(model);
    match linears.iter().find(|linear| linear.is_reparameterized) {
        None => Ok(linears),
        Some(linear) => Err(PhiError::AlreadyAttached {
            module: linear.path.clone(),
        }),
    }
}

#[derive(Default)]
struct FindLinears {
    /// Names and container types from the root to here.
    path: Vec<(String, String)>,
    found: Vec<LinearModule>,
}

impl ModuleVisitor for FindLinears {
    fn enter_module(&mut self, name: &str, container_type: &str) {
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
                is_reparameterized: false,
            });
        } else if let Some(last) = self.found.last_mut()
            && names(parents).starts_with(&last.weight_path())
        {
            // Whatever lies inside a linear layer's weight is a method's state.
            last.is_reparameterized = true;
        }
    }
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
) -> Result<Vec<Target<'a>>, PhiError> {
    let candidates = candidates(config, linears);
    let paths: Vec<&str> = candidates
        .iter()
        .map(|linear| linear.path.as_str())
        .collect();
    ModuleMatcher::new(config)?.report(&paths)?.require_all()?;
    let targets = matching(config, linears)?;
    let paths: Vec<&str> = targets
        .iter()
        .map(|target| target.module.path.as_str())
        .collect();
    LoraRules::new(config)?.require_all(&paths)?;
    Ok(targets)
}

/// Returns the layers that a configuration matches; entries that match nothing are no error, since
/// PEFT writes them too.
pub(super) fn matching<'a>(
    config: &LoraAdapterConfig,
    linears: &'a [LinearModule],
) -> Result<Vec<Target<'a>>, PhiError> {
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
