//! Transform states as lists of named tensors.

use super::{StepContext, UpdateError};
use crate::parameters::{NamedTensor, ParameterList};

/// Returns a list with a group's name put before each tensor's.
pub(super) fn prefixed(group: &str, list: &ParameterList) -> ParameterList {
    list.iter()
        .map(|tensor| NamedTensor {
            name: format!("{group}.{}", tensor.name),
            ..tensor.clone()
        })
        .collect()
}

/// A state that is being taken apart into its groups.
pub(super) struct Loaded {
    transform: &'static str,
    rest: ParameterList,
}

impl Loaded {
    pub(super) fn new(transform: &'static str, state: ParameterList) -> Self {
        Self {
            transform,
            rest: state,
        }
    }

    /// Takes the tensors of a group, in order, without the group's name.
    pub(super) fn take_group(&mut self, group: &str) -> ParameterList {
        let (taken, rest): (Vec<_>, Vec<_>) = self
            .rest
            .drain(..)
            .map(|tensor| match tensor.name.strip_prefix(group) {
                Some(name) if name.starts_with('.') => {
                    let name = name[1..].to_owned();
                    (Some(NamedTensor { name, ..tensor }), None)
                }
                _ => (None, Some(tensor)),
            })
            .unzip();
        self.rest = rest.into_iter().flatten().collect();
        taken.into_iter().flatten().collect()
    }

    /// Checks that nothing is left over.
    pub(super) fn finish(self) -> Result<(), UpdateError> {
        match self.rest.first() {
            None => Ok(()),
            Some(tensor) => Err(UpdateError::UnexpectedState {
                transform: self.transform,
                name: tensor.name.clone(),
            }),
        }
    }
}

/// Checks that a group of a transform's state is that of the parameters it is about to be used for.
///
/// An empty group is what a transform starts with, at the first step only.
pub(super) fn check(
    transform: &'static str,
    group: &ParameterList,
    updates: &ParameterList,
    context: &StepContext<'_>,
) -> Result<(), UpdateError> {
    if group.is_empty() && context.step == 1 {
        return Ok(());
    }
    for (place, update) in updates.iter().enumerate() {
        let found = group.get(place);
        if found.is_none_or(|found| found.name != update.name || found.shape != update.shape) {
            return Err(UpdateError::MissingState {
                transform,
                name: update.name.clone(),
            });
        }
    }
    match group.get(updates.len()) {
        None => Ok(()),
        Some(tensor) => Err(UpdateError::UnexpectedState {
            transform,
            name: tensor.name.clone(),
        }),
    }
}
