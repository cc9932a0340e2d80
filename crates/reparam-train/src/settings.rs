//! From the words of a run file to the types of the libraries.

use reparam::methods::{
    AnyMethod, Biases, FactorInit, GammaInit, IdentityConfig, LoraConfig, OverparameterizedConfig,
    ScaleConfig, Selection, SigmaReparamConfig, WeightNormConfig,
};
use reparam::optim::{
    AdaptiveScale, BuildContext, ClipByGlobalNorm, ClipByValue, Decay, DecayShape,
    GradientTransform, OptimError, Optimizer, Scale, Schedule, SettingValue,
};
use reparam_data::{DatasetOptions, PackingStrategy};
use reparam_formats::peft;

use crate::TrainError;
use crate::config::{
    self, DataConfig, Lambda, MethodConfig, ModuleSelector, NamedUpdate, OptimizerConfig, Packing,
    RegressionConfig, RegressionModelKind, TargetConfig, TrainedBias, UpdateConfig, WeightScale,
};

/// Returns a method with its settings; `max_steps` is the horizon.
pub(crate) fn method(method: &MethodConfig, max_steps: u64) -> AnyMethod {
    match method {
        MethodConfig::Lora(config) => lora(config).into(),
        MethodConfig::Identity(targets) => IdentityConfig {
            selection: selection(targets),
        }
        .into(),
        MethodConfig::Scale(config) => match config.scale {
            WeightScale::Horizon => ScaleConfig::by_horizon(max_steps),
            WeightScale::Fixed(scale) => ScaleConfig::new(scale),
        }
        .with_selection(selection(&config.targets))
        .into(),
        MethodConfig::WeightNorm(config) => WeightNormConfig {
            selection: selection(&config.targets),
        }
        .into(),
        MethodConfig::SigmaReparam(config) => SigmaReparamConfig {
            gamma_init: match config.gamma_init {
                config::GammaInit::Sigma => GammaInit::Sigma,
                config::GammaInit::One => GammaInit::One,
            },
            selection: selection(&config.targets),
        }
        .into(),
        MethodConfig::Overparameterized(config) => OverparameterizedConfig {
            branches: config.branches.clone(),
            product_width: config.product_width,
            diagonal: config.diagonal,
            selection: selection(&config.targets),
        }
        .into(),
    }
}

fn selection(targets: &TargetConfig) -> Selection {
    Selection {
        target_modules: selector(&targets.target_modules),
        exclude_modules: targets.exclude_modules.as_ref().map(selector),
        bias: match targets.bias {
            TrainedBias::None => Biases::None,
            TrainedBias::All => Biases::All,
        },
        ..Selection::default()
    }
}

/// Returns LoRA's settings.
fn lora(lora: &config::LoraConfig) -> LoraConfig {
    LoraConfig {
        dropout: lora.dropout,
        use_rslora: lora.use_rslora,
        exclude_modules: lora.exclude_modules.as_ref().map(selector),
        rank_pattern: lora.rank_pattern.clone(),
        alpha_pattern: lora.alpha_pattern.clone(),
        layers_to_transform: lora.layers_to_transform.clone(),
        layers_pattern: lora.layers_pattern.clone().unwrap_or_default(),
        bias: match lora.bias {
            config::Bias::None => peft::Bias::None,
            config::Bias::All => peft::Bias::All,
            config::Bias::LoraOnly => peft::Bias::LoraOnly,
        },
        init: match lora.init {
            config::LoraInit::Kaiming => FactorInit::Kaiming,
            config::LoraInit::Gaussian => FactorInit::Gaussian,
        },
        ..LoraConfig::new(lora.rank, lora.alpha).with_target_modules(selector(&lora.target_modules))
    }
}

fn selector(selector: &ModuleSelector) -> peft::TargetModules {
    match selector {
        ModuleSelector::AllLinear => peft::TargetModules::AllLinear,
        ModuleSelector::Names(names) => peft::TargetModules::Names(names.clone()),
        ModuleSelector::Pattern(pattern) => peft::TargetModules::Pattern(pattern.clone()),
    }
}

/// Returns what transforms may know of a method.
pub(crate) fn build_context(method: &MethodConfig) -> BuildContext {
    BuildContext {
        lora_scaling: match method {
            MethodConfig::Lora(config) => Some(lora(config).scaling()),
            _ => None,
        },
    }
}

/// Returns the two-step update.
pub(crate) fn optimizer(
    optimizer: &OptimizerConfig,
    method: &MethodConfig,
    max_steps: u64,
) -> Result<Optimizer, TrainError> {
    let schedule = schedule(optimizer, max_steps)?;
    let chain =
        transforms(&optimizer.update, &build_context(method)).map_err(TrainError::Update)?;
    Optimizer::new(chain, optimizer.learning_rate, schedule, max_steps).map_err(TrainError::Update)
}

