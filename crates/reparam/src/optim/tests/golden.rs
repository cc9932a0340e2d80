//! Every optimizer against its reference: fifty steps on fixed problems.
//!
//! The problems, the references and the formulas as read in their sources are described in
//! `tools/golden/README.md`.

use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::Deserialize;
use serde_json::Value;

use super::super::transform::map_with_parameters;
use super::super::*;
use crate::parameters::{NamedTensor, ParameterList, flatten};

/// What fifty steps of `f32` may differ by, relative to the largest parameter of a tensor.
const F32_TOLERANCE: f64 = 1e-6;
/// The same in `f64`: the references differ from us in the order of operations.
const F64_TOLERANCE: f64 = 1e-10;

#[derive(Deserialize)]
struct Golden {
    problems: std::collections::BTreeMap<String, Problem>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    parameters: Vec<Named>,
    #[serde(default)]
    curvatures: Vec<f64>,
    x: Option<Array>,
    y: Option<Array>,
    #[serde(default)]
    weights: std::collections::BTreeMap<String, Array>,
    #[serde(default)]
    scaling: f64,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    shape: Vec<usize>,
    values: Vec<f64>,
}

#[derive(Deserialize)]
struct Array {
    shape: Vec<usize>,
    values: Vec<f64>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    options: Value,
    learning_rate: f64,
    problem: String,
    precision: String,
    trajectory: std::collections::BTreeMap<String, Vec<f64>>,
    evaluated: Option<std::collections::BTreeMap<String, Vec<f64>>>,
}

/// What the references offer and this project does not, by case.
const NOT_OFFERED: [(&str, &str); 3] = [
    ("sgd_dampening", "momentum without dampening only"),
    ("lamb_eps", "no second eps inside of the root"),
    ("ema_from_start", "the average starts after the first step"),
];

fn tensor(values: &[f64], shape: &[usize], dtype: DType) -> Tensor<1> {
    let len: usize = shape.iter().product();
    let data = TensorData::new(values.to_vec(), [len]).convert_dtype(dtype);
    Tensor::from_data(data, (&Device::flex(), dtype))
}

fn to_f64(values: &Tensor<1>) -> Vec<f64> {
    let data = values.clone().into_data().convert::<f64>();
    data.as_slice().expect("f64 data").to_vec()
}

impl Problem {
    fn start(&self, dtype: DType) -> ParameterList {
        let parameters = self.parameters.iter();
        parameters
            .map(|parameter| NamedTensor {
                name: parameter.name.clone(),
                shape: parameter.shape.clone(),
                values: tensor(&parameter.values, &parameter.shape, dtype),
            })
            .collect()
    }

    fn gradient(&self, kind: &str, at: &ParameterList, dtype: DType) -> ParameterList {
        match kind {
            "quadratic" => {
                let c = tensor(&self.curvatures, &at[0].shape, dtype);
                vec![at[0].clone().with_values(at[0].values.clone() * c)]
            }
            "rosenbrock" => {
                let n = at[0].shape[1];
                let x = at[0].values.clone().narrow(0, 0, n);
                let y = at[0].values.clone().narrow(0, n, n);
                let valley = y - x.clone() * x.clone();
                let d_x = (x.clone() - 1.0) * 2.0 - x * valley.clone() * 400.0;
                let d_y = valley * 200.0;
                vec![at[0].clone().with_values(Tensor::cat(vec![d_x, d_y], 0))]
            }
            _ => self.differentiate(at, dtype),
        }
    }

    fn constant(&self, array: Option<&Array>, dtype: DType) -> Tensor<2> {
        let array = array.expect("the problem has it");
        let values = tensor(&array.values, &array.shape, dtype);
        Tensor::from_inner(values.reshape([array.shape[0], array.shape[1]]))
    }

    /// The networks' gradients, by Burn's autodiff.
    fn differentiate(&self, at: &ParameterList, dtype: DType) -> ParameterList {
        let leaves: Vec<Tensor<1>> = at
            .iter()
            .map(|parameter| Tensor::from_inner(parameter.values.clone()).require_grad())
            .collect();
        let find = |name: &str| at.iter().position(|parameter| parameter.name == name);
        let matrix = |name: &str| {
            let place = find(name).expect("a parameter");
            leaves[place]
                .clone()
                .reshape([at[place].shape[0], at[place].shape[1]])
        };
        let x = self.constant(self.x.as_ref(), dtype);
        let y = self.constant(self.y.as_ref(), dtype);
        let output = if self.weights.is_empty() {
            let layer = |input: Tensor<2>, name: &str| {
                let z = input.matmul(matrix(&format!("{name}.weight")).transpose());
                match find(&format!("{name}.bias")) {
                    Some(place) => z + leaves[place].clone().unsqueeze::<2>(),
                    None => z,
                }
            };
            layer(layer(x, "layers.0").tanh(), "layers.1")
        } else {
            let layer = |input: Tensor<2>, name: &str| {
                let base = self.constant(self.weights.get(name), dtype);
                let a = matrix(&format!("{name}.lora_A.weight"));
                let b = matrix(&format!("{name}.lora_B.weight"));
                input.matmul((base + b.matmul(a) * self.scaling).transpose())
            };
            layer(layer(x, "q_proj").tanh(), "down_proj")
        };
        let difference = output - y;
        let loss = (difference.clone() * difference).mean();
        let gradients = loss.backward();
        at.iter()
            .zip(&leaves)
            .map(|(parameter, leaf)| {
                let gradient = leaf.grad(&gradients).expect("every parameter counts");
                parameter.clone().with_values(flatten(gradient))
            })
            .collect()
    }
}

