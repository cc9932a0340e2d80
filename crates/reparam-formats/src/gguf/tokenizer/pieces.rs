//! BPE over characters with single bytes for those that are no token, as SentencePiece has it: llama.cpp's tokenizer `llama`.
//!
//! llama.cpp joins two neighbours where what they make is a token, the token with the largest score first. A `tokenizer.json` lists
//! which pairs are joined, in order. Both do the same if every pair whose join is a token is in the list, and the pairs of a token
//! stand together; the scores then are the order.

use std::collections::{HashMap, HashSet};

use super::bytes::id_of;
use super::steps::{Step, Steps};
use super::{GgufTokenizer, Vocabulary, kind, refuse};
use crate::config::JsonObject;
use crate::gguf::GgufError;

pub(super) fn tokenizer(
    json: &JsonObject,
    steps: &Steps,
    mut vocabulary: Vocabulary,
) -> Result<GgufTokenizer, GgufError> {
    let model = json.object("model")?.ok_or_else(|| json.missing("model"))?;
    let kind = model.str("type")?.unwrap_or("BPE");
    if kind != "BPE" {
        return Err(refuse(json, format!("its model is {kind}")));
    }
    if !model.bool("byte_fallback")?.unwrap_or(false) {
        return Err(refuse(
            json,
            "it is over characters and does not fall back to bytes",
        ));
    }
    if model.bool("ignore_merges")?.unwrap_or(false) {
        return Err(refuse(
            json,
            "it takes whole words for tokens (ignore_merges)",
        ));
    }
    let is_known = |step: &Step| matches!(step, Step::MarkBegin | Step::MarkSpaces);
    let normalizer = &steps.normalizer;
    if !normalizer.contains(&Step::MarkSpaces) || !normalizer.iter().all(is_known) {
        return Err(refuse(json, "it does more to texts than to mark spaces"));
    }
    if steps
        .pre_tokenizer
        .iter()
        .any(|step| *step != Step::CutAtSpaces)
    {
        return Err(refuse(json, "it cuts texts into words"));
    }
    mark_bytes(json, &mut vocabulary)?;
    let scores = scores(json, &vocabulary)?;
    let unknown = model.str("unk_token")?;
    let unknown = unknown.and_then(|token| id_of(&vocabulary, token));
    Ok(GgufTokenizer {
        model: "llama",
        pre: "default",
        scores: Some(scores),
        tokens: Vocabulary::filled(vocabulary.tokens),
        kinds: vocabulary.kinds,
        merges: None,
        special: [
            ("bos", None),
            ("eos", None),
            ("padding", None),
            ("unknown", unknown),
        ],
        adds: [false; 2],
        space_prefix: Some(normalizer.contains(&Step::MarkBegin)),
        chat_template: None,
        notes: Vec::new(),
    })
}

/// Finds the tokens of single bytes, all of which have to be there.
fn mark_bytes(json: &JsonObject, vocabulary: &mut Vocabulary) -> Result<(), GgufError> {
    for byte in 0..=u8::MAX {
        let token = format!("<0x{byte:02X}>");
        let id = vocabulary.of_model.get(&token).and_then(|id| id.as_u64());
        let place = id.and_then(|id| usize::try_from(id).ok());
        match place.and_then(|place| vocabulary.kinds.get_mut(place)) {
            Some(of) => *of = kind::BYTE,
            None => return Err(refuse(json, format!("it has no token {token}"))),
        }
    }
    Ok(())
}

/// Makes scores of the order in which pairs are joined.
fn scores(json: &JsonObject, vocabulary: &Vocabulary) -> Result<Vec<f32>, GgufError> {
    // The first place in the order of what a pair makes.
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut pairs: HashSet<(&str, &str)> = HashSet::new();
    let mut last: Option<String> = None;
    for [a, b] in &vocabulary.merges {
        let joined = format!("{a}{b}");
        pairs.insert((a, b));
        if last.as_ref() != Some(&joined) {
            let next = places.len();
            if places.insert(joined.clone(), next).is_some() {
                let reason =
                    format!("the pairs that make '{joined}' do not stand together in its merges");
                return Err(refuse(json, reason));
            }
            last = Some(joined);
        }
    }
    let n_places = places.len();
    let mut scores = Vec::with_capacity(vocabulary.tokens.len());
    for (token, of) in vocabulary.tokens.iter().zip(&vocabulary.kinds) {
        let token = token.as_deref().filter(|_| *of == kind::NORMAL);
        let Some(token) = token else {
            scores.push(0.0);
            continue;
        };
        let is_token = |text: &str| vocabulary.of_model.contains_key(text);
        let mut cuts = token
            .char_indices()
            .skip(1)
            .map(|(at, _)| token.split_at(at));
        let left_out = cuts.find(|(a, b)| is_token(a) && is_token(b) && !pairs.contains(&(*a, *b)));
        if let Some((a, b)) = left_out {
            let reason =
                format!("'{a}' and '{b}' are not joined to the token '{token}' by its merges");
            return Err(refuse(json, reason));
        }
        // Single characters are joined from nothing.
        let place = places.get(token).copied().unwrap_or(n_places);
        scores.push(-(place as f32));
    }
    Ok(scores)
}
