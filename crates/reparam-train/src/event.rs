//! What a run tells its observers, and writes to `events.jsonl`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::metrics::Metrics;

/// The version of the form of [`Event`]s; it changes when a reader of the old form would fail.
pub const SCHEMA_VERSION: u32 = 2;

/// Something that happened in a run.
///
/// As JSON ([`to_json_line`](Self::to_json_line)) it is one object whose `event` says which:
///
/// ```
/// use reparam_train::event::Event;
///
/// let time = "2026-11-30T09:15:00.250Z".parse()?;
/// let line = Event::Interrupted { step: 7 }.to_json_line(time)?;
/// assert_eq!(
///     line,
///     r#"{"schema_version":2,"time":"2026-11-30T09:15:00.250Z","event":"interrupted","step":7}"#
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Losses are means over the tokens or rows of a step: of a token's negative log-likelihood in nats, of a row's squared
/// error. Steps are counted from 1; step 0 is the state before the first. A run ends with exactly one of `Interrupted`, `Finished` and
/// `Failed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// Everything is loaded and checked; the first step comes next.
    Start(Start),
    /// Something that the user should know although nothing failed.
    Warning {
        /// A sentence without its period.
        message: String,
        /// What is looked at, in a word; of what is found before the first step.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        kind: Option<String>,
        /// What to do about it.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        hint: Option<String>,
    },
    /// A step of the optimizer.
    Step(Step),
    /// What the model is measured by, on what is held out.
    Evaluation(Evaluation),
    /// A text that the model has generated.
    Sample {
        /// The step after which it was generated.
        step: u64,
        /// What the model was given.
        prompt: String,
        /// What it added.
        text: String,
    },
    /// A checkpoint or the result is on disk.
    Saved {
        /// The step whose state it is.
        step: u64,
        /// Where it is.
        path: PathBuf,
    },
    /// The run goes on from a checkpoint, or from its start.
    Resumed {
        /// The step that it goes on after.
        step: u64,
    },
    /// The run takes the place of an earlier one in its directory.
    Replaced {
        /// What is gone of it.
        removed: Vec<String>,
    },
    /// The run was asked to stop, and stopped with its state saved.
    Interrupted {
        /// The last finished step.
        step: u64,
    },
    /// The last step is done: all of them, or a condition of the run file holds.
    Stopped {
        /// The last step.
        step: u64,
        /// Why there is none after it.
        #[serde(flatten)]
        reason: StopReason,
    },
    /// What a task says of its model at the end of a run, beside the metrics.
    Report {
        /// Numbers by name.
        report: Map<String, Value>,
        /// The same in words: a label and a text each.
        text: Vec<(String, String)>,
    },
    /// The run is complete.
    Finished(Finished),
    /// The run cannot go on.
    Failed {
        /// Why.
        error: Failure,
    },
}

/// What is trained, on what, for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// The word for the task, such as `causal-lm`.
    pub task: String,
    /// The word for the method, such as `lora`.
    pub method: String,
    /// The model as the run file names it.
    pub model: String,
    /// The numbers that the optimizer changes.
    pub trainable_parameters: u64,
    /// Those and the frozen ones.
    pub total_parameters: u64,
    /// The numbers of the model as it was before the method was attached.
    pub model_parameters: u64,
    /// The names of the adapted modules.
    pub targets: Vec<String>,
    /// The factor of the adapter's product, such as alpha / rank; of the modules without a
    /// pattern of their own. `None` for a method without one.
    pub scaling: Option<f64>,
    /// The steps of the run, T.
    pub max_steps: u64,
    /// Sequences or rows in a batch.
    pub batch_size: u64,
    /// Batches in a step.
    pub gradient_accumulation: u64,
    /// What activations are computed in, resolved from `auto`.
    pub precision: String,
    /// The peak learning rate, eta.
    pub learning_rate: f64,
    /// The factor of the gradient in the two-step update; `None` if it changes from step to step, or
    /// the transforms are given as a list.
    pub lambda: Option<f64>,
    /// The threads that compute.
    pub threads: u64,
    /// What every random number of the run is derived from.
    pub seed: u64,
    /// The run directory.
    pub output: PathBuf,
    /// What the task says of its data: counts, and names of columns.
    ///
    /// Of a language model: `train_tokens`; `labelled_tokens`, those that are predicted; `cut_examples`, those longer
    /// than a block, so that a part of them is learned without the whole prompt; `dropped_examples` and `truncated_examples`,
    /// those that are left out as too long, as a whole or but for their beginning, and `eval_dropped_examples` and
    /// `eval_truncated_examples`, those of files that are measured on; `blocks`; `sequence_length`, the tokens
    /// of one; `eval_tokens`, the predicted tokens of what is held out; `held_out`, a list of what is held out of each file:
    /// `file`, `held_out`, `of` and `unit`. Of a regression: `features`, `target`,
    /// `train_rows`, `test_rows`, `dropped_rows`.
    pub data: Map<String, Value>,
}

