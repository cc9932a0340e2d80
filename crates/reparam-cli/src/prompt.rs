//! The prompt of `generate`: a text, a file, or standard input.

use std::error::Error;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use reparam_formats::file;

use crate::error::{CliError, Result};

/// Returns the text that `--prompt` names: of `-` standard input, of `@FILE` a file, each without one line end after its last line.
///
/// As with texts that are learned, a byte order mark is no part of it, and `\r\n` is `\n`.
pub(crate) fn read(given: &str) -> Result<String> {
    let bytes = match (given, given.strip_prefix('@')) {
        ("-", _) => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().read_to_end(&mut bytes);
            read.map(|_| bytes).map_err(Into::into)
        }
        (_, Some(path)) => file::read(Path::new(path)).map_err(Into::into),
        (_, None) => return Ok(given.to_owned()),
    };
    let from = || match given.strip_prefix('@') {
        Some(path) => PathBuf::from(path).display().to_string(),
        None => "standard input".to_owned(),
    };
    let bytes = bytes.map_err(|source: Box<dyn Error + Send + Sync>| CliError::Prompt {
        from: from(),
        source,
    })?;
    let text = String::from_utf8(bytes).map_err(|error| CliError::PromptNotUtf8 {
        from: from(),
        offset: error.utf8_error().valid_up_to(),
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n");
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}
