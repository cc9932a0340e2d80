//! Updates beyond plain descent, on models that show what they do.

use super::{MLP, Place, bits, distance, finish};

/// A run of the network with a list of transforms.
#[track_caller]
fn with(place: &Place, run: &str, transforms: &str, more: &[&str]) -> Vec<f64> {
    let list = format!("optimizer.transforms={transforms}");
    place.losses(run, &[&MLP[..], &[list.as_str()], more].concat())
}

#[track_caller]
fn assert_learns(losses: &[f64], run: &str) {
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    assert!(last < 0.8 * first, "{run}: {first} {last}");
}

#[test]
fn every_optimizer_learns() {
    let place = Place::new();
    for (kind, rate) in [
        ("sgd", "0.05"),
        ("adamw", "0.02"),
        ("adam", "0.02"),
        ("adagrad", "0.05"),
        ("rmsprop", "0.005"),
        ("lamb", "0.02"),
        ("lion", "0.01"),
        ("adafactor", "0.05"),
        ("schedule_free_adamw", "0.05"),
    ] {
        let kind_override = format!("optimizer.kind={kind}");
        let rate = format!("optimizer.learning_rate={rate}");
        let losses = place.losses(kind, &[&MLP[..], &[&kind_override, &rate]].concat());
        assert_learns(&losses, kind);
    }
}

#[test]
fn sharpness_is_looked_at_nearby() {
    let place = Place::new();
    let sam = |run: &str, rho: &str| {
        let list = format!("[{{ kind = \"sam\", rho = {rho} }}, {{ kind = \"momentum\" }}]");
        with(&place, run, &list, &[])
    };
    let plain = with(&place, "plain", "[{ kind = \"momentum\" }]", &[]);
    let (near, far) = (sam("near", "1e-9"), sam("far", "0.1"));
    assert_learns(&far, "sam");
    assert!(
        distance(&near, &plain) < 1e-6,
        "without distance it is the gradient here"
    );
    assert!(distance(&far, &plain) > 1e-3);
    assert_eq!(
        far[0].to_bits(),
        plain[0].to_bits(),
        "the loss is that of the model itself"
    );
}

/// The mean of the trained values is saved and evaluated, and the run trains as without it.
#[test]
fn a_running_mean_is_what_is_saved() {
    const DECAY: f64 = 0.8;
    let place = Place::new();
    let ema = "optimizer.transforms=[{ kind = \"sgd\" }, { kind = \"ema\", decay = 0.8 }]";
    let mut mean: Vec<f64> = Vec::new();
    for steps in 1..=6 {
        let steps_override = format!("train.max_steps={steps}");
        let plain = format!("plain-{steps}");
        let plain_losses = place.losses(&plain, &[&steps_override]);
        let values = [
            place.tensor(&plain, "layers.0.weight"),
            place.tensor(&plain, "layers.0.bias"),
        ]
        .concat();
        mean = if mean.is_empty() {
            values.clone()
        } else {
            let pairs = mean.iter().zip(&values);
            pairs
                .map(|(mean, value)| DECAY * mean + (1.0 - DECAY) * value)
                .collect()
        };
        let run = format!("ema-{steps}");
        let losses = place.losses(&run, &[&steps_override, ema]);
        assert_eq!(bits(&losses), bits(&plain_losses));
        let saved = [
            place.tensor(&run, "layers.0.weight"),
            place.tensor(&run, "layers.0.bias"),
        ]
        .concat();
        assert!(distance(&saved, &mean) <= 1e-12, "{steps}");
        if steps > 1 {
            assert!(distance(&saved, &values) > 1e-3, "{steps}");
        }
    }
}

#[test]
fn schedule_free_saves_its_average() {
    let place = Place::new();
    let overrides = [&MLP[..2], &["optimizer.kind=schedule_free_adamw"]].concat();
    let config = place.config("run", &[&overrides[..], &["train.max_steps=40"]].concat());
    finish(&config);
    let next = place.losses("next", &[&overrides[..], &["train.max_steps=41"]].concat())[40];
    let saved = place.loss_of_saved(&config);
    // The gradient is taken between the average and the fast values, so the next loss is of other values.
    assert!((saved / next - 1.0).abs() > 1e-4, "{saved} {next}");
}

