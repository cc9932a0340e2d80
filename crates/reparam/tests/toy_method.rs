//! A method that the library does not know: one file with settings, a spec, and what it makes of a layer.
//!
//! `W = diag(1 + g) (W0 + s C)`: every layer has its gains `g`, and all of them share one trained matrix `C`.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use reparam::methods::{
    AdapterMeta, BuildContext, Layer, LinearModule, Method, MethodConfig, MethodError, MethodSpec,
    Methods, NewTensor, Place, Selection, Start, TARGET_MODULES, TensorSpec, Theta, attach,
    linear_modules, load_theta, save_theta, to_adapter,
};
use reparam::optim::{AdamW, GradientTransform, Optimizer, Schedule};
use reparam::parameters::{self, NamedTensor};
use reparam::schema::{Chosen, Range, SettingValue, TargetModules, number};
use reparam::{ForwardContext, Linear};

static SPEC: MethodSpec = MethodSpec {
    kind: "common_offset",
    summary: "A toy: all layers share one offset, and have gains of their own",
    formula: "W = diag(1 + g) (W0 + s C)",
    source: "this test",
    settings: &[
        number("strength", Range::Positive, 1.0, "s"),
        TARGET_MODULES,
    ],
    tensors: &[
        TensorSpec::new(GAIN, "g, [d_out]"),
        TensorSpec::new(OFFSET, "C, of the weights' shape, of the whole model"),
    ],
    build: |settings, _| {
        Ok(Arc::new(CommonOffset {
            strength: settings.number("strength")?,
            selection: Selection::from_settings(settings)?,
        }))
    },
    ..MethodSpec::DEFAULT
};

const GAIN: &str = "gain";
const OFFSET: &str = "common_offset";

#[derive(Debug, Clone)]
struct CommonOffset {
    strength: f64,
    selection: Selection,
}

impl MethodConfig for CommonOffset {
    fn spec(&self) -> &'static MethodSpec {
        &SPEC
    }

    fn selection(&self) -> &Selection {
        &self.selection
    }

    fn with_selection(&self, selection: Selection) -> Arc<dyn MethodConfig> {
        Arc::new(Self {
            selection,
            ..self.clone()
        })
    }

    fn check(&self, layers: &[&LinearModule]) -> Result<(), MethodError> {
        match layers.iter().find(|layer| layer.shape != layers[0].shape) {
            None => Ok(()),
            Some(other) => Err(MethodError::Setting {
                setting: "target_modules",
                expected: "layers of one shape",
                found: format!("{:?} and {:?}", layers[0].shape, other.shape),
            }),
        }
    }

    fn shared(
        &self,
        layers: &[&LinearModule],
        place: &Place<'_>,
    ) -> Result<Vec<NewTensor>, MethodError> {
        let (d_out, d_in) = layers[0].dims(self.selection.weight_layout);
        let offset = place.tensor(vec![0.0; d_out * d_in], [d_out, d_in]);
        Ok(vec![NewTensor::matrix(OFFSET, offset)])
    }

    fn start(&self, layer: &Layer<'_>) -> Result<Start, MethodError> {
        let gain = layer.place.tensor(vec![0.0; layer.d_out], [layer.d_out]);
        let method = OnLayer {
            strength: self.strength,
        };
        Ok(Start::new(method).with(NewTensor::vector(GAIN, gain)))
    }
}

#[derive(Debug)]
struct OnLayer {
    strength: f64,
}

impl Method for OnLayer {
    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Tensor<2> {
        let weight = base + theta.matrix(OFFSET) * self.strength;
        weight * (theta.vector(GAIN) + 1.0).unsqueeze_dim::<2>(1)
    }
}

#[derive(Module, Debug)]
struct Net {
    first: Linear,
    second: Linear,
    head: Linear,
}

const WIDTH: usize = 3;

fn tensor<const D: usize>(dims: [usize; D], seed: u64) -> Tensor<D> {
    let len: usize = dims.iter().product();
    let wave = |i: usize| (i as f64 * 0.7 + seed as f64).sin();
    let data = TensorData::new((0..len).map(wave).collect::<Vec<_>>(), dims);
    Tensor::from_data(data, (&Device::flex().autodiff(), DType::F64))
}

impl Net {
    fn new() -> Self {
        let linear = |d_out: usize, seed| Linear::new(tensor([d_out, WIDTH], seed), None);
        Self {
            first: linear(WIDTH, 1),
            second: linear(WIDTH, 2),
            head: linear(2, 3),
        }
    }

    fn loss(&self) -> Tensor<1> {
        let context = ForwardContext::inference();
        let h = self.first.forward(tensor([4, WIDTH], 5), &context).tanh();
        let h = self.second.forward(h, &context).tanh();
        let y = self.head.forward(h, &context);
        (y * tensor([4, 2], 6)).sum()
    }
}

fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f64> {
    tensor.to_data().convert::<f64>().iter::<f64>().collect()
}

fn names(list: &[NamedTensor]) -> Vec<&str> {
    list.iter().map(|tensor| tensor.name.as_str()).collect()
}

