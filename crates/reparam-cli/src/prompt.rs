//! The prompt of `generate`: a text, a file, or standard input.

use std::io::Read as _;
use std::path::PathBuf;

use crate::error::{CliError, Result};

/// Returns the text that `--prompt` names: of `-` standard input, of `@FILE` a file, each without one line end after its last line.
pub(crate) fn read(given: &str) -> Result<String> {
    let bytes = match (given, given.strip_prefix('@')) {
        ("-", _) => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().read_to_end(&mut bytes);
            read.map(|_| bytes)
        }
        (_, Some(path)) => std::fs::read(path),
        (_, None) => return Ok(given.to_owned()),
    };
    let from = || match given.strip_prefix('@') {
        Some(path) => PathBuf::from(path).display().to_string(),
        None => "standard input".to_owned(),
    };
    let bytes = bytes.map_err(|source| CliError::Prompt {
        from: from(),
        source,
    })?;
    let mut text = String::from_utf8(bytes).map_err(|error| CliError::PromptNotUtf8 {
        from: from(),
        offset: error.utf8_error().valid_up_to(),
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
