//! Tells the user what happens in a run: JSON Lines, or text with a progress bar.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reparam_train::event::{
    Event, Finished, Observer, RegressionReport, RegressionStart, Start, Step, StopReason,
};

use crate::error::CliError;
use crate::format::{bytes, count, counted, given, measured, percent, seconds};
use crate::output::Printer;

/// How many lines a run prints for its steps where there is no progress bar.
///
/// Enough to see where the loss goes, few enough to read in a log.
const STEP_LINES: u64 = 20;

/// What the progress bar shows; the loss, speed and memory are its message.
const BAR: &str = "{pos}/{len} {wide_bar} {msg}  {eta} left";

/// Prints the events of a run.
pub(crate) struct TrainObserver<'a, 'p> {
    printer: &'a mut Printer<'p>,
    stop: Arc<AtomicBool>,
    bar: ProgressBar,
    max_steps: u64,
    /// What speed is counted in.
    unit: &'static str,
    /// The first failure to write, which stops the run.
    failed: Option<CliError>,
}

impl<'a, 'p> TrainObserver<'a, 'p> {
    /// `stop` is set when the output cannot be written any more.
    pub(crate) fn new(printer: &'a mut Printer<'p>, stop: Arc<AtomicBool>) -> Self {
        Self {
            printer,
            stop,
            bar: ProgressBar::hidden(),
            max_steps: 0,
            unit: "tokens",
            failed: None,
        }
    }

    /// Takes the bar away, and returns the failure to write, if there was one.
    pub(crate) fn finish(self) -> Result<(), CliError> {
        self.bar.finish_and_clear();
        self.failed.map_or(Ok(()), Err)
    }

    fn print(&mut self, event: &Event) -> Result<(), CliError> {
        // The command prints why it fails itself, with the exit code.
        if matches!(event, Event::Failed { .. }) {
            return Ok(());
        }
        if matches!(event, Event::RegressionStart(_)) {
            self.unit = "rows";
        }
        if self.printer.is_json() {
            let line = event
                .to_json_line()
                .map_err(|error| CliError::Output(std::io::Error::other(error)))?;
            return self.printer.line(&line);
        }
        // Also where the start itself is not printed.
        if matches!(event, Event::RegressionStart(_)) {
            self.unit = "rows";
        }
        match event {
            Event::Step(step) => {
                self.step(step);
                Ok(())
            }
            Event::Finished(finished) => {
                self.bar.finish_and_clear();
                self.finished(finished)
            }
            _ if self.printer.is_quiet() => Ok(()),
            // Not while the bar is suspended: this is where it is first shown, and indicatif holds
            // the bar's lock during `suspend`.
            Event::Start(start) => self.start(start),
            Event::RegressionStart(start) => self.regression_start(start),
            _ => {
                let bar = self.bar.clone();
                bar.suspend(|| self.print_text(event))
            }
        }
    }

    /// The events that are lines of text between the steps.
    fn print_text(&mut self, event: &Event) -> Result<(), CliError> {
        match event {
            Event::Evaluation {
                step,
                loss,
                perplexity,
                tokens,
            } => self.printer.row(
                "evaluation",
                &format!(
                    "step {step}: loss {loss:.4}, perplexity {perplexity:.2} on {}",
                    counted(*tokens, "token")
                ),
            ),
            Event::RegressionEvaluation {
                step,
                test_mse,
                test_r2,
            } => self.printer.row(
                "evaluation",
                &format!(
                    "step {step}: test mean squared error {}{}",
                    measured(*test_mse, 4),
                    explained(*test_r2, 4)
                ),
            ),
            Event::RegressionReport(report) => self.regression_report(report),
            Event::Stopped { step, reason } => self
                .printer
                .row("stopped", &format!("step {step}: {}", because(reason))),
            Event::Sample { step, prompt, text } => self
                .printer
                .row("sample", &format!("step {step}: {prompt}{text}")),
            Event::Saved { step, path } => self
                .printer
                .row("saved", &format!("step {step}: {}", path.display())),
            // The command says so itself, and an event of a later version has no text here.
            _ => Ok(()),
        }
    }

