//! Two methods on one weight.
//!
//! Burn keeps one reparameterization a parameter, and shows neither a visitor nor a mapper what it
//! is. To put a second one over it, the first is read off through the names, parameters and
//! [`Constant`](super::Constant)s that a visitor does see, taken off by merging, which only that
//! does, and put back together with the second around the same base.

use std::any::Any;
use std::collections::HashMap;

use burn::module::{
    Module, ModuleDisplay, ModuleMapper, ModuleVisitor, Param, Reparameterization, Reparameterizer,
};
use burn::tensor::Tensor;

use super::constant::CONSTANT;
use super::matrix::dense;
use super::targets::{LinearModule, REPARAMETERIZATION};
use super::{
    AttachReport, AttachedModule, Biases, Lora, MethodError, WeightLayout, WeightNorm,
    WeightNormConfig, lora, weight_norm,
};
use crate::ForwardContext;

/// The name of a chain inside a module.
pub(super) const NAME: &str = "chain";

/// A reparameterization of what another one returns: `W = outer(inner(base))`.
#[derive(Module, Debug)]
pub struct Chain<O: Module, I: Module> {
    /// The one that returns the effective weight.
    pub outer: O,
    /// The one that is applied to the stored weight.
    pub inner: I,
}

impl<O, I> Reparameterization for Chain<O, I>
where
    O: Reparameterization + ModuleDisplay,
    I: Reparameterization + ModuleDisplay,
{
    const NAME: &'static str = NAME;

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        self.outer.apply(self.inner.apply(base))
    }
}

/// Weight normalization of a weight with LoRA.
type NormalizedLora = Chain<WeightNorm, Lora>;

/// Returns the public name of a tensor inside a chain.
pub(super) fn public_name(inner: &[&str]) -> Option<String> {
    match inner.split_first()? {
        (&"outer", rest) => weight_norm::METHOD.public_name(&rest.join(".")),
        (&"inner", rest) => lora::METHOD.public_name(&rest.join(".")),
        _ => None,
    }
}

/// Applies a linear layer whose weight is a chain.
pub(super) fn run(
    x: &Tensor<2>,
    weight: &Param<Tensor<2>>,
    _context: &ForwardContext,
) -> Option<Tensor<2>> {
    let chain = weight.reparameterization::<NormalizedLora>()?;
    Some(dense(x, weight, chain.inner.is_transposed()))
}

/// Puts weight normalization over the LoRA of a model.
pub(super) fn normalize_lora<M: Module>(
    model: M,
    linears: &[LinearModule],
    config: &WeightNormConfig,
) -> Result<(M, AttachReport), MethodError> {
    let kind = weight_norm::METHOD.kind;
    if let Some((linear, attached)) = linears
        .iter()
        .filter_map(|linear| Some((linear, linear.method.as_ref()?)))
        .find(|(_, attached)| attached.as_str() != lora::METHOD.kind)
    {
        return Err(MethodError::already_attached(linear, attached, kind));
    }
    let carrying: Vec<LinearModule> = linears
        .iter()
        .filter(|linear| linear.is_reparameterized())
        .cloned()
        .collect();
    let selected = config.selection.select(&carrying)?;
    let mut read = ReadLora::default();
    model.visit(&mut read);
    let mut inner = HashMap::new();
    let mut bases = HashMap::new();
    for linear in &carrying {
        let path = linear.weight_path();
        // Burn's own LoRA has the same name and other parameters.
        let (base, lora) = read
            .found
            .remove(&path)
            .and_then(|found| found.rebuild(&linear.path))
            .ok_or_else(|| MethodError::already_attached(linear, lora::METHOD.kind, kind))?;
        bases.insert(path.clone(), base);
        inner.insert(path, lora);
    }
    let mut outer = HashMap::new();
    let mut modules = Vec::new();
    for linear in selected {
        let path = linear.weight_path();
        let (base, lora) = (&bases[&path], &inner[&path]);
        modules.push(AttachedModule {
            module: linear.path.clone(),
            rank: Some(lora.lora_a.base().dims()[0]),
            scaling: Some(lora.scaling.0),
        });
        outer.insert(path, normalize(config, linear, base, lora)?);
    }
    let mut restore = Restore {
        path: Vec::new(),
        bases,
        trains_biases: config.selection.bias == Biases::All,
        n_biases: 0,
    };
    let model = model.materialize().map(&mut restore);
    if restore.trains_biases && restore.n_biases == 0 {
        return Err(MethodError::NoBias { bias: "all" });
    }
    let chains = outer
        .into_iter()
        .filter_map(|(path, outer)| {
            let inner = inner.remove(&path)?;
            Some((path, NormalizedLora { outer, inner }))
        })
        .collect();
    let model = model
        .apply_reparameterization(Put(chains))
        .apply_reparameterization(Put(inner));
    Ok((model, AttachReport { modules }))
}

