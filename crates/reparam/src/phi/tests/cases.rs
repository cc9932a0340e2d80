//! The methods and settings that the laws are checked for.

use std::path::Path;

use burn::module::Module;
use reparam_formats::peft::{Bias, PeftAdapter, TargetModules};

use super::toy::Toy;
use crate::phi::{FactorInit, LoraConfig, PhiError, attach_adapter, attach_lora, to_adapter};

/// Saves the first model to a directory and attaches what is there to the second.
type Reload<M> = Box<dyn Fn(&M, M, &Path) -> M>;

/// One setting of one method.
pub(super) struct Case<M> {
    pub(super) name: &'static str,
    /// The method's name in the table.
    pub(super) method: &'static str,
    attach: Box<dyn Fn(M, u64) -> Result<M, PhiError>>,
    reload: Reload<M>,
}

impl<M: Module> Case<M> {
    /// Attaches the method, with a seed for its initial values.
    pub(super) fn attach(&self, model: M, seed: u64) -> M {
        self.try_attach(model, seed)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    pub(super) fn try_attach(&self, model: M, seed: u64) -> Result<M, PhiError> {
        (self.attach)(model, seed)
    }

    pub(super) fn reload(&self, model: &M, fresh: M, directory: &Path) -> M {
        (self.reload)(model, fresh, directory)
    }
}

/// Returns every case.
pub(super) fn cases<M: Toy>() -> Vec<Case<M>> {
    lora_settings()
        .into_iter()
        .map(|(name, config)| lora(name, config.with_weight_layout(M::LAYOUT)))
        .collect()
}

fn lora<M: Toy>(name: &'static str, config: LoraConfig) -> Case<M> {
    let adapter_config = config.to_adapter_config();
    Case {
        name,
        method: "lora",
        attach: Box::new(move |model, seed| {
            attach_lora(model, &config, seed).map(|(model, _)| model)
        }),
        reload: Box::new(move |model, fresh, directory| {
            let adapter = to_adapter(model, adapter_config.clone()).expect("its own adapter");
            adapter.save(directory).expect("an empty directory");
            let loaded = PeftAdapter::load(directory).expect("what was just saved");
            let (model, _) = attach_adapter(fresh, &loaded, M::LAYOUT).expect("the same model");
            model
        }),
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
                target_modules: TargetModules::Names(vec!["q_proj".into()]),
                ..plain()
            },
        ),
        (
            "bias all",
            LoraConfig {
                bias: Bias::All,
                target_modules: TargetModules::Names(vec!["q_proj".into()]),
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
                target_modules: TargetModules::Names(vec!["lm_head".into(), "q_proj".into()]),
                ..LoraConfig::new(8, 4.0)
            },
        ),
    ]
}
