//! Laws that every method obeys, on the toy networks of [`toy`] and the cases of [`cases`].
//!
//! A new method adds its cases to [`cases::cases`]; the laws stay as they are.

mod adapters;
mod branches;
mod cases;
mod chain;
mod lora;
mod packed;
mod scale;
mod selection;
mod settings;
mod sigma_reparam;
mod theta_file;
mod token_rows;
mod toy;
mod weight_norm;

use std::collections::{BTreeMap, HashSet};

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::nn;
use burn::tensor::{DType, Gradients, Tensor};

use self::cases::{Case, Identity, cases};
use self::toy::{BurnNet, Net, Toy, bits, data, input, numbers, parameters_of, randomize, values};
use super::dora::hold;
use super::{DoraConfig, LoraConfig, Methods, attach, linear_modules};
use crate::optim::{AdamW, Optimizer, Schedule, WeightDecay};
use crate::parameters::{self, NamedTensor};
use crate::{ForwardContext, Linear};

/// `f32` sums of at most fifteen products of numbers below one, made in two orders.
const F32_TOLERANCE: f64 = 5e-6;
/// The same in `f64`.
const F64_TOLERANCE: f64 = 1e-13;
/// The step of central differences in `f64`: its square is their error, its inverse the rounding.
const STEP: f64 = 1e-5;
/// What that step leaves of a derivative of size one: 1e-10 of curvature, 1e-11 of rounding.
const DIFFERENCE_TOLERANCE: f64 = 1e-8;

/// States a law for every case on a network of this crate's layers and on one of Burn's.
fn for_every_case(law: impl LawOfCases) {
    for case in cases() {
        law.holds::<Net>(&case);
        law.holds::<BurnNet>(&case);
    }
}

/// A law; a trait because a closure cannot be generic.
trait LawOfCases {
    fn holds<M: Toy>(&self, case: &Case);
}

