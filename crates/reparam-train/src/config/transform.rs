//! Transforms by name, as `[optimizer]` and its `transforms` hold them.

use reparam::optim::{
    Fallback, SettingKind, SettingSpec, SettingValue, TRANSFORMS, TransformEntry, TransformSpec,
    transform_entry,
};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::error::ConfigError;
use super::section::{Range, Section};
use super::tree::{Node, Value};

/// What errors call a table in a list of transforms.
const NAME: &str = "optimizer.transforms";

/// Reads a list of transforms, each a table with its `kind`.
pub(super) fn read_list(
    section: &Section<'_>,
    key: &str,
    node: &Node,
) -> Result<Vec<TransformSpec>, ConfigError> {
    const EXPECTED: &str = "a list of tables, such as [{ kind = \"scale\" }]";
    let Value::Array(items) = &node.value else {
        return Err(section.wrong_type(key, node, EXPECTED));
    };
    items
        .iter()
        .map(|item| match &item.value {
            Value::Table(entries) => read(&Section::inline(NAME, entries, &item.span)),
            _ => Err(section.wrong_type(key, item, EXPECTED)),
        })
        .collect()
}

/// Reads one transform.
fn read(table: &Section<'_>) -> Result<TransformSpec, ConfigError> {
    let kinds: Vec<_> = TRANSFORMS.iter().map(|entry| (entry.kind, entry)).collect();
    let entry = table
        .choice("kind", &kinds)?
        .ok_or_else(|| table.missing("kind", "kind = \"scale\""))?;
    let known: Vec<&str> = std::iter::once("kind")
        .chain(entry.settings.iter().map(|setting| setting.key))
        .collect();
    table.refuse_unknown(&known)?;
    read_settings(table, entry)
}

/// Reads the settings of a transform out of a section that may have other keys too, and fills in
/// the defaults.
pub(super) fn read_settings(
    section: &Section<'_>,
    entry: &'static TransformEntry,
) -> Result<TransformSpec, ConfigError> {
    let mut spec = TransformSpec::new(entry.kind);
    for setting in entry.settings {
        let value = match read_setting(section, setting)? {
            Some(value) => Some(value),
            None => default(section, setting)?,
        };
        if let Some(value) = value {
            spec = spec.with(setting.key, value);
        }
    }
    Ok(spec)
}

fn read_setting(
    section: &Section<'_>,
    setting: &'static SettingSpec,
) -> Result<Option<SettingValue>, ConfigError> {
    let key = setting.key;
    let number = |range| Ok(section.number(key, range)?.map(SettingValue::Number));
    match setting.kind {
        SettingKind::Positive => number(Range::Positive),
        SettingKind::NonNegative => number(Range::NonNegative),
        SettingKind::BelowOne => number(Range::BelowOne),
        SettingKind::Number => number(Range::Finite),
        SettingKind::Count => Ok(section.integer(key, 1)?.map(SettingValue::Count)),
        SettingKind::Flag => Ok(section.boolean(key)?.map(SettingValue::Flag)),
        SettingKind::Word(words) => {
            let choices: Vec<_> = words.iter().map(|word| (*word, *word)).collect();
            let word = section.choice(key, &choices)?;
            Ok(word.map(|word| SettingValue::Word(word.to_owned())))
        }
        SettingKind::Pattern => {
            let Some(pattern) = section.string(key)? else {
                return Ok(None);
            };
            if let Some(entry) = section.find(key) {
                section.pattern(key, &pattern, &entry.node.span)?;
            }
            Ok(Some(SettingValue::Word(pattern)))
        }
        SettingKind::Numbers => {
            let numbers = section.numbers(key, Range::Positive)?;
            Ok(numbers.map(SettingValue::Numbers))
        }
        SettingKind::Chain => section
            .find(key)
            .map(|entry| read_list(section, key, &entry.node).map(SettingValue::Chain))
            .transpose(),
        SettingKind::Lambda => Ok(read_lambda(section, key)?.map(|lambda| match lambda {
            Lambda::InverseSqrtHorizon => {
                SettingValue::Word(Lambda::INVERSE_SQRT_HORIZON.to_owned())
            }
            Lambda::Adaptive => SettingValue::Word(Lambda::ADAPTIVE.to_owned()),
            Lambda::Fixed(lambda) => SettingValue::Number(lambda),
        })),
    }
}

fn default(
    section: &Section<'_>,
    setting: &'static SettingSpec,
) -> Result<Option<SettingValue>, ConfigError> {
    match setting.fallback {
        Fallback::Required => Err(section.missing(setting.key, example(setting))),
        Fallback::Absent(_) => Ok(None),
        Fallback::Number(number) => Ok(Some(SettingValue::Number(number))),
        Fallback::Count(count) => Ok(Some(SettingValue::Count(count))),
        Fallback::Flag(flag) => Ok(Some(SettingValue::Flag(flag))),
        Fallback::Word(word) => Ok(Some(SettingValue::Word(word.to_owned()))),
    }
}

