//! Composition.

use crate::optim::error::{OptimError, Result};
use crate::optim::rules::Placed;
use crate::optim::rules::order;
use crate::optim::state;
use crate::optim::transform::{GradientTransform, StepContext, Transformed};
use crate::parameters::{NamedTensor, ParameterList};

/// Transforms applied one after the other.
///
/// ```text
/// chain(a, b)(g) = b(a(g))
/// ```
///
/// A chain is a transform, and composition is associative: `chain(chain(a, b), c)` and
/// `chain(a, chain(b, c))` do the same to the bit. Its state has the names
/// `<place>.<transform>.<its own name>`.
///
/// # References
///
/// The design is that of optax's `chain`; the refusal of orders is not in optax.
#[derive(Debug)]
pub struct Chain {
    parts: Vec<Box<dyn GradientTransform>>,
}

/// Composes transforms, in the order in which they are applied.
///
/// # Errors
///
/// [`OptimError::Order`] when one of them would not do what it promises at its place:
///
/// - a probe is not first: it looks along the loss's own gradient;
/// - a mask that stands for a reparameterization comes after a bound, a projection, a decay or a
///   preconditioner, which the branches it stands for would have met after it (RepOptimizers,
///   arXiv 2205.15242), or before one that divides it out. For Adam a mask has two halves, around it;
/// - a scale comes before signs, which have no size, or a learning-rate ratio before a
///   preconditioner, which divides it out;
/// - a preconditioner comes before the preconditioning of factor pairs, which is defined on gradients;
/// - anything that moves parameters comes after a freeze, or after an accumulation;
/// - anything comes after a transform that moves the parameters itself, or there are two averages.
///
/// Transforms in groups with different patterns are compared when the parameters are known, by
/// [`GradientTransform::check`].
pub fn chain(parts: Vec<Box<dyn GradientTransform>>) -> Result<Chain> {
    let chain = Chain { parts };
    order::check(&chain.roles())?;
    Ok(chain)
}

/// Composes the transforms inside of another one, and refuses those that make no sense there.
pub(crate) fn inner(
    outer: &'static str,
    parts: Vec<Box<dyn GradientTransform>>,
    is_foreign: impl Fn(&Placed) -> bool,
    (reason, fix): (&'static str, &'static str),
) -> Result<Chain> {
    let chain = chain(parts)?;
    match chain.roles().into_iter().find(is_foreign) {
        None => Ok(chain),
        Some(placed) => Err(OptimError::Order {
            first: outer,
            second: placed.name,
            reason,
            fix,
        }),
    }
}

impl GradientTransform for Chain {
    fn name(&self) -> &'static str {
        "chain"
    }

    fn transform(&mut self, mut updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        for part in &mut self.parts {
            updates = part.transform(updates, context)?;
        }
        Ok(updates)
    }

    fn roles(&self) -> Vec<Placed> {
        self.parts.iter().flat_map(|part| part.roles()).collect()
    }

    fn state(&self) -> ParameterList {
        let states = self.parts.iter().enumerate().map(|(place, part)| {
            state::prefixed(&format!("{place}.{}", part.name()), &part.state())
        });
        states.flatten().collect()
    }

    fn load_state(&mut self, state: ParameterList) -> Result<()> {
        let mut state = state::Loaded::new("optimizer", state);
        for (place, part) in self.parts.iter_mut().enumerate() {
            let own = state.take_group(&format!("{place}.{}", part.name()));
            part.load_state(own)?;
        }
        state.finish()
    }

    fn check(&self, parameters: &[NamedTensor], horizon: u64) -> Result<()> {
        order::check_names(&self.roles(), parameters)?;
        self.parts
            .iter()
            .try_for_each(|part| part.check(parameters, horizon))
    }

    fn probe(
        &mut self,
        gradients: &[NamedTensor],
        context: &StepContext<'_>,
    ) -> Result<Option<ParameterList>> {
        // The rules leave at most one probe, with nothing before it.
        for part in &mut self.parts {
            if let Some(point) = part.probe(gradients, context)? {
                return Ok(Some(point));
            }
        }
        Ok(None)
    }

    fn moved(&mut self, parameters: &[NamedTensor]) -> Result<()> {
        self.parts
            .iter_mut()
            .try_for_each(|part| part.moved(parameters))
    }

    fn evaluated(&self, parameters: &[NamedTensor]) -> Option<ParameterList> {
        self.parts
            .iter()
            .find_map(|part| part.evaluated(parameters))
    }
}