macro_rules! law {
    ($(#[$doc:meta])* $name:ident, $case:ident: $toy:ident, $body:block) => {
        $(#[$doc])*
        #[test]
        fn $name() {
            struct Law;
            impl LawOfCases for Law {
                fn holds<$toy: Toy>(&self, $case: &Case) $body
            }
            for_every_case(Law);
        }
    };
}

#[test]
fn every_method_has_cases() {
    for spec in Methods::builtin().iter() {
        let has_cases = cases().iter().any(|case| case.methods == [spec.kind]);
        assert!(has_cases, "no law was checked for `{}`", spec.kind);
    }
}

/// What the case says of the start holds for every weight; a case with another start by its
/// definition has to have another.
#[test]
fn identity_at_initialization() {
    struct Law;
    impl LawOfCases for Law {
        fn holds<M: Toy>(&self, case: &Case) {
            for (dtype, epsilon, tolerance) in [
                (DType::F32, f64::from(f32::EPSILON), F32_TOLERANCE),
                (DType::F64, f64::EPSILON, F64_TOLERANCE),
            ] {
                identity_of::<M>(case, dtype, epsilon, tolerance);
            }
        }
    }
    for_every_case(Law);
}

fn identity_of<M: Toy>(case: &Case, dtype: DType, epsilon: f64, tolerance: f64) {
    let base = M::build(dtype);
    let x = input(dtype);
    let expected = base.forward(x.clone(), &ForwardContext::inference());
    let model = case.attach(base.clone(), 7);
    let found = model.forward(x, &ForwardContext::inference());
    let mut weights = model.weights().into_iter().zip(base.weights());
    match case.properties.identity {
        Identity::Exact => {
            assert_eq!(bits(&found), bits(&expected), "{}", case.name);
            for (weight, base) in weights {
                assert_eq!(bits(&weight.val()), bits(&base.val()), "{}", case.name);
            }
        }
        Identity::Rounded(roundings) => {
            assert_close(&values(&found), &values(&expected), tolerance, case.name);
            for (weight, base) in weights {
                for (weight, base) in values(&weight.val()).iter().zip(values(&base.val())) {
                    let bound = roundings * epsilon / 2.0 * base.abs() * 1.001;
                    assert!(
                        (weight - base).abs() <= bound,
                        "{}: {weight} {base}",
                        case.name
                    );
                }
            }
        }
        Identity::Other => assert!(
            weights.any(|(weight, base)| {
                max_difference(&values(&weight.val()), &values(&base.val())) > 1e-2
            }),
            "{}",
            case.name
        ),
    }
}

law!(
    /// The fast way and the meaning: a layer's plan against the product with its effective weight.
    plan_equals_the_dense_path, case: M, {
    for (dtype, tolerance) in [(DType::F32, F32_TOLERANCE), (DType::F64, F64_TOLERANCE)] {
        let model = randomize(case.attach(M::build(dtype), 7), 3);
        let x = input(dtype);
        let plan = model.forward(x.clone(), &ForwardContext::inference());
        let dense = model.forward_dense(x.clone());
        assert_close(&values(&plan), &values(&dense), tolerance, case.name);
        // The comparison would be empty if the method did nothing.
        let base = M::build(dtype).forward(x, &ForwardContext::inference());
        let moved = max_difference(&values(&plan), &values(&base));
        assert!(moved > 1e-2, "{}: moved by {moved} only", case.name);
    }
});

law!(
    /// Kept plans are those that each pass would make.
    generation_has_the_bits_of_inference, case: M, {
    let model = randomize(case.attach(M::build(DType::F32), 7), 3);
    let output = |context: &ForwardContext| bits(&model.forward(input(DType::F32), context));
    let context = ForwardContext::generation();
    let expected = output(&ForwardContext::inference());
    assert_eq!(output(&context), expected, "{}: first pass", case.name);
    assert_eq!(output(&context), expected, "{}: second pass", case.name);
});

/// The norms of DoRA are more work than a layer has with one token, so they are not taken for each.
#[test]
fn generation_makes_a_plan_once() {
    let model = |seed| {
        let dora = DoraConfig {
            lora: LoraConfig::new(2, 4.0),
        };
        let (layer, _) = attach(layer(5, 4, 1), &dora, 7).expect("attaches");
        randomize(layer, seed)
    };
    let first = model(3);
    let second = parameters::assign(first.clone(), parameters::trainable(&model(4)));
    let other = |context: &ForwardContext| {
        let x = || data::<2>(numbers(8, 2), &[2, 4], DType::F32);
        let output = |layer: &Linear| bits(&layer.forward(x(), context));
        (output(&first), output(&second))
    };
    let (first_output, second_output) = other(&ForwardContext::inference());
    assert_ne!(first_output, second_output);
    let kept = other(&ForwardContext::generation());
    assert_eq!(
        kept,
        (first_output.clone(), first_output),
        "of a model that does not change"
    );
}

law!(
    /// What a method's definition holds constant, such as the norm of DoRA, is held constant here, too.
    gradient_equals_central_differences, case: M, {
    hold::held(|| {
        let context = ForwardContext::inference();
        let model = randomize(case.attach(M::build(DType::F64), 7), 3);
        let objective = |model: &M| objective(model.forward(input(DType::F64), &context));
        let mut gradients = objective(&model).backward();
        let gradients = parameters::take_gradients(&model, &mut gradients);
        for (gradient, expected) in gradients.iter().zip(differences(&model, objective)) {
            let what = format!("{} {}", case.name, gradient.name);
            assert_close(&values(&gradient.values), &expected, DIFFERENCE_TOLERANCE, &what);
        }
    });
});

/// Central differences of an objective for every element of every trained tensor, in `f64`.
fn differences<M: Module>(model: &M, objective: impl Fn(&M) -> Tensor<1>) -> Vec<Vec<f64>> {
    let start = parameters::trainable(model);
    let value_at = |tensor: usize, element: usize, offset: f64| {
        let mut moved = start.clone();
        let mut numbers = values(&start[tensor].values);
        numbers[element] += offset;
        let new = data(numbers, &[start[tensor].len()], DType::F64);
        moved[tensor].values = new.inner();
        values(&objective(&parameters::assign(model.clone(), moved)))[0]
    };
    (0..start.len())
        .map(|tensor| {
            let elements = 0..start[tensor].len();
            elements
                .map(|element| {
                    let [above, below] =
                        [STEP, -STEP].map(|offset| value_at(tensor, element, offset));
                    (above - below) / (2.0 * STEP)
                })
                .collect()
        })
        .collect()
}

law!(only_theta_changes, case: M, {
    let mut model = case.attach(M::build(DType::F32), 7);
    let before = parameters_of(&model);
    let chain: Vec<Box<dyn crate::optim::GradientTransform>> = vec![
        Box::new(AdamW::default()),
        Box::new(WeightDecay::new(0.1).expect("valid")),
    ];
    let mut optimizer =
        Optimizer::new(chain, 0.05, Schedule::Constant, 3).expect("valid settings");
    for pass in 0..3 {
        let context = ForwardContext::training(1, pass);
        let mut gradients = objective(model.forward(input(DType::F32), &context)).backward();
        let gradients = parameters::take_gradients(&model, &mut gradients);
        (model, _) = optimizer.step(model, gradients).expect("a finite step");
    }
    let after = parameters_of(&model);
    // Told by the parameters themselves, so that a wrong name cannot hide a change.
    let trained = trained_paths(&model);
    let n_trained = trained.values().collect::<HashSet<_>>().len();
    assert_eq!(n_trained, parameters::trainable(&model).len(), "{}", case.name);
    assert_eq!(after.len(), before.len());
    for ((path, after), (_, before)) in after.iter().zip(&before) {
        assert_eq!(after != before, trained.contains_key(path), "{}: {path}", case.name);
    }
    let base_is_trained = model.weights().iter().any(|weight| weight.base().is_require_grad());
    assert_eq!(base_is_trained, !case.properties.has_frozen_base, "{}", case.name);
});

law!(
    /// The point of a frozen base: no array of its size is kept for it on the way back. A trained
    /// one has its gradient.
    a_gradient_exists_for_a_trained_base_only, case: M, {
    if !M::HAS_PLAN {
        // Burn's own layer forms the effective weight, and what Burn does with it is not ours.
        return;
    }
    let passes = [
        (DType::F32, ForwardContext::training(1, 0)),
        (DType::F64, ForwardContext::inference()),
    ];
    for (dtype, context) in passes {
        let model = randomize(case.attach(M::build(dtype), 7), 3);
        let output = model.forward(input(dtype), &context);
        let gradients: Gradients = objective(output).backward();
        let mut n_gradients = 0;
        for weight in model.weights() {
            let has_gradient = weight.base().grad(&gradients).is_some();
            assert_eq!(has_gradient, weight.base().is_tracked(), "{}", case.name);
            n_gradients += usize::from(has_gradient);
        }
        assert_eq!(n_gradients == 0, case.properties.has_frozen_base, "{}", case.name);
    }
});

law!(merging_keeps_the_output, case: M, {
    for (dtype, tolerance) in [(DType::F32, F32_TOLERANCE), (DType::F64, F64_TOLERANCE)] {
        let model = randomize(case.attach(M::build(dtype), 7), 3);
        let x = input(dtype);
        let expected = model.forward(x.clone(), &ForwardContext::inference());
        let merged = model.materialize();
        let found = merged.forward(x, &ForwardContext::inference());
        assert_close(&values(&found), &values(&expected), tolerance, case.name);
        let linears = linear_modules(&merged);
        assert!(linears.iter().all(|linear| !linear.is_reparameterized()), "{}", case.name);
        let base = M::build(dtype);
        assert_eq!(parameters_of(&merged).len(), parameters_of(&base).len(), "{}", case.name);
    }
});

law!(
    /// Through the file of the trained state, and through an adapter if PEFT has the method.
    saving_and_loading_gives_an_equal_model, case: M, {
    let model = randomize(case.attach(M::build(DType::F32), 7), 3);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let fresh = || M::build(DType::F32);
    let theta = case.through_theta(&model, fresh(), directory.path());
    let adapter = case.through_peft(&model, fresh(), &directory.path().join("adapter"));
    let has_format = case.configs_for::<M>().iter().all(|config| config.spec().peft.is_some());
    assert_eq!(adapter.is_some(), has_format, "{}", case.name);
    for loaded in [Some(theta), adapter].into_iter().flatten() {
        assert_eq!(parameters_of(&loaded), parameters_of(&model), "{}", case.name);
        let forward =
            |model: &M| bits(&model.forward(input(DType::F32), &ForwardContext::inference()));
        assert_eq!(forward(&loaded), forward(&model), "{}", case.name);
        // What was frozen or trained is so again.
        let names = |model: &M| -> Vec<String> {
            parameters::trainable(model).into_iter().map(|tensor| tensor.name).collect()
        };
        assert_eq!(names(&loaded), names(&model), "{}", case.name);
    }
});

law!(
    /// Every tensor of the state is called what the table says, and trained if it says so, beside its layer or at the root of the model: for
    /// methods of PEFT that is what PEFT calls it.
    names_are_those_of_the_table, case: M, {
    let model = case.attach(M::build(DType::F32), 7);
    let layers: Vec<String> = linear_modules(&model)
        .into_iter()
        .map(|linear| linear.path)
        .collect();
    let trained: Vec<String> = parameters::trainable(&model)
        .into_iter()
        .map(|tensor| tensor.name)
        .collect();
    let mut names = Vec::new();
    for NamedTensor { name, .. } in parameters::state(&model) {
        let layer = layers.iter().find(|layer| name.starts_with(&format!("{layer}.")));
        let rest = match layer {
            Some(layer) => &name[layer.len() + 1..],
            None => name.as_str(),
        };
        let is_public = Methods::builtin()
            .iter()
            .filter(|spec| case.methods.contains(&spec.kind))
            .flat_map(|spec| spec.tensors)
            .any(|tensor| {
                is_called(rest, tensor.name) && tensor.is_trained == trained.contains(&name)
            });
        assert!(is_public || (layer.is_some() && rest == "bias"), "{}: {name}", case.name);
        names.push(name);
    }
    let n_names = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), n_names, "{}: a name occurs twice", case.name);
});

