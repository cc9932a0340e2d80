//! What ends a run: its steps, convergence, patience, an interrupt, divergence.

use std::sync::atomic::Ordering;

use reparam_train::event::{Event, FailureKind, StopReason};
use reparam_train::tasks::Regression;
use reparam_train::{Outcome, TaskRun, TrainError, TrainOptions};

use super::{Place, TRAIN_ROWS};
use crate::offline;
use crate::witness::{Witness, read_events};

#[test]
fn without_conditions_all_steps_are_made() {
    let place = Place::new();
    let witness = place.finish("run", &[]);
    assert_eq!(witness.stopped(), (60, StopReason::Steps));
    assert_eq!(witness.steps().len(), 60);
    assert_eq!(witness.finished().steps, 60);
}

/// Who asks for the end while all is being loaded keeps the earlier run.
#[test]
fn a_run_that_is_stopped_before_it_begins_replaces_nothing() {
    let place = Place::new();
    place.finish("run", &[]);
    let before = place.weights("run");
    let events = read_events(&place.path("run"));
    let run = TaskRun::of::<Regression>(place.config("run", &["train.seed=4"]));
    let options = TrainOptions {
        force: true,
        ..TrainOptions::new(offline())
    };
    let mut witness = Witness::default();
    witness.stop.store(true, Ordering::Relaxed);
    let error = witness.run_with(&run, &options).expect_err("it is stopped");
    assert!(matches!(error, TrainError::Interrupted), "{error}");
    assert_eq!(witness.events, []);
    assert_eq!(place.weights("run"), before);
    assert_eq!(read_events(&place.path("run")), events);
}

#[test]
fn each_condition_ends_a_run_and_says_so() {
    let place = Place::new();
    let long = "train.max_steps=3000";
    let ends = |run: &str, overrides: &[&str]| {
        let witness = place.finish(run, &[&[long], overrides].concat());
        let (step, reason) = witness.stopped();
        assert_eq!(witness.steps().len() as u64, step, "{run}");
        assert_eq!(witness.finished().steps, step, "{run}");
        assert!(step > 5 && step < 3000, "{run}: {step}");
        assert!(place.path(run).join("report.json").exists());
        place.model(run);
        (witness, step, reason)
    };

    let loss_change = ["train.stop_loss_change=1e-3", "train.stop_window=4"];
    let (witness, step, reason) = ends("loss", &loss_change);
    let StopReason::LossChange {
        change,
        bound,
        window,
    } = reason
    else {
        panic!("{reason:?}");
    };
    assert_eq!((bound, window), (1e-3, 4));
    let losses = witness.losses();
    let change_at = |end: usize| {
        let mean = |range: std::ops::Range<usize>| losses[range].iter().sum::<f64>() / 4.0;
        let (before, now) = (mean(end - 8..end - 4), mean(end - 4..end));
        (now - before).abs() / before
    };
    let step = usize::try_from(step).expect("small");
    assert!((change_at(step) - change).abs() <= 1e-12, "{change}");
    assert!(change < bound && change_at(step - 1) >= bound);

    let (witness, _, reason) = ends("gradient", &["train.stop_grad_norm=1e-3"]);
    let norms: Vec<f64> = witness.steps().iter().map(|step| step.grad_norm).collect();
    let (last, before) = norms.split_last().expect("steps");
    assert_eq!(
        reason,
        StopReason::GradNorm {
            grad_norm: *last,
            bound: 1e-3
        }
    );
    assert!(*last < 1e-3 && before.iter().all(|norm| *norm >= 1e-3));

    let (witness, step, reason) = ends("patience", &["train.patience=3", "train.eval_every=2"]);
    let errors = witness.evaluations();
    assert_eq!(errors[0].0, 0);
    let best = errors
        .iter()
        .fold(f64::MAX, |best, (_, error)| best.min(*error));
    assert_eq!(
        reason,
        StopReason::Patience {
            evaluations: 3,
            best
        }
    );
    let at = errors
        .iter()
        .find(|(_, error)| *error == best)
        .expect("the best")
        .0;
    assert_eq!(step, at + 6, "three evaluations after the best");
}

#[test]
fn a_run_that_is_asked_to_stop_keeps_its_model() {
    let place = Place::new();
    let mut witness = Witness {
        stop_at: Some(7),
        ..Witness::default()
    };
    let outcome = witness.regress(&place.config("run", &[])).expect("a run");
    assert_eq!(outcome, Outcome::Interrupted { step: 7 });
    let path = place.path("run/model");
    let tail = &witness.events[witness.events.len() - 2..];
    assert_eq!(
        tail,
        [
            Event::Saved { step: 7, path },
            Event::Interrupted { step: 7 }
        ]
    );
    assert_eq!(read_events(&place.path("run")), witness.events);
    // It is the model of seven steps, and no report speaks of a run that is not done.
    place.finish("seven", &["train.max_steps=7"]);
    assert!(place.weights("run") == place.weights("seven"));
    assert!(!place.path("run/report.json").exists());
}

/// The error, the events on disk, and what is not there.
#[track_caller]
fn diverges(place: &Place, run: &str, overrides: &[&str]) -> TrainError {
    let (error, witness) = place.fail(run, overrides);
    assert_eq!(error.kind(), FailureKind::Diverged, "{error}");
    assert!(matches!(error, TrainError::Grew { .. }), "{error}");
    let events = read_events(&place.path(run));
    let Some(Event::Failed { error: failure }) = events.last() else {
        panic!("{:?}", events.last());
    };
    assert_eq!(*failure, error.to_failure());
    assert_eq!(&events[..events.len() - 1], &witness.events[..]);
    assert!(!place.path(run).join("model").exists());
    assert!(!place.path(run).join("report.json").exists());
    error
}

