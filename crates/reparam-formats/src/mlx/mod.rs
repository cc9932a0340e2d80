//! Adapters of MLX (`mlx-lm`): `adapter_config.json` and `adapters.safetensors`.
//!
//! MLX computes `y = W x + scale (x A) B` with `A` `[d_in, r]` and `B` `[r, d_out]`, PEFT `W x + s B (A x)` with `A` `[r, d_in]` and
//! `B` `[d_out, r]`, so the factors are each other's transposes. A file of MLX has one scale and one rank; see [`from_peft`].
//!
//! # References
//!
//! `mlx_lm/tuner` of <https://github.com/ml-explore/mlx-lm>: `lora.py`, `dora.py` and `utils.py`.

mod convert;
mod error;
mod files;

#[cfg(test)]
mod tests;

pub use convert::{from_peft, to_peft};
pub use error::MlxError;
pub use files::{MlxAdapter, WEIGHTS_FILE};
