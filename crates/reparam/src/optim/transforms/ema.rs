//! A running mean of the parameters.

use crate::optim::entry::{TransformEntry, one};
use crate::optim::error::Result;
use crate::optim::state;
use crate::optim::transform::{GradientTransform, StepContext, Transformed, placed};
use crate::parameters::{NamedTensor, ParameterList};
use crate::schema::{Range, number};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "ema",
    summary: "Evaluate and save a running mean of the parameters",
    formula: "e = decay e + (1 - decay) theta",
    source: "Polyak and Juditsky 1992, as in torch.optim.swa_utils",
    optimizer: None,
    settings: &[number(
        "decay",
        Range::InsideUnit,
        0.999,
        "decay of the mean",
    )],
    build: |settings, _| one(Ema::new(settings.number("decay")?)?),
};

/// Keeps an exponential moving average of the parameters, which is what is evaluated and saved.
///
/// ```text
/// e_1 = theta_1,   e_t = decay e_{t-1} + (1 - decay) theta_t        after the move of step t
/// ```
///
/// The updates pass unchanged: training does not see the average.
///
/// # References
///
/// Polyak and Juditsky (1992) for averaging; the recursion and its start are those of PyTorch's
/// `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn`.
///
/// # Cost
///
/// One number a parameter.
#[derive(Debug, Clone)]
pub struct Ema {
    decay: f64,
    average: ParameterList,
}

impl Ema {
    /// Creates the transform; `decay` must be between 0 and 1.
    pub fn new(decay: f64) -> Result<Self> {
        Ok(Self {
            decay: Range::InsideUnit.check("decay", decay)?,
            average: Vec::new(),
        })
    }
}

impl GradientTransform for Ema {
    placed!("ema", Average);

    fn transform(&mut self, updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        if !(self.average.is_empty() && context.step == 1) {
            state::ready_zeros(self.name(), &mut self.average, &updates, context)?;
        }
        Ok(updates)
    }

    fn moved(&mut self, parameters: &[NamedTensor]) -> Result<()> {
        if self.average.is_empty() {
            self.average = parameters.to_vec();
        } else {
            for (average, parameter) in self.average.iter_mut().zip(parameters) {
                let old = average.values.clone();
                let step = (parameter.values.clone() - old.clone()) * (1.0 - self.decay);
                average.values = old + step;
            }
        }
        Ok(())
    }

    fn evaluated(&self, parameters: &[NamedTensor]) -> Option<ParameterList> {
        state::in_order(&self.average, parameters)
    }

    state::kept!(average);
}
