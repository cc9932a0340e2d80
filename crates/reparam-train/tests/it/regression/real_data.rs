//! Known tables against scikit-learn, where they are at hand.
//!
//! `REPARAM_DATA` names a directory with `tabular/mpg.csv` (seaborn's table of cars) and
//! `tabular/california-housing/housing.csv` (Géron's table of districts):
//!
//! ```text
//! REPARAM_DATA=... cargo test -p reparam-train --test it real_data -- --ignored
//! ```

use std::path::PathBuf;

use reparam_train::RunFile as _;
use reparam_train::config::RegressionConfig;

use super::{Place, finish};

/// `LinearRegression` of scikit-learn on the same rows, as `tools/golden/check_regression.py` computes it.
const MPG_TEST_MSE: f64 = 13.471661;
const HOUSING_TEST_MSE: f64 = 4_675_467_079.11;
/// What the recorded digits allow.
const TOLERANCE: f64 = 1e-6;

fn table(path: &str) -> PathBuf {
    let root = std::env::var_os("REPARAM_DATA").expect("REPARAM_DATA names a directory");
    PathBuf::from(root).join("tabular").join(path)
}

fn test_mse(path: &str, target: &str, features: &[&str], rest: &str) -> f64 {
    let place = Place::new();
    let text = format!(
        "[model]\ntask = \"regression\"\n\
         [data]\ntrain = {:?}\ntarget = {target:?}\nfeatures = {features:?}\nmissing = \"drop_rows\"\nsplit_seed = 42\n\
         [output]\ndir = {:?}\n{rest}",
        table(path),
        place.path("run"),
    );
    let config = RegressionConfig::parse(&text, "run.toml", &[]).expect("a run file");
    finish(&config);
    let report = place.report("run");
    assert_eq!(report.is_least_squares, Some(true), "{report:?}");
    let exact = (report.least_squares_test_mse.expect("exact") / report.test_mse - 1.0).abs();
    assert!(exact < TOLERANCE, "{report:?}");
    report.test_mse
}

#[track_caller]
fn assert_near(found: f64, expected: f64) {
    assert!(
        (found / expected - 1.0).abs() < TOLERANCE,
        "{found} {expected}"
    );
}

#[test]
#[ignore = "needs REPARAM_DATA"]
fn cars() {
    let features = [
        "cylinders",
        "displacement",
        "horsepower",
        "weight",
        "acceleration",
        "model_year",
    ];
    let train = "[optimizer]\nlearning_rate = 0.3\nmomentum = 0.9\n[train]\nmax_steps = 3000\n";
    assert_near(test_mse("mpg.csv", "mpg", &features, train), MPG_TEST_MSE);
}

#[test]
#[ignore = "needs REPARAM_DATA; some seconds"]
fn districts() {
    let features = [
        "longitude",
        "latitude",
        "housing_median_age",
        "total_rooms",
        "total_bedrooms",
        "population",
        "households",
        "median_income",
    ];
    let train = "[optimizer]\nlearning_rate = 0.3\nmomentum = 0.95\n[train]\nmax_steps = 3000\nlog_every = 1000\n";
    let found = test_mse(
        "california-housing/housing.csv",
        "median_house_value",
        &features,
        train,
    );
    assert_near(found, HOUSING_TEST_MSE);
}
