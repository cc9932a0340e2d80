//! Gradient re-parameterization.

use burn::tensor::Tensor;
use regex::Regex;

use crate::optim::entry::TransformEntry;
use crate::optim::error::{OptimError, Result};
use crate::optim::rules::{Placed, Role, require_match};
use crate::optim::transform::{GradientTransform, StepContext, Transformed, map};
use crate::parameters::{NamedTensor, ParameterList};
use crate::schema::{
    Fallback, Range, SchemaError, SettingKind, SettingSpec, required, whole_name, word,
};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "mask",
    summary: "Gradient re-parameterization: train one weight as if it were scaled branches",
    formula: "u = M g,  M = sum s_k^2 for SGD, sum s_k before and after Adam",
    source: "arXiv 2205.15242, section 3",
    optimizer: None,
    settings: &[
        required(
            "branches",
            SettingKind::Numbers(Range::Positive),
            "[0.5, 0.25]",
            "the constant scales s_k of the branches",
        ),
        word(
            "rule",
            &["sgd", "adam"],
            "sgd",
            "sgd: sum of s_k^2, once; adam: sum of s_k, before and after it",
        ),
        SettingSpec {
            key: "pattern",
            kind: SettingKind::Pattern,
            fallback: Fallback::Word(".*"),
            meaning: "a regular expression for whole parameter names",
        },
    ],
    build: |settings, _| {
        let words = [("sgd", MaskRule::Sgd), ("adam", MaskRule::Adam)];
        let rule = settings.choice("rule", &words)?;
        let mask = GradientMask::of_branches(
            settings.word("pattern")?,
            settings.numbers("branches")?,
            rule,
        )?;
        Ok(vec![Box::new(mask)])
    },
};

/// Multiplies every element by a constant of its own: what constant-scale branches do to a gradient.
///
/// A weight `W = sum_k s_k W_k` of branches with constant scales, each trained by itself, moves as one
/// weight `W` whose gradient is multiplied by a mask `M`:
///
/// ```text
/// SGD (momentum, Nesterov, L2 decay):   u = sgd(M g),          M = sum_k s_k^2
/// Adam, AdamW:                          u = M adam(M g),       M = sum_k s_k
/// ```
///
/// For SGD this is exact: the mask goes before decay and momentum, and the decay stays unmasked. For Adam
/// the mask is applied before the moments and again to the direction, which is exact but for `eps`: Adam
/// divides a constant scale out up to `eps`, so that with the second moment `v` and mean `m` of the
/// unmasked gradient the two moves of one step differ by at most
///
/// ```text
/// eta |m| / sqrt(v) (sum_k s_k eps / (s_k sqrt(v) + eps) + M eps / (M sqrt(v) + eps))
/// ```
///
/// A mask is a number for all elements of a tensor, or a tensor of its shape: a 3x3 kernel with a 1x1
/// branch and an identity has `s^2` everywhere, `t^2` more at the centre, and 1 more at the centre of the
/// diagonal.
///
/// Nothing that bounds, projects or decays may come before it, and [`chain`](crate::optim::chain()) refuses it:
/// the branches would meet that after their scaling.
///
/// # References
///
/// Ding et al., *Re-parameterizing your optimizers rather than architectures* (arXiv 2205.15242), section 3
/// and the proof in its appendix.
#[derive(Debug, Clone)]
pub struct GradientMask {
    rule: MaskRule,
    entries: Vec<(Regex, Factor)>,
}

/// Which optimizer the branches are trained by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskRule {
    /// Gradient descent, with momentum and L2 decay or without.
    Sgd,
    /// Adam, before the moments and once more after them.
    Adam,
}

#[derive(Debug, Clone)]
enum Factor {
    Number(f64),
    Tensor(Box<Tensor<1>>),
}

impl MaskRule {
    /// Returns the mask's entry for the scales of the branches that have it.
    ///
    /// ```text
    /// SGD:  sum_k s_k^2        Adam:  sum_k s_k
    /// ```
    pub fn factor(self, scales: &[f64]) -> f64 {
        match self {
            Self::Sgd => scales.iter().map(|s| s * s).sum(),
            Self::Adam => scales.iter().sum(),
        }
    }
}

impl GradientMask {
    /// Creates the mask of dense branches, for the parameters whose whole name a regular expression
    /// matches.
    ///
    /// # Errors
    ///
    /// Fails when the pattern is not a regular expression, or a scale is not positive.
    pub fn of_branches(names: &str, scales: &[f64], rule: MaskRule) -> Result<Self> {
        if scales.is_empty() {
            return Err(OptimError::Schema(SchemaError::Value {
                setting: "branches".to_owned(),
                expected: "at least one scale".to_owned(),
                found: "none".to_owned(),
            }));
        }
        for scale in scales {
            Range::Positive.check("branches", *scale)?;
        }
        let factor = Factor::Number(rule.factor(scales));
        Ok(Self {
            rule,
            entries: vec![(whole_name("pattern", names)?, factor)],
        })
    }

    /// Creates a mask of tensors, each flattened in the order of the parameter of its name.
    ///
    /// # Errors
    ///
    /// Fails when there is none.
    pub fn of_tensors(masks: Vec<(String, Tensor<1>)>, rule: MaskRule) -> Result<Self> {
        if masks.is_empty() {
            return Err(OptimError::NoEffect {
                transform: "mask",
                problem: "it names no parameter".into(),
            });
        }
        let entries: Result<Vec<_>, SchemaError> = masks
            .into_iter()
            .map(|(name, mask)| {
                Ok((
                    whole_name("pattern", &regex::escape(&name))?,
                    Factor::Tensor(Box::new(mask)),
                ))
            })
            .collect();
        Ok(Self {
            rule,
            entries: entries?,
        })
    }

    fn factor(&self, name: &str) -> Option<&Factor> {
        let entry = self.entries.iter().find(|(names, _)| names.is_match(name));
        entry.map(|(_, factor)| factor)
    }
}

impl GradientTransform for GradientMask {
    fn name(&self) -> &'static str {
        "mask"
    }

    fn transform(&mut self, updates: ParameterList, _context: &StepContext<'_>) -> Transformed {
        Ok(map(updates, |update| match self.factor(&update.name) {
            None => update.values.clone(),
            Some(Factor::Number(factor)) => update.values.clone() * *factor,
            Some(Factor::Tensor(mask)) => update.values.clone() * (**mask).clone(),
        }))
    }

    fn roles(&self) -> Vec<Placed> {
        let role = match self.rule {
            MaskRule::Sgd => Role::MaskSgd,
            MaskRule::Adam => Role::MaskAdam,
        };
        let names: Vec<&str> = self
            .entries
            .iter()
            .map(|(names, _)| names.as_str())
            .collect();
        let roles = Placed::everywhere(self.name(), role);
        match &names[..] {
            // The usual pattern restricts nothing.
            ["^(?:.*)$"] => roles,
            _ => Placed::within(roles, &names.join("|")),
        }
    }

    fn check(&self, parameters: &[NamedTensor], _horizon: u64) -> Result<()> {
        for (names, _) in &self.entries {
            require_match(self.name(), names, parameters)?;
        }
        for parameter in parameters {
            if let Some(Factor::Tensor(mask)) = self.factor(&parameter.name)
                && mask.dims() != [parameter.len()]
            {
                return Err(OptimError::NoEffect {
                    transform: self.name(),
                    problem: format!(
                        "the mask of `{}` has {} elements, the parameter {}",
                        parameter.name,
                        mask.dims()[0],
                        parameter.len()
                    ),
                });
            }
        }
        Ok(())
    }
}
