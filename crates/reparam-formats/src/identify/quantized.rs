//! Whether a model's weights are quantized in a way that is not read, said or unsaid.

use serde_json::{Map, Value};

/// By what weights were quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the programs")]
pub enum Quantization {
    BitsAndBytes,
    Gptq,
    Awq,
    Mlx,
    CompressedTensors,
    Fp8,
    /// By something that `config.json` says and that is not known here.
    Other,
}

impl Quantization {
    /// Returns the program's own name.
    pub fn name(self) -> &'static str {
        match self {
            Self::BitsAndBytes => "bitsandbytes",
            Self::Gptq => "GPTQ",
            Self::Awq => "AWQ",
            Self::Mlx => "MLX",
            Self::CompressedTensors => "compressed-tensors",
            Self::Fp8 => "FP8",
            Self::Other => "a quantization that config.json names",
        }
    }

    fn of_method(method: &str) -> Self {
        match method {
            "bitsandbytes" | "bitsandbytes_4bit" | "bitsandbytes_8bit" => Self::BitsAndBytes,
            "gptq" => Self::Gptq,
            "awq" => Self::Awq,
            "compressed-tensors" => Self::CompressedTensors,
            "fp8" | "fbgemm_fp8" => Self::Fp8,
            _ => Self::Other,
        }
    }
}

/// Returns by what a model is quantized, as its `config.json` or the names of its tensors say.
///
/// Some exporters leave the key out of `config.json`; the tensors that the scheme adds beside each weight still tell.
pub fn quantization<'a>(
    config: &Map<String, Value>,
    mut names: impl Iterator<Item = &'a str>,
) -> Option<Quantization> {
    if let Some(said) = config
        .get("quantization_config")
        .filter(|said| !said.is_null())
    {
        let method = said["quant_method"].as_str();
        let is_bits = |key: &str| said[key].as_bool() == Some(true);
        return Some(match method {
            Some(method) => Quantization::of_method(method),
            // The first versions of transformers wrote no method, for there was one.
            None if is_bits("load_in_4bit") || is_bits("load_in_8bit") => {
                Quantization::BitsAndBytes
            }
            None => Quantization::Other,
        });
    }
    if config
        .get("quantization")
        .is_some_and(|said| said["bits"].is_number())
    {
        return Some(Quantization::Mlx);
    }
    let mut awq = false;
    let certain = names.find_map(|name| {
        let last = name.rsplit('.').next().unwrap_or_default();
        awq |= last == "qweight";
        match last {
            "absmax" | "quant_map" | "SCB" | "weight_format" => Some(Quantization::BitsAndBytes),
            _ if name.contains(".quant_state.bitsandbytes") => Some(Quantization::BitsAndBytes),
            // AWQ packs in a fixed order and has no list of groups.
            "g_idx" => Some(Quantization::Gptq),
            "weight_packed" => Some(Quantization::CompressedTensors),
            "weight_scale_inv" => Some(Quantization::Fp8),
            _ => None,
        }
    });
    certain.or(awq.then_some(Quantization::Awq))
}
