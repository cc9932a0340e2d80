//! What tokens follow from.

use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::source::{FileDigest, Files, ReadOptions, hex};
use crate::tokenizer::TextTokenizer;

/// Raised whenever the same files, options and tokenizer give other tokens, or are told of in another way, than before. A new
/// release of the program does the same.
const VERSION: u32 = 1;

/// The name of the entry.
///
/// Options are taken as they print themselves for debugging, so that one that is added later counts without a word here.
pub(super) fn of(
    digests: &[FileDigest],
    files: &Files,
    tokenizer: &TextTokenizer,
    options: &ReadOptions,
) -> Result<String> {
    let mut key = Sha256::new();
    // Each part with its length, so that none can end where another begins.
    let mut add = |part: &str| {
        key.update((part.len() as u64).to_le_bytes());
        key.update(part);
    };
    add(env!("CARGO_PKG_VERSION"));
    add(&VERSION.to_string());
    add(&tokenizer.fingerprint()?);
    add(&format!("{options:?}"));
    for FileDigest { path, sha256, .. } in digests {
        add(&format!("{path:?}"));
        add(sha256);
    }
    // They are reported.
    for path in &files.left_out {
        add(&format!("{path:?}"));
    }
    Ok(hex(&key.finalize()))
}
