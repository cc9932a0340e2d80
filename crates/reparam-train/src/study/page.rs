//! The table and the pictures of a study.

use std::path::{Path, PathBuf};

use super::plot::{Axes, Curve, curves, html};
use super::{Curves, Point, StudyRun};
use crate::event::StopReason;
use crate::json::text_of;
use crate::numbers::readable;
use crate::{Result, TrainError};

/// The page with everything on it.
pub(super) const PAGE: &str = "study.html";

/// A picture: its file, its heading, the label of its axis, and what it shows of a step.
type Picture = (&'static str, &'static str, &'static str, fn(&Point) -> f64);

const PICTURES: [Picture; 3] = [
    ("loss.svg", "Loss", "loss", |point| point.loss),
    (
        "grad_variance.svg",
        "Variance of the gradient",
        "variance",
        |point| point.grad_variance,
    ),
    (
        "update_variance.svg",
        "Variance of the update",
        "variance",
        |point| point.update_variance,
    ),
];

pub(super) const COLUMNS: [&str; 8] = [
    "setting",
    "ended by",
    "steps",
    "first loss",
    "last loss",
    "held out",
    "longest step",
    "update / gradient variance",
];

/// Writes the pictures, the table and the page that has them all.
pub(super) fn write(
    directory: &Path,
    run_file: &Path,
    runs: &[StudyRun],
    all: &[(String, Curves)],
) -> Result<PathBuf> {
    let mut sections = Vec::new();
    for (file, heading, y_label, value) in PICTURES {
        let lines: Vec<Curve> = all
            .iter()
            .map(|(label, curves)| Curve {
                label: label.clone(),
                points: curves
                    .steps
                    .iter()
                    .map(|point| (point.step as f64, value(point)))
                    .collect(),
            })
            .collect();
        let axes = Axes {
            title: heading.to_owned(),
            x_label: "step".to_owned(),
            y_label: y_label.to_owned(),
            log_y: true,
        };
        let svg = curves(&lines, &axes).map_err(TrainError::Plot)?;
        super::write(directory, file, &svg)?;
        sections.push((heading.to_owned(), svg));
    }
    let json = text_of(&directory.join("study.json"), &runs)?;
    super::write(directory, "study.json", &json)?;
    let header = COLUMNS.map(str::to_owned);
    let rows: Vec<Vec<String>> = runs.iter().map(|run| row(run).to_vec()).collect();
    let title = format!("Study of {}", run_file.display());
    super::write(directory, PAGE, &html(&title, &sections, &header, &rows))
}

/// Writes what a run has measured; one that did not get there has nothing.
fn measured(x: f64) -> String {
    if x.is_finite() {
        readable(x)
    } else {
        "-".to_owned()
    }
}

/// Returns a run as a row of the table.
pub(super) fn row(run: &StudyRun) -> [String; 8] {
    let ended = match (&run.failed, run.reason) {
        (Some(_), _) if run.diverged => "divergence",
        (Some(_), _) => "failure",
        (None, Some(StopReason::LossChange { .. })) => "loss change",
        (None, Some(StopReason::GradNorm { .. })) => "gradient norm",
        (None, Some(StopReason::Patience { .. })) => "patience",
        (None, Some(StopReason::Steps) | None) => "steps",
    };
    let ratio = run.update_variance / run.grad_variance;
    [
        run.label.clone(),
        ended.to_owned(),
        run.steps.to_string(),
        measured(run.first_loss),
        measured(run.last_loss),
        run.held_out_after.map_or_else(|| "-".to_owned(), readable),
        readable(run.longest_step),
        measured(ratio),
    ]
}
