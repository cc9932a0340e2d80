//! A module's trainable parameters as a list of named, flat tensors.
//!
//! Burn's modules hold parameters of different ranks in a tree of types. An update does not care:
//! it sees a [`ParameterList`], in the order of the module's traversal, and the same names appear
//! in gradients, optimizer states and adapter files.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Gradients, Tensor};

use crate::methods;

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
    Collect::of(module, Kind::Trainable, None).list
}

/// Returns the values of all that a run changes: the parameters that require a gradient, and what
/// methods keep beside them, such as the singular vectors of sigma-Reparam.
///
/// With the base model and the methods' settings, that is the model.
pub fn state<M: Module>(module: &M) -> ParameterList {
    Collect::of(module, Kind::State, None).list
}

/// Takes the gradients of the trainable parameters out of a backward pass's result.
///
/// A parameter the loss does not depend on gets a gradient of zeros, so that the list always has
/// the order and length of [`trainable`].
pub fn take_gradients<M: Module>(module: &M, gradients: &mut Gradients) -> ParameterList {
    Collect::of(module, Kind::Trainable, Some(gradients)).list
}

/// Replaces the values of the trainable parameters.
///
/// # Panics
///
/// Panics when the list is not in the order of [`trainable`]: the two come from the same module.
pub fn assign<M: Module>(module: M, values: ParameterList) -> M {
    let ids = Collect::of(&module, Kind::Trainable, None).ids;
    assign_to(module, ids, values)
}

/// Replaces the values that [`state`] returns.
///
/// # Panics
///
/// Panics when the list is not in the order of [`state`]: the two come from the same module.
pub fn assign_state<M: Module>(module: M, values: ParameterList) -> M {
    let ids = Collect::of(&module, Kind::State, None).ids;
    assign_to(module, ids, values)
}

fn assign_to<M: Module>(module: M, ids: Vec<ParamId>, values: ParameterList) -> M {
    assert_eq!(ids.len(), values.len(), "one value a parameter");
    let mut assign = Assign {
        values: ids.into_iter().zip(values).collect(),
    };
    module.map(&mut assign)
}

/// Returns all tensors of a module as a checkpoint has them: methods are folded into the weights they
/// transform, names are paths.
///
/// # Cost
///
/// The folded weights, until the list is dropped.
pub fn effective<M: Module>(module: &M) -> ParameterList {
    #[derive(Default)]
    struct All {
        path: Vec<String>,
        list: ParameterList,
    }
    impl ModuleVisitor for All {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            self.list.push(NamedTensor {
                name: self.path.join("."),
                shape: tensor.dims().to_vec(),
                values: flatten(tensor),
            });
        }
    }
    let mut all = All::default();
    module.clone().materialize().visit(&mut all);
    all.list
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

/// Which parameters are collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Trainable,
    State,
}

struct Collect<'a> {
    kind: Kind,
    path: Vec<String>,
    /// How many of the names of the path are inside of a method, its own included.
    n_inside: usize,
    gradients: Option<&'a mut Gradients>,
    list: ParameterList,
    ids: Vec<ParamId>,
}

impl<'a> Collect<'a> {
    fn of<M: Module>(module: &M, kind: Kind, gradients: Option<&'a mut Gradients>) -> Self {
        let mut collect = Self {
            kind,
            path: Vec::new(),
            n_inside: 0,
            gradients,
            list: Vec::new(),
            ids: Vec::new(),
        };
        module.visit(&mut collect);
        collect
    }

    /// Names the weight that was just collected as the method on it calls it.
    fn rename_base(&mut self, method: &str) {
        let path = self.path.join(".");
        if let Some(last) = self.list.last_mut()
            && last.name == path
            && let Some(name) = methods::base_name(&path, method)
        {
            last.name = name;
        }
    }
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        if container_type == methods::REPARAMETERIZATION {
            self.rename_base(name);
        }
        if container_type == methods::REPARAMETERIZATION || self.n_inside > 0 {
            self.n_inside += 1;
        }
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.n_inside = self.n_inside.saturating_sub(1);
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.base();
        let is_kept = self.kind == Kind::State && self.n_inside > 0;
        if !(tensor.is_require_grad() || is_kept) {
            return;
        }
        let shape = tensor.dims().to_vec();
        let values = match &mut self.gradients {
            None => tensor.inner(),
            Some(gradients) => tensor
                .grad_remove(gradients)
                .unwrap_or_else(|| tensor.inner().zeros_like()),
        };
        self.ids.push(param.id);
        self.list.push(NamedTensor {
            name: methods::parameter_name(&self.path.join(".")),
            shape,
            values: flatten(values),
        });
    }
}

struct Assign {
    values: HashMap<ParamId, NamedTensor>,
}

impl ModuleMapper for Assign {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(new) = self.values.remove(&param.id) else {
            return param;
        };
        param.map(|old| {
            let new: Tensor<D> = new.values.reshape(old.shape());
            let new = if old.is_autodiff() {
                new.autodiff()
            } else {
                new
            };
            new.set_require_grad(old.is_require_grad())
        })
    }
}
