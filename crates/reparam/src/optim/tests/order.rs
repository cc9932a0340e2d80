//! Composition: associativity, and the orders that are refused.

use burn::tensor::DType;

use super::super::transform::map_with_parameters;
use super::super::*;
use super::{list, quadratic_gradient, values};
use crate::parameters::ParameterList;
use crate::schema::{Chosen, Range, SchemaError, draws};

type Parts = Vec<Box<dyn GradientTransform>>;

fn run(mut chain: Chain, steps: u64) -> Vec<f64> {
    let curvatures = [0.3, 1.0, 2.5];
    let mut x = list(&[1.0, -2.0, 0.5], DType::F64);
    for step in 1..=steps {
        let parameters = x.clone();
        let context = StepContext {
            step,
            horizon: steps,
            learning_rate: 0.1,
            parameters: &parameters,
        };
        let gradient = quadratic_gradient(&x, &curvatures, DType::F64);
        let updates = chain.transform(gradient, &context).expect("a step");
        x = map_with_parameters(updates, &context, |update, parameter| {
            parameter.values.clone() - update.values.clone() * 0.1
        });
    }
    values(&x)
}

#[test]
fn composition_is_associative() {
    let a = || -> Box<dyn GradientTransform> { Box::new(ClipByGlobalNorm::new(1.5).unwrap()) };
    let b = || -> Box<dyn GradientTransform> { Box::new(Momentum::new(0.9, true).unwrap()) };
    let c =
        || -> Box<dyn GradientTransform> { Box::new(AdamW::new(0.9, 0.99, 1e-8, 0.1).unwrap()) };
    let nested = |parts: Parts| -> Box<dyn GradientTransform> { Box::new(chain(parts).unwrap()) };
    let flat = run(chain(vec![a(), b(), c()]).unwrap(), 30);
    let left = run(chain(vec![nested(vec![a(), b()]), c()]).unwrap(), 30);
    let right = run(chain(vec![a(), nested(vec![b(), c()])]).unwrap(), 30);
    assert_eq!(left, flat);
    assert_eq!(right, flat);
    // The order matters, so the equality above is not that of anything with anything.
    assert_ne!(run(chain(vec![c(), b(), a()]).unwrap(), 30), flat);
}

#[test]
fn an_empty_chain_is_gradient_descent() {
    let expected: Vec<f64> = [(1.0, 0.3), (-2.0, 1.0), (0.5, 2.5)]
        .iter()
        .map(|(x, c)| x * (1.0_f64 - 0.1 * c).powi(7))
        .collect();
    for (found, expected) in run(chain(Vec::new()).unwrap(), 7).iter().zip(expected) {
        assert!((found - expected).abs() < 1e-15);
    }
}

fn part(kind: &str) -> Box<dyn GradientTransform> {
    match kind {
        "sam" => Box::new(Sam::new(0.05).unwrap()),
        "clip" => Box::new(ClipByGlobalNorm::new(1.0).unwrap()),
        "clip_value" => Box::new(ClipByValue::new(1.0).unwrap()),
        "agc" => Box::new(ClipByUnitNorm::new(0.01, 1e-3).unwrap()),
        "sign" => Box::new(Sign),
        "scale" => Box::new(Scale::ByHorizon),
        "centralize" => Box::new(Centralize),
        "momentum" => Box::new(Momentum::new(0.9, false).unwrap()),
        "decay" => Box::new(WeightDecay::new(0.1).unwrap()),
        "adam" => Box::new(AdamW::default()),
        "adamw" => Box::new(AdamW::new(0.9, 0.999, 1e-8, 0.1).unwrap()),
        "mask" => Box::new(GradientMask::of_branches(".*", &[0.5, 0.25], MaskRule::Sgd).unwrap()),
        "mask_adam" => Box::new(GradientMask::of_branches(".*", &[0.5], MaskRule::Adam).unwrap()),
        "adaptive_scale" => Box::new(AdaptiveScale::new(0.9, None).unwrap()),
        "accumulate" => Box::new(Accumulate::new(2, Vec::new()).unwrap()),
        "lion" => Box::new(Lion::new(0.9, 0.99, 0.0).unwrap()),
        "lora_plus" => Box::new(LoraPlus::new(16.0).unwrap()),
        "lora_fa" => Box::new(LoraFa::new(2.0).unwrap()),
        "riemannian" => Box::new(Riemannian::new(0.01).unwrap()),
        "freeze" => Box::new(Freeze::new(".*").unwrap()),
        "ema" => Box::new(Ema::new(0.9).unwrap()),
        "schedule_free" => Box::new(ScheduleFreeAdamW::new(0.9, 0.999, 1e-8, 0.0).unwrap()),
        other => panic!("{other}"),
    }
}

