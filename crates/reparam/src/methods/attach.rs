//! Attaching methods to a model.

use std::collections::HashMap;

use burn::module::{Module, Param, ParamId, Reparameterizer};
use burn::tensor::{DType, GradientCheckpointingStrategy, Tensor};
use reparam_ops::fused::{PackedDType, PackedWeight};

use super::attached::{Attached, NamedParam, OnLayer, PartOfLayer};
use super::method::{Base, Layer, MethodConfig, Place, Start};
use super::target_parameters::select_parameters;
use super::targets::{LinearModule, all_modules};
use super::{Biases, MethodError, Result, WeightLayout};
use crate::ForwardContext;
use crate::walk::{Change, entries, on_graph, rewrite};

/// One layer that a method was attached to.
#[derive(Debug, Clone, PartialEq)]
pub struct AttachedModule {
    /// The layer's path.
    pub module: String,
    /// The rank of its low-rank part, for methods that have one.
    pub rank: Option<usize>,
    /// The constant that multiplies its trained part, for methods that have one.
    pub scaling: Option<f64>,
    /// Whether it is no linear layer but a parameter with weights of experts, by the parameter's path.
    pub is_parameter: bool,
}

/// What attaching a method did.
#[derive(Debug, Clone, PartialEq)]
pub struct AttachReport {
    /// The layers, in the model's order.
    pub modules: Vec<AttachedModule>,
}

/// Attaches a method to a model's selected linear layers and freezes all that it does not train.
///
/// Random initial values come from `seed` and the tensors' names.
///
/// # Errors
///
/// Fails when a setting is out of range, nothing is selected, a layer does not suit, the model carries a method
/// already, or biases are to be trained and there are none.
pub fn attach<M: Module>(
    model: M,
    method: &dyn MethodConfig,
    seed: u64,
) -> Result<(M, AttachReport)> {
    attach_all(model, &[method], seed)
}

/// Attaches several methods, each to what those before it return: `W = m_n(.. m_1(W0))`.
///
/// The first is attached to the layers that it selects, every other to those that it selects among them. The
/// report is that of the last.
///
/// # Errors
///
/// As [`attach`], and when a method cannot be put over another, or stands under one and drops out inputs.
pub fn attach_all<M: Module>(
    model: M,
    methods: &[&dyn MethodConfig],
    seed: u64,
) -> Result<(M, AttachReport)> {
    let (linears, mut parameters) = all_modules(&model);
    let kinds: Vec<&'static str> = methods.iter().map(|method| method.spec().kind).collect();
    let attached = linears
        .iter()
        .chain(&parameters)
        .find_map(|linear| Some((linear, linear.methods.first()?)));
    if let Some((linear, attached)) = attached {
        let kind = kinds.first().copied().unwrap_or_default();
        return Err(MethodError::already_attached(linear, attached, kind));
    }
    match methods {
        [method] => parameters = select_parameters(*method, parameters)?,
        methods => {
            let mut all = methods.iter();
            if let Some(method) = all.find(|of| !of.selection().target_parameters.is_empty()) {
                return Err(MethodError::ParametersBeside {
                    method: method.spec().kind,
                });
            }
            parameters.clear();
        }
    }
    let mut candidates: Vec<&LinearModule> = linears.iter().collect();
    let mut selected: Vec<Vec<&LinearModule>> = Vec::new();
    for (position, method) in methods.iter().enumerate() {
        let spec = method.spec();
        let below = &kinds[..position];
        if below.contains(&spec.kind) || (position > 0 && !spec.goes_over_others) {
            return Err(MethodError::already_attached(
                candidates[0],
                kinds[position - 1],
                spec.kind,
            ));
        }
        let mut own = method.selection().select(&candidates)?;
        own.extend(&parameters);
        let is_alone = methods.len() == 1;
        if let Some(packed) = own.iter().find(|linear| linear.is_packed)
            && !(spec.runs_packed && is_alone)
        {
            return Err(MethodError::PackedWeight {
                module: packed.path.clone(),
                method: spec.kind,
            });
        }
        method.check(&own)?;
        candidates = own.clone();
        selected.push(own);
    }
    let model = freeze(model, methods, selected.first().map_or(&[], Vec::as_slice))?;
    let mut attach = Attach {
        methods,
        selected: &selected,
        linears: linears
            .iter()
            .chain(&parameters)
            .map(|linear| (linear.weight_id, linear))
            .collect(),
        shared: vec![None; methods.len()],
        biases: HashMap::new(),
        report: Vec::new(),
        seed,
        error: None,
    };
    let model = model.apply_reparameterization(&mut attach);
    let missed = attach.biases.into_values().next();
    let missed = missed.map(|(linear, bias)| MethodError::BiasFirst {
        module: linear.path.clone(),
        method: bias.methods.last().map_or("", |on_layer| on_layer.kind),
    });
    match attach.error.or(missed) {
        None => Ok((
            model,
            AttachReport {
                modules: attach.report,
            },
        )),
        Some(error) => Err(error),
    }
}

