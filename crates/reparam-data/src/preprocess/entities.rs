//! Entities of HTML.

use std::borrow::Cow;

use html_escape::NAMED_ENTITIES;

use super::unicode::changed;

/// The names that also count without a semicolon (HTML Standard, 13.5): those of HTML before its version 4.
const WITHOUT_SEMICOLON: &str = "AElig AMP Aacute Acirc Agrave Aring Atilde Auml COPY Ccedil ETH Eacute Ecirc Egrave Euml GT \
    Iacute Icirc Igrave Iuml LT Ntilde Oacute Ocirc Ograve Oslash Otilde Ouml QUOT REG THORN Uacute Ucirc Ugrave Uuml \
    Yacute aacute acirc acute aelig agrave amp aring atilde auml brvbar ccedil cedil cent copy curren deg divide eacute \
    ecirc egrave eth euml frac12 frac14 frac34 gt iacute icirc iexcl igrave iquest iuml laquo lt macr micro middot nbsp \
    not ntilde oacute ocirc ograve ordf ordm oslash otilde ouml para plusmn pound quot raquo reg sect shy sup1 sup2 sup3 \
    szlig thorn times uacute ucirc ugrave uml uuml yacute yen yuml";

/// The longest name of [`WITHOUT_SEMICOLON`], in bytes.
const LONGEST_WITHOUT: usize = 6;
/// More than the longest name of all, in bytes.
const LONGEST: usize = 40;

/// What the numbers 128 to 159 stand for: pages mean the characters of Windows-1252, whatever the number says.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Decodes entities as browsers do in text: `&amp;`, `&#233;`, `&#xE9;`; without a semicolon numbers and the oldest names, of
/// those the longest that fits. What is none stays as it is.
#[must_use]
pub fn decode_entities(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find('&') {
        decoded.push_str(&rest[..found]);
        let behind = &rest[found + 1..];
        let entity = match behind.strip_prefix('#') {
            Some(number) => numbered(number).map(|(character, length)| {
                decoded.push(character);
                length + 1
            }),
            None => named(behind).map(|(text, length)| {
                decoded.push_str(text);
                length
            }),
        };
        if entity.is_none() {
            decoded.push('&');
        }
        rest = &behind[entity.unwrap_or(0)..];
    }
    decoded.push_str(rest);
    changed(text, decoded)
}

/// The character of a number behind `&#`, and the length of the number with its semicolon.
fn numbered(text: &str) -> Option<(char, usize)> {
    let (digits, radix, mark) = match text.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16, 1),
        None => (text, 10, 0),
    };
    let length = digits
        .bytes()
        .take_while(|b| char::from(*b).is_digit(radix));
    let length = length.count();
    if length == 0 {
        return None;
    }
    // A number of any length: what is too large for 32 bits is no character anyway.
    let number = u32::from_str_radix(&digits[..length], radix).unwrap_or(u32::MAX);
    let character = match number {
        0 => char::REPLACEMENT_CHARACTER,
        128..=159 => WINDOWS_1252[number as usize - 128],
        number => char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER),
    };
    let semicolon = usize::from(digits[length..].starts_with(';'));
    Some((character, mark + length + semicolon))
}

/// The text of a name, and the length of the name with its semicolon.
fn named(text: &str) -> Option<(&'static str, usize)> {
    let bytes = text.as_bytes();
    let letters = bytes.iter().take(LONGEST);
    let length = letters.take_while(|b| b.is_ascii_alphanumeric()).count();
    if bytes.get(length) == Some(&b';')
        && let Some(text) = meaning(&bytes[..length])
    {
        return Some((text, length + 1));
    }
    let lengths = (2..=length.min(LONGEST_WITHOUT)).rev();
    let mut prefixes = lengths.map(|length| &text[..length]);
    let name = prefixes.find(|name| WITHOUT_SEMICOLON.split(' ').any(|known| known == *name))?;
    Some((meaning(name.as_bytes())?, name.len()))
}

fn meaning(name: &[u8]) -> Option<&'static str> {
    let found = NAMED_ENTITIES.binary_search_by(|(known, _)| (*known).cmp(name));
    found.ok().map(|index| NAMED_ENTITIES[index].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_are_those_of_browsers() {
        for (text, expected) in [
            ("a &amp; b", "a & b"),
            ("&lt;b&gt; &quot;x&quot; &apos;y&apos;", "<b> \"x\" 'y'"),
            ("&#65;&#x42;&#X43;", "ABC"),
            (
                "&eacute;&CounterClockwiseContourIntegral;&nbsp;",
                "é∳\u{a0}",
            ),
            // Two characters.
            ("&NotEqualTilde;", "≂̸"),
            // Without a semicolon.
            ("&copy 2020 &#65 &#x42, &ampx", "© 2020 A B, &x"),
            ("&notit; &notin; &not", "¬it; ∉ ¬"),
            ("&sup2 &sup", "² &sup"),
            (
                "R&D AT&T & && &; &#; &#x; &#xg; &unknown; &Alpha &alpha",
                "R&D AT&T & && &; &#; &#x; &#xg; &unknown; &Alpha &alpha",
            ),
            // Once only.
            ("&amp;lt;", "&lt;"),
            // Numbers that are no characters.
            (
                "&#0;&#xD800;&#x110000;&#99999999999999999999;",
                "\u{fffd}\u{fffd}\u{fffd}\u{fffd}",
            ),
            ("&#128;&#x92;", "€’"),
            ("&#1;", "\u{1}"),
            ("&é &", "&é &"),
            ("", ""),
        ] {
            assert_eq!(decode_entities(text), expected, "{text:?}");
        }
    }

    #[test]
    fn every_name_without_a_semicolon_is_one_with_it() {
        let names: Vec<&str> = WITHOUT_SEMICOLON.split_ascii_whitespace().collect();
        assert_eq!(names.len(), 106);
        for name in names {
            assert!(meaning(name.as_bytes()).is_some(), "{name}");
            assert!(name.len() <= LONGEST_WITHOUT, "{name}");
        }
        let longest = NAMED_ENTITIES.iter().map(|(name, _)| name.len()).max();
        assert!(longest.unwrap() <= LONGEST);
    }
}
