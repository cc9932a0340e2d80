//! Weight decay as part of the gradient.

use crate::optim::entry::{Built, TransformEntry, one};
use crate::optim::error::Result;
use crate::optim::transform::{
    GradientTransform, StepContext, Transformed, map_with_parameters, placed,
};
use crate::parameters::ParameterList;
use crate::schema::{Range, SettingKind, Settings, required};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "weight_decay",
    summary: "Add a multiple of the parameters: L2 before momentum, decoupled at the end",
    formula: "u = g + weight_decay theta",
    source: "arXiv 1711.05101",
    optimizer: None,
    settings: &[required(
        "weight_decay",
        SettingKind::Number(Range::NonNegative),
        "0.01",
        "multiple of the parameters that is added",
    )],
    build: |settings, _| one(WeightDecay::new(settings.number("weight_decay")?)?),
};

/// Returns L2 regularization as a part of an optimizer, if it has any.
pub(crate) fn l2(settings: &Settings) -> Built {
    let weight_decay = settings.number("weight_decay")?;
    let decay = WeightDecay::new(weight_decay)?;
    Ok(if weight_decay > 0.0 {
        vec![Box::new(decay)]
    } else {
        Vec::new()
    })
}

/// Adds a multiple of the parameters to the updates.
///
/// ```text
/// u = g + weight_decay * theta
/// ```
///
/// or, of the moved parameters, `u = g + weight_decay * (theta - eta_t g)`.
///
/// Placed before momentum this is L2 regularization, as in PyTorch's SGD; placed last in the chain
/// it is decoupled weight decay, multiplied by the learning rate as in PyTorch's AdamW.
///
/// # References
///
/// Loshchilov and Hutter, *Decoupled Weight Decay Regularization* (arXiv 1711.05101).
#[derive(Debug, Clone)]
pub struct WeightDecay {
    weight_decay: f64,
    of_moved: bool,
}

impl WeightDecay {
    /// Creates the transform; `weight_decay` must not be negative.
    pub fn new(weight_decay: f64) -> Result<Self> {
        Ok(Self {
            weight_decay: Range::NonNegative.check("weight_decay", weight_decay)?,
            of_moved: false,
        })
    }

    /// Decays the parameters as they are after the move by the update so far, as the older AdamW of
    /// transformers does: `theta <- (1 - eta_t weight_decay) (theta - eta_t g)`.
    ///
    /// It has to be the last to change the update.
    pub fn of_moved(weight_decay: f64) -> Result<Self> {
        Ok(Self {
            of_moved: true,
            ..Self::new(weight_decay)?
        })
    }
}

impl GradientTransform for WeightDecay {
    placed!("weight_decay", Decay);

    fn transform(&mut self, updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        if self.weight_decay == 0.0 {
            return Ok(updates);
        }
        Ok(map_with_parameters(
            updates,
            context,
            |update, parameter| {
                let update = update.values.clone();
                let mut decayed = parameter.values.clone();
                if self.of_moved {
                    decayed = decayed - update.clone() * context.learning_rate;
                }
                update + decayed * self.weight_decay
            },
        ))
    }
}
