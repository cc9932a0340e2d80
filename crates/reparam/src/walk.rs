//! The one walk over a module's parameters.
//!
//! Burn shows a visitor the names on the way to a parameter, with the kinds of the containers they are in. This is the
//! only place that reads them: it drops the names that Burn adds (an enum's variant, the frame of a
//! reparameterization), tells a method's tensors from the module's own, and gives each the name that it
//! has in gradients, states and files: beside the layer, as in checkpoints and in PEFT.

use std::collections::{HashMap, HashSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{GradientCheckpointingStrategy, Gradients, Tensor};

/// What Burn calls the container of a reparameterization.
const REPARAMETERIZATION: &str = "Reparameterization";

/// The containers by which [`crate::methods::Attached`] says what its names are.
pub(crate) mod container {
    /// The name is none; what is inside is an output head.
    pub(crate) const OUTPUT_HEAD: &str = "OutputHead";
    /// The name is the number of experts whose weights the parameter inside is, which is no linear layer's.
    pub(crate) const EXPERTS: &str = "Experts";
    /// The name is that of a method on the weight; empty, before the tensors of all of them.
    pub(crate) const LISTED: &str = "Listed";
    /// The name is that of a method, around its tensors.
    pub(crate) const METHOD: &str = "Method";
    /// The name is what the stored weight is called under the methods on it.
    pub(crate) const BASE: &str = "Base";
    /// The layer stores its weight `[d_in, d_out]`.
    pub(crate) const TRANSPOSED: &str = "Transposed";
    /// The name is the number of a row that is trained of the weight.
    pub(crate) const ROW: &str = "Row";
    /// The name is that of a tensor beside the layer.
    pub(crate) const TENSOR: &str = "Tensor";
    /// The name is that of a tensor at the root of the model, which several layers share.
    pub(crate) const SHARED: &str = "Shared";
}

/// A parameter on the walk.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: ParamId,
    /// The dotted name outside: `model.layers.0.self_attn.q_proj.lora_A.weight`.
    pub(crate) name: String,
    /// The path of the module that it belongs to; empty for the root.
    pub(crate) module: String,
    pub(crate) part: Part,
    pub(crate) shape: Vec<usize>,
    /// Whether the module is a struct called `Linear`.
    pub(crate) is_in_linear: bool,
    /// Whether it is inside of an output head.
    pub(crate) is_in_output_head: bool,
    /// Of how many experts it is the weights, if it is.
    pub(crate) n_experts: Option<usize>,
    /// Whether a method is attached that takes the weight transposed.
    pub(crate) is_transposed: bool,
}

/// What a parameter is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// One of the module's own, by its field's name, and the methods that are attached to it.
    Own { field: String, methods: Vec<String> },
    /// A tensor of a method.
    Tensor { method: String },
}

impl Part {
    pub(crate) fn is_tensor(&self) -> bool {
        matches!(self, Self::Tensor { .. })
    }

    /// Whether it is the module's own field of this name.
    pub(crate) fn is_field(&self, name: &str) -> bool {
        matches!(self, Self::Own { field, .. } if field == name)
    }
}

/// A parameter of any rank.
pub(crate) trait AnyParam {
    /// Whether its values are there; those of a packed weight are not.
    fn is_there(&self) -> bool;
    fn is_trained(&self) -> bool;
    /// The stored values, flat and without autodiff.
    fn values(&self) -> Tensor<1>;
    fn take_gradient(&self, gradients: &mut Gradients) -> Option<Tensor<1>>;
}

impl<const D: usize> AnyParam for Param<Tensor<D>> {
    fn is_there(&self) -> bool {
        self.is_initialized()
    }

    fn is_trained(&self) -> bool {
        self.is_initialized() && self.base().is_require_grad()
    }

    fn values(&self) -> Tensor<1> {
        flatten(self.base().inner())
    }

    fn take_gradient(&self, gradients: &mut Gradients) -> Option<Tensor<1>> {
        self.base().grad_remove(gradients).map(flatten)
    }
}

/// Returns a flat view of a tensor.
pub(crate) fn flatten<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let len = tensor.dims().iter().product::<usize>();
    tensor.reshape([len])
}

/// Walks over all parameters in the module's order. One that several modules share is shown at each of them.
///
/// A weight is shown after it is known what is attached to it, and before the tensors of that.
pub(crate) fn walk<M: Module>(module: &M, see: impl FnMut(&Entry, &dyn AnyParam)) {
    let mut visitor = Visitor {
        path: Path::default(),
        waiting: None,
        see,
    };
    module.visit(&mut visitor);
    visitor.flush();
}

/// The entries of a walk, each parameter once, at its first place.
pub(crate) fn entries<M: Module>(module: &M) -> Vec<Entry> {
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    walk(module, |entry, _| {
        if seen.insert(entry.id) {
            entries.push(entry.clone());
        }
    });
    entries
}

/// New values of a parameter, whether it is trained from now on, or both.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Flat, without autodiff.
    pub(crate) values: Option<Tensor<1>>,
    pub(crate) is_trained: Option<bool>,
}

impl Change {
    pub(crate) fn of_values(values: Tensor<1>) -> Self {
        Self {
            values: Some(values),
            is_trained: None,
        }
    }
}

/// Changes parameters by their ids, each wherever it occurs.
pub(crate) fn rewrite<M: Module>(module: M, changes: HashMap<ParamId, Change>) -> M {
    if changes.is_empty() {
        return module;
    }
    module.map(&mut Mapper { changes })
}

