//! `reparam predict`.

use serde_json::Value;

use crate::support::{Workplace, model, path_text, repository};

/// The tests' own reading of a line of CSV: cells are quoted where they hold a comma.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cells.last_mut().expect("a cell").push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            c => cells.last_mut().expect("a cell").push(c),
        }
    }
    assert!(!quoted, "{line}");
    cells
}

/// A place with a model in `run`, trained on `table.csv` to predict `price, in "euro"`.
fn trained() -> Workplace {
    let workplace = Workplace::new();
    let mut table = "a,\"b, in cm\",\"price, in \"\"euro\"\"\"\n".to_owned();
    for row in 0..40 {
        let (a, b) = (row * 7 % 11, row * 5 % 13);
        table += &format!("{a},{b},{}\n", 2 * a - b + row % 3);
    }
    workplace.write("table.csv", table.as_bytes());
    let run = "[model]\ntask = \"regression\"\n\
        [data]\ntrain = \"table.csv\"\ntarget = 'price, in \"euro\"'\n\
        [train]\nmax_steps = 200\n[output]\ndir = \"run\"\n";
    workplace.write("run.toml", run.as_bytes());
    workplace.train(&["train.log_every=200"]).succeeded();
    workplace
}

fn predict(workplace: &Workplace, model: &str, more: &[&str]) -> crate::support::Outcome {
    let args = ["predict", "--model", model, "--data", "new.csv"];
    workplace.reparam(&[&args, more].concat())
}

#[test]
fn predictions_are_csv_and_the_model_of_the_report() {
    let workplace = trained();
    let report: Value = serde_json::from_slice(&workplace.read("run/report.json")).expect("JSON");
    let numbers = |key: &str| -> Vec<f64> {
        let list = report[key].as_array().expect(key).iter();
        list.map(|x| x.as_f64().expect("a number")).collect()
    };
    let weights = numbers("coefficients");
    let intercept = report["intercept"].as_f64().expect("a number");

    // The whole table with its target: the error is that of the training and test rows together.
    workplace.write("new.csv", &workplace.read("table.csv"));
    let outcome = predict(&workplace, "run", &[]).succeeded();
    let mut lines = outcome.out.lines();
    assert_eq!(
        cells(lines.next().expect("a header")),
        ["row", "price, in \"euro\""]
    );
    let mut predictions = Vec::new();
    for (row, line) in lines.enumerate() {
        let cells = cells(line);
        assert_eq!(
            (cells.len(), cells[0].as_str()),
            (2, row.to_string().as_str())
        );
        predictions.push(cells[1].parse::<f64>().expect("a number"));
    }
    let table = workplace.read_text("table.csv");
    let known = table.lines().skip(1);
    assert_eq!(predictions.len(), 40);
    let mut sum = 0.0;
    for (line, prediction) in known.zip(&predictions) {
        let numbers: Vec<f64> = line
            .split(',')
            .map(|cell| cell.parse().expect("a number"))
            .collect();
        let expected = weights[0] * numbers[0] + weights[1] * numbers[1] + intercept;
        assert!(
            (prediction - expected).abs() < 1e-9,
            "{prediction} {expected}"
        );
        sum += (prediction - numbers[2]).powi(2);
    }
    let split: Value = serde_json::from_slice(&workplace.read("run/split.json")).expect("JSON");
    let rows = |part: &str| split[part].as_array().expect("rows").len() as f64;
    let mse = |part: &str| report[format!("{part}_mse")].as_f64().expect("a number");
    let both = (mse("train") * rows("train") + mse("test") * rows("test")) / 40.0;
    assert!(
        (sum / 40.0 / both - 1.0).abs() < 1e-9,
        "{} {both}",
        sum / 40.0
    );
    assert!(
        outcome
            .err
            .contains(&format!("mean squared error {both:.4}, R2 0.9")),
        "{outcome:?}"
    );

    // As JSON every row is an object of its own.
    let json = predict(&workplace, "run/model", &["--json"]).succeeded();
    let rows = predictions.iter().enumerate();
    let rows: Vec<Value> = rows
        .map(|(row, y)| serde_json::json!({ "row": row, "y": y }))
        .collect();
    assert_eq!(json.events(), rows);

    // And `eval` measures what is said beside the predictions.
    let args = ["eval", "--model", "run", "--data", "new.csv", "--json"];
    let eval = workplace.reparam(&args).succeeded().json();
    assert!((eval["mse"].as_f64().expect("an error") / both - 1.0).abs() < 1e-9);
    assert_eq!(eval["examples"], 40);
}

#[test]
fn a_file_without_the_target_is_predicted_without_errors() {
    let workplace = trained();
    workplace.write("new.csv", b"name,\"b, in cm\",a\nx,2,3\ny,0.5,7\n");
    let outcome = predict(&workplace, "run", &[]).succeeded();
    assert_eq!(outcome.out.lines().count(), 3);
    assert!(outcome.err.is_empty(), "{outcome:?}");
    let args = ["eval", "--model", "run", "--data", "new.csv"];
    let outcome = workplace.reparam(&args);
    outcome.failed(1, "new.csv does not have `price, in", "predictions alone");
}