fn build(targets: TargetModules) -> Arc<dyn MethodConfig> {
    let chosen = Chosen::new("common_offset")
        .with("strength", SettingValue::Number(0.5))
        .with("target_modules", SettingValue::Modules(targets));
    let methods = Methods::builtin().with(&SPEC);
    let context = BuildContext { total_steps: 10 };
    methods.build(&chosen, &context).expect("it is in the list")
}

fn of_two() -> Arc<dyn MethodConfig> {
    build(TargetModules::Names(vec!["first".into(), "second".into()]))
}

fn attached() -> Net {
    let (model, report) = attach(Net::new(), &*of_two(), 0).expect("attaches");
    assert_eq!(report.modules.len(), 2);
    model
}

fn optimizer() -> Optimizer {
    let chain: Vec<Box<dyn GradientTransform>> = vec![Box::new(AdamW::default())];
    Optimizer::new(chain, 0.05, Schedule::Constant, 10).expect("valid settings")
}

fn step(model: Net, optimizer: &mut Optimizer) -> Net {
    let mut gradients = model.loss().backward();
    let gradients = parameters::take_gradients(&model, &mut gradients);
    let (model, _) = optimizer.step(model, gradients).expect("a finite step");
    model
}

#[test]
fn it_stands_in_the_catalog_beside_the_built_in_methods() {
    let methods = Methods::builtin().with(&SPEC);
    let n_builtin = Methods::builtin().iter().count();
    assert_eq!(methods.iter().count(), n_builtin + 1);
    assert!(methods.get("common_offset").is_some());
    assert!(Methods::builtin().get("common_offset").is_none());
    // A second one of the kind takes the place of the first.
    assert_eq!(methods.clone().with(&SPEC).iter().count(), n_builtin + 1);
    let wrong = Chosen::new("common_offset").with("strength", SettingValue::Number(-1.0));
    let error = methods.build(&wrong, &BuildContext { total_steps: 10 });
    assert!(
        error
            .expect_err("negative")
            .to_string()
            .contains("strength")
    );
    let everywhere = build(TargetModules::AllLinear);
    let error = attach(Net::new(), &*everywhere, 0).expect_err("two shapes");
    assert!(error.to_string().contains("one shape"), "{error}");
}

/// The shared matrix is a parameter once, its gradient is the sum over both layers, and a new value reaches both: before a
/// step, where the layers share one tensor, and after it.
#[test]
fn shared_theta_is_one_parameter() {
    const STEP: f64 = 1e-5;
    let mut optimizer = optimizer();
    let mut model = attached();
    for _ in 0..2 {
        let list = parameters::trainable(&model);
        assert_eq!(names(&list), ["first.gain", OFFSET, "second.gain"]);
        assert_eq!(names(&parameters::state(&model)), names(&list));
        let count = parameters::count(&model);
        assert_eq!(count.trainable, 2 * WIDTH + WIDTH * WIDTH);
        let mut gradients = model.loss().backward();
        let gradients = parameters::take_gradients(&model, &mut gradients);
        assert_eq!(names(&gradients), names(&list));
        for (idx, gradient) in gradients.iter().enumerate() {
            for (element, found) in values(&gradient.values).into_iter().enumerate() {
                let at = |offset: f64| {
                    let mut moved = parameters::trainable(&model);
                    let mut numbers = values(&moved[idx].values);
                    numbers[element] += offset;
                    let data = TensorData::new(numbers, [moved[idx].len()]);
                    let device = moved[idx].values.device();
                    moved[idx].values = Tensor::from_data(data, (&device, DType::F64));
                    values(&parameters::assign(model.clone(), moved).loss())[0]
                };
                let expected = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                let what = format!("{}[{element}]: {found} {expected}", gradient.name);
                assert!((found - expected).abs() < 1e-8, "{what}");
                assert!(found.abs() > 1e-4, "{what}");
            }
        }
        model = step(model, &mut optimizer);
    }
}

#[test]
fn it_trains_and_is_saved_loaded_and_merged() {
    let start = values(&Net::new().loss())[0];
    let mut model = attached();
    assert_eq!(values(&model.loss())[0], start);
    let mut optimizer = optimizer();
    for _ in 0..5 {
        model = step(model, &mut optimizer);
    }
    let trained = values(&model.loss())[0];
    assert!(trained < start - 0.1, "{trained} {start}");

    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("theta.safetensors");
    save_theta(&model, &path).expect("writable");
    let loaded = load_theta(attached(), &path).expect("what was just saved");
    assert_eq!(values(&loaded.loss())[0].to_bits(), trained.to_bits());
    // A copy without autodiff is the same, and trains on.
    let again = model.valid().train();
    let list = parameters::trainable(&again);
    assert_eq!(names(&list), ["first.gain", OFFSET, "second.gain"]);
    assert_eq!(values(&again.loss())[0].to_bits(), trained.to_bits());

    let config = of_two();
    let error = to_adapter(&model, &*config, &AdapterMeta::new(&*config, &[]));
    let error = error.expect_err("PEFT does not know it");
    assert!(error.to_string().contains("common_offset"), "{error}");
    let merged = model.materialize();
    assert!((values(&merged.loss())[0] - trained).abs() < 1e-12);
    let linears = linear_modules(&merged);
    assert_eq!(linears.len(), 3);
    assert!(linears.iter().all(|linear| !linear.is_reparameterized()));
}
