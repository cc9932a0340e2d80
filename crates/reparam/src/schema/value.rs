//! Values of settings, and how they are checked and written.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::{Fallback, MOST, SchemaError, SettingKind, SettingSpec, TargetModules, whole_name};

/// A given value of a setting.
#[derive(Debug, Clone, PartialEq)]
pub enum SettingValue {
    /// A number.
    Number(f64),
    /// A whole number.
    Count(u64),
    /// A flag.
    Flag(bool),
    /// A word, a text or a pattern.
    Word(String),
    /// Numbers.
    Numbers(Vec<f64>),
    /// Whole numbers.
    Counts(Vec<u64>),
    /// Texts.
    Texts(Vec<String>),
    /// Texts by name.
    TextByName(Vec<(String, String)>),
    /// Modules.
    Modules(TargetModules),
    /// Whole numbers by the pattern of a module's name; the first that matches counts.
    CountByPattern(Vec<(String, u64)>),
    /// Numbers by the pattern of a module's name; the first that matches counts.
    NumberByPattern(Vec<(String, f64)>),
    /// Numbers by name.
    NumberByName(Vec<(String, f64)>),
    /// Settings of a table.
    Table(Vec<(String, SettingValue)>),
    /// Kinds of a catalog.
    Chain(Vec<Chosen>),
}

/// One of a catalog's kinds, by name, with the settings that are given.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Which one.
    pub kind: String,
    /// The settings that are given, by key.
    pub settings: Vec<(String, SettingValue)>,
}

impl Chosen {
    /// Returns a kind with all settings left at what they are by default.
    pub fn new(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            settings: Vec::new(),
        }
    }

    /// Returns a kind with every default that there is filled in.
    pub fn with_defaults(kind: impl Into<String>, specs: &[SettingSpec]) -> Self {
        let mut settings = Vec::new();
        for spec in specs {
            let value = spec.default_value(&settings);
            settings.extend(value.map(|value| (spec.key.to_owned(), value)));
        }
        Self {
            kind: kind.into(),
            settings,
        }
    }

    /// Gives a setting, in place of an earlier value of it.
    pub fn with(mut self, key: impl Into<String>, value: SettingValue) -> Self {
        let key = key.into();
        match self.settings.iter_mut().find(|(name, _)| *name == key) {
            Some((_, old)) => *old = value,
            None => self.settings.push((key, value)),
        }
        self
    }

    /// Returns the value of a setting if it is given.
    pub fn get(&self, key: &str) -> Option<&SettingValue> {
        let given = self.settings.iter().find(|(name, _)| name == key);
        given.map(|(_, value)| value)
    }
}

impl SettingKind {
    /// A whole number of at least 1.
    pub const COUNT: Self = Self::Count {
        least: 1,
        most: u64::MAX,
    };
    /// A whole number, zero included.
    pub const COUNT_OR_ZERO: Self = Self::Count {
        least: 0,
        most: u64::MAX,
    };
    /// A whole number from 1 to [`MOST`].
    pub const SIZE: Self = Self::Count {
        least: 1,
        most: MOST,
    };

    /// Says what a value has to be, as the end of "must be".
    pub fn describe(&self) -> String {
        match self {
            Self::Number(range) => range.describe().to_owned(),
            Self::WordOrNumber(words, range) => {
                let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
                format!("{} or {}", words.join(", "), range.describe())
            }
            Self::Count { least, most } => whole(*least, *most),
            Self::Flag => "true or false".to_owned(),
            Self::Word(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
                format!("one of {}", words.join(", "))
            }
            Self::Text => "a string that is not empty".to_owned(),
            Self::Pattern => "a regular expression".to_owned(),
            Self::Numbers(range) => {
                format!("a list of at least one number, each {}", range.describe())
            }
            Self::Counts { noun, least, most } => {
                format!(
                    "a {noun} or a list of at least one, each {}",
                    whole(*least, *most)
                )
            }
            Self::Texts => "a string or a list of at least one string".to_owned(),
            Self::TextByName => "a table of name = \"text\"".to_owned(),
            Self::Modules { all_linear: true } => {
                "\"all-linear\", a list of names or a regular expression".to_owned()
            }
            Self::Modules { all_linear: false } => {
                "a list of names or a regular expression".to_owned()
            }
            Self::CountByPattern { .. } | Self::NumberByPattern(_) => {
                "a table of module pattern = value".to_owned()
            }
            Self::WordOrNumberByName(words, range) => {
                let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
                let range = range.describe();
                format!(
                    "{} or a table of name = number, each {range}",
                    words.join(", ")
                )
            }
            Self::Table(_) => "a table".to_owned(),
            Self::Keys => "a table of key = value".to_owned(),
            Self::Chain => "a list of tables, each with a `kind`".to_owned(),
        }
    }

