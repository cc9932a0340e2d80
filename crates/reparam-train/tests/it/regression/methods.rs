//! Every method on the models of a regression.

use reparam_data::tabular::mse;

use super::{MLP, Place, finish, tables};

/// Forward through a method's plan, and through the weights that it stands for.
const PLAN: f64 = 1e-10;

/// The methods with settings that these small layers can have.
const METHODS: [(&str, &[&str]); 9] = [
    ("identity", &["method.kind=identity"]),
    ("scale", &["method.kind=scale", "method.scale=0.7"]),
    ("scale-horizon", &["method.kind=scale"]),
    ("weight_norm", &["method.kind=weight_norm"]),
    (
        "weight_norm-data",
        &["method.kind=weight_norm", "method.init=data"],
    ),
    ("sigma_reparam", &["method.kind=sigma_reparam"]),
    (
        "sigma_reparam-one",
        &["method.kind=sigma_reparam", "method.gamma_init=one"],
    ),
    (
        "overparameterized",
        &[
            "method.kind=overparameterized",
            "method.branches=[0.8,0.4]",
            "method.product_width=2",
        ],
    ),
    (
        "lora",
        &[
            "method.kind=lora",
            "method.rank=2",
            "method.alpha=2",
            "method.bias=all",
        ],
    ),
];

/// The loss of a step is that of the network before it moves, so one more step measures the saved network
/// before it was saved.
#[test]
fn every_method_trains_and_saves_a_linear_model() {
    trains_and_saves("linear", &[], 1);
}

#[test]
fn every_method_trains_and_saves_a_network() {
    trains_and_saves("mlp", &MLP, 2);
}

fn trains_and_saves(model: &str, of_model: &[&str], layers: usize) {
    let place = Place::new();
    for (method, of_method) in METHODS {
        let name = format!("{model}-{method}");
        let overrides = [of_model, of_method].concat();
        let config = place.config(&name, &overrides);
        let witness = finish(&config);
        let losses = witness.losses();
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        assert!(last < 0.7 * first, "{name}: {first} {last}");

        // The horizon is part of that method, so a longer run needs its number.
        let scale = format!("method.scale={}", 60_f64.powf(-0.25));
        let more: &[&str] = if method == "scale-horizon" {
            &[&scale, "train.max_steps=61"]
        } else {
            &["train.max_steps=61"]
        };
        let longer = format!("{name}-longer");
        let next = place.losses(&longer, &[&overrides, more].concat())[60];
        let saved = place.loss_of_saved(&config);
        assert!((saved / next - 1.0).abs() <= PLAN, "{name}: {saved} {next}");

        // And the last evaluation is of the saved model too.
        let (_, test) = tables(&config, &place.json(&name, "split.json"));
        let predictions = place.model(&name).predict(&test.x).expect("predicts");
        let error = mse(&predictions, &test.y).expect("an error");
        let evaluated = witness.evaluations().pop().map(|(_, mse)| mse);
        assert_eq!(evaluated, Some(error), "{name}");
        let names = saved_names(&place, &name);
        assert_eq!(
            names.len(),
            2 * layers + 4,
            "only effective weights: {names:?}"
        );
    }
}

fn saved_names(place: &Place, run: &str) -> Vec<String> {
    let path = place.path(run).join("model/model.safetensors");
    let file = reparam_formats::checkpoint::Checkpoint::open_file(&path).expect("weights");
    file.tensors().map(|(name, _)| name.to_owned()).collect()
}

/// What converges converges to the same solution, whatever its parameters are.
#[test]
fn methods_of_full_rank_find_the_exact_solution() {
    let place = Place::new();
    // The horizon of that many steps would make them small.
    let methods = METHODS.iter().filter(|(name, _)| *name != "scale-horizon");
    for (method, overrides) in methods {
        let long = [
            "train.max_steps=500",
            "train.log_every=500",
            "optimizer.momentum=0.9",
            "optimizer.learning_rate=0.05",
        ];
        place.finish(method, &[&long, *overrides].concat());
        assert_eq!(
            place.report(method).is_least_squares,
            Some(true),
            "{method}"
        );
    }
}

