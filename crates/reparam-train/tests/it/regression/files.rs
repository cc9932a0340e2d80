//! What a run leaves, and that it repeats.

use reparam_data::tabular::{mse, predict, r2};
use reparam_formats::checkpoint::{sha256_bytes, sha256_file};
use reparam_train::RunFile as _;
use reparam_train::config::RegressionConfig;
use reparam_train::event::{Event, Finished, Step};
use serde_json::Value;

use super::{MLP, Place, distance, finish, tables};
use crate::witness::read_events;

/// The same sums in another order.
const ROUNDING: f64 = 1e-12;

/// An event without what the clock, the memory and the directory decide.
fn timeless(event: &Event) -> Event {
    match event {
        Event::Step(step) => Event::Step(Step {
            per_second: 0.0,
            peak_rss_bytes: 0,
            ..step.clone()
        }),
        Event::Start(start) => {
            let mut start = start.clone();
            start.output = "run".into();
            Event::Start(start)
        }
        Event::Saved { step, .. } => Event::Saved {
            step: *step,
            path: "model".into(),
        },
        Event::Finished(finished) => Event::Finished(Finished {
            seconds: 0.0,
            model: finished.model.as_ref().map(|_| "model".into()),
            ..finished.clone()
        }),
        other => other.clone(),
    }
}

#[test]
fn the_same_run_gives_the_same_bytes_and_events() {
    let place = Place::new();
    for (name, overrides) in [
        ("linear", &["train.batch_size=6"][..]),
        (
            "mlp",
            &[
                &MLP[..],
                &["method.kind=weight_norm", "train.eval_every=20"],
            ]
            .concat(),
        ),
    ] {
        let run = |suffix: &str, more: &[&str]| {
            let run = format!("{name}-{suffix}");
            let witness = place.finish(&run, &[overrides, more].concat());
            let events: Vec<Event> = witness.events.iter().map(timeless).collect();
            assert_eq!(read_events(&place.path(&run)), witness.events);
            (place.weights(&run), events)
        };
        let first = run("first", &[]);
        assert!(run("second", &[]) == first, "{name}");
        let other = run("other", &["train.seed=4"]);
        assert!(other.0 != first.0, "{name}");
    }
}

#[test]
fn the_resolved_configuration_is_the_run() {
    let place = Place::new();
    let config = place.config("run", &MLP);
    finish(&config);
    let path = place.path("run/config.resolved.toml");
    let resolved = RegressionConfig::load(&path, &[]).expect("a run file");
    assert_eq!(resolved, config);
    let provenance = place.json("run", "provenance.json");
    let bytes = std::fs::read(&path).expect("a run file");
    assert_eq!(provenance["config"], sha256_bytes(&bytes));
    assert_eq!(provenance["seed"], 3);
    assert_eq!(
        provenance["data"],
        serde_json::json!([]),
        "it was generated"
    );
}

#[test]
fn provenance_names_the_table() {
    let place = Place::new();
    let text: String = (0..20).map(|i| format!("{i},{}\n", i * i % 7)).collect();
    let path = place.write("table.csv", &format!("a,y\n{text}"));
    finish(&place.csv_config("run", "target = \"y\"", "[train]\nmax_steps = 50"));
    let provenance = place.json("run", "provenance.json");
    let data = provenance["data"].as_array().expect("a list");
    assert_eq!(data.len(), 1);
    assert_eq!(
        data[0]["sha256"],
        Value::from(sha256_file(&path).expect("a file"))
    );
}

