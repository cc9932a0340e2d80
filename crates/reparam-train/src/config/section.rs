//! Reads the keys of one section with their types and ranges checked.

use std::borrow::Cow;

use reparam::schema::{Range, SchemaError, SettingSpec, Settings, whole_name};
use reparam_formats::nearest;

use super::Result;
use super::catalog::Catalog;
use super::error::{ConfigError, ConfigErrorKind};
use super::source::Span;
use super::suggest::{self, Layout};
use super::tree::{Entry, Node, Value};

/// The longest value that an error repeats, in characters.
const QUOTED_CHARS: usize = 60;

/// One section of the run file; absent sections read as empty ones.
pub(super) struct Section<'a> {
    pub(super) name: Cow<'static, str>,
    entries: &'a [Entry],
    /// The `[name]` in the file, if it is there.
    header: Option<&'a Span>,
    catalog: &'a Catalog,
}

impl<'a> Section<'a> {
    pub(super) fn absent(name: &'static str, catalog: &'a Catalog) -> Self {
        Self {
            name: name.into(),
            entries: &[],
            header: None,
            catalog,
        }
    }

    /// Finds the section in the root table and refuses keys that it does not have.
    pub(super) fn open(
        root: &'a [Entry],
        name: &'static str,
        layout: &Layout,
        catalog: &'a Catalog,
    ) -> Result<Self> {
        let keys = suggest::keys(layout, name);
        let Some(entry) = root.iter().find(|entry| entry.key == name) else {
            return Ok(Self::absent(name, catalog));
        };
        let Value::Table(entries) = &entry.node.value else {
            return Err(ConfigError::at(
                &entry.key_span,
                ConfigErrorKind::UnknownSection {
                    what: "key",
                    name: name.to_owned(),
                    suggestion: format!(
                        "`{name}` is a section: write [{name}] on a line of its own"
                    ),
                },
            ));
        };
        let section = Self {
            name: name.into(),
            entries,
            header: Some(&entry.key_span),
            catalog,
        };
        section.refuse_other(keys, |key| suggest::for_key(layout, name, key))?;
        Ok(section)
    }

    /// Reads a table that is a value of the section as if it were a section of that name.
    pub(super) fn inside(
        &self,
        name: impl Into<Cow<'static, str>>,
        entries: &'a [Entry],
        at: &'a Span,
    ) -> Self {
        Self {
            name: name.into(),
            entries,
            header: Some(at),
            catalog: self.catalog,
        }
    }

