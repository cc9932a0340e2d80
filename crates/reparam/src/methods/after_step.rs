//! State of a method that is not trained but follows the training.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ParamId};
use burn::tensor::Tensor;

use super::Methods;
use crate::walk::{Change, Part, rewrite, walk};

/// The tensors of a method on one weight, flat and without autodiff, by their names.
pub type StateTensors = BTreeMap<String, Tensor<1>>;

/// Returns new values of some of the tensors after a step, given the stored weight, `[d_out, d_in]`, and all of them.
pub type AfterStep = fn(&Tensor<2>, &StateTensors) -> Vec<(&'static str, Tensor<1>)>;

impl Methods {
    /// Advances what methods keep beside their trained parameters; to be called once after each step of
    /// the optimizer.
    ///
    /// Of the built-in methods it is sigma-Reparam whose singular vectors follow the weight by one power
    /// iteration. Everything else stays as it is, and so do the parameters. The result depends on the
    /// model alone.
    pub fn after_step<M: Module>(&self, model: M) -> M {
        if self.iter().all(|spec| spec.after_step.is_none()) {
            return model;
        }
        let mut following = Following {
            methods: self,
            base: None,
            current: None,
            changes: HashMap::new(),
        };
        walk(&model, |entry, param| match &entry.part {
            Part::Own { methods, .. } => {
                following.finish();
                let follows = |kind: &String| following.after_step(kind).is_some();
                // A packed weight is frozen, and nothing follows it.
                let is_wanted = entry.shape.len() == 2 && methods.iter().any(follows);
                following.base = is_wanted.then(|| {
                    let base = param.values().reshape([entry.shape[0], entry.shape[1]]);
                    if entry.is_transposed {
                        base.transpose()
                    } else {
                        base
                    }
                });
            }
            Part::Tensor { method } if following.base.is_some() => {
                following.see(method, &entry.name, entry.id, param.values());
            }
            Part::Tensor { .. } => {}
        });
        following.finish();
        let changes = following.changes;
        rewrite(model, changes)
    }
}

struct Following<'a> {
    methods: &'a Methods,
    /// The last weight, if something follows it.
    base: Option<Tensor<2>>,
    /// The method on it that does, its tensors and their ids.
    current: Option<(AfterStep, StateTensors, HashMap<String, ParamId>)>,
    changes: HashMap<ParamId, Change>,
}

impl Following<'_> {
    fn after_step(&self, kind: &str) -> Option<AfterStep> {
        self.methods.get(kind)?.after_step
    }

    fn see(&mut self, method: &str, name: &str, id: ParamId, values: Tensor<1>) {
        let Some(after_step) = self.after_step(method) else {
            return;
        };
        let (_, tensors, ids) = self
            .current
            .get_or_insert_with(|| (after_step, StateTensors::new(), HashMap::new()));
        // The name beside the layer.
        let own = name.rsplit('.').next().unwrap_or(name).to_owned();
        ids.insert(own.clone(), id);
        tensors.insert(own, values);
    }

    fn finish(&mut self) {
        let (Some((after_step, tensors, ids)), Some(base)) =
            (self.current.take(), self.base.take())
        else {
            return;
        };
        for (name, values) in after_step(&base, &tensors) {
            if let Some(id) = ids.get(name) {
                self.changes.insert(*id, Change::of_values(values));
            }
        }
    }
}
