//! Which modules of a model an adapter applies to, by PEFT's rules.

use fancy_regex::Regex;
use serde_json::{Value, json};

use super::{LoraAdapterConfig, PeftError};
use crate::nearest;

/// The values that `target_modules` and `exclude_modules` can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetModules {
    /// `"all-linear"`: every linear module but the output head. Which modules those are the model
    /// knows; here it matches all that are asked about.
    AllLinear,
    /// A regular expression that has to match a module's whole path.
    Pattern(String),
    /// Names; each has to be a module's whole path, or its end after a dot.
    Names(Vec<String>),
}

impl TargetModules {
    /// Reads the JSON value; `None` if it has the wrong type.
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) if text.to_lowercase() == "all-linear" => Some(Self::AllLinear),
            Value::String(text) => Some(Self::Pattern(text.clone())),
            Value::Array(items) => {
                let names = items.iter().map(|item| item.as_str().map(str::to_owned));
                names.collect::<Option<_>>().map(Self::Names)
            }
            _ => None,
        }
    }

    /// Returns the JSON value.
    pub fn to_value(&self) -> Value {
        match self {
            Self::AllLinear => json!("all-linear"),
            Self::Pattern(pattern) => json!(pattern),
            Self::Names(names) => json!(names),
        }
    }

    /// Returns whether it is an empty list or an empty string, which PEFT takes as not given.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::AllLinear => false,
            Self::Pattern(pattern) => pattern.is_empty(),
            Self::Names(names) => names.is_empty(),
        }
    }
}

/// Returns whether a module is one of those that are named by a part of their paths, as `modules_to_save` names them, or inside of
/// one: `classifier` is `model.classifier`, and `model.classifier.dense` is inside of it.
pub fn is_inside(module: &str, names: &[impl AsRef<str>]) -> bool {
    let path = format!(".{module}.");
    let mut names = names.iter();
    names.any(|name| path.contains(&format!(".{}.", name.as_ref())))
}

/// Returns whether `target` alone matches the module at `path`.
///
/// # Errors
///
/// [`PeftError::InvalidPattern`] for a string that is not a regular expression.
pub fn target_matches(target: &TargetModules, path: &str) -> Result<bool, PeftError> {
    Compiled::new("target_modules", target)?.matches(path)
}

