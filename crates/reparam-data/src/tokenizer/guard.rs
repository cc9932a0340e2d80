//! What stands between a `tokenizer.json` and the `tokenizers` library, which trusts its files.
//!
//! On a file that contradicts itself the library panics, when the file is read or when a text is encoded, and the table of
//! characters that SentencePiece normalizes makes it allocate what four bytes of the file say. Such tables are checked
//! here, all of them; everything else is caught where it is first tried.

use std::any::Any;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use tokenizers::Tokenizer;

/// The libraries whose panics become errors here.
const LIBRARIES: [&str; 3] = ["tokenizers", "spm_precompiled", "parquet"];

/// The key of the table of characters.
const CHARSMAP: &str = "precompiled_charsmap";

/// Texts that every part of a tokenizer is tried on.
const PROBES: [&str; 3] = ["", "a", "Aé \n你好, 1234567 <s>\u{1f600}"];

/// The part of `tokenizer.json` that has tables of characters.
#[derive(Deserialize)]
struct Steps {
    #[serde(default)]
    normalizer: Value,
}

/// Makes a tokenizer of the bytes of a file, and tries it.
///
/// # Errors
///
/// What is wrong with it, in words.
pub(super) fn tokenizer(bytes: &[u8]) -> Result<Tokenizer, String> {
    let steps: Steps = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    check_charsmaps(&steps.normalizer)?;
    // On this thread: what another one frees stays in its own part of the heap, some 40 MB of a large vocabulary.
    guarded(|| {
        let tokenizer = Tokenizer::from_bytes(bytes)?;
        for text in PROBES {
            // A text that it has no token for is no fault of the file.
            let _ = tokenizer.encode_fast(text, true);
            // Nothing is never decoded, and some decoders count backwards from its length.
            if let Ok(encoding) = tokenizer.encode(text, true)
                && !encoding.is_empty()
            {
                let _ = tokenizer.decode(encoding.get_ids(), false);
            }
        }
        Ok(tokenizer)
    })
}

/// Returns whether a panic is one of the libraries that read and apply a `tokenizer.json`, or that read Parquet. It becomes an error of the caller: a
/// hook that reports panics need not report it.
pub fn is_caught_panic(info: &PanicHookInfo<'_>) -> bool {
    let Some(location) = info.location() else {
        return false;
    };
    // A folder of a source is the name of its crate, in the registry with the version behind it.
    let is_library = |part: &str| {
        LIBRARIES.iter().any(|name| {
            let rest = part.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
    };
    let mut parts = Path::new(location.file())
        .iter()
        .filter_map(|part| part.to_str());
    parts.any(is_library)
}

/// Runs the library on a text that may be the first to show what is wrong with a file.
///
/// # Errors
///
/// What it panicked with.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(payload) => Err(said(payload.as_ref())),
    }
}

/// Returns what a panic of the library said.
fn said(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("without a word");
    format!("its parts contradict each other (the tokenizers library fails: {text})")
}

/// Checks the tables of characters anywhere in a value.
fn check_charsmaps(value: &Value) -> Result<(), String> {
    match value {
        Value::Object(map) => map
            .iter()
            .try_for_each(|(key, value)| match value.as_str() {
                Some(text) if key == CHARSMAP => {
                    check_charsmap(text).map_err(|problem| format!("{CHARSMAP}: {problem}"))
                }
                _ => check_charsmaps(value),
            }),
        Value::Array(values) => values.iter().try_for_each(check_charsmaps),
        _ => Ok(()),
    }
}

/// Checks a table: the size of a trie in bytes, the trie, and the texts that its values point into, each ended by a zero byte.
fn check_charsmap(base64: &str) -> Result<(), String> {
    let bytes = STANDARD.decode(base64).map_err(|error| error.to_string())?;
    let Some((size, rest)) = bytes.split_first_chunk::<4>() else {
        return Err("it has no trie".to_owned());
    };
    let size = u32::from_le_bytes(*size) as usize;
    if size > rest.len() {
        let rest = rest.len();
        return Err(format!(
            "a trie of {size} bytes does not fit the {rest} that follow"
        ));
    }
    if size == 0 || !size.is_multiple_of(4) {
        return Err(format!("a trie cannot have {size} bytes"));
    }
    let (trie, texts) = rest.split_at(size);
    let texts = std::str::from_utf8(texts).map_err(|error| error.to_string())?;
    let units: Vec<Unit> = trie
        .as_chunks::<4>()
        .0
        .iter()
        .map(|unit| Unit(u32::from_le_bytes(*unit)))
        .collect();
    check_trie(&units, texts)
}

/// A unit of a double-array trie, as in Darts.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    fn has_leaf(self) -> bool {
        (self.0 >> 8) & 1 == 1
    }

    fn value(self) -> usize {
        (self.0 & ((1 << 31) - 1)) as usize
    }

    fn label(self) -> u32 {
        self.0 & ((1 << 31) | 0xff)
    }

    fn offset(self) -> usize {
        ((self.0 >> 10) as usize) << ((self.0 & (1 << 9)) >> 6)
    }
}

/// Walks a trie and checks that no text leads out of it, and each value to the beginning of a text.
fn check_trie(units: &[Unit], texts: &str) -> Result<(), String> {
    let outside = |place: usize| format!("its trie leads to {place} of {} units", units.len());
    let mut seen = vec![false; units.len()];
    let mut open = vec![units[0].offset()];
    while let Some(base) = open.pop() {
        // The units of all bytes that may come next are looked at, whichever does.
        let last = base | 0xff;
        if last >= units.len() {
            return Err(outside(last));
        }
        if std::mem::replace(&mut seen[base], true) {
            continue;
        }
        for byte in 1..=0xff {
            let place = base ^ byte;
            let unit = units[place];
            if unit.label() != byte as u32 {
                continue;
            }
            let next = place ^ unit.offset();
            if unit.has_leaf() {
                let leaf = units.get(next).ok_or_else(|| outside(next))?.value();
                if !texts.is_char_boundary(leaf) {
                    return Err(format!("its trie leads to no text at {leaf}"));
                }
            }
            open.push(next);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