/// Starts the normalization of one weight.
fn normalize(
    config: &WeightNormConfig,
    linear: &LinearModule,
    base: &Tensor<2>,
    lora: &Lora,
) -> Result<WeightNorm, MethodError> {
    let transposed = config.selection.weight_layout == WeightLayout::InOut;
    if transposed != lora.is_transposed() {
        return Err(MethodError::Setting {
            setting: "weight_layout",
            expected: "the one that lora was attached with",
            found: format!("{:?}", config.selection.weight_layout),
        });
    }
    if lora.dropout.0 > 0.0 {
        return Err(MethodError::Setting {
            setting: "dropout",
            expected: "0 in lora under weight_norm, which normalizes the whole weight",
            found: lora.dropout.0.to_string(),
        });
    }
    let effective = lora.apply(base.clone()).inner();
    let norm = WeightNorm::of(&effective, transposed, &linear.path)?;
    Ok(if base.is_autodiff() {
        norm.train()
    } else {
        norm
    })
}

/// Reads the LoRA of every weight.
#[derive(Default)]
struct ReadLora {
    /// Names from the root to here.
    path: Vec<String>,
    /// The path of the weight whose LoRA is being visited.
    weight: Option<String>,
    last_base: Option<Tensor<2>>,
    found: HashMap<String, FoundLora>,
}

#[derive(Default)]
struct FoundLora {
    base: Option<Tensor<2>>,
    params: HashMap<String, Param<Tensor<2>>>,
    constants: HashMap<String, f64>,
}

impl FoundLora {
    fn rebuild(mut self, module: &str) -> Option<(Tensor<2>, Lora)> {
        let lora = Lora::from_parts(
            module,
            self.params.remove("lora_a")?,
            self.params.remove("lora_b")?,
            |constant| self.constants.get(constant).copied(),
        )?;
        Some((self.base?, lora))
    }
}

impl ModuleVisitor for ReadLora {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        if container_type == REPARAMETERIZATION {
            let weight = self.path.join(".");
            let found = self.found.entry(weight.clone()).or_default();
            found.base = self.last_base.take();
            self.weight = Some(weight);
        } else if container_type == CONSTANT
            && let (Some(weight), Some(field), Ok(value)) =
                (&self.weight, self.path.last(), name.parse())
        {
            let found = self.found.entry(weight.clone()).or_default();
            found.constants.insert(field.clone(), value);
        }
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.path.pop();
        if container_type == REPARAMETERIZATION {
            self.weight = None;
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Under its own type the parameter keeps what it is: a reshaped one would be no leaf.
        let param = (param as &dyn Any).downcast_ref::<Param<Tensor<2>>>();
        match (&self.weight, self.path.last(), param) {
            (Some(weight), Some(field), Some(param)) => {
                let found = self.found.entry(weight.clone()).or_default();
                found.params.insert(field.clone(), param.clone());
            }
            (None, _, param) => self.last_base = param.map(Param::base),
            _ => {}
        }
    }
}

/// Gives the merged weights their bases back.
struct Restore {
    path: Vec<String>,
    bases: HashMap<String, Tensor<2>>,
    trains_biases: bool,
    n_biases: usize,
}

impl ModuleMapper for Restore {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.bases.remove(&self.path.join(".")) {
            Some(base) => param.map(|merged| base.reshape(merged.shape())),
            None if self.trains_biases && self.path.last().is_some_and(|name| name == "bias") => {
                self.n_biases += 1;
                param.set_require_grad(true)
            }
            None => param,
        }
    }
}

/// Attaches given states to weights by their paths.
struct Put<R>(HashMap<String, R>);

impl<R: Reparameterization> Reparameterizer for Put<R> {
    type Reparam = R;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<R>) {
        let state = self.0.remove(path);
        (param, state)
    }
}
