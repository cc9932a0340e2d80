//! What a model is measured by.

use serde::Serialize;
use serde_json::{Map, Value};

/// Measures of a model by name, one of which decides.
///
/// ```
/// use reparam_train::Metrics;
///
/// let metrics = Metrics::lower_is_better("loss", 2.0).with("tokens", 600_u64);
/// assert_eq!(metrics.primary(), 2.0);
/// assert_eq!(serde_json::to_string(&metrics)?, r#"{"loss":2.0,"tokens":600}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// As JSON it is one object of the measures, in order; a number that is not finite is `null`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Metrics {
    values: Map<String, Value>,
    #[serde(skip)]
    name: String,
    #[serde(skip)]
    primary: f64,
    #[serde(skip)]
    lower_is_better: bool,
}

impl Metrics {
    /// Starts with the measure that decides, of which less is better.
    #[must_use]
    pub fn lower_is_better(name: &str, value: f64) -> Self {
        Self {
            values: Map::from_iter([(name.to_owned(), value.into())]),
            name: name.to_owned(),
            primary: value,
            lower_is_better: true,
        }
    }

    /// Starts with the measure that decides, of which more is better.
    #[must_use]
    pub fn higher_is_better(name: &str, value: f64) -> Self {
        Self {
            lower_is_better: false,
            ..Self::lower_is_better(name, value)
        }
    }

    /// Adds a measure; one that has no value, such as R2 of a constant, is `None::<f64>`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }

    /// Returns the measure that decides.
    #[must_use]
    pub fn primary(&self) -> f64 {
        self.primary
    }

    /// Returns the name of the measure that decides.
    #[must_use]
    pub fn primary_name(&self) -> &str {
        &self.name
    }

    /// Returns whether less of the deciding measure is better.
    #[must_use]
    pub fn is_lower_better(&self) -> bool {
        self.lower_is_better
    }

    /// Returns whether the measure that decides is better than another value of it.
    #[must_use]
    pub fn is_better_than(&self, other: f64) -> bool {
        is_better(self.primary, other, self.lower_is_better)
    }

    /// Returns the measures by name, in order.
    #[must_use]
    pub fn values(&self) -> &Map<String, Value> {
        &self.values
    }

    /// Returns a measure, if it is there and a number.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name)?.as_f64()
    }
}

/// Whether a value of a measure is better than another, of which less or more is better.
pub(crate) fn is_better(value: f64, than: f64, lower_is_better: bool) -> bool {
    match lower_is_better {
        true => value < than,
        false => value > than,
    }
}
