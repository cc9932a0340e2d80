//! Marian: BART with positions that are sines and cosines, and no norm on the embedding.

use reparam_formats::config::{ModelJson, SpecialTokens};

use super::bart::{self, Kind};
use super::{Family, unsupported};
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "marian",
    describe,
    gguf: None,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    if raw.bool("share_encoder_decoder_embeddings")? == Some(false) {
        let key = "share_encoder_decoder_embeddings";
        return Err(unsupported(key, false, "true"));
    }
    let kind = Kind {
        class: "MarianMTModel",
        is_static: true,
        is_before: false,
        last_starts: false,
        vocab_size: 58_101,
        decoder_start: 58_100,
        special: SpecialTokens {
            bos: None,
            eos: vec![0],
            pad: Some(58_100),
        },
    };
    let architecture = bart::describe(json, kind)?;
    match raw.size("decoder_vocab_size")? {
        Some(found) if found != architecture.vocab_size => Err(unsupported(
            "decoder_vocab_size",
            found,
            "the same as vocab_size",
        )),
        _ => Ok(architecture),
    }
}
