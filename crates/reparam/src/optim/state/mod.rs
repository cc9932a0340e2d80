//! Transform states as lists of named tensors.

pub(crate) mod file;

use burn::tensor::{DType, ElementConversion, Tensor, TensorData};

use crate::optim::error::{OptimError, Result};
use crate::optim::transform::StepContext;
use crate::parameters::{NamedTensor, ParameterList};

/// Returns a list with a group's name put before each tensor's.
pub(crate) fn prefixed(group: &str, list: &[NamedTensor]) -> ParameterList {
    list.iter()
        .map(|tensor| NamedTensor {
            name: format!("{group}.{}", tensor.name),
            ..tensor.clone()
        })
        .collect()
}

/// Returns several groups as one state.
pub(crate) fn groups(groups: &[(&str, &ParameterList)]) -> ParameterList {
    groups
        .iter()
        .flat_map(|(name, list)| prefixed(name, list))
        .collect()
}

/// Restores what [`groups`] returned.
pub(crate) fn load_groups(
    transform: &'static str,
    state: ParameterList,
    groups: &mut [(&str, &mut ParameterList)],
) -> Result<()> {
    let mut state = Loaded::new(transform, state);
    for (name, list) in groups {
        **list = state.take_group(name);
    }
    state.finish()
}

/// The state of a transform that is the lists of tensors in some of its fields, by their names.
macro_rules! kept {
    ($($field:ident),+) => {
        fn state(&self) -> ParameterList {
            $crate::optim::state::groups(&[$((stringify!($field), &self.$field)),+])
        }

        fn load_state(&mut self, state: ParameterList) -> $crate::optim::error::Result<()> {
            let name = self.name();
            let groups = &mut [$((stringify!($field), &mut self.$field)),+];
            $crate::optim::state::load_groups(name, state, groups)
        }
    };
}
pub(crate) use kept;

/// Returns a group's tensors in the order of the parameters, if it has one for each: a file has its
/// tensors in the order of their names.
pub(crate) fn in_order(group: &[NamedTensor], parameters: &[NamedTensor]) -> Option<ParameterList> {
    let find = |(place, parameter): (usize, &NamedTensor)| {
        let is_it = |tensor: &&NamedTensor| tensor.name == parameter.name;
        let there = group.get(place).filter(is_it);
        there.or_else(|| group.iter().find(is_it)).cloned()
    };
    parameters.iter().enumerate().map(find).collect()
}

/// Returns a number as a tensor that keeps all of its bits.
pub(crate) fn scalar(name: &str, value: f64) -> NamedTensor {
    NamedTensor {
        name: name.to_owned(),
        shape: vec![1],
        values: Tensor::from_data(
            TensorData::new(vec![value], [1]),
            (&burn::tensor::Device::flex(), DType::F64),
        ),
    }
}

/// A state that is being taken apart into its groups.
pub(crate) struct Loaded {
    transform: &'static str,
    rest: ParameterList,
}

impl Loaded {
    pub(crate) fn new(transform: &'static str, state: ParameterList) -> Self {
        Self {
            transform,
            rest: state,
        }
    }

    /// Takes the tensors of a group, in order, without the group's name.
    pub(crate) fn take_group(&mut self, group: &str) -> ParameterList {
        let mut taken = Vec::new();
        self.rest.retain_mut(|tensor| {
            let name = tensor.name.strip_prefix(group);
            match name.and_then(|name| name.strip_prefix('.')) {
                None => true,
                Some(name) => {
                    let name = name.to_owned();
                    taken.push(NamedTensor {
                        name,
                        ..tensor.clone()
                    });
                    false
                }
            }
        });
        taken
    }

    /// Takes a number that [`scalar`] wrote.
    pub(crate) fn take_scalar(&mut self, name: &str) -> Result<f64> {
        let place = self
            .rest
            .iter()
            .position(|tensor| tensor.name == name && tensor.len() == 1);
        match place {
            Some(place) => {
                let values = self.rest.remove(place).values;
                Ok(values.into_scalar::<f64>().elem())
            }
            None => Err(OptimError::MissingState {
                transform: self.transform,
                name: name.to_owned(),
            }),
        }
    }

    /// Checks that nothing is left over.
    pub(crate) fn finish(self) -> Result<()> {
        match self.rest.first() {
            None => Ok(()),
            Some(tensor) => Err(OptimError::UnexpectedState {
                transform: self.transform,
                name: tensor.name.clone(),
            }),
        }
    }
}

/// Makes a group of a transform's state ready for a step: creates it, filled with a number, at the
/// first one, and checks later that it is that of these updates.
///
/// `shape_of` says the shape of an update's tensor in this group, or `None` if it has none there.
pub(crate) fn ready(
    transform: &'static str,
    group: &mut ParameterList,
    updates: &[NamedTensor],
    context: &StepContext<'_>,
    fill: f64,
    shape_of: impl Fn(&NamedTensor) -> Option<Vec<usize>>,
) -> Result<()> {
    let expected = updates
        .iter()
        .filter_map(|update| Some((update, shape_of(update)?)));
    if group.is_empty() && context.step == 1 {
        *group = expected
            .map(|(update, shape)| {
                let len = shape.iter().product::<usize>();
                let options = (&update.values.device(), update.values.dtype());
                NamedTensor {
                    name: update.name.clone(),
                    shape,
                    values: Tensor::full([len], fill, options),
                }
            })
            .collect();
        return Ok(());
    }
    let mut n_expected = 0;
    for (place, (update, shape)) in expected.enumerate() {
        let is_it = |tensor: &NamedTensor| tensor.name == update.name;
        // A file has its tensors in the order of their names.
        if !group.get(place).is_some_and(is_it)
            && let Some(found) = group.iter().skip(place).position(is_it)
        {
            group.swap(place, place + found);
        }
        let found = group.get(place);
        if found.is_none_or(|found| !is_it(found) || found.shape != shape) {
            return Err(OptimError::MissingState {
                transform,
                name: update.name.clone(),
            });
        }
        n_expected += 1;
    }
    match group.get(n_expected) {
        None => Ok(()),
        Some(tensor) => Err(OptimError::UnexpectedState {
            transform,
            name: tensor.name.clone(),
        }),
    }
}

/// Like [`ready`], for a group with a tensor of zeros for every parameter.
pub(crate) fn ready_zeros(
    transform: &'static str,
    group: &mut ParameterList,
    updates: &[NamedTensor],
    context: &StepContext<'_>,
) -> Result<()> {
    ready(transform, group, updates, context, 0.0, |update| {
        Some(update.shape.clone())
    })
}
