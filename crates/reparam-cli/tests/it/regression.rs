//! Regressions as a process: what they print, what they leave, how they end.

use serde_json::Value;

use crate::support::{Workplace, all_paths, json_lines, path_text, repository};

/// Forty rows of a law with noise; quick.
const RUN: &str = "[model]\ntask = \"regression\"\n\
    [data]\ngenerate = { samples = 40, features = 2, noise = 5.0, seed = 1 }\n\
    [train]\nmax_steps = 50\nlog_every = 10\n[output]\ndir = \"run\"\n";

fn workplace() -> Workplace {
    let workplace = Workplace::new();
    workplace.write("run.toml", RUN.as_bytes());
    workplace
}

fn json(workplace: &Workplace, name: &str) -> Value {
    serde_json::from_str(&workplace.read_text(name)).expect("JSON")
}

#[test]
fn the_example_converges_to_least_squares() {
    let workplace = Workplace::new();
    let example = path_text(&repository().join("examples/linear-regression.toml"));
    let outcome = workplace.reparam(&["train", &example]).succeeded();
    for line in [
        "model       linear, 2 parameters",
        "method      full",
        "data        features 1, target y, train rows 80, test rows 20",
        "stopped     step 1000: all steps are done",
        "model       runs/linear-regression/model",
    ] {
        assert!(
            outcome.out.lines().any(|found| found == line),
            "{line}: {}",
            outcome.out
        );
    }
    assert!(
        outcome
            .out
            .contains("converged to the least-squares solution"),
        "{outcome:?}"
    );
    assert!(
        outcome.err.lines().all(|line| line.starts_with("step ")),
        "{outcome:?}"
    );
    assert!(outcome.err.contains(" rows/s "), "{outcome:?}");

    let mut files: Vec<String> = all_paths(&workplace.path("runs/linear-regression"))
        .into_iter()
        .filter(|path| path.is_file())
        .map(|path| path_text(path.strip_prefix(workplace.root()).expect("inside")))
        .collect();
    files.sort();
    let expected = [
        "config.resolved.toml",
        "events.jsonl",
        "loss.svg",
        "model/config.json",
        "model/model.safetensors",
        "provenance.json",
        "report.json",
        "split.json",
    ];
    assert_eq!(
        files,
        expected.map(|name| format!("runs/linear-regression/{name}"))
    );

    let report = json(&workplace, "runs/linear-regression/report.json");
    assert_eq!(report["is_least_squares"], true);
    let distance = report["distance_to_least_squares"]
        .as_f64()
        .expect("a number");
    assert!(distance < 1e-6, "{distance}");
    assert!((report["test_mse"].as_f64().expect("a number") - 108.597_917).abs() < 1e-6);
    let split = json(&workplace, "runs/linear-regression/split.json");
    let rows = |part: &str| split[part].as_array().expect("rows").clone();
    let mut all: Vec<u64> = [rows("train"), rows("test")]
        .concat()
        .iter()
        .map(|row| row.as_u64().expect("a row"))
        .collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..100));
    assert_eq!(rows("test").len(), 20);
}

#[test]
fn a_run_that_diverges() {
    let workplace = workplace();
    for (name, own) in [
        ("plain", &[][..]),
        ("clipped", &["optimizer.clip_grad_value=1"]),
    ] {
        let output = format!("output.dir={name}");
        let overrides = [
            "optimizer.learning_rate=50",
            "optimizer.lambda=0.5",
            &output,
        ];
        let outcome = workplace.train(&[&overrides, own].concat()).failed(
            4,
            "(learning rate 50, lambda 0.5)",
            "plain descent on this data is stable while their product is below 0.8295",
        );
        assert!(
            outcome.err.contains("error: the loss went from "),
            "{outcome:?}"
        );
        assert!(!workplace.path(name).join("model").exists());
        assert!(!workplace.path(name).join("report.json").exists());
        let events = json_lines(&workplace.read_text(&format!("{name}/events.jsonl")));
        let last = events.last().expect("an event");
        assert_eq!(last["event"], "failed");
        assert_eq!(last["error"]["kind"], "diverged");
        assert!(
            last["error"]["hints"][0]
                .as_str()
                .expect("a hint")
                .contains("stable")
        );
    }
    let args = [
        "train",
        "run.toml",
        "--json",
        "--set",
        "optimizer.learning_rate=50",
    ];
    let outcome = workplace.reparam(&args);
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    let events = outcome.events();
    let failed: Vec<&Value> = events
        .iter()
        .filter(|event| event["event"] == "failed")
        .collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["error"]["exit_code"], 4);
}

#[test]
fn convergence_is_said() {
    let workplace = workplace();
    for (name, own, said) in [
        ("a", "train.stop_loss_change=0.5", "the loss changed by "),
        ("b", "train.stop_grad_norm=0.5", "the gradient's norm is "),
        (
            "c",
            "train.patience=2",
            "2 evaluations in a row no better than ",
        ),
    ] {
        let output = format!("output.dir={name}");
        let steps = "train.max_steps=2000";
        let outcome = workplace
            .train(&[own, &output, steps, "train.eval_every=5"])
            .succeeded();
        let line = outcome.out.lines().find(|line| line.starts_with("stopped"));
        assert!(
            line.is_some_and(|line| line.contains(said)),
            "{}",
            outcome.out
        );
    }
}
