//! What an adapter makes of the weights of its base, in f64 and a layer at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use burn::module::ParamId;
use burn::tensor::{DType, Device, Tensor, TensorData};
use reparam_formats::peft::{self, AdapterFiles, TargetModules};

use super::attached::{NamedParam, Theta};
use super::target_parameters::select_parameters;
use super::{
    ExpertParameter, Layer, LinearModule, Method, MethodConfig, MethodError, Methods, NewTensor,
    Place, Result, WeightLayout,
};
use crate::walk::beside;

/// How the name of a bias ends in an adapter whose module is adapted.
const BASE_BIAS: &str = ".base_layer.bias";

/// An adapter whose effective weights are formed from those of its base, one after another, without a model.
///
/// # Numerics
///
/// All sums are those of f64; nothing is rounded to a smaller type.
#[derive(Debug)]
pub struct Merge {
    config: Arc<dyn MethodConfig>,
    files: AdapterFiles,
    modules: BTreeMap<String, LinearModule>,
    /// The parameters with weights of experts, by their paths.
    parameters: BTreeMap<String, Experts>,
    /// Tensors that the layers share.
    shared: Vec<NewTensor>,
    device: Device,
}

/// The factors of experts, in PEFT's order.
#[derive(Debug)]
struct Experts {
    n_experts: usize,
    /// `[E d_out, d_in]`
    shape: [usize; 2],
    rank: usize,
    scaling: f64,
    /// What the adapter calls `A` and `B`.
    names: [String; 2],
}

/// A method on one layer, with the values of the adapter.
struct OnModule {
    method: Arc<dyn Method>,
    acts_on_bias: bool,
    tensors: Vec<NamedParam>,
}

impl Methods {
    /// Prepares an adapter for being merged; `shape` returns the `[d_out, d_in]` of a linear layer of the base, and `parameters` are those
    /// with weights of experts in the model's order: path, number of experts, and `[E d_out, d_in]`.
    ///
    /// # Errors
    ///
    /// As [`attach_adapter`](Self::attach_adapter).
    pub fn merge(
        &self,
        files: AdapterFiles,
        shape: impl Fn(&str) -> Option<[usize; 2]>,
        parameters: Vec<(String, usize, [usize; 2])>,
    ) -> Result<Merge> {
        let (_, format) = self.of_adapter(&files)?;
        let config = (format.read)(&files)?;
        let paths = match &config.selection().target_modules {
            TargetModules::Names(names) => names.clone(),
            _ => Vec::new(),
        };
        let mut modules = BTreeMap::new();
        let mut unknown = Vec::new();
        for path in paths {
            let Some(shape) = shape(&path) else {
                unknown.push(path);
                continue;
            };
            let module = LinearModule {
                path: path.clone(),
                shape,
                methods: Vec::new(),
                is_packed: false,
                is_output_head: false,
                parameter: None,
                weight_id: ParamId::new(),
                bias_id: None,
            };
            modules.insert(path, module);
        }
        let parameters = parameters
            .into_iter()
            .map(|(path, n_experts, shape)| LinearModule {
                path,
                shape,
                methods: Vec::new(),
                is_packed: false,
                is_output_head: false,
                parameter: Some(ExpertParameter {
                    n_experts,
                    wrapped: 0,
                }),
                weight_id: ParamId::new(),
                bias_id: None,
            });
        let parameters = select_parameters(&*config, parameters.collect())?;
        mismatch("the model has no such linear layers", unknown)?;
        let layout = WeightLayout::OutIn;
        let selection = config.selection().clone().with_weight_layout(layout);
        let config = config.with_selection(selection);
        let device = Device::flex();
        let layers: Vec<&LinearModule> = modules.values().chain(&parameters).collect();
        config.check(&layers)?;
        let place = place(&device);
        let shared = config.shared(&layers, &place)?;
        let mut merge = Merge {
            shared: Vec::new(),
            config,
            files,
            modules,
            parameters: BTreeMap::new(),
            device,
        };
        for parameter in &parameters {
            let experts = merge.experts(parameter)?;
            merge.parameters.insert(parameter.path.clone(), experts);
        }
        let shared = shared.into_iter().map(|tensor| merge.filled(tensor, ""));
        merge.shared = shared.collect::<Result<_>>()?;
        merge.check_names()?;
        Ok(merge)
    }
}

impl Merge {
    /// Iterates over the adapted layers.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }

    /// Returns whether a parameter with weights of experts is adapted.
    pub fn adapts_parameter(&self, path: &str) -> bool {
        self.parameters.contains_key(path)
    }