/// Returns the factor of the gradient; `None` if there is no constant one.
pub(crate) fn lambda(update: &UpdateConfig, max_steps: u64) -> Option<f64> {
    match update {
        UpdateConfig::Named(NamedUpdate { lambda, .. }) => match lambda {
            None => Some(1.0),
            Some(Lambda::InverseSqrtHorizon) => Some(Scale::ByHorizon.lambda(max_steps)),
            Some(Lambda::Fixed(lambda)) => Some(*lambda),
            Some(Lambda::Adaptive) => None,
        },
        UpdateConfig::Transforms(_) => None,
    }
}

/// Returns whether a regression is plain gradient descent on a linear model, up to lambda: where the largest
/// stable learning rate is known.
pub(crate) fn is_plain_descent(config: &RegressionConfig) -> bool {
    let UpdateConfig::Named(update) = &config.optimizer.update else {
        return false;
    };
    let is_zero = |key: &str| {
        let mut settings = update.algorithm.settings.iter();
        settings.all(|(name, value)| name != key || *value == SettingValue::Number(0.0))
    };
    config.model.kind == RegressionModelKind::Linear
        && matches!(config.method, MethodConfig::Identity(_))
        && update.algorithm.kind == "sgd"
        && is_zero("momentum")
        && is_zero("weight_decay")
        && update.lambda != Some(Lambda::Adaptive)
}

/// Returns the transforms of an update.
///
/// The usual order: lambda scales first, as the method says; then the gradient is bounded; then it is
/// preconditioned.
pub(crate) fn transforms(
    update: &UpdateConfig,
    context: &BuildContext,
) -> Result<Vec<Box<dyn GradientTransform>>, OptimError> {
    let named = match update {
        UpdateConfig::Named(named) => named,
        UpdateConfig::Transforms(specs) => {
            let parts: Result<Vec<_>, _> = specs.iter().map(|spec| spec.build(context)).collect();
            return Ok(parts?.into_iter().flatten().collect());
        }
    };
    let mut chain: Vec<Box<dyn GradientTransform>> = Vec::new();
    match named.lambda {
        None => {}
        Some(Lambda::InverseSqrtHorizon) => chain.push(Box::new(Scale::ByHorizon)),
        Some(Lambda::Fixed(lambda)) => chain.push(Box::new(Scale::by(lambda)?)),
        Some(Lambda::Adaptive) => chain.push(Box::new(AdaptiveScale::new(0.9, None)?)),
    }
    if let Some(max_value) = named.clip_grad_value {
        chain.push(Box::new(ClipByValue::new(max_value)?));
    }
    if named.clip_grad_norm > 0.0 {
        chain.push(Box::new(ClipByGlobalNorm::new(named.clip_grad_norm)?));
    }
    chain.extend(named.algorithm.build(context)?);
    Ok(chain)
}

fn schedule(optimizer: &OptimizerConfig, max_steps: u64) -> Result<Schedule, TrainError> {
    let warmup_steps = match optimizer.warmup {
        config::Warmup::Steps(steps) => steps,
        config::Warmup::Ratio(ratio) => (ratio * max_steps as f64).ceil() as u64,
    };
    if warmup_steps > max_steps {
        return Err(TrainError::Warmup {
            warmup_steps,
            max_steps,
        });
    }
    let decay = match optimizer.schedule {
        config::Schedule::Constant => Decay::None,
        config::Schedule::Linear => Decay::Linear,
        config::Schedule::Cosine => Decay::Cosine,
        config::Schedule::InverseSqrt => Decay::InverseSqrt,
        config::Schedule::Wsd {
            decay_ratio,
            decay_shape,
        } => Decay::Stable {
            decay_steps: decay_steps(decay_ratio, warmup_steps, max_steps)?,
            shape: match decay_shape {
                config::DecayShape::Linear => DecayShape::Linear,
                config::DecayShape::Cosine => DecayShape::Cosine,
                config::DecayShape::OneMinusSqrt => DecayShape::OneMinusSqrt,
            },
        },
    };
    Schedule::warmup(warmup_steps, decay, optimizer.min_learning_rate_ratio)
        .map_err(TrainError::Update)
}

/// Returns the steps of the fall at the end of a `wsd` schedule, which the warm-up must leave room for.
fn decay_steps(ratio: f64, warmup_steps: u64, max_steps: u64) -> Result<u64, TrainError> {
    let decay_steps = (ratio * max_steps as f64).ceil() as u64;
    if warmup_steps + decay_steps > max_steps {
        return Err(TrainError::ScheduleTooLong {
            warmup_steps,
            decay_steps,
            max_steps,
        });
    }
    Ok(decay_steps)
}

/// Returns how the training files become blocks of `sequence_length` tokens.
pub(crate) fn dataset(data: &DataConfig, sequence_length: usize) -> DatasetOptions {
    DatasetOptions {
        format: data.format,
        train_on_prompt: data.train_on_prompt,
        sequence_length,
        packing: packing(data.packing),
    }
}

fn packing(packing: Packing) -> PackingStrategy {
    match packing {
        Packing::BestFit => PackingStrategy::BestFitDecreasing,
        Packing::Sequential => PackingStrategy::Sequential,
        Packing::None => PackingStrategy::None,
    }
}
