//! State of a method that is not trained but follows the training.

use std::collections::{BTreeMap, HashMap};

use burn::module::Module;
use burn::tensor::Tensor;

use super::attached::{Attached, PartOfLayer};
use crate::walk::{Change, rewrite, walk};

/// The tensors of a method on one weight, flat and without autodiff, by their names.
pub type StateTensors = BTreeMap<String, Tensor<1>>;

/// Returns new values of some of the tensors after a step, given the stored weight, `[d_out, d_in]`, and all of them.
pub type AfterStep = fn(&Tensor<2>, &StateTensors) -> Vec<(&'static str, Tensor<1>)>;

/// Advances what methods keep beside their trained parameters; to be called once after each step of
/// the optimizer.
///
/// Of the built-in methods it is sigma-Reparam whose singular vectors follow the weight by one power
/// iteration. Everything else stays as it is, and so do the parameters. The result depends on the
/// model alone.
pub fn after_step<M: Module>(model: M) -> M {
    let mut changes = HashMap::new();
    walk(&model, |entry, param| {
        // A packed weight is frozen, and nothing follows it.
        let attached = param.attached().filter(|_| param.is_there());
        let Some(attached) = attached.filter(|attached| attached.follows()) else {
            return;
        };
        let base = param.values().reshape([entry.shape[0], entry.shape[1]]);
        let base = attached.oriented(base);
        for on_layer in &attached.methods {
            let Some(after_step) = on_layer.after_step else {
                continue;
            };
            let tensors = on_layer.tensors.iter();
            let state = tensors.map(|tensor| (tensor.name.clone(), tensor.param().values()));
            for (name, values) in after_step(&base, &state.collect()) {
                let mut tensors = on_layer.tensors.iter();
                if let Some(tensor) = tensors.find(|tensor| tensor.name == name) {
                    let change = Change {
                        values: Some(values),
                        is_trained: None,
                    };
                    changes.insert(tensor.id(), change);
                }
            }
        }
    });
    rewrite(model, changes)
}

impl Attached {
    /// Whether a method on this weight keeps what follows it.
    fn follows(&self) -> bool {
        let mut methods = self.methods.iter();
        self.part == PartOfLayer::Weight && methods.any(|on_layer| on_layer.after_step.is_some())
    }
}