#[test]
fn orders_that_break_a_law_are_refused_with_the_reason() {
    let refused = [
        ["clip", "sam"],
        ["clip", "mask"],
        ["clip_value", "mask"],
        ["agc", "mask"],
        ["sign", "mask"],
        ["decay", "mask"],
        ["centralize", "mask"],
        ["adam", "mask"],
        ["scale", "sign"],
        ["lora_plus", "adam"],
        ["lora_plus", "sign"],
        ["adamw", "riemannian"],
        ["adam", "lora_fa"],
        ["freeze", "decay"],
        ["freeze", "adamw"],
        ["freeze", "momentum"],
        ["schedule_free", "clip"],
        ["schedule_free", "ema"],
        ["ema", "schedule_free"],
        ["ema", "ema"],
        ["mask", "adam"],
        ["mask", "lion"],
        ["mask", "sign"],
        ["scale", "lion"],
        ["adaptive_scale", "sign"],
        ["accumulate", "adam"],
        ["accumulate", "momentum"],
        ["accumulate", "decay"],
        ["mask_adam", "momentum"],
        ["adam", "mask_adam"],
        ["mask_adam", "mask_adam"],
    ];
    for order in refused {
        let error = chain(order.map(part).into()).expect_err(&order.join(" before "));
        assert!(matches!(error, OptimError::Order { .. }), "{error}");
        assert!(error.to_string().contains(": "), "{error}");
        assert!(error.hint().is_some());
        // The same inside of nested chains, where each is lawful by itself.
        let alone = order.map(|kind| chain(vec![part(kind)]));
        if let [Ok(first), Ok(second)] = alone {
            let nested: Parts = vec![Box::new(first), Box::new(second)];
            chain(nested).expect_err("nesting hides nothing");
        }
    }
    let error = chain(vec![part("clip"), part("mask")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`clip_by_global_norm` cannot come before `mask`: a mask stands for scaled branches, whose \
         gradients would be bounded after their scaling; bounding before it breaks the equivalence"
    );
}

#[test]
fn usual_orders_are_allowed() {
    let allowed: [&[&str]; 11] = [
        &["sam", "clip", "momentum"],
        &["scale", "clip_value", "momentum", "ema"],
        &["mask", "decay", "momentum"],
        &["mask_adam", "adam", "mask_adam", "decay"],
        &["clip", "adamw", "lora_plus"],
        &["riemannian", "adamw", "ema"],
        &["lora_fa", "adam", "decay", "freeze"],
        &["scale", "clip", "schedule_free"],
        &["mask", "clip", "momentum"],
        &["adaptive_scale", "lion"],
        &["accumulate", "clip", "ema"],
    ];
    for order in allowed {
        let parts = order.iter().map(|kind| part(kind)).collect();
        chain(parts).unwrap_or_else(|error| panic!("{order:?}: {error}"));
    }
    // Decay before the second half of an Adam mask would be masked.
    let parts = ["mask_adam", "adamw", "mask_adam"].map(part).into();
    chain(parts).expect_err("a masked decay");
}

#[test]
fn groups_that_exclude_each_other_do_not_meet() {
    let group = |pattern: &str, kinds: &[&str]| -> Box<dyn GradientTransform> {
        let parts = kinds.iter().map(|kind| part(kind)).collect();
        Box::new(Group::new(pattern, parts).unwrap())
    };
    let apart = chain(vec![group("a.*", &["adamw"]), group("b.*", &["mask"])]).unwrap();
    chain(vec![group("a.*", &["adamw"]), part("mask")]).unwrap_err();
    // Whether two patterns meet depends on the names.
    let named = |name: &str| {
        let mut list = list(&[1.0], DType::F64);
        list[0].name = name.into();
        list.remove(0)
    };
    apart
        .check(&[named("a.weight"), named("b.weight")], 1)
        .unwrap();
    let overlapping = chain(vec![
        group(".*weight", &["clip"]),
        group("(.*weight)", &["mask"]),
    ])
    .unwrap();
    overlapping
        .check(&[named("a.bias"), named("a.weight")], 1)
        .unwrap_err();
    let thawed = chain(vec![
        Box::new(Freeze::new("a.*").unwrap()),
        group(".*", &["decay"]),
    ])
    .unwrap();
    thawed.check(&[named("a.weight")], 1).unwrap_err();
    Group::new("a", vec![part("sam")]).unwrap_err();
    Group::new("a", vec![part("ema")]).unwrap_err();
    let error = Group::new("(", vec![part("scale")]).unwrap_err();
    assert!(
        matches!(error, OptimError::Schema(SchemaError::Pattern { .. })),
        "{error}"
    );
}

#[test]
fn a_group_changes_only_its_own() {
    let two = || -> ParameterList {
        let mut list_a = list(&[1.0, 2.0], DType::F64);
        let mut list_b = list(&[3.0], DType::F64);
        list_a[0].name = "layer.weight".into();
        list_b[0].name = "layer.bias".into();
        list_a.extend(list_b);
        list_a
    };
    let mut group = Group::new(r".*\.bias", vec![Box::new(Scale::By(10.0))]).unwrap();
    let parameters = two();
    let context = StepContext {
        step: 1,
        horizon: 1,
        learning_rate: 1.0,
        parameters: &parameters,
    };
    let updates = group.transform(two(), &context).unwrap();
    assert_eq!(values(&updates), [1.0, 2.0]);
    assert_eq!(values(&updates[1..].to_vec()), [30.0]);
    let error = Group::new("biases", vec![part("scale")])
        .unwrap()
        .check(&parameters, 1);
    assert!(
        matches!(error, Err(OptimError::NoEffect { .. })),
        "{error:?}"
    );
}

/// The factors of experts are in another order in `A` than in `B`: what needs their product cannot work on them, a ratio of rates can.
#[test]
fn factors_of_experts_have_rates_and_no_product() {
    let named = |name: &str| {
        let mut one = list(&[1.0, 2.0], DType::F64);
        one[0].name = format!("mlp.experts.{name}");
        one
    };
    for place in ["", "base_layer."] {
        let names = ["A", "B"].map(|factor| format!("{place}lora_{factor}.weight"));
        let factors: ParameterList = names.iter().flat_map(|name| named(name)).collect();
        let plus = LoraPlus::new(16.0).unwrap();
        plus.check(&factors, 1).unwrap();
        for kind in ["riemannian", "lora_fa"] {
            let error = part(kind).check(&factors, 1);
            assert!(
                matches!(error, Err(OptimError::OfExperts { transform, .. }) if transform == kind),
                "{error:?}"
            );
        }
    }
    let error = LoraPlus::new(16.0).unwrap().check(&named("weight"), 1);
    assert!(
        matches!(error, Err(OptimError::NoEffect { .. })),
        "{error:?}"
    );
}

#[test]
fn a_frozen_parameter_stays_to_the_bit() {
    let parts = vec![part("adamw"), part("freeze")];
    let start = run(chain(parts).unwrap(), 5);
    assert_eq!(start, [1.0, -2.0, 0.5]);
}

#[test]
fn a_step_without_its_probe_is_refused() {
    let mut optimizer =
        Optimizer::new(vec![part("sam")], 0.1, Schedule::Constant, 10).expect("valid");
    let x = || list(&[1.0], DType::F64);
    let error = optimizer.step_list(x(), x()).expect_err("no probe");
    assert_eq!(error, OptimError::NotProbed { transform: "sam" });
    let point = optimizer.probe_list(&x(), &x()).unwrap().expect("a point");
    assert!((values(&point)[0] - 1.05).abs() < 1e-9);
    optimizer.step_list(x(), point).expect("probed");
}

#[test]
fn accumulation_equals_one_step_with_the_mean() {
    let adam = || -> Parts { vec![part("adamw")] };
    let gradients = [[1.0, -2.0], [3.0, 0.5], [-1.0, 1.0], [0.25, 2.0]];
    let start = [0.5, -0.5];
    let mut each = Optimizer::new(
        vec![Box::new(Accumulate::new(2, adam()).unwrap())],
        0.1,
        Schedule::Constant,
        4,
    )
    .unwrap();
    let mut x = list(&start, DType::F64);
    for (step, gradient) in gradients.iter().enumerate() {
        let before = values(&x);
        (x, _) = each.step_list(x, list(gradient, DType::F64)).unwrap();
        assert_eq!(values(&x) == before, step % 2 == 0);
    }
    let mut whole = Optimizer::new(adam(), 0.1, Schedule::Constant, 2).unwrap();
    let mut y = list(&start, DType::F64);
    for pair in gradients.chunks(2) {
        let mean = [
            f64::midpoint(pair[0][0], pair[1][0]),
            f64::midpoint(pair[0][1], pair[1][1]),
        ];
        (y, _) = whole.step_list(y, list(&mean, DType::F64)).unwrap();
    }
    assert_eq!(values(&x), values(&y));
}

/// The scale's estimate on a constant with independent noise of known variance.
#[test]
fn the_adaptive_scale_measures_signal_and_noise() {
    // A sequence without correlation: signs by a linear congruence's high bits.
    let mut seed = 7_u64;
    let mut sign = || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        if seed >> 63 == 0 { 1.0 } else { -1.0 }
    };
    let n = 400;
    let (signal, noise) = (1.0_f64, 3.0_f64);
    let mut scale = AdaptiveScale::new(0.98, Some(1e-3)).unwrap();
    let zeros = list(&vec![0.0; n], DType::F64);
    for step in 1..=400 {
        let gradient: Vec<f64> = (0..n).map(|_| signal + noise * sign()).collect();
        let context = StepContext {
            step,
            horizon: 400,
            learning_rate: 1.0,
            parameters: &zeros,
        };
        scale
            .transform(list(&gradient, DType::F64), &context)
            .unwrap();
    }
    let expected = signal.powi(2) / (signal.powi(2) + noise.powi(2));
    assert!(
        (scale.lambda() - expected).abs() < 0.02,
        "{}",
        scale.lambda()
    );
    // Without noise nothing is scaled down, after the first step, which cannot know.
    let mut scale = AdaptiveScale::new(0.9, None).unwrap();
    for (step, expected) in [(1, 0.05), (2, 1.0), (3, 1.0)] {
        let context = StepContext {
            step,
            horizon: 400,
            learning_rate: 1.0,
            parameters: &zeros,
        };
        let gradient = list(&vec![2.0; n], DType::F64);
        scale.transform(gradient, &context).unwrap();
        assert!((scale.lambda() - expected).abs() < 1e-12, "{step}");
    }
}

