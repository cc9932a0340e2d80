//! Settings, stated once: what a method, a transform or a section of a run file can be told.
//!
//! A list of [`SettingSpec`] gives each setting its key, what its value may be, its default and its meaning.
//! From such lists the run file is read and its errors are written, tables of the documentation are
//! made, and tests draw random values ([`SettingKind::sample`]). What was given is a [`Chosen`]: a
//! kind by name with its settings. [`Settings`] checks it against the list, fills in the defaults, and
//! hands out typed values:
//!
//! ```
//! use reparam::schema::{Chosen, Range, SettingSpec, SettingValue, Settings, number, size};
//!
//! static SPECS: [SettingSpec; 2] = [
//!     size("rank", 16, "rows of A and columns of B"),
//!     number("alpha", Range::Positive, 32.0, "numerator of the scaling"),
//! ];
//! let chosen = Chosen::new("low_rank").with("rank", SettingValue::Count(8));
//! let settings = Settings::new(&chosen.kind, &SPECS, &chosen.settings)?;
//! assert_eq!((settings.size("rank")?, settings.number("alpha")?), (8, 32.0));
//!
//! let wrong = chosen.with("alpha", SettingValue::Number(-1.0));
//! let error = Settings::new(&wrong.kind, &SPECS, &wrong.settings).unwrap_err();
//! assert_eq!(error.to_string(), "`alpha` must be a finite number greater than 0, got -1");
//! # Ok::<(), reparam::schema::SchemaError>(())
//! ```
//!
//! This module knows neither methods nor transforms.

mod error;
mod range;
mod sample;
mod settings;
#[cfg(test)]
mod tests;
mod value;

pub use error::SchemaError;

pub use range::{Range, at_least_one, whole_name};
pub use reparam_formats::peft::TargetModules;
pub use sample::draws;
pub use settings::Settings;
pub use value::{Chosen, SettingValue};

/// The largest rank, width or batch. More is almost certainly a typo, and would
/// run out of memory.
pub const MOST: u64 = 65_536;

/// A setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SettingSpec {
    /// The key in a run file.
    pub key: &'static str,
    /// What its value may be.
    pub kind: SettingKind,
    /// What it is where nothing is said.
    pub fallback: Fallback,
    /// What it says, in a line.
    pub meaning: &'static str,
}

/// What the value of a setting may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SettingKind {
    /// A number.
    Number(Range),
    /// One of a few words, or a number.
    WordOrNumber(&'static [&'static str], Range),
    /// A whole number.
    Count {
        /// The least one.
        least: u64,
        /// The largest one.
        most: u64,
    },
    /// True or false.
    Flag,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// Text that is not empty, such as a path.
    Text,
    /// A regular expression for whole names.
    Pattern,
    /// At least one number, in a list.
    Numbers(Range),
    /// A whole number, or at least one in a list.
    Counts {
        /// What one of them is called.
        noun: &'static str,
        /// The least one.
        least: u64,
        /// The largest one.
        most: u64,
    },
    /// A text, or at least one in a list.
    Texts,
    /// A table from names to texts that are not empty; also one text, as in `name=text,other=text`.
    TextByName,
    /// Modules: a list of names, a regular expression for whole names, or the word `all-linear`.
    Modules {
        /// Whether `all-linear` is allowed.
        all_linear: bool,
    },
    /// A table from patterns of module names to whole numbers, in its order.
    CountByPattern {
        /// The least one.
        least: u64,
        /// The largest one.
        most: u64,
    },
    /// A table from patterns of module names to numbers, in its order.
    NumberByPattern(Range),
    /// One of a few words, or a table from names to numbers.
    WordOrNumberByName(&'static [&'static str], Range),
    /// A table with settings of its own.
    Table(&'static [SettingSpec]),
    /// A table of keys that another program has: flags, numbers, texts, and lists of numbers or texts.
    Keys,
    /// A list of kinds of a catalog, each with its settings, in its order.
    Chain,
}

