//! Intervals of `eval`, and `explain`.

use serde_json::Value;

use crate::support::{Workplace, model};

const RUN: &str = "[model]\ntask = \"regression\"\n\
    [data]\ngenerate = { samples = 60, features = 2, noise = 5.0, seed = 1 }\n\
    [train]\nmax_steps = 50\n[output]\ndir = \"run\"\n";

#[test]
fn intervals_stand_behind_metrics_and_under_a_key_of_json() {
    let workplace = Workplace::new();
    workplace.write("run.toml", RUN.as_bytes());
    workplace.train(&[]).succeeded();
    let rows: String = (0..20)
        .map(|n| format!("{n},{},{}\n", n % 7, 3 * n))
        .collect();
    let columns = workplace.read_text("run/report.json");
    let report: Value = serde_json::from_str(&columns).expect("JSON");
    assert!(report["test_mse"].is_number());
    workplace.write("table.csv", format!("x1,x2,y\n{rows}").as_bytes());
    let args = [
        "eval",
        "--model",
        "run",
        "--data",
        "table.csv",
        "--bootstrap",
        "100",
    ];
    let text = workplace.reparam(&args).succeeded().out;
    let line = text
        .lines()
        .find(|line| line.starts_with("mae"))
        .expect("a line");
    assert!(
        line.contains(" (") && line.contains(" to ") && line.ends_with(')'),
        "{text}"
    );
    let json = workplace
        .reparam(&[&args[..], &["--json"]].concat())
        .succeeded()
        .json();
    let ends = json["intervals"]["mae"]
        .as_array()
        .expect("two ends")
        .clone();
    let [low, high] = [0, 1].map(|end| ends[end].as_f64().expect("a number"));
    let mae = json["mae"].as_f64().expect("a number");
    assert!(low <= mae && mae <= high, "{json}");
    assert_eq!(json["bootstrap"]["samples"], 100);
    let again = workplace.reparam(&[&args[..], &["--seed", "0", "--json"]].concat());
    assert_eq!(again.succeeded().json(), json);

    let alone = [
        "eval",
        "--model",
        "run",
        "--data",
        "table.csv",
        "--seed",
        "1",
    ];
    workplace.reparam(&alone).failed(2, "--bootstrap", "");
    let threshold = [
        "eval",
        "--model",
        "run",
        "--data",
        "table.csv",
        "--threshold",
        "0.2",
    ];
    workplace.reparam(&threshold).failed(
        1,
        "--threshold has no effect for the task regression",
        "leave --threshold out",
    );
}

#[test]
fn an_explanation_is_text_json_and_a_page() {
    let workplace = Workplace::new();
    let model = model();
    let args = [
        "explain",
        "--model",
        &model,
        "--text",
        "Once <b>upon</b> a",
        "--method",
        "occlusion",
        "--max-new-tokens",
        "2",
    ];
    let text = workplace.reparam(&args).succeeded().out;
    assert_eq!(text.matches("probability").count(), 2, "{text}");
    let more = [&args[..], &["--output", "page.html", "--json"]].concat();
    let said = workplace.reparam(&more).succeeded().events();
    assert_eq!(said.len(), 2);
    for object in &said {
        let tokens = object["tokens"].as_array().expect("tokens").len();
        assert_eq!(
            object["attributions"].as_array().expect("numbers").len(),
            tokens
        );
        assert_eq!(object["method"], "occlusion");
        assert_eq!(object["baseline"], "drop");
        assert!(object["baseline_score"].is_null() && object["score"].is_number());
    }
    let page = workplace.read_text("page.html");
    assert!(
        page.contains("&lt;b&gt;") && !page.contains("<b>"),
        "{page}"
    );
    let beside = crate::support::json_lines(&workplace.read_text("page.json"));
    assert_eq!(beside, said);
    workplace.assert_no_temporary_files();

    let steps = [&args[..], &["--steps", "3"]].concat();
    workplace.reparam(&steps).failed(
        1,
        "--steps has no effect with --method occlusion",
        "leave --steps out",
    );
}