    /// Returns a value as this kind has it, if it is one: a whole number may stand for a number.
    ///
    /// # Errors
    ///
    /// [`SchemaError::Value`] or [`SchemaError::Pattern`] if it is of another kind or out of range; for a
    /// table also what is wrong with its settings.
    pub fn accept(&self, key: &str, value: &SettingValue) -> Result<SettingValue, SchemaError> {
        use SettingValue as V;
        let wrong = || SchemaError::Value {
            setting: key.to_owned(),
            expected: self.describe(),
            found: value.to_string(),
        };
        let require = |right: bool| {
            if right {
                Ok(value.clone())
            } else {
                Err(wrong())
            }
        };
        match (self, value) {
            (Self::Number(range) | Self::WordOrNumber(_, range), V::Number(number)) => {
                require(range.contains(*number))
            }
            (Self::Number(_) | Self::WordOrNumber(..), V::Count(count)) => {
                self.accept(key, &V::Number(*count as f64))
            }
            (
                Self::WordOrNumber(words, _)
                | Self::WordOrNumberByName(words, _)
                | Self::Word(words),
                V::Word(word),
            ) => require(words.contains(&word.as_str())),
            (Self::WordOrNumberByName(_, range), V::NumberByName(pairs)) => {
                let fits =
                    |(name, number): &(String, f64)| !name.is_empty() && range.contains(*number);
                require(!pairs.is_empty() && pairs.iter().all(fits))
            }
            // As JSON has it, which tells no table from another.
            (Self::WordOrNumberByName(..), V::Table(pairs)) => {
                let number = |(name, value): &(String, V)| match value {
                    V::Number(number) => Some((name.clone(), *number)),
                    V::Count(count) => Some((name.clone(), *count as f64)),
                    _ => None,
                };
                let pairs: Option<_> = pairs.iter().map(number).collect();
                self.accept(key, &V::NumberByName(pairs.ok_or_else(wrong)?))
            }
            (Self::Count { least, most }, V::Count(count)) => {
                require((least..=most).contains(&count))
            }
            (Self::Flag, V::Flag(_)) | (Self::Chain, V::Chain(_)) => Ok(value.clone()),
            (Self::Text, V::Word(text)) => require(!text.is_empty()),
            (Self::Pattern, V::Word(pattern)) => {
                whole_name(key, pattern)?;
                require(!pattern.is_empty())
            }
            (Self::Numbers(range), V::Numbers(numbers)) => {
                require(!numbers.is_empty() && numbers.iter().all(|number| range.contains(*number)))
            }
            (Self::Counts { least, most, .. }, V::Counts(counts)) => {
                let fits = |count| (least..=most).contains(&count);
                require(!counts.is_empty() && counts.iter().all(fits))
            }
            (Self::Texts, V::Texts(texts)) => {
                require(!texts.is_empty() && texts.iter().all(|text| !text.is_empty()))
            }
            (Self::TextByName, V::TextByName(pairs)) => {
                let is_text =
                    |(name, text): &(String, String)| !name.is_empty() && !text.is_empty();
                require(!pairs.is_empty() && pairs.iter().all(is_text))
            }
            (Self::Modules { all_linear }, V::Modules(modules)) => match modules {
                TargetModules::AllLinear => require(*all_linear),
                // What an empty list means the methods say.
                TargetModules::Names(names) => require(*all_linear || !names.is_empty()),
                TargetModules::Pattern(pattern) => {
                    whole_name(key, pattern)?;
                    require(!pattern.is_empty())
                }
            },
            (Self::CountByPattern { least, most }, V::CountByPattern(pairs)) => {
                patterns(key, pairs)?;
                require(
                    pairs
                        .iter()
                        .all(|(_, count)| (least..=most).contains(&count)),
                )
            }
            (Self::NumberByPattern(range), V::NumberByPattern(pairs)) => {
                patterns(key, pairs)?;
                require(pairs.iter().all(|(_, number)| range.contains(*number)))
            }
            (Self::Keys, V::Table(given)) => require(!given.is_empty()),
            (Self::Table(specs), V::Table(given)) => super::Settings::new(key, specs, given)
                .map(|settings| V::Table(settings.into_values())),
            _ => Err(wrong()),
        }
    }
}