/// A step of the optimizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Which, counted from 1.
    pub step: u64,
    /// How many times the data have been gone through with it; `None` where they have no end, or in a line of an earlier
    /// version.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub epoch: Option<f64>,
    /// The loss of its batch, before the update.
    pub loss: f64,
    /// The learning rate of the update.
    pub learning_rate: f64,
    /// The L2 norm of the gradient before it is scaled or clipped.
    pub grad_norm: f64,
    /// What the loss is the mean of: predicted tokens, or rows.
    pub weight: f64,
    /// What `weight` counts, in the plural.
    pub unit: String,
    /// The speed of this step: `weight` a second.
    pub per_second: f64,
    /// The most memory that the process has held so far, in bytes.
    pub peak_rss_bytes: u64,
    /// How much gradient and update vary, if it is measured.
    #[serde(flatten)]
    pub variances: Option<Variances>,
}

/// How much gradient and update vary from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Variances {
    /// The variance of the gradient over about the last twenty steps, summed over all elements; 0 at the first.
    pub grad_variance: f64,
    /// That of the update, before the learning rate multiplies it.
    pub update_variance: f64,
    /// The L2 norm of the update, before the learning rate multiplies it.
    pub update_norm: f64,
}

/// Why a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum StopReason {
    /// All planned steps are done.
    Steps,
    /// The mean loss of a window of steps is that of the window before.
    LossChange {
        /// The relative change.
        change: f64,
        /// What it had to fall below.
        bound: f64,
        /// The steps of a window.
        window: u64,
    },
    /// The gradient is small.
    GradNorm {
        /// Its norm.
        grad_norm: f64,
        /// What it had to fall below.
        bound: f64,
    },
    /// The measure that decides has not improved for long.
    Patience {
        /// How many evaluations in a row were no better than the best.
        evaluations: u64,
        /// The best value.
        best: f64,
    },
}

/// What a model is measured by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The step after which it was measured.
    pub step: u64,
    /// The measures by name; one without a value is `null`.
    pub metrics: Map<String, Value>,
    /// The name of the measure that decides.
    pub primary: String,
    /// Whether less of it is better; written only where it is not.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub lower_is_better: bool,
}

fn yes() -> bool {
    true
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_yes(flag: &bool) -> bool {
    *flag
}

impl Evaluation {
    pub(crate) fn new(step: u64, metrics: &Metrics) -> Self {
        Self {
            step,
            metrics: metrics.values().clone(),
            primary: metrics.primary_name().to_owned(),
            lower_is_better: metrics.is_lower_better(),
        }
    }

    /// Returns the measure that decides; NaN if it has no value.
    #[must_use]
    pub fn value(&self) -> f64 {
        let value = self.metrics.get(&self.primary).and_then(Value::as_f64);
        value.unwrap_or(f64::NAN)
    }
}

/// A complete run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// The steps it took.
    pub steps: u64,
    /// The time from the first step's start to the last one's end, in seconds.
    pub seconds: f64,
    /// The name of the measure that decides; `None` if nothing is held out.
    pub metric: Option<String>,
    /// Its value before the first step.
    pub before: Option<f64>,
    /// Its value of the result.
    pub after: Option<f64>,
    /// The step after which the best model was measured.
    #[serde(default)]
    pub best_step: Option<u64>,
    /// The value of `metric` there.
    #[serde(default)]
    pub best_loss: Option<f64>,
    /// Its value after the last step.
    #[serde(default)]
    pub last_loss: Option<f64>,
    /// Whether the result is better than the model before the first step.
    #[serde(default)]
    pub improved: Option<bool>,
    /// The directory of the adapter, of a method that has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub adapter: Option<PathBuf>,
    /// The directory of the model, of a method that trains the weights themselves.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<PathBuf>,
}

