//! Updates, stopping conditions and methods of run files.

use super::*;

fn update_of(lines: &str) -> UpdateConfig {
    let config =
        parse(&with("optimizer", lines)).unwrap_or_else(|error| panic!("{}", render(&error)));
    config.optimizer.update
}

fn refused(section: &str, lines: &str) -> String {
    rendered(&with(section, lines))
}

#[test]
fn every_optimizer_can_be_named_and_has_its_own_settings() {
    for (entry, optimizer) in Catalog::builtin().transforms.optimizers() {
        let rate = match optimizer.learning_rate {
            Some(_) => "",
            None => "learning_rate = 0.1\n",
        };
        let UpdateConfig::Named(update) = update_of(&format!("{rate}kind = \"{}\"", entry.kind))
        else {
            panic!("a kind");
        };
        assert_eq!(update.algorithm.kind, entry.kind);
    }
    let error = refused("optimizer", "kind = \"lion\"\neps = 1e-8");
    assert!(
        error.contains("`eps` in [optimizer] does not apply to kind `lion`"),
        "{error}"
    );
}

#[test]
fn an_unknown_optimizer_names_the_nearest() {
    let error = refused("optimizer", "kind = \"adamx\"");
    assert!(
        error.contains("unknown kind `adamx` in [optimizer]"),
        "{error}"
    );
    assert!(error.contains("did you mean `adam"), "{error}");
}

#[test]
fn a_list_of_transforms_is_read_in_its_order() {
    let UpdateConfig::Transforms(specs) = update_of(
        "learning_rate = 0.1\n\
         transforms = [{ kind = \"scale\", lambda = 0.1 }, { kind = \"clip_by_value\", max_value = 1 }, \
         { kind = \"group\", pattern = \".*lora_B.*\", transforms = [{ kind = \"momentum\" }] }]",
    ) else {
        panic!("a list");
    };
    let kinds: Vec<&str> = specs.iter().map(|spec| spec.kind.as_str()).collect();
    assert_eq!(kinds, ["scale", "clip_by_value", "group"]);
    assert_eq!(
        specs[0].settings,
        [("lambda".to_owned(), SettingValue::Number(0.1))]
    );
}

#[test]
fn an_unlawful_order_is_refused_with_the_reason() {
    let error = refused(
        "optimizer",
        "learning_rate = 0.1\n\
         transforms = [{ kind = \"clip_by_value\", max_value = 1 }, { kind = \"mask\", branches = [0.5] }]",
    );
    assert!(
        error.contains("`clip_by_value` cannot come before `mask`: a mask stands for"),
        "{error}"
    );
    assert!(error.contains("hint: put the mask first"), "{error}");
    let error = refused("optimizer", "kind = \"lion\"\nlambda = 0.1");
    assert!(
        error.contains("`lambda` in [optimizer] has no effect: `lion` moves by signs"),
        "{error}"
    );
}

#[test]
fn wrong_transforms_are_refused_at_their_place() {
    let cases = [
        ("[{ kind = \"scales\" }]", "unknown kind `scales`"),
        ("[{ lambda = 1 }]", "missing `kind`"),
        (
            "[{ kind = \"scale\", lambda = 0 }]",
            "`lambda` in [optimizer.transforms] must be a number from 1.2e-38 to 3.4e38 (the range of f32)",
        ),
        (
            "[{ kind = \"scale\", lambda = \"1/T\" }]",
            "`lambda` in [optimizer.transforms] must be \"1/sqrt(T)\"",
        ),
        (
            "[{ kind = \"clip_by_value\" }]",
            "hint: add to [optimizer.transforms]: max_value = 1.0",
        ),
        ("[{ kind = \"adamw\", beta3 = 0.1 }]", "unknown key `beta3`"),
        (
            "[{ kind = \"group\", pattern = \"(\", transforms = [] }]",
            "is not a regular expression",
        ),
        ("[1]", "must be a list of tables"),
        ("\"adamw\"", "must be a list of tables"),
    ];
    for (list, message) in cases {
        let error = refused(
            "optimizer",
            &format!("learning_rate = 0.1\ntransforms = {list}"),
        );
        assert!(error.contains(message), "{list}: {error}");
        assert!(error.contains("run.toml:"), "{list}: {error}");
    }
    let both = refused(
        "optimizer",
        "transforms = []\nlearning_rate = 0.1\nkind = \"sgd\"",
    );
    assert!(
        both.contains("`kind` and `transforms` in [optimizer] exclude each other"),
        "{both}"
    );
    let missing = refused("optimizer", "transforms = []");
    assert!(missing.contains("missing `learning_rate`"), "{missing}");
}

