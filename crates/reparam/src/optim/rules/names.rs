//! Patterns of parameter names.

use regex::Regex;

use crate::optim::error::{OptimError, Result};
use crate::parameters::NamedTensor;

/// Refuses a pattern that matches no parameter.
pub(crate) fn require_match(
    transform: &'static str,
    pattern: &Regex,
    parameters: &[NamedTensor],
) -> Result<()> {
    if parameters
        .iter()
        .any(|tensor| pattern.is_match(&tensor.name))
    {
        return Ok(());
    }
    let first = parameters.first().map_or("none", |tensor| &tensor.name);
    Err(OptimError::NoEffect {
        transform,
        problem: format!(
            "`{}` matches none of the {} parameters, such as `{first}`",
            pattern.as_str(),
            parameters.len()
        ),
    })
}
