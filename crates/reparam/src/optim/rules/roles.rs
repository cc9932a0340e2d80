//! What transforms are in a chain.

use regex::Regex;

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
    pub fn everywhere(name: &'static str, role: Role) -> Vec<Self> {
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
    pub(crate) fn preconditioner(name: &'static str, weight_decay: f64) -> Vec<Self> {
        let role = if weight_decay > 0.0 {
            Role::PreconditionAndDecay
        } else {
            Role::Precondition
        };
        Self::everywhere(name, role)
    }

    /// Says of roles that they look at the parameters.
    pub(crate) fn relative(mut roles: Vec<Self>) -> Vec<Self> {
        for placed in &mut roles {
            placed.needs_parameters = true;
        }
        roles
    }

    /// Says of roles that they hold for some parameters only.
    pub(crate) fn within(mut roles: Vec<Self>, pattern: &str) -> Vec<Self> {
        for placed in &mut roles {
            placed.scope.push(pattern.to_owned());
        }
        roles
    }

    pub(crate) fn concerns(&self, name: &str) -> bool {
        // The patterns were compiled before, when their transforms were made.
        let matches =
            |pattern: &String| Regex::new(pattern).is_ok_and(|regex| regex.is_match(name));
        self.scope.iter().all(matches)
    }
}
