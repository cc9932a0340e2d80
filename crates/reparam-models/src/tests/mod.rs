//! Models against the golden files, and against themselves computed in another way.

mod bert;
mod describe;
mod encoders;
mod equivalence;
mod experts;
mod families;
mod full;
mod generation;
mod gguf;
mod logits;
mod lora;
mod methods;
mod new_models;
mod packed;
mod recurrent;
mod recurrent_seq2seq;
mod relative;
mod ropes;
mod seq2seq;
mod seq2seq_stored;
mod stored;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor};
use reparam::methods::{WeightLayout, attach_adapter};
use reparam::parameters::ParameterList;
use reparam::{ForwardContext, parameters};
use reparam_formats::checkpoint::{Checkpoint, Dtype};
use reparam_formats::config::ModelJson;
use reparam_formats::peft::{self, AdapterFiles, LoraAdapterConfig, PeftAdapter, TargetModules};
use reparam_formats::safetensors::{TensorToWrite, write_safetensors};
use serde_json::Value;

use crate::{Architecture, CausalLm, Families, NewTensor, Precision, TokenBatch};

const STORIES: &str = "assets/stories260K";

/// Resolves a path in the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

fn golden(name: &str) -> PathBuf {
    repository("testdata/golden").join(name)
}

fn golden_json(name: &str) -> Value {
    let text = std::fs::read_to_string(golden(name)).expect("the golden file is in the repository");
    serde_json::from_str(&text).expect("golden files are JSON")
}

fn golden_tensors(name: &str) -> Checkpoint {
    Checkpoint::open_file(&golden(name)).expect("the golden file is in the repository")
}

/// Reads whole numbers from JSON.
fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().expect("a list").iter();
    list.map(|id| id.as_u64().expect("a token") as u32)
        .collect()
}

/// Reads a tensor of whole numbers.
fn integers(file: &Checkpoint, name: &str) -> Vec<i64> {
    let view = file
        .require(name)
        .expect("the tensor is in the golden file");
    assert_eq!(view.dtype, Dtype::I64);
    let bytes = view.bytes().expect("the tensor's bytes");
    let (words, rest) = bytes.as_chunks::<8>();
    assert!(rest.is_empty());
    words.iter().map(|word| i64::from_le_bytes(*word)).collect()
}

fn load(directory: &str) -> CausalLm {
    load_on(directory, &Device::flex())
}

fn load_on(directory: &str, device: &Device) -> CausalLm {
    load_in(&repository(directory), device, Precision::F32)
}

fn load_in(directory: &Path, device: &Device, precision: Precision) -> CausalLm {
    let json = ModelJson::load(directory).expect("a configuration");
    let checkpoint = Checkpoint::open(directory).expect("a checkpoint");
    CausalLm::load(&checkpoint, describe(&json), device, precision).expect("a model")
}

fn describe(json: &ModelJson) -> Architecture {
    let families = Families::builtin();
    families
        .describe(json)
        .expect("a configuration of a family")
}

/// A name, a shape and numbers.
type Named = (String, Vec<usize>, Vec<f32>);
type Tensors = Vec<Named>;

fn tensors_of(checkpoint: &Checkpoint) -> Tensors {
    let tensors = checkpoint.tensors().map(|(name, view)| {
        let values = view.to_f32_vec().expect("floats");
        (name.to_owned(), view.shape.to_vec(), values)
    });
    tensors.collect()
}

/// Tensors as a model gives them.
fn listed(list: ParameterList) -> Tensors {
    let tensors = list.into_iter().map(|tensor| {
        let numbers = tensor.values.into_data().iter::<f32>().collect();
        (tensor.name, tensor.shape, numbers)
    });
    tensors.collect()
}

fn to_write(tensors: &[Named]) -> Vec<TensorToWrite<'_>> {
    let tensors = tensors.iter();
    tensors
        .map(|(name, shape, values)| TensorToWrite::f32(name, shape, values))
        .collect()
}

fn in_memory(tensors: &[Named]) -> Checkpoint {
    Checkpoint::in_memory("memory".as_ref(), &to_write(tensors)).expect("a checkpoint")
}

