//! Regressions, predictions and studies with an engine that does as the tests say.

use std::io;

use serde_json::json;

use super::*;

const REGRESSION: &str = "\
[model]
task = \"regression\"
[data]
generate = { samples = 9, features = 2 }
[output]
dir = \"runs/a\"
";

/// Invokes the program with a run file in place of `RUN`.
fn with_run_file(args: &[&str], behaviour: Behaviour) -> Ran {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("run.toml");
    std::fs::write(&file, REGRESSION).expect("a file");
    let file = file.to_str().expect("UTF-8");
    let args: Vec<&str> = args
        .iter()
        .map(|arg| if *arg == "RUN" { file } else { *arg })
        .collect();
    invoke_with(&args, behaviour, Environment::of(&[]))
}

#[test]
fn a_regression_reports_in_text() {
    let ran = with_run_file(&["train", "RUN"], Behaviour::Finishes);
    assert_eq!(ran.code, 0, "{}", ran.err);
    insta::assert_snapshot!(ran.out, @r#"
    model       linear from 2 features to y, 3 parameters
    method      identity
    data        1,600 rows to learn from, 1 held out, 2 rows left out for missing values
    run         2 steps of 1,600 rows, learning rate 0.1, lambda 0.25, seed 0
    output      runs/a
    evaluation  step 0: test mean squared error 4000.0000, R2 -0.5000
    evaluation  step 1: test mean squared error 2.500e-4
    stopped     step 1: the gradient's norm is 1.5e-4, less than 1e-3
    result      test mean squared error 2.500e-7; train 2.500000
    exact       least squares: test mean squared error 0.125000, R2 0.750000
    distance    2.0e-3 of the largest coefficient: not at the least-squares solution yet
    saved       step 1: runs/a/model
    finished    1 step in 0.2s, test mean squared error 4000.0000 -> 2.500e-4
    model       runs/a/model
    "#);
    insta::assert_snapshot!(ran.err, @r#"step 1/2  loss 1.5000  learning rate 1.000e-1  gradient 2.000e0  1000000 rows/s  16.0 MiB"#);
    let quiet = with_run_file(&["train", "RUN", "-q"], Behaviour::Finishes);
    assert_eq!((quiet.code, quiet.err.as_str()), (0, ""));
    insta::assert_snapshot!(quiet.out, @r#"
    finished    1 step in 0.2s, test mean squared error 4000.0000 -> 2.500e-4
    model       runs/a/model
    "#);
}

#[test]
fn a_regression_prints_every_event_as_json() {
    let args = ["train", "RUN", "--json", "--output", "elsewhere"];
    let ran = with_run_file(&args, Behaviour::Finishes);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let events: Vec<Event> = ran
        .out
        .lines()
        .map(|line| Event::from_json_line(line).expect(line))
        .collect();
    let Event::RegressionStart(start) = &events[0] else {
        panic!("{:?}", events[0]);
    };
    assert_eq!(start.output, Path::new("elsewhere"));
    assert_eq!(events.len(), 8);
}

#[test]
fn predictions_are_csv_with_errors_beside_it() {
    let args = ["predict", "--model", "runs/a", "--data", "new.csv"];
    let ran = invoke(&args);
    assert_eq!(ran.code, 0);
    insta::assert_snapshot!(ran.out, @r#"
    row,"price, in euro"
    0,1.5
    2,-2
    "#);
    insta::assert_snapshot!(ran.err, @r#"mean squared error 0.2500, R2 0.5000"#);
    let dropped = invoke(&[&args[..], &["--drop-rows"]].concat());
    assert!(dropped.err.starts_with("1 row left out"), "{}", dropped.err);
    assert_eq!(dropped.out, ran.out);
    let quiet = invoke(&[&args[..], &["-q"]].concat());
    assert_eq!((quiet.out, quiet.err.as_str()), (ran.out, ""));
    let ran = invoke(&[&args[..], &["--json"]].concat());
    insta::assert_snapshot!(ran.out, @r#"{"target":"price, in euro","rows":[0,2],"predictions":[1.5,-2.0],"dropped":[],"mse":0.25,"r2":0.5}"#);
    let ran = invoke(&["predict", "--model", "absent", "--data", "new.csv"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert_eq!(ran.err, "error: no such model\nhint: check the path\n");
}

#[test]
fn predictions_stop_when_nobody_reads() {
    let mut out = Closes {
        left: Cell::new(0),
        kind: io::ErrorKind::BrokenPipe,
    };
    let args = ["predict", "--model", "runs/a", "--data", "new.csv"];
    let ran = invoke_to(&args, Behaviour::default(), Environment::of(&[]), &mut out);
    assert_eq!((ran.code, ran.err.as_str()), (3, ""));
}

#[test]
fn a_study_prints_its_table() {
    let args = ["study", "RUN", "--vary", "optimizer.lambda=0.1,30"];
    let ran = with_run_file(&args, Behaviour::Finishes);
    assert_eq!(ran.code, 0, "{}", ran.err);
    insta::assert_snapshot!(ran.out, @r#"
    setting     ended by    steps  first loss  last loss  held out  longest step  update / gradient variance
    lambda=0.1  steps        1000      2.0000     0.2500    0.5000        0.1250                      0.0100
    lambda=30   divergence   1000      2.0000     0.2500         -        0.1250                      0.0100

    page        studies/a/study.html
    "#);
    insta::assert_snapshot!(ran.err, @r#"
    lambda=0.1  loss 2.0000 -> 0.2500
    lambda=30  diverged: it grew
    "#);
    let ran = with_run_file(&[&args[..], &["--json"]].concat(), Behaviour::Finishes);
    assert_eq!(ran.json()["page"], "studies/a/study.html");
    assert_eq!(ran.json()["runs"][1]["failed"], "it grew");
    assert_eq!(ran.json()["runs"][1]["diverged"], true);
    assert_eq!(ran.json()["runs"][0]["failed"], json!(null));
}

#[test]
fn an_interrupted_study_exits_with_130() {
    let args = ["study", "RUN", "--vary", "optimizer.lambda=0.1,30"];
    let ran = with_run_file(&args, Behaviour::IsInterrupted);
    assert_eq!((ran.code, ran.out.as_str()), (130, ""));
    assert_eq!(
        ran.err,
        "error: interrupted; the runs that are done are in the study's directory\n"
    );
    let ran = with_run_file(&[&args[..], &["--json"]].concat(), Behaviour::IsInterrupted);
    assert_eq!(ran.json()["error"]["kind"], "interrupted");
    assert_eq!(ran.json()["error"]["exit_code"], 130);
}

#[test]
fn what_a_study_varies_has_a_form() {
    for (text, problem) in [
        ("lambda=1", "does not start with section.key"),
        ("optimizer.lambda", "has no `=`"),
        ("optimizer.lambda=1,", "has an empty value"),
        ("optimizer.lambda=1,1", "has a value twice"),
    ] {
        let ran = with_run_file(&["study", "RUN", "--vary", text], Behaviour::Finishes);
        assert_eq!(ran.code, 1);
        assert!(
            ran.err
                .starts_with(&format!("error: `{text}` {problem}\nhint: ")),
            "{}",
            ran.err
        );
    }
}
