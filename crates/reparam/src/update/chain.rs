//! Composition, and the orders that it refuses.

use super::{GradientTransform, StepContext, UpdateError, state};
use crate::parameters::{NamedTensor, ParameterList};

/// What a transform is in a chain: the rules about order are about roles, not names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes the gradient at another point.
    Probe,
    /// Collects gradients over several calls.
    Collect,
    /// Multiplies everything by one number.
    Scale,
    /// Is linear and treats every element alike.
    Linear,
    /// Multiplies every element by a constant of its own.
    Mask,
    /// Bounds elements or norms.
    Bound,
    /// Keeps the signs only.
    Sign,
    /// Projects, so that elements depend on each other.
    Project,
    /// Adds a multiple of the parameters.
    Decay,
    /// Preconditions the two factors of a low-rank product by each other.
    PairPrecondition,
    /// Divides by a measure of the gradients' size.
    Precondition,
    /// The same, and adds a decoupled decay.
    PreconditionAndDecay,
    /// Gives some parameters another learning rate.
    Ratio,
    /// Holds some parameters still.
    Freeze,
    /// Keeps an average of the parameters to evaluate.
    Average,
    /// Decides itself where the parameters go, and averages them.
    Move,
}

/// A role, whose it is, and of which parameters if not of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The transform's name.
    pub name: &'static str,
    /// Its role.
    pub role: Role,
    /// The pattern of the parameters it is restricted to.
    pub scope: Option<String>,
}

impl Placed {
    /// Returns the role of a transform that works on all parameters.
    pub(super) fn everywhere(name: &'static str, role: Role) -> Vec<Self> {
        vec![Self {
            name,
            role,
            scope: None,
        }]
    }

    /// Returns the role of a preconditioner with a decoupled decay of its own, which may be zero.
    pub(super) fn preconditioner(name: &'static str, weight_decay: f64) -> Vec<Self> {
        let role = if weight_decay > 0.0 {
            Role::PreconditionAndDecay
        } else {
            Role::Precondition
        };
        Self::everywhere(name, role)
    }
}

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
/// [`UpdateError::Order`] when one of them would not do what it promises at its place:
///
/// - a probe is not first: it looks along the loss's own gradient;
/// - a mask that stands for a reparameterization comes after a bound, a projection, a decay or a
///   preconditioner, which the branches it stands for would have met after it (RepOptimizers,
///   arXiv 2205.15242). One exception is the second half of such a mask for Adam;
/// - a scale comes before signs, which have no size, or a learning-rate ratio before a
///   preconditioner, which divides it out;
/// - a preconditioner comes before the preconditioning of factor pairs, which is defined on gradients;
/// - anything that moves parameters comes after a freeze;
/// - anything comes after a transform that moves the parameters itself, or there are two averages.
pub fn chain(parts: Vec<Box<dyn GradientTransform>>) -> Result<Chain, UpdateError> {
    let roles: Vec<Placed> = parts.iter().flat_map(|part| part.roles()).collect();
    for (place, second) in roles.iter().enumerate() {
        for first in &roles[..place] {
            let disjoint =
                first.scope.is_some() && second.scope.is_some() && first.scope != second.scope;
            if disjoint {
                continue;
            }
            let masked = roles[..place]
                .iter()
                .take_while(|role| *role != first)
                .any(|role| role.role == Role::Mask);
            if let Some(reason) = broken_law(first.role, second.role, masked) {
                return Err(UpdateError::Order {
                    first: first.name,
                    second: second.name,
                    reason,
                });
            }
        }
    }
    Ok(Chain { parts })
}

/// Returns why the second role cannot follow the first; `masked` says whether a mask came before both.
fn broken_law(first: Role, second: Role, masked: bool) -> Option<&'static str> {
    use Role::{
        Average, Bound, Decay, Freeze, Linear, Mask, Move, PairPrecondition, Precondition,
        PreconditionAndDecay, Probe, Project, Ratio, Scale, Sign,
    };
    match (first, second) {
        (_, Probe) => Some("the probe looks along the loss's own gradient, so it has to be first"),
        (Bound | Sign, Mask) => Some(
            "a mask stands for scaled branches, whose gradients would be bounded after their \
             scaling; bounding before it breaks the equivalence",
        ),
        (Project, Mask) => Some("the branches that a mask stands for would project after it"),
        (Decay | PreconditionAndDecay, Mask) => {
            Some("a mask applies to the gradient, not to the decay")
        }
        (Precondition, Mask) if !masked => {
            Some("a mask stands for scaled branches, whose gradients are scaled first")
        }
        (Scale, Sign) => Some("a sign has no size, so the scale would have no effect"),
        (Ratio, Sign | Precondition | PreconditionAndDecay | Move) => {
            Some("the ratio is one of learning rates, and a preconditioner divides it out")
        }
        (Precondition | PreconditionAndDecay | Sign, PairPrecondition) => {
            Some("factor pairs are preconditioned by their gradients, not by Adam's directions")
        }
        (Freeze, Linear | Decay | Precondition | PreconditionAndDecay | Move) => {
            Some("what comes later could move what is frozen")
        }
        (Average | Move, Average | Move) => Some("there can be one average of the parameters only"),
        (Move, _) => Some("it has moved the parameters itself by then, so it has to be last"),
        _ => None,
    }
}

impl GradientTransform for Chain {
    fn name(&self) -> &'static str {
        "chain"
    }

    fn transform(
        &mut self,
        mut updates: ParameterList,
        context: &StepContext<'_>,
    ) -> Result<ParameterList, UpdateError> {
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

    fn load_state(&mut self, state: ParameterList) -> Result<(), UpdateError> {
        let mut state = state::Loaded::new("optimizer", state);
        for (place, part) in self.parts.iter_mut().enumerate() {
            let own = state.take_group(&format!("{place}.{}", part.name()));
            part.load_state(own)?;
        }
        state.finish()
    }

    fn check(&self, parameters: &[NamedTensor]) -> Result<(), UpdateError> {
        self.parts
            .iter()
            .try_for_each(|part| part.check(parameters))
    }

    fn probe(
        &mut self,
        gradients: &[NamedTensor],
        context: &StepContext<'_>,
    ) -> Result<Option<ParameterList>, UpdateError> {
        // The rules leave at most one probe, at the head.
        match self.parts.first_mut() {
            Some(part) => part.probe(gradients, context),
            None => Ok(None),
        }
    }

    fn moved(&mut self, parameters: &[NamedTensor]) -> Result<(), UpdateError> {
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