/// Why a run cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The error and its causes, in one line.
    pub message: String,
    /// The class of the error.
    pub kind: FailureKind,
    /// What to do about it.
    pub hints: Vec<String>,
}

/// The class of a [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The configuration cannot be used.
    Config,
    /// A model, an adapter or data cannot be used.
    Data,
    /// A file cannot be read or written, or the hub cannot be reached.
    Io,
    /// The loss or a gradient is not a finite number.
    Diverged,
    /// An invariant of the program does not hold.
    Bug,
}

/// When something happened, to the millisecond.
///
/// As text it is in the form of RFC 3339, in UTC, and always of the same length: `2026-11-30T09:15:00.250Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(SystemTime);

impl Time {
    /// Returns what the system's clock says.
    #[must_use]
    pub fn now() -> Self {
        Self(SystemTime::now())
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(self.0).fmt(f)
    }
}

impl FromStr for Time {
    type Err = humantime::TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_rfc3339(text).map(Self)
    }
}

/// An event with what makes its line self-describing.
#[derive(Serialize)]
struct Line<'a> {
    schema_version: u32,
    time: String,
    #[serde(flatten)]
    event: &'a Event,
}

impl Event {
    /// The event as one line of JSON, without the line's end; `time` is when it happened.
    ///
    /// A number that is not finite is written as `null`, since JSON has no word for it.
    ///
    /// # Errors
    ///
    /// A path that is not UTF-8, which JSON cannot express.
    pub fn to_json_line(&self, time: Time) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Line {
            schema_version: SCHEMA_VERSION,
            time: time.to_string(),
            event: self,
        })
    }

    /// Reads a line that [`to_json_line`](Self::to_json_line) wrote, all but its time.
    ///
    /// # Errors
    ///
    /// A line that is not an event of this [`SCHEMA_VERSION`].
    pub fn from_json_line(line: &str) -> Result<Self, serde_json::Error> {
        let schema_version =
            Self::version(line).ok_or_else(|| serde::de::Error::missing_field("schema_version"))?;
        if schema_version != SCHEMA_VERSION {
            return Err(serde::de::Error::custom(format_args!(
                "the event is of schema version {schema_version}, this program reads \
                 {SCHEMA_VERSION}"
            )));
        }
        serde_json::from_str(line)
    }

    /// Returns the version that a line says it is of.
    pub(crate) fn version(line: &str) -> Option<u32> {
        #[derive(Deserialize)]
        struct Version {
            schema_version: u32,
        }
        let version: Version = serde_json::from_str(line).ok()?;
        Some(version.schema_version)
    }
}

/// Something that wants to know what happens in a run.
pub trait Observer {
    /// Is told of an event right after it happened, on the thread that runs the loop.
    fn on_event(&mut self, event: &Event, time: Time);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time() -> Time {
        "2026-11-30T09:15:00.250Z".parse().unwrap()
    }

