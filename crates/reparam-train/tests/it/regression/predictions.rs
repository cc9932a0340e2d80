//! Saved models: read again, applied to files, refused where they are something else.

use reparam_data::tabular::{mse, r2};
use reparam_train::TrainError;
use reparam_train::regression::{MissingPolicy, RegressionModel, predict_file};
use serde_json::Value;

use super::{Place, finish};
use crate::repository;

/// A place with a model in `run` that was trained on `table.csv`.
fn trained() -> Place {
    let place = Place::new();
    let mut text = "a,\"b, in cm\",y\n".to_owned();
    for row in 0..40 {
        let (a, b) = (row * 7 % 11, row * 5 % 13);
        text += &format!("{a},{b},{}\n", 2 * a - b + row % 3);
    }
    place.write("table.csv", &text);
    let train = "[train]\nmax_steps = 200\n";
    finish(&place.csv_config("run", "target = \"y\"", train));
    place
}

#[test]
fn the_run_directory_and_the_model_in_it_are_the_same_model() {
    let place = trained();
    let x = [1.0, 2.0, -3.0, 0.5];
    let predict = |path: &str| {
        let model = RegressionModel::load(&place.path(path)).expect("a model");
        assert_eq!(model.features(), ["a", "b, in cm"]);
        assert_eq!(model.target(), "y");
        model.predict(&x).expect("predicts")
    };
    assert_eq!(predict("run"), predict("run/model"));
    assert_eq!(predict("run").len(), 2);
    // A part of a row is none.
    let error = place.model("run").predict(&x[..3]).expect_err("half a row");
    assert!(error.to_string().contains('3'), "{error}");
    assert!(place.model("run").predict(&[]).expect("no rows").is_empty());
}

#[test]
fn a_saved_model_can_be_saved_again() {
    let place = trained();
    place
        .model("run")
        .save(&place.path("copy"))
        .expect("writes");
    for name in ["config.json", "model.safetensors"] {
        let bytes = |run: &str| std::fs::read(place.path(run).join(name)).expect(name);
        assert_eq!(bytes("copy"), bytes("run/model"), "{name}");
    }
}

/// A file that could be read in two ways is read as the table that was trained on; a model says so only where it has to.
#[test]
fn numbers_mean_what_they_meant_in_training() {
    let place = Place::new();
    let rows: String = (0..20)
        .map(|row| format!("{}.234;{},5\n", row + 1, row * 3 % 7))
        .collect();
    place.write("table.csv", &format!("a;y\n{rows}"));
    let train = "[train]\nmax_steps = 20\n";
    finish(&place.csv_config("run", "target = \"y\"", train));
    place
        .model("run")
        .save(&place.path("copy"))
        .expect("writes");
    let expected = place
        .model("run")
        .predict(&[1234.0, 5000.0])
        .expect("predicts");
    let path = place.write("new.csv", "a\n1.234\n5.000\n");
    for run in ["run", "copy"] {
        let model = RegressionModel::load(&place.path(run)).expect("a model");
        let found = predict_file(&model, &path, MissingPolicy::Error).expect("predicts");
        assert_eq!(found.predictions, expected, "{run}");
    }
    let path = place.write("plain.csv", "a\n0.5\n");
    let error = predict_file(&place.model("run"), &path, MissingPolicy::Error);
    let error = error.expect_err("another notation");
    assert!(error.to_string().contains("0.5"), "{error}");
    let hint = error.hint().expect("a hint");
    assert!(hint.contains("with a comma"), "{hint}");
    // Of a plain table nothing is said, as before there was anything to say.
    let config = std::fs::read_to_string(trained().path("run/model/config.json"));
    assert!(!config.expect("a file").contains("notation"));
}

#[test]
fn a_file_is_predicted_row_by_row() {
    let place = trained();
    let model = place.model("run");
    // Columns in another order, one that is not needed, and a target for all rows.
    let path = place.write(
        "new.csv",
        "y,z,\"b, in cm\",a\n1,x,2,3\n-4,y,0.5,7\n2,z,4,1\n",
    );
    let found = predict_file(&model, &path, MissingPolicy::Error).expect("predicts");
    let expected = model
        .predict(&[3.0, 2.0, 7.0, 0.5, 1.0, 4.0])
        .expect("predicts");
    assert_eq!(found.predictions, expected);
    assert_eq!(
        (found.target.as_str(), &found.rows[..]),
        ("y", &[0, 1, 2][..])
    );
    let known = [1.0, -4.0, 2.0];
    let metrics = found.metrics.expect("a target for all rows");
    assert_eq!(metrics.primary(), mse(&expected, &known).expect("an error"));
    assert_eq!(metrics.get("r2"), r2(&expected, &known).ok());
    assert_eq!(metrics.get("rmse"), Some(metrics.primary().sqrt()));
    let off = expected
        .iter()
        .zip(known)
        .map(|(y, known)| (y - known).abs());
    assert_eq!(metrics.get("mae"), Some(off.sum::<f64>() / 3.0));
    assert_eq!(metrics.get("examples"), Some(3.0));

    // Without the target, or with some of it, there are predictions and no errors.
    for text in [
        "a,\"b, in cm\"\n3,2\n7,0.5\n1,4\n",
        "a,\"b, in cm\",y\n3,2,1\n7,0.5,\n1,4,2\n",
        "a,\"b, in cm\",y\n3,2,\n7,0.5,\n1,4,\n",
    ] {
        let path = place.write("new.csv", text);
        for missing in [MissingPolicy::Error, MissingPolicy::DropRows] {
            let found = predict_file(&model, &path, missing).expect("predicts");
            assert_eq!(found.predictions, expected, "{text}");
            assert_eq!(found.metrics, None, "{text}");
            assert!(found.dropped.is_empty());
        }
    }
    // One row has an error and no variance.
    let path = place.write("new.csv", "a,\"b, in cm\",y\n3,2,1\n");
    let found = predict_file(&model, &path, MissingPolicy::Error).expect("predicts");
    let metrics = found.metrics.expect("an error");
    assert!(metrics.primary().is_finite());
    assert_eq!(metrics.values()["r2"], Value::Null);
}

