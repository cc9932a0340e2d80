//! Reads settings out of a section, as their specs say.

use reparam::schema::{
    Chosen, Fallback, Range, SettingKind, SettingSpec, SettingValue, TargetModules,
};

use super::Result;
use super::defaults;
use super::section::Section;
use super::tree::{Entry, Node, Value};

/// What errors call a table in a list of transforms.
const CHAIN_NAME: &str = "optimizer.transforms";

/// Reads settings out of a section that may have other keys too, and fills in the defaults: those of
/// `instead` before those of the specs.
pub(super) fn settings(
    section: &Section<'_>,
    specs: &'static [SettingSpec],
    instead: &[(&str, SettingValue)],
) -> Result<Vec<(String, SettingValue)>> {
    let mut settings = Vec::new();
    for spec in specs {
        let of_task = || instead.iter().find(|(key, _)| *key == spec.key);
        let value = match (setting(section, spec)?, of_task(), spec.fallback) {
            (Some(value), ..) => Some(value),
            // A setting that is absent by default is not given by a task either.
            (None, Some((_, value)), fallback) if !matches!(fallback, Fallback::Absent(_)) => {
                Some(value.clone())
            }
            (None, _, Fallback::Required(example)) => {
                return Err(section.missing(spec.key, example));
            }
            (None, ..) => spec.default_value(&settings),
        };
        settings.extend(value.map(|value| (spec.key.to_owned(), value)));
    }
    Ok(settings)
}

/// One of the kinds that a section may name.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// Other names for it.
    pub(super) aliases: &'static [&'static str],
    pub(super) settings: &'static [SettingSpec],
}

/// Reads which of several kinds a section names, and refuses the keys that only others have; `own` are
/// keys of the section itself.
pub(super) fn kind(
    section: &Section<'_>,
    kinds: &[Kind],
    default: &str,
    own: &[&str],
) -> Result<Kind> {
    let is_called = |kind: &Kind, name: &str| kind.name == name || kind.aliases.contains(&name);
    let given = section.find("kind").map(|entry| &entry.node.value);
    let alias = kinds.iter().find(
        |kind| matches!(given, Some(Value::String(name)) if kind.aliases.contains(&name.as_str())),
    );
    let chosen = match alias {
        Some(kind) => Some(*kind),
        None => {
            let words: Vec<_> = kinds.iter().map(|kind| (kind.name, *kind)).collect();
            section.choice("kind", &words)?
        }
    };
    let by_default = || kinds.iter().find(|kind| is_called(kind, default)).copied();
    let Some(chosen) = chosen.or_else(by_default) else {
        return Err(section.missing("kind", "\"a name\""));
    };
    let has = |kind: &Kind, key: &str| kind.settings.iter().any(|spec| spec.key == key);
    let mut foreign = keys_of_kinds(kinds.iter().map(|kind| kind.settings));
    foreign.retain(|key| !own.contains(key) && !has(&chosen, key));
    section.refuse(&foreign, chosen.name, |key| {
        let others = kinds.iter().filter(|kind| has(kind, key));
        others.map(|kind| kind.name).collect()
    })?;
    Ok(chosen)
}

/// Returns every key of several kinds, each once.
pub(super) fn keys_of_kinds<'a>(
    lists: impl Iterator<Item = &'a [SettingSpec]>,
) -> Vec<&'static str> {
    let mut keys = Vec::new();
    for spec in lists.flatten() {
        if !keys.contains(&spec.key) {
            keys.push(spec.key);
        }
    }
    keys
}

/// Reads a setting if it is given.
pub(super) fn setting(section: &Section<'_>, spec: &SettingSpec) -> Result<Option<SettingValue>> {
    let Some(entry) = section.find(spec.key) else {
        return Ok(None);
    };
    value(section, spec, &entry.node).map(Some)
}

