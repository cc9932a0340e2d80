//! Normal forms and lower case.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick, is_nfkc_quick};

use super::options::Normalize;

/// Returns a text in a normal form. (Unicode Standard Annex 15; the quick check of its section 9 spares most texts the work.)
pub(super) fn normalize(text: &str, form: Normalize) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let quick = match form {
        Normalize::None => IsNormalized::Yes,
        Normalize::Nfc => is_nfc_quick(text.chars()),
        Normalize::Nfkc => is_nfkc_quick(text.chars()),
    };
    if quick == IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    let normal: String = match form {
        Normalize::Nfkc => text.nfkc().collect(),
        Normalize::None | Normalize::Nfc => text.nfc().collect(),
    };
    changed(text, normal)
}

/// Returns a text in lower case that is in the normal form that it was in.
///
/// Lower case leaves a normal form where a small letter with its accents has a character of its own and the capital has
/// none, as with U+03AA U+0301, whose small form is U+0390.
pub(super) fn lowercase(text: &str, form: Normalize) -> Cow<'_, str> {
    let lower = text.to_lowercase();
    match normalize(&lower, form) {
        Cow::Owned(normal) => changed(text, normal),
        Cow::Borrowed(_) => changed(text, lower),
    }
}

/// What a step has made, if it is another text.
pub(super) fn changed(before: &str, after: String) -> Cow<'_, str> {
    match after == before {
        true => Cow::Borrowed(before),
        false => Cow::Owned(after),
    }
}