#[test]
fn the_riemannian_direction_does_not_depend_on_how_the_product_is_split() {
    // A -> c A, B -> B / c leaves B A; the gradients follow the chain rule.
    let pair = |a: [f64; 4], b: [f64; 4]| -> ParameterList {
        let mut list_a = list(&a, DType::F64);
        let mut list_b = list(&b, DType::F64);
        list_a[0].name = "q.lora_A.weight".into();
        list_a[0].shape = vec![2, 2];
        list_b[0].name = "q.lora_B.weight".into();
        list_b[0].shape = vec![2, 2];
        list_a.extend(list_b);
        list_a
    };
    let (a, b) = ([1.0, 0.5, -0.25, 2.0], [0.5, -1.0, 1.5, 0.25]);
    let (g_a, g_b) = ([0.3, -0.1, 0.2, 0.4], [1.0, 0.5, -0.5, 0.25]);
    let product_move = |c: f64| {
        let scaled = |values: [f64; 4], by: f64| values.map(|value| value * by);
        let parameters = pair(scaled(a, c), scaled(b, 1.0 / c));
        let context = StepContext {
            step: 1,
            horizon: 1,
            learning_rate: 1.0,
            parameters: &parameters,
        };
        let mut transform = Riemannian::new(1e-12).unwrap();
        let gradients = pair(scaled(g_a, 1.0 / c), scaled(g_b, c));
        let u = transform.transform(gradients, &context).unwrap();
        let matrix = |t: &crate::parameters::NamedTensor| t.values.clone().reshape([2, 2]);
        let (u_a, u_b) = (matrix(&u[0]), matrix(&u[1]));
        let (p_a, p_b) = (matrix(&parameters[0]), matrix(&parameters[1]));
        let moved = u_b.matmul(p_a) + p_b.matmul(u_a);
        let data = moved.into_data().convert::<f64>();
        data.as_slice::<f64>().unwrap().to_vec()
    };
    for (one, other) in product_move(1.0).iter().zip(product_move(8.0)) {
        assert!((one - other).abs() < 1e-9, "{one} {other}");
    }
}

