//! Settings as a run file gives them: whatever the schema allows makes a method, or a typed error.

use burn::tensor::DType;

use super::toy::{Net, Toy};
use crate::methods::{BuildContext, MethodError, Methods, Selection, attach};
use crate::schema::{Chosen, SchemaError, SettingValue, draws};

const CONTEXT: BuildContext = BuildContext { total_steps: 100 };

/// Drawn at random from the schema of every method; rules between two settings may be broken, and targets may match nothing.
#[test]
fn random_settings_make_a_method_or_a_typed_error() {
    const DRAWS: usize = 60;
    let methods = Methods::builtin();
    for spec in methods.iter() {
        let mut draw = draws(7);
        let (mut n_built, mut n_attached) = (0, 0);
        for _ in 0..DRAWS {
            let chosen = Chosen::sample(spec.kind, spec.settings, &mut draw);
            let config = match methods.build(&chosen, &CONTEXT) {
                Ok(config) => config,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    continue;
                }
            };
            n_built += 1;
            assert_eq!(config.spec().kind, spec.kind);
            // As chosen, which seldom fits the toy, and on all of its layers.
            let everywhere = config.with_selection(Selection::default());
            for config in [config, everywhere] {
                match attach(Net::build(DType::F32), &*config, 3) {
                    Ok((_, report)) => {
                        n_attached += 1;
                        assert!(!report.modules.is_empty());
                    }
                    Err(error) => assert!(!error.to_string().is_empty()),
                }
            }
        }
        assert!(n_built > DRAWS / 10, "{}: {n_built}", spec.kind);
        assert!(n_attached > 0, "{}: {n_attached}", spec.kind);
    }
}

/// What nothing is said about is as in the settings' own defaults, and the aliases mean the same.
#[test]
fn every_method_is_built_from_its_defaults() {
    let methods = Methods::builtin();
    for spec in methods.iter() {
        for kind in spec.aliases.iter().chain([&spec.kind]) {
            let config = methods
                .build(&Chosen::new(*kind), &CONTEXT)
                .expect("defaults");
            assert_eq!(config.spec().kind, spec.kind);
            let whole = spec.kind == "full";
            let selection = Selection {
                whole,
                ..Selection::default()
            };
            assert_eq!(config.selection(), &selection, "{kind}");
            let (_, report) = attach(Net::build(DType::F32), &*config, 3).expect("all layers");
            // Everything is the output head, too.
            assert_eq!(report.modules.len(), if whole { 5 } else { 4 }, "{kind}");
        }
    }
}

#[test]
fn what_is_unknown_or_out_of_range_is_refused_by_name() {
    let methods = Methods::builtin();
    let build = |chosen: Chosen| methods.build(&chosen, &CONTEXT).expect_err("wrong");
    let error = build(Chosen::new("lorra"));
    assert!(
        matches!(&error, MethodError::Schema(SchemaError::UnknownKind { kind, .. }) if kind == "lorra"),
        "{error}"
    );
    let error = build(Chosen::new("vera").with("ranks", SettingValue::Count(3)));
    assert!(matches!(error, MethodError::Schema(_)), "{error}");
    let error = build(Chosen::new("dora").with("rank", SettingValue::Count(0)));
    assert!(error.to_string().contains("`rank`"), "{error}");
}
