//! Rank, alpha and scaling of each module.

use fancy_regex::Regex;

use super::targets::{compile, invalid, nearest_module};
use super::{LoraAdapterConfig, PeftError};

/// The numbers of one adapted module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraNumbers {
    /// The rank r.
    pub rank: usize,
    /// The numerator of the scaling.
    pub alpha: f64,
    /// What `B A` is multiplied by: `alpha / r`, or `alpha / sqrt(r)` for rank-stabilized LoRA.
    pub scaling: f64,
}

/// `r`, `lora_alpha` and their patterns, ready to be asked about modules.
///
/// A pattern is a regular expression for a whole path, or for its end after a dot: PEFT's
/// `(.*\.)?(pattern)$`. The first that matches counts.
#[derive(Debug, Clone)]
pub struct LoraRules {
    rank: usize,
    alpha: f64,
    use_rslora: bool,
    ranks: Patterns<usize>,
    alphas: Patterns<f64>,
}

impl LoraRules {
    /// Prepares the rules of a configuration.
    ///
    /// # Errors
    ///
    /// [`PeftError::InvalidPattern`].
    pub fn new(config: &LoraAdapterConfig) -> Result<Self, PeftError> {
        Ok(Self {
            rank: config.r,
            alpha: config.lora_alpha,
            use_rslora: config.use_rslora,
            ranks: Patterns::new("rank_pattern", &config.rank_pattern)?,
            alphas: Patterns::new("alpha_pattern", &config.alpha_pattern)?,
        })
    }

    /// Returns the rank of a module.
    ///
    /// # Errors
    ///
    /// [`PeftError::InvalidPattern`] if a pattern takes too long on this path.
    pub fn rank_for(&self, path: &str) -> Result<usize, PeftError> {
        Ok(self.ranks.get(path)?.unwrap_or(self.rank))
    }

    /// Returns the numerator of a module's scaling.
    ///
    /// # Errors
    ///
    /// [`PeftError::InvalidPattern`] if a pattern takes too long on this path.
    pub fn alpha_for(&self, path: &str) -> Result<f64, PeftError> {
        Ok(self.alphas.get(path)?.unwrap_or(self.alpha))
    }

    /// Returns rank, alpha and scaling of a module.
    ///
    /// # Errors
    ///
    /// [`PeftError::InvalidPattern`] if a pattern takes too long on this path.
    pub fn numbers_for(&self, path: &str) -> Result<LoraNumbers, PeftError> {
        let rank = self.rank_for(path)?;
        let alpha = self.alpha_for(path)?;
        let divisor = if self.use_rslora {
            (rank as f64).sqrt()
        } else {
            rank as f64
        };
        Ok(LoraNumbers {
            rank,
            alpha,
            scaling: alpha / divisor,
        })
    }

    /// Returns the effective multiplier of `B A` of a module.
    ///
    /// # Errors
    ///
    /// [`PeftError::InvalidPattern`] if a pattern takes too long on this path.
    pub fn scaling_for(&self, path: &str) -> Result<f64, PeftError> {
        Ok(self.numbers_for(path)?.scaling)
    }

    /// Checks that every pattern matches one of the adapted modules.
    ///
    /// # Errors
    ///
    /// [`PeftError::NoMatch`] for the first pattern that does not.
    pub fn require_all<S: AsRef<str>>(&self, paths: &[S]) -> Result<(), PeftError> {
        let paths: Vec<&str> = paths.iter().map(AsRef::as_ref).collect();
        self.ranks.require_all(&paths)?;
        self.alphas.require_all(&paths)
    }
}

#[derive(Debug, Clone)]
struct Patterns<T> {
    option: &'static str,
    entries: Vec<(String, Regex, T)>,
}

impl<T: Copy> Patterns<T> {
    fn new(option: &'static str, patterns: &[(String, T)]) -> Result<Self, PeftError> {
        let entries = patterns.iter().map(|(pattern, value)| {
            let regex = compile(option, pattern, r"\A(?:.*\.)?", r"\z")?;
            Ok((pattern.clone(), regex, *value))
        });
        Ok(Self {
            option,
            entries: entries.collect::<Result<_, PeftError>>()?,
        })
    }

    fn get(&self, path: &str) -> Result<Option<T>, PeftError> {
        for (pattern, regex, value) in &self.entries {
            if self.is_match(pattern, regex, path)? {
                return Ok(Some(*value));
            }
        }
        Ok(None)
    }

    fn is_match(&self, pattern: &str, regex: &Regex, path: &str) -> Result<bool, PeftError> {
        regex
            .is_match(path)
            .map_err(|error| invalid(self.option, pattern, &error))
    }

    fn require_all(&self, paths: &[&str]) -> Result<(), PeftError> {
        for (pattern, regex, _) in &self.entries {
            let mut is_used = false;
            for path in paths {
                is_used = is_used || self.is_match(pattern, regex, path)?;
            }
            if !is_used {
                return Err(PeftError::NoMatch {
                    option: self.option,
                    pattern: pattern.clone(),
                    nearest: nearest_module(pattern, paths),
                });
            }
        }
        Ok(())
    }
}

/// Returns the number that most of them are, but for rounding, zeros aside; 1 if all are zero.
///
/// Formats with one scaling for all modules get that of the most, whose factors then stay as they are.
pub(crate) fn most_common(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.filter(|number| *number != 0.0).collect();
    numbers.sort_by(f64::total_cmp);
    let mut best = (0, 1.0);
    for same in numbers.chunk_by(|a, b| (a - b).abs() <= 1e-9 * a.abs()) {
        if same.len() > best.0 {
            best = (same.len(), same[0]);
        }
    }
    best.1
}