fn value(section: &Section<'_>, spec: &SettingSpec, node: &Node) -> Result<SettingValue> {
    use SettingValue as V;
    let key = spec.key;
    Ok(match spec.kind {
        SettingKind::Number(range) => V::Number(section.number_of(key, node, range)?),
        SettingKind::WordOrNumber(words, range) => match &node.value {
            Value::String(word) if words.contains(&word.as_str()) => V::Word(word.clone()),
            Value::String(_) => {
                return Err(section.out_of_range(key, node, spec.kind.describe()));
            }
            _ => V::Number(section.number_of(key, node, range)?),
        },
        SettingKind::Count { least, most } => V::Count(section.count_of(key, node, least, most)?),
        SettingKind::Flag => match node.value {
            Value::Boolean(flag) => V::Flag(flag),
            _ => return Err(section.wrong_type(key, node, "true or false")),
        },
        SettingKind::Word(words) => V::Word(section.word_of(key, node, words)?.to_owned()),
        SettingKind::Text => V::Word(section.string_of(key, node, "a string")?),
        SettingKind::Pattern => {
            let pattern = section.string_of(key, node, "a string")?;
            section.pattern(key, &pattern, &node.span)?;
            V::Word(pattern)
        }
        SettingKind::Numbers(range) => {
            V::Numbers(
                section.list_of(key, node, "number", "a list of numbers", |item| {
                    section.number_of(key, item, range)
                })?,
            )
        }
        SettingKind::Counts { noun, least, most } => match &node.value {
            Value::Integer(_) => V::Counts(vec![section.count_of(key, node, least, most)?]),
            _ => {
                V::Counts(
                    section.list_of(key, node, noun, "a list of whole numbers", |item| {
                        section.count_of(key, item, least, most)
                    })?,
                )
            }
        },
        SettingKind::Texts => V::Texts(section.strings_of(key, node)?),
        SettingKind::Modules { all_linear } => {
            V::Modules(modules(section, spec, node, all_linear)?)
        }
        SettingKind::TextByName => V::TextByName(texts_by_name(section, spec, node)?),
        SettingKind::CountByPattern { least, most } => {
            V::CountByPattern(section.patterns_of(key, node, |path, node| {
                section.count_of(path, node, least, most)
            })?)
        }
        SettingKind::NumberByPattern(range) => V::NumberByPattern(section.patterns_of(
            key,
            node,
            |path, node| section.number_of(path, node, range),
        )?),
        SettingKind::WordOrNumberByName(words, range) => match &node.value {
            Value::String(word) if words.contains(&word.as_str()) => V::Word(word.clone()),
            Value::Table(entries) if !entries.is_empty() => {
                let pairs = entries.iter().map(|entry| {
                    let path = format!("{key}.{}", entry.key);
                    let number = section.number_of(&path, &entry.node, range)?;
                    Ok((entry.key.clone(), number))
                });
                V::NumberByName(pairs.collect::<Result<_>>()?)
            }
            _ => return Err(section.out_of_range(key, node, spec.kind.describe())),
        },
        SettingKind::Table(specs) => {
            let Value::Table(entries) = &node.value else {
                return Err(section.wrong_type(key, node, "a table"));
            };
            let name = format!("{}.{key}", section.name);
            let table = section.inside(name, entries, &node.span);
            let known: Vec<&str> = specs.iter().map(|spec| spec.key).collect();
            table.refuse_unknown(&known)?;
            V::Table(settings(&table, specs, &[])?)
        }
        SettingKind::Keys => match &node.value {
            Value::Table(entries) if !entries.is_empty() => {
                V::Table(foreign_keys(section, key, entries)?)
            }
            _ => return Err(section.wrong_type(key, node, "a table of key = value")),
        },
        SettingKind::Chain => V::Chain(chain(section, key, node)?),
    })
}

/// Reads keys that are another program's, each with whatever value it is given.
fn foreign_keys(
    section: &Section<'_>,
    key: &str,
    entries: &[Entry],
) -> Result<Vec<(String, SettingValue)>> {
    let pairs = entries.iter().map(|entry| {
        let path = format!("{key}.{}", entry.key);
        Ok((entry.key.clone(), foreign(section, &path, &entry.node)?))
    });
    pairs.collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a negative setting has few digits"
)]
fn foreign(section: &Section<'_>, key: &str, node: &Node) -> Result<SettingValue> {
    use SettingValue as V;
    let count = |node: &Node| match node.value {
        Value::Integer(Some(integer)) => u64::try_from(integer).ok(),
        _ => None,
    };
    let text = |node: &Node| match &node.value {
        Value::String(text) => Some(text.clone()),
        _ => None,
    };
    Ok(match &node.value {
        Value::String(text) => V::Word(text.clone()),
        Value::Boolean(flag) => V::Flag(*flag),
        Value::Integer(Some(integer)) => match u64::try_from(*integer) {
            Ok(count) => V::Count(count),
            Err(_) => V::Number(*integer as f64),
        },
        Value::Float(float) if float.is_finite() => V::Number(*float),
        Value::Table(entries) => V::Table(foreign_keys(section, key, entries)?),
        Value::Array(items) => {
            let counts: Option<Vec<u64>> = items.iter().map(count).collect();
            let texts: Option<Vec<String>> = items.iter().map(text).collect();
            match (texts, counts) {
                (Some(texts), _) => V::Texts(texts),
                (None, Some(counts)) => V::Counts(counts),
                (None, None) => V::Numbers(section.list_of(
                    key,
                    node,
                    "number",
                    "a list of numbers or texts",
                    |item| section.number_of(key, item, Range::Finite),
                )?),
            }
        }
        Value::Float(_) | Value::Integer(None) | Value::Datetime => {
            return Err(section.wrong_type(
                key,
                node,
                "a number, a text, a flag, a list or a table",
            ));
        }
    })
}

