//! From the words of a run file to the types of the libraries.

use std::sync::Arc;

use reparam::methods::{self, MethodConfig as AnyMethod};
use reparam::optim::{
    AdaptiveScale, BuildContext, ClipByGlobalNorm, ClipByValue, Decay, DecayShape,
    GradientTransform, OptimError, Optimizer, Scale, Schedule,
};
use reparam::schema::{SchemaError, Settings};
use reparam_data::{Cache, DatasetOptions, ReadOptions, Weights};

use crate::config::{
    Catalog, DataConfig, Lambda, MethodConfig, NamedUpdate, OptimizerConfig, SCHEDULE,
    ScheduleConfig, TrainConfig, UpdateConfig,
};
use crate::{Result, TrainError};

impl Catalog {
    /// Makes the method that a run file chose; `max_steps` is the horizon.
    ///
    /// # Errors
    ///
    /// Fails for settings that were put together in code and that a run file could not have.
    pub fn method(&self, method: &MethodConfig, max_steps: u64) -> Result<Arc<dyn AnyMethod>> {
        let context = methods::BuildContext {
            total_steps: max_steps,
        };
        Ok(self.methods.build(method, &context)?)
    }

    /// Makes the two-step update that a run file chose, for parameters of a method.
    ///
    /// # Errors
    ///
    /// As [`method`](Self::method), and for a schedule that does not fit into `max_steps`.
    pub fn optimizer(
        &self,
        optimizer: &OptimizerConfig,
        method: &MethodConfig,
        max_steps: u64,
    ) -> Result<Optimizer> {
        self.optimizer_for(optimizer, self.method(method, 1)?.scaling(), max_steps)
    }

    /// [`optimizer`](Self::optimizer) for parameters of a method with a scaling, if it has one.
    pub(crate) fn optimizer_for(
        &self,
        optimizer: &OptimizerConfig,
        scaling: Option<f64>,
        max_steps: u64,
    ) -> Result<Optimizer> {
        let schedule = schedule(&optimizer.schedule, max_steps)?;
        let context = BuildContext::new(&self.transforms).with_lora_scaling(scaling);
        let chain = transforms(&optimizer.update, &context).map_err(TrainError::Update)?;
        Optimizer::new(chain, optimizer.learning_rate, schedule, max_steps)
            .map_err(TrainError::Update)
    }
}

impl UpdateConfig {
    /// Returns the factor of the gradient; `None` if there is no constant one.
    #[must_use]
    pub fn lambda(&self, max_steps: u64) -> Option<f64> {
        match self {
            Self::Named(NamedUpdate { lambda, .. }) => match lambda {
                None => Some(1.0),
                Some(Lambda::InverseSqrtHorizon) => Some(Scale::ByHorizon.lambda(max_steps)),
                Some(Lambda::Fixed(lambda)) => Some(*lambda),
                Some(Lambda::Adaptive) => None,
            },
            Self::Transforms(_) => None,
        }
    }
}

/// Returns the transforms of an update.
///
/// The usual order: lambda scales first, as the method says; then the gradient is bounded; then it is
/// preconditioned.
pub(crate) fn transforms(
    update: &UpdateConfig,
    context: &BuildContext<'_>,
) -> Result<Vec<Box<dyn GradientTransform>>, OptimError> {
    let named = match update {
        UpdateConfig::Named(named) => named,
        UpdateConfig::Transforms(chosen) => return context.build_all(chosen),
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
    chain.extend(context.build(&named.algorithm)?);
    Ok(chain)
}

impl From<SchemaError> for TrainError {
    fn from(error: SchemaError) -> Self {
        Self::Update(OptimError::Schema(error))
    }
}

fn schedule(config: &ScheduleConfig, max_steps: u64) -> Result<Schedule> {
    let settings = Settings::new("schedule", &SCHEDULE, &config.0)?;
    let part = |ratio: f64| (ratio * max_steps as f64).ceil() as u64;
    let ratio = settings.optional("warmup_ratio", Settings::number);
    let warmup_steps = match ratio? {
        Some(ratio) => part(ratio),
        None => settings.count("warmup_steps")?,
    };
    if warmup_steps > max_steps {
        return Err(TrainError::Warmup {
            warmup_steps,
            max_steps,
        });
    }
    let shapes = [
        ("linear", DecayShape::Linear),
        ("cosine", DecayShape::Cosine),
        ("1-sqrt", DecayShape::OneMinusSqrt),
    ];
    let decay_steps = part(settings.number("decay_ratio")?);
    let stable = Decay::Stable {
        decay_steps,
        shape: settings.choice("decay_shape", &shapes)?,
    };
    let words = [
        ("constant", Decay::None),
        ("linear", Decay::Linear),
        ("cosine", Decay::Cosine),
        ("inverse_sqrt", Decay::InverseSqrt),
        ("wsd", stable),
    ];
    let decay = settings.choice("schedule", &words)?;
    if decay == stable && warmup_steps.saturating_add(decay_steps) > max_steps {
        return Err(TrainError::ScheduleTooLong {
            warmup_steps,
            decay_steps,
            max_steps,
        });
    }
    let least = settings.number("min_learning_rate_ratio")?;
    Schedule::warmup(warmup_steps, decay, least).map_err(TrainError::Update)
}

/// Returns how the training files, which are read so, become blocks, and where their tokens are kept.
pub(crate) fn dataset(
    data: &DataConfig,
    train: &TrainConfig,
    read: ReadOptions,
    (cache, weights): (Option<Cache>, Option<Weights>),
) -> DatasetOptions {
    // A step is one update: each of its micro-batches has streams of its own.
    let streams = train.batch_size.saturating_mul(train.gradient_accumulation);
    DatasetOptions {
        read,
        train_on_prompt: data.train_on_prompt,
        sequence_length: train.sequence_length,
        packing: data.packing,
        streams: data.carry_state.then_some(streams),
        too_long: data.too_long,
        cache,
        weights,
    }
}
