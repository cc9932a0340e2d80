//! Which orders of transforms keep what each of them promises.

use regex::Regex;

use super::OptimError;
use crate::parameters::NamedTensor;

/// What a transform is in a chain: the rules about order are about roles, not names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes the gradient at another point.
    Probe,
    /// Collects gradients over several calls, and passes zeros on in between.
    Collect,
    /// Multiplies everything by one constant.
    Scale,
    /// Multiplies everything by one number that changes from step to step.
    VaryingScale,
    /// Is linear and treats every element alike.
    Linear,
    /// Multiplies every element by a constant of its own, as the branches of gradient descent would.
    MaskSgd,
    /// One half of what branches under Adam would do: before its moments, or after them.
    MaskAdam,
    /// Bounds elements or norms.
    Bound,
    /// Keeps the signs only.
    Sign,
    /// Keeps the signs of a running mean.
    MeanSign,
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
    /// The patterns that the names of its parameters match, all of them; none for all parameters.
    pub scope: Vec<String>,
    /// Whether it looks at the parameters, and so cannot work on projections of gradients.
    pub needs_parameters: bool,
}

impl Placed {
    /// Returns the role of a transform that works on all parameters.
    pub(super) fn everywhere(name: &'static str, role: Role) -> Vec<Self> {
        let needs_parameters = matches!(
            role,
            Role::Probe
                | Role::Decay
                | Role::PairPrecondition
                | Role::PreconditionAndDecay
                | Role::Average
                | Role::Move
        );
        vec![Self {
            name,
            role,
            scope: Vec::new(),
            needs_parameters,
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

    /// Says of roles that they look at the parameters.
    pub(super) fn relative(mut roles: Vec<Self>) -> Vec<Self> {
        for placed in &mut roles {
            placed.needs_parameters = true;
        }
        roles
    }

    /// Says of roles that they hold for some parameters only.
    pub(super) fn within(mut roles: Vec<Self>, pattern: &str) -> Vec<Self> {
        for placed in &mut roles {
            placed.scope.push(pattern.to_owned());
        }
        roles
    }

    fn concerns(&self, name: &str) -> bool {
        // The patterns were compiled before, when their transforms were made.
        let matches =
            |pattern: &String| Regex::new(pattern).is_ok_and(|regex| regex.is_match(name));
        self.scope.iter().all(matches)
    }
}

/// Why one role cannot follow another, and what to do.
#[derive(Debug, Clone, Copy)]
struct Law {
    reason: &'static str,
    fix: &'static str,
}

/// Refuses orders that break a law wherever the parameters are called what they may be.
///
/// Two roles that are each restricted to some parameters, by different patterns, are left to
/// [`check_names`].
pub(super) fn check(roles: &[Placed]) -> Result<(), OptimError> {
    check_pairs(roles, |first, second| {
        first.scope.is_empty() || second.scope.is_empty() || first.scope == second.scope
    })?;
    check_adam_masks(roles)
}

/// Refuses orders that break a law for one of these parameters.
pub(super) fn check_names(roles: &[Placed], parameters: &[NamedTensor]) -> Result<(), OptimError> {
    check_pairs(roles, |first, second| {
        let mut names = parameters.iter().map(|parameter| &parameter.name);
        names.any(|name| first.concerns(name) && second.concerns(name))
    })
}

fn check_pairs(
    roles: &[Placed],
    meet: impl Fn(&Placed, &Placed) -> bool,
) -> Result<(), OptimError> {
    for (place, second) in roles.iter().enumerate() {
        for first in &roles[..place] {
            if let Some(law) = broken_law(first.role, second.role)
                && meet(first, second)
            {
                return Err(OptimError::Order {
                    first: first.name,
                    second: second.name,
                    reason: law.reason,
                    fix: law.fix,
                });
            }
        }
    }
    Ok(())
}

/// A mask for Adam has two halves, with Adam and nothing that decays between them.
fn check_adam_masks(roles: &[Placed]) -> Result<(), OptimError> {
    let mut rest = roles;
    while let Some(place) = rest.iter().position(|role| role.role == Role::MaskAdam) {
        let (half, after) = (&rest[place], &rest[place + 1..]);
        let other = after
            .iter()
            .position(|role| role.role == Role::MaskAdam && role.scope == half.scope);
        let between = &after[..other.unwrap_or(0)];
        let has_adam = between.iter().any(|role| role.role == Role::Precondition);
        let only_adam = between
            .iter()
            .all(|role| matches!(role.role, Role::Precondition | Role::Bound));
        if !(has_adam && only_adam) {
            return Err(OptimError::Order {
                first: half.name,
                second: after.first().map_or("the end", |role| role.name),
                reason: "a mask for Adam has two halves of the same pattern, one before Adam's moments and \
                         one after them, with no decay in between",
                fix: "write the mask, adam, the same mask, and a weight_decay after it; or use \
                      rule = \"sgd\" with gradient descent",
            });
        }
        rest = &after[other.unwrap_or(0) + 1..];
    }
    Ok(())
}

/// Returns the law that is broken when the second role follows the first.
fn broken_law(first: Role, second: Role) -> Option<Law> {
    use Role::{
        Average, Bound, Collect, Decay, Freeze, Linear, MaskAdam, MaskSgd, MeanSign, Move,
        PairPrecondition, Precondition, PreconditionAndDecay, Probe, Project, Ratio, Scale, Sign,
        VaryingScale,
    };
    let law = |reason, fix| Some(Law { reason, fix });
    match (first, second) {
        (_, Probe) => law(
            "the probe looks along the loss's own gradient",
            "put it first",
        ),
        (Bound | Sign | MeanSign, MaskSgd | MaskAdam) => law(
            "a mask stands for scaled branches, whose gradients would be bounded after their scaling; \
             bounding before it breaks the equivalence",
            "put the mask first",
        ),
        (Project, MaskSgd | MaskAdam) => law(
            "the branches that a mask stands for would project after it",
            "put the mask first",
        ),
        (Decay | PreconditionAndDecay, MaskSgd | MaskAdam) => law(
            "a mask applies to the gradient, not to the decay",
            "put the mask first",
        ),
        (Precondition, MaskSgd) => law(
            "a mask stands for scaled branches, whose gradients are scaled first",
            "put the mask first",
        ),
        (MaskSgd, Precondition | PreconditionAndDecay | Sign | MeanSign | Move) => law(
            "what follows divides the mask out",
            "with Adam use rule = \"adam\", before it and again after it",
        ),
        (Scale, Sign | MeanSign) | (VaryingScale, Sign) => law(
            "a sign has no size, so the scale would have no effect",
            "leave the scale out, and lower the learning rate instead",
        ),
        (Ratio, Sign | MeanSign | Precondition | PreconditionAndDecay | Move) => law(
            "the ratio is one of learning rates, and what follows divides it out",
            "put the ratio after it",
        ),
        (Precondition | PreconditionAndDecay | Sign | MeanSign, PairPrecondition) => law(
            "factor pairs are preconditioned by their gradients",
            "put it before the optimizer",
        ),
        (Freeze, Linear | Decay | Precondition | PreconditionAndDecay | Sign | MeanSign | Move) => {
            law(
                "what comes later could move what is frozen",
                "put the freeze last",
            )
        }
        (
            Collect,
            Linear | Decay | Precondition | PreconditionAndDecay | MeanSign | VaryingScale | Move,
        ) => law(
            "it would take the zeros between two collected gradients for gradients",
            "put it into the transforms of the accumulation",
        ),
        (Average | Move, Average | Move) => law(
            "there can be one average of the parameters only",
            "leave one out",
        ),
        (Move, _) => law("it has moved the parameters itself by then", "put it last"),
        _ => None,
    }
}