/// The value of a setting that is not given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fallback {
    /// There is none: it has to be given, as in this example of a value.
    Required(&'static str),
    /// None; what happens then, in a few words, which may be none.
    Absent(&'static str),
    /// A number.
    Number(f64),
    /// A whole number.
    Count(u64),
    /// A flag.
    Flag(bool),
    /// A word, a pattern, or the word for all modules.
    Word(&'static str),
    /// Numbers.
    Numbers(&'static [f64]),
    /// Whole numbers.
    Counts(&'static [u64]),
    /// Twice the value of a whole number that comes before it in the list.
    Twice(&'static str),
}

impl SettingSpec {
    /// Returns a setting of its parts.
    pub const fn new(
        key: &'static str,
        kind: SettingKind,
        fallback: Fallback,
        meaning: &'static str,
    ) -> Self {
        Self {
            key,
            kind,
            fallback,
            meaning,
        }
    }

    /// Returns the value of the setting where none is given, if there is one; `earlier` are the values of the settings before it.
    #[expect(clippy::cast_precision_loss, reason = "a setting has few digits")]
    pub fn default_value(&self, earlier: &[(String, SettingValue)]) -> Option<SettingValue> {
        Some(match self.fallback {
            Fallback::Required(_) | Fallback::Absent(_) => return None,
            Fallback::Number(number) => SettingValue::Number(number),
            Fallback::Count(count) => SettingValue::Count(count),
            Fallback::Flag(flag) => SettingValue::Flag(flag),
            Fallback::Word(_) if matches!(self.kind, SettingKind::Modules { .. }) => {
                SettingValue::Modules(TargetModules::AllLinear)
            }
            Fallback::Word(word) => SettingValue::Word(word.to_owned()),
            Fallback::Numbers(numbers) => SettingValue::Numbers(numbers.to_vec()),
            Fallback::Counts(counts) => SettingValue::Counts(counts.to_vec()),
            Fallback::Twice(other) => match earlier.iter().find(|(key, _)| key == other)? {
                (_, SettingValue::Count(count)) => SettingValue::Number(2.0 * *count as f64),
                _ => return None,
            },
        })
    }
}

/// Returns the setting of a key.
pub fn find(specs: &'static [SettingSpec], key: &str) -> Option<&'static SettingSpec> {
    specs.iter().find(|spec| spec.key == key)
}

/// A number with a default.
pub const fn number(
    key: &'static str,
    range: Range,
    default: f64,
    meaning: &'static str,
) -> SettingSpec {
    SettingSpec::new(
        key,
        SettingKind::Number(range),
        Fallback::Number(default),
        meaning,
    )
}

/// A whole number of at least 1 with a default.
pub const fn count(key: &'static str, default: u64, meaning: &'static str) -> SettingSpec {
    SettingSpec::new(key, SettingKind::COUNT, Fallback::Count(default), meaning)
}

/// A whole number from 1 to [`MOST`] with a default: how much there is at once.
pub const fn size(key: &'static str, default: u64, meaning: &'static str) -> SettingSpec {
    SettingSpec::new(key, SettingKind::SIZE, Fallback::Count(default), meaning)
}

/// A flag with a default.
pub const fn flag(key: &'static str, default: bool, meaning: &'static str) -> SettingSpec {
    SettingSpec::new(key, SettingKind::Flag, Fallback::Flag(default), meaning)
}

/// One of a few words, with a default.
pub const fn word(
    key: &'static str,
    words: &'static [&'static str],
    default: &'static str,
    meaning: &'static str,
) -> SettingSpec {
    SettingSpec::new(
        key,
        SettingKind::Word(words),
        Fallback::Word(default),
        meaning,
    )
}

/// A setting that has to be given, with an example of a value.
pub const fn required(
    key: &'static str,
    kind: SettingKind,
    example: &'static str,
    meaning: &'static str,
) -> SettingSpec {
    SettingSpec::new(key, kind, Fallback::Required(example), meaning)
}

/// A setting that may be left out, with what happens then.
pub const fn optional(
    key: &'static str,
    kind: SettingKind,
    otherwise: &'static str,
    meaning: &'static str,
) -> SettingSpec {
    SettingSpec::new(key, kind, Fallback::Absent(otherwise), meaning)
}