/// Returns the transforms of a case.
fn transforms(case: &Case) -> Vec<Box<dyn GradientTransform>> {
    let option = |key: &str| &case.options[key];
    let number = |key: &str| option(key).as_f64().unwrap_or_else(|| panic!("{key}"));
    let flag = |key: &str| option(key).as_bool().unwrap_or_else(|| panic!("{key}"));
    let beta = |place: usize| option("betas")[place].as_f64().expect("two betas");
    let family = case.name.split('_').next().unwrap_or_default();
    fn boxed<T: GradientTransform + 'static>(
        transform: Result<T, OptimError>,
    ) -> Box<dyn GradientTransform> {
        Box::new(transform.expect("valid settings"))
    }
    let adamw = |decay: f64| AdamW::new(beta(0), beta(1), number("eps"), decay);
    let sgd = || {
        let mut parts = vec![boxed(WeightDecay::new(number("weight_decay")))];
        if number("momentum") > 0.0 {
            parts.push(boxed(Momentum::new(number("momentum"), flag("nesterov"))));
        }
        parts
    };
    let before = |adamw: Result<AdamW, OptimError>| {
        adamw.map(|adamw| adamw.with_eps_placement(EpsPlacement::BeforeCorrection))
    };
    match (family, case.name.as_str()) {
        ("sgd", _) => sgd(),
        ("adam", _) => vec![
            boxed(WeightDecay::new(number("weight_decay"))),
            boxed(adamw(0.0)),
        ],
        ("adamw", _) => vec![boxed(adamw(number("weight_decay")))],
        ("adafactor", _) => vec![boxed(Adafactor::new(AdafactorSettings {
            beta2_decay: number("beta2_decay"),
            eps1: number("eps1"),
            eps2: number("eps2"),
            d: number("d"),
            weight_decay: number("weight_decay"),
        }))],
        ("lion", _) => vec![boxed(Lion::new(
            number("b1"),
            number("b2"),
            number("weight_decay"),
        ))],
        ("rmsprop", _) => vec![
            boxed(WeightDecay::new(number("weight_decay"))),
            boxed(RmsProp::new(
                number("alpha"),
                number("eps"),
                number("momentum"),
                flag("centered"),
            )),
        ],
        ("adagrad", _) => vec![
            boxed(WeightDecay::new(number("weight_decay"))),
            boxed(Adagrad::new(
                number("lr_decay"),
                number("eps"),
                number("initial_accumulator_value"),
            )),
        ],
        ("lamb", _) => vec![boxed(Lamb::new(
            number("b1"),
            number("b2"),
            number("eps"),
            number("weight_decay"),
        ))],
        ("muon", _) => vec![boxed(Muon::new(
            number("momentum"),
            flag("nesterov"),
            option("ns_steps").as_u64().expect("steps") as usize,
            number("eps"),
            number("weight_decay"),
            match option("adjust_lr_fn").as_str() {
                Some("original") => MuonScale::Original,
                Some("match_rms_adamw") => MuonScale::MatchAdamW,
                other => panic!("{other:?}"),
            },
        ))],
        ("schedule", _) => vec![boxed(
            ScheduleFreeAdamW::new(beta(0), beta(1), number("eps"), number("weight_decay"))
                .and_then(|adamw| adamw.with_weighting(number("r"), number("weight_lr_power"))),
        )],
        ("sam", _) => {
            let mut parts = vec![boxed(Sam::new(number("rho")))];
            if number("momentum") > 0.0 {
                parts.push(boxed(Momentum::new(number("momentum"), false)));
            }
            parts
        }
        ("ema", _) => vec![boxed(Ema::new(number("decay")))],
        ("agc", _) => vec![boxed(ClipByUnitNorm::new(
            number("clipping"),
            number("eps"),
        ))],
        (_, "clip_by_global_norm") => vec![boxed(ClipByGlobalNorm::new(number("max_norm")))],
        (_, "clip_by_value") => vec![boxed(ClipByValue::new(number("clip_value")))],
        ("sign", _) => vec![Box::new(Sign)],
        ("centralize", _) => vec![Box::new(Centralize)],
        ("loraplus", _) => vec![
            boxed(adamw(number("weight_decay"))),
            boxed(LoraPlus::new(number("lr_ratio"))),
        ],
        ("lorafa", _) => vec![
            boxed(LoraFa::new(number("scaling"))),
            boxed(before(adamw(0.0))),
            boxed(WeightDecay::of_moved(number("weight_decay"))),
            boxed(Freeze::new(r".*lora_A\.weight")),
        ],
        ("riemannian", "riemannian") => vec![
            boxed(Riemannian::new(number("reg"))),
            boxed(adamw(number("weight_decay"))),
        ],
        ("riemannian", "riemannian_sgd") => vec![boxed(Riemannian::new(number("reg")))],
        ("galore", _) => vec![
            boxed(Galore::new(
                option("rank").as_u64().expect("a rank") as usize,
                option("update_proj_gap").as_u64().expect("steps"),
                number("scale"),
                vec![boxed(before(adamw(0.0)))],
            )),
            boxed(WeightDecay::of_moved(number("weight_decay"))),
        ],
        _ => panic!("no transform for the case {}", case.name),
    }
}