#[test]
fn the_report_is_what_its_numbers_are_defined_as() {
    let place = Place::new();
    for (run, overrides) in [
        ("converged", &["train.max_steps=500"][..]),
        ("underway", &["train.max_steps=5"]),
        ("raw", &["data.standardize=false", "train.max_steps=500"]),
    ] {
        let config = place.config(run, overrides);
        let witness = finish(&config);
        let report = place.report(run);
        let told = witness.events.iter().find_map(|event| match event {
            Event::Report { report, .. } => Some(Value::from(report.clone())),
            _ => None,
        });
        assert_eq!(told, Some(place.json(run, "report.json")));
        let split = place.json(run, "split.json");
        let (train, test) = tables(&config, &split);
        assert_eq!((train.n_rows, test.n_rows), (32, 8));
        let mut rows = [train.rows.clone(), test.rows.clone()].concat();
        rows.sort_unstable();
        assert!(rows.into_iter().eq(0..40), "every row is on one side");

        // The coefficients are in the columns' own units, and so are the errors.
        let coefficients = report.coefficients.as_ref().expect("a linear model");
        let intercept = report.intercept.expect("a linear model");
        let by_hand = predict(&test.x, coefficients, intercept).expect("predicts");
        let by_model = place.model(run).predict(&test.x).expect("predicts");
        assert!(distance(&by_model, &by_hand) <= ROUNDING);
        let near = |found: f64, expected: f64| {
            assert!(
                (found - expected).abs() <= ROUNDING * expected.abs(),
                "{found} {expected}"
            );
        };
        near(report.test_mse, mse(&by_hand, &test.y).expect("an error"));
        near(
            report.test_r2.expect("a share"),
            r2(&by_hand, &test.y).expect("a share"),
        );
        let on_train = predict(&train.x, coefficients, intercept).expect("predicts");
        near(
            report.train_mse,
            mse(&on_train, &train.y).expect("an error"),
        );

        // The yardstick is the exact solution of the training rows in their own units.
        let exact = train.least_squares().expect("a solution");
        let by_exact = predict(&test.x, &exact.coefficients, exact.intercept).expect("predicts");
        near(
            report.least_squares_test_mse.expect("exact"),
            mse(&by_exact, &test.y).expect("an error"),
        );
        let worst = distance(coefficients, &exact.coefficients);
        let converged = run != "underway";
        assert_eq!(worst < 1e-6, converged, "{run}: {worst}");
        assert_eq!(report.is_least_squares, Some(converged), "{run}");
        let relative = report.distance_to_least_squares.expect("a linear model");
        assert_eq!(relative < 1e-6, converged, "{run}: {relative}");
        let finished = witness.finished();
        assert_eq!(finished.after, Some(report.test_mse));
        assert_eq!(finished.model, Some(place.path(run).join("model")));
    }
}

/// With `standardize = false` the model sees the columns as they are.
#[test]
fn standardizing_can_be_switched_off() {
    let place = Place::new();
    place.finish("raw", &["data.standardize=false", "train.max_steps=500"]);
    let one = [1.0; 3];
    assert_eq!(
        place.tensor("raw", "standardization.feature_mean"),
        [0.0; 3]
    );
    assert_eq!(place.tensor("raw", "standardization.feature_scale"), one);
    assert_eq!(place.tensor("raw", "standardization.target_mean"), [0.0]);
    assert_eq!(place.tensor("raw", "standardization.target_scale"), [1.0]);
    let report = place.report("raw");
    assert_eq!(
        report.coefficients.expect("linear"),
        place.tensor("raw", "layers.0.weight")
    );
    assert_eq!(
        [report.intercept.expect("linear")][..],
        place.tensor("raw", "layers.0.bias")
    );
    place.finish("standardized", &["train.max_steps=500"]);
    assert_ne!(
        place.tensor("standardized", "standardization.feature_scale"),
        one
    );
    // The solution is the same.
    let (raw, standardized) = (place.report("raw"), place.report("standardized"));
    assert!((raw.test_mse / standardized.test_mse - 1.0).abs() < 1e-9);
}

#[test]
fn a_network_has_no_distance_to_a_linear_solution() {
    let place = Place::new();
    place.finish("run", &MLP);
    let report = place.json("run", "report.json");
    for key in [
        "distance_to_least_squares",
        "is_least_squares",
        "coefficients",
        "intercept",
    ] {
        assert_eq!(report.get(key), None, "{key}");
    }
    assert!(report["least_squares_test_mse"].as_f64().expect("an error") > 0.0);
    let config = place.json("run", "model/config.json");
    assert_eq!(config["activation"], "tanh");
    assert_eq!(config["model_type"], "reparam-regression");
}
