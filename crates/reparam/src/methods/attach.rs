//! What all methods do when they are attached.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param, Reparameterization, Reparameterizer};
use burn::tensor::Tensor;

use super::matrix::matrix;
use super::targets::{self, LinearModule, Selection};
use super::{Biases, MethodError};

/// One layer that a method was attached to.
#[derive(Debug, Clone, PartialEq)]
pub struct AttachedModule {
    /// The layer's path.
    pub module: String,
    /// The rank of its low-rank part, for methods that have one.
    pub rank: Option<usize>,
    /// The constant that multiplies its trained part, for methods that have one.
    pub scaling: Option<f64>,
}

/// What attaching a method did.
#[derive(Debug, Clone, PartialEq)]
pub struct AttachReport {
    /// The layers, in the model's order.
    pub modules: Vec<AttachedModule>,
}

/// Which biases are trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TrainedBiases {
    None,
    All,
    /// Those of the layers at these paths.
    Of(Vec<String>),
}

impl From<Biases> for TrainedBiases {
    fn from(biases: Biases) -> Self {
        match biases {
            Biases::None => Self::None,
            Biases::All => Self::All,
        }
    }
}

/// Freezes a model but for biases; `setting` names the choice in the error.
///
/// # Errors
///
/// [`MethodError::NoBias`] when biases are to be trained and there is none.
pub(super) fn freeze<M: Module>(
    model: M,
    biases: TrainedBiases,
    setting: &'static str,
) -> Result<M, MethodError> {
    let is_wanted = biases != TrainedBiases::None;
    let mut freeze = Freeze {
        path: Vec::new(),
        biases,
        n_trained: 0,
    };
    let model = model.map(&mut freeze);
    if is_wanted && freeze.n_trained == 0 {
        return Err(MethodError::NoBias { bias: setting });
    }
    Ok(model)
}

struct Freeze {
    path: Vec<String>,
    biases: TrainedBiases,
    n_trained: usize,
}

impl ModuleMapper for Freeze {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let trained = match self.path.split_last() {
            Some((last, parents)) if last == "bias" => match &self.biases {
                TrainedBiases::None => false,
                TrainedBiases::All => true,
                TrainedBiases::Of(modules) => modules.contains(&parents.join(".")),
            },
            _ => false,
        };
        self.n_trained += usize::from(trained);
        param.set_require_grad(trained)
    }
}

/// How a method starts on one layer.
pub(super) struct Start<R> {
    /// What takes the place of the stored weight and is trained; without autodiff.
    pub(super) base: Tensor<2>,
    /// The rest, without autodiff.
    pub(super) state: R,
    pub(super) scaling: Option<f64>,
}

/// Attaches a method that trains the stored weight, and freezes everything else.
///
/// `start_of` gets each selected layer and its weight, without autodiff.
///
/// # Errors
///
/// Fails when the selection selects nothing, a method is attached already, biases are to be trained
/// and there are none, or as `start_of` does.
pub(super) fn attach_trained<M: Module, R: Reparameterization>(
    model: M,
    kind: &'static str,
    selection: &Selection,
    start_of: impl FnMut(&LinearModule, Tensor<2>) -> Result<Start<R>, MethodError>,
) -> Result<(M, AttachReport), MethodError> {
    let linears = targets::unadapted_modules(&model, kind)?;
    let selected = selection.select(&linears)?;
    if let Some(packed) = selected.iter().find(|linear| linear.is_packed) {
        return Err(MethodError::PackedWeight {
            module: packed.path.clone(),
            method: kind,
        });
    }
    let modules: Vec<AttachedModule> = selected
        .iter()
        .map(|linear| AttachedModule {
            module: linear.path.clone(),
            rank: None,
            scaling: None,
        })
        .collect();
    let model = freeze(model, selection.bias.into(), "all")?;
    let mut outcome = Outcome {
        error: None,
        report: AttachReport { modules },
    };
    let model = model.apply_reparameterization(Attach {
        selected: selected
            .into_iter()
            .enumerate()
            .map(|(idx, linear)| (linear.weight_path(), (idx, linear)))
            .collect(),
        start_of,
        outcome: &mut outcome,
    });
    match outcome.error {
        None => Ok((model, outcome.report)),
        Some(error) => Err(error),
    }
}

struct Outcome {
    error: Option<MethodError>,
    report: AttachReport,
}

struct Attach<'a, F> {
    /// The selected layers by the paths of their weights, with their places in the report.
    selected: HashMap<String, (usize, &'a LinearModule)>,
    start_of: F,
    outcome: &'a mut Outcome,
}

impl<R, F> Reparameterizer for Attach<'_, F>
where
    R: Reparameterization,
    F: FnMut(&LinearModule, Tensor<2>) -> Result<Start<R>, MethodError>,
{
    type Reparam = R;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<R>) {
        let Some((idx, linear)) = self.selected.remove(path) else {
            return (param, None);
        };
        let (id, old, mapper) = param.consume();
        let has_autodiff = old.is_autodiff();
        let shape = old.shape();
        let start = match (self.start_of)(linear, matrix(old.clone().inner())) {
            Ok(start) => start,
            Err(error) => {
                self.outcome.error.get_or_insert(error);
                return (Param::from_mapped_value(id, old, mapper), None);
            }
        };
        self.outcome.report.modules[idx].scaling = start.scaling;
        let base: Tensor<D> = start.base.reshape(shape);
        let (base, state) = if has_autodiff {
            (base.autodiff(), start.state.train())
        } else {
            (base, start.state)
        };
        let base = Param::from_mapped_value(id, base, mapper).set_require_grad(true);
        (base, Some(state))
    }
}
