//! Ranges of numbers, and the checks of settings that everything shares.

use regex::Regex;

use super::SchemaError;

/// The range of a finite number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Any.
    Finite,
    /// Greater than 0.
    Positive,
    /// Greater than 0 and fit to multiply `f32`s with: from [`f32::MIN_POSITIVE`] to [`f32::MAX`]. A smaller one makes zeros of
    /// them, a larger one infinities.
    Factor,
    /// At least 0.
    NonNegative,
    /// Less than 0.
    Negative,
    /// At least 0 and less than 1.
    BelowOne,
    /// Greater than 0 and less than 1.
    InsideUnit,
    /// Greater than 0 and at most 1.
    UpToOne,
    /// From 0 to 1, with both.
    Unit,
}

impl Range {
    /// Every range.
    pub const ALL: [Self; 9] = [
        Self::Finite,
        Self::Positive,
        Self::Factor,
        Self::NonNegative,
        Self::Negative,
        Self::BelowOne,
        Self::InsideUnit,
        Self::UpToOne,
        Self::Unit,
    ];

    /// Returns whether a number is finite and in the range.
    pub fn contains(self, x: f64) -> bool {
        x.is_finite()
            && match self {
                Self::Finite => true,
                Self::Positive => x > 0.0,
                Self::Factor => (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&x),
                Self::NonNegative => x >= 0.0,
                Self::Negative => x < 0.0,
                Self::BelowOne => (0.0..1.0).contains(&x),
                Self::InsideUnit => x > 0.0 && x < 1.0,
                Self::UpToOne => x > 0.0 && x <= 1.0,
                Self::Unit => (0.0..=1.0).contains(&x),
            }
    }

    /// Says what is in the range, as the end of "must be".
    pub fn describe(self) -> &'static str {
        match self {
            Self::Finite => "a finite number",
            Self::Positive => "a finite number greater than 0",
            Self::Factor => "a number from 1.2e-38 to 3.4e38 (the range of f32)",
            Self::NonNegative => "a finite number of at least 0",
            Self::Negative => "a finite number less than 0",
            Self::BelowOne => "at least 0 and less than 1",
            Self::InsideUnit => "greater than 0 and less than 1",
            Self::UpToOne => "greater than 0 and at most 1",
            Self::Unit => "between 0 and 1",
        }
    }

    /// Returns a setting's value if it is in the range.
    ///
    /// # Errors
    ///
    /// [`SchemaError::Value`] otherwise.
    pub fn check(self, setting: &str, value: f64) -> Result<f64, SchemaError> {
        if self.contains(value) {
            return Ok(value);
        }
        Err(SchemaError::Value {
            setting: setting.to_owned(),
            expected: self.describe().to_owned(),
            found: value.to_string(),
        })
    }
}

/// Returns a whole number if it is at least 1.
///
/// # Errors
///
/// [`SchemaError::Value`] otherwise.
pub fn at_least_one(setting: &str, value: u64) -> Result<u64, SchemaError> {
    if value > 0 {
        return Ok(value);
    }
    Err(SchemaError::Value {
        setting: setting.to_owned(),
        expected: "at least 1".to_owned(),
        found: "0".to_owned(),
    })
}

/// Reads a regular expression for whole names.
///
/// # Errors
///
/// [`SchemaError::Pattern`] if it is none.
pub fn whole_name(setting: &str, pattern: &str) -> Result<Regex, SchemaError> {
    Regex::new(&format!("^(?:{pattern})$")).map_err(|error| {
        let message = error.to_string();
        // The parser of regular expressions draws a picture; its last line says what is wrong.
        let last = message.lines().last().unwrap_or(&message).trim();
        SchemaError::Pattern {
            setting: setting.to_owned(),
            pattern: pattern.to_owned(),
            message: last.trim_start_matches("error: ").to_owned(),
        }
    })
}
