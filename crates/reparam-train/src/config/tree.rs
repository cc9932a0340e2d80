//! The run file as a tree in which every key and value knows where it was written.

use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::Result;
use super::error::{ConfigError, ConfigErrorKind};
use super::source::{Source, Span};

/// A value and the place it was written.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) span: Span,
}

/// A TOML value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    String(String),
    /// `None` if the number does not even fit 128 bits.
    Integer(Option<i128>),
    Float(f64),
    Boolean(bool),
    Datetime,
    Array(Vec<Node>),
    /// In the order of the text.
    Table(Vec<Entry>),
}

/// A key of a table with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) node: Node,
}

impl Value {
    /// The TOML type, with its article.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "the string",
            Self::Integer(_) => "the integer",
            Self::Float(_) => "the float",
            Self::Boolean(_) => "the boolean",
            Self::Datetime => "the date",
            Self::Array(_) => "the list",
            Self::Table(_) => "the table",
        }
    }
}

/// Parses a whole document into the entries of its root table.
pub(super) fn parse_document(source: &Arc<Source>) -> Result<Vec<Entry>> {
    let table = DeTable::parse(&source.text).map_err(|error| syntax_error(source, 0, &error))?;
    Ok(entries(source, 0, table.get_ref()))
}

/// Turns a parser's error into ours; `offset` is where the parsed text starts in the source.
fn syntax_error(source: &Arc<Source>, offset: usize, error: &toml::de::Error) -> ConfigError {
    let kind = ConfigErrorKind::Syntax {
        message: error.message().to_owned(),
    };
    match error.span() {
        Some(range) => ConfigError::at(&span(source, offset, range), kind),
        None => ConfigError::nowhere(kind),
    }
}

fn span(source: &Arc<Source>, offset: usize, range: std::ops::Range<usize>) -> Span {
    Span {
        source: Arc::clone(source),
        range: range.start + offset..range.end + offset,
    }
}

fn entries(source: &Arc<Source>, offset: usize, table: &DeTable<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_span: span(source, offset, key.span()),
            node: node(source, offset, value),
        })
        .collect();
    // The parser sorts keys by name. The first matching pattern of `rank_pattern` wins, so the
    // order of the text is part of its meaning.
    entries.sort_by_key(|entry| entry.key_span.range.start);
    entries
}

fn node(source: &Arc<Source>, offset: usize, value: &toml::Spanned<DeValue<'_>>) -> Node {
    let span = span(source, offset, value.span());
    let value = match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(integer) => {
            Value::Integer(i128::from_str_radix(integer.as_str(), integer.radix()).ok())
        }
        // The parser has checked the form, and Rust reads every TOML float.
        DeValue::Float(float) => Value::Float(float.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(array) => Value::Array(
            array
                .iter()
                .map(|item| node(source, offset, item))
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(entries(source, offset, table)),
    };
    Node { value, span }
}

/// One value given on the command line, which replaces the file's.
///
/// Precedence is: defaults, then the file, then overrides in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    flag: &'static str,
    given: Given,
}

/// What an override gives.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Given {
    /// `section.key=value`, whose value is read as TOML.
    Assignment(String),
    /// A section and a key with what a flag of their own says, taken as it is; several values are a list.
    Literal([&'static str; 2], Vec<String>),
}

impl Override {
    /// An override as `--set` takes it: `section.key=value`.
    ///
    /// The value is read as a TOML value (`50`, `1e-4`, `true`, `["a", "b"]`, `"text"`); what is
    /// not one is taken as a string, so that paths and words need no quotes.
    #[must_use]
    pub fn set(text: impl Into<String>) -> Self {
        Self {
            flag: "--set",
            given: Given::Assignment(text.into()),
        }
    }

    /// One value of a key that a study varies, read as [`set`](Self::set) reads it.
    #[must_use]
    pub fn vary(text: impl Into<String>) -> Self {
        Self {
            flag: "--vary",
            ..Self::set(text)
        }
    }

    /// The value of a section's key as a flag of its own gives it, taken literally.
    #[must_use]
    pub fn flag(flag: &'static str, section_key: [&'static str; 2], value: &str) -> Self {
        Self::files(flag, section_key, &[value.to_owned()])
    }

    /// [`flag`](Self::flag) with several values, which are a list.
    #[must_use]
    pub fn files(flag: &'static str, section_key: [&'static str; 2], values: &[String]) -> Self {
        Self {
            flag,
            given: Given::Literal(section_key, values.to_vec()),
        }
    }

    /// The output directory as `--output` gives it.
    #[must_use]
    pub fn output(directory: &str) -> Self {
        Self::flag("--output", ["output", "dir"], directory)
    }

    /// The path of keys, with the value at its end as a tree of one branch.
    pub(super) fn parse(&self) -> Result<Entry> {
        match &self.given {
            Given::Assignment(text) => self.assignment(text),
            Given::Literal(keys, values) => Ok(self.literal(*keys, values)),
        }
    }

    fn source(&self, text: String) -> Arc<Source> {
        Arc::new(Source {
            name: self.flag.to_owned(),
            text,
            is_file: false,
        })
    }

    fn literal(&self, [section, key]: [&'static str; 2], values: &[String]) -> Entry {
        let source = self.source(values.join(" "));
        let whole = span(&source, 0, 0..source.text.len());
        let mut start = 0;
        let mut texts: Vec<Node> = Vec::new();
        for value in values {
            texts.push(Node {
                value: Value::String(value.clone()),
                span: span(&source, start, 0..value.len()),
            });
            start += value.len() + 1;
        }
        let node = match texts.pop() {
            Some(one) if texts.is_empty() => one,
            last => Node {
                value: Value::Array(texts.into_iter().chain(last).collect()),
                span: whole.clone(),
            },
        };
        let entry = |key: &str, node| Entry {
            key: key.to_owned(),
            key_span: whole.clone(),
            node,
        };
        let inside = Value::Table(vec![entry(key, node)]);
        // What has no text is no table written as a value.
        let nowhere = span(&source, 0, 0..0);
        entry(
            section,
            Node {
                value: inside,
                span: nowhere,
            },
        )
    }

    fn assignment(&self, text: &str) -> Result<Entry> {
        let source = self.source(text.to_owned());
        let problem = |problem| {
            ConfigError::nowhere(ConfigErrorKind::Override {
                text: text.to_owned(),
                problem,
            })
        };
        let equals = find_equals(text).ok_or_else(|| problem("has no `=`"))?;
        let key = &text[..equals];
        if key.contains(['\n', '#']) && !key.contains(['"', '\'']) {
            return Err(problem("has an invalid key"));
        }
        // The parser knows how to split a dotted key with quoted parts.
        let assignment = format!("{key}=0");
        let table =
            DeTable::parse(&assignment).map_err(|_| problem("does not start with a valid key"))?;
        let mut branch = entries(&source, 0, table.get_ref());
        let mut entry = match branch.pop() {
            Some(entry) if branch.is_empty() => entry,
            _ => return Err(problem("does not start with a valid key")),
        };
        set_leaf(&mut entry.node, assigned(&source, equals + 1)?);
        Ok(entry)
    }
}

