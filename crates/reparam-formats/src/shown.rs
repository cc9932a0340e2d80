//! Text from files and servers, made fit to be shown.

use std::fmt::{self, Write as _};

/// How many characters of a name or value are shown.
const NAME: usize = 200;
/// How many characters of a sentence are shown.
const SENTENCE: usize = 1000;

/// A name or value from outside as messages quote it: on one line, harmless to a terminal, and not endless.
///
/// Characters of which [`is_unprintable`] holds are written as Rust escapes them, and what is longer than 200 characters
/// ends in `…`.
///
/// ```
/// use reparam_formats::shown;
///
/// assert_eq!(shown("\u{1b}]0;owned\u{7}").to_string(), r"\u{1b}]0;owned\u{7}");
/// assert_eq!(shown(&"x".repeat(1000)).to_string().chars().count(), 201);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    text: &'a str,
    length: usize,
}

/// Makes a name or value from outside fit to be quoted.
pub fn shown<T: AsRef<str> + ?Sized>(text: &T) -> Shown<'_> {
    Shown {
        text: text.as_ref(),
        length: NAME,
    }
}

/// Makes what somebody else says of a name or value, such as a parser, fit to be quoted: as [`shown`], cut at 1000
/// characters.
pub fn shown_sentence<T: AsRef<str> + ?Sized>(text: &T) -> Shown<'_> {
    Shown {
        text: text.as_ref(),
        length: SENTENCE,
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, character) in self.text.chars().enumerate() {
            if position == self.length {
                return formatter.write_char('…');
            }
            if is_unprintable(character) {
                write!(formatter, "{}", character.escape_default())?;
            } else {
                formatter.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// Returns whether a character does something to a terminal or to the text around it instead of being shown: the
/// control characters (line breaks and tabs among them), what turns the direction of writing around, and the separators
/// of lines and paragraphs.
///
/// Joiners and marks of direction are none: scripts and emoji need them.
pub fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_steer_a_terminal_is_escaped_and_what_is_text_is_not() {
        for (text, expected) in [
            ("model.layers.0", "model.layers.0"),
            ("a\nb\tc\r", r"a\nb\tc\r"),
            ("\u{1b}[2J\u{7f}", r"\u{1b}[2J\u{7f}"),
            ("\u{9b}31m", r"\u{9b}31m"),
            (
                "a\u{202e}b\u{2066}c\u{2028}",
                r"a\u{202e}b\u{2066}c\u{2028}",
            ),
            ("价格 é 👩\u{200d}🔬", "价格 é 👩\u{200d}🔬"),
            ("", ""),
        ] {
            assert_eq!(shown(text).to_string(), expected, "{text:?}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let exact = "é".repeat(NAME);
        assert_eq!(shown(&exact).to_string(), exact);
        assert_eq!(shown(&format!("{exact}x")).to_string(), format!("{exact}…"));
        let long = shown_sentence(&"é".repeat(2000)).to_string();
        assert_eq!(long, format!("{}…", "é".repeat(SENTENCE)));
    }
}
