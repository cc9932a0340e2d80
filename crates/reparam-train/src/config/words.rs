//! Words of a run file and what they stand for.

use serde::Serializer;

/// Returns the words of a table, for a [`SettingKind::Word`](reparam::schema::SettingKind::Word).
pub(super) const fn names<const N: usize, T: Copy>(
    words: &[(&'static str, T); N],
) -> [&'static str; N] {
    let mut names = [""; N];
    let mut i = 0;
    while i < N {
        names[i] = words[i].0;
        i += 1;
    }
    names
}

/// Writes a value as its word.
pub(super) fn write<T: PartialEq, S: Serializer>(
    words: &[(&'static str, T)],
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match words.iter().find(|(_, one)| one == value) {
        Some((word, _)) => serializer.serialize_str(word),
        None => Err(serde::ser::Error::custom("a value without a word")),
    }
}