fn patterns<T>(key: &str, pairs: &[(String, T)]) -> Result<(), SchemaError> {
    let mut patterns = pairs.iter().map(|(pattern, _)| pattern);
    patterns.try_for_each(|pattern| whole_name(key, pattern).map(|_| ()))
}

fn whole(least: u64, most: u64) -> String {
    if (least, most) == (0, u64::MAX) {
        "a whole number".to_owned()
    } else if most == u64::MAX {
        format!("a whole number of at least {least}")
    } else {
        format!("a whole number from {least} to {most}")
    }
}

impl std::fmt::Display for SettingValue {
    /// Writes the value about as a run file has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Word(word) => write!(f, "{word:?}"),
            Self::Numbers(numbers) => write!(f, "{numbers:?}"),
            Self::Counts(counts) => write!(f, "{counts:?}"),
            Self::Texts(texts) => write!(f, "{texts:?}"),
            Self::TextByName(pairs) => f
                .debug_map()
                .entries(pairs.iter().map(|(k, v)| (k, v)))
                .finish(),
            Self::Modules(TargetModules::AllLinear) => write!(f, "\"all-linear\""),
            Self::Modules(TargetModules::Names(names)) => write!(f, "{names:?}"),
            Self::Modules(TargetModules::Pattern(pattern)) => write!(f, "{pattern:?}"),
            Self::CountByPattern(pairs) => f
                .debug_map()
                .entries(pairs.iter().map(|(k, v)| (k, v)))
                .finish(),
            Self::NumberByPattern(pairs) | Self::NumberByName(pairs) => f
                .debug_map()
                .entries(pairs.iter().map(|(k, v)| (k, v)))
                .finish(),
            Self::Table(settings) => write!(f, "a table of {} settings", settings.len()),
            Self::Chain(chain) => write!(f, "a list of {}", chain.len()),
        }
    }
}

impl std::fmt::Display for Fallback {
    /// Writes the default as a run file has it, or what happens without one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Required(_) => write!(f, "required"),
            Self::Absent(text) => write!(f, "{text}"),
            Self::Number(number) if *number != 0.0 && number.abs() < 1e-3 => {
                write!(f, "{number:e}")
            }
            Self::Number(number) => write!(f, "{number}"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Word(word) => write!(f, "{word:?}"),
            Self::Numbers(numbers) => write!(f, "{numbers:?}"),
            Self::Counts(counts) => write!(f, "{counts:?}"),
            Self::Twice(other) => write!(f, "2 x {other}"),
        }
    }
}

impl Serialize for SettingValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_f64(*number),
            Self::Count(count) => serializer.serialize_u64(*count),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Word(word) => serializer.serialize_str(word),
            Self::Numbers(numbers) => numbers.serialize(serializer),
            Self::Counts(counts) => counts.serialize(serializer),
            Self::Texts(texts) => texts.serialize(serializer),
            Self::TextByName(pairs) => serializer.collect_map(pairs.iter().map(|(k, v)| (k, v))),
            Self::Modules(TargetModules::AllLinear) => serializer.serialize_str("all-linear"),
            Self::Modules(TargetModules::Names(names)) => names.serialize(serializer),
            Self::Modules(TargetModules::Pattern(pattern)) => serializer.serialize_str(pattern),
            Self::CountByPattern(pairs) => {
                serializer.collect_map(pairs.iter().map(|(k, v)| (k, v)))
            }
            Self::NumberByPattern(pairs) | Self::NumberByName(pairs) => {
                serializer.collect_map(pairs.iter().map(|(k, v)| (k, v)))
            }
            Self::Table(settings) => serializer.collect_map(settings.iter().map(|(k, v)| (k, v))),
            Self::Chain(chain) => chain.serialize(serializer),
        }
    }
}

impl Serialize for super::Settings {
    /// Writes a table of the values.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl Serialize for Chosen {
    /// Writes a table: `kind`, then the settings.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.settings.len() + 1))?;
        map.serialize_entry("kind", &self.kind)?;
        for (key, value) in &self.settings {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}
