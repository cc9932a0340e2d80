//! Characters that are not shown.

use std::borrow::Cow;

/// Removes characters that are not shown: controls (NUL among them), byte order marks, soft hyphens, zero-width spaces, word
/// joiners, and what turns the direction of writing around. Line ends become one line feed each.
///
/// Tabs and line feeds stay, for they separate words. Joiners (U+200C, U+200D), variation selectors and tags stay, for
/// Persian, Indic scripts and emoji are written with them, and so do the Arabic marks that are shown around numbers.
#[must_use]
pub fn strip_control(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| c == '\r' || is_hidden(c)) {
        return Cow::Borrowed(text);
    }
    let mut stripped = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\r' {
            // The line feed of CR LF is written by the next turn.
            if characters.peek() != Some(&'\n') {
                stripped.push('\n');
            }
        } else if !is_hidden(character) {
            stripped.push(character);
        }
    }
    Cow::Owned(stripped)
}

/// The controls (category Cc) and the format characters (Cf) that no script or emoji needs, but for white space.
fn is_hidden(character: char) -> bool {
    match character {
        '\t' | '\n' | '\r' => false,
        '\u{ad}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}' => true,
        '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{206f}' => true,
        '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' => true,
        other => other.is_control(),
    }
}
