//! The method's own transform: a constant scale of the gradient.

use crate::optim::entry::TransformEntry;
use crate::optim::error::Result;
use crate::optim::transform::{GradientTransform, StepContext, Transformed, map, placed};
use crate::parameters::ParameterList;
use crate::schema::{Fallback, Range, SettingKind, SettingSpec, SettingValue};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "scale",
    summary: "The method's own transform: scale by 1/sqrt(T), or by a given constant",
    formula: "u = lambda g,  lambda = 1/sqrt(T) or a given number",
    source: "the square root law: the same as training V in W = sqrt(lambda) V",
    optimizer: None,
    settings: &[SettingSpec {
        key: "lambda",
        kind: SettingKind::WordOrNumber(&["1/sqrt(T)"], Range::Factor),
        fallback: Fallback::Word("1/sqrt(T)"),
        meaning: "the factor",
    }],
    build: |settings, _| {
        let scale = match settings.value("lambda")? {
            SettingValue::Number(lambda) => Scale::by(*lambda)?,
            _ => Scale::ByHorizon,
        };
        Ok(vec![Box::new(scale)])
    },
};

/// Multiplies the gradients by a constant.
///
/// ```text
/// u = lambda g,   lambda = 1 / sqrt(T)  or a given number
/// ```
///
/// With plain gradient descent this is a learning rate of `eta lambda`, and, by the square root
/// law, the same as training `V` in `W = sqrt(lambda) V`. Before a transform that normalizes, such
/// as Adam's, a constant scale cancels but for `eps`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// `lambda = 1 / sqrt(T)`, `T` the planned number of steps.
    ByHorizon,
    /// A given `lambda`.
    By(f64),
}

impl Scale {
    /// Creates the transform with a given factor, which must be positive.
    pub fn by(lambda: f64) -> Result<Self> {
        Range::Factor.check("lambda", lambda)?;
        Ok(Self::By(lambda))
    }

    /// Returns `lambda` for a horizon.
    pub fn lambda(&self, horizon: u64) -> f64 {
        match self {
            Self::ByHorizon => 1.0 / (horizon as f64).sqrt(),
            Self::By(lambda) => *lambda,
        }
    }
}

impl GradientTransform for Scale {
    placed!("scale", Scale);

    fn transform(&mut self, updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        let lambda = self.lambda(context.horizon);
        Ok(map(updates, |update| update.values.clone() * lambda))
    }
}
