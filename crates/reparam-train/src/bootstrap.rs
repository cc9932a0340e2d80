//! How far metrics are to be trusted: percentile intervals of the bootstrap.

use std::collections::BTreeMap;

use reparam_data::{Phase, percentile_interval, resample};
use serde_json::{Map, Value, json};

use crate::metrics::is_measured;
use crate::{Metrics, Result, Stop};

/// How often rows are drawn again, to say how far metrics are to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    /// How many samples are drawn.
    pub samples: u64,
    /// What they are drawn from.
    pub seed: u64,
}

/// The share of all samples between the ends of an interval.
pub const LEVEL: f64 = 0.95;

/// The key of the intervals beside the metrics.
pub const INTERVALS: &str = "intervals";

/// Adds the interval of each metric to metrics of `n` rows; `measure` gives those of rows that are drawn, by their place.
///
/// A sample in which a metric has no value, such as a correlation with a constant, does not count for it.
///
/// # Errors
///
/// [`TrainError::Interrupted`](crate::TrainError::Interrupted).
pub(crate) fn with_intervals(
    metrics: Metrics,
    n: usize,
    asked: Bootstrap,
    stop: Stop<'_>,
    measure: impl Fn(&[usize]) -> Result<Metrics>,
) -> Result<Metrics> {
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for sample in 0..asked.samples {
        stop.check()?;
        stop.at(Phase::Evaluating, sample, asked.samples);
        let Ok(drawn) = measure(&resample(n, asked.seed, sample)) else {
            continue;
        };
        for (name, value) in drawn.values().iter().filter(|(name, _)| is_measured(name)) {
            if let Some(value) = value.as_f64() {
                values.entry(name.clone()).or_default().push(value);
            }
        }
    }
    stop.at(Phase::Evaluating, asked.samples, asked.samples);
    // Beside numbers there may be tables.
    let numbers = metrics
        .values()
        .iter()
        .filter(|(_, value)| !value.is_object());
    let names = numbers
        .map(|(name, _)| name)
        .filter(|name| is_measured(name));
    let intervals: Map<String, Value> = names
        .map(|name| {
            let drawn = values.remove(name).unwrap_or_default();
            (name.clone(), json!(percentile_interval(drawn, LEVEL)))
        })
        .collect();
    let said = json!({ "samples": asked.samples, "seed": asked.seed, "level": LEVEL });
    Ok(metrics.with(INTERVALS, intervals).with("bootstrap", said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TrainError;

    const ASKED: Bootstrap = Bootstrap {
        samples: 500,
        seed: 3,
    };

    /// The mean of some numbers, which has no value where the first of them is not drawn.
    fn mean(numbers: &[f64], drawn: &[usize]) -> Result<Metrics> {
        let sum: f64 = drawn.iter().map(|row| numbers[*row]).sum();
        let first = drawn.contains(&0).then_some(1.0);
        let mean = Metrics::lower_is_better("loss", sum / drawn.len() as f64);
        Ok(mean.with("first", first).with("examples", drawn.len()))
    }

    #[test]
    fn intervals_hold_the_metric_and_shrink_with_the_rows() {
        let width = |n: usize| {
            let numbers: Vec<f64> = (0..n).map(|i| (i % 10) as f64).collect();
            let all: Vec<usize> = (0..n).collect();
            let metrics = mean(&numbers, &all).expect("a mean");
            let with = with_intervals(metrics, n, ASKED, Stop::never(), |drawn| {
                mean(&numbers, drawn)
            });
            let with = with.expect("intervals");
            let interval = &with.values()[INTERVALS]["loss"];
            let [low, high] = [0, 1].map(|end| interval[end].as_f64().expect("a number"));
            assert!(low < 4.5 && 4.5 < high, "{interval}");
            assert_eq!(with.values()[INTERVALS]["first"], json!([1.0, 1.0]));
            assert_eq!(with.values()[INTERVALS].get("examples"), None);
            high - low
        };
        // Four times the rows, half the width.
        let ratio = width(100) / width(400);
        assert!((1.7..2.3).contains(&ratio), "{ratio}");
    }

    #[test]
    fn a_metric_that_no_sample_has_is_without_an_interval() {
        let metrics = Metrics::lower_is_better("loss", 1.0);
        let with = with_intervals(metrics, 2, ASKED, Stop::never(), |_| {
            Err(TrainError::NoCorrelation)
        });
        let values = with.expect("no error").values().clone();
        assert_eq!(values[INTERVALS], json!({ "loss": null }));
    }
}