#[test]
fn lambda_is_positive_or_a_word() {
    for (value, expected) in [
        ("\"1/sqrt(T)\"", Lambda::InverseSqrtHorizon),
        ("\"adaptive\"", Lambda::Adaptive),
        ("0.1", Lambda::Fixed(0.1)),
    ] {
        let UpdateConfig::Named(update) = update_of(&format!("lambda = {value}")) else {
            panic!("a kind");
        };
        assert_eq!(update.lambda, Some(expected));
    }
    for value in ["0", "-0.1", "nan", "inf", "\"1/T\"", "true"] {
        let error = refused("optimizer", &format!("lambda = {value}"));
        assert!(
            error.contains("`lambda` in [optimizer] must be"),
            "{value}: {error}"
        );
    }
}

#[test]
fn schedules_have_their_own_keys() {
    let config = parse(&with(
        "optimizer",
        "schedule = \"wsd\"\ndecay_shape = \"1-sqrt\"",
    ))
    .unwrap();
    let schedule = &config.optimizer.schedule;
    assert_eq!(
        schedule.get("decay_ratio"),
        Some(&SettingValue::Number(0.2))
    );
    let shape = SettingValue::Word("1-sqrt".into());
    assert_eq!(schedule.get("decay_shape"), Some(&shape));
    let error = refused("optimizer", "decay_ratio = 0.5");
    assert!(
        error.contains("`decay_ratio` in [optimizer] has no effect"),
        "{error}"
    );
}

#[test]
fn stopping_needs_what_it_looks_at() {
    let config = parse(&with(
        "train",
        "stop_loss_change = 1e-4\npatience = 3\neval_every = 10",
    ))
    .unwrap();
    assert_eq!(
        config.train.stop.stop_window,
        Some(StopConfig::DEFAULT_WINDOW)
    );
    let error = refused("train", "stop_window = 5");
    assert!(
        error.contains("`stop_window` in [train] has no effect"),
        "{error}"
    );
    let error = refused("train", "patience = 5");
    assert!(
        error.contains("`patience` in [train] has no effect"),
        "{error}"
    );
    let error = refused("train", "stop_grad_norm = 0");
    assert!(
        error.contains("must be a finite number greater than 0"),
        "{error}"
    );
}

#[test]
fn full_training_has_two_names() {
    let methods = ["full", "identity"].map(|kind| {
        let config = parse(&with("method", &format!("kind = \"{kind}\""))).unwrap();
        assert_eq!(parse(&config.to_toml().unwrap()).unwrap(), config);
        config.method
    });
    assert_eq!(methods[0], methods[1]);
}

#[test]
fn methods_have_their_own_keys() {
    let error = refused("method", "kind = \"weight_norm\"\nrank = 4");
    assert!(
        error.contains("`rank` in [method] does not apply to kind `weight_norm`"),
        "{error}"
    );
    let error = refused("method", "kind = \"scale\"\nscale = 0");
    assert!(
        error.contains("must be a finite number greater than 0"),
        "{error}"
    );
    let error = refused("method", "kind = \"overparameterized\"\nbranches = []");
    assert!(error.contains("a list of at least one number"), "{error}");
    let error = refused("method", "kind = \"weight_norm\"\ninit = \"data\"");
    assert!(
        error.contains("a language model starts from its weights"),
        "{error}"
    );
}

/// What a caller adds to the catalog is found by run files, with errors and defaults like any other.
#[test]
fn run_files_find_what_a_caller_adds() {
    use reparam::optim::{Scale, TransformEntry};
    use reparam::schema::{Range, SettingSpec, number};

    use crate::Tasks;

    static SETTINGS: [SettingSpec; 1] = [number("factor", Range::Positive, 3.0, "the factor")];
    let catalog = Catalog::builtin();
    let catalog = Catalog {
        transforms: catalog.transforms.clone().with(TransformEntry {
            kind: "triple",
            summary: "Multiply by three, or so",
            formula: "u = factor g",
            source: "",
            optimizer: None,
            settings: &SETTINGS,
            build: |settings, _| Ok(vec![Box::new(Scale::by(settings.number("factor")?)?)]),
        }),
        ..catalog
    };
    let chain = |transform: &str| {
        with(
            "optimizer",
            &format!("learning_rate = 0.1\ntransforms = [{{ {transform} }}]"),
        )
    };
    let text = chain("kind = \"triple\"");
    let error = rendered(&text);
    assert!(error.contains("unknown kind `triple`"), "{error}");
    let tasks = Tasks::builtin().with_catalog(catalog);
    let run = tasks.parse(&text, "run.toml", &[]).expect("a known kind");
    let config = run.config::<RunConfig>().expect("a language model");
    config.check().expect("a configuration that was read");
    let UpdateConfig::Transforms(chosen) = &config.optimizer.update else {
        panic!("a list");
    };
    assert_eq!(chosen[0].get("factor"), Some(&SettingValue::Number(3.0)));
    let error = tasks.parse(&chain("kind = \"triple\", factor = 0"), "run.toml", &[]);
    let error = render(&error.expect_err("out of range"));
    assert!(
        error.contains("`factor` in [optimizer.transforms] must be"),
        "{error}"
    );
}
