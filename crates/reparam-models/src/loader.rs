//! Filling modules from a checkpoint.

mod experts;

use std::collections::BTreeSet;
use std::ops::Range;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData, bf16};
use reparam::{Linear, OutputHead, Weight};
use reparam_formats::FormatError;
use reparam_formats::checkpoint::{Checkpoint, StoredTensor};
use reparam_ops::fused::{PackedDType, PackedWeight};

pub(crate) use self::experts::ExpertModules;
use crate::architecture::{HeadWeights, Initialization, LinearSpec, NormKind, NormSpec, StepsSpec};
use crate::layers::{Embedding, HeadNorm, HeadRows, Norm};
use crate::named::{List, Named};
use crate::{ModelError, Precision};

/// Takes tensors out of a checkpoint by name.
///
/// A model is built twice, see [`load`](Self::load): first to learn which tensors it needs, of which none is made.
pub(crate) struct Loader<'a> {
    /// Nothing is stored of a new model.
    checkpoint: Option<&'a Checkpoint>,
    device: &'a Device,
    precision: Precision,
    /// What the checkpoint lacks at the beginning of the names of the body's tensors: it was saved without a head.
    missing_prefix: Option<String>,
    /// What the checkpoint has there beyond the names of the model's.
    extra_prefix: Option<String>,
    /// A tensor that the checkpoint stores under another name, and that name.
    alias: Option<(String, String)>,
    /// What the paths of modules are in.
    place: String,
    /// The tensors that were asked for, as long as they are only planned.
    plan: Option<Vec<Planned>>,
    /// What linear layers and tables are drawn from in a new model, and what takes the place of `d_in` in that.
    init: Initialization,
    fan: Option<usize>,
    /// What the next linear layer of a new model begins with, where it makes the steps of a state space.
    steps: Option<StepsSpec>,
    unusable: Option<ModelError>,
}

/// A tensor that a model needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Planned {
    /// As the checkpoint calls it.
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) init: Init,
}

/// What a new tensor is filled with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Init {
    Zeros,
    Ones,
    /// Normal numbers of this standard deviation.
    Normal(f64),
    /// Uniform numbers up to this bound.
    Uniform(f64),
    /// In each row the logarithms of 1, 2, 3 and so on.
    LogCounts,
    /// Numbers whose softplus are steps of a state space.
    Steps(StepsSpec),
}

/// The weight of a layer: its name and shape in memory, and whether it is stored the other way.
struct Described {
    name: String,
    shape: [usize; 2],
    transposed: bool,
    init: Init,
}

impl Described {
    fn new(name: String, spec: &LinearSpec, init: Init) -> Self {
        Self {
            name,
            shape: [spec.d_out, spec.d_in],
            transposed: spec.transposed,
            init,
        }
    }

    fn stored_shape(&self) -> [usize; 2] {
        let [d_out, d_in] = self.shape;
        match self.transposed {
            true => [d_in, d_out],
            false => self.shape,
        }
    }
}