#[test]
fn rows_without_a_feature_are_refused_or_dropped() {
    let place = trained();
    let model = place.model("run");
    let path = place.write(
        "new.csv",
        "a,\"b, in cm\",y\n3,2,1\n,0.5,2\n1,4,3\n2,NA,4\n",
    );
    let error = predict_file(&model, &path, MissingPolicy::Error).expect_err("values are missing");
    assert!(
        error.to_string().contains("missing values in 2 of 4 rows"),
        "{error}"
    );
    let found = predict_file(&model, &path, MissingPolicy::DropRows).expect("predicts");
    let expected = model.predict(&[3.0, 2.0, 1.0, 4.0]).expect("predicts");
    assert_eq!(found.predictions, expected);
    // Rows are counted from 0 without the header, lines from 1 with it.
    assert_eq!((found.rows, found.dropped), (vec![0, 2], vec![3, 5]));
    assert_eq!(
        found.metrics.map(|metrics| metrics.primary()),
        Some(mse(&expected, &[1.0, 3.0]).expect("an error"))
    );
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let place = trained();
    let model = place.model("run");
    for (text, message, hint) in [
        ("a,b\n1,2\n", "no column `b, in cm` for the features", None),
        (
            "a,\"b, in mm\"\n1,2\n",
            "no column `b, in cm`",
            Some("did you mean `b, in mm`?"),
        ),
        ("", "is empty", Some("first line")),
        ("a,\"b, in cm\"\n", "has no rows", Some("first line")),
        (
            "a,\"b, in cm\"\nx,2\n",
            "new.csv:2: column `a` is not a number",
            Some("correct"),
        ),
        (
            "a,\"b, in cm\",y\n1,2,x\n",
            "new.csv:2: column `y` is not a number",
            Some("correct"),
        ),
        (
            "a,\"b, in cm\"\n1,2,3\n",
            "expected 2 cells",
            Some("double quotes"),
        ),
        (
            "a,\"b, in cm\"\n1,2\n1.7e308,-1.7e308\n",
            "is not finite",
            Some("values"),
        ),
    ] {
        let path = place.write("new.csv", text);
        let error = predict_file(&model, &path, MissingPolicy::Error).expect_err(message);
        assert!(error.to_string().contains(message), "{error}");
        let found = error.hint();
        if let Some(hint) = hint {
            assert!(
                found.as_ref().is_some_and(|found| found.contains(hint)),
                "{found:?}"
            );
        }
    }
}

#[test]
fn what_is_no_regression_is_refused_with_the_reason() {
    let place = trained();
    let refused = |path: &std::path::Path, reason: &str| {
        let error = RegressionModel::load(path).expect_err("it is none");
        assert!(error.to_string().contains(reason), "{error}");
        if matches!(error, TrainError::NotARegression { .. }) {
            assert!(
                error
                    .hint()
                    .is_some_and(|hint| hint.contains("run directory"))
            );
        }
    };
    refused(
        &place.path("nothing"),
        "config.json is not a regression's: there is no such file",
    );
    refused(&place.path("table.csv"), "there is no such file");
    refused(place.directory.path(), "there is no such file");
    let llama = repository("assets/stories260K");
    refused(
        &llama,
        "its model_type is `llama`, not `reparam-regression`",
    );

    let damage = |change: &dyn Fn(&mut Value)| {
        let copy = place.path("copy");
        let _ = std::fs::remove_dir_all(&copy);
        place.model("run").save(&copy).expect("writes");
        let mut config = place.json("copy", "config.json");
        change(&mut config);
        std::fs::write(copy.join("config.json"), config.to_string()).expect("writes");
        copy
    };
    refused(
        &damage(&|config| config["features"] = serde_json::json!([])),
        "no features",
    );
    refused(
        &damage(&|config| config["features"] = serde_json::json!(["a"])),
        "[1, 1]",
    );
    refused(
        &damage(&|config| config["features"] = serde_json::json!(3)),
        "invalid type",
    );
    refused(
        &damage(&|config| config["activation"] = "gelu".into()),
        "no activation `gelu`",
    );
    refused(
        &damage(&|config| *config = serde_json::json!([])),
        "no model_type",
    );
    let copy = damage(&|_| {});
    std::fs::write(copy.join("config.json"), "{").expect("writes");
    refused(&copy, "EOF");
    let copy = damage(&|_| {});
    let weights = std::fs::read(copy.join("model.safetensors")).expect("weights");
    std::fs::write(
        copy.join("model.safetensors"),
        &weights[..weights.len() - 4],
    )
    .expect("writes");
    refused(&copy, "model.safetensors");
    let copy = damage(&|_| {});
    let mut bytes = weights.clone();
    let at = bytes.len() - 8;
    bytes[at..].copy_from_slice(&f64::NAN.to_le_bytes());
    std::fs::write(copy.join("model.safetensors"), bytes).expect("writes");
    refused(&copy, "finite");
    std::fs::remove_file(copy.join("model.safetensors")).expect("removes");
    refused(&copy, "model.safetensors");
}
