//! Reads the keys of one section with their types and ranges checked.

use super::error::{ConfigError, ConfigErrorKind};
use super::source::Span;
use super::suggest::{self, Layout};
use super::tree::{Entry, Node, Value};

/// The largest rank, batch and accumulation.
pub(super) const MOST: i128 = 65_536;

/// The longest value that an error repeats, in characters.
const QUOTED_CHARS: usize = 60;

/// One section of the run file; absent sections read as empty ones.
pub(super) struct Section<'a> {
    pub(super) name: &'static str,
    entries: &'a [Entry],
    /// The `[name]` in the file, if it is there.
    header: Option<&'a Span>,
    /// Whether it is a table among the values of the section.
    inline: bool,
}

/// The range of a number.
#[derive(Debug, Clone, Copy)]
pub(super) enum Range {
    /// Greater than zero.
    Positive,
    /// Any number.
    Finite,
    /// Zero or more.
    NonNegative,
    /// From 0 to 1, without 1.
    BelowOne,
    /// From 0 to 1, with both.
    UnitInterval,
}

impl Range {
    fn contains(self, x: f64) -> bool {
        x.is_finite()
            && match self {
                Self::Positive => x > 0.0,
                Self::Finite => true,
                Self::NonNegative => x >= 0.0,
                Self::BelowOne => (0.0..1.0).contains(&x),
                Self::UnitInterval => (0.0..=1.0).contains(&x),
            }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Positive => "a finite number greater than 0",
            Self::Finite => "a finite number",
            Self::NonNegative => "a finite number of at least 0",
            Self::BelowOne => "at least 0 and less than 1",
            Self::UnitInterval => "between 0 and 1",
        }
    }
}