#[test]
fn a_loss_that_grows_is_a_divergence_with_the_stable_rate() {
    let place = Place::new();
    let error = diverges(&place, "plain", &["optimizer.learning_rate=5"]);
    let TrainError::Grew {
        before,
        loss,
        stable_rate: Some(stable),
        lambda: Some(1.0),
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert!(loss > 1e4 * before, "{loss} {before}");
    let message = error.to_string();
    assert!(
        message.starts_with(&format!(
            "the loss went from {before:.4} to {loss:.3e} by step "
        )),
        "{message}"
    );
    assert!(message.contains("(learning rate 5, lambda 1)"), "{message}");
    let hint = error.hint().expect("a hint");
    assert!(
        hint.contains(&format!("stable while their product is below {stable:.4}")),
        "{hint}"
    );

    // It is the product that has to be below, and the bound is one: below it converges, above it grows.
    let with = |run: &str, factor: f64, lambda: f64| {
        let rate = format!("optimizer.learning_rate={}", factor * stable / lambda);
        let lambda = format!("optimizer.lambda={lambda}");
        let mut witness = Witness::default();
        let overrides = [rate.as_str(), &lambda, "train.max_steps=3000"];
        witness.regress(&place.config(run, &overrides))
    };
    assert!(with("below", 0.97, 1.0).is_ok());
    assert!(with("below-too", 0.97, 0.25).is_ok());
    assert_eq!(place.report("below").is_least_squares, Some(true));
    assert!(with("above", 1.03, 1.0).is_err());
    assert!(with("above-too", 1.03, 0.25).is_err());
}

#[test]
fn clipping_bounds_the_steps_and_does_not_hide_divergence() {
    let place = Place::new();
    for (run, rate) in [("slow", "4"), ("fast", "1e6"), ("very-fast", "3e38")] {
        let rate = format!("optimizer.learning_rate={rate}");
        let error = diverges(&place, run, &[&rate, "optimizer.clip_grad_value=1"]);
        assert!(
            error.hint().expect("a hint").contains("stable while"),
            "{error}"
        );
    }
}

#[test]
fn numbers_that_overflow_are_a_divergence() {
    let place = Place::new();
    // Each step multiplies what there is by the rate, so that f64 overflows in the fourth.
    for (run, rate, steps) in [("one", "1e30", "1"), ("all", "3e38", "20")] {
        let rate = format!("optimizer.learning_rate={rate}");
        let steps = format!("train.max_steps={steps}");
        let error = diverges(&place, run, &[&rate, &steps]);
        assert!(error.to_string().contains("by step"), "{error}");
    }
}

/// The bound is that of plain descent on the weights of a linear model, so nobody else is told it.
#[test]
fn other_models_and_methods_are_not_told_a_bound_that_is_not_theirs() {
    let place = Place::new();
    for (run, overrides) in [
        ("mlp", &["model.kind=mlp", "optimizer.learning_rate=50"][..]),
        (
            "lora",
            &[
                "method.kind=lora",
                "method.rank=1",
                "optimizer.learning_rate=0.3",
            ],
        ),
        (
            "scale",
            &[
                "method.kind=scale",
                "method.scale=10",
                "optimizer.learning_rate=0.3",
            ],
        ),
    ] {
        let error = diverges(&place, run, overrides);
        let hint = error.hint().expect("a hint");
        assert!(!hint.contains("stable"), "{run}: {hint}");
        assert!(hint.contains("optimizer.learning_rate"), "{run}: {hint}");
    }
}

#[test]
fn a_batch_larger_than_the_table_is_refused() {
    let place = Place::new();
    let (error, witness) = place.fail("run", &["train.batch_size=33"]);
    assert!(
        matches!(
            error,
            TrainError::BatchTooLarge {
                batch_size: 33,
                rows: TRAIN_ROWS
            }
        ),
        "{error}"
    );
    assert!(error.hint().is_some_and(|hint| hint.contains("at most 32")));
    assert_eq!(error.kind(), FailureKind::Config);
    assert!(witness.events.is_empty() && !place.path("run").exists());
}

#[test]
fn batches_are_of_the_size_and_from_the_seed() {
    let place = Place::new();
    let batches = [
        "train.batch_size=5",
        "train.max_steps=400",
        "optimizer.learning_rate=0.02",
    ];
    let witness = place.finish("a", &batches);
    // The last batch of an epoch has what is left: 32 rows are six times 5 and 2.
    for step in witness.steps() {
        let rows = if step.step % 7 == 0 { 2.0 } else { 5.0 };
        assert_eq!(
            (step.weight, step.unit.as_str()),
            (rows, "rows"),
            "{}",
            step.step
        );
    }
    assert_eq!(witness.start().batch_size, 5);
    place.finish("b", &batches);
    assert!(place.weights("a") == place.weights("b"));
    // The same first values, other batches.
    let other = place.finish("c", &[&batches[..], &["train.seed=4"]].concat());
    assert_ne!(other.losses(), witness.losses());
    let report = place.report("a");
    let distance = report.distance_to_least_squares.expect("a linear model");
    assert!(distance < 0.05, "{distance}");
    assert_eq!(report.is_least_squares, Some(false), "batches are noise");

    // A batch of everything is every row once.
    let whole = place.losses("whole", &["train.batch_size=32"]);
    let exact = place.losses("exact", &[]);
    assert!(super::distance(&whole, &exact) <= 1e-12);
}