#[test]
fn rows_with_missing_values_are_refused_or_left_out() {
    let workplace = trained();
    workplace.write("new.csv", b"a,\"b, in cm\"\n3,2\n,1\n7,0.5\n1,NA\n");
    let refused = predict(&workplace, "run", &[]).failed(
        1,
        "missing values in 2 of 4 rows, columns `a`, `b, in cm`, lines 3, 5",
        "--drop-rows",
    );
    assert!(refused.out.is_empty(), "{refused:?}");
    let outcome = predict(&workplace, "run", &["--drop-rows"]).succeeded();
    let rows: Vec<String> = outcome
        .out
        .lines()
        .skip(1)
        .map(|line| cells(line)[0].clone())
        .collect();
    assert_eq!(rows, ["0", "2"]);
    assert!(
        outcome.err.contains("2 rows left out for missing values"),
        "{outcome:?}"
    );
    let json = predict(&workplace, "run", &["--drop-rows", "--json"])
        .succeeded()
        .events();
    let rows: Vec<&Value> = json.iter().map(|row| &row["row"]).collect();
    assert_eq!(rows, [0, 2]);
}

#[test]
fn files_and_directories_that_do_not_fit() {
    let workplace = trained();
    workplace.write("new.csv", b"a,\"b, in mm\"\n3,2\n");
    predict(&workplace, "run", &[]).failed(
        1,
        "new.csv: no column `b, in cm` for the features, found `a`, `b, in mm`",
        "did you mean `b, in mm`?",
    );
    workplace.write("new.csv", b"a,\"b, in cm\"\n3,two\n");
    predict(&workplace, "run", &[]).failed(
        1,
        "new.csv:2: column `b, in cm` is not a number",
        "correct",
    );
    workplace.write("new.csv", b"");
    predict(&workplace, "run", &[]).failed(
        1,
        "new.csv is empty",
        "the first line names the columns",
    );
    workplace.write("new.csv", b"a,\"b, in cm\"\n3,2\n");
    let regression = ["--task", "regression"];
    let hint = "give the run directory of a regression";
    predict(&workplace, "nope", &regression).failed(
        1,
        "nope/config.json is not a regression's",
        hint,
    );
    predict(&workplace, &model(), &regression).failed(1, "its model_type is `llama`", hint);
    // Without the word, the model says what it is for.
    predict(&workplace, "nope", &[]).failed(1, "nope", "path");
    predict(&workplace, &model(), &[]).failed(1, "causal-lm cannot be used for", "");
    predict(&workplace, "run", &["--task", "telepathy"]).failed(
        1,
        "no such task: telepathy",
        "causal-lm, embedding, masked-lm, question-answering, regression",
    );
    let failed = predict(&workplace, "nope", &["--json"]);
    assert_eq!(failed.code, Some(1));
    assert_eq!(failed.json()["error"]["exit_code"], 1);
    let args = ["predict", "--model", "run", "--data", "new.csv.gz"];
    let outcome = workplace.reparam(&args);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome.err.contains("no such file: new.csv.gz"),
        "{outcome:?}"
    );
}

#[test]
fn options_that_a_task_does_not_look_at_are_refused() {
    let workplace = trained();
    workplace.write("new.csv", b"a,\"b, in cm\"\n3,2\n");
    workplace.write("texts.csv", b"text\nhello\n");
    let classifier = path_text(&repository().join("testdata/golden/bert/classifier"));
    let of = |command: &str, model: &str, data: &str, option: &[&str]| {
        let args = [command, "--model", model, "--data", data];
        workplace.reparam(&[&args, option].concat())
    };
    for (command, model, data, option, task) in [
        (
            "predict",
            "run",
            "new.csv",
            &["--sequence-length", "8"][..],
            "regression",
        ),
        (
            "eval",
            "run",
            "new.csv",
            &["--sequence-length", "8"],
            "regression",
        ),
        (
            "predict",
            "run",
            "new.csv",
            &["--precision", "f32"],
            "regression",
        ),
        (
            "eval",
            "run",
            "new.csv",
            &["--precision", "bf16"],
            "regression",
        ),
        (
            "predict",
            "run",
            "new.csv",
            &["--format", "tsv"],
            "regression",
        ),
        (
            "predict",
            "run",
            "new.csv",
            &["--on-error", "skip"],
            "regression",
        ),
        (
            "predict",
            &classifier,
            "texts.csv",
            &["--drop-rows"],
            "sequence-classification",
        ),
    ] {
        let error = format!(" has no effect for the task {task}");
        let hint = format!("leave {}", option[0]);
        let outcome = of(command, model, data, option).failed(1, &error, &hint);
        assert!(outcome.err.contains(option[0]), "{outcome:?}");
    }
    of("predict", &classifier, "texts.csv", &[]).succeeded();
}