/// Returns what [`attach`] would make at least, see [`MethodConfig::least_numbers`].
///
/// # Errors
///
/// As [`attach`].
pub fn least_numbers<M: Module>(
    model: &M,
    method: &dyn MethodConfig,
) -> Result<Option<(&'static str, u128)>> {
    let (linears, parameters) = all_modules(model);
    let parameters = select_parameters(method, parameters)?;
    let candidates: Vec<&LinearModule> = linears.iter().collect();
    let mut selected = method.selection().select(&candidates)?;
    selected.extend(&parameters);
    method.check(&selected)?;
    method.least_numbers(&selected)
}

/// Freezes a model but for the biases that are to be trained, and for all that a method trains which trains everything.
fn freeze<M: Module>(
    model: M,
    methods: &[&dyn MethodConfig],
    targets: &[&LinearModule],
) -> Result<M> {
    let wanted: Vec<Biases> = methods
        .iter()
        .map(|method| method.selection().bias)
        .collect();
    let is_trained = |module: &str| {
        wanted.iter().any(|biases| match biases {
            Biases::None => false,
            Biases::All => true,
            Biases::Targets => targets.iter().any(|target| target.path == module),
        })
    };
    let mut n_trained = 0;
    let mut changes: HashMap<ParamId, Change> = HashMap::new();
    let entries = entries(&model);
    for method in methods {
        method.selection().check_whole(&entries)?;
    }
    for entry in entries {
        let is_bias = entry.part.is_field("bias") && is_trained(&entry.module);
        n_trained += usize::from(is_bias);
        let mut is_trained = is_bias;
        for method in methods {
            let selection = method.selection();
            is_trained |= selection.whole && !selection.leaves_out(&entry.module)?;
        }
        let change = Change {
            values: None,
            is_trained: Some(is_trained),
        };
        changes.insert(entry.id, change);
    }
    let asked = wanted.iter().find(|biases| **biases != Biases::None);
    match asked {
        Some(biases) if n_trained == 0 => Err(MethodError::NoBias {
            bias: biases.name(),
        }),
        _ => Ok(rewrite(model, changes)),
    }
}

struct Attach<'a> {
    methods: &'a [&'a dyn MethodConfig],
    /// The layers of each method.
    selected: &'a [Vec<&'a LinearModule>],
    linears: HashMap<ParamId, &'a LinearModule>,
    /// The tensors that the layers of a method share, once they are made.
    shared: Vec<Option<Vec<NamedParam>>>,
    /// What is to be attached to the biases that come after their weights.
    biases: HashMap<ParamId, (&'a LinearModule, Attached)>,
    report: Vec<AttachedModule>,
    seed: u64,
    error: Option<MethodError>,
}

impl Reparameterizer for &mut Attach<'_> {
    type Reparam = Attached;

    fn reparameterize<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Attached>) {
        if let Some((_, bias)) = self.biases.remove(&param.id) {
            return (param, Some(bias));
        }
        let Some(&linear) = self.linears.get(&param.id) else {
            return (param, None);
        };
        if self.error.is_some() {
            return (param, None);
        }
        match self.attach(linear, param.clone()) {
            Ok(None) => (param, None),
            Ok(Some((param, attached))) => (param, Some(attached)),
            Err(error) => {
                self.error = Some(error);
                (param, None)
            }
        }
    }
}

