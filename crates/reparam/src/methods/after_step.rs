//! State of a method that is not trained but follows the training.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

use super::matrix::matrix;
use super::names;
use super::targets::REPARAMETERIZATION;
use crate::parameters::flatten;

/// The tensors of a method on one weight, flat and without autodiff, by their paths inside it.
pub(super) type StateTensors = BTreeMap<String, Tensor<1>>;
/// New values of some of them.
pub(super) type StateUpdates = Vec<(&'static str, Tensor<1>)>;
/// Returns the new state after a step, given the stored weight and the state.
pub(super) type AfterStep = fn(&Tensor<2>, &StateTensors) -> StateUpdates;

/// Advances what methods keep beside their trained parameters; to be called once after each step of
/// the optimizer.
///
/// Of the methods here it is sigma-Reparam whose singular vectors follow the weight by one power
/// iteration. Everything else stays as it is, and so do the parameters. The result depends on the
/// model alone.
pub fn after_step<M: Module>(model: M) -> M {
    let mut compute = Compute::default();
    model.visit(&mut compute);
    if compute.new.is_empty() {
        return model;
    }
    model.map(&mut Replace { new: compute.new })
}

/// Computes the new values; no parameter can be changed while others are looked at.
#[derive(Default)]
struct Compute {
    /// The last weight that was visited.
    base: Option<Tensor<2>>,
    /// The method whose state is being visited.
    current: Option<Current>,
    new: HashMap<ParamId, Tensor<1>>,
}

struct Current {
    after_step: AfterStep,
    /// How many names lie between the method and here.
    path: Vec<String>,
    tensors: StateTensors,
    ids: BTreeMap<String, ParamId>,
}

impl ModuleVisitor for Compute {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        if let Some(current) = &mut self.current {
            current.path.push(name.to_owned());
        } else if container_type == REPARAMETERIZATION {
            let method = names::find(name);
            self.current = method
                .and_then(|method| method.after_step)
                .map(|after| Current {
                    after_step: after,
                    path: Vec::new(),
                    tensors: StateTensors::new(),
                    ids: BTreeMap::new(),
                });
        }
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        let Some(current) = &mut self.current else {
            return;
        };
        if current.path.pop().is_some() {
            return;
        }
        if let (Some(current), Some(base)) = (self.current.take(), &self.base) {
            let updates = (current.after_step)(base, &current.tensors);
            self.new
                .extend(updates.into_iter().filter_map(|(path, tensor)| {
                    let id = current.ids.get(path)?;
                    Some((*id, tensor))
                }));
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        match &mut self.current {
            Some(current) => {
                let path = current.path.join(".");
                let tensor = flatten(param.base().inner());
                current.tensors.insert(path.clone(), tensor);
                current.ids.insert(path, param.id);
            }
            None if D == 2 => self.base = Some(matrix(param.base().inner())),
            None => self.base = None,
        }
    }
}

struct Replace {
    new: HashMap<ParamId, Tensor<1>>,
}

impl ModuleMapper for Replace {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(new) = self.new.remove(&param.id) else {
            return param;
        };
        param.map(|old| {
            let new: Tensor<D> = new.reshape(old.shape());
            let new = if old.is_autodiff() {
                new.autodiff()
            } else {
                new
            };
            new.set_require_grad(old.is_require_grad())
        })
    }
}
