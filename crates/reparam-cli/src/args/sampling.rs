//! How tokens are drawn.

use clap::Args;
use reparam_models::Sampling;

use super::{at_least, probability, seed, temperature};
use crate::error::{CliError, Result};
use crate::wrong_use::conflict;

/// How a token is chosen.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct SamplingArgs {
    /// Sampling temperature; 0 is greedy
    #[arg(long, allow_negative_numbers = true, value_name = "T", default_value = "0", value_parser = temperature)]
    temperature: f64,
    /// Sample from the K most likely tokens
    #[arg(long, allow_negative_numbers = true, value_name = "K", value_parser = at_least(1))]
    top_k: Option<usize>,
    /// Sample from the fewest tokens whose probabilities sum to P
    #[arg(long, allow_negative_numbers = true, value_name = "P", value_parser = probability)]
    top_p: Option<f64>,
    /// Seed of what is drawn; default: 0
    #[arg(long, allow_negative_numbers = true, value_name = "SEED", value_parser = seed)]
    seed: Option<u64>,
}

impl SamplingArgs {
    pub(crate) fn seed(self) -> u64 {
        self.seed.unwrap_or(0)
    }

    /// Whether a seed is given that draws no token.
    pub(crate) fn is_seed_left(self) -> bool {
        self.seed.is_some() && self.temperature == 0.0
    }

    /// [`asked`](Self::asked) of a command that draws nothing but tokens: a seed at temperature 0 is refused, too.
    pub(crate) fn of_tokens(self, command: &'static str) -> Result<Sampling> {
        let asked = self.asked(command)?;
        match self.is_seed_left() {
            true => Err(idle(command, "--seed")),
            false => Ok(asked.unwrap_or_else(Sampling::greedy)),
        }
    }

    /// How the next token is drawn, `None` if it is the most likely one; refuses options of `command` that temperature 0 leaves
    /// without effect.
    pub(crate) fn asked(self, command: &'static str) -> Result<Option<Sampling>> {
        if self.temperature > 0.0 {
            return Ok(Some(Sampling {
                temperature: self.temperature,
                top_k: self.top_k.unwrap_or(0),
                top_p: self.top_p.unwrap_or(1.0),
                seed: self.seed(),
            }));
        }
        let given = [
            ("--top-k", self.top_k.is_some()),
            ("--top-p", self.top_p.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            None => Ok(None),
            Some((flag, _)) => Err(idle(command, flag)),
        }
    }
}

/// The error for a flag that temperature 0 leaves without effect.
fn idle(command: &'static str, flag: &str) -> CliError {
    let problem = format!(
        "{flag} has no effect at temperature 0, which takes the most likely token; give a --temperature greater than 0"
    );
    conflict(command, problem)
}
