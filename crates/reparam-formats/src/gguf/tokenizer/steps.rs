//! The steps of a tokenizer around its model.

use serde_json::Value;

use super::refuse;
use crate::config::JsonObject;
use crate::gguf::GgufError;

/// The mark of a space in pieces.
pub(super) const SPACE: &str = "\u{2581}";

/// A step before the model.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Unicode's composed form.
    Nfc,
    /// A space becomes the mark.
    MarkSpaces,
    /// The mark is put before a text.
    MarkBegin,
    /// Texts are cut at single spaces, of which there are none by then.
    CutAtSpaces,
    /// Each digit is a word.
    Digits,
    /// Words are what a regular expression finds.
    Words(String),
    /// Bytes become characters; `true` if words are cut as GPT-2 cuts them.
    Bytes(bool),
}

/// All of them, and what the template adds.
#[derive(Debug)]
pub(super) struct Steps {
    pub(super) normalizer: Vec<Step>,
    pub(super) pre_tokenizer: Vec<Step>,
    adds: [Option<u32>; 2],
}

impl Steps {
    pub(super) fn read(json: &JsonObject) -> Result<Self, GgufError> {
        let mut steps = Self {
            normalizer: Vec::new(),
            pre_tokenizer: Vec::new(),
            adds: [None; 2],
        };
        for part in parts(json, "normalizer", "normalizers") {
            steps.normalizer.extend(normalizer(json, part)?);
        }
        for part in parts(json, "pre_tokenizer", "pretokenizers") {
            let (before, step) = pre_tokenizer(json, part)?;
            steps.normalizer.extend(before);
            steps.pre_tokenizer.extend(step);
        }
        for part in parts(json, "post_processor", "processors") {
            match of_type(part) {
                // It moves offsets alone.
                "ByteLevel" => {}
                "TemplateProcessing" => steps.adds = template(json, part)?,
                other => return Err(refuse(json, format!("its post-processor is {other}"))),
            }
        }
        Ok(steps)
    }

    /// Whether the model sees bytes.
    pub(super) fn is_over_bytes(&self) -> bool {
        matches!(self.pre_tokenizer.last(), Some(Step::Bytes(_)))
    }

    /// What is put before and behind a text.
    pub(super) fn adds(&self) -> [Option<u32>; 2] {
        self.adds
    }
}

/// The parts of a step, which may be a sequence.
fn parts<'a>(json: &'a JsonObject, key: &str, inside: &str) -> Vec<&'a Value> {
    let mut flat = Vec::new();
    // A sequence in a sequence is none that any tokenizer has.
    match json.get(key) {
        None | Some(Value::Null) => {}
        Some(whole) if of_type(whole) == "Sequence" => {
            let list = whole.get(inside).and_then(Value::as_array);
            flat.extend(list.into_iter().flatten());
        }
        Some(whole) => flat.push(whole),
    }
    flat
}

fn of_type(part: &Value) -> &str {
    part.get("type")
        .and_then(Value::as_str)
        .unwrap_or("unknown")
}

fn text<'a>(part: &'a Value, key: &str) -> Option<&'a str> {
    part.get(key).and_then(Value::as_str)
}

fn flag(part: &Value, key: &str, default: bool) -> bool {
    part.get(key).and_then(Value::as_bool).unwrap_or(default)
}

/// The pattern of a step that looks for a text.
fn literal(part: &Value) -> Option<&str> {
    part.get("pattern")
        .and_then(|pattern| text(pattern, "String"))
}

fn normalizer(json: &JsonObject, part: &Value) -> Result<Vec<Step>, GgufError> {
    match of_type(part) {
        "NFC" => Ok(vec![Step::Nfc]),
        "Prepend" if text(part, "prepend") == Some(SPACE) => Ok(vec![Step::MarkBegin]),
        "Replace" if literal(part) == Some(" ") && text(part, "content") == Some(SPACE) => {
            Ok(vec![Step::MarkSpaces])
        }
        other => Err(refuse(json, format!("its normalizer is {other}"))),
    }
}

/// Returns what a step does to the text, and how it cuts it.
fn pre_tokenizer(json: &JsonObject, part: &Value) -> Result<(Vec<Step>, Vec<Step>), GgufError> {
    let regex = part
        .get("pattern")
        .and_then(|pattern| text(pattern, "Regex"));
    let behavior = text(part, "behavior").unwrap_or_default();
    match of_type(part) {
        "ByteLevel" if !flag(part, "add_prefix_space", true) => {
            let bytes = Step::Bytes(flag(part, "use_regex", true));
            Ok((Vec::new(), vec![bytes]))
        }
        "ByteLevel" => Err(refuse(
            json,
            "it puts a space before a text (add_prefix_space)",
        )),
        "Digits" if flag(part, "individual_digits", false) => Ok((Vec::new(), vec![Step::Digits])),
        "Split" if literal(part) == Some(" ") => Ok((Vec::new(), vec![Step::CutAtSpaces])),
        "Split" => {
            let keeps = match behavior {
                "Isolated" => !flag(part, "invert", false),
                "Removed" => flag(part, "invert", false),
                _ => false,
            };
            match regex.filter(|_| keeps) {
                Some(regex) => Ok((Vec::new(), vec![Step::Words(regex.to_owned())])),
                None => Err(refuse(json, format!("it splits a text with {behavior}"))),
            }
        }
        "Metaspace" if text(part, "replacement") == Some(SPACE) && !flag(part, "split", true) => {
            let mut before = vec![Step::MarkSpaces];
            match text(part, "prepend_scheme").unwrap_or("always") {
                "never" => {}
                _ => before.push(Step::MarkBegin),
            }
            Ok((before, Vec::new()))
        }
        other => Err(refuse(json, format!("its pre-tokenizer is {other}"))),
    }
}

/// Reads what a template puts before and behind a text: at most one token each.
fn template(json: &JsonObject, part: &Value) -> Result<[Option<u32>; 2], GgufError> {
    let empty = Vec::new();
    let single = part
        .get("single")
        .and_then(Value::as_array)
        .unwrap_or(&empty);
    let is_text = |piece: &&Value| piece.get("Sequence").is_some();
    let id = |piece: &Value| -> Option<u32> {
        let name = text(piece.get("SpecialToken")?, "id")?;
        let ids = part.get("special_tokens")?.get(name)?.get("ids")?;
        match ids.as_array()?.as_slice() {
            [id] => u32::try_from(id.as_u64()?).ok(),
            _ => None,
        }
    };
    let at = single.iter().position(|piece| is_text(&piece));
    let texts = single.iter().filter(is_text).count();
    let (before, behind) = match at {
        Some(at) if texts == 1 => (&single[..at], &single[at + 1..]),
        _ => return Err(refuse(json, "its template is not of one text")),
    };
    let one = |pieces: &[Value]| match pieces {
        [] => Ok(None),
        [piece] if id(piece).is_some() => Ok(id(piece)),
        _ => Err(refuse(
            json,
            "its template adds more than one token on a side",
        )),
    };
    Ok([one(before)?, one(behind)?])
}