    pub(super) fn catalog(&self) -> &'a Catalog {
        self.catalog
    }

    /// Reads all settings of a list, with their defaults filled in.
    pub(super) fn read(&self, specs: &'static [SettingSpec]) -> Result<Settings> {
        let values = super::read::settings(self, specs, &[])?;
        Settings::new(&self.name, specs, &values).map_err(|error| self.schema(error))
    }

    /// Reads all settings of a list into a type.
    pub(super) fn typed<T>(
        &self,
        specs: &'static [SettingSpec],
        read: impl FnOnce(&Settings) -> Result<T, SchemaError>,
    ) -> Result<T> {
        read(&self.read(specs)?).map_err(|error| self.schema(error))
    }

    /// The error for settings that do not fit together, at the key that it is about.
    pub(super) fn schema(&self, error: SchemaError) -> ConfigError {
        let entry = error.setting().and_then(|key| self.find(key));
        let at = match (&error, entry) {
            (SchemaError::NoEffect { .. }, Some(entry)) => Some(&entry.key_span),
            (_, Some(entry)) => Some(&entry.node.span),
            (_, None) => self.header,
        };
        self.located(at, self.schema_kind(error))
    }

    fn schema_kind(&self, error: SchemaError) -> ConfigErrorKind {
        let section = self.name.to_string();
        match error {
            SchemaError::NoEffect {
                setting,
                reason,
                fix,
            } => ConfigErrorKind::NoEffect {
                section,
                key: setting.to_owned(),
                reason: reason.to_owned(),
                fix: fix.to_owned(),
            },
            SchemaError::Pattern {
                setting,
                pattern,
                message,
            } => ConfigErrorKind::Pattern {
                section,
                key: setting,
                pattern,
                message,
            },
            source => ConfigErrorKind::Settings { section, source },
        }
    }

    /// An error about the section as a whole.
    pub(super) fn unusable(&self, kind: ConfigErrorKind) -> ConfigError {
        let at = self.find("kind").map(|entry| &entry.node.span);
        self.located(at.or(self.header), kind)
    }

    /// An error about a key.
    pub(super) fn at(&self, key: &str, kind: ConfigErrorKind) -> ConfigError {
        let at = self.find(key).map(|entry| &entry.node.span);
        self.located(at.or(self.header), kind)
    }

    fn located(&self, at: Option<&Span>, kind: ConfigErrorKind) -> ConfigError {
        match at {
            Some(span) => ConfigError::at(span, kind),
            None => ConfigError::nowhere(kind),
        }
    }

    /// Refuses keys that are not known, in a table that is a value.
    pub(super) fn refuse_unknown(&self, known: &[&str]) -> Result<()> {
        self.refuse_other(known, |key| match nearest(key, known.iter().copied()) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("the keys of this table are {}", known.join(", ")),
        })
    }

    fn refuse_other(&self, known: &[&str], suggestion: impl Fn(&str) -> String) -> Result<()> {
        let is_unknown = |entry: &&Entry| !known.contains(&entry.key.as_str());
        match self.entries.iter().find(is_unknown) {
            None => Ok(()),
            Some(unknown) => Err(ConfigError::at(
                &unknown.key_span,
                ConfigErrorKind::UnknownKey {
                    section: self.name.to_string(),
                    key: unknown.key.clone(),
                    suggestion: suggestion(&unknown.key),
                },
            )),
        }
    }

    pub(super) fn find(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Returns the first key that is there.
    pub(super) fn first_key(&self) -> Option<&'a str> {
        self.entries.first().map(|entry| entry.key.as_str())
    }

    /// Refuses the keys that the chosen kind does not have; `belongs_to` says which have a key.
    pub(super) fn refuse(
        &self,
        keys: &[&str],
        kind: &str,
        belongs_to: impl Fn(&str) -> Vec<&'static str>,
    ) -> Result<()> {
        match self.entries.iter().find(|e| keys.contains(&e.key.as_str())) {
            None => Ok(()),
            Some(entry) => Err(ConfigError::at(
                &entry.key_span,
                ConfigErrorKind::NotApplicable {
                    section: self.name.to_string(),
                    key: entry.key.clone(),
                    kind: kind.to_owned(),
                    belongs_to: belongs_to(&entry.key),
                },
            )),
        }
    }

    /// The error for an absent key, with an example of a value.
    pub(super) fn missing(&self, key: &str, example: &'static str) -> ConfigError {
        let kind = ConfigErrorKind::MissingKey {
            section: self.name.to_string(),
            key: key.to_owned(),
            example,
            is_in_file: true,
        };
        self.located(self.header, kind)
    }

    /// The error for a key that changes nothing.
    pub(super) fn no_effect(
        &self,
        key: &str,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) -> ConfigError {
        let kind = ConfigErrorKind::NoEffect {
            section: self.name.to_string(),
            key: key.to_owned(),
            reason: reason.into(),
            fix: fix.into(),
        };
        self.located(self.find(key).map(|entry| &entry.key_span), kind)
    }

    /// Refuses two keys that say the same thing.
    pub(super) fn exclusive(&self, key: &str, other: &str) -> Result<()> {
        match (self.find(key), self.find(other)) {
            (Some(entry), Some(_)) => Err(ConfigError::at(
                &entry.key_span,
                ConfigErrorKind::Conflict {
                    section: self.name.to_string(),
                    key: key.to_owned(),
                    other: other.to_owned(),
                },
            )),
            _ => Ok(()),
        }
    }

    /// The error for a value of the wrong type.
    pub(super) fn wrong_type(&self, key: &str, node: &Node, expected: &'static str) -> ConfigError {
        ConfigError::at(
            &node.span,
            ConfigErrorKind::WrongType {
                section: self.name.to_string(),
                key: key.to_owned(),
                expected,
                found: node.value.type_name(),
                value: quote(&node.span),
            },
        )
    }

    /// The error for a value out of its range.
    pub(super) fn out_of_range(
        &self,
        key: &str,
        node: &Node,
        expected: impl Into<String>,
    ) -> ConfigError {
        ConfigError::at(
            &node.span,
            ConfigErrorKind::OutOfRange {
                section: self.name.to_string(),
                key: key.to_owned(),
                expected: expected.into(),
                value: quote(&node.span),
            },
        )
    }

    /// A string that is not empty.
    pub(super) fn string_of(
        &self,
        key: &str,
        node: &Node,
        expected: &'static str,
    ) -> Result<String> {
        match &node.value {
            Value::String(text) if text.is_empty() => {
                Err(self.out_of_range(key, node, "a string that is not empty"))
            }
            Value::String(text) => Ok(text.clone()),
            _ => Err(self.wrong_type(key, node, expected)),
        }
    }

    /// A string, or a list of at least one string.
    pub(super) fn strings_of(&self, key: &str, node: &Node) -> Result<Vec<String>> {
        const EXPECTED: &str = "a string or a list of strings";
        if let Value::String(_) = node.value {
            return Ok(vec![self.string_of(key, node, EXPECTED)?]);
        }
        self.list_of(key, node, "string", EXPECTED, |item| {
            self.string_of(key, item, EXPECTED)
        })
    }

    /// A list of at least one item.
    pub(super) fn list_of<T>(
        &self,
        key: &str,
        node: &Node,
        noun: &str,
        expected: &'static str,
        read: impl Fn(&Node) -> Result<T>,
    ) -> Result<Vec<T>> {
        match &node.value {
            Value::Array(items) if items.is_empty() => {
                Err(self.out_of_range(key, node, format!("a list of at least one {noun}")))
            }
            Value::Array(items) => items.iter().map(read).collect(),
            _ => Err(self.wrong_type(key, node, expected)),
        }
    }

    /// A whole number with its bounds.
    pub(super) fn count_of(&self, key: &str, node: &Node, least: u64, most: u64) -> Result<u64> {
        let Value::Integer(integer) = node.value else {
            return Err(self.wrong_type(key, node, "a whole number"));
        };
        let expected = match integer {
            Some(integer) if integer < i128::from(least) => {
                format!("a whole number of at least {least}")
            }
            Some(integer) => match u64::try_from(integer) {
                Ok(count) if count <= most => return Ok(count),
                _ if most < u64::MAX => format!("a whole number of at most {most}"),
                _ => "a number that fits 64 bits".to_owned(),
            },
            None => "a number that fits 64 bits".to_owned(),
        };
        Err(self.out_of_range(key, node, expected))
    }

    /// A number in `range`; a whole number will do.
    #[expect(clippy::cast_precision_loss, reason = "a setting has few digits")]
    pub(super) fn number_of(&self, key: &str, node: &Node, range: Range) -> Result<f64> {
        let number = match node.value {
            Value::Float(float) => float,
            Value::Integer(Some(integer)) => integer as f64,
            Value::Integer(None) => f64::INFINITY,
            _ => return Err(self.wrong_type(key, node, "a number")),
        };
        if range.contains(number) {
            Ok(number)
        } else {
            Err(self.out_of_range(key, node, range.describe()))
        }
    }

    /// One of a few words.
    pub(super) fn word_of<'w>(&self, key: &str, node: &Node, words: &[&'w str]) -> Result<&'w str> {
        let given = self.string_of(key, node, "a string")?;
        if let Some(word) = words.iter().find(|word| **word == given) {
            return Ok(word);
        }
        Err(ConfigError::at(
            &node.span,
            ConfigErrorKind::UnknownChoice {
                section: self.name.to_string(),
                key: key.to_owned(),
                advice: suggest::for_value(&self.name, key, &given),
                nearest: nearest(&given, words.iter().copied()).map(str::to_owned),
                value: given,
                supported: words.iter().map(|word| (*word).to_owned()).collect(),
            },
        ))
    }

    /// What one of a few words stands for.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>> {
        let Some(entry) = self.find(key) else {
            return Ok(None);
        };
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let word = self.word_of(key, &entry.node, &words)?;
        let choice = choices.iter().find(|(name, _)| *name == word);
        Ok(choice.map(|(_, choice)| *choice))
    }

    /// A table of pattern to value, in the order of the text.
    pub(super) fn patterns_of<T>(
        &self,
        key: &str,
        node: &Node,
        value: impl Fn(&str, &Node) -> Result<T>,
    ) -> Result<Vec<(String, T)>> {
        let Value::Table(entries) = &node.value else {
            return Err(self.wrong_type(key, node, "a table of module pattern = value"));
        };
        entries
            .iter()
            .map(|entry| {
                self.pattern(key, &entry.key, &entry.key_span)?;
                let path = format!("{key}.{}", entry.key);
                Ok((entry.key.clone(), value(&path, &entry.node)?))
            })
            .collect()
    }

    /// Checks that `pattern` is a regular expression.
    pub(super) fn pattern(&self, key: &str, pattern: &str, at: &Span) -> Result<()> {
        whole_name(key, pattern)
            .map(|_| ())
            .map_err(|error| ConfigError::at(at, self.schema_kind(error)))
    }
}

/// The value as it was written, cut if it is long.
fn quote(span: &Span) -> String {
    let text = span.text();
    if text.chars().count() <= QUOTED_CHARS && !text.contains('\n') {
        return text.to_owned();
    }
    let line = text.lines().next().unwrap_or("");
    let start: String = line.chars().take(QUOTED_CHARS).collect();
    format!("{start} ...")
}
