//! `target_parameters`: parameters that are no linear layer's, such as those of experts.

use reparam_formats::nearest;
use reparam_formats::peft::{PeftError, targets_parameter};

use super::{LinearModule, MethodConfig, MethodError, Result, Selection};
use crate::schema::{SettingKind, SettingSpec, optional};

/// `target_parameters` of a run file, for methods that have factors of them.
pub const TARGET_PARAMETERS: SettingSpec = optional(
    "target_parameters",
    SettingKind::Texts,
    "none",
    "parameters to adapt besides that are no linear layer's: the ends of their paths, as in [\"mlp.experts.down_proj\"]",
);

/// A parameter with the weights of experts, one below the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpertParameter {
    /// The number of experts; 1 for a router.
    pub n_experts: usize,
    /// How many parameters of the same module are adapted that come after it.
    pub wrapped: usize,
}

/// Returns the parameters that a method adapts of all that are no linear layer's, each with where PEFT has its factors.
///
/// # Errors
///
/// Fails when an entry matches nothing, or the method does not have the setting: it would take the weights of all experts for one.
pub(super) fn select_parameters(
    method: &dyn MethodConfig,
    parameters: Vec<LinearModule>,
) -> Result<Vec<LinearModule>> {
    let (spec, selection) = (method.spec(), method.selection());
    let mut settings = spec.settings.iter();
    let has_setting = settings.any(|setting| setting.key == TARGET_PARAMETERS.key);
    match selection.target_parameters.is_empty() || has_setting {
        true => selection.select_parameters(parameters),
        false => Err(MethodError::NoParameters { method: spec.kind }),
    }
}

impl Selection {
    fn select_parameters(&self, parameters: Vec<LinearModule>) -> Result<Vec<LinearModule>> {
        let is_selected =
            |own: &LinearModule| targets_parameter(&self.target_parameters, &own.path);
        for target in &self.target_parameters {
            let one = std::slice::from_ref(target);
            if !parameters
                .iter()
                .any(|own| targets_parameter(one, &own.path))
            {
                let names = parameters.iter().map(|own| &*own.path);
                return Err(PeftError::NoMatch {
                    option: "target_parameters",
                    pattern: target.clone(),
                    nearest: nearest(target, names.map(last_two)).map(str::to_owned),
                }
                .into());
            }
        }
        let mut selected: Vec<LinearModule> = parameters.into_iter().filter(is_selected).collect();
        let modules: Vec<String> = selected.iter().map(|own| own.module().to_owned()).collect();
        for (at, own) in selected.iter_mut().enumerate() {
            let later = modules[at + 1..].iter();
            let wrapped = later.filter(|module| **module == modules[at]).count();
            if let Some(parameter) = &mut own.parameter {
                parameter.wrapped = wrapped;
            }
        }
        Ok(selected)
    }
}

/// The module and the name of a parameter.
fn last_two(path: &str) -> &str {
    let dot = path.rmatch_indices('.').nth(1);
    dot.map_or(path, |(dot, _)| &path[dot + 1..])
}
