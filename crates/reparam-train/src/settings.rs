//! From the words of a run file to the types of the libraries.

use reparam::phi::{FactorInit, LoraConfig};
use reparam::update::{
    AdamW, ClipByGlobalNorm, ClipByValue, Decay, GradientTransform, Momentum, Optimizer, Scale,
    Schedule, UpdateError, WeightDecay,
};
use reparam_data::{Format, PackingStrategy};
use reparam_formats::peft;

use crate::TrainError;
use crate::config::{
    self, Algorithm, DataFormat, Lambda, ModuleSelector, OptimizerConfig, Packing,
};

/// Returns LoRA's settings.
pub(crate) fn lora(lora: &config::LoraConfig) -> LoraConfig {
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

/// Returns the two-step update.
///
/// The order of the chain: lambda scales first, as the method says; then the gradient is bounded;
/// then it is preconditioned.
pub(crate) fn optimizer(
    optimizer: &OptimizerConfig,
    max_steps: u64,
) -> Result<Optimizer, TrainError> {
    let schedule = schedule(optimizer, max_steps)?;
    let chain = chain(optimizer).map_err(TrainError::Update)?;
    Optimizer::new(chain, optimizer.learning_rate, schedule, max_steps).map_err(TrainError::Update)
}

/// Returns the factor of the gradient.
pub(crate) fn lambda(optimizer: &OptimizerConfig, max_steps: u64) -> f64 {
    scale(optimizer).map_or(1.0, |scale| scale.lambda(max_steps))
}

fn scale(optimizer: &OptimizerConfig) -> Option<Scale> {
    optimizer.lambda.map(|lambda| match lambda {
        Lambda::InverseSqrtHorizon => Scale::ByHorizon,
        Lambda::Fixed(lambda) => Scale::By(lambda),
    })
}

fn chain(optimizer: &OptimizerConfig) -> Result<Vec<Box<dyn GradientTransform>>, UpdateError> {
    let mut chain: Vec<Box<dyn GradientTransform>> = Vec::new();
    if let Some(scale) = scale(optimizer) {
        chain.push(Box::new(scale));
    }
    if let Some(max_value) = optimizer.clip_grad_value {
        chain.push(Box::new(ClipByValue::new(max_value)?));
    }
    if optimizer.clip_grad_norm > 0.0 {
        chain.push(Box::new(ClipByGlobalNorm::new(optimizer.clip_grad_norm)?));
    }
    match optimizer.algorithm {
        Algorithm::AdamW {
            beta1,
            beta2,
            eps,
            weight_decay,
        } => chain.push(Box::new(AdamW::new(beta1, beta2, eps, weight_decay)?)),
        Algorithm::Sgd {
            momentum,
            nesterov,
            weight_decay,
        } => {
            if weight_decay > 0.0 {
                chain.push(Box::new(WeightDecay::new(weight_decay)?));
            }
            if momentum > 0.0 {
                chain.push(Box::new(Momentum::new(momentum, nesterov)?));
            }
        }
    }
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
    };
    Schedule::warmup(warmup_steps, decay, optimizer.min_learning_rate_ratio)
        .map_err(TrainError::Update)
}

/// Returns how files are read.
pub(crate) fn format(format: DataFormat) -> Format {
    match format {
        DataFormat::Text => Format::Text,
        DataFormat::Jsonl => Format::JsonLines,
    }
}

/// Returns how pieces are packed.
pub(crate) fn packing(packing: Packing) -> PackingStrategy {
    match packing {
        Packing::BestFit => PackingStrategy::BestFitDecreasing,
        Packing::Sequential => PackingStrategy::Sequential,
        Packing::None => PackingStrategy::None,
    }
}
