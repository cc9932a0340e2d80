//! The methods and settings that the laws are checked for.

use std::path::Path;
use std::sync::Arc;

use reparam_formats::peft::{AdapterFiles, TargetModules};

use super::toy::Toy;
use crate::methods::{
    AdapterMeta, Biases, DoraConfig, FactorInit, FullConfig, GammaInit, Ia3Config, LoraConfig,
    MethodConfig, MethodError, OverparameterizedConfig, ScaleConfig, Selection, SigmaReparamConfig,
    VeraConfig, WeightNormConfig, attach_adapter, attach_all, load_theta, save_theta, to_adapter,
};

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
pub(super) struct Case {
    pub(super) name: &'static str,
    /// The methods' names in the table, the one next to the stored weight first.
    pub(super) methods: Vec<&'static str>,
    pub(super) properties: Properties,
    configs: Vec<Arc<dyn MethodConfig>>,
}

impl Case {
    /// Attaches the methods, with a seed for their initial values.
    pub(super) fn attach<M: Toy>(&self, model: M, seed: u64) -> M {
        self.try_attach(model, seed)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    pub(super) fn try_attach<M: Toy>(&self, model: M, seed: u64) -> Result<M, MethodError> {
        let configs = self.configs_for::<M>();
        let configs: Vec<&dyn MethodConfig> = configs.iter().map(|config| &**config).collect();
        attach_all(model, &configs, seed).map(|(model, _)| model)
    }

    /// The settings in the layout of a network.
    pub(super) fn configs_for<M: Toy>(&self) -> Vec<Arc<dyn MethodConfig>> {
        let configs = self.configs.iter();
        configs
            .map(|config| {
                let selection = config.selection().clone();
                config.with_selection(selection.with_weight_layout(M::LAYOUT))
            })
            .collect()
    }

    /// Saves the trained state and puts it into another model with the methods attached.
    pub(super) fn through_theta<M: Toy>(&self, model: &M, fresh: M, directory: &Path) -> M {
        let path = directory.join("theta.safetensors");
        save_theta(model, &path).expect("an empty directory");
        // With another seed: whatever the file lacks would show.
        let fresh = self.attach(fresh, 1234);
        load_theta(fresh, &path).expect("what was just saved")
    }

    /// Saves an adapter of PEFT and attaches it to another model; `None` if PEFT does not have the method.
    pub(super) fn through_peft<M: Toy>(&self, model: &M, fresh: M, directory: &Path) -> Option<M> {
        let configs = self.configs_for::<M>();
        let [config] = configs.as_slice() else {
            return None;
        };
        config.spec().peft.as_ref()?;
        let (_, report) = attach_all(fresh.clone(), &[&**config], 0).expect("the same model");
        let meta = AdapterMeta::new(&**config, &report.modules);
        let files = to_adapter(model, &**config, &meta).expect("its own adapter");
        files.save(directory).expect("an empty directory");
        let loaded = AdapterFiles::load(directory).expect("what was just saved");
        let (model, _) = attach_adapter(fresh, &loaded, M::LAYOUT).expect("the same model");
        Some(model)
    }
}

/// Returns every case.
pub(super) fn cases() -> Vec<Case> {
    let adapters = lora_settings()
        .into_iter()
        .map(|(name, config)| case(name, vec![Arc::new(config)], DRAWN));
    adapters
        .chain(other_adapters())
        .chain(trained_bases())
        .chain(chains())
        .collect()
}

/// Of methods that start at the identity with a frozen base.
const FROZEN: Properties = Properties {
    identity: Identity::Exact,
    has_frozen_base: true,
    is_random: false,
};

/// Of those that draw a part of it.
const DRAWN: Properties = Properties {
    is_random: true,
    ..FROZEN
};

fn case(name: &'static str, configs: Vec<Arc<dyn MethodConfig>>, properties: Properties) -> Case {
    Case {
        name,
        methods: configs.iter().map(|config| config.spec().kind).collect(),
        properties,
        configs,
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
                selection: targets(&["q_proj"]).with_bias(Biases::Targets),
                ..plain()
            },
        ),
        (
            "bias all",
            LoraConfig {
                selection: targets(&["q_proj"]).with_bias(Biases::All),
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
                selection: targets(&["lm_head", "q_proj"]),
                ..LoraConfig::new(8, 4.0)
            },
        ),
    ]
}

fn names(names: &[&str]) -> TargetModules {
    TargetModules::Names(names.iter().map(|name| (*name).to_owned()).collect())
}

fn targets(modules: &[&str]) -> Selection {
    Selection::default().with_target_modules(names(modules))
}

