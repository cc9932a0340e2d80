//! Tables as users have them.

use std::fmt::Write as _;

use reparam_train::TrainError;
use reparam_train::event::FailureKind;

use super::{Place, finish};
use crate::witness::{Witness, read_events};

/// Rows `a, b, y` of `y = 2 a - b + 3` on a grid without pattern.
fn plane(rows: usize, y: impl Fn(f64) -> f64) -> String {
    let mut text = "a,b,y\n".to_owned();
    for row in 0..rows {
        let (a, b) = ((row * 7 % 11) as f64, (row * 5 % 13) as f64);
        writeln!(text, "{a},{b},{:e}", y(2.0 * a - b + 3.0)).expect("text");
    }
    text
}

const TARGET: &str = "target = \"y\"";

#[track_caller]
fn trains(text: &str, data: &str) -> (Place, Witness) {
    let place = Place::new();
    place.write("table.csv", text);
    let witness = finish(&place.csv_config("run", data, "[train]\nmax_steps = 300"));
    (place, witness)
}

#[track_caller]
fn refused(text: &str, data: &str) -> TrainError {
    let place = Place::new();
    place.write("table.csv", text);
    let mut witness = Witness::default();
    let config = place.csv_config("run", data, "");
    let error = witness.regress(&config).expect_err("a wrong table");
    assert_eq!(error.kind(), FailureKind::Data, "{error}");
    assert!(
        witness.events.is_empty() && !place.path("run").exists(),
        "{error}"
    );
    error
}

#[test]
fn a_law_is_found_exactly() {
    let (place, _) = trains(&plane(60, |y| y), TARGET);
    let report = place.report("run");
    let found = report.coefficients.expect("linear");
    assert!(
        (found[0] - 2.0).abs() < 1e-9 && (found[1] + 1.0).abs() < 1e-9,
        "{found:?}"
    );
    assert!((report.intercept.expect("linear") - 3.0).abs() < 1e-9);
    assert!(report.test_mse < 1e-15 && report.test_r2.expect("a share") > 1.0 - 1e-12);
}

/// Order and unit of the numbers do not matter as long as their squares are numbers.
#[test]
fn units_do_not_matter() {
    for unit in [1e-140, 1e-9, 1e9, 1e140] {
        let (place, _) = trains(&plane(60, |y| y * unit), TARGET);
        let report = place.report("run");
        assert_eq!(report.is_least_squares, Some(true), "{unit:e}");
        assert!(report.test_r2.expect("a share") > 1.0 - 1e-9, "{unit:e}");
        read_events(&place.path("run"));
    }
    for unit in [1e-300, 1e-160, 1e160, 1e300] {
        let error = refused(&plane(60, |y| y * unit), TARGET);
        let message = error.to_string();
        assert!(
            message.contains("squared errors of the target `y`"),
            "{message}"
        );
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("another unit"))
        );
    }
}

/// Few rows hold out one, and one row has no variance to explain.
#[test]
fn a_constant_target_in_the_test_rows_has_no_explained_share() {
    for rows in [4, 5] {
        let (place, witness) = trains(&plane(rows, |y| y), TARGET);
        let report = place.report("run");
        assert_eq!(report.test_r2, None);
        assert!(report.test_mse.is_finite());
        assert_eq!(read_events(&place.path("run")), witness.events);
    }
    // A rare event: the held-out rows have none of it.
    let mut text = "a,y\n".to_owned();
    for row in 0..40 {
        writeln!(text, "{row},{}", u8::from(row == 7)).expect("text");
    }
    let (place, _) = trains(&text, "target = \"y\"\nsplit_seed = 1");
    let test = place.json("run", "split.json")["test"].to_string();
    assert!(
        !test.contains("[7,") && !test.contains(",7,") && !test.contains(",7]"),
        "{test}"
    );
    assert_eq!(place.report("run").test_r2, None);
}

#[test]
fn a_feature_may_be_the_target_itself() {
    let mut text = "a,twin,y\n".to_owned();
    for row in 0..30 {
        let y = row * row % 11;
        writeln!(text, "{},{y},{y}", row % 7).expect("text");
    }
    let (place, _) = trains(&text, TARGET);
    let found = place.report("run").coefficients.expect("linear");
    assert!(
        found[0].abs() < 1e-9 && (found[1] - 1.0).abs() < 1e-9,
        "{found:?}"
    );
}

#[test]
fn rows_may_repeat() {
    let text = format!("a,y\n{}", "1,2\n2,3\n5,9\n".repeat(20));
    let (place, _) = trains(&text, TARGET);
    assert_eq!(place.report("run").is_least_squares, Some(true));
}