fn compare(case: &Case, step: u64, found: &ParameterList, expected: &[f64], what: &str) -> f64 {
    let mut rest = expected;
    let mut worst = 0.0_f64;
    for parameter in found {
        let (own, others) = rest.split_at(parameter.len());
        rest = others;
        let size = own.iter().fold(0.0_f64, |size, x| size.max(x.abs()));
        for (found, expected) in to_f64(&parameter.values).iter().zip(own) {
            assert!(found.is_finite(), "{}: not a number", case.name);
            worst = worst.max((found - expected).abs() / size);
        }
    }
    assert!(rest.is_empty(), "{}: lengths differ", case.name);
    let tolerance = match case.precision.as_str() {
        "f32" => F32_TOLERANCE,
        _ => F64_TOLERANCE,
    };
    assert!(
        worst <= tolerance,
        "{} on {} in {}, {what} of step {step}: off by {worst:e}",
        case.name,
        case.problem,
        case.precision
    );
    worst
}

#[test]
fn every_optimizer_follows_its_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/optimizers.json");
    let text = std::fs::read_to_string(path).expect("the golden file is in the repository");
    let golden: Golden = serde_json::from_str(&text).expect("the documented form");
    let mut followed = std::collections::BTreeSet::new();
    let mut worst = 0.0_f64;
    for case in &golden.cases {
        if NOT_OFFERED.iter().any(|(name, _)| *name == case.name) {
            continue;
        }
        let dtype = match case.precision.as_str() {
            "f32" => DType::F32,
            "f64" => DType::F64,
            other => panic!("{other}"),
        };
        let problem = &golden.problems[&case.problem];
        let mut x = problem.start(dtype);
        let mut update = chain(transforms(case)).expect("a lawful order");
        update.check(&x, 50).expect("it has an effect");
        let n_warmup = case.options["warmup_steps"].as_f64().unwrap_or(0.0);
        for step in 1..=50_u64 {
            // That package's warm-up does not start at zero.
            let warmup = if n_warmup > 0.0 {
                (step as f64 / n_warmup).min(1.0)
            } else {
                1.0
            };
            let parameters = x.clone();
            let context = StepContext {
                step,
                horizon: 50,
                learning_rate: case.learning_rate * warmup,
                parameters: &parameters,
            };
            let mut gradient = problem.gradient(&case.problem, &x, dtype);
            if let Some(point) = update.probe(&gradient, &context).expect("a point") {
                gradient = problem.gradient(&case.problem, &point, dtype);
            }
            let updates = update.transform(gradient, &context).expect("a finite step");
            x = map_with_parameters(updates, &context, |update, parameter| {
                parameter.values.clone() - update.values.clone() * context.learning_rate
            });
            update.moved(&x).expect("an average");
            if let Some(expected) = case.trajectory.get(&step.to_string()) {
                worst = worst.max(compare(case, step, &x, expected, "the parameters"));
            }
            let averages = case.evaluated.as_ref();
            if let Some(expected) = averages.and_then(|list| list.get(&step.to_string())) {
                let average = update.evaluated(&x).expect("an average");
                compare(case, step, &average, expected, "the average");
            }
        }
        followed.insert(case.name.as_str());
    }
    assert!(followed.len() >= 40, "{followed:?}");
}