/// Reads a table of names and texts, or a text that lists them; a whole number is a text, too.
fn texts_by_name(
    section: &Section<'_>,
    spec: &SettingSpec,
    node: &Node,
) -> Result<Vec<(String, String)>> {
    let wrong = || section.out_of_range(spec.key, node, spec.kind.describe());
    let pairs: Option<Vec<(String, String)>> = match &node.value {
        Value::String(text) => text
            .split(',')
            .map(|pair| {
                let (name, text) = pair.split_once('=')?;
                Some((name.trim().to_owned(), text.trim().to_owned()))
            })
            .collect(),
        Value::Table(entries) => entries
            .iter()
            .map(|entry| match &entry.node.value {
                Value::String(text) => Some((entry.key.clone(), text.clone())),
                Value::Integer(Some(number)) => Some((entry.key.clone(), number.to_string())),
                _ => None,
            })
            .collect(),
        _ => return Err(section.wrong_type(spec.key, node, "a table of name = \"text\"")),
    };
    let is_text = |(name, text): &(String, String)| !name.is_empty() && !text.is_empty();
    pairs
        .filter(|pairs| !pairs.is_empty() && pairs.iter().all(is_text))
        .ok_or_else(wrong)
}

/// Reads a list of transforms, each a table with its `kind`.
pub(super) fn chain(section: &Section<'_>, key: &str, node: &Node) -> Result<Vec<Chosen>> {
    const EXPECTED: &str = "a list of tables, each with a `kind`";
    let Value::Array(items) = &node.value else {
        return Err(section.wrong_type(key, node, EXPECTED));
    };
    items
        .iter()
        .map(|item| match &item.value {
            Value::Table(entries) => {
                chosen(&section.inside(CHAIN_NAME.to_owned(), entries, &item.span))
            }
            _ => Err(section.wrong_type(key, item, EXPECTED)),
        })
        .collect()
}

/// Reads one transform.
fn chosen(table: &Section<'_>) -> Result<Chosen> {
    let transforms = &table.catalog().transforms;
    let kinds: Vec<_> = transforms.iter().map(|entry| (entry.kind, entry)).collect();
    let entry = table
        .choice("kind", &kinds)?
        .ok_or_else(|| table.missing("kind", defaults::TRANSFORM))?;
    let known: Vec<&str> = std::iter::once("kind")
        .chain(entry.settings.iter().map(|setting| setting.key))
        .collect();
    table.refuse_unknown(&known)?;
    Ok(Chosen {
        kind: entry.kind.to_owned(),
        settings: settings(table, entry.settings, &[])?,
    })
}

/// Reads a list of names, `"all-linear"`, or a regular expression.
fn modules(
    section: &Section<'_>,
    spec: &SettingSpec,
    node: &Node,
    all_linear: bool,
) -> Result<TargetModules> {
    let key = spec.key;
    match &node.value {
        Value::Array(_) => Ok(TargetModules::Names(section.strings_of(key, node)?)),
        Value::String(text) if text == "all-linear" && all_linear => Ok(TargetModules::AllLinear),
        Value::String(text) if text == "all-linear" => {
            Err(section.out_of_range(key, node, spec.kind.describe()))
        }
        Value::String(_) => {
            let pattern = section.string_of(key, node, "a string")?;
            section.pattern(key, &pattern, &node.span)?;
            Ok(TargetModules::Pattern(pattern))
        }
        _ => Err(section.wrong_type(
            key,
            node,
            "\"all-linear\", a list of names or a regular expression",
        )),
    }
}
