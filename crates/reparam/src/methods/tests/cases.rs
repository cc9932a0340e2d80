//! The methods and settings that the laws are checked for.

use std::path::Path;

use burn::module::Module;
use reparam_formats::peft::{Bias, PeftAdapter, TargetModules};

use super::toy::Toy;
use crate::methods::{
    AnyMethod, Biases, FactorInit, GammaInit, IdentityConfig, LoraConfig, MethodError,
    OverparameterizedConfig, ScaleConfig, Selection, SigmaReparamConfig, WeightNormConfig,
    attach_adapter, load_theta, save_theta, to_adapter,
};

/// Saves the first model to a directory and attaches what is there to the second.
type Reload<M> = Box<dyn Fn(&M, M, &Path) -> M>;

/// How the effective weight at the start compares with the base.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Identity {
    /// The same bits.
    Exact,
    /// The same to this many roundings of each number.
    Rounded(f64),
    /// Another on purpose, as the method's documentation says.
    Other,
}

/// What a method's definition makes different between the laws.
#[derive(Debug, Clone, Copy)]
pub(super) struct Properties {
    pub(super) identity: Identity,
    /// Whether the stored weight stays as it is.
    pub(super) has_frozen_base: bool,
    /// Whether what the forward pass depends on at the start is drawn from the seed.
    pub(super) is_random: bool,
}

/// One setting of one method, or of one on another.
pub(super) struct Case<M> {
    pub(super) name: &'static str,
    /// The methods' names in the table, in the order of their attachment.
    pub(super) methods: Vec<&'static str>,
    pub(super) properties: Properties,
    steps: Vec<AnyMethod>,
    reload: Reload<M>,
}

