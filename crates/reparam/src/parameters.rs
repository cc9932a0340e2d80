//! A module's trainable parameters as a list of named, flat tensors.
//!
//! Burn's modules hold parameters of different ranks in a tree of types. An update does not care:
//! it sees a [`ParameterList`], in the order of the module's traversal, and the same names appear
//! in gradients, optimizer states and adapter files.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Gradients, Tensor};

use crate::phi;

/// One named tensor, flattened.
#[derive(Debug, Clone)]
pub struct NamedTensor {
    /// The dotted name, in the terms of the checkpoint and of PEFT, for example
    /// `model.layers.0.self_attn.q_proj.lora_A.weight`.
    pub name: String,
    /// The shape before flattening.
    pub shape: Vec<usize>,
    /// The values in row-major order.
    pub values: Tensor<1>,
}

impl NamedTensor {
    /// Replaces the values, keeping name and shape.
    pub fn with_values(self, values: Tensor<1>) -> Self {
        Self { values, ..self }
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns whether the tensor has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Named tensors in a fixed order.
pub type ParameterList = Vec<NamedTensor>;

/// Returns the values of the parameters that require a gradient.
pub fn trainable<M: Module>(module: &M) -> ParameterList {
    let mut collect = Collect {
        path: Vec::new(),
        gradients: None,
        list: Vec::new(),
    };
    module.visit(&mut collect);
    collect.list
}

/// Takes the gradients of the trainable parameters out of a backward pass's result.
///
/// A parameter the loss does not depend on gets a gradient of zeros, so that the list always has
/// the order and length of [`trainable`].
pub fn take_gradients<M: Module>(module: &M, gradients: &mut Gradients) -> ParameterList {
    let mut collect = Collect {
        path: Vec::new(),
        gradients: Some(gradients),
        list: Vec::new(),
    };
    module.visit(&mut collect);
    collect.list
}

/// Replaces the values of the trainable parameters.
///
/// # Panics
///
/// Panics when the list is not in the order of [`trainable`]: the two come from the same module.
pub fn assign<M: Module>(module: M, values: ParameterList) -> M {
    let ids = trainable_ids(&module);
    assert_eq!(ids.len(), values.len(), "one value a trainable parameter");
    let mut assign = Assign {
        values: ids.into_iter().zip(values).collect(),
    };
    module.map(&mut assign)
}

/// Counts the elements of the trainable parameters and of all of them.
pub fn count<M: Module>(module: &M) -> ParameterCount {
    let trainable = trainable(module).iter().map(NamedTensor::len).sum();
    ParameterCount {
        trainable,
        total: module.num_params(),
    }
}

/// How many numbers a module holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterCount {
    /// Those an update moves.
    pub trainable: usize,
    /// All of them, the trainable ones included.
    pub total: usize,
}

/// Returns a flat view of a tensor.
pub(crate) fn flatten<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let len = tensor.dims().iter().product::<usize>();
    tensor.reshape([len])
}

struct Collect<'a> {
    path: Vec<String>,
    gradients: Option<&'a mut Gradients>,
    list: ParameterList,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.base();
        if !tensor.is_require_grad() {
            return;
        }
        let shape = tensor.dims().to_vec();
        let values = match &mut self.gradients {
            None => tensor.inner(),
            Some(gradients) => tensor
                .grad_remove(gradients)
                .unwrap_or_else(|| tensor.inner().zeros_like()),
        };
        self.list.push(NamedTensor {
            name: phi::parameter_name(&self.path.join(".")),
            shape,
            values: flatten(values),
        });
    }
}

fn trainable_ids<M: Module>(module: &M) -> Vec<ParamId> {
    struct Ids(Vec<ParamId>);
    impl ModuleVisitor for Ids {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.base().is_require_grad() {
                self.0.push(param.id);
            }
        }
    }
    let mut ids = Ids(Vec::new());
    module.visit(&mut ids);
    ids.0
}

struct Assign {
    values: HashMap<ParamId, NamedTensor>,
}

impl ModuleMapper for Assign {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, old, mapper) = param.consume();
        let tensor = match self.values.remove(&id) {
            Some(new) => Tensor::from_inner(new.values.reshape(old.shape())).require_grad(),
            None => old,
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}