/// Writes the weights of a model directory.
fn write(directory: &Path, tensors: &[Named]) {
    let path = directory.join("model.safetensors");
    write_safetensors(&path, &to_write(tensors), &BTreeMap::new()).expect("writes");
}

/// A checkpoint of the tensors of a new model.
fn drawn_checkpoint(planned: &[NewTensor], seed: u64) -> Checkpoint {
    let drawn = planned.iter().map(|tensor| {
        let name = tensor.name().to_owned();
        (name, tensor.shape().to_vec(), tensor.values(seed))
    });
    in_memory(&drawn.collect::<Tensors>())
}

/// Tokens with what a batch needs besides; each document is its own sequence.
#[derive(Clone)]
struct Documents {
    input_ids: Vec<u32>,
    position_ids: Vec<u32>,
    bounds: Vec<usize>,
    labels: Vec<i32>,
}

impl Documents {
    fn new<'a>(documents: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut all = Self {
            input_ids: Vec::new(),
            position_ids: Vec::new(),
            bounds: vec![0],
            labels: Vec::new(),
        };
        for document in documents {
            all.input_ids.extend(document);
            all.position_ids.extend(0..document.len() as u32);
            all.bounds.push(all.input_ids.len());
            all.labels.extend(document[1..].iter().map(|id| *id as i32));
            all.labels.push(reparam_ops::IGNORE_INDEX);
        }
        all
    }

    /// Takes them apart at bounds.
    fn flat(input_ids: &[u32], bounds: &[usize]) -> Self {
        Self::new(bounds.windows(2).map(|pair| &input_ids[pair[0]..pair[1]]))
    }

    fn batch(&self) -> TokenBatch<'_> {
        TokenBatch {
            input_ids: &self.input_ids,
            position_ids: &self.position_ids,
            bounds: &self.bounds,
        }
    }

    /// The documents one by one.
    fn single(&self) -> Vec<Self> {
        let one = |pair: &[usize]| {
            let mut one = Self::new([&self.input_ids[pair[0]..pair[1]]]);
            one.labels = self.labels[pair[0]..pair[1]].to_vec();
            one
        };
        self.bounds.windows(2).map(one).collect()
    }

    fn n_labelled(&self) -> usize {
        let labels = self.labels.iter();
        labels
            .filter(|label| **label != reparam_ops::IGNORE_INDEX)
            .count()
    }
}

/// The loss with every trainable tensor's gradient.
struct Differentiated {
    loss: f64,
    gradients: BTreeMap<String, Vec<f64>>,
}

fn differentiate(model: &CausalLm, documents: &Documents, scale: f32) -> Differentiated {
    let context = ForwardContext::inference();
    let loss = model.loss(documents.batch(), &documents.labels, scale, &context);
    let value = values(&loss)[0];
    let gradients = parameters::take_gradients(model, &mut loss.backward());
    let gradients = gradients.into_iter();
    Differentiated {
        loss: value,
        gradients: gradients
            .map(|one| (one.name, values(&one.values)))
            .collect(),
    }
}

impl Differentiated {
    /// Adds up what micro-batches gave.
    fn sum(parts: Vec<Self>) -> Self {
        let add = |mut sum: Self, part: Self| {
            sum.loss += part.loss;
            for (name, values) in part.gradients {
                let total = sum.gradients.get_mut(&name).expect("the same parameters");
                for (total, value) in total.iter_mut().zip(values) {
                    *total += value;
                }
            }
            sum
        };
        parts.into_iter().reduce(add).expect("at least one part")
    }

    /// Compares loss and gradients, each relative to its own size.
    fn assert_close(&self, expected: &Self, loss: f64, gradients: f64, what: &str) {
        let found = (self.loss - expected.loss).abs() / expected.loss.abs();
        assert!(found <= loss, "{what}: the loss is off by {found:e}");
        assert_gradients_close(&self.gradients, &expected.gradients, gradients, what);
    }
}

