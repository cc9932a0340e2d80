//! The arguments of `merge`.

use std::path::PathBuf;

use clap::Args;
use reparam_formats::checkpoint::Dtype;
use reparam_train::config::Precision;
use reparam_train::merge::{MergeRequest, SHARD_SIZE};
use reparam_train::{DEFAULT_LENGTH, DataRequest};

use super::{ModelArgs, at_least, word_of};
use crate::context::Context;
use crate::error::Result;
use crate::wrong_use::conflict;

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// The base: model directory in Hugging Face layout, run directory, or hub id
    #[arg(long, value_name = "DIR_OR_ID")]
    model: String,
    /// Adapter directory in PEFT layout, or run directory (can be repeated)
    #[arg(long, value_name = "DIR", required = true)]
    adapter: Vec<PathBuf>,
    /// What the change of an adapter is multiplied by, one for each --adapter in order [default: 1]
    #[arg(long, allow_negative_numbers = true, value_name = "FACTOR", value_parser = finite)]
    weight: Vec<f64>,
    /// Where the merged model goes
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Type of the weights; default: that of the base
    #[arg(long, value_parser = word_of(DTYPES))]
    dtype: Option<Dtype>,
    /// Divide weights into files of at most this size, as in 500MB or 5GB [default: 5GB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_shard_size: Option<u64>,
    /// Texts on which the merged model is compared with the adapter
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Maximum tokens per piece of these texts, at least 2 [default: 512]
    #[arg(long, allow_negative_numbers = true, value_name = "TOKENS", value_parser = at_least(2), requires = "data")]
    sequence_length: Option<usize>,
    /// Write nothing if the merged model diverges from the adapter by more than this, in nats per token
    #[arg(long, allow_negative_numbers = true, value_name = "NATS", value_parser = finite, requires = "data")]
    max_kl: Option<f64>,
}

/// The types of weights, by their words.
pub(super) const DTYPES: [(&str, Dtype); 3] = [
    ("f32", Dtype::F32),
    ("bf16", Dtype::BF16),
    ("f16", Dtype::F16),
];

impl MergeArgs {
    /// Returns the request.
    pub(crate) fn request(self, context: &Context) -> Result<MergeRequest> {
        let given = self.weight.len();
        if given != 0 && given != self.adapter.len() {
            let wanted = self.adapter.len();
            let problem = format!("--weight is given {given} times for {wanted} adapters");
            return Err(conflict("merge", problem));
        }
        let model = ModelArgs {
            model: self.model,
            adapter: None,
            precision: Precision::F32,
        };
        let adapters = self.adapter.into_iter().enumerate();
        let adapters = adapters.map(|(at, path)| {
            let factor = self.weight.get(at).copied().unwrap_or(1.0);
            (context.expand(path), factor)
        });
        let data = self.data.map(|path| DataRequest::new(context.expand(path)));
        Ok(MergeRequest {
            dtype: self.dtype,
            shard_size: self.max_shard_size.unwrap_or(SHARD_SIZE),
            data,
            sequence_length: self.sequence_length.unwrap_or(DEFAULT_LENGTH),
            max_kl: self.max_kl,
            ..MergeRequest::new(model.request(context), adapters.collect())
        })
    }
}

fn finite(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("must be a finite number".to_owned()),
    }
}

/// Reads a number of bytes with a unit, of which there is at least one.
fn size(text: &str) -> Result<u64, String> {
    let units = [
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("B", 1),
    ];
    let upper = text.to_uppercase();
    let (number, unit) = units
        .iter()
        .find_map(|(word, unit)| Some((upper.strip_suffix(word)?, *unit)))
        .unwrap_or((&upper, 1));
    let number = number.trim().parse::<u64>().ok();
    let bytes = number.and_then(|number| number.checked_mul(unit));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "must be a size, as in 500MB or 5GB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        let cases = [
            ("5GB", Some(5_000_000_000)),
            ("500mb", Some(500_000_000)),
            ("12 KB", Some(12_000)),
            ("7", Some(7)),
            ("0GB", None),
            ("many", None),
            ("99999999999999GB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
    }
}