impl<'a> Attach<'a> {
    fn attach<const D: usize>(
        &mut self,
        linear: &'a LinearModule,
        param: Param<Tensor<D>>,
    ) -> Result<Option<(Param<Tensor<D>>, Attached)>> {
        let layout = self.methods[0].selection().weight_layout;
        let mut attached = Attached {
            part: PartOfLayer::Weight,
            is_transposed: layout == WeightLayout::InOut,
            base_name: None,
            methods: Vec::new(),
        };
        let (d_out, d_in) = linear.dims(layout);
        let is_packed = !param.is_initialized();
        let device = param.lazy_device();
        let strategy = device.gradient_checkpointing_strategy();
        let device = device.inner();
        let mut trained_base: Option<Tensor<2>> = None;
        let mut acts_on_bias = false;
        for (position, method) in self.methods.iter().enumerate() {
            let spec = method.spec();
            if method.selection().weight_layout != layout {
                return Err(MethodError::Setting {
                    setting: "weight_layout",
                    expected: "the same for all methods on a model",
                    found: format!("{:?}", method.selection().weight_layout),
                });
            }
            if !self.selected[position]
                .iter()
                .any(|own| own.path == linear.path)
            {
                continue;
            }
            if let Some(below) = attached.methods.iter().find(|on| on.method.has_dropout()) {
                return Err(MethodError::DropoutBelow {
                    method: below.kind,
                    above: spec.kind,
                });
            }
            let dtype = if is_packed {
                DType::F32
            } else {
                param.base().dtype()
            };
            // Asked for by methods that start from the numbers, which decodes a packed weight.
            let base = || {
                let stored = match &trained_base {
                    None => attached.oriented(matrix(param.base())),
                    Some(base) => on_graph(base.clone(), strategy),
                };
                attached.effective(stored).inner()
            };
            let place = Place {
                device: &device,
                dtype,
                seed: self.seed,
            };
            let shared = self.shared(position, &place, strategy)?;
            let start = method.start(&Layer {
                module: linear,
                d_out,
                d_in,
                place,
                base: &base,
            })?;
            let Start {
                method,
                base,
                tensors,
                acts_on_bias: on_bias,
                rank,
                scaling,
            } = start;
            if attached.methods.is_empty() {
                attached.base_name = spec.base_name;
                trained_base = base;
            }
            acts_on_bias |= on_bias;
            let tensors = tensors
                .into_iter()
                .map(|tensor| NamedParam::new(tensor, false, strategy));
            let on_layer = OnLayer {
                kind: spec.kind,
                method,
                tensors: tensors.chain(shared).collect(),
            };
            if is_packed && !self.has_plan(&on_layer, linear) {
                return Err(MethodError::PackedWeight {
                    module: linear.path.clone(),
                    method: spec.kind,
                });
            }
            attached.methods.push(on_layer);
            if position + 1 == self.methods.len() {
                self.report.push(AttachedModule {
                    module: linear.path.clone(),
                    rank,
                    scaling,
                    is_parameter: linear.parameter.is_some(),
                });
            }
        }
        if attached.methods.is_empty() {
            return Ok(None);
        }
        if let (true, Some(bias)) = (acts_on_bias, linear.bias_id) {
            let on_bias = Attached {
                part: PartOfLayer::Bias,
                base_name: None,
                ..attached.clone()
            };
            self.biases.insert(bias, (linear, on_bias));
        }
        let param = match trained_base {
            None => param,
            Some(base) => {
                let base = attached.oriented(base);
                let (id, old, mapper) = param.consume();
                let base: Tensor<D> = base.reshape(old.shape());
                let base = on_graph(base, strategy);
                Param::from_mapped_value(id, base, mapper).set_require_grad(true)
            }
        };
        Ok(Some((param, attached)))
    }

    /// Whether a method that says so of itself has a plan over packed weights. It is asked on the smallest layer, over zeros.
    fn has_plan(&self, on_layer: &OnLayer, linear: &LinearModule) -> bool {
        // Of experts one: all have the same factors.
        let shape = |linear: &LinearModule| {
            let [rows, d_in] = linear.shape;
            let n_experts = linear.parameter.as_ref().map_or(1, |of| of.n_experts);
            [rows / n_experts, d_in]
        };
        let size = |linear: &LinearModule| shape(linear).iter().product::<usize>();
        let packed = self.selected[0].iter().filter(|own| own.is_packed);
        let smallest = packed.min_by_key(|own| size(own));
        if smallest.is_some_and(|own| own.path != linear.path) {
            return true;
        }
        let zeros =
            PackedWeight::pack(&[shape(linear)], PackedDType::Bf16, |_, _, to| to.fill(0.0));
        let context = ForwardContext::inference();
        let method = &on_layer.method;
        zeros.iter().all(|weight| {
            let base = Base::Packed(weight);
            method.plan(&base, &on_layer.theta(), &context).is_some()
        })
    }

    /// The tensors that all layers of a method share; each layer gets the same parameters.
    fn shared(
        &mut self,
        position: usize,
        place: &Place<'_>,
        strategy: Option<GradientCheckpointingStrategy>,
    ) -> Result<Vec<NamedParam>> {
        if self.shared[position].is_none() {
            let made = self.methods[position].shared(&self.selected[position], place)?;
            let made = made
                .into_iter()
                .map(|tensor| NamedParam::new(tensor, true, strategy));
            self.shared[position] = Some(made.collect());
        }
        Ok(self.shared[position].clone().unwrap_or_default())
    }
}

/// Returns a two-dimensional tensor under its own type.
fn matrix<const D: usize>(tensor: Tensor<D>) -> Tensor<2> {
    let dims = tensor.dims();
    assert_eq!(D, 2, "a method is attached to matrices");
    tensor.reshape([dims[0], dims[1]])
}