    fn start(&mut self, start: &Start) -> Result<(), CliError> {
        self.max_steps = start.max_steps;
        let rows = [
            (
                "model",
                format!(
                    "{}, {}",
                    start.model,
                    counted(start.model_parameters, "parameter")
                ),
            ),
            (
                "method",
                format!(
                    "{} on {}{}",
                    start.method,
                    counted(start.targets.len() as u64, "module"),
                    start
                        .scaling
                        .map_or_else(String::new, |scaling| format!(", scaling {scaling}"))
                ),
            ),
            (
                "trainable",
                format!(
                    "{} ({})",
                    counted(start.trainable_parameters, "parameter"),
                    percent(start.trainable_parameters, start.total_parameters)
                ),
            ),
            (
                "data",
                format!(
                    "{} in {}, {} to learn from, {} held out{}",
                    counted(start.train_tokens, "token"),
                    counted(start.blocks, "block"),
                    count(start.labelled_tokens),
                    count(start.eval_tokens),
                    match start.cut_examples {
                        0 => String::new(),
                        examples => format!(", {} cut", counted(examples, "example")),
                    }
                ),
            ),
            ("run", plan(start)),
            ("output", start.output.display().to_string()),
        ];
        for (label, value) in rows {
            self.printer.row(label, &value)?;
        }
        if self.printer.shows_progress() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.set_length(start.max_steps);
            if let Ok(style) = ProgressStyle::with_template(BAR) {
                self.bar.set_style(style);
            }
            self.bar.reset();
        }
        Ok(())
    }

    fn regression_start(&mut self, start: &RegressionStart) -> Result<(), CliError> {
        self.max_steps = start.max_steps;
        let dropped = match start.dropped_rows {
            0 => String::new(),
            n => format!(", {} left out for missing values", counted(n, "row")),
        };
        let lambda = with_lambda(start.lambda);
        let rows = [
            (
                "model",
                format!(
                    "{} from {} to {}, {}",
                    start.model,
                    counted(start.features.len() as u64, "feature"),
                    start.target,
                    counted(start.trainable_parameters, "parameter")
                ),
            ),
            ("method", start.method.clone()),
            (
                "data",
                format!(
                    "{} to learn from, {} held out{dropped}",
                    counted(start.train_rows, "row"),
                    count(start.test_rows)
                ),
            ),
            (
                "run",
                format!(
                    "{} of {}, learning rate {}{lambda}, seed {}",
                    counted(start.max_steps, "step"),
                    counted(start.batch_size, "row"),
                    given(start.learning_rate),
                    start.seed
                ),
            ),
            ("output", start.output.display().to_string()),
        ];
        for (label, value) in rows {
            self.printer.row(label, &value)?;
        }
        Ok(())
    }

    fn regression_report(&mut self, report: &RegressionReport) -> Result<(), CliError> {
        self.printer.row(
            "result",
            &format!(
                "test mean squared error {}{}; train {}",
                measured(report.test_mse, 6),
                explained(report.test_r2, 6),
                measured(report.train_mse, 6)
            ),
        )?;
        if let Some(mse) = report.least_squares_test_mse {
            self.printer.row(
                "exact",
                &format!(
                    "least squares: test mean squared error {}{}",
                    measured(mse, 6),
                    explained(report.least_squares_test_r2, 6)
                ),
            )?;
        }
        if let (Some(distance), Some(is_it)) =
            (report.distance_to_least_squares, report.is_least_squares)
        {
            let verdict = if is_it {
                "converged to the least-squares solution"
            } else {
                "not at the least-squares solution yet"
            };
            self.printer.row(
                "distance",
                &format!("{distance:.1e} of the largest coefficient: {verdict}"),
            )?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) {
        if self.printer.shows_progress() {
            self.bar.set_position(step.step);
            self.bar.set_message(format!(
                "loss {:.4}  {:.0} {}/s  {}",
                step.loss,
                step.tokens_per_s,
                self.unit,
                bytes(step.peak_rss_bytes)
            ));
            return;
        }
        let every = self.max_steps.div_ceil(STEP_LINES).max(1);
        if step.step == 1 || step.step == self.max_steps || step.step.is_multiple_of(every) {
            self.printer.note(&format!(
                "step {}/{}  loss {:.4}  learning rate {:.3e}  gradient {:.3e}  {:.0} {}/s  {}",
                step.step,
                self.max_steps,
                step.loss,
                step.learning_rate,
                step.grad_norm,
                step.tokens_per_s,
                self.unit,
                bytes(step.peak_rss_bytes)
            ));
        }
    }

    fn finished(&mut self, finished: &Finished) -> Result<(), CliError> {
        let losses = match (finished.loss_before, finished.loss_after) {
            (Some(before), Some(after)) => {
                let what = match self.unit {
                    "rows" => "test mean squared error",
                    _ => "held-out loss",
                };
                format!(", {what} {} -> {}", measured(before, 4), measured(after, 4))
            }
            _ => String::new(),
        };
        let result = [("adapter", &finished.adapter), ("model", &finished.model)];
        self.printer.row(
            "finished",
            &format!(
                "{} in {}{losses}",
                counted(finished.steps, "step"),
                seconds(finished.seconds)
            ),
        )?;
        for (label, path) in result {
            if let Some(path) = path {
                self.printer.row(label, &path.display().to_string())?;
            }
        }
        Ok(())
    }
}

impl Observer for TrainObserver<'_, '_> {
    fn on_event(&mut self, event: &Event) {
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = self.print(event) {
            self.stop.store(true, Ordering::Relaxed);
            self.failed = Some(error);
        }
    }
}

/// What the run does, in a line.
fn plan(start: &Start) -> String {
    let accumulation = match start.gradient_accumulation {
        1 => String::new(),
        n => format!(" x {n}"),
    };
    let lambda = with_lambda(start.lambda);
    format!(
        "{} of {} x {}{accumulation} tokens, {}, {}, seed {}{lambda}",
        counted(start.max_steps, "step"),
        start.batch_size,
        start.sequence_length,
        start.precision,
        counted(start.threads, "thread"),
        start.seed
    )
}

/// The share of the variance that is explained, where there is one.
fn explained(share: Option<f64>, decimals: usize) -> String {
    share.map_or_else(String::new, |share| format!(", R2 {share:.decimals$}"))
}

/// Why a run ended, in words.
fn because(reason: &StopReason) -> String {
    match reason {
        StopReason::Steps => "all steps are done".to_owned(),
        StopReason::LossChange {
            change,
            bound,
            window,
        } => format!(
            "the loss changed by {change:.1e} from one window of {} to the next, less than {bound:e}",
            counted(*window, "step")
        ),
        StopReason::GradNorm { grad_norm, bound } => {
            format!("the gradient's norm is {grad_norm:.1e}, less than {bound:e}")
        }
        StopReason::Patience { evaluations, best } => {
            format!(
                "{} in a row without a loss below {}",
                counted(*evaluations, "evaluation"),
                measured(*best, 4)
            )
        }
    }
}

/// The factor of the gradient, where it is a constant other than one.
fn with_lambda(lambda: Option<f64>) -> String {
    match lambda {
        Some(lambda) if lambda.to_bits() != 1.0_f64.to_bits() => {
            format!(", lambda {}", given(lambda))
        }
        _ => String::new(),
    }
}