/// What a missing setting may look like.
fn example(setting: &SettingSpec) -> &'static str {
    match (setting.key, setting.kind) {
        ("rank", _) => "rank = 8",
        ("steps", _) => "steps = 4",
        ("max_value", _) => "max_value = 1.0",
        ("weight_decay", _) => "weight_decay = 0.01",
        (_, SettingKind::Pattern) => "pattern = \".*lora_B.*\"",
        (_, SettingKind::Numbers) => "branches = [0.5, 0.25]",
        (_, SettingKind::Chain) => "transforms = [{ kind = \"adam\" }]",
        _ => "it, with a value of your choice",
    }
}

/// The scale of the gradient in the two-step update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lambda {
    /// `"1/sqrt(T)"`, T being the planned number of steps.
    InverseSqrtHorizon,
    /// `"adaptive"`: it follows the measured share of the gradient that is signal.
    Adaptive,
    /// A number greater than 0.
    Fixed(f64),
}

impl Lambda {
    /// How [`InverseSqrtHorizon`](Self::InverseSqrtHorizon) is written.
    pub(super) const INVERSE_SQRT_HORIZON: &str = "1/sqrt(T)";
    /// How [`Adaptive`](Self::Adaptive) is written.
    pub(super) const ADAPTIVE: &str = "adaptive";
}

impl Serialize for Lambda {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::InverseSqrtHorizon => serializer.serialize_str(Self::INVERSE_SQRT_HORIZON),
            Self::Adaptive => serializer.serialize_str(Self::ADAPTIVE),
            Self::Fixed(value) => serializer.serialize_f64(*value),
        }
    }
}

/// `"1/sqrt(T)"`, or a number greater than 0; in `[optimizer]` itself also `"adaptive"`.
pub(super) fn read_lambda(
    section: &Section<'_>,
    key: &'static str,
) -> Result<Option<Lambda>, ConfigError> {
    let Some(entry) = section.find(key) else {
        return Ok(None);
    };
    // A transform `scale` is constant; `adaptive_scale` is the other one's name.
    let words: &[(&str, Lambda)] = if section.is_inline() {
        &[(Lambda::INVERSE_SQRT_HORIZON, Lambda::InverseSqrtHorizon)]
    } else {
        &[
            (Lambda::INVERSE_SQRT_HORIZON, Lambda::InverseSqrtHorizon),
            (Lambda::ADAPTIVE, Lambda::Adaptive),
        ]
    };
    match &entry.node.value {
        Value::String(text) => match words.iter().find(|(word, _)| word == text) {
            Some((_, lambda)) => Ok(Some(*lambda)),
            None => {
                let words: Vec<String> =
                    words.iter().map(|(word, _)| format!("{word:?}")).collect();
                let expected = format!("{} or a finite number greater than 0", words.join(", "));
                Err(section.out_of_range(key, &entry.node, expected))
            }
        },
        _ => Ok(section.number(key, Range::Positive)?.map(Lambda::Fixed)),
    }
}

/// A transform as it is written.
pub(super) struct Written<'a>(pub(super) &'a TransformSpec);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write_into(&mut map, self.0)?;
        map.end()
    }
}

/// Writes `kind` and the settings of a transform into a table.
pub(super) fn write_into<M: SerializeMap>(
    map: &mut M,
    spec: &TransformSpec,
) -> Result<(), M::Error> {
    map.serialize_entry("kind", &spec.kind)?;
    for (key, value) in &spec.settings {
        match value {
            SettingValue::Number(number) => map.serialize_entry(key, number)?,
            SettingValue::Count(count) => map.serialize_entry(key, count)?,
            SettingValue::Flag(flag) => map.serialize_entry(key, flag)?,
            SettingValue::Word(word) => map.serialize_entry(key, word)?,
            SettingValue::Numbers(numbers) => map.serialize_entry(key, numbers)?,
            SettingValue::Chain(specs) => map.serialize_entry(key, &WrittenList(specs))?,
        }
    }
    Ok(())
}

/// Transforms as they are written.
pub(super) struct WrittenList<'a>(pub(super) &'a [TransformSpec]);

impl Serialize for WrittenList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for spec in self.0 {
            list.serialize_element(&Written(spec))?;
        }
        list.end()
    }
}

/// Returns a whole optimizer with the settings it has by default.
pub(super) fn with_defaults(kind: &str) -> TransformSpec {
    let mut spec = TransformSpec::new(kind);
    let settings = transform_entry(kind).map_or(&[][..], |entry| entry.settings);
    for setting in settings {
        let value = match setting.fallback {
            Fallback::Number(number) => SettingValue::Number(number),
            Fallback::Count(count) => SettingValue::Count(count),
            Fallback::Flag(flag) => SettingValue::Flag(flag),
            Fallback::Word(word) => SettingValue::Word(word.to_owned()),
            Fallback::Required | Fallback::Absent(_) => continue,
        };
        spec = spec.with(setting.key, value);
    }
    spec
}
