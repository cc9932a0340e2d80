//! LoRA to and from PEFT's adapter directories.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};
use reparam_formats::peft::{self, LoraAdapterConfig, PeftAdapter};

use super::lora::{AttachOptions, Factors, attach};
use super::targets::{self, LinearModule, Target};
use super::{AttachReport, MethodError, WeightLayout, lora};
use crate::parameters;

/// Attaches a loaded adapter to the model that it was trained on.
///
/// The factors are trainable afterwards, and so are the biases that the adapter holds.
///
/// # Errors
///
/// Fails when the adapter has tensors for modules that the model lacks, or lacks some for modules
/// that its configuration targets, or a shape does not fit.
pub fn attach_adapter<M: Module>(
    model: M,
    adapter: &PeftAdapter,
    layout: WeightLayout,
) -> Result<(M, AttachReport), MethodError> {
    let linears = targets::unadapted_modules(&model, lora::METHOD.kind)?;
    let selected = adapted(adapter, &linears)?;
    let config = adapter.config();
    let options = AttachOptions {
        dropout: config.lora_dropout,
        bias: config.bias,
        layout,
    };
    let (model, report) = attach(model, &selected, options, |target| {
        loaded(adapter, target, layout)
    })?;
    if config.bias == peft::Bias::None {
        return Ok((model, report));
    }
    let mut biases = LoadBiases {
        path: Vec::new(),
        adapter,
        taken: BTreeSet::new(),
        error: None,
    };
    let model = model.map(&mut biases);
    biases.finish()?;
    Ok((model, report))
}

/// Returns the trainable state of a model as a PEFT adapter.
///
/// `config` is the adapter's, usually [`LoraConfig::to_adapter_config`](super::LoraConfig::to_adapter_config)
/// with the base model's name filled in.
///
/// # Errors
///
/// Fails when the model's adapters are not those of the configuration.
pub fn to_adapter<M: Module>(
    model: &M,
    config: LoraAdapterConfig,
) -> Result<PeftAdapter, MethodError> {
    let trainable = parameters::trainable(model);
    let adapted: BTreeSet<String> = trainable
        .iter()
        .filter_map(|parameter| parameter.name.strip_suffix(".lora_A.weight"))
        .map(str::to_owned)
        .collect();
    let tensors = trainable
        .into_iter()
        .map(|parameter| {
            let name = match parameter.name.strip_suffix(".bias") {
                Some(module) => PeftAdapter::bias_name(module, adapted.contains(module)),
                None => parameter.name.clone(),
            };
            let data = parameter.values.into_data().convert::<f32>();
            let tensor = peft::Tensor {
                shape: parameter.shape,
                data: data.iter::<f32>().collect(),
            };
            (name, tensor)
        })
        .collect();
    Ok(PeftAdapter::new(config, tensors)?)
}

/// Returns the layers that an adapter has factors for.
///
/// What counts is the tensors in the file: a configuration written by PEFT may leave the choice of
/// targets to PEFT's own table.
fn adapted<'a>(
    adapter: &PeftAdapter,
    linears: &'a [LinearModule],
) -> Result<Vec<Target<'a>>, MethodError> {
    let by_path: BTreeMap<&str, &LinearModule> = linears
        .iter()
        .map(|linear| (linear.path.as_str(), linear))
        .collect();
    let unknown: Vec<String> = adapter
        .module_paths()
        .filter(|path| !by_path.contains_key(path))
        .map(str::to_owned)
        .collect();
    mismatch("the model has no such linear layers", unknown)?;
    if adapter.config().target_modules.is_some() {
        let missing = targets::matching(adapter.config(), linears)?
            .iter()
            .map(|target| target.module.path.clone())
            .filter(|path| adapter.pair(path).is_none())
            .collect();
        mismatch(
            "its configuration targets layers that it has no factors for",
            missing,
        )?;
    }
    Ok(linears
        .iter()
        .filter_map(|module| {
            let numbers = adapter.pair(&module.path)?.numbers;
            Some(Target { module, numbers })
        })
        .collect())
}

fn loaded(
    adapter: &PeftAdapter,
    target: &Target<'_>,
    layout: WeightLayout,
) -> Result<Factors, MethodError> {
    let path = &target.module.path;
    let Some(pair) = adapter.pair(path) else {
        return Err(MethodError::AdapterMismatch {
            problem: "factors are missing",
            names: vec![path.clone()],
        });
    };
    let (d_out, d_in) = target.module.dims(layout);
    let rank = target.numbers.rank;
    check_shape(PeftAdapter::a_name(path), &pair.a.shape, &[rank, d_in])?;
    check_shape(PeftAdapter::b_name(path), &pair.b.shape, &[d_out, rank])?;
    let (a, b) = (pair.a.data.clone(), pair.b.data.clone());
    Ok(Factors::given(target, layout, a, b))
}

fn check_shape(name: String, found: &[usize], expected: &[usize]) -> Result<(), MethodError> {
    if found == expected {
        return Ok(());
    }
    Err(MethodError::FactorShape {
        name,
        expected: expected.to_vec(),
        found: found.to_vec(),
    })
}

fn mismatch(problem: &'static str, mut names: Vec<String>) -> Result<(), MethodError> {
    if names.is_empty() {
        return Ok(());
    }
    names.truncate(10);
    Err(MethodError::AdapterMismatch { problem, names })
}

/// Puts the biases of an adapter in the place of the model's.
struct LoadBiases<'a> {
    path: Vec<String>,
    adapter: &'a PeftAdapter,
    /// The modules whose bias was found in the model.
    taken: BTreeSet<String>,
    error: Option<MethodError>,
}

impl LoadBiases<'_> {
    /// Reports what did not fit, and biases of modules that the model does not have.
    fn finish(self) -> Result<(), MethodError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let is_taken = |name: &str| {
            let module = name
                .strip_suffix(".base_layer.bias")
                .or(name.strip_suffix(".bias"));
            module.is_none_or(|module| self.taken.contains(module))
        };
        let names = self.adapter.tensors().keys();
        let unknown = names.filter(|name| !is_taken(name)).cloned().collect();
        mismatch("the model has no such biases", unknown)
    }
}

impl ModuleMapper for LoadBiases<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((last, parents)) = self.path.split_last() else {
            return param;
        };
        if last != "bias" {
            return param;
        }
        let module = parents.join(".");
        let Some(bias) = self.adapter.bias(&module) else {
            return param;
        };
        let (id, old, mapper) = param.consume();
        let name = format!("{module}.bias");
        if let Err(error) = check_shape(name, &bias.shape, &old.dims()) {
            self.error.get_or_insert(error);
            return Param::from_mapped_value(id, old, mapper);
        }
        self.taken.insert(module);
        let data = TensorData::new(bias.data.clone(), old.dims()).convert_dtype(old.dtype());
        let tensor = Tensor::from_data(data, (&old.device(), old.dtype()));
        let tensor = tensor.set_require_grad(old.is_require_grad());
        Param::from_mapped_value(id, tensor, mapper)
    }
}
