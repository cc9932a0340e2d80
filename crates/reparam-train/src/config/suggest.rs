//! What the user probably meant by a key that does not exist.

use reparam_formats::nearest;

use super::elsewhere::{Answer, Place, answers};
use super::error::quoted_list;

/// Every section of a task with all of its keys, in the order of the documentation.
pub(super) type Layout = Vec<(&'static str, Vec<&'static str>)>;

/// The keys of a section.
pub(super) fn keys<'a>(layout: &'a Layout, section: &str) -> &'a [&'static str] {
    layout
        .iter()
        .find(|(name, _)| *name == section)
        .map_or(&[], |(_, keys)| keys)
}

/// The hint for an unknown `key` in `section`.
pub(super) fn for_key(layout: &Layout, section: &str, key: &str) -> String {
    let own = keys(layout, section);
    if let Some(known) = known(layout, Some(section), key) {
        return known;
    }
    match nearest(key, own.iter().copied()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("the keys of [{section}] are {}", quoted_list(own)),
    }
}

/// The hint for an unknown section or top-level key.
pub(super) fn for_section(layout: &Layout, name: &str, is_table: bool) -> String {
    let known = match is_table {
        true => answers(Place::Section, name).find_map(|answer| followed(layout, None, answer)),
        false => known(layout, None, name),
    };
    if let Some(known) = known {
        return known;
    }
    let names: Vec<&str> = layout.iter().map(|(name, _)| *name).collect();
    match nearest(name, names.iter().copied()) {
        Some(nearest) => format!("did you mean [{nearest}]?"),
        None => format!("the sections are {}", quoted_list(&names)),
    }
}

/// The hint for a key that another section has, or that is another program's word.
fn known(layout: &Layout, section: Option<&str>, key: &str) -> Option<String> {
    if let Some(home) = home_of(layout, key) {
        return Some(format!("`{key}` belongs in [{home}]"));
    }
    answers(Place::Anywhere, key).find_map(|answer| followed(layout, section, answer))
}

/// An answer as a hint of a run file, if its keys are there.
fn followed(layout: &Layout, section: Option<&str>, answer: Answer) -> Option<String> {
    let has = |home: &str, key: &str| keys(layout, home).contains(&key);
    Some(match answer {
        Answer::Key(home, key) if has(home, key) && section == Some(home) => {
            format!("it is called `{key}` here")
        }
        Answer::Key(home, key) if has(home, key) => {
            format!("it is called `{key}` here, and belongs in [{home}]")
        }
        Answer::Set(home, key, value) if has(home, key) => {
            format!("write {key} = {value} in [{home}]")
        }
        Answer::Do(sentence) => sentence.to_owned(),
        Answer::Key(..) | Answer::Set(..) | Answer::Flag(_) => return None,
    })
}

/// The hint for an unknown `value` of `key`.
pub(super) fn for_value(section: &str, key: &str, value: &str) -> Option<String> {
    answers(Place::Value(key), value).find_map(|answer| match answer {
        Answer::Set(home, key, value) if home == section => Some(format!("write {key} = {value}")),
        Answer::Do(sentence) => Some(sentence.to_owned()),
        _ => None,
    })
}

/// The section that has `key`. `kind` is in two, so its absence here is no information.
pub(super) fn home_of(layout: &Layout, key: &str) -> Option<&'static str> {
    layout
        .iter()
        .find(|(_, keys)| keys.contains(&key))
        .map(|(section, _)| *section)
}