#[test]
fn groups_have_updates_of_their_own() {
    let place = Place::new();
    let matrices =
        "{ kind = \"group\", pattern = \".*weight\", transforms = [{ kind = \"muon\" }] }";
    let losses = with(&place, "muon", &format!("[{matrices}]"), &[]);
    assert_learns(&losses, "muon");
    // A group of nothing but plain descent is plain descent.
    let group = "[{ kind = \"group\", pattern = \".*bias\", transforms = [{ kind = \"sgd\" }] }]";
    assert_eq!(
        bits(&with(&place, "group", group, &[])),
        bits(&with(&place, "all", "[{ kind = \"sgd\" }]", &[]))
    );
    // A group that is scaled to almost nothing hardly moves, and the others move as they would alone.
    let still = "[{ kind = \"group\", pattern = \"layers[.]0[.].*\", transforms = [{ kind = \"scale\", lambda = 1e-30 }] }]";
    with(&place, "still", still, &[]);
    let frozen = "[{ kind = \"sgd\" }, { kind = \"freeze\", pattern = \"layers[.]0[.].*\" }]";
    with(&place, "frozen", frozen, &[]);
    assert!(place.weights("still") == place.weights("frozen"));
    let start = ["optimizer.learning_rate=1e-30", "train.max_steps=1"];
    place.losses("start", &[&MLP[..2], &start].concat());
    for name in ["layers.0.weight", "layers.0.bias"] {
        assert_eq!(
            place.tensor("frozen", name),
            place.tensor("start", name),
            "{name}"
        );
    }
    assert_ne!(
        place.tensor("frozen", "layers.1.weight"),
        place.tensor("start", "layers.1.weight")
    );
}

/// Averaging the gradients of some steps is one step of a larger batch.
#[test]
fn accumulated_batches_are_one_large_batch() {
    let place = Place::new();
    let of = |run: &str, transforms: &str, batch: &str, steps: &str| {
        let list = format!("optimizer.transforms={transforms}");
        place.losses(run, &[&list, batch, steps]);
        place.tensor(run, "layers.0.weight")
    };
    let accumulated = of(
        "accumulated",
        "[{ kind = \"accumulate\", steps = 4, transforms = [{ kind = \"momentum\" }] }]",
        "train.batch_size=8",
        "train.max_steps=40",
    );
    let large = of(
        "large",
        "[{ kind = \"momentum\" }]",
        "train.batch_size=32",
        "train.max_steps=10",
    );
    assert!(distance(&accumulated, &large) <= 1e-10);
}

#[test]
fn updates_that_cannot_work_are_refused_before_anything_is_written() {
    let place = Place::new();
    for (run, overrides, message) in [
        ("muon", "optimizer.kind=muon", "matrices only"),
        (
            "group",
            "optimizer.transforms=[{ kind = \"group\", pattern = \"nope\", transforms = [{ kind = \"sgd\" }] }]",
            "nope",
        ),
        (
            "lora",
            "optimizer.transforms=[{ kind = \"lora_plus\" }]",
            "lora_plus",
        ),
        ("fa", "optimizer.kind=lora_fa", "lora_fa"),
    ] {
        let (error, witness) = place.fail(run, &[overrides]);
        assert!(error.to_string().contains(message), "{run}: {error}");
        assert!(error.hint().is_some(), "{run}: {error}");
        assert!(witness.events.is_empty() && !place.path(run).exists());
    }
}

#[test]
fn schedules_change_the_rate_of_the_steps() {
    let place = Place::new();
    let rates = |run: &str, overrides: &[&str]| -> Vec<f64> {
        let witness = place.finish(run, &[&["train.max_steps=10"], overrides].concat());
        witness
            .steps()
            .iter()
            .map(|step| step.learning_rate)
            .collect()
    };
    let linear = rates("linear", &["optimizer.schedule=linear"]);
    let expected: Vec<f64> = (0..10)
        .map(|step| 0.1 * (1.0 - f64::from(step) / 10.0))
        .collect();
    assert!(distance(&linear, &expected) <= 1e-12, "{linear:?}");
    let wsd = ["optimizer.schedule=wsd", "optimizer.decay_ratio=0.3"];
    let stable = rates("wsd", &wsd);
    assert!(stable[..7].iter().all(|rate| *rate == 0.1), "{stable:?}");
    assert!(stable[8] < 0.1 && stable[9] < stable[8], "{stable:?}");
    let warm = rates("warm", &["optimizer.warmup_steps=4"]);
    let expected: Vec<f64> = (0..4).map(|step| 0.1 * f64::from(step) / 4.0).collect();
    assert!(
        warm[0] == 0.0 && distance(&warm[1..4], &expected[1..]) <= 1e-12,
        "{warm:?}"
    );
}
