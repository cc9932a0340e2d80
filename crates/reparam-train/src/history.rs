//! The picture of a run: its losses, and what it was measured by.

use crate::event::{Evaluation, Event, Step};
use crate::numbers::short;
use crate::plot::{Curve, Kind, Mark, Panel, PlotError, picture};
use crate::state::Best;

/// What a run has written down of its steps and evaluations.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct History {
    steps: Vec<(f64, f64)>,
    held_out: Vec<(f64, f64)>,
    metric: String,
}

impl History {
    /// Reads the lines of a file of events.
    pub(crate) fn read(events: &str) -> Self {
        let mut history = Self::default();
        for line in events.lines() {
            match Event::from_json_line(line) {
                Ok(Event::Step(step)) => history.step(&step),
                Ok(Event::Evaluation(evaluation)) => history.evaluation(&evaluation),
                _ => {}
            }
        }
        history
    }

    pub(crate) fn step(&mut self, step: &Step) {
        self.steps.push((step.step as f64, step.loss));
    }

    pub(crate) fn evaluation(&mut self, evaluation: &Evaluation) {
        self.metric.clone_from(&evaluation.primary);
        let point = (evaluation.step as f64, evaluation.value());
        self.held_out.push(point);
    }

    /// Draws the losses, smoothed, and the evaluations; of a measure that is no loss in a panel of its own.
    pub(crate) fn picture(&self, best: Option<Best>) -> Result<String, PlotError> {
        let training = Curve {
            label: "training loss".to_owned(),
            points: self.steps.clone(),
            kind: Kind::Noisy,
        };
        let panel = |title: &str, y_label: &str, curves| Panel {
            title: title.to_owned(),
            x_label: "step".to_owned(),
            y_label: y_label.to_owned(),
            curves,
            mark: None,
            bars: Vec::new(),
        };
        let mut panels = vec![panel("Loss", "loss", vec![training])];
        if !self.held_out.is_empty() {
            let name = format!("held-out {}", self.metric);
            let held_out = Curve {
                label: name.clone(),
                points: self.held_out.clone(),
                kind: Kind::Exact,
            };
            // The loss of training is a sum of what the same measure is the mean of, or is in other units.
            match self.metric == "loss" {
                true => panels[0].curves.push(held_out),
                false => panels.push(panel("Held out", &name, vec![held_out])),
            }
            let mark = best.map(|best| Mark {
                at: (best.step as f64, best.value),
                label: format!("best: {} after step {}", short(best.value), best.step),
            });
            if let Some(last) = panels.last_mut() {
                last.mark = mark;
            }
        }
        picture(&panels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn history(metric: &str) -> History {
        let mut history = History::default();
        for step in 0..=100_u64 {
            if step.is_multiple_of(25) {
                let metrics = Metrics::lower_is_better(metric, 3.0 - step as f64 / 100.0);
                history.evaluation(&Evaluation::new(step, &metrics));
            }
            history.steps.push((step as f64, 2.5 - step as f64 / 200.0));
        }
        history
    }

    const BEST: Best = Best {
        step: 75,
        value: 2.25,
        improved: true,
    };

    #[test]
    fn a_held_out_loss_is_drawn_beside_the_training_loss_and_another_measure_below() {
        let svg = history("loss").picture(Some(BEST)).unwrap();
        for text in [
            "training loss",
            "held-out loss",
            "best: 2.25 after step 75",
            "step",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains("Held out"));
        let svg = history("mse").picture(Some(BEST)).unwrap();
        for text in ["Held out", "held-out mse", "best: 2.25 after step 75"] {
            assert!(svg.contains(text), "{text}");
        }
        let nothing = History::default().picture(None).unwrap();
        assert!(nothing.contains("training loss (none)") && !nothing.contains("held-out"));
    }
}