/// Compares a name with one of the table, where `#` stands for a number.
fn is_called(name: &str, public: &str) -> bool {
    match public.split_once('#') {
        None => name == public,
        Some((before, after)) => name
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(|number| number.parse::<usize>().is_ok()),
    }
}

law!(a_seed_determines_the_initial_bytes, case: M, {
    let theta = |seed: u64| -> BTreeMap<String, Vec<u64>> {
        parameters_of(&case.attach(M::build(DType::F32), seed))
    };
    assert_eq!(theta(11), theta(11), "{}", case.name);
    // The power iteration ends at the same place but for rounding, wherever it starts.
    if case.methods != ["sigma_reparam"] {
        assert_eq!(theta(11) != theta(12), case.properties.is_random, "{}", case.name);
    }
});

law!(a_second_method_is_refused, case: M, {
    let model = case.attach(M::build(DType::F32), 7);
    let error = case.try_attach(model, 7).expect_err("already attached");
    assert!(
        matches!(&error, super::MethodError::AlreadyAttached { module, .. } if !module.is_empty()),
        "{}: {error}", case.name
    );
    assert!(error.hint().is_some());
});

/// A validation copy computes the same without a graph, and turns back into the same model.
#[test]
fn a_model_survives_valid_and_train() {
    for case in cases() {
        let model = randomize(case.attach(Net::build(DType::F32), 7), 3);
        let context = ForwardContext::inference();
        let valid = model.valid();
        let plain = valid.forward(input(DType::F32).inner(), &context);
        assert_eq!(
            bits(&plain),
            bits(&model.forward(input(DType::F32), &context))
        );
        let trained = valid.train();
        let names = |model: &Net| -> Vec<String> {
            let list = parameters::trainable(model);
            list.into_iter().map(|tensor| tensor.name).collect()
        };
        assert_eq!(names(&trained), names(&model), "{}", case.name);
        assert_eq!(
            parameters_of(&trained),
            parameters_of(&model),
            "{}",
            case.name
        );
    }
}