impl<'a> Loader<'a> {
    /// Creates a loader for a class whose body is at `prefix`.
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        device: &'a Device,
        precision: Precision,
        prefix: &str,
    ) -> Self {
        let prefix = match prefix.is_empty() {
            true => String::new(),
            false => format!("{prefix}."),
        };
        let is_there = checkpoint.names().any(|name| name.starts_with(&prefix));
        Self {
            missing_prefix: (!is_there).then_some(prefix),
            ..Self::empty(Some(checkpoint), device, precision)
        }
    }

    fn empty(checkpoint: Option<&'a Checkpoint>, device: &'a Device, precision: Precision) -> Self {
        Self {
            checkpoint,
            device,
            precision,
            missing_prefix: None,
            extra_prefix: None,
            alias: None,
            place: String::new(),
            plan: Some(Vec::new()),
            init: Initialization::Normal(0.0),
            fan: None,
            steps: None,
            unusable: None,
        }
    }

    /// Returns the tensors that a new model needs.
    ///
    /// # Errors
    ///
    /// As `build`.
    pub(crate) fn planned<M>(
        device: &Device,
        build: impl Fn(&mut Loader<'_>) -> Result<M, ModelError>,
    ) -> Result<Vec<Planned>, ModelError> {
        let mut loader = Loader::empty(None, device, Precision::F32);
        build(&mut loader)?;
        Ok(loader.plan.unwrap_or_default())
    }

    /// Says what linear layers and tables of a new model are drawn from.
    pub(crate) fn begin_as(&mut self, init: Initialization, fan: Option<usize>) {
        (self.init, self.fan) = (init, fan);
    }

    fn linear_init(&self, spec: &LinearSpec) -> Init {
        if let Some(steps) = self.steps {
            return Init::Uniform(steps.bound);
        }
        match (self.init, spec.std) {
            (_, Some(std)) | (Initialization::Normal(std), None) => Init::Normal(std),
            (Initialization::Torch, None) => {
                Init::Uniform((self.fan.unwrap_or(spec.d_in) as f64).powf(-0.5))
            }
        }
    }

    fn bias_init(&self, spec: &LinearSpec) -> Init {
        match (self.steps, self.init) {
            (Some(steps), _) => Init::Steps(steps),
            (None, Initialization::Normal(_)) => Init::Zeros,
            (None, Initialization::Torch) => self.linear_init(spec),
        }
    }

    /// Goes without the name of the body, as the class without a head does: a checkpoint of one with a head has it.
    pub(crate) fn without_prefix(mut self, prefix: &str) -> Self {
        self.extra_prefix = match self.missing_prefix.take() {
            None => Some(format!("{prefix}.")),
            Some(_) => None,
        };
        self
    }

    /// Builds a model. `ignored` says which extra tensors are harmless, `bias_keys` is [`Architecture::bias_keys`].
    ///
    /// Names and shapes are compared with those of the files before the first tensor is made, so a wrong size in
    /// `config.json` costs no memory: `build` is called with a loader that gives placeholders of one element, and then with one
    /// that reads.
    ///
    /// # Errors
    ///
    /// Fails when the checkpoint does not hold exactly what is asked for, or a number that is not finite.
    pub(crate) fn load<M>(
        mut self,
        bias_keys: &[(&'static str, &'static str)],
        ignored: impl Fn(&str) -> bool,
        build: impl Fn(&mut Self) -> Result<M, ModelError>,
    ) -> Result<M, ModelError> {
        build(&mut self)?;
        let plan = self.plan.take().unwrap_or_default().into_iter();
        let plan: Vec<(String, Vec<usize>)> = plan.map(|one| (one.name, one.shape)).collect();
        if let Some(checkpoint) = self.checkpoint {
            checkpoint
                .check_tensors(&plan, ignored)
                .map_err(|error| unasked_biases(error, bias_keys))?;
        }
        let model = build(&mut self)?;
        self.unusable.map_or(Ok(model), Err)
    }

    /// Loads what `load` asks for as f32, whatever the precision.
    pub(crate) fn dense<T>(&mut self, load: impl FnOnce(&mut Self) -> T) -> T {
        let precision = std::mem::replace(&mut self.precision, Precision::F32);
        let loaded = load(self);
        self.precision = precision;
        loaded
    }

    /// Goes on with modules whose paths are inside of `place`.
    pub(crate) fn enter(&mut self, place: &str) {
        self.place = place.to_owned();
    }

    pub(crate) fn path(&self, path: &str) -> String {
        match self.place.is_empty() {
            true => path.to_owned(),
            false => format!("{}.{path}", self.place),
        }
    }

    /// The name of a tensor in the checkpoint.
    pub(crate) fn stored(&self, name: &str) -> String {
        if let Some((wanted, stored)) = &self.alias
            && wanted == name
        {
            return stored.clone();
        }
        if let Some(prefix) = &self.extra_prefix {
            return format!("{prefix}{name}");
        }
        let prefix = self.missing_prefix.as_deref().unwrap_or_default();
        name.strip_prefix(prefix).unwrap_or(name).to_owned()
    }

    /// Whether the checkpoint has a tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        let name = self.stored(name);
        let mut stored = self.checkpoint.into_iter().flat_map(Checkpoint::names);
        stored.any(|known| known == name)
    }

    /// Takes a tensor from where another is stored.
    pub(crate) fn take_from(&mut self, name: &str, stored: &str) {
        self.alias = Some((name.to_owned(), self.stored(stored)));
    }

    /// Reads a tensor that a checkpoint need not have; `None` if it has none, or is only planned.
    pub(crate) fn optional_values(&mut self, name: &str, shape: &[usize]) -> Option<Vec<f32>> {
        let name = self.path(name);
        self.has(&name)
            .then(|| self.values(&name, shape, Init::Zeros))?
    }

    /// Whether two tensors that the checkpoint has are the same numbers.
    pub(crate) fn are_equal(&self, a: &str, b: &str) -> Result<bool, ModelError> {
        let [a, b] = [a, b].map(|name| self.stored(name));
        match self.checkpoint {
            Some(checkpoint) => Ok(checkpoint.are_equal(&a, &b)?),
            None => Ok(false),
        }
    }

    /// Finds a tensor; `None` as long as it is only planned.
    fn find(
        &mut self,
        name: &str,
        shape: &[usize],
        init: Init,
    ) -> Option<Result<StoredTensor<'a>, ModelError>> {
        let name = self.stored(name);
        if let Some(plan) = &mut self.plan {
            let shape = shape.to_vec();
            plan.push(Planned { name, shape, init });
            return None;
        }
        let tensor = self.checkpoint?.expect(&name, shape);
        Some(tensor.map_err(ModelError::from))
    }

    /// Reads a tensor, as it is stored; `None` as long as it is only planned.
    fn values(&mut self, name: &str, shape: &[usize], init: Init) -> Option<Vec<f32>> {
        let tensor = self.find(name, shape, init)?;
        // What is wrong is reported at the end, and nothing that comes after it is worth reading.
        let values = match &self.unusable {
            Some(_) => None,
            None => tensor
                .and_then(|tensor| Ok(tensor.to_finite_f32_vec()?))
                .map_err(|error| self.unusable = Some(error))
                .ok(),
        };
        Some(values.unwrap_or_else(|| vec![0.0; shape.iter().product()]))
    }

    fn frozen<const D: usize>(
        &self,
        values: Option<Vec<f32>>,
        shape: [usize; D],
    ) -> Param<Tensor<D>> {
        let data = match values {
            Some(values) => TensorData::new(values, shape),
            None => TensorData::zeros::<f32, _>([1; D]),
        };
        // A loaded model is frozen; methods say what is trained.
        Param::from_tensor(Tensor::from_data(data, self.device)).set_require_grad(false)
    }

    /// A tensor by its whole name, in f32 whatever the precision.
    pub(crate) fn parameter<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        init: Init,
    ) -> Param<Tensor<D>> {
        let values = self.values(name, &shape, init);
        self.frozen(values, shape)
    }

    fn matrix(&mut self, weight: &Described) -> Param<Tensor<2>> {
        let values = self.matrix_values(weight);
        self.frozen(values, weight.shape)
    }

    /// Reads a weight as `[d_out, d_in]`.
    fn matrix_values(&mut self, weight: &Described) -> Option<Vec<f32>> {
        let values = self.values(&weight.name, &weight.stored_shape(), weight.init)?;
        Some(match weight.transposed {
            true => transpose(&values, weight.shape),
            false => values,
        })
    }

    pub(crate) fn embedding(&mut self, path: &str, rows: usize, width: usize) -> Named<Embedding> {
        let path = self.path(path);
        let init = match self.init {
            Initialization::Normal(std) => Init::Normal(std),
            Initialization::Torch => Init::Normal(1.0),
        };
        let name = format!("{path}.weight");
        let weight = Described::new(name, &LinearSpec::new("", width, rows), init);
        let weight = match self.precision.packed() {
            None => Weight::Dense(self.matrix(&weight)),
            Some(numbers) => {
                let packed = self.packed(&[weight], numbers).remove(0);
                Weight::packed(packed, self.device)
            }
        };
        Named::new(path, Embedding { weight })
    }

    pub(crate) fn norm(&mut self, spec: &NormSpec) -> Named<Norm> {
        let path = self.path(&spec.path);
        // The first checkpoints of BERT were converted from TensorFlow with its names.
        let is_old = self.has(&format!("{path}.gamma"));
        let [weight, bias] = match is_old {
            true => ["gamma", "beta"],
            false => ["weight", "bias"],
        };
        let init = match spec.kind {
            NormKind::RmsPlusOne => Init::Zeros,
            NormKind::Rms
            | NormKind::Layer
            | NormKind::LayerWithoutBias
            | NormKind::LayerWithoutWeight => Init::Ones,
        };
        let has_weight = spec.kind != NormKind::LayerWithoutWeight;
        let norm = Norm {
            weight: has_weight
                .then(|| self.parameter(&format!("{path}.{weight}"), [spec.width], init)),
            bias: match spec.kind {
                NormKind::Layer => {
                    Some(self.parameter(&format!("{path}.{bias}"), [spec.width], Init::Zeros))
                }
                NormKind::Rms
                | NormKind::RmsPlusOne
                | NormKind::LayerWithoutBias
                | NormKind::LayerWithoutWeight => None,
            },
            kind: spec.kind,
            width: spec.width,
            eps: spec.eps,
        };
        Named::new(path, norm)
    }

    /// The norm of so many heads.
    pub(crate) fn head_norm(
        &mut self,
        spec: &NormSpec,
        (weights, heads): (HeadWeights, usize),
    ) -> HeadNorm {
        let (mut norms, mut rows) = (Vec::new(), None);
        match weights {
            HeadWeights::Shared => norms.push(self.norm(spec)),
            HeadWeights::Apart => norms.extend((0..heads).map(|head| {
                self.norm(&NormSpec {
                    path: format!("{}.norms.{head}", spec.path),
                    ..spec.clone()
                })
            })),
            HeadWeights::Rows => {
                let path = self.path(&spec.path);
                let name = format!("{path}.weight");
                let weight = self.parameter(&name, [heads, spec.width], Init::Ones);
                rows = Some(Named::new(path, HeadRows { weight }));
            }
        }
        HeadNorm {
            norms: List(norms),
            rows,
            spec: spec.clone(),
        }
    }

    pub(crate) fn linear(&mut self, spec: &LinearSpec) -> Named<Linear> {
        self.linears(std::slice::from_ref(spec)).remove(0)
    }

    /// The layer that makes the steps of a state space.
    pub(crate) fn steps(&mut self, spec: &LinearSpec, steps: StepsSpec) -> Named<Linear> {
        self.steps = Some(steps);
        let linear = self.linear(spec);
        self.steps = None;
        linear
    }

    /// How weight and bias of a layer are called.
    fn names(&self, spec: &LinearSpec) -> [String; 2] {
        match &spec.stored {
            Some(names) => names.each_ref().map(|name| self.path(name)),
            None => ["weight", "bias"].map(|name| self.path(&format!("{}.{name}", spec.path))),
        }
    }

    /// A layer that makes the outputs of the model.
    pub(crate) fn head(&mut self, spec: &LinearSpec) -> Named<OutputHead<Linear>> {
        let linear = self.linear(spec);
        let path = linear.path().to_owned();
        Named::new(path, OutputHead(linear.module))
    }

    /// Layers that have the same input; packed, they share one stack of weights.
    pub(crate) fn linears(&mut self, specs: &[LinearSpec]) -> Vec<Named<Linear>> {
        let paths: Vec<String> = specs.iter().map(|spec| self.path(&spec.path)).collect();
        let names: Vec<[String; 2]> = specs.iter().map(|spec| self.names(spec)).collect();
        let biases: Vec<Option<Param<Tensor<1>>>> = specs
            .iter()
            .zip(&names)
            .map(|(spec, [_, name])| {
                let init = self.bias_init(spec);
                spec.bias.then(|| self.parameter(name, [spec.d_out], init))
            })
            .collect();
        let weights: Vec<Described> = specs
            .iter()
            .zip(names)
            .map(|(spec, [name, _])| Described::new(name, spec, self.linear_init(spec)))
            .collect();
        let linears: Vec<Linear> = match self.precision.packed() {
            None => {
                let weights = weights.iter().map(|weight| self.matrix(weight)).zip(biases);
                weights
                    .map(|(weight, bias)| Linear {
                        weight: Weight::Dense(weight),
                        bias,
                    })
                    .collect()
            }
            Some(numbers) => {
                let packed = self.packed(&weights, numbers).into_iter().zip(biases);
                packed
                    .map(|(weight, bias)| {
                        let bias = bias.as_ref().map(Param::val);
                        Linear::packed(weight, bias, self.device)
                    })
                    .collect()
            }
        };
        let named = paths.into_iter().zip(linears);
        named
            .map(|(path, linear)| Named::new(path, linear))
            .collect()
    }

    /// Packs weights as one stack, converting them a few rows at a time. What is stored the other way is turned as a whole.
    fn packed(&mut self, weights: &[Described], numbers: PackedDType) -> Vec<PackedWeight> {
        let mut sources: Vec<Source<'_>> = Vec::new();
        for weight in weights {
            let source = if weight.transposed {
                self.matrix_values(weight).map(Source::Values)
            } else {
                let tensor = self.find(&weight.name, &weight.shape, weight.init);
                tensor.map(|tensor| match tensor {
                    // As in `values`: nothing that comes after an error is worth reading.
                    Ok(_) if self.unusable.is_some() => Source::Nothing,
                    Ok(tensor) => Source::Stored(tensor),
                    Err(error) => self.unusable(error),
                })
            };
            sources.extend(source);
        }
        let shapes: Vec<[usize; 2]> = match self.plan {
            Some(_) => vec![[1, 1]; weights.len()],
            None => weights.iter().map(|weight| weight.shape).collect(),
        };
        PackedWeight::pack(&shapes, numbers, |part, range, to| {
            let Some(source) = sources.get(part) else {
                return to.fill(0.0);
            };
            let checked = self.read_checked(source, &weights[part].name, range, to);
            if let Err(error) = checked {
                self.unusable(error);
                sources.fill_with(|| Source::Nothing);
            }
        })
    }

    /// Reads a part of a tensor that is to be packed.
    fn read_checked(
        &self,
        source: &Source<'_>,
        name: &str,
        range: Range<usize>,
        to: &mut [f32],
    ) -> Result<(), ModelError> {
        let first = range.start;
        source.read(range, to)?;
        let is_usable = |x: &f32| bf16::from_f32(*x).is_finite();
        let Some(at) = to.iter().position(|x| !is_usable(x)) else {
            return Ok(());
        };
        // Asked only to name the element.
        if let Source::Stored(tensor) = source {
            tensor.check_finite()?;
        }
        Err(ModelError::BeyondBf16 {
            name: self.stored(name),
            index: first + at,
            value: to[at],
        })
    }

    /// Remembers the first error of a tensor; zeros take its place until it is reported.
    fn unusable(&mut self, error: ModelError) -> Source<'a> {
        self.unusable.get_or_insert(error);
        Source::Nothing
    }
}