impl<'a> Section<'a> {
    /// Finds the section in the root table and refuses keys that it does not have.
    pub(super) fn open(
        root: &'a [Entry],
        name: &'static str,
        layout: &Layout,
    ) -> Result<Self, ConfigError> {
        let keys = suggest::keys(layout, name);
        let Some(entry) = root.iter().find(|entry| entry.key == name) else {
            return Ok(Self {
                name,
                entries: &[],
                header: None,
                inline: false,
            });
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
        if let Some(unknown) = entries
            .iter()
            .find(|entry| !keys.contains(&entry.key.as_str()))
        {
            return Err(ConfigError::at(
                &unknown.key_span,
                ConfigErrorKind::UnknownKey {
                    section: name,
                    key: unknown.key.clone(),
                    suggestion: suggest::for_key(layout, name, &unknown.key),
                },
            ));
        }
        Ok(Self {
            name,
            entries,
            header: Some(&entry.key_span),
            inline: false,
        })
    }

    /// Reads a table that is a value of the section as if it were the section.
    pub(super) fn inline(name: &'static str, entries: &'a [Entry], at: &'a Span) -> Self {
        Self {
            name,
            entries,
            header: Some(at),
            inline: true,
        }
    }

    pub(super) fn is_inline(&self) -> bool {
        self.inline
    }

    /// Refuses keys that are not known, in a table that is a value.
    pub(super) fn refuse_unknown(&self, known: &[&str]) -> Result<(), ConfigError> {
        let is_unknown = |entry: &&Entry| !known.contains(&entry.key.as_str());
        let Some(unknown) = self.entries.iter().find(is_unknown) else {
            return Ok(());
        };
        Err(ConfigError::at(
            &unknown.key_span,
            ConfigErrorKind::UnknownKey {
                section: self.name,
                key: unknown.key.clone(),
                suggestion: match suggest::nearest(&unknown.key, known) {
                    Some(nearest) => format!("did you mean `{nearest}`?"),
                    None => format!("the keys of this table are {}", known.join(", ")),
                },
            },
        ))
    }

    pub(super) fn find(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Refuses the keys that only the kind `belongs_to` has.
    pub(super) fn refuse(
        &self,
        keys: &[&str],
        kind: &'static str,
        belongs_to: &'static str,
    ) -> Result<(), ConfigError> {
        match self.entries.iter().find(|e| keys.contains(&e.key.as_str())) {
            None => Ok(()),
            Some(entry) => Err(ConfigError::at(
                &entry.key_span,
                ConfigErrorKind::NotApplicable {
                    section: self.name,
                    key: entry.key.clone(),
                    kind,
                    belongs_to,
                },
            )),
        }
    }

    /// The error for an absent key.
    pub(super) fn missing(&self, key: &'static str, example: &'static str) -> ConfigError {
        let kind = ConfigErrorKind::MissingKey {
            section: self.name,
            key,
            example,
        };
        match self.header {
            Some(header) => ConfigError::at(header, kind),
            None => ConfigError::nowhere(kind),
        }
    }

    /// The error for a key that changes nothing.
    pub(super) fn no_effect(
        &self,
        key: &'static str,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) -> ConfigError {
        let kind = ConfigErrorKind::NoEffect {
            section: self.name,
            key,
            reason: reason.into(),
            fix: fix.into(),
        };
        match self.find(key) {
            Some(entry) => ConfigError::at(&entry.key_span, kind),
            None => ConfigError::nowhere(kind),
        }
    }

    /// Refuses two keys that say the same thing.
    pub(super) fn exclusive(
        &self,
        key: &'static str,
        other: &'static str,
    ) -> Result<(), ConfigError> {
        match (self.find(key), self.find(other)) {
            (Some(entry), Some(_)) => Err(ConfigError::at(
                &entry.key_span,
                ConfigErrorKind::Conflict {
                    section: self.name,
                    key,
                    other,
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
                section: self.name.to_owned(),
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
                section: self.name.to_owned(),
                key: key.to_owned(),
                expected: expected.into(),
                value: quote(&node.span),
            },
        )
    }

    /// A string that is not empty.
    pub(super) fn string(&self, key: &str) -> Result<Option<String>, ConfigError> {
        self.find(key)
            .map(|entry| self.string_of(key, &entry.node, "a string"))
            .transpose()
    }

    fn string_of(
        &self,
        key: &str,
        node: &Node,
        expected: &'static str,
    ) -> Result<String, ConfigError> {
        match &node.value {
            Value::String(text) if text.is_empty() => {
                Err(self.out_of_range(key, node, "a string that is not empty"))
            }
            Value::String(text) => Ok(text.clone()),
            _ => Err(self.wrong_type(key, node, expected)),
        }
    }

    /// A string, or a list of at least one string.
    pub(super) fn strings(&self, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        const EXPECTED: &str = "a string or a list of strings";
        let Some(Entry { node, .. }) = self.find(key) else {
            return Ok(None);
        };
        match &node.value {
            Value::Array(items) if items.is_empty() => {
                Err(self.out_of_range(key, node, "a list of at least one string"))
            }
            Value::Array(items) => items
                .iter()
                .map(|item| self.string_of(key, item, EXPECTED))
                .collect::<Result<_, _>>()
                .map(Some),
            _ => Ok(Some(vec![self.string_of(key, node, EXPECTED)?])),
        }
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.find(key)
            .map(|entry| match entry.node.value {
                Value::Boolean(boolean) => Ok(boolean),
                _ => Err(self.wrong_type(key, &entry.node, "true or false")),
            })
            .transpose()
    }

    /// A whole number of at least `least` that fits `T`.
    pub(super) fn integer<T: TryFrom<i128>>(
        &self,
        key: &str,
        least: i128,
    ) -> Result<Option<T>, ConfigError> {
        self.find(key)
            .map(|entry| self.integer_of(key, &entry.node, least))
            .transpose()
    }

    pub(super) fn integer_of<T: TryFrom<i128>>(
        &self,
        key: &str,
        node: &Node,
        least: i128,
    ) -> Result<T, ConfigError> {
        let Value::Integer(integer) = node.value else {
            return Err(self.wrong_type(key, node, "a whole number"));
        };
        match integer {
            Some(integer) if integer >= least => T::try_from(integer)
                .map_err(|_| self.out_of_range(key, node, "a number that fits 64 bits")),
            None => Err(self.out_of_range(key, node, "a number that fits 64 bits")),
            Some(_) => {
                Err(self.out_of_range(key, node, format!("a whole number of at least {least}")))
            }
        }
    }

    /// A whole number of at least 1 that decides how much is held in memory at once.
    ///
    /// More than [`MOST`] is a slip of the finger; to try it would end the process for want of
    /// memory.
    pub(super) fn size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.find(key)
            .map(|entry| self.size_of(key, &entry.node, 1, MOST))
            .transpose()
    }

    /// Like [`size`](Self::size), with other bounds.
    pub(super) fn size_of(
        &self,
        key: &str,
        node: &Node,
        least: i128,
        most: i128,
    ) -> Result<usize, ConfigError> {
        match node.value {
            Value::Integer(Some(integer)) if integer > most => {
                Err(self.out_of_range(key, node, format!("a whole number of at most {most}")))
            }
            _ => self.integer_of(key, node, least),
        }
    }

    /// A number in `range`; a whole number will do.
    pub(super) fn number(&self, key: &str, range: Range) -> Result<Option<f64>, ConfigError> {
        self.find(key)
            .map(|entry| self.number_of(key, &entry.node, range))
            .transpose()
    }

    #[expect(clippy::cast_precision_loss, reason = "a setting has few digits")]
    pub(super) fn number_of(
        &self,
        key: &str,
        node: &Node,
        range: Range,
    ) -> Result<f64, ConfigError> {
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

    /// A list of at least one number in `range`.
    pub(super) fn numbers(&self, key: &str, range: Range) -> Result<Option<Vec<f64>>, ConfigError> {
        let Some(Entry { node, .. }) = self.find(key) else {
            return Ok(None);
        };
        match &node.value {
            Value::Array(items) if items.is_empty() => {
                Err(self.out_of_range(key, node, "a list of at least one number"))
            }
            Value::Array(items) => items
                .iter()
                .map(|item| self.number_of(key, item, range))
                .collect::<Result<_, _>>()
                .map(Some),
            _ => Err(self.wrong_type(key, node, "a list of numbers")),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(&'static str, T)],
    ) -> Result<Option<T>, ConfigError> {
        let Some(entry) = self.find(key) else {
            return Ok(None);
        };
        let word = self.string_of(key, &entry.node, "a string")?;
        match choices.iter().find(|(name, _)| *name == word) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let supported: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                Err(ConfigError::at(
                    &entry.node.span,
                    ConfigErrorKind::UnknownChoice {
                        section: self.name,
                        key: key.to_owned(),
                        nearest: suggest::nearest(&word, &supported),
                        value: word,
                        supported,
                    },
                ))
            }
        }
    }

    /// A table of pattern to value, in the order of the text.
    pub(super) fn patterns<T>(
        &self,
        key: &str,
        value: impl Fn(&Self, &str, &Node) -> Result<T, ConfigError>,
    ) -> Result<Vec<(String, T)>, ConfigError> {
        let Some(Entry { node, .. }) = self.find(key) else {
            return Ok(Vec::new());
        };
        let Value::Table(entries) = &node.value else {
            return Err(self.wrong_type(key, node, "a table of module pattern = value"));
        };
        entries
            .iter()
            .map(|entry| {
                self.pattern(key, &entry.key, &entry.key_span)?;
                let path = format!("{key}.{}", entry.key);
                Ok((entry.key.clone(), value(self, &path, &entry.node)?))
            })
            .collect()
    }

    /// Checks that `pattern` is a regular expression.
    pub(super) fn pattern(&self, key: &str, pattern: &str, at: &Span) -> Result<(), ConfigError> {
        match regex::Regex::new(&format!("^(?:{pattern})$")) {
            Ok(_) => Ok(()),
            Err(error) => Err(ConfigError::at(
                at,
                ConfigErrorKind::Pattern {
                    section: self.name.to_owned(),
                    key: key.to_owned(),
                    pattern: pattern.to_owned(),
                    message: last_line(&error.to_string()),
                },
            )),
        }
    }
}

/// The parser of regular expressions draws a picture; its last line says what is wrong.
fn last_line(message: &str) -> String {
    let line = message.lines().last().unwrap_or(message);
    line.trim_start_matches("error: ").to_owned()
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
