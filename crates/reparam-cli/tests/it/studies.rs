//! `reparam study`.

use serde_json::Value;

use crate::support::{Workplace, all_paths};

const RUN: &str = "[model]\ntask = \"regression\"\n\
    [data]\ngenerate = { samples = 40, features = 2, noise = 5.0, seed = 1 }\n\
    [train]\nmax_steps = 30\n[output]\ndir = \"study\"\n";

fn workplace() -> Workplace {
    let workplace = Workplace::new();
    workplace.write("run.toml", RUN.as_bytes());
    workplace
}

fn study(workplace: &Workplace, args: &[&str]) -> crate::support::Outcome {
    workplace.reparam(&[&["study", "run.toml"], args].concat())
}

#[test]
fn a_study_prints_a_table_and_writes_a_page() {
    let workplace = workplace();
    let vary = [
        "--vary",
        "optimizer.learning_rate=0.1,0.05",
        "--vary",
        "optimizer.lambda=1,1/sqrt(T),100",
    ];
    // A run that diverges is a result, not a failure.
    let outcome = study(&workplace, &vary).succeeded();
    let rows: Vec<&str> = outcome.out.lines().collect();
    assert!(rows[0].starts_with("setting "), "{outcome:?}");
    for (row, label, ended) in [
        (1, "learning_rate=0.1, lambda=1", "steps"),
        (2, "learning_rate=0.1, lambda=1/sqrt(T)", "steps"),
        (3, "learning_rate=0.1, lambda=100", "divergence"),
        (4, "learning_rate=0.05, lambda=1", "steps"),
        (6, "learning_rate=0.05, lambda=100", "divergence"),
    ] {
        let cells: Vec<&str> = rows[row]
            .split("  ")
            .map(str::trim)
            .filter(|c| !c.is_empty())
            .collect();
        assert_eq!((cells[0], cells[3]), (label, ended), "{}", rows[row]);
        assert_eq!(cells.len(), 9, "{}", rows[row]);
    }
    // All rows of the table are equally wide.
    let widths: Vec<usize> = rows[..7].iter().map(|row| row.chars().count()).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "{widths:?}");
    assert_eq!(rows[7], "");
    assert!(
        rows[8].starts_with("best        learning_rate=0."),
        "{outcome:?}"
    );
    assert_eq!(rows[9..], ["page        study/study.html"]);
    assert_eq!(outcome.err.lines().count(), 6, "{outcome:?}");
    assert!(
        outcome
            .err
            .contains("lambda=100  diverged: the loss went from"),
        "{outcome:?}"
    );

    let runs: Value = serde_json::from_slice(&workplace.read("study/study.json")).expect("JSON");
    assert_eq!(runs.as_array().expect("runs").len(), 6);
    for (index, run) in runs.as_array().expect("runs").iter().enumerate() {
        let directory = format!("study/run-{:02}", index + 1);
        assert_eq!(run["directory"], directory.as_str());
        assert!(workplace.path(&directory).join("events.jsonl").is_file());
        assert_eq!(
            run["failed"].is_null(),
            workplace.path(&directory).join("model").is_dir()
        );
    }
    let page = workplace.read_text("study/study.html");
    for name in ["held_out", "loss", "grad_variance", "update_variance"] {
        let svg = workplace.read_text(&format!("study/{name}.svg"));
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(page.contains(&svg));
    }
    for label in ["learning_rate=0.1, lambda=1/sqrt(T)", "divergence"] {
        assert!(page.contains(label), "{label}");
    }
    for path in all_paths(workplace.root()) {
        assert!(
            !path.to_string_lossy().ends_with(".tmp"),
            "{}",
            path.display()
        );
    }

    study(&workplace, &["--vary", "optimizer.lambda=0.5"]).failed(
        1,
        "study already holds a run",
        "--output",
    );
    study(
        &workplace,
        &["--vary", "optimizer.lambda=0.5", "--output", "other"],
    )
    .succeeded();
}

/// The other runs are made, the page shows all, and the exit code is that of the failure.
#[test]
fn a_run_that_fails_otherwise_than_by_divergence_is_a_row_and_an_exit_code() {
    let workplace = Workplace::new();
    let vary = ["--vary", "data.train=train.txt,missing.txt,held_out.txt"];
    let args = [&["study", "run.toml", "--output", "study"], &vary[..]].concat();
    let outcome = workplace.reparam(&args);
    assert!(outcome.out.contains("train=missing.txt"), "{outcome:?}");
    assert!(
        outcome.out.contains("page        study/study.html"),
        "{outcome:?}"
    );
    let page = workplace.read_text("study/study.html");
    assert!(page.contains("failure") && page.contains("train=held_out.txt"));
    assert!(workplace.path("study/run-03/adapter").is_dir());
    outcome.failed(1, "the run train=missing.txt of the study failed: ", "");

    let args = [
        &["study", "run.toml", "--output", "json", "--json"],
        &vary[..],
    ]
    .concat();
    let outcome = workplace.reparam(&args);
    assert_eq!(outcome.code, Some(1));
    let object = outcome.json();
    let message = object["error"]["message"].as_str().expect("a message");
    assert!(message.contains("missing.txt"), "{message}");
    assert!(workplace.path("json/study.json").is_file());
}

#[test]
fn json_is_one_object() {
    let workplace = workplace();
    let outcome = study(&workplace, &["--vary", "optimizer.lambda=1,0.5", "--json"]).succeeded();
    let object = outcome.json();
    assert_eq!(object["page"], "study/study.html");
    let written: Value = serde_json::from_slice(&workplace.read("study/study.json")).expect("JSON");
    assert_eq!(object["runs"], written);
    assert_eq!(object["runs"][1]["label"], "lambda=0.5");
    let failed = study(&workplace, &["--vary", "optimizer.lambda=1", "--json"]);
    assert_eq!(failed.code, Some(1));
    assert_eq!(failed.json()["error"]["kind"], "config");
}

#[cfg(unix)]
#[test]
fn an_interrupted_study_keeps_what_is_done() {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::process::{Command, Stdio};

    let workplace = workplace();
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("reparam"))
        .args([
            "study",
            "run.toml",
            "--vary",
            "train.max_steps=20,100000000,30",
        ])
        .args(["--set", "train.log_every=1000"])
        .env_clear()
        .current_dir(workplace.root())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut err = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    err.read_line(&mut line).expect("a line");
    assert!(line.starts_with("max_steps=20  loss "), "{line}");
    // The second run would take hours. Before its first step there is nothing to save.
    let events = workplace.path("study/run-02/events.jsonl");
    let has_learned = |events: String| events.contains(r#""event":"step""#);
    while !std::fs::read_to_string(&events).is_ok_and(has_learned) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let status = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("kill");
    assert!(status.success());
    let mut rest = String::new();
    err.read_to_string(&mut rest).expect("text");
    assert_eq!(child.wait().expect("an end").code(), Some(130), "{rest}");
    assert!(
        rest.contains("error: interrupted; finished runs are in the study's directory"),
        "{rest}"
    );
    assert!(workplace.path("study/run-01/model").is_dir());
    assert!(workplace.path("study/run-02/model").is_dir());
    assert!(!workplace.path("study/run-03").exists());
    assert!(!workplace.path("study/study.html").exists());
}