/// Started from data, every layer's outputs have mean 0 and variance 1 over the training rows; the last layer's
/// are the predictions.
#[test]
fn weight_normalization_can_start_from_data() {
    let place = Place::new();
    let start = |run: &str, init: &str| {
        let overrides = [
            "model.kind=mlp",
            "model.hidden=[8,5]",
            "method.kind=weight_norm",
            init,
            "optimizer.learning_rate=1e-14",
            "train.max_steps=1",
        ];
        let config = place.config(run, &overrides);
        finish(&config);
        let (train, _) = tables(&config, &place.json(run, "split.json"));
        let predictions = place.model(run).predict(&train.x).expect("predicts");
        let mean = place.tensor(run, "standardization.target_mean")[0];
        let scale = place.tensor(run, "standardization.target_scale")[0];
        let n = predictions.len() as f64;
        let outputs: Vec<f64> = predictions.iter().map(|y| (y - mean) / scale).collect();
        let mean = outputs.iter().sum::<f64>() / n;
        let variance = outputs.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / n;
        (mean, variance)
    };
    let (mean, variance) = start("data", "method.init=data");
    assert!(
        mean.abs() < 1e-9 && (variance - 1.0).abs() < 1e-6,
        "{mean} {variance}"
    );
    let (_, variance) = start("weights", "method.init=weights");
    assert!((variance - 1.0).abs() > 0.1, "{variance}");
}

/// The largest singular value of a matrix, with its right singular vector.
fn top(matrix: &[f64], width: usize) -> (f64, Vec<f64>) {
    let mut v = vec![1.0; width];
    let mut sigma = 0.0;
    for _ in 0..2000 {
        let mut next = vec![0.0; width];
        for row in matrix.chunks(width) {
            let dot: f64 = row.iter().zip(&v).map(|(a, b)| a * b).sum();
            next.iter_mut()
                .zip(row)
                .for_each(|(next, a)| *next += dot * a);
        }
        let norm = next.iter().map(|x| x * x).sum::<f64>().sqrt();
        sigma = norm.sqrt();
        v = next.into_iter().map(|x| x / norm).collect();
    }
    (sigma, v)
}

/// With gamma held at one the effective weight has the spectral norm one, as long as `u` and `v` follow the
/// weight's singular vectors; what was right at the start is not after they have turned.
#[test]
fn the_singular_vectors_follow_the_weight() {
    let place = Place::new();
    let spectral = |run: &str, steps: &str| {
        let overrides = [
            "model.kind=mlp",
            "model.hidden=[4]",
            "method.kind=sigma_reparam",
            "method.gamma_init=one",
            "optimizer.learning_rate=0.1",
            "optimizer.transforms=[{ kind = \"sgd\" }, { kind = \"freeze\", pattern = \".*gamma\" }]",
            steps,
        ];
        place.finish(run, &overrides);
        top(&place.tensor(run, "layers.0.weight"), 3)
    };
    let (before, from) = spectral("early", "train.max_steps=1");
    let (after, to) = spectral("late", "train.max_steps=400");
    let cosine: f64 = from.iter().zip(&to).map(|(a, b)| a * b).sum();
    assert!(cosine.abs() < 0.9, "they have turned: {cosine}");
    assert!((before - 1.0).abs() < 1e-2, "{before}");
    assert!((after - 1.0).abs() < 1e-4, "{after}");
}

/// What drops out while training does not while predicting, and is drawn from the seed.
#[test]
fn dropout_is_for_training_alone() {
    let place = Place::new();
    let lora = ["method.kind=lora", "method.rank=2", "method.alpha=2"];
    let run = |name: &str, more: &[&str]| {
        let overrides = [&lora, more].concat();
        let config = place.config(name, &overrides);
        (finish(&config).losses(), place.loss_of_saved(&config))
    };
    let (plain, _) = run("plain", &[]);
    let (first, saved) = run("first", &["method.dropout=0.3"]);
    // B starts at zero, so that the first step shows nothing of it.
    assert_eq!(first[0].to_bits(), plain[0].to_bits());
    assert_ne!(first[5].to_bits(), plain[5].to_bits());
    let (second, saved_again) = run("second", &["method.dropout=0.3"]);
    assert_eq!((&second, saved_again), (&first, saved));
    let (other, _) = run("other", &["method.dropout=0.3", "train.seed=4"]);
    assert_ne!(other[5].to_bits(), first[5].to_bits());
    // One step more has a loss with another draw than none.
    let (longer, _) = run("longer", &["method.dropout=0.3", "train.max_steps=61"]);
    assert_eq!(longer[..60], first[..]);
    assert!(
        (longer[60] / saved - 1.0).abs() > 1e-3,
        "{} {saved}",
        longer[60]
    );
}

#[test]
fn a_method_that_does_not_fit_the_model_is_refused() {
    let place = Place::new();
    for (run, overrides, message) in [
        (
            "diagonal",
            &["method.kind=overparameterized", "method.diagonal=true"][..],
            "square",
        ),
        ("names", &["method.target_modules=[\"layer.0\"]"], "layer.0"),
    ] {
        let (error, _) = place.fail(run, overrides);
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint().is_some(), "{error}");
        assert!(!place.path(run).exists());
    }
}
