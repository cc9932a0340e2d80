//! BPE over bytes, as GPT-2 has it: llama.cpp's tokenizer `gpt2`.

use super::steps::{Step, Steps};
use super::{GgufTokenizer, Vocabulary, refuse};
use crate::config::JsonObject;
use crate::gguf::GgufError;

/// How llama.cpp cuts texts into words, by name: the steps that do the same, and whether a word that is a token is one without
/// merges.
///
/// llama.cpp's own converter tells tokenizers apart by the hash of what they make of a text. What counts is how they cut, and
/// tokenizers that cut alike share a name here.
fn known(steps: &[Step], ignores_merges: bool) -> Option<&'static str> {
    let words = |regex: &str| vec![Step::Words(regex.to_owned()), Step::Bytes(false)];
    let table = [
        (vec![Step::Bytes(true)], false, "gpt-2"),
        (vec![Step::Digits, Step::Bytes(true)], false, "smollm"),
        (words(THREE_DIGITS), true, "llama-bpe"),
        (words(THREE_DIGITS), false, "dbrx"),
        (words(ONE_DIGIT), false, "qwen2"),
    ];
    let mut table = table.into_iter();
    let found = table.find(|(known, ignores, _)| known == steps && *ignores == ignores_merges);
    found.map(|(_, _, name)| name)
}

/// Words of up to three digits: of Llama 3, OLMo 2, DBRX and others after GPT-4.
const THREE_DIGITS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Each digit a word: of Qwen2, Qwen3 and StableLM 2.
const ONE_DIGIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

pub(super) fn tokenizer(
    json: &JsonObject,
    steps: &Steps,
    vocabulary: Vocabulary,
) -> Result<GgufTokenizer, GgufError> {
    let model = json.object("model")?.ok_or_else(|| json.missing("model"))?;
    // Files of older versions do not say the type.
    let kind = model.str("type")?.unwrap_or("BPE");
    if kind != "BPE" {
        return Err(refuse(json, format!("its model is {kind} over bytes")));
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if model.str(key)?.is_some_and(|text| !text.is_empty()) {
            return Err(refuse(json, format!("it has a {key}")));
        }
    }
    if model.bool("byte_fallback")?.unwrap_or(false) {
        return Err(refuse(json, "it falls back to bytes and is over bytes"));
    }
    let mut notes = Vec::new();
    match steps.normalizer.as_slice() {
        [] => {}
        [Step::Nfc] => notes.push(
            "the tokenizer composes characters (NFC), which llama.cpp leaves to whoever writes the text".to_owned(),
        ),
        _ => return Err(refuse(json, "it changes texts before it cuts them")),
    }
    let ignores_merges = model.bool("ignore_merges")?.unwrap_or(false);
    let Some(pre) = known(&steps.pre_tokenizer, ignores_merges) else {
        let how = match ignores_merges {
            true => {
                "it cuts texts into words, and takes whole words for tokens (ignore_merges), in a way that is not known"
            }
            false => "it cuts texts into words in a way that is not known",
        };
        return Err(refuse(json, how));
    };
    let unknown = model.str("unk_token")?;
    let unknown = unknown.and_then(|token| id_of(&vocabulary, token));
    let merges = vocabulary.merges.iter();
    Ok(GgufTokenizer {
        model: "gpt2",
        pre,
        merges: Some(merges.map(|[a, b]| format!("{a} {b}")).collect()),
        tokens: Vocabulary::filled(vocabulary.tokens),
        kinds: vocabulary.kinds,
        scores: None,
        special: [
            ("bos", None),
            ("eos", None),
            ("padding", None),
            ("unknown", unknown),
        ],
        adds: [false; 2],
        space_prefix: None,
        chat_template: None,
        notes,
    })
}

/// The id of a token by its text.
pub(super) fn id_of(vocabulary: &Vocabulary, token: &str) -> Option<u32> {
    let mut tokens = vocabulary.tokens.iter();
    let place = tokens.position(|known| known.as_deref() == Some(token))?;
    u32::try_from(place).ok()
}