/// DoRA, VeRA and IA3.
fn other_adapters() -> Vec<Case> {
    let dora =
        |lora: LoraConfig| -> Vec<Arc<dyn MethodConfig>> { vec![Arc::new(DoraConfig { lora })] };
    let vera = VeraConfig {
        rank: 3,
        ..VeraConfig::default()
    };
    vec![
        case("dora", dora(LoraConfig::new(2, 3.0)), DRAWN),
        case(
            "dora with rsLoRA, patterns and biases",
            dora(LoraConfig {
                use_rslora: true,
                rank_pattern: vec![("lm_head".into(), 1)],
                selection: targets(&["q_proj", "lm_head"]).with_bias(Biases::All),
                ..LoraConfig::new(4, 6.0)
            }),
            DRAWN,
        ),
        case(
            "dora with dropout",
            dora(LoraConfig {
                dropout: 0.25,
                ..LoraConfig::new(2, 3.0)
            }),
            DRAWN,
        ),
        case("vera", vec![Arc::new(vera.clone())], DRAWN),
        case(
            "vera with dropout",
            vec![Arc::new(VeraConfig {
                dropout: 0.25,
                d_initial: 0.5,
                selection: targets(&["q_proj", "lm_head"]),
                ..vera
            })],
            DRAWN,
        ),
        case("ia3", vec![Arc::new(Ia3Config::default())], FROZEN),
        case(
            "ia3 of outputs alone",
            vec![Arc::new(Ia3Config {
                feedforward_modules: names(&[]),
                selection: targets(&["q_proj", "down_proj", "lm_head"]),
            })],
            FROZEN,
        ),
        case(
            "ia3 of inputs alone",
            vec![Arc::new(Ia3Config {
                feedforward_modules: names(&["q_proj"]),
                selection: targets(&["q_proj"]),
            })],
            FROZEN,
        ),
    ]
}

/// The methods whose stored weight is trained.
fn trained_bases() -> Vec<Case> {
    let with_biases = || targets(&["q_proj", "lm_head"]).with_bias(Biases::All);
    let fixed = Properties {
        has_frozen_base: false,
        ..FROZEN
    };
    let random = Properties {
        is_random: true,
        ..fixed
    };
    let rounded = |roundings: f64, properties: Properties| Properties {
        identity: Identity::Rounded(roundings),
        ..properties
    };
    let full = |selection: Selection| -> Vec<Arc<dyn MethodConfig>> {
        vec![Arc::new(FullConfig { selection })]
    };
    let weight_norm = |selection: Selection| -> Vec<Arc<dyn MethodConfig>> {
        vec![Arc::new(WeightNormConfig {
            selection,
            ..WeightNormConfig::default()
        })]
    };
    let sigma = |gamma_init: GammaInit| -> Vec<Arc<dyn MethodConfig>> {
        vec![Arc::new(SigmaReparamConfig {
            gamma_init,
            ..SigmaReparamConfig::default()
        })]
    };
    let branches = |scales: &[f64], product_width: usize| -> Vec<Arc<dyn MethodConfig>> {
        vec![Arc::new(OverparameterizedConfig {
            branches: scales.to_vec(),
            product_width,
            ..OverparameterizedConfig::default()
        })]
    };
    let other = Properties {
        identity: Identity::Other,
        ..random
    };
    vec![
        case("full", full(Selection::default()), fixed),
        case("full with biases", full(with_biases()), fixed),
        case(
            "full of some",
            full(Selection::default().with_exclude_modules(names(&["down_proj"]))),
            fixed,
        ),
        case(
            "scale",
            vec![Arc::new(ScaleConfig::new(0.3))],
            rounded(2.0, fixed),
        ),
        case(
            "scale by the horizon",
            vec![Arc::new(ScaleConfig::by_horizon(16))],
            // A half.
            fixed,
        ),
        case("weight_norm", weight_norm(Selection::default()), fixed),
        case("weight_norm with biases", weight_norm(with_biases()), fixed),
        case("sigma_reparam", sigma(GammaInit::Sigma), random),
        case("sigma_reparam from one", sigma(GammaInit::One), other),
        case("one branch", branches(&[1.0], 0), fixed),
        case("branches", branches(&[0.5, 1.3, 0.2], 0), fixed),
        case(
            "branches, the first of an inexact scale",
            branches(&[0.7, 1.5], 0),
            rounded(2.0, fixed),
        ),
        case("product", branches(&[1.0], 3), random),
    ]
}

/// Two methods on one weight.
fn chains() -> Vec<Case> {
    let normalized = |below: Arc<dyn MethodConfig>, selection: Selection| {
        let above: Arc<dyn MethodConfig> = Arc::new(WeightNormConfig {
            selection,
            ..WeightNormConfig::default()
        });
        vec![below, above]
    };
    let lora = || LoraConfig::new(2, 3.0);
    let some = LoraConfig {
        use_rslora: true,
        selection: targets(&["q_proj", "down_proj", "lm_head"]),
        ..lora()
    };
    let vera = VeraConfig {
        rank: 3,
        ..VeraConfig::default()
    };
    vec![
        case(
            "weight_norm on lora",
            normalized(Arc::new(lora()), Selection::default()),
            DRAWN,
        ),
        case(
            "weight_norm on some of lora, with biases",
            normalized(
                Arc::new(some),
                targets(&["layers.1.q_proj", "lm_head"]).with_bias(Biases::All),
            ),
            DRAWN,
        ),
        case(
            "weight_norm on ia3",
            normalized(Arc::new(Ia3Config::default()), Selection::default()),
            FROZEN,
        ),
        case(
            "weight_norm on vera",
            normalized(Arc::new(vera), Selection::default()),
            DRAWN,
        ),
        case(
            "weight_norm on a constant scale",
            normalized(Arc::new(ScaleConfig::new(0.5)), Selection::default()),
            Properties {
                has_frozen_base: false,
                ..FROZEN
            },
        ),
    ]
}
