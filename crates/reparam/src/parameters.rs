//! A module's trainable parameters as a list of named, flat tensors.
//!
//! Burn's modules hold parameters of different ranks in a tree of types. An update does not care:
//! it sees a [`ParameterList`], in the order of the module's traversal, and the same names appear
//! in gradients, optimizer states and adapter files. A parameter that several layers share is in the list
//! once, its gradient is the sum over all of them, and a new value reaches them all.

use std::collections::{HashMap, HashSet};

use burn::module::{Module, ParamId};
use burn::tensor::{Gradients, Tensor};

pub(crate) use crate::walk::flatten;
use crate::walk::{AnyParam, Change, Entry, entries, rewrite, walk};

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
    collect(module, |_, param| param.is_trained()).list
}

/// Returns the values of all that a run changes: the parameters that require a gradient, and what
/// methods keep beside them, such as the singular vectors of sigma-Reparam.
///
/// With the base model and the methods' settings, that is the model.
pub fn state<M: Module>(module: &M) -> ParameterList {
    collect(module, is_state).list
}

fn is_state(entry: &Entry, param: &dyn AnyParam) -> bool {
    param.is_trained() || entry.part.is_tensor()
}

/// Takes the gradients of the trainable parameters out of a backward pass's result.
///
/// A parameter the loss does not depend on gets a gradient of zeros, so that the list always has
/// the order and length of [`trainable`].
pub fn take_gradients<M: Module>(module: &M, gradients: &mut Gradients) -> ParameterList {
    let mut list = ParameterList::new();
    let mut places: HashMap<ParamId, usize> = HashMap::new();
    walk(module, |entry, param| {
        if !param.is_trained() {
            return;
        }
        let gradient = param.take_gradient(gradients);
        match places.get(&entry.id) {
            None => {
                places.insert(entry.id, list.len());
                let values = gradient.unwrap_or_else(|| param.values().zeros_like());
                list.push(named(entry, values));
            }
            Some(place) => {
                if let Some(gradient) = gradient {
                    let sum = &mut list[*place].values;
                    *sum = sum.clone() + gradient;
                }
            }
        }
    });
    list
}

/// Replaces the values of the trainable parameters.
///
/// # Panics
///
/// Panics when the list is not in the order of [`trainable`]: the two come from the same module.
pub fn assign<M: Module>(module: M, values: ParameterList) -> M {
    let ids = collect(&module, |_, param| param.is_trained()).ids;
    assign_to(module, ids, values)
}

/// Replaces the values that [`state`] returns.
///
/// # Panics
///
/// Panics when the list is not in the order of [`state`]: the two come from the same module.
pub fn assign_state<M: Module>(module: M, values: ParameterList) -> M {
    let ids = collect(&module, is_state).ids;
    assign_to(module, ids, values)
}

fn assign_to<M: Module>(module: M, ids: Vec<ParamId>, values: ParameterList) -> M {
    assert_eq!(ids.len(), values.len(), "one value a parameter");
    let changes = values
        .into_iter()
        .map(|value| Change::of_values(value.values));
    rewrite(module, ids.into_iter().zip(changes).collect())
}

/// Returns all tensors of a module as a checkpoint has them: methods are folded into the weights they
/// transform, names are paths.
///
/// # Cost
///
/// The folded weights, and packed ones decoded to `f32`, until the list is dropped.
pub fn effective<M: Module>(module: &M) -> ParameterList {
    collect(&module.clone().materialize(), |_, _| true).list
}

/// Counts the elements of the trainable parameters and of all of them.
pub fn count<M: Module>(module: &M) -> ParameterCount {
    let trainable = trainable(module).iter().map(NamedTensor::len).sum();
    let sizes = entries(module).into_iter();
    ParameterCount {
        trainable,
        total: sizes
            .map(|entry| entry.shape.iter().product::<usize>())
            .sum(),
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

/// Parameters, each once, with their ids.
#[derive(Default)]
struct Collected {
    list: ParameterList,
    ids: Vec<ParamId>,
}

fn collect<M: Module>(module: &M, is_wanted: impl Fn(&Entry, &dyn AnyParam) -> bool) -> Collected {
    let mut collected = Collected::default();
    let mut seen = HashSet::new();
    walk(module, |entry, param| {
        if is_wanted(entry, param) && seen.insert(entry.id) {
            collected.ids.push(entry.id);
            collected.list.push(named(entry, param.values()));
        }
    });
    collected
}

fn named(entry: &Entry, values: Tensor<1>) -> NamedTensor {
    NamedTensor {
        name: entry.name.clone(),
        shape: entry.shape.clone(),
        values,
    }
}
