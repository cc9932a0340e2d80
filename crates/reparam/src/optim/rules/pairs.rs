//! Finding the two factors of a low-rank product.

use crate::optim::error::{OptimError, Result};
use crate::parameters::NamedTensor;

/// The places of the factors `A` `[rank, d_in]` and `B` `[d_out, rank]` of one weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) a: usize,
    pub(crate) b: usize,
}

const A: &str = "lora_A.weight";
const B: &str = "lora_B.weight";

pub(crate) fn is_a(name: &str) -> bool {
    name.ends_with(A)
}

pub(crate) fn is_b(name: &str) -> bool {
    name.ends_with(B)
}

/// Finds the pairs by name.
pub(crate) fn lora_pairs(parameters: &[NamedTensor]) -> Vec<Pair> {
    let place_of = |name: &str| parameters.iter().position(|tensor| tensor.name == name);
    let factors = parameters.iter().enumerate();
    factors
        .filter_map(|(a, tensor)| {
            let module = tensor.name.strip_suffix(A)?;
            let b = place_of(&format!("{module}{B}"))?;
            Some(Pair { a, b })
        })
        .collect()
}

/// How the names of experts' factors go on behind the path of the experts: each of their parameters wraps those before it.
const OF_EXPERTS: [&str; 2] = [".experts.lora_", ".experts.base_layer."];

/// Refuses parameters without such a pair.
pub(crate) fn require_pairs(transform: &'static str, parameters: &[NamedTensor]) -> Result<()> {
    if lora_pairs(parameters).is_empty() {
        return Err(OptimError::NoEffect {
            transform,
            problem: "no parameters are the factors lora_A and lora_B of one weight".into(),
        });
    }
    Ok(())
}

/// [`require_pairs`], and refuses pairs whose product is no weight: those of experts, which are side by side in another order in `A`
/// than in `B`.
pub(crate) fn require_products(transform: &'static str, parameters: &[NamedTensor]) -> Result<()> {
    let mut names = parameters.iter().map(|tensor| &tensor.name);
    if let Some(name) = names.find(|name| OF_EXPERTS.iter().any(|part| name.contains(part))) {
        return Err(OptimError::OfExperts {
            transform,
            name: name.clone(),
        });
    }
    require_pairs(transform, parameters)
}
