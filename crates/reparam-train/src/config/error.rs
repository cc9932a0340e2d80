//! What can be wrong with a run file.

use std::fmt;
use std::path::PathBuf;

use reparam_formats::FormatError;
use reparam_formats::identify::Kind;

use super::source::{Location, Span};

/// A run file, or a command-line override of it, that cannot be used.
///
/// [`kind`](Self::kind) says what is wrong, [`location`](Self::location) where, and
/// [`hint`](Self::hint) what to do about it. `Display` puts the first two on one line.
#[derive(Debug)]
pub struct ConfigError {
    kind: Box<ConfigErrorKind>,
    location: Option<Box<Location>>,
    /// What else may be done about it.
    advice: Option<String>,
}

impl ConfigError {
    pub(super) fn at(span: &Span, kind: ConfigErrorKind) -> Self {
        Self {
            kind: Box::new(kind),
            location: Some(Box::new(span.location())),
            advice: None,
        }
    }

    pub(super) fn nowhere(kind: ConfigErrorKind) -> Self {
        Self {
            kind: Box::new(kind),
            location: None,
            advice: None,
        }
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> &ConfigErrorKind {
        &self.kind
    }

    /// Where it is wrong, if the error is about something that was written.
    #[must_use]
    pub fn location(&self) -> Option<&Location> {
        self.location.as_deref()
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hints: Vec<String> = self
            .kind
            .hint()
            .into_iter()
            .chain(self.advice.clone())
            .collect();
        (!hints.is_empty()).then(|| hints.join("; "))
    }

    /// Says what to do about it where no file is read.
    pub(crate) fn of_flags(mut self) -> Self {
        if let ConfigErrorKind::MissingKey { is_in_file, .. } = &mut *self.kind {
            *is_in_file = false;
        }
        self
    }

    /// Says what else may be done about it.
    pub(crate) fn with_advice(self, advice: String) -> Self {
        Self {
            advice: Some(advice),
            ..self
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{}: ", location.short())?;
        }
        self.kind.fmt(f)
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.kind.source()
    }
}

/// What is wrong with a run file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigErrorKind {
    /// The file cannot be read.
    #[error("cannot read the run file {}", path.display())]
    Read {
        /// The path as it was given.
        path: PathBuf,
        /// Why not.
        source: FormatError,
    },
    /// The file is not text.
    #[error("the run file {} is not UTF-8 text: byte {offset} is invalid", path.display())]
    NotUtf8 {
        /// The path as it was given.
        path: PathBuf,
        /// The first byte that is not UTF-8, counted from 0.
        offset: usize,
    },
    /// The text is not TOML.
    #[error("invalid TOML: {message}")]
    Syntax {
        /// The parser's words.
        message: String,
    },
    /// A section or a top-level key that does not exist.
    #[error("unknown {what} `{name}`")]
    UnknownSection {
        /// `section` for a table, `key` for a value outside any section.
        what: &'static str,
        /// The name as written.
        name: String,
        /// What to write instead.
        suggestion: String,
    },
    /// A key that its section does not have.
    #[error("unknown key `{key}` in [{section}]")]
    UnknownKey {
        /// The section.
        section: String,
        /// The key as written.
        key: String,
        /// What to write instead.
        suggestion: String,
    },
    /// A key that exists, but for another `kind`.
    #[error("`{key}` in [{section}] does not apply to kind `{kind}`")]
    NotApplicable {
        /// The section.
        section: String,
        /// The key as written.
        key: String,
        /// The kind that was chosen.
        kind: String,
        /// The kinds that have this key.
        belongs_to: Vec<&'static str>,
    },
    /// A key that has no default is absent.
    #[error("missing `{key}` in [{section}]")]
    MissingKey {
        /// The section.
        section: String,
        /// The key.
        key: String,
        /// A value that would do.
        example: &'static str,
        /// Whether there is a file to add it to.
        is_in_file: bool,
    },
    /// A value of the wrong TOML type.
    #[error("`{key}` in [{section}] must be {expected}, not {found} `{value}`")]
    WrongType {
        /// The section.
        section: String,
        /// The key.
        key: String,
        /// What the key takes.
        expected: &'static str,
        /// The TOML type that was found, with its article.
        found: &'static str,
        /// The value as written.
        value: String,
    },
    /// A value of the right type that is out of its range.
    #[error("`{key}` in [{section}] must be {expected}, not `{value}`")]
    OutOfRange {
        /// The section.
        section: String,
        /// The key.
        key: String,
        /// The range, in words.
        expected: String,
        /// The value as written.
        value: String,
    },
    /// A word that is none of the key's choices.
    #[error("unknown {key} `{value}` in [{section}]")]
    UnknownChoice {
        /// The section.
        section: String,
        /// The key.
        key: String,
        /// The value as written.
        value: String,
        /// The choices.
        supported: Vec<String>,
        /// The nearest choice.
        nearest: Option<String>,
        /// What to do about another program's word.
        advice: Option<String>,
    },
    /// Two keys that say the same thing in different ways.
    #[error("`{key}` and `{other}` in [{section}] exclude each other")]
    Conflict {
        /// The section.
        section: String,
        /// The one that is shown.
        key: String,
        /// The other.
        other: String,
    },
    /// A key that would change nothing.
    #[error("`{key}` in [{section}] has no effect: {reason}")]
    NoEffect {
        /// The section.
        section: String,
        /// The key.
        key: String,
        /// Why it changes nothing.
        reason: String,
        /// What to do.
        fix: String,
    },
    /// Transforms that cannot be composed.
    #[error("[optimizer]: {source}")]
    Transforms {
        /// Why not.
        source: reparam::optim::OptimError,
    },
    /// A method that cannot be made of its settings.
    #[error("[method]: {source}")]
    Method {
        /// Why not.
        source: Box<reparam::methods::MethodError>,
    },
    /// Settings that do not fit together.
    #[error("[{section}]: {source}")]
    Settings {
        /// The section.
        section: String,
        /// What is wrong with them.
        source: reparam::schema::SchemaError,
    },
    /// How data are read cannot be chosen so.
    #[error("[data]: {source}")]
    Data {
        /// What is wrong with it.
        source: reparam_data::DataError,
    },
    /// A pattern of names that is not a regular expression.
    #[error("`{pattern}` for `{key}` in [{section}] is not a regular expression: {message}")]
    Pattern {
        /// The section.
        section: String,
        /// The key.
        key: String,
        /// The pattern as written.
        pattern: String,
        /// The first problem with it.
        message: String,
    },
    /// A `--set` that is not `section.key=value`.
    #[error("the override `{text}` {problem}")]
    Override {
        /// The override as written.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A configuration that TOML cannot express, such as a path that is not UTF-8.
    #[error("the configuration cannot be written as TOML: {message}")]
    Write {
        /// The serializer's words.
        message: String,
    },
}

impl ConfigErrorKind {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Read { source, .. } => match source {
                FormatError::NoSuchFile { .. } => {
                    "check the path; it is relative to the current directory".to_owned()
                }
                FormatError::AnotherKind {
                    kind: Kind::Directory,
                    ..
                } => "give the run file itself, not its directory".to_owned(),
                source => return source.hint(),
            },
            Self::NotUtf8 { .. } => "a run file is TOML text; is this the right file?".to_owned(),
            Self::Syntax { .. } => {
                "strings need quotes, as in path = \"models/base\"; a section starts with [name]"
                    .to_owned()
            }
            Self::UnknownSection { suggestion, .. } | Self::UnknownKey { suggestion, .. } => {
                suggestion.clone()
            }
            Self::NotApplicable {
                key, belongs_to, ..
            } => format!(
                "`{key}` is a key of kind = {}; remove it",
                choices(belongs_to)
            ),
            Self::MissingKey {
                section,
                key,
                example,
                is_in_file,
            } => match is_in_file {
                true => format!("add to [{section}]: {key} = {example}"),
                false => format!("give --set {section}.{key}={example}"),
            },
            Self::WrongType { expected, .. } => {
                if *expected == "a string" {
                    "put the value in quotes".to_owned()
                } else {
                    return None;
                }
            }
            Self::UnknownChoice {
                supported,
                nearest,
                advice,
                ..
            } => {
                let supported: Vec<&str> = supported.iter().map(String::as_str).collect();
                let list = quoted_list(&supported);
                match (advice, nearest) {
                    (Some(advice), _) => advice.clone(),
                    (None, Some(nearest)) => format!("did you mean `{nearest}`? supported: {list}"),
                    (None, None) => format!("supported: {list}"),
                }
            }
            Self::Conflict { key, other, .. } => format!("keep `{key}` or `{other}`, not both"),
            Self::NoEffect { fix, .. } => fix.clone(),
            Self::Transforms { source } => return source.hint(),
            Self::Method { source } => return source.hint(),
            Self::Settings { source, .. } => return source.hint(),
            Self::Data { source } => return source.hint(),
            Self::Pattern { .. } => {
                "a pattern is matched against the whole module name, as in '.*\\.(q_proj|v_proj)'"
                    .to_owned()
            }
            Self::Override { .. } => {
                "use --set section.key=value, as in --set train.max_steps=50".to_owned()
            }
            Self::OutOfRange { .. } | Self::Write { .. } => return None,
        })
    }
}

/// `` `a`, `b`, `c` ``.
pub(super) fn quoted_list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// `"a"`, `"a" or "b"`, `"a", "b" or "c"`.
fn choices(names: &[&str]) -> String {
    let mut quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    match quoted.pop() {
        Some(last) if !quoted.is_empty() => format!("{} or {last}", quoted.join(", ")),
        last => last.unwrap_or_default(),
    }
}