/// The value of an assignment, which starts at byte `start` of the text.
fn assigned(source: &Arc<Source>, start: usize) -> Result<Node> {
    let raw = &source.text[start..];
    let trimmed = raw.trim();
    let offset = start + (raw.len() - raw.trim_start().len());
    match DeValue::parse(trimmed) {
        Ok(value) => Ok(node(source, offset, &value)),
        // What opens like a list, a table or a string is meant as one.
        Err(error) if trimmed.starts_with(['[', '{', '"', '\'']) => {
            Err(syntax_error(source, offset, &error))
        }
        Err(_) => Ok(Node {
            value: Value::String(trimmed.to_owned()),
            span: span(source, start, 0..raw.len()),
        }),
    }
}

/// Puts `value` at the end of a branch that has one entry at every level.
fn set_leaf(node: &mut Node, value: Node) {
    match &mut node.value {
        Value::Table(entries) if !entries.is_empty() => set_leaf(&mut entries[0].node, value),
        _ => *node = value,
    }
}

/// The first `=` that is not inside quotes.
fn find_equals(text: &str) -> Option<usize> {
    let mut quote = None;
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (None, '=') => return Some(index),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
    }
    None
}

/// Keys of which a section can hold one: setting one on the command line removes the other that
/// the file has, so that `--set train.max_steps=50` works on every run file.
const EXCLUSIVE: [(&str, &str, &str); 8] = [
    ("train", "max_steps", "epochs"),
    ("train", "epochs", "max_steps"),
    ("optimizer", "warmup_steps", "warmup_ratio"),
    ("optimizer", "warmup_ratio", "warmup_steps"),
    ("data", "eval", "eval_fraction"),
    ("data", "eval", "eval_max"),
    ("data", "eval_fraction", "eval"),
    ("data", "train", "generate"),
];

/// Puts an override into the tree: tables on the way are entered or created, the value replaced.
pub(super) fn merge(root: &mut Vec<Entry>, entry: Entry) {
    if let Value::Table(entries) = &entry.node.value
        && let Some(key) = entries.first().map(|entry| entry.key.as_str())
        && let Some(existing) = root.iter_mut().find(|section| section.key == entry.key)
        && let Value::Table(existing) = &mut existing.node.value
    {
        let is_rival = |other: &str| EXCLUSIVE.contains(&(&*entry.key, key, other));
        existing.retain(|entry| !is_rival(&entry.key) || !entry.key_span.source.is_file);
    }
    merge_entry(root, entry);
}

fn merge_entry(entries: &mut Vec<Entry>, new: Entry) {
    let Some(old) = entries.iter_mut().find(|old| old.key == new.key) else {
        entries.push(new);
        return;
    };
    match (&mut old.node.value, new.node.value) {
        // A table written as a value, `--set method={...}`, replaces; a dotted key goes inside.
        (Value::Table(inside), Value::Table(added)) if is_dotted(&new.node.span) => {
            for entry in added {
                merge_entry(inside, entry);
            }
        }
        (_, value) => {
            *old = Entry {
                key: new.key,
                key_span: new.key_span,
                node: Node {
                    value,
                    span: new.node.span,
                },
            };
        }
    }
}

/// Whether a table comes from a dotted key; one written as a value starts with a brace.
fn is_dotted(span: &Span) -> bool {
    !span.text().starts_with('{')
}
