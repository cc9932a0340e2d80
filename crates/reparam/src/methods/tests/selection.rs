//! Which layers are adapted, and what is said when none are.

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use reparam_formats::peft::{PeftError, TargetModules};

use super::toy::{BurnNet, Net, Toy, data};
use crate::methods::{
    AttachedModule, FullConfig, Ia3Config, LoraConfig, MethodError, Selection, attach,
    linear_modules,
};
use crate::parameters;
use crate::schema::{SchemaError, Settings};

const ALL: [&str; 4] = [
    "layers.0.q_proj",
    "layers.0.down_proj",
    "layers.1.q_proj",
    "layers.1.down_proj",
];

fn names(names: &[&str]) -> TargetModules {
    TargetModules::Names(names.iter().map(|name| (*name).to_owned()).collect())
}

fn base() -> LoraConfig {
    LoraConfig::new(2, 4.0)
}

fn without(modules: &[&str]) -> LoraConfig {
    LoraConfig {
        selection: Selection::default().with_exclude_modules(names(modules)),
        ..base()
    }
}

/// PEFT counts layers only in a list that lies inside of something, as in real models.
#[derive(Module, Debug)]
struct Whole {
    model: Net,
}

fn attached(config: &LoraConfig) -> Result<Vec<AttachedModule>, MethodError> {
    attached_to(Net::build(DType::F32), config)
}

fn attached_to<M: Module>(
    model: M,
    config: &LoraConfig,
) -> Result<Vec<AttachedModule>, MethodError> {
    let (model, report) = attach(model, config, 0)?;
    // What the report says is what the model is.
    let adapted: Vec<String> = linear_modules(&model)
        .into_iter()
        .filter(|linear| linear.is_reparameterized())
        .map(|linear| linear.path)
        .collect();
    let reported: Vec<&str> = report
        .modules
        .iter()
        .map(|one| one.module.as_str())
        .collect();
    assert_eq!(adapted, reported);
    Ok(report.modules)
}

fn paths(config: &LoraConfig) -> Vec<String> {
    let modules = attached(config).expect("attaches").into_iter();
    modules.map(|module| module.module).collect()
}

#[test]
fn layers_of_both_kinds_are_found() {
    let expected = [ALL.as_slice(), &["lm_head"]].concat();
    let ours = linear_modules(&Net::build(DType::F32));
    let burns = linear_modules(&BurnNet::build(DType::F32));
    for (found, shape) in [(ours, [5, 6]), (burns, [6, 5])] {
        let paths: Vec<&str> = found.iter().map(|linear| linear.path.as_str()).collect();
        assert_eq!(paths, expected);
        assert_eq!(found[0].shape, shape);
        assert!(found.iter().all(|linear| !linear.is_reparameterized()));
    }
}

#[test]
fn all_linear_leaves_out_the_head() {
    assert_eq!(paths(&base()), ALL);
}

#[test]
fn a_list_names_ends_of_paths() {
    let config = base().with_target_modules(names(&["q_proj"]));
    assert_eq!(paths(&config), ["layers.0.q_proj", "layers.1.q_proj"]);
    let config = base().with_target_modules(names(&["lm_head", "layers.0.down_proj"]));
    assert_eq!(paths(&config), ["layers.0.down_proj", "lm_head"]);
}

#[test]
fn a_regular_expression_matches_whole_paths() {
    let pattern =
        |pattern: &str| base().with_target_modules(TargetModules::Pattern(pattern.into()));
    assert_eq!(paths(&pattern(r"layers\.1\..*_proj")), &ALL[2..]);
    let error = attached(&pattern("q_proj")).expect_err("no whole path");
    assert!(
        matches!(error, MethodError::Peft(PeftError::NoMatch { .. })),
        "{error}"
    );
}

#[test]
fn layers_can_be_chosen_by_number() {
    let numbered = |layers: Vec<usize>| LoraConfig {
        selection: Selection {
            layers_to_transform: Some(layers),
            ..Selection::default().with_target_modules(names(&["q_proj", "down_proj"]))
        },
        ..base()
    };
    let whole = || Whole {
        model: Net::build(DType::F32),
    };
    let modules = attached_to(whole(), &numbered(vec![1])).expect("attaches");
    let paths: Vec<&str> = modules.iter().map(|one| one.module.as_str()).collect();
    assert_eq!(paths, ["model.layers.1.q_proj", "model.layers.1.down_proj"]);
    let error = attached_to(whole(), &numbered(vec![0, 9])).expect_err("no such layer");
    assert!(
        matches!(&error, MethodError::Peft(PeftError::NoMatch { option, pattern, .. })
            if *option == "layers_to_transform" && pattern == "9"),
        "{error}"
    );
}

