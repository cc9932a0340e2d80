//! The table and the pictures of a study.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::html::{Page, Table, html};
use super::{Curves, Point, Repeated, StudyRun};
use crate::event::StopReason;
use crate::json::text_of;
use crate::numbers::short;
use crate::plot::{Bar, Curve, Kind, Mark, Panel, picture};
use crate::{Result, TrainError};

/// The page with everything on it.
pub(super) const PAGE: &str = "study.html";

/// What a page says besides its runs.
pub(super) struct Made<'a> {
    pub(super) run_file: &'a Path,
    pub(super) began: SystemTime,
    /// What all runs have in common, by key.
    pub(super) shared: Vec<(String, String)>,
    /// Which run is the best.
    pub(super) best: Option<usize>,
    /// The settings that seeds repeat.
    pub(super) settings: &'a [Repeated],
    /// Which setting is the best.
    pub(super) best_setting: Option<usize>,
    /// What the one key is called that is varied besides the seed.
    pub(super) key: Option<&'a str>,
}

/// A picture: its file, its heading, the label of its axis, and what it shows of a step.
type Picture = (&'static str, &'static str, &'static str, fn(&Point) -> f64);

const PICTURES: [Picture; 3] = [
    ("loss.svg", "Training loss", "loss", |point| point.loss),
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

pub(super) const COLUMNS: [&str; 9] = [
    "setting",
    "held out",
    "before",
    "ended by",
    "steps",
    "first loss",
    "last loss",
    "longest step",
    "update / gradient variance",
];

/// Writes the pictures, the table and the page that has them all.
pub(super) fn write(
    directory: &Path,
    made: &Made<'_>,
    runs: &[StudyRun],
    all: &[(String, Curves)],
) -> Result<PathBuf> {
    let mut pictures: Vec<(&str, Panel)> = spread(made).into_iter().collect();
    pictures.extend(held_out(made, runs, all));
    for (file, heading, y_label, value) in PICTURES {
        let points = |curves: &Curves| -> Vec<(f64, f64)> {
            let points = curves.steps.iter();
            points
                .map(|point| (point.step as f64, value(point)))
                .collect()
        };
        let kind = Kind::Noisy;
        pictures.push((file, panel(heading, y_label, all, points, kind)));
    }
    let mut sections = Vec::new();
    for (file, panel) in pictures {
        let svg = picture(std::slice::from_ref(&panel)).map_err(TrainError::Plot)?;
        super::write(directory, file, &svg)?;
        sections.push((panel.title, svg));
    }
    let json = text_of(&directory.join("study.json"), &runs)?;
    super::write(directory, "study.json", &json)?;
    if !made.settings.is_empty() {
        let json = text_of(&directory.join("settings.json"), &made.settings)?;
        super::write(directory, "settings.json", &json)?;
    }
    let ended = SystemTime::now();
    let metric = runs.iter().find_map(|run| run.metric.as_deref());
    let best_setting = made.best_setting.map(|best| &made.settings[best]);
    let rows: Vec<_> = made.settings.iter().map(Repeated::row).collect();
    let page = Page {
        title: &format!("Study of {}", made.run_file.display()),
        facts: &[
            format!("{} runs, {} to {}", runs.len(), utc(made.began), utc(ended)),
            match (best_setting, made.best, metric) {
                (Some(setting), ..) => format!("best on average: {}", setting.in_words()),
                (None, Some(best), Some(metric)) => {
                    format!("best by the held-out {metric}: {}", runs[best].label)
                }
                (None, Some(best), None) => format!("best by the last loss: {}", runs[best].label),
                (None, None, _) => "no run came to its end".to_owned(),
            },
        ],
        sections: &sections,
        over_seeds: (!rows.is_empty()).then_some(Table {
            header: &Repeated::COLUMNS,
            rows: &rows,
            best: made.best_setting,
        }),
        table: Table {
            header: &COLUMNS,
            rows: &runs.iter().map(row).collect::<Vec<_>>(),
            // Of runs that differ in their seed alone none is better.
            best: made.best.filter(|_| best_setting.is_none()),
        },
        settings: &made.shared,
    };
    super::write(directory, PAGE, &html(&page))
}

fn panel(
    heading: &str,
    y_label: &str,
    all: &[(String, Curves)],
    points: impl Fn(&Curves) -> Vec<(f64, f64)>,
    kind: Kind,
) -> Panel {
    let curves = all.iter().map(|(label, curves)| Curve {
        label: label.clone(),
        points: points(curves),
        kind,
    });
    Panel {
        title: heading.to_owned(),
        x_label: "step".to_owned(),
        y_label: y_label.to_owned(),
        curves: curves.collect(),
        mark: None,
        bars: Vec::new(),
    }
}

/// The picture of what settings give over their seeds, by the number that is varied; none where it is no number.
fn spread(made: &Made<'_>) -> Option<(&'static str, Panel)> {
    let settings = made.settings;
    let metric = settings.first()?.metric.clone();
    let point = |setting: &Repeated| Some((setting.number?, setting.mean?));
    let mut points: Vec<(f64, f64)> = settings.iter().filter_map(point).collect();
    if points.len() < 2 || settings.iter().any(|setting| setting.number.is_none()) {
        return None;
    }
    points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let bars = settings.iter().filter_map(|setting| {
        let ((at, mean), deviation) = (point(setting)?, setting.standard_deviation?);
        Some(Bar {
            at,
            low: mean - deviation,
            high: mean + deviation,
        })
    });
    let panel = Panel {
        title: format!("{metric} over seeds"),
        x_label: made.key.unwrap_or_default().to_owned(),
        bars: bars.collect(),
        curves: vec![Curve {
            label: "mean, with one standard deviation to either side".to_owned(),
            points,
            kind: Kind::Exact,
        }],
        y_label: metric,
        mark: None,
    };
    Some(("settings.svg", panel))
}

/// The picture of what the runs were measured by; none where nothing is held out.
fn held_out(
    made: &Made<'_>,
    runs: &[StudyRun],
    all: &[(String, Curves)],
) -> Option<(&'static str, Panel)> {
    let metric = runs.iter().find_map(|run| run.metric.as_deref())?;
    let points = |curves: &Curves| -> Vec<(f64, f64)> {
        let points = curves.held_out.iter();
        points.map(|(step, value)| (*step as f64, *value)).collect()
    };
    let heading = format!("Held-out {metric}");
    let mut panel = panel(&heading, metric, all, points, Kind::Exact);
    let best = made.best.filter(|_| made.best_setting.is_none());
    panel.mark = best.and_then(|best| {
        let run = &runs[best];
        let (step, value) = (run.best_step?, run.held_out_after?);
        Some(Mark {
            at: (step as f64, value),
            label: format!("best: {}, {} after step {step}", run.label, short(value)),
        })
    });
    Some(("held_out.svg", panel))
}

/// Writes what a run has measured; one that did not get there has nothing.
fn measured(x: f64) -> String {
    if x.is_finite() {
        short(x)
    } else {
        "-".to_owned()
    }
}

/// Writes a time as `2026-11-29 10:40 UTC`.
fn utc(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    let minutes: String = text.chars().take(16).collect();
    format!("{} UTC", minutes.replace('T', " "))
}

/// Returns a run as a row of the table.
pub(super) fn row(run: &StudyRun) -> [String; 9] {
    let ended = match (&run.failed, run.reason) {
        (Some(_), _) if run.diverged => "divergence",
        (Some(_), _) => "failure",
        (None, Some(StopReason::LossChange { .. })) => "loss change",
        (None, Some(StopReason::GradNorm { .. })) => "gradient norm",
        (None, Some(StopReason::Patience { .. })) => "patience",
        (None, Some(StopReason::Steps) | None) => "steps",
    };
    let ratio = run.update_variance / run.grad_variance;
    let held_out = |value: Option<f64>| measured(value.unwrap_or(f64::NAN));
    [
        run.label.clone(),
        held_out(run.held_out_after),
        held_out(run.held_out_before),
        ended.to_owned(),
        run.steps.to_string(),
        measured(run.first_loss),
        measured(run.last_loss),
        measured(run.longest_step),
        measured(ratio),
    ]
}