#[test]
fn an_accumulation_longer_than_the_run_is_refused() {
    let parts: Parts = vec![Box::new(Accumulate::new(5, vec![part("adam")]).unwrap())];
    let mut optimizer = Optimizer::new(parts, 0.1, Schedule::Constant, 4).unwrap();
    let x = || list(&[1.0], DType::F64);
    let error = optimizer
        .step_list(x(), x())
        .expect_err("it would never move");
    assert!(error.to_string().contains("the run has 4 steps"), "{error}");
}

#[test]
fn a_projection_takes_nothing_that_looks_at_the_parameters() {
    for kind in ["adamw", "decay", "agc", "ema", "sam", "mask", "lora_fa"] {
        let error = Galore::new(2, 10, 0.25, vec![part(kind)]).expect_err(kind);
        assert!(matches!(error, OptimError::Order { .. }), "{error}");
    }
    Galore::new(
        2,
        10,
        0.25,
        vec![Box::new(Lamb::new(0.9, 0.999, 1e-6, 0.0).unwrap())],
    )
    .unwrap_err();
    Galore::new(2, 10, 0.25, vec![part("scale"), part("clip"), part("adam")]).unwrap();
}

/// The mean of squares counts the step of a warm-up that does not move, as its correction does.
#[test]
fn a_schedule_free_warm_up_starts_with_steps_of_size_one() {
    let parts: Parts = vec![part("schedule_free")];
    let schedule = Schedule::warmup(4, Decay::None, 0.0).unwrap();
    let mut optimizer = Optimizer::new(parts, 1.0, schedule, 10).unwrap();
    let mut x = list(&[0.0], DType::F64);
    let mut z = 0.0;
    for _ in 0..6 {
        let rate = optimizer.next_learning_rate();
        // With a constant gradient Adam's direction is its sign.
        (x, _) = optimizer.step_list(x, list(&[3.0], DType::F64)).unwrap();
        z -= rate;
        let state = optimizer.state();
        let found = state
            .iter()
            .find(|tensor| tensor.name.ends_with(".z.x"))
            .unwrap();
        let found = values(&vec![found.clone()])[0];
        assert!((found - z).abs() < 1e-6, "{found} != {z}");
    }
}