impl<M: Module> Case<M> {
    /// Attaches the method, with a seed for its initial values.
    pub(super) fn attach(&self, model: M, seed: u64) -> M {
        self.try_attach(model, seed)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    pub(super) fn try_attach(&self, model: M, seed: u64) -> Result<M, MethodError> {
        attach(&self.steps, model, seed)
    }

    pub(super) fn reload(&self, model: &M, fresh: M, directory: &Path) -> M {
        (self.reload)(model, fresh, directory)
    }
}

fn attach<M: Module>(steps: &[AnyMethod], mut model: M, seed: u64) -> Result<M, MethodError> {
    for step in steps {
        (model, _) = step.attach(model, seed)?;
    }
    Ok(model)
}

/// Returns every case.
pub(super) fn cases<M: Toy>() -> Vec<Case<M>> {
    let lora = lora_settings()
        .into_iter()
        .map(|(name, config)| lora(name, config.with_weight_layout(M::LAYOUT)));
    lora.chain(trained_bases::<M>())
        .chain(chains::<M>())
        .collect()
}

fn case<M: Toy>(name: &'static str, steps: Vec<AnyMethod>, properties: Properties) -> Case<M> {
    let again = steps.clone();
    Case {
        name,
        methods: steps.iter().map(|step| step.method().kind).collect(),
        properties,
        steps,
        reload: Box::new(move |model, fresh, directory| {
            let path = directory.join("theta.safetensors");
            save_theta(model, &path).expect("an empty directory");
            // With another seed: whatever the file lacks would show.
            let fresh = attach(&again, fresh, 1234).expect("the same methods");
            load_theta(fresh, &path).expect("what was just saved")
        }),
    }
}

fn lora<M: Toy>(name: &'static str, config: LoraConfig) -> Case<M> {
    let adapter_config = config.to_adapter_config();
    let properties = Properties {
        identity: Identity::Exact,
        has_frozen_base: true,
        is_random: true,
    };
    Case {
        reload: Box::new(move |model, fresh, directory| {
            let adapter = to_adapter(model, adapter_config.clone()).expect("its own adapter");
            adapter.save(directory).expect("an empty directory");
            let loaded = PeftAdapter::load(directory).expect("what was just saved");
            let (model, _) = attach_adapter(fresh, &loaded, M::LAYOUT).expect("the same model");
            model
        }),
        ..case(name, vec![config.into()], properties)
    }
}

fn lora_settings() -> Vec<(&'static str, LoraConfig)> {
    // Alphas are chosen so that every scaling is an `f32` number: the plan holds it as one, and
    // the laws in `f64` shall see everything else.
    let plain = || LoraConfig::new(2, 3.0);
    vec![
        ("plain", plain()),
        (
            "rsLoRA",
            LoraConfig {
                use_rslora: true,
                ..LoraConfig::new(4, 6.0)
            },
        ),
        (
            "patterns",
            LoraConfig {
                rank_pattern: vec![("layers.1.q_proj".into(), 4), ("down_proj".into(), 1)],
                alpha_pattern: vec![("down_proj".into(), 5.0)],
                ..plain()
            },
        ),
        (
            "gaussian",
            LoraConfig {
                init: FactorInit::Gaussian,
                ..plain()
            },
        ),
        (
            "bias lora_only",
            LoraConfig {
                bias: Bias::LoraOnly,
                target_modules: names(&["q_proj"]),
                ..plain()
            },
        ),
        (
            "bias all",
            LoraConfig {
                bias: Bias::All,
                target_modules: names(&["q_proj"]),
                ..plain()
            },
        ),
        (
            "dropout",
            LoraConfig {
                dropout: 0.25,
                ..plain()
            },
        ),
        (
            "a head and a layer of rank above its width",
            LoraConfig {
                target_modules: names(&["lm_head", "q_proj"]),
                ..LoraConfig::new(8, 4.0)
            },
        ),
    ]
}

fn names(names: &[&str]) -> TargetModules {
    TargetModules::Names(names.iter().map(|name| (*name).to_owned()).collect())
}

/// The methods whose stored weight is trained.
fn trained_bases<M: Toy>() -> Vec<Case<M>> {
    let all = || Selection::default().with_weight_layout(M::LAYOUT);
    let with_biases = || {
        all()
            .with_target_modules(names(&["q_proj", "lm_head"]))
            .with_bias(Biases::All)
    };
    let fixed = Properties {
        identity: Identity::Exact,
        has_frozen_base: false,
        is_random: false,
    };
    let random = Properties {
        is_random: true,
        ..fixed
    };
    let rounded = |roundings: f64, properties: Properties| Properties {
        identity: Identity::Rounded(roundings),
        ..properties
    };
    let branches = |scales: &[f64]| OverparameterizedConfig {
        branches: scales.to_vec(),
        selection: all(),
        ..OverparameterizedConfig::default()
    };
    vec![
        case(
            "identity",
            vec![IdentityConfig { selection: all() }.into()],
            fixed,
        ),
        case(
            "identity with biases",
            vec![
                IdentityConfig {
                    selection: with_biases(),
                }
                .into(),
            ],
            fixed,
        ),
        case(
            "identity of some",
            vec![
                IdentityConfig {
                    selection: all().with_exclude_modules(names(&["down_proj"])),
                }
                .into(),
            ],
            fixed,
        ),
        case(
            "scale",
            vec![ScaleConfig::new(0.3).with_selection(all()).into()],
            rounded(2.0, fixed),
        ),
        case(
            "scale by the horizon",
            vec![ScaleConfig::by_horizon(16).with_selection(all()).into()],
            // A half.
            fixed,
        ),
        case(
            "weight_norm",
            vec![WeightNormConfig { selection: all() }.into()],
            fixed,
        ),
        case(
            "weight_norm with biases",
            vec![
                WeightNormConfig {
                    selection: with_biases(),
                }
                .into(),
            ],
            fixed,
        ),
        case(
            "sigma_reparam",
            vec![
                SigmaReparamConfig {
                    selection: all(),
                    ..SigmaReparamConfig::default()
                }
                .into(),
            ],
            random,
        ),
        case(
            "sigma_reparam from one",
            vec![
                SigmaReparamConfig {
                    gamma_init: GammaInit::One,
                    selection: all(),
                }
                .into(),
            ],
            Properties {
                identity: Identity::Other,
                ..random
            },
        ),
        case("one branch", vec![branches(&[1.0]).into()], fixed),
        case("branches", vec![branches(&[0.5, 1.3, 0.2]).into()], fixed),
        case(
            "branches, the first of an inexact scale",
            vec![branches(&[0.7, 1.5]).into()],
            rounded(2.0, fixed),
        ),
        case(
            "product",
            vec![
                OverparameterizedConfig {
                    product_width: 3,
                    ..branches(&[1.0])
                }
                .into(),
            ],
            random,
        ),
    ]
}

/// Two methods on one weight.
fn chains<M: Toy>() -> Vec<Case<M>> {
    let lora = || LoraConfig::new(2, 3.0).with_weight_layout(M::LAYOUT);
    let normalized = |lora: LoraConfig, selection: Selection| -> Vec<AnyMethod> {
        let selection = selection.with_weight_layout(M::LAYOUT);
        vec![lora.into(), WeightNormConfig { selection }.into()]
    };
    let properties = Properties {
        identity: Identity::Exact,
        has_frozen_base: true,
        is_random: true,
    };
    vec![
        case(
            "weight_norm on lora",
            normalized(lora(), Selection::default()),
            properties,
        ),
        case(
            "weight_norm on some of lora, with biases",
            normalized(
                LoraConfig {
                    use_rslora: true,
                    target_modules: names(&["q_proj", "down_proj", "lm_head"]),
                    ..lora()
                },
                Selection::default()
                    .with_target_modules(names(&["layers.1.q_proj", "lm_head"]))
                    .with_bias(Biases::All),
            ),
            properties,
        ),
    ]
}