/// Returns the parameters that require a gradient by their paths inside the module.
fn trained_paths<M: Module>(model: &M) -> BTreeMap<String, ParamId> {
    struct Trained {
        path: Vec<String>,
        found: BTreeMap<String, ParamId>,
    }
    impl ModuleVisitor for Trained {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.base().is_require_grad() {
                self.found.insert(self.path.join("."), param.id);
            }
        }
    }
    let mut trained = Trained {
        path: Vec::new(),
        found: BTreeMap::new(),
    };
    model.visit(&mut trained);
    trained.found
}

/// Sums the outputs, each weighted by a number of its own, so that no gradient is uniform.
fn objective(output: Tensor<2>) -> Tensor<1> {
    let dims = output.dims();
    let weights = data::<2>(numbers(dims[0] * dims[1], 99), &dims, output.dtype());
    (output * weights).sum()
}

fn max_difference(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f64::max)
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (idx, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= tolerance * expected.abs().max(1.0),
            "{what} [{idx}]: {found} != {expected}"
        );
    }
}

/// A layer of this crate for tests of its own.
fn layer(d_out: usize, d_in: usize, seed: u64) -> Linear {
    Linear::new(
        data(numbers(d_out * d_in, seed), &[d_out, d_in], DType::F32),
        None,
    )
}

/// A Burn layer, likewise.
fn burn_layer(d_out: usize, d_in: usize, dtype: DType, seed: u64) -> nn::Linear {
    toy::burn_linear(d_out, d_in, dtype, seed)
}
