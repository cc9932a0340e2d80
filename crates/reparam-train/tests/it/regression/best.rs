//! A regression that learns its noise: the result is the model before that.

use reparam_train::event::FailureKind;
use reparam_train::tasks::Regression;
use reparam_train::{Outcome, TaskRun};

use super::Place;
use crate::witness::Witness;

/// More features than the rows can tell, and noise that drowns them.
const NOISY: [&str; 3] = [
    "data.generate={ samples = 40, features = 24, noise = 400.0, seed = 1 }",
    "train.eval_every=5",
    "train.max_steps=300",
];

#[test]
fn the_result_is_the_model_with_the_least_held_out_error() {
    let place = Place::new();
    let witness = place.finish("run", &NOISY);
    let evaluations = witness.evaluations();
    let best = evaluations[1..].iter().min_by(|a, b| a.1.total_cmp(&b.1));
    let (step, value) = *best.expect("evaluations");
    let (_, last) = *evaluations.last().expect("evaluations");
    assert!((5..300).contains(&step) && last > value, "{evaluations:?}");
    let finished = witness.finished();
    assert_eq!((finished.steps, finished.best_step), (300, Some(step)));
    assert_eq!(
        (finished.best_loss, finished.last_loss),
        (Some(value), Some(last))
    );
    assert_eq!(finished.after, Some(value));
    assert_eq!(finished.improved, Some(value < evaluations[0].1));
    // The report is that of the result, and the file is that of a run that ends there.
    assert_eq!(place.report("run").test_mse, value);
    let steps = format!("train.max_steps={step}");
    place.finish("shorter", &[NOISY[0], NOISY[1], &steps]);
    assert!(place.weights("run") == place.weights("shorter"));
    assert!(!place.path("run/checkpoints/best-000005").exists());

    place.finish("last", &[&NOISY[..], &["train.keep=last"]].concat());
    assert_eq!(place.report("last").test_mse, last);
    assert!(place.weights("run") != place.weights("last"));

    // Patience ends a run where it has learned nothing new for long; its result is no later. What the run starts from
    // counts as the best so far.
    let patient = [&NOISY[..], &["train.patience=4"]].concat();
    let witness = place.finish("patient", &patient);
    assert_eq!(witness.finished().best_step, Some(step));
    let since = if value < evaluations[0].1 { step } else { 0 };
    assert_eq!(witness.finished().steps, since + 20);
    assert!(place.weights("patient") == place.weights("run"));
}

/// R2 is a falling function of the squared error, so both choose the same model; a count chooses none.
#[test]
fn a_named_metric_decides_which_model_is_best() {
    let place = Place::new();
    let by_error = place.finish("error", &NOISY);
    let by_share = place.finish("share", &[&NOISY[..], &["train.metric=r2"]].concat());
    let finished = by_share.finished();
    assert_eq!(finished.metric.as_deref(), Some("r2"));
    assert_eq!(finished.best_step, by_error.finished().best_step);
    assert!(place.weights("error") == place.weights("share"));
    assert!(finished.best_loss > finished.last_loss, "{finished:?}");
    // Patience looks at it, too: it ends where it does by the error.
    let patient = [&NOISY[..], &["train.patience=4"]].concat();
    let steps = place.finish("patient", &patient).finished().steps;
    let patient = [&patient[..], &["train.metric=r2"]].concat();
    assert_eq!(place.finish("by_share", &patient).finished().steps, steps);
    // A run that goes on chooses as one that was never stopped.
    let config = place.config("stopped", &[&NOISY[..], &["train.metric=r2"]].concat());
    let mut witness = Witness {
        stop_at: Some(150),
        ..Witness::default()
    };
    let outcome = witness.regress(&config).expect("it ends well");
    assert_eq!(outcome, Outcome::Interrupted { step: 150 });
    let mut witness = Witness::default();
    let run = TaskRun::of::<Regression>(config);
    witness.run(&run, true).expect("it goes on");
    assert_eq!(witness.finished().best_step, finished.best_step);
    assert!(place.weights("stopped") == place.weights("share"));
}

#[test]
fn a_metric_that_is_not_measured_ends_the_run_before_its_first_step() {
    let place = Place::new();
    let (error, witness) = place.fail("run", &["train.metric=rmsee"]);
    assert_eq!(
        error.to_string(),
        "the evaluations of this run have no metric `rmsee`"
    );
    assert_eq!(error.kind(), FailureKind::Config);
    assert_eq!(
        error.hint().expect("a way out"),
        "did you mean `rmse`? set train.metric to one of mse, rmse, mae, r2"
    );
    assert!(witness.steps().is_empty());
}