/// Says which keys of `config.json` would take the biases that are all that a checkpoint has too much.
fn unasked_biases(error: FormatError, keys: &[(&'static str, &'static str)]) -> ModelError {
    let FormatError::Mismatch(mismatch) = error else {
        return error.into();
    };
    let key = |name: &String| {
        let mut keys = keys.iter();
        let (_, key) = keys.find(|(part, _)| name.ends_with(".bias") && name.contains(part))?;
        Some(*key)
    };
    let wanted: Option<BTreeSet<&str>> = mismatch.unexpected.iter().map(key).collect();
    match wanted {
        Some(keys) if mismatch.missing.is_empty() && mismatch.misshaped.is_empty() => {
            ModelError::UnaskedBiases {
                mismatch,
                keys: keys.into_iter().collect(),
            }
        }
        _ => FormatError::Mismatch(mismatch).into(),
    }
}

/// Where the elements of a weight come from, in its order in memory.
enum Source<'a> {
    Stored(StoredTensor<'a>),
    Values(Vec<f32>),
    /// It cannot be used.
    Nothing,
}

impl Source<'_> {
    fn read(&self, range: Range<usize>, to: &mut [f32]) -> Result<(), ModelError> {
        match self {
            Self::Stored(tensor) => tensor.read_f32(range.start, to)?,
            Self::Values(values) => to.copy_from_slice(&values[range]),
            Self::Nothing => to.fill(0.0),
        }
        Ok(())
    }
}

/// Turns `[cols, rows]` into `[rows, cols]`.
fn transpose(values: &[f32], [rows, cols]: [usize; 2]) -> Vec<f32> {
    (0..rows)
        .flat_map(|row| (0..cols).map(move |col| values[col * rows + row]))
        .collect()
}