    /// Adds to rows of such a parameter, from `first` on, what its factors make of them: `base += s B_e A_e`, of each row's expert.
    ///
    /// # Errors
    ///
    /// Fails when the rows are none of the parameter's.
    pub fn add_to_rows(&self, path: &str, first: usize, base: &mut [f64]) -> Result<()> {
        let problem = || MethodError::AdapterMismatch {
            problem: "the adapter has no such rows",
            names: vec![path.to_owned()],
        };
        let experts = self.parameters.get(path).ok_or_else(problem)?;
        let Experts {
            n_experts,
            shape: [all_rows, d_in],
            rank,
            scaling,
            ..
        } = *experts;
        let factors = experts
            .names
            .each_ref()
            .map(|name| self.files.tensors.get(name));
        let [Some(a), Some(b)] = factors else {
            return Err(problem());
        };
        let is_whole = base.len().is_multiple_of(d_in);
        if !is_whole || first.saturating_add(base.len() / d_in) > all_rows {
            return Err(problem());
        }
        let d_out = all_rows / n_experts;
        for (row, base) in (first..).zip(base.chunks_exact_mut(d_in)) {
            let (expert, row) = (row / d_out, row % d_out);
            for j in 0..rank {
                let b = f64::from(b.data[(row * rank + j) * n_experts + expert]);
                let a = &a.data[(expert * rank + j) * d_in..][..d_in];
                for (base, a) in base.iter_mut().zip(a) {
                    *base += scaling * b * f64::from(*a);
                }
            }
        }
        Ok(())
    }

    /// Checks the factors of a parameter.
    fn experts(&self, parameter: &LinearModule) -> Result<Experts> {
        let [d_out, d_in] = parameter.shape;
        let nothing = || Tensor::<2>::zeros([d_out, d_in], (&self.device, DType::F64));
        let start = self.config.start(&Layer {
            module: parameter,
            d_out,
            d_in,
            place: place(&self.device),
            base: &nothing,
        })?;
        let problem = "the method has no factors of experts";
        let Ok([a, b]) = <[NewTensor; 2]>::try_from(start.tensors) else {
            let names = vec![parameter.path.clone()];
            return Err(MethodError::AdapterMismatch { problem, names });
        };
        let place = parameter.module();
        let names = [a.name(), b.name()].map(|name| beside(place, name));
        for tensor in [a, b] {
            self.filled(tensor, place)?;
        }
        let n_experts = parameter.parameter.as_ref().map_or(1, |of| of.n_experts);
        Ok(Experts {
            n_experts,
            shape: parameter.shape,
            rank: start.rank.unwrap_or(0),
            scaling: start.scaling.unwrap_or(0.0),
            names,
        })
    }

    /// Returns whether a layer is adapted.
    pub fn adapts(&self, module: &str) -> bool {
        self.modules.contains_key(module)
    }

    /// Returns what the adapter has in place of a tensor of the base: a bias, or a part of a module that is saved whole.
    pub fn whole(&self, name: &str) -> Option<&peft::Tensor> {
        let of_bias = name.strip_suffix(".bias");
        let of_bias = of_bias.map(|module| format!("{module}{BASE_BIAS}"));
        let of_bias = of_bias.and_then(|name| self.files.tensors.get(&name));
        of_bias.or_else(|| self.files.tensors.get(name))
    }