/// Returns whether a name of a list matches the module at `path`.
fn name_matches(name: &str, path: &str) -> bool {
    path.strip_suffix(name)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Compiles a regular expression that may be preceded and followed by other parts.
///
/// Patterns come from Python, where look-around is common (`^(?!.*vision)`), so the engine has to
/// know it.
pub(super) fn compile(
    option: &'static str,
    pattern: &str,
    before: &str,
    after: &str,
) -> Result<Regex, PeftError> {
    Regex::new(&format!("{before}(?:{pattern}){after}"))
        .map_err(|error| invalid(option, pattern, &error))
}

pub(super) fn invalid(
    option: &'static str,
    pattern: &str,
    error: &fancy_regex::Error,
) -> PeftError {
    PeftError::InvalidPattern {
        option,
        pattern: pattern.to_owned(),
        detail: error.to_string(),
    }
}

/// A value of `target_modules` or `exclude_modules`, with its pattern compiled.
#[derive(Debug, Clone)]
enum Compiled {
    All,
    Pattern {
        option: &'static str,
        text: String,
        regex: Regex,
    },
    Names(Vec<String>),
}

impl Compiled {
    fn new(option: &'static str, target: &TargetModules) -> Result<Self, PeftError> {
        Ok(match target {
            TargetModules::AllLinear => Self::All,
            TargetModules::Pattern(text) => {
                let regex = compile(option, text, r"\A", r"\z")?;
                Self::Pattern {
                    option,
                    text: text.clone(),
                    regex,
                }
            }
            TargetModules::Names(names) => Self::Names(names.clone()),
        })
    }

    fn matches(&self, path: &str) -> Result<bool, PeftError> {
        match self {
            Self::All => Ok(true),
            Self::Pattern {
                option,
                text,
                regex,
            } => regex
                .is_match(path)
                .map_err(|error| invalid(option, text, &error)),
            Self::Names(names) => Ok(names.iter().any(|name| name_matches(name, path))),
        }
    }

    /// Returns what can match or not by itself: each name of a list, or the pattern.
    fn entries(&self) -> Vec<&str> {
        match self {
            Self::All => vec!["all-linear"],
            Self::Pattern { text, .. } => vec![text],
            Self::Names(names) => names.iter().map(String::as_str).collect(),
        }
    }

    fn entry_matches(&self, entry: &str, path: &str) -> Result<bool, PeftError> {
        match self {
            Self::Names(_) => Ok(name_matches(entry, path)),
            _ => self.matches(path),
        }
    }
}

/// Decides which modules of a model an adapter applies to.
#[derive(Debug, Clone)]
pub struct ModuleMatcher {
    target: Compiled,
    exclude: Option<Compiled>,
    /// The indices of `layers_to_transform`; empty for all layers.
    layers: Vec<usize>,
    /// How a layer's index is found in a path: the text before it, which ends with a dot.
    layer_patterns: Vec<(String, Regex)>,
}

impl ModuleMatcher {
    /// Prepares the rules of a configuration.
    ///
    /// # Errors
    ///
    /// [`PeftError::InvalidPattern`]; [`PeftError::Contradiction`] if `target_modules` is not given.
    pub fn new(config: &LoraAdapterConfig) -> Result<Self, PeftError> {
        let Some(target) = &config.target_modules else {
            return Err(PeftError::Contradiction {
                reason: "target_modules is not given",
            });
        };
        let exclude = match &config.exclude_modules {
            Some(exclude) if !exclude.is_empty() => {
                Some(Compiled::new("exclude_modules", exclude)?)
            }
            _ => None,
        };
        let layer_patterns = if config.layers_pattern.is_empty() {
            // Any name followed by a number; the first number in the path counts, so that the
            // experts inside of a layer are not taken for layers.
            let regex = compile(
                "layers_pattern",
                r".*?\.[^.]*\.",
                r"\A",
                r"(?P<index>\d+)\.",
            )?;
            vec![(String::new(), regex)]
        } else {
            let compiled = config.layers_pattern.iter().map(|pattern| {
                let before = r"\A(?:|.*?\.)";
                let regex = compile("layers_pattern", pattern, before, r"\.(?P<index>\d+)\.")?;
                Ok((pattern.clone(), regex))
            });
            compiled.collect::<Result<_, PeftError>>()?
        };
        Ok(Self {
            target: Compiled::new("target_modules", target)?,
            exclude,
            layers: config
                .layers_to_transform
                .as_ref()
                .map(|layers| layers.as_slice().to_vec())
                .unwrap_or_default(),
            layer_patterns,
        })
    }

    /// Returns whether the adapter applies to the module at `path`.
    ///
    /// # Errors
    ///
    /// [`PeftError::InvalidPattern`] if a pattern takes too long on this path.
    pub fn matches(&self, path: &str) -> Result<bool, PeftError> {
        if let Some(exclude) = &self.exclude
            && exclude.matches(path)?
        {
            return Ok(false);
        }
        Ok(self.target.matches(path)? && self.layer_is_chosen(path)?)
    }

    fn layer_is_chosen(&self, path: &str) -> Result<bool, PeftError> {
        // A module that is listed by its whole path is adapted whatever its layer is.
        let is_listed =
            matches!(&self.target, Compiled::Names(names) if names.iter().any(|name| name == path));
        if self.layers.is_empty() || is_listed {
            return Ok(true);
        }
        Ok(self
            .layer_of(path)?
            .is_some_and(|layer| self.layers.contains(&layer)))
    }

    fn layer_of(&self, path: &str) -> Result<Option<usize>, PeftError> {
        for (pattern, regex) in &self.layer_patterns {
            let captures = regex
                .captures(path)
                .map_err(|error| invalid("layers_pattern", pattern, &error))?;
            if let Some(index) = captures
                .as_ref()
                .and_then(|captures| captures.name("index"))
            {
                return Ok(index.as_str().parse().ok());
            }
        }
        Ok(None)
    }

    /// Applies the rules to all modules of a model and counts what each entry matched.
    ///
    /// For `all-linear`, `paths` has to be the linear modules without the output head; else it is
    /// every module that can be adapted.
    ///
    /// # Errors
    ///
    /// [`PeftError::InvalidPattern`] if a pattern takes too long on a path.
    pub fn report<S: AsRef<str>>(&self, paths: &[S]) -> Result<TargetReport, PeftError> {
        let paths: Vec<&str> = paths.iter().map(AsRef::as_ref).collect();
        let mut selected = Vec::new();
        let mut n_matched = 0;
        for &path in &paths {
            if self.matches(path)? {
                selected.push(path.to_owned());
            }
            n_matched += usize::from(self.target.matches(path)?);
        }
        let mut entries = count("target_modules", &self.target, &paths)?;
        if let Some(exclude) = &self.exclude {
            entries.extend(count("exclude_modules", exclude, &paths)?);
        }
        for &layer in &self.layers {
            let mut n_modules = 0;
            for path in &paths {
                let is_in_layer = self.layer_of(path)? == Some(layer);
                n_modules += usize::from(is_in_layer && self.target.matches(path)?);
            }
            let option = "layers_to_transform";
            entries.push(EntryMatches {
                option,
                entry: layer.to_string(),
                n_modules,
                nearest: None,
            });
        }
        Ok(TargetReport {
            selected,
            n_matched,
            entries,
        })
    }
}

/// Counts the modules that each entry matches by itself.
fn count(
    option: &'static str,
    compiled: &Compiled,
    paths: &[&str],
) -> Result<Vec<EntryMatches>, PeftError> {
    let mut counts = Vec::new();
    for entry in compiled.entries() {
        let mut n_modules = 0;
        for path in paths {
            n_modules += usize::from(compiled.entry_matches(entry, path)?);
        }
        let nearest = if n_modules > 0 {
            None
        } else {
            nearest_module(entry, paths)
        };
        counts.push(EntryMatches {
            option,
            entry: entry.to_owned(),
            n_modules,
            nearest,
        });
    }
    Ok(counts)
}

/// Returns what may have been meant: a name of one part is compared with the last parts of the
/// paths, a longer one with the whole paths.
pub(super) fn nearest_module(entry: &str, paths: &[&str]) -> Option<String> {
    let n_parts = entry.split('.').count();
    let candidates = paths.iter().map(|path| {
        let begin = path
            .rmatch_indices('.')
            .nth(n_parts - 1)
            .map_or(0, |(dot, _)| dot + 1);
        &path[begin..]
    });
    nearest(entry, candidates).map(str::to_owned)
}

/// What the rules of a configuration select from a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetReport {
    /// The paths of the selected modules, in the order in which they were given.
    pub selected: Vec<String>,
    /// The number of modules that `target_modules` matches, before any is taken out.
    pub n_matched: usize,
    /// What each name, pattern and layer index matched.
    pub entries: Vec<EntryMatches>,
}

/// What one entry of an option matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryMatches {
    /// The option: `target_modules`, `exclude_modules` or `layers_to_transform`.
    pub option: &'static str,
    /// The name, pattern or layer index.
    pub entry: String,
    /// The number of modules that it matches by itself.
    pub n_modules: usize,
    /// For an entry that matches nothing, the most similar name in the model.
    pub nearest: Option<String>,
}

impl TargetReport {
    /// Checks that every entry matched something and that something is selected.
    ///
    /// # Errors
    ///
    /// [`PeftError::NoMatch`] for the first entry that did not, else
    /// [`PeftError::NothingSelected`].
    pub fn require_all(&self) -> Result<(), PeftError> {
        if let Some(unmatched) = self.entries.iter().find(|entry| entry.n_modules == 0) {
            return Err(PeftError::NoMatch {
                option: unmatched.option,
                pattern: unmatched.entry.clone(),
                nearest: unmatched.nearest.clone(),
            });
        }
        if self.selected.is_empty() {
            return Err(PeftError::NothingSelected {
                n_matched: self.n_matched,
            });
        }
        Ok(())
    }
}