fn assert_gradients_close(
    found: &BTreeMap<String, Vec<f64>>,
    expected: &BTreeMap<String, Vec<f64>>,
    tolerance: f64,
    what: &str,
) {
    assert!(!expected.is_empty());
    assert!(found.keys().eq(expected.keys()), "{what}: other parameters");
    let mut worst = (0.0, String::new());
    for (name, expected) in expected {
        let error = relative_difference(&found[name], expected);
        if error > worst.0 {
            worst = (error, name.clone());
        }
    }
    assert!(
        worst.0 <= tolerance,
        "{what}: {} is off by {:e}",
        worst.1,
        worst.0
    );
}

/// The same for gradients of which some are zero but for rounding, less than `zero` on both sides: what is added to all keys of a
/// head, or to the logits of all tokens, changes no probability. Returns how many are not.
fn assert_gradients_close_or_zero(
    found: &BTreeMap<String, Vec<f64>>,
    expected: &BTreeMap<String, Vec<f64>>,
    (tolerance, zero): (f64, f64),
    what: &str,
) -> usize {
    assert!(found.keys().eq(expected.keys()), "{what}: other parameters");
    let is_zero = |values: &[f64]| values.iter().all(|x| x.abs() < zero);
    let all = expected.clone().into_iter();
    let (zeros, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        all.partition(|(_, values)| is_zero(values));
    for key in zeros.keys() {
        assert!(is_zero(&found[key]), "{what}: {key}");
    }
    let found = others.keys().map(|key| (key.clone(), found[key].clone()));
    assert_gradients_close(&found.collect(), &others, tolerance, what);
    others.len()
}

/// Returns the largest difference divided by the largest expected number.
fn relative_difference(found: &[f64], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
    assert!(largest > 0.0, "nothing to compare with");
    max_difference(found, expected) / largest
}

fn max_difference(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    // A NaN on either side is larger than everything.
    differences.fold(0.0, |max: f64, x| {
        if x.is_nan() {
            f64::INFINITY
        } else {
            max.max(x)
        }
    })
}

fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f64> {
    let data = tensor.clone().into_data().convert::<f64>();
    data.try_to_vec().expect("f64 data")
}

/// Reads a golden tensor of floats.
fn floats(file: &Checkpoint, name: &str) -> Vec<f64> {
    let view = file
        .require(name)
        .expect("the tensor is in the golden file");
    let values = view.to_f32_vec().expect("floats").into_iter();
    values.map(f64::from).collect()
}

/// Builds the adapter whose factors are in a golden file, under PEFT's names.
fn golden_adapter(file: &Checkpoint) -> PeftAdapter {
    let names = [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ];
    let config = LoraAdapterConfig {
        r: 8,
        lora_alpha: 16.0,
        target_modules: Some(TargetModules::Names(names.map(str::to_owned).to_vec())),
        ..LoraAdapterConfig::default()
    };
    let tensors = file.tensors().filter_map(|(name, view)| {
        let name = name.strip_prefix("base_model.model.")?;
        let tensor = peft::Tensor {
            shape: view.shape.to_vec(),
            data: view.to_f32_vec().expect("floats"),
        };
        Some((name.to_owned(), tensor))
    });
    PeftAdapter::new(config, tensors.collect()).expect("PEFT's own factors")
}

/// Returns stories260K with an adapter, to be differentiated.
fn with_adapter(model: CausalLm, adapter: &PeftAdapter) -> CausalLm {
    let files = AdapterFiles::new(adapter.config().to_map(), adapter.tensors().clone());
    let (model, _) = attach_adapter(model, &files, WeightLayout::OutIn).expect("it fits the model");
    model.train()
}

/// Turns every parameter into `f64`, which the reference forms of the operations compute.
fn in_f64<M: Module>(model: M) -> M {
    struct Widen;
    impl ModuleMapper for Widen {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, tensor, mapper) = param.consume();
            let is_trained = tensor.is_require_grad();
            let tensor = tensor.cast(DType::F64).set_require_grad(is_trained);
            Param::from_mapped_value(id, tensor, mapper)
        }
    }
    model.map(&mut Widen)
}