/// What the schema accepts the transforms accept, and what it does not know is refused with what there is.
#[test]
fn every_transform_of_the_catalog_can_be_built() {
    let catalog = Transforms::builtin();
    let context = BuildContext::new(&catalog).with_lora_scaling(Some(2.0));
    for entry in catalog.iter() {
        for seed in 0..32 {
            let mut chosen = Chosen::sample(entry.kind, entry.settings, &mut draws(seed));
            for (_, value) in &mut chosen.settings {
                if let SettingValue::Chain(inner) = value {
                    inner.push(Chosen::new("adam"));
                }
            }
            match context.build(&chosen) {
                Ok(_) => {}
                Err(OptimError::Schema(SchemaError::NoEffect { setting, .. })) => {
                    assert_eq!((entry.kind, setting), ("sgd", "nesterov"));
                }
                Err(error) => panic!("{chosen:?}: {error}"),
            }
        }
        let required = entry
            .settings
            .iter()
            .find(|setting| matches!(setting.fallback, Fallback::Required(_)));
        let plain = context.build(&Chosen::new(entry.kind));
        match (required, plain) {
            (None, parts) => {
                let composed = chain(parts.expect(entry.kind));
                assert!(composed.is_ok(), "{}: {:?}", entry.kind, composed.err());
            }
            (Some(setting), parts) => {
                let error = parts.expect_err("a setting is missing");
                let hint = error.hint().expect("an example");
                assert!(hint.contains(setting.key), "{error}: {hint}");
            }
        }
        let unknown = Chosen::new(entry.kind).with("nonsense", SettingValue::Flag(true));
        let error = context.build(&unknown).expect_err("no such setting");
        let hint = error.hint().expect("the settings that there are");
        assert!(entry.settings.iter().all(|one| hint.contains(one.key)));
    }
    let error = context.build(&Chosen::new("adamax")).unwrap_err();
    assert_eq!(error.to_string(), "there is no transform `adamax`");
}

/// A caller adds a transform to a catalog, and chains hold it like any other.
#[test]
fn a_catalog_takes_further_entries() {
    static SETTINGS: [SettingSpec; 1] = [crate::schema::number(
        "factor",
        Range::Positive,
        3.0,
        "the factor",
    )];
    let triple = TransformEntry {
        kind: "triple",
        summary: "Multiply by three, or so",
        formula: "u = factor g",
        source: "",
        optimizer: None,
        settings: &SETTINGS,
        build: |settings, _| Ok(vec![Box::new(Scale::by(settings.number("factor")?)?)]),
    };
    let builtin = Transforms::builtin();
    assert!(builtin.find("triple").is_none());
    let catalog = builtin.with(triple);
    let inner = vec![Chosen::new("triple"), Chosen::new("clip_by_global_norm")];
    let group = Chosen::new("group")
        .with("pattern", SettingValue::Word(".*".into()))
        .with("transforms", SettingValue::Chain(inner));
    let parts = BuildContext::new(&catalog).build(&group).unwrap();
    let mut optimizer = Optimizer::new(parts, 1.0, Schedule::Constant, 1).unwrap();
    let (x, _) = optimizer
        .step_list(list(&[1.0], DType::F64), list(&[0.1], DType::F64))
        .unwrap();
    assert!((values(&x)[0] - 0.7).abs() < 1e-12, "{:?}", values(&x));
}
