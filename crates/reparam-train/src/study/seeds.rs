//! What a setting gives over several seeds: how far a difference between settings is to be trusted.

use serde::Serialize;

use super::vary::Variant;
use super::{Decides, StudyRun};
use crate::numbers::short;

/// The runs of one setting, which differ in their seed alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Repeated {
    /// What was varied besides the seed.
    pub label: String,
    /// Its runs, by their place in [`Study::runs`](super::Study::runs).
    pub runs: Vec<usize>,
    /// The runs that came to an end, of which these numbers are.
    pub seeds: usize,
    /// What is averaged: the measure that decides, on what is held out, else the last `loss`.
    pub metric: String,
    /// Its mean.
    pub mean: Option<f64>,
    /// Its standard deviation, with one less than their number below the sum of squares; of two runs or more.
    pub standard_deviation: Option<f64>,
    /// The least of it.
    pub lowest: Option<f64>,
    /// The most of it.
    pub highest: Option<f64>,
    /// The value of the one other key that is varied, if it is a number.
    #[serde(skip)]
    pub(super) number: Option<f64>,
}

impl Repeated {
    /// The headings of [`row`](Self::row).
    pub const COLUMNS: [&'static str; 6] = [
        "setting",
        "seeds",
        "mean",
        "standard deviation",
        "lowest",
        "highest",
    ];

    /// Puts runs together that differ in their seed alone; nothing if none do.
    pub(super) fn of(variants: &[Variant], runs: &[StudyRun], decides: &Decides) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for (place, variant) in variants.iter().enumerate() {
            match all.iter_mut().find(|other| other.label == variant.setting) {
                Some(same) => same.runs.push(place),
                None => all.push(Self {
                    label: variant.setting.clone(),
                    runs: vec![place],
                    seeds: 0,
                    metric: decides.metric.clone(),
                    mean: None,
                    standard_deviation: None,
                    lowest: None,
                    highest: None,
                    number: variant.number,
                }),
            }
        }
        if all.iter().all(|setting| setting.runs.len() < 2) {
            return Vec::new();
        }
        for setting in &mut all {
            let places = setting.runs.iter();
            let values: Vec<f64> = places
                .filter_map(|place| decides.value(&runs[*place]))
                .collect();
            setting.measure(&values);
        }
        all
    }

    fn measure(&mut self, values: &[f64]) {
        let n = values.len() as f64;
        self.seeds = values.len();
        self.lowest = values.iter().copied().reduce(f64::min);
        self.highest = values.iter().copied().reduce(f64::max);
        if values.is_empty() {
            return;
        }
        let mean = values.iter().sum::<f64>() / n;
        self.mean = Some(mean);
        let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
        self.standard_deviation = (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
    }

    /// Returns it as a row of the table of settings.
    #[must_use]
    pub fn row(&self) -> [String; 6] {
        let number = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), short);
        [
            self.label.clone(),
            self.seeds.to_string(),
            number(self.mean),
            number(self.standard_deviation),
            number(self.lowest),
            number(self.highest),
        ]
    }

    /// Says it in a few words, as in `8 (0.91 +- 0.02 over 5 seeds)`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let Some(mean) = self.mean else {
            return self.label.clone();
        };
        let deviation = self
            .standard_deviation
            .map_or_else(String::new, |deviation| format!(" +- {}", short(deviation)));
        let seeds = match self.seeds {
            1 => "1 seed".to_owned(),
            n => format!("{n} seeds"),
        };
        let (label, metric) = (&self.label, &self.metric);
        format!("{label} ({metric} {}{deviation} over {seeds})", short(mean))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Repeated {
        let mut setting = Repeated {
            label: "k=1".to_owned(),
            runs: Vec::new(),
            seeds: 0,
            metric: "accuracy".to_owned(),
            mean: None,
            standard_deviation: None,
            lowest: None,
            highest: None,
            number: None,
        };
        setting.measure(values);
        setting
    }

    #[test]
    fn a_setting_that_lost_seeds_is_not_the_best() {
        let decides = |lower_is_better| Decides {
            metric: "mse".to_owned(),
            held_out: true,
            lower_is_better,
        };
        let settings = [of(&[5.0, 7.0]), of(&[1.0]), of(&[4.0, 6.0]), of(&[])];
        assert_eq!(decides(true).best_setting(&settings), Some(2));
        assert_eq!(decides(false).best_setting(&settings), Some(0));
        assert_eq!(decides(true).best_setting(&settings[3..]), None);
        assert_eq!(decides(true).best_setting(&[]), None);
    }

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        let four = of(&[2.0, 4.0, 4.0, 6.0]);
        assert_eq!((four.seeds, four.mean), (4, Some(4.0)));
        assert_eq!((four.lowest, four.highest), (Some(2.0), Some(6.0)));
        let deviation = four.standard_deviation.expect("four values");
        assert!((deviation - (8.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(four.in_words(), "k=1 (accuracy 4 +- 1.633 over 4 seeds)");
        let one = of(&[3.0]);
        assert_eq!((one.mean, one.standard_deviation), (Some(3.0), None));
        assert_eq!(one.in_words(), "k=1 (accuracy 3 over 1 seed)");
        let none = of(&[]);
        assert_eq!(
            none.row(),
            ["k=1", "0", "-", "-", "-", "-"].map(str::to_owned)
        );
    }
}
