//! Which transforms can work together, and on what.

mod names;
pub(crate) mod order;
mod pairs;
mod roles;

pub(crate) use names::require_match;
pub(crate) use pairs::{is_a, is_b, lora_pairs, require_pairs, require_products};
pub use roles::{Placed, Role};
