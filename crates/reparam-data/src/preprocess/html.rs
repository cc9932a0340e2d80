//! Texts out of pages.

use std::borrow::Cow;

use super::entities::decode_entities;
use super::unicode::changed;

/// Elements that stand inside a line: what is around their tags is one word.
const INLINE: [&str; 31] = [
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em",
    "font", "i", "ins", "kbd", "label", "mark", "q", "rp", "s", "samp", "small", "span", "strike",
    "strong", "sub", "sup", "u", "wbr",
];

/// Elements whose contents are no text.
const RAW: [&str; 2] = ["script", "style"];

/// Removes tags, comments, and the contents of scripts and styles, then decodes entities.
///
/// This takes the text out of a page or a fragment of one; it does not make it safe to be shown as a page. What is no markup stays:
/// a `<` that no name follows, as in `a < b` or `<3`, and a tag, comment or script that nothing closes. A tag of an element
/// that stands inside a line is replaced by nothing, any other by a space unless white space is there. Entities are decoded
/// last, so `&lt;b&gt;` becomes `<b>` and stays.
///
/// # Cost
///
/// Linear in the text, whatever it holds.
#[must_use]
pub fn strip_html(text: &str) -> Cow<'_, str> {
    if !text.contains('<') {
        return decode_entities(text);
    }
    let stripped = Scanner::new(text).strip();
    let decoded = match decode_entities(&stripped) {
        Cow::Borrowed(_) => None,
        Cow::Owned(decoded) => Some(decoded),
    };
    changed(text, decoded.unwrap_or(stripped))
}

/// Walks over the markup of a text. Positions are of ASCII bytes, so texts are cut between characters.
struct Scanner<'a> {
    text: &'a str,
    /// The position behind the last `>`: no tag ends later.
    tags_end: usize,
    /// Whether a comment may still end. Once none did, none that begins later does.
    comments_end: bool,
    /// The same of the elements of [`RAW`].
    raw_end: [bool; 2],
    /// Whether quotes hide a `>`; no more once one has hidden all of them.
    quotes_hide: bool,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            tags_end: text.rfind('>').map_or(0, |last| last + 1),
            comments_end: true,
            raw_end: [true; 2],
            quotes_hide: true,
        }
    }

    fn strip(mut self) -> String {
        let mut kept = Kept {
            text: String::with_capacity(self.text.len()),
            is_parted: false,
        };
        let mut at = 0;
        while let Some(found) = self.text[at..].find('<') {
            let open = at + found;
            kept.push(&self.text[at..open]);
            at = match self.markup(open) {
                None => {
                    kept.push("<");
                    open + 1
                }
                Some((end, is_inline)) => {
                    kept.is_parted |= !is_inline;
                    end
                }
            };
        }
        kept.push(&self.text[at..]);
        kept.text
    }

    /// The end of what begins with the `<` at `open`, and whether it stands inside a line; `None` if it is no markup.
    fn markup(&mut self, open: usize) -> Option<(usize, bool)> {
        let rest = &self.text[open + 1..];
        if rest.starts_with("!--") {
            return self.comment(open).map(|end| (end, true));
        }
        let name = rest.strip_prefix('/').unwrap_or(rest);
        let is_declaration = rest.starts_with(['!', '?']);
        let begins = |c: char| c.is_ascii_alphabetic() || (c == '[' && is_declaration);
        let name = if is_declaration { &rest[1..] } else { name };
        if !name.starts_with(begins) {
            return None;
        }
        let end = self.tag(open)?;
        let ends_name = |c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>');
        let name = &name[..name.find(ends_name).unwrap_or(name.len())];
        let is = |known: &&str| known.eq_ignore_ascii_case(name);
        if let Some(raw) = RAW.iter().position(&is)
            && !rest.starts_with('/')
            && let Some(end) = self.raw(raw, end)
        {
            return Some((end, false));
        }
        Some((end, INLINE.iter().any(is)))
    }

    fn comment(&mut self, open: usize) -> Option<usize> {
        // `<!-->` is a whole comment.
        let begin = open + "<!--".len();
        if self.text[begin..].starts_with('>') {
            return Some(begin + 1);
        }
        let found = match self.comments_end {
            true => self.text[begin..].find("-->"),
            false => None,
        };
        self.comments_end = found.is_some();
        found.map(|found| begin + found + "-->".len())
    }

    /// The end of a tag: behind the first `>` that is not in a quoted value.
    fn tag(&mut self, open: usize) -> Option<usize> {
        if open >= self.tags_end {
            return None;
        }
        if self.quotes_hide {
            let end = self.tag_with_values(open);
            if end.is_some() {
                return end;
            }
            // A quote that is never closed hides nothing; from here on none does, so that no text is walked twice.
            self.quotes_hide = false;
        }
        let found = self.text[open..].find('>');
        found.map(|found| open + found + 1)
    }

    /// The end of a tag whose values are all closed.
    fn tag_with_values(&self, open: usize) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let mut at = open + 1;
        let mut is_value = false;
        loop {
            match bytes.get(at)? {
                b'>' => return Some(at + 1),
                quote @ (b'"' | b'\'') if is_value => {
                    at += 1 + bytes[at + 1..].iter().position(|byte| byte == quote)?;
                    is_value = false;
                }
                // A quote opens a value only behind its `=`: the apostrophe of a text opens none.
                b'=' => is_value = true,
                byte if byte.is_ascii_whitespace() => {}
                _ => is_value = false,
            }
            at += 1;
        }
    }

    /// The end of the closing tag of an element whose contents begin at `begin`.
    fn raw(&mut self, raw: usize, begin: usize) -> Option<usize> {
        if !self.raw_end[raw] {
            return None;
        }
        let name = RAW[raw];
        let mut at = begin;
        while let Some(found) = self.text[at..].find("</") {
            let close = at + found + "</".len();
            let rest = self.text.as_bytes().get(close..close + name.len());
            if rest.is_some_and(|rest| rest.eq_ignore_ascii_case(name.as_bytes())) {
                match self.text[close..].find('>') {
                    Some(end) => return Some(close + end + 1),
                    // Nor do those behind it end.
                    None => break,
                }
            }
            at = close;
        }
        self.raw_end[raw] = false;
        None
    }
}

/// What is left of a text.
struct Kept {
    text: String,
    /// Whether a tag parts what comes next from what is there.
    is_parted: bool,
}

impl Kept {
    fn push(&mut self, text: &str) {
        let (Some(first), last) = (text.chars().next(), self.text.chars().next_back()) else {
            return;
        };
        let is_joined = last.is_some_and(|last| !last.is_whitespace()) && !first.is_whitespace();
        if std::mem::take(&mut self.is_parted) && is_joined {
            self.text.push(' ');
        }
        self.text.push_str(text);
    }
}

#[cfg(test)]
mod tests;
