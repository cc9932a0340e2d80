//! Which orders of transforms keep what each of them promises.

use super::roles::{Placed, Role};
use crate::optim::error::{OptimError, Result};
use crate::parameters::NamedTensor;

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
pub(crate) fn check(roles: &[Placed]) -> Result<()> {
    check_pairs(roles, |first, second| {
        first.scope.is_empty() || second.scope.is_empty() || first.scope == second.scope
    })?;
    check_adam_masks(roles)
}

/// Refuses orders that break a law for one of these parameters.
pub(crate) fn check_names(roles: &[Placed], parameters: &[NamedTensor]) -> Result<()> {
    check_pairs(roles, |first, second| {
        let mut names = parameters.iter().map(|parameter| &parameter.name);
        names.any(|name| first.concerns(name) && second.concerns(name))
    })
}

fn check_pairs(roles: &[Placed], meet: impl Fn(&Placed, &Placed) -> bool) -> Result<()> {
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
fn check_adam_masks(roles: &[Placed]) -> Result<()> {
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