#[test]
fn modules_can_be_excluded() {
    let config = without(&["q_proj"]);
    assert_eq!(paths(&config), ["layers.0.down_proj", "layers.1.down_proj"]);
}

#[test]
fn patterns_give_ranks_and_scalings() {
    let config = LoraConfig {
        rank_pattern: vec![("layers.1.q_proj".into(), 4)],
        alpha_pattern: vec![("down_proj".into(), 10.0)],
        ..base()
    };
    let numbers: Vec<(usize, f64)> = attached(&config)
        .expect("attaches")
        .into_iter()
        .filter_map(|module| Some((module.rank?, module.scaling?)))
        .collect();
    assert_eq!(numbers, [(2, 2.0), (2, 5.0), (4, 1.0), (2, 5.0)]);
}

#[test]
fn what_matches_nothing_is_an_error_that_names_it() {
    let cases = [
        (
            base().with_target_modules(names(&["q_proj", "k_porj"])),
            "k_porj",
        ),
        (without(&["v_proj"]), "v_proj"),
        (
            LoraConfig {
                rank_pattern: vec![("up_proj".into(), 4)],
                ..base()
            },
            "up_proj",
        ),
        (
            LoraConfig {
                alpha_pattern: vec![("up_proj".into(), 4.0)],
                ..base()
            },
            "up_proj",
        ),
    ];
    for (config, name) in cases {
        let error = attached(&config).expect_err(name);
        let is_no_match = matches!(
            &error,
            MethodError::Peft(PeftError::NoMatch { pattern, .. }) if pattern == name
        );
        assert!(is_no_match, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let error = attached(&without(&["q_proj", "down_proj"])).expect_err("nothing left");
    assert!(
        matches!(
            error,
            MethodError::Peft(PeftError::NothingSelected { n_matched: 4 })
        ),
        "{error}"
    );
}

#[test]
fn a_misspelled_name_is_answered_with_the_nearest() {
    let error = attached(&base().with_target_modules(names(&["q_porj"]))).expect_err("no match");
    let hint = error.hint().expect("a hint");
    assert!(hint.contains("q_proj"), "{hint}");
}

#[test]
fn settings_out_of_range_are_refused() {
    for config in [
        LoraConfig::new(0, 1.0),
        LoraConfig {
            dropout: 1.0,
            ..base()
        },
        LoraConfig {
            dropout: -0.1,
            ..base()
        },
        LoraConfig::new(2, f64::NAN),
        base().with_target_modules(TargetModules::Pattern("(".into())),
    ] {
        let error = attached(&config).expect_err("out of range");
        assert!(matches!(error, MethodError::Peft(_)), "{error}");
    }
}

#[test]
fn counts_tell_theta_from_the_rest() {
    let model = Net::build(DType::F32);
    let total = parameters::count(&model).total;
    let (model, _) = attach(model, &base(), 0).expect("attaches");
    let count = parameters::count(&model);
    // Four layers of 5 x 6 or 6 x 5 with rank 2.
    assert_eq!(count.trainable, 4 * 2 * (5 + 6));
    assert_eq!(count.total, total + count.trainable);
}

/// A layer of a caller whose fields are the other way round.
mod other_way {
    use super::*;

    #[derive(Module, Debug)]
    pub(super) struct Linear {
        pub(super) bias: Param<Tensor<1>>,
        pub(super) weight: Param<Tensor<2>>,
    }
}

#[test]
fn a_bias_that_a_method_does_not_reach_is_refused() {
    let layer = || other_way::Linear {
        bias: Param::from_tensor(data(vec![0.5, 0.25], &[2], DType::F32)),
        weight: Param::from_tensor(data(vec![1.0, 2.0, 3.0, 4.0], &[2, 2], DType::F32)),
    };
    // Only a method that acts on the bias cares.
    attach(layer(), &base(), 0).expect("attaches");
    let error = attach(layer(), &Ia3Config::default(), 0).expect_err("the bias stays as it is");
    assert!(
        matches!(&error, MethodError::BiasFirst { method, .. } if *method == "ia3"),
        "{error}"
    );
    assert!(error.hint().is_some());
}

/// Everything is trained only where that is asked for, not because a method has no such setting.
#[test]
fn a_method_without_targets_does_not_train_everything() {
    let settings = Settings::new("toy", &[], &[]).expect("it has none");
    let error = Selection::from_settings(&settings).expect_err("no targets");
    assert!(
        matches!(
            &error,
            MethodError::Schema(SchemaError::Missing { setting, .. }) if setting == "target_modules"
        ),
        "{error}"
    );
    let whole = FullConfig::whole().selection;
    assert!(whole.whole);
    let some = whole.with_target_modules(names(&["q_proj"]));
    assert_eq!(
        some,
        Selection::default().with_target_modules(names(&["q_proj"]))
    );
}
