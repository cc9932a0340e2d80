//! A regression that learns its noise: the result is the model before that.

use super::Place;

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
