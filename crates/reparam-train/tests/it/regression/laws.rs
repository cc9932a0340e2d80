//! The two-step update, measured on whole runs.

use super::{Place, bits, distance};

/// Products of the same factors in another order, over some hundred steps of `f64`.
const SPLIT: f64 = 1e-12;
/// The root of lambda is rounded, and enters twice.
const SQUARE_ROOT: f64 = 1e-10;

#[test]
fn lambda_by_the_horizon_is_its_number_to_the_bit() {
    let place = Place::new();
    let hundred = "train.max_steps=100";
    let by_horizon = place.losses("a", &[hundred, "optimizer.lambda=\"1/sqrt(T)\""]);
    let by_number = place.losses("b", &[hundred, "optimizer.lambda=0.1"]);
    assert_eq!(by_horizon.len(), 100);
    assert_eq!(bits(&by_horizon), bits(&by_number));
    assert!(place.weights("a") == place.weights("b"));
    // And it is the horizon that decides.
    let longer = place.losses(
        "c",
        &["train.max_steps=400", "optimizer.lambda=\"1/sqrt(T)\""],
    );
    let half = place.losses("d", &["train.max_steps=400", "optimizer.lambda=0.05"]);
    assert_eq!(bits(&longer), bits(&half));
    assert_ne!(bits(&longer[..100]), bits(&by_number));
}

#[test]
fn only_the_product_of_rate_and_lambda_counts() {
    let place = Place::new();
    let of = |run: &str, rate: &str, lambda: &str| {
        place.losses(
            run,
            &[
                &format!("optimizer.learning_rate={rate}"),
                &format!("optimizer.lambda={lambda}"),
            ],
        )
    };
    let one = of("a", "0.05", "1");
    for (run, rate, lambda) in [
        ("b", "0.5", "0.1"),
        ("c", "0.1", "0.5"),
        ("d", "0.0125", "4"),
    ] {
        let other = of(run, rate, lambda);
        assert!(distance(&other, &one) <= SPLIT, "{rate} {lambda}");
    }
    let without = place.losses("e", &["optimizer.learning_rate=0.05"]);
    assert_eq!(bits(&without), bits(&one), "no lambda is a lambda of one");
    let another = of("f", "0.1", "0.4");
    assert!(distance(&another, &one) > 1e-3);
}

/// `W = sqrt(lambda) V` under plain descent moves `W` as scaling its gradient by lambda does.
#[test]
fn weights_scaled_by_the_root_are_gradients_scaled_by_lambda() {
    let place = Place::new();
    let root = format!("method.scale={}", 0.1_f64.sqrt());
    for (name, momentum) in [("plain", "0"), ("momentum", "0.9")] {
        let momentum = format!("optimizer.momentum={momentum}");
        // A bias is no weight of the method, so it stays.
        let common = [
            "method.target_modules=all-linear",
            "method.bias=none",
            &momentum,
            "train.max_steps=100",
        ];
        let of = |run: &str, own: &[&str]| {
            place.losses(&format!("{name}-{run}"), &[&common, own].concat())
        };
        let by_gradient = of("gradient", &["optimizer.lambda=0.1"]);
        let by_weight = of("weight", &["method.kind=scale", &root]);
        assert!(distance(&by_weight, &by_gradient) <= SQUARE_ROOT, "{name}");
        let by_horizon = of("horizon", &["method.kind=scale", "method.scale=horizon"]);
        assert!(distance(&by_horizon, &by_gradient) <= SQUARE_ROOT, "{name}");
        let neither = of("neither", &[]);
        assert!(distance(&neither, &by_gradient) > 1e-2, "{name}");
    }
}

/// The general case: branches with constant scales are a mask on the gradient.
#[test]
fn branches_are_a_mask_on_the_gradient() {
    let place = Place::new();
    let common = ["method.target_modules=all-linear", "method.bias=none"];
    let of = |run: &str, own: &[&str]| place.losses(run, &[&common, own].concat());
    let branches = of(
        "branches",
        &[
            "method.kind=overparameterized",
            "method.branches=[0.5,0.25]",
        ],
    );
    let masked = of(
        "mask",
        &["optimizer.transforms=[{ kind = \"mask\", branches = [0.5, 0.25] }]"],
    );
    assert!(distance(&branches, &masked) <= SQUARE_ROOT);
    let scaled = of("scale", &["optimizer.lambda=0.3125"]);
    assert!(
        distance(&branches, &scaled) <= SQUARE_ROOT,
        "0.5^2 + 0.25^2"
    );
}

#[test]
fn named_settings_are_the_transforms_that_they_stand_for() {
    let place = Place::new();
    let named = place.losses(
        "named",
        &[
            "optimizer.lambda=0.5",
            "optimizer.clip_grad_value=0.2",
            "optimizer.clip_grad_norm=0.25",
            "optimizer.momentum=0.9",
        ],
    );
    let listed = place.losses(
        "listed",
        &["optimizer.transforms=[{ kind = \"scale\", lambda = 0.5 }, \
           { kind = \"clip_by_value\", max_value = 0.2 }, \
           { kind = \"clip_by_global_norm\", max_norm = 0.25 }, \
           { kind = \"sgd\", momentum = 0.9 }]"],
    );
    assert_eq!(bits(&named), bits(&listed));
    let plain = place.losses("plain", &["optimizer.momentum=0.9"]);
    assert!(
        distance(&plain, &named) > 1e-2,
        "the settings have an effect"
    );
}
