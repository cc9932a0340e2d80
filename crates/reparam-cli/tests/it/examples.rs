//! `reparam eval` and `reparam predict` by solved examples.

use crate::support::{Workplace, model};

const ROWS: &str =
    "text,label\nThe cat was happy.,glad\nMom was sad.,bad\nThey all laughed.,glad\nHe fell.,bad\n";

#[test]
fn a_language_model_tells_rows_apart_by_examples() {
    let workplace = Workplace::new();
    workplace.write("rows.csv", ROWS.as_bytes());
    let model = model();
    let ask = |command: &str, more: &[&str]| {
        let args = [
            command,
            "--model",
            &model,
            "--task",
            "sequence-classification",
            "--data",
            "rows.csv",
        ];
        workplace.reparam(&[&args[..], more].concat())
    };
    let examples = ["--examples", "rows.csv", "--shots", "2", "--json"];
    let metrics = ask("eval", &examples).succeeded().json();
    assert_eq!(
        (&metrics["shots"], &metrics["seed"]),
        (&2.into(), &0.into())
    );
    assert!(metrics["accuracy_norm"].is_number() && metrics["confusion"].is_object());
    let seeds = [&examples[..], &["--seed", "3"]].concat();
    assert_eq!(ask("eval", &seeds).succeeded().json()["seed"], 3);
    let predicted = ask("predict", &seeds).succeeded().events();
    assert_eq!(predicted.len(), 4);
    for object in &predicted {
        let scores =
            ["bad", "glad"].map(|label| object["scores"][label].as_f64().expect("a score"));
        assert!((scores[0] + scores[1] - 1.0).abs() < 1e-9, "{object}");
        let label = ["bad", "glad"][usize::from(scores[1] > scores[0])];
        assert_eq!(object["label"], label);
    }
    let words = [
        "--shots",
        "0",
        "--label-words",
        "bad=sad,glad=happy",
        "--template",
        "{text} So {label}",
    ];
    let text = ask("predict", &words).succeeded().out;
    assert!(text.starts_with("row,label,score\n0,"), "{text}");

    ask("eval", &["--shots", "2"]).failed(1, "no file of examples", "--examples FILE");
    ask("predict", &["--seed", "2"]).failed(2, "--shots", "");
    ask("eval", &["--shots", "0", "--label-words", "bad"]).failed(2, "LABEL=WORD", "");
    let template = [&examples[..4], &["--template", "{text}:"]].concat();
    ask("eval", &template).failed(1, "has no {label}", "Label: {label}");
}