#[test]
fn files_of_other_systems_are_read() {
    let plain = trains(&plane(40, |y| y), TARGET).0.report("run");
    let text = plane(40, |y| y);
    for variant in [
        format!("\u{feff}{}", text.replace('\n', "\r\n")),
        text.trim_end().to_owned(),
        text.replace(',', " , "),
        text.replace("a,b,y", "\"a\",\"b\",\"y\""),
        text.replace('\n', "\n\n"),
    ] {
        assert_eq!(trains(&variant, TARGET).0.report("run"), plain);
    }
}

#[test]
fn columns_are_chosen_and_rows_without_values_dropped() {
    let mut text = "name,b,y,a\n".to_owned();
    for row in 0..50 {
        let (a, b) = (row * 7 % 11, row * 5 % 13);
        let y = if row == 20 {
            "?".to_owned()
        } else {
            (2 * a - b + 3).to_string()
        };
        let b = if row == 10 {
            String::new()
        } else {
            b.to_string()
        };
        writeln!(text, "row {row},{b},{y},{a}").expect("text");
    }
    let data = "target = \"y\"\nfeatures = [\"a\", \"b\"]\nmissing = \"drop_rows\"";
    let (place, witness) = trains(&text, data);
    let data = &witness.start().data;
    assert_eq!(data["features"], serde_json::json!(["a", "b"]));
    let rows = |name: &str| data[name].as_u64().expect("a count");
    assert_eq!(
        (rows("dropped_rows"), rows("train_rows") + rows("test_rows")),
        (2, 48)
    );
    let found = place.report("run").coefficients.expect("linear");
    assert!(
        (found[0] - 2.0).abs() < 1e-9 && (found[1] + 1.0).abs() < 1e-9,
        "{found:?}"
    );
    let split = place.json("run", "split.json");
    let rows: Vec<usize> = ["train", "test"]
        .iter()
        .flat_map(|part| serde_json::from_value::<Vec<usize>>(split[part].clone()).expect("rows"))
        .collect();
    assert!(
        !rows.contains(&10) && !rows.contains(&20) && rows.contains(&49),
        "{rows:?}"
    );
}

#[test]
fn tables_that_teach_nothing_are_refused() {
    for (text, message) in [
        ("a,y\n1,2\n", "leaves no row for training"),
        ("a,y\n1,2\n2,3\n", "constant over the 1 rows"),
        (
            &format!("a,y\n{}", "1,2\n".repeat(20)),
            "constant over the 16 rows: `a`",
        ),
        (
            &format!("a,y\n{}", "1,2\n3,2\n".repeat(20)),
            "the target `y` is constant",
        ),
        (
            "a,b,c,d,y\n1,2,3,4,5\n2,3,5,7,1\n1,4,9,6,2\n2,7,1,8,2\n",
            "3 rows cannot determine 4 coefficients",
        ),
    ] {
        let error = refused(text, TARGET);
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint().is_some(), "{error}");
    }
}

/// A hundred thousand rows are no special case.
#[test]
fn large_tables_are_read_and_learned_from() {
    let (place, _) = trains_for(&plane(100_000, |y| y), 5);
    assert_eq!(
        place.json("run", "split.json")["test"]
            .as_array()
            .expect("rows")
            .len(),
        20_000
    );
    assert!(place.report("run").test_r2.expect("a share") > 0.5);
}

fn trains_for(text: &str, steps: u64) -> (Place, Witness) {
    let place = Place::new();
    place.write("table.csv", text);
    let train = format!("[train]\nmax_steps = {steps}");
    let witness = finish(&place.csv_config("run", TARGET, &train));
    (place, witness)
}

/// A network may learn from columns that say the same, where there is no single exact solution.
#[test]
fn a_network_needs_no_exact_solution() {
    let mut text = "a,b,y\n".to_owned();
    for row in 0..40 {
        let a = f64::from(row * 7 % 11);
        writeln!(text, "{a},{},{}", 2.0 * a, a * a).expect("text");
    }
    let error = refused(&text, TARGET);
    assert!(error.to_string().contains("linear"), "{error}");

    let place = Place::new();
    place.write("table.csv", &text);
    let mut config = place.csv_config("run", TARGET, "[train]\nmax_steps = 50");
    config.model.kind = reparam_train::config::RegressionModelKind::Mlp {
        hidden: vec![4],
        activation: reparam_train::config::Activation::Tanh,
    };
    finish(&config);
    let report = place.report("run");
    assert_eq!(report.least_squares_test_mse, None);
    assert!(report.test_mse.is_finite());
}