    /// Iterates over the names, in the base, of the tensors that the adapter has whole.
    pub fn whole_names(&self) -> impl Iterator<Item = String> + '_ {
        let adapted = self.own_names();
        let names = self.files.tensors.keys();
        names
            .filter(move |name| !adapted.contains(*name))
            .map(|name| match name.strip_suffix(BASE_BIAS) {
                Some(module) => format!("{module}.bias"),
                None => name.clone(),
            })
    }

    /// Returns the effective weight of an adapted layer, `[d_out, d_in]`.
    ///
    /// # Errors
    ///
    /// Fails when there is no such layer, the weight has another size, or the method cannot start on it.
    pub fn weight(&self, module: &str, base: Vec<f64>) -> Result<Vec<f64>> {
        let [d_out, d_in] = self.shape(module)?;
        if base.len() != d_out * d_in {
            return Err(MethodError::FactorShape {
                name: beside(module, "weight"),
                expected: vec![d_out, d_in],
                found: vec![base.len()],
            });
        }
        let options = (&self.device, DType::F64);
        let base = Tensor::<2>::from_data(TensorData::new(base, [d_out, d_in]), options);
        let on = self.start(module, &base)?;
        let theta = Theta::of(&on.tensors);
        Ok(numbers(on.method.weight(base, &theta).into_data()))
    }

    /// Returns the effective bias of an adapted layer, which most methods leave as it is.
    ///
    /// # Errors
    ///
    /// As [`weight`](Self::weight).
    pub fn bias(&self, module: &str, base: Vec<f64>) -> Result<Vec<f64>> {
        let [d_out, d_in] = self.shape(module)?;
        let options = (&self.device, DType::F64);
        // A method that acts on biases does not begin with the weight.
        let nothing = Tensor::<2>::ones([d_out, d_in], options);
        let on = self.start(module, &nothing)?;
        if !on.acts_on_bias || base.len() != d_out {
            return Ok(base);
        }
        let bias = Tensor::<1>::from_data(TensorData::new(base, [d_out]), options);
        let theta = Theta::of(&on.tensors);
        Ok(numbers(on.method.bias(bias, &theta).into_data()))
    }

    fn shape(&self, module: &str) -> Result<[usize; 2]> {
        let module = self.modules.get(module).map(|module| module.shape);
        module.ok_or(MethodError::AdapterMismatch {
            problem: "the adapter has no such layer",
            names: Vec::new(),
        })
    }

    /// Starts the method on a layer and gives it the values of the adapter.
    fn start(&self, module: &str, base: &Tensor<2>) -> Result<OnModule> {
        let Some(linear) = self.modules.get(module) else {
            return Err(MethodError::AdapterMismatch {
                problem: "the adapter has no such layer",
                names: vec![module.to_owned()],
            });
        };
        let [d_out, d_in] = linear.shape;
        let start = self.config.start(&Layer {
            module: linear,
            d_out,
            d_in,
            place: place(&self.device),
            base: &|| base.clone(),
        })?;
        let own = start
            .tensors
            .into_iter()
            .map(|tensor| self.filled(tensor, module));
        let mut tensors = Vec::new();
        for tensor in own {
            tensors.push(NamedParam::new(tensor?, false, None));
        }
        let shared = self.shared.iter().cloned();
        tensors.extend(shared.map(|tensor| NamedParam::new(tensor, true, None)));
        Ok(OnModule {
            method: start.method,
            acts_on_bias: start.acts_on_bias,
            tensors,
        })
    }

    /// Gives a tensor of a method its values.
    fn filled(&self, tensor: NewTensor, module: &str) -> Result<NewTensor> {
        let name = match module.is_empty() {
            true => tensor.name().to_owned(),
            false => beside(module, tensor.name()),
        };
        let Some(stored) = self.files.tensors.get(&name) else {
            let names = vec![name];
            let problem = "tensors are missing";
            return Err(MethodError::AdapterMismatch { problem, names });
        };
        let expected = tensor.shape();
        if stored.shape != expected {
            let found = stored.shape.clone();
            return Err(MethodError::FactorShape {
                name,
                expected,
                found,
            });
        }
        let values = stored.data.iter().map(|value| f64::from(*value)).collect();
        Ok(tensor.with_values(values, (&self.device, DType::F64)))
    }

    /// The names of the method's tensors in the adapter.
    fn own_names(&self) -> BTreeSet<String> {
        let spec = self.config.spec();
        let names = self.files.tensors.keys();
        let shared: BTreeSet<&str> = self.shared.iter().map(NewTensor::name).collect();
        let is_own = |name: &&String| {
            let mut experts = self.parameters.values();
            shared.contains(name.as_str())
                || experts.any(|experts| experts.names.contains(*name))
                || spec.tensors.iter().any(|tensor| {
                    let module = name.strip_suffix(tensor.name);
                    let module = module.and_then(|module| module.strip_suffix('.'));
                    module.is_some_and(|module| self.adapts(module))
                })
        };
        names.filter(is_own).cloned().collect()
    }

    /// Refuses what is neither the method's, nor a bias, nor a part of a module that is saved whole.
    fn check_names(&self) -> Result<()> {
        let saved = self
            .files
            .config
            .strings("modules_to_save")?
            .unwrap_or_default();
        let own = self.own_names();
        let left = self.files.tensors.keys().filter(|name| {
            let module = name.rsplit_once('.').map_or("", |(module, _)| module);
            !own.contains(*name) && !name.ends_with(".bias") && !peft::is_inside(module, &saved)
        });
        mismatch(
            "the model has no place for these tensors",
            left.cloned().collect(),
        )
    }
}

fn place(device: &Device) -> Place<'_> {
    Place {
        device,
        dtype: DType::F64,
        seed: 0,
    }
}

fn numbers(data: TensorData) -> Vec<f64> {
    data.iter::<f64>().collect()
}

fn mismatch(problem: &'static str, mut names: Vec<String>) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    names.truncate(10);
    Err(MethodError::AdapterMismatch { problem, names })
}