struct Mapper {
    changes: HashMap<ParamId, Change>,
}

impl ModuleMapper for Mapper {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(change) = self.changes.get(&param.id) else {
            return param;
        };
        let param = match &change.values {
            None => param,
            Some(values) => param.map(|old| {
                let new: Tensor<D> = values.clone().reshape(old.shape());
                let new = on_graph(new, old.gradient_checkpointing_strategy());
                new.set_require_grad(old.is_require_grad())
            }),
        };
        match change.is_trained {
            None => param,
            Some(is_trained) => param.set_require_grad(is_trained),
        }
    }
}

/// Takes a tensor to where tensors with such a strategy are, if there is one: those of one operation share it.
pub(crate) fn on_graph<const D: usize>(
    tensor: Tensor<D>,
    strategy: Option<GradientCheckpointingStrategy>,
) -> Tensor<D> {
    match strategy {
        None => tensor,
        Some(strategy) => tensor
            .autodiff()
            .with_gradient_checkpointing_strategy(strategy),
    }
}

/// Names from the root to here, with their containers.
#[derive(Debug, Default)]
struct Path(Vec<Step>);

/// A name with its container.
type Step = (String, String);

impl Path {
    /// Splits into the path of the module, the field in it, and the container of the field.
    fn field(names: &[Step]) -> (String, String, bool) {
        let named: Vec<&Step> = names
            .iter()
            .filter(|(_, container)| {
                let is_no_name = [container::OUTPUT_HEAD, container::EXPERTS];
                !container.starts_with("Enum:") && !is_no_name.contains(&container.as_str())
            })
            .collect();
        match named.split_last() {
            None => (String::new(), String::new(), false),
            Some(((field, container), parents)) => {
                let parents: Vec<&str> = parents.iter().map(|(name, _)| name.as_str()).collect();
                (
                    parents.join("."),
                    field.clone(),
                    container == "Struct:Linear",
                )
            }
        }
    }
}

/// Returns the name of something in a module.
pub(crate) fn beside(module: &str, name: &str) -> String {
    if module.is_empty() {
        name.to_owned()
    } else {
        format!("{module}.{name}")
    }
}

struct Visitor<F> {
    path: Path,
    /// The last own parameter, until what is attached to it is known.
    waiting: Option<(Entry, Box<dyn AnyParam>)>,
    see: F,
}

impl<F: FnMut(&Entry, &dyn AnyParam)> Visitor<F> {
    fn flush(&mut self) {
        if let Some((entry, param)) = self.waiting.take() {
            (self.see)(&entry, &*param);
        }
    }

    /// The names before the innermost frame of a reparameterization, and those inside of it.
    fn split(&self) -> (&[Step], &[Step]) {
        let names = &self.path.0;
        let frame = names
            .iter()
            .rposition(|(_, container)| container == REPARAMETERIZATION);
        match frame {
            None => (names, &[]),
            Some(at) => (&names[..at], &names[at + 1..]),
        }
    }
}

impl<F: FnMut(&Entry, &dyn AnyParam)> ModuleVisitor for Visitor<F> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        if let Some((entry, _)) = &mut self.waiting
            && let Part::Own { methods, .. } = &mut entry.part
        {
            match container_type {
                container::TRANSPOSED => entry.is_transposed = true,
                container::LISTED => methods.push(name.to_owned()),
                container::BASE => entry.name = beside(&entry.module, name),
                // Burn's own reparameterizations, or a user's, say no more than their name.
                REPARAMETERIZATION if name != crate::methods::FRAME => {
                    methods.push(name.to_owned())
                }
                _ => {}
            }
        }
        self.path
            .0
            .push((name.to_owned(), container_type.to_owned()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.0.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.flush();
        let shape = param.lazy_shape().to_vec();
        let (outside, inside) = self.split();
        let (module, field, is_in_linear) = Path::field(outside);
        let mut containers = outside.iter().map(|(_, container)| container);
        let is_in_output_head = containers.any(|container| container == container::OUTPUT_HEAD);
        let n_experts = outside.iter().find_map(|(name, container)| {
            let is_number = container == container::EXPERTS;
            is_number.then(|| name.parse().ok())?
        });
        let of_method = inside.iter().find(|(_, kind)| kind == container::METHOD);
        let tensor_of = |method: &str| Part::Tensor {
            method: method.to_owned(),
        };
        let (name, part) = match (of_method, inside.last()) {
            (Some((method, _)), Some((name, kind))) if kind == container::SHARED => {
                (name.clone(), tensor_of(method))
            }
            (Some((method, _)), Some((name, _))) => (beside(&module, name), tensor_of(method)),
            // A parameter of a reparameterization that is none of ours.
            (_, Some(_)) => {
                let own = beside(&module, &field);
                let names = inside.iter().map(|(name, _)| name.as_str());
                (
                    names.fold(own, |path, name| beside(&path, name)),
                    tensor_of(""),
                )
            }
            (_, None) => {
                let methods = Vec::new();
                (beside(&module, &field), Part::Own { field, methods })
            }
        };
        let entry = Entry {
            id: param.id,
            name,
            module,
            part,
            shape,
            is_in_linear,
            is_in_output_head,
            n_experts,
            is_transposed: false,
        };
        self.waiting = Some((entry, Box::new(param.clone())));
    }
}
