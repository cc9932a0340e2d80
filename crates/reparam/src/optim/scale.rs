//! The method's own transform: a constant scale of the gradient.

use super::clip::positive;
use super::table::{Fallback, SettingKind, SettingSpec, TransformEntry};
use super::{GradientTransform, OptimError, Placed, Role, StepContext, map};
use crate::parameters::ParameterList;

pub(super) const ENTRY: TransformEntry = TransformEntry {
    kind: "scale",
    summary: "The method's own transform: scale by 1/sqrt(T), or by a given constant",
    formula: "u = lambda g,  lambda = 1/sqrt(T) or a given number",
    source: "the square root law: the same as training V in W = sqrt(lambda) V",
    optimizer: None,
    settings: &[SettingSpec {
        key: "lambda",
        kind: SettingKind::Lambda,
        fallback: Fallback::Word("1/sqrt(T)"),
        meaning: "the factor",
    }],
    build: |settings, _| {
        let scale = match settings.optional("lambda") {
            Some(lambda) => Scale::by(lambda)?,
            None => match settings.word("lambda")? {
                "1/sqrt(T)" => Scale::ByHorizon,
                other => {
                    return Err(OptimError::Setting {
                        setting: "lambda",
                        expected: "\"1/sqrt(T)\" or a positive number",
                        found: other.to_owned(),
                    });
                }
            },
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
    pub fn by(lambda: f64) -> Result<Self, OptimError> {
        positive("lambda", lambda)?;
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
    fn name(&self) -> &'static str {
        "scale"
    }

    fn transform(
        &mut self,
        updates: ParameterList,
        context: &StepContext<'_>,
    ) -> Result<ParameterList, OptimError> {
        let lambda = self.lambda(context.horizon);
        Ok(map(updates, |update| update.values.clone() * lambda))
    }

    fn roles(&self) -> Vec<Placed> {
        Placed::everywhere(self.name(), Role::Scale)
    }
}