    fn events() -> Vec<Event> {
        vec![
            Event::Start(Start {
                task: "causal-lm".into(),
                method: "lora".into(),
                model: "m".into(),
                trainable_parameters: 1,
                total_parameters: 2,
                model_parameters: 1,
                targets: vec!["a.q_proj".into()],
                scaling: Some(2.0),
                max_steps: 7,
                batch_size: 8,
                gradient_accumulation: 10,
                precision: "f32".into(),
                learning_rate: 1e-4,
                lambda: Some(1.0),
                threads: 2,
                seed: u64::MAX,
                output: "runs/a".into(),
                data: Map::from_iter([
                    ("train_tokens".to_owned(), 3.into()),
                    ("features".to_owned(), vec!["x1"].into()),
                ]),
            }),
            Event::Step(Step {
                step: 1,
                epoch: Some(0.25),
                loss: 2.5,
                learning_rate: 2e-4,
                grad_norm: 0.1,
                weight: 100.0,
                unit: "tokens".into(),
                per_second: 1234.5,
                peak_rss_bytes: 1 << 40,
                variances: None,
            }),
            Event::Evaluation(Evaluation::new(
                0,
                &Metrics::lower_is_better("mse", 1.5)
                    .with("r2", None::<f64>)
                    .with("examples", 10),
            )),
            Event::Sample {
                step: 0,
                prompt: "Once".into(),
                text: " upon\na \"time\"".into(),
            },
            Event::Saved {
                step: 3,
                path: "runs/a/adapter".into(),
            },
            Event::Replaced {
                removed: vec!["adapter".into()],
            },
            Event::Interrupted { step: 3 },
            Event::Finished(Finished {
                steps: 7,
                seconds: 0.5,
                metric: Some("loss".into()),
                before: Some(3.0),
                after: None,
                best_step: Some(6),
                best_loss: Some(2.0),
                last_loss: Some(2.5),
                improved: Some(true),
                adapter: Some("runs/a/adapter".into()),
                model: None,
            }),
            Event::Step(Step {
                step: 2,
                epoch: None,
                loss: 2.0,
                learning_rate: 1.0,
                grad_norm: 0.5,
                weight: 80.5,
                unit: "rows".into(),
                per_second: 1e6,
                peak_rss_bytes: 1,
                variances: Some(Variances {
                    grad_variance: 0.25,
                    update_variance: 0.0025,
                    update_norm: 0.05,
                }),
            }),
            Event::Stopped {
                step: 7,
                reason: StopReason::Steps,
            },
            Event::Stopped {
                step: 7,
                reason: StopReason::LossChange {
                    change: 1e-5,
                    bound: 1e-4,
                    window: 10,
                },
            },
            Event::Resumed { step: 0 },
            Event::Report {
                report: Map::from_iter([("coefficients".to_owned(), vec![3.0, 0.1].into())]),
                text: vec![("result".into(), "good".into())],
            },
            Event::Failed {
                error: Failure {
                    message: "loss is NaN at step 3".into(),
                    kind: FailureKind::Diverged,
                    hints: vec!["lower the learning rate".into()],
                },
            },
        ]
    }

    #[test]
    fn every_event_is_one_line_that_reads_back_equal() {
        for event in events() {
            let line = event.to_json_line(time()).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(Event::from_json_line(&line).unwrap(), event);
        }
    }

    #[test]
    fn a_step_has_the_documented_fields_in_order() {
        let line = events()[1].to_json_line(time()).unwrap();
        assert_eq!(
            line,
            "{\"schema_version\":2,\"time\":\"2026-11-30T09:15:00.250Z\",\"event\":\"step\",\"step\":1,\
             \"epoch\":0.25,\"loss\":2.5,\
             \"learning_rate\":0.0002,\"grad_norm\":0.1,\"weight\":100.0,\
             \"unit\":\"tokens\",\"per_second\":1234.5,\"peak_rss_bytes\":1099511627776}"
        );
    }

    #[test]
    fn a_line_of_an_earlier_version_has_no_time_and_no_epoch() {
        let line = r#"{"schema_version":2,"event":"step","step":1,"loss":2.5,"learning_rate":0.1,
            "grad_norm":1.0,"weight":3.0,"unit":"rows","per_second":1.0,"peak_rss_bytes":1}"#;
        let Event::Step(step) = Event::from_json_line(line).unwrap() else {
            panic!("a step");
        };
        assert_eq!((step.step, step.epoch), (1, None));
        assert_eq!(Time::now().to_string().len(), time().to_string().len());
    }

    #[test]
    fn another_schema_version_is_refused() {
        let line = r#"{"schema_version":1,"event":"interrupted","step":3}"#;
        let error = Event::from_json_line(line).unwrap_err();
        assert!(error.to_string().contains("schema version 1"), "{error}");
        Event::from_json_line(r#"{"event":"interrupted","step":3}"#).unwrap_err();
    }
}
