//! What a model is measured by.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Result, TrainError};

/// The measures of which less is better, whichever task has them; of every other more is.
const LOWER_IS_BETTER: [&str; 5] = ["loss", "perplexity", "mse", "rmse", "mae"];

/// What stands beside the measures: no model is better for more of it.
const COUNTS: [&str; 8] = [
    "tokens",
    "examples",
    "truncated",
    "skipped",
    "seed",
    "shots",
    "pairs",
    "missing",
];

/// Whether a name is that of a measure, and not of a count beside it.
pub(crate) fn is_measured(name: &str) -> bool {
    !COUNTS.contains(&name)
}

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

    /// Lets another of the measures decide.
    ///
    /// # Errors
    ///
    /// [`TrainError::UnknownMetric`] if it is none of them, and [`TrainError::MetricWithoutValue`] if it has no finite value.
    pub fn decided_by(self, name: &str) -> Result<Self> {
        let lower_is_better = match name == self.name {
            true => self.lower_is_better,
            false => LOWER_IS_BETTER.contains(&name),
        };
        let Some(value) = self.values.get(name).filter(|_| is_measured(name)) else {
            let known = self.values.keys().filter(|name| is_measured(name));
            return Err(TrainError::UnknownMetric {
                metric: name.to_owned(),
                known: known.cloned().collect(),
            });
        };
        let primary = value
            .as_f64()
            .ok_or_else(|| TrainError::MetricWithoutValue {
                metric: name.to_owned(),
            })?;
        Ok(Self {
            name: name.to_owned(),
            primary,
            lower_is_better,
            values: self.values,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::lower_is_better("loss", 2.0)
            .with("f1", 0.5)
            .with("rmse", 3.0)
            .with("r2", None::<f64>)
            .with("tokens", 600_u64)
    }

    #[test]
    fn another_measure_decides_in_its_own_direction() {
        let f1 = metrics().decided_by("f1").expect("a measure");
        assert_eq!((f1.primary_name(), f1.primary()), ("f1", 0.5));
        assert!(f1.is_better_than(0.4) && !f1.is_better_than(0.6));
        let rmse = metrics().decided_by("rmse").expect("a measure");
        assert!(rmse.is_lower_better() && rmse.is_better_than(4.0));
        assert_eq!(f1.values(), metrics().values());
        // What a task says of its own measure stays.
        let own = Metrics::lower_is_better("distance", 1.0).decided_by("distance");
        assert!(own.expect("its own").is_lower_better());
    }

    #[test]
    fn what_is_not_measured_cannot_decide() {
        let error = metrics().decided_by("tokens").expect_err("a count");
        let TrainError::UnknownMetric { metric, known } = &error else {
            panic!("{error}");
        };
        assert_eq!(
            (&**metric, &known[..]),
            (
                "tokens",
                &["loss", "f1", "rmse", "r2"].map(String::from)[..]
            )
        );
        let error = metrics().decided_by("r2").expect_err("no value");
        assert!(
            matches!(error, TrainError::MetricWithoutValue { .. }),
            "{error}"
        );
    }
}
