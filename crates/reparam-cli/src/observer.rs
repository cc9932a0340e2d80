//! Tells the user what happens in a run: JSON Lines, or text with a progress bar.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use reparam_kernels::memory::release_freed_pages;
use reparam_train::event::{Event, Finished, Observer, Start, Step, StopReason, Time};

use crate::error::{CliError, Result};
use crate::format::{bytes, counted, given, hinted, measure, measured, seconds, short};
use crate::output::Printer;
use crate::progress::{Meter, Pace};
use crate::starting::lines;

/// What the progress bar shows; the loss, speed, memory and time left are its message.
const BAR: &str = "{pos}/{len} {wide_bar} {msg}";

/// Prints the events of a run.
pub(crate) struct TrainObserver<'a, 'p> {
    printer: &'a mut Printer<'p>,
    stop: Arc<AtomicBool>,
    keeps: Arc<AtomicBool>,
    meter: &'a Meter,
    bar: ProgressBar,
    pace: Pace,
    started: Instant,
    max_steps: u64,
    /// The first failure to write, which stops the run.
    failed: Option<CliError>,
}

impl<'a, 'p> TrainObserver<'a, 'p> {
    /// `stop` is set when the output cannot be written any more, `keeps` once there is something to save.
    pub(crate) fn new(
        printer: &'a mut Printer<'p>,
        meter: &'a Meter,
        (stop, keeps): (Arc<AtomicBool>, Arc<AtomicBool>),
    ) -> Self {
        Self {
            printer,
            stop,
            keeps,
            meter,
            bar: ProgressBar::hidden(),
            pace: Pace::default(),
            started: Instant::now(),
            max_steps: 0,
            failed: None,
        }
    }

    /// Takes the bar away, and returns the failure to write, if there was one.
    pub(crate) fn finish(self) -> Result<()> {
        self.bar.finish_and_clear();
        self.failed.map_or(Ok(()), Err)
    }

    fn print(&mut self, event: &Event, time: Time) -> Result<()> {
        self.meter.print_notes(self.printer);
        // The command prints why it fails itself, with the exit code.
        if matches!(event, Event::Failed { .. }) {
            return Ok(());
        }
        if let Event::Finished(finished) = event {
            self.bar.finish_and_clear();
            self.warn(finished);
        }
        if self.printer.is_json() {
            let line = event
                .to_json_line(time)
                .map_err(|error| CliError::Output(std::io::Error::other(error)))?;
            return self.printer.json_line(&line);
        }
        match event {
            Event::Step(step) => {
                self.step(step);
                Ok(())
            }
            Event::Finished(finished) => self.finished(finished),
            _ if self.printer.is_quiet() => Ok(()),
            // Not while the bar is suspended: this is where it is first shown, and indicatif holds
            // the bar's lock during `suspend`.
            Event::Start(start) => self.start(start),
            _ => {
                let bars = self.meter.bars.clone();
                bars.suspend(|| self.print_text(event))
            }
        }
    }

    /// The events that are lines of text between the steps.
    fn print_text(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Evaluation(evaluation) => {
                let metrics = evaluation.metrics.iter();
                let metrics = metrics
                    .filter_map(|(name, value)| Some(format!("{name} {}", measure(value, 4)?)));
                let metrics: Vec<String> = metrics.collect();
                let text = format!("step {}: {}", evaluation.step, metrics.join(", "));
                self.printer.row("evaluation", &text)
            }
            Event::Report { text, .. } => text
                .iter()
                .try_for_each(|(label, text)| self.printer.row(label, text)),
            Event::Stopped { step, reason } => self
                .printer
                .row("stopped", &format!("step {step}: {}", because(reason))),
            Event::Sample { step, prompt, text } => self
                .printer
                .row("sample", &format!("step {step}: {prompt}{text}")),
            Event::Saved { step, path } => self
                .printer
                .row("saved", &format!("step {step}: {}", path.display())),
            Event::Replaced { removed } => self.printer.row(
                "replaced",
                &format!("the earlier run: {}", removed.join(", ")),
            ),
            Event::Warning { message, hint, .. } => {
                self.printer.warn(&hinted(message, hint.as_deref()));
                Ok(())
            }
            Event::Resumed { step } => self.printer.row("resumed", &format!("after step {step}")),
            // The command says so itself, and an event of a later version has no text here.
            _ => Ok(()),
        }
    }

    fn start(&mut self, start: &Start) -> Result<()> {
        self.max_steps = start.max_steps;
        for (label, value) in lines(start) {
            self.printer.row(label, &value)?;
        }
        self.started = Instant::now();
        if self.printer.shows_progress() {
            self.bar = self.meter.bars.add(ProgressBar::new(start.max_steps));
            if let Ok(style) = ProgressStyle::with_template(BAR) {
                self.bar.set_style(style);
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) {
        self.pace.step(step);
        let speed = format!("{:.0} {}/s", step.per_second, step.unit);
        let memory = bytes(step.peak_rss_bytes);
        let left = seconds(self.pace.left(self.max_steps.saturating_sub(step.step)));
        if self.printer.shows_progress() {
            self.bar.set_position(step.step);
            self.bar.set_message(format!(
                "loss {:.4}  {speed}  {memory}  {left} left",
                step.loss
            ));
            return;
        }
        let is_first = self.pace.n_steps() == 1;
        if is_first || step.step == self.max_steps || self.pace.is_due() {
            let loss = match self.pace.take_mean_loss() {
                Some(mean) => format!("{} (mean {})", measured(step.loss, 4), measured(mean, 4)),
                None => measured(step.loss, 4),
            };
            let (rate, norm) = (short(step.learning_rate), short(step.grad_norm));
            let elapsed = seconds(self.started.elapsed().as_secs_f64());
            self.printer.note(&format!(
                "step {}/{}  loss {loss}  learning rate {rate}  gradient {norm}  {speed}  {memory}  {elapsed}, {left} left",
                step.step, self.max_steps,
            ));
        }
    }

    /// Says so if nothing was won.
    fn warn(&mut self, finished: &Finished) {
        let (Some(false), Some(metric)) = (finished.improved, &finished.metric) else {
            return;
        };
        let (Some(before), Some(after)) = (finished.before, finished.after) else {
            return;
        };
        self.printer.warn(&format!(
            "the model is not better than before: held-out {metric} {} before the first step, {} of the \
             result\nhint: lower optimizer.learning_rate, evaluate more often with train.eval_every, or use more data",
            measured(before, 4),
            measured(after, 4)
        ));
    }

    fn finished(&mut self, finished: &Finished) -> Result<()> {
        let measured = match (&finished.metric, finished.before, finished.after) {
            (Some(metric), Some(before), Some(after)) => format!(
                ", held-out {metric} {} -> {}{}",
                measured(before, 4),
                measured(after, 4),
                earlier(finished)
            ),
            _ => String::new(),
        };
        self.printer.row(
            "finished",
            &format!(
                "{} in {}{measured}",
                counted(finished.steps, "step"),
                seconds(finished.seconds)
            ),
        )?;
        for (label, path) in [("adapter", &finished.adapter), ("model", &finished.model)] {
            if let Some(path) = path {
                self.printer.row(label, &path.display().to_string())?;
            }
        }
        Ok(())
    }
}

/// Which step the result is of, if it is not the last one.
fn earlier(finished: &Finished) -> String {
    match (finished.best_step, finished.after, finished.last_loss) {
        (Some(step), after, Some(last)) if step < finished.steps && after == finished.best_loss => {
            format!(" after step {step} ({} at the end)", measured(last, 4))
        }
        _ => String::new(),
    }
}

impl Observer for TrainObserver<'_, '_> {
    fn on_event(&mut self, event: &Event, time: Time) {
        if matches!(event, Event::Start(_) | Event::Evaluation(_)) {
            release_freed_pages();
        }
        if matches!(event, Event::Start(_)) {
            self.keeps.store(true, Ordering::Relaxed);
        }
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = self.print(event, time) {
            self.stop.store(true, Ordering::Relaxed);
            self.failed = Some(error);
        }
    }
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
            "the loss changed by {} from one window of {} to the next, less than {}",
            short(*change),
            counted(*window, "step"),
            given(*bound)
        ),
        StopReason::GradNorm { grad_norm, bound } => {
            format!(
                "the gradient's norm is {}, less than {}",
                short(*grad_norm),
                given(*bound)
            )
        }
        StopReason::Patience { evaluations, best } => {
            format!(
                "{} in a row no better than {}",
                counted(*evaluations, "evaluation"),
                measured(*best, 4)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::env_vars::Environment;
    use crate::output::Streams;

    /// What is printed of events, on standard output and beside it.
    fn printed(lines: &[Value], quiet: bool) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let streams = Streams {
            out: &mut out,
            err: &mut err,
            out_is_terminal: false,
            err_is_terminal: false,
        };
        let mut printer = Printer::new(streams, &Environment::of(&[]));
        printer.set_quiet(quiet);
        let meter = Meter::new(&printer);
        let mut observer = TrainObserver::new(&mut printer, &meter, Default::default());
        for line in lines {
            let mut line = line.clone();
            line["schema_version"] = 2.into();
            let event = Event::from_json_line(&line.to_string()).unwrap();
            observer.on_event(&event, Time::now());
        }
        observer.finish().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(out), text(err))
    }

    fn events() -> Vec<Value> {
        let start = json!({
            "event": "start", "task": "causal-lm", "method": "lora", "model": "base",
            "trainable_parameters": 1000, "total_parameters": 8000, "model_parameters": 7000,
            "targets": ["a", "b"], "scaling": 2.0, "max_steps": 40, "batch_size": 4,
            "gradient_accumulation": 2, "precision": "f32", "learning_rate": 2e-4, "lambda": 0.5,
            "threads": 2, "seed": 7, "output": "runs/a",
            "data": {"train_tokens": 12345, "cut_examples": 0, "features": ["x", "z"], "target": "y",
                "held_out": [{"file": "a.txt", "held_out": 12, "of": 1240, "unit": "documents"}]},
        });
        let evaluation = json!({
            "event": "evaluation", "step": 0, "primary": "loss",
            "metrics": {"loss": 2.0, "perplexity": 7.389, "r2": null, "tokens": 1600},
        });
        let step = |step: u64| {
            json!({
                "event": "step", "step": step, "loss": 1.99, "learning_rate": 2e-4,
                "grad_norm": 0.5, "weight": 80.0, "unit": "tokens", "per_second": 100.0,
                "peak_rss_bytes": 1_610_612_736_u64,
            })
        };
        let mut events = vec![start, json!({"event": "resumed", "step": 0}), evaluation];
        events.push(json!({"event": "sample", "step": 0, "prompt": "Once", "text": " upon"}));
        events.extend((1..=40).map(step));
        events.extend([
            json!({"event": "stopped", "step": 40, "reason": "grad_norm", "grad_norm": 1.5e-4, "bound": 1e-3}),
            json!({"event": "report", "report": {}, "text": [["distance", "small"]]}),
            json!({"event": "saved", "step": 40, "path": "runs/a/adapter"}),
            json!({"event": "finished", "steps": 40, "seconds": 75.0, "metric": "loss",
                "before": 2.0, "after": 1.5e-5, "adapter": "runs/a/adapter"}),
        ]);
        events
    }

    #[test]
    fn a_run_reports_in_text() {
        let (out, err) = printed(&events(), false);
        insta::assert_snapshot!(out, @r#"
        model       base, 7,000 parameters
        method      lora on 2 modules, scaling 2
        trainable   1,000 parameters (12.50 %)
        data        train tokens 12,345, features 2, target y
        run         40 steps, batch 4 x 2, learning rate 0.0002, lambda 0.5, f32, 2 threads, seed 7
        output      runs/a
        held out    12 of 1,240 documents of a.txt
        resumed     after step 0
        evaluation  step 0: loss 2.0000, perplexity 7.3890, tokens 1,600
        sample      step 0: Once upon
        stopped     step 40: the gradient's norm is 1.5e-4, less than 0.001
        distance    small
        saved       step 40: runs/a/adapter
        finished    40 steps in 1m 15s, held-out loss 2.0000 -> 1.5e-5
        adapter     runs/a/adapter
        "#);
        // The first step, the last, and between them one about every ten seconds.
        let lines: Vec<&str> = err.lines().collect();
        assert_eq!(lines.len(), 4, "{err}");
        insta::assert_snapshot!(lines[0], @"step 1/40  loss 1.9900  learning rate 2e-4  gradient 0.5  100 tokens/s  1.5 GiB  0.0s, 31.2s left");
        assert!(
            lines[1].starts_with("step 14/40  loss 1.9900 (mean 1.9900)  "),
            "{err}"
        );
        assert!(
            lines[3].starts_with("step 40/40 ") && lines[3].ends_with(" 0.0s left"),
            "{err}"
        );
    }

    /// Of some measures more is better.
    #[test]
    fn what_a_run_waited_for_is_said_of_any_measure() {
        let patience = StopReason::Patience {
            evaluations: 3,
            best: 0.875,
        };
        assert_eq!(
            because(&patience),
            "3 evaluations in a row no better than 0.8750"
        );
    }

    #[test]
    fn a_result_of_an_earlier_step_and_one_that_is_no_better_are_said() {
        let run = |after: f64, improved: bool| {
            let finished = json!({"event": "finished", "steps": 40, "seconds": 1.0, "metric": "loss",
                "before": 2.0, "after": after, "best_step": 20, "best_loss": after, "last_loss": 2.5,
                "improved": improved, "adapter": "runs/a/adapter"});
            printed(&[finished], false)
        };
        let (out, err) = run(1.5, true);
        assert!(
            out.contains("held-out loss 2.0000 -> 1.5000 after step 20 (2.5000 at the end)\n"),
            "{out}"
        );
        assert_eq!(err, "");
        let (_, err) = run(2.25, false);
        insta::assert_snapshot!(err, @r#"
        warning: the model is not better than before: held-out loss 2.0000 before the first step, 2.2500 of the result
        hint: lower optimizer.learning_rate, evaluate more often with train.eval_every, or use more data
        "#);
    }

    #[test]
    fn quiet_training_prints_the_result_alone() {
        let (out, err) = printed(&events(), true);
        assert_eq!(err, "");
        insta::assert_snapshot!(out, @r#"
        finished    40 steps in 1m 15s, held-out loss 2.0000 -> 1.5e-5
        adapter     runs/a/adapter
        "#);
    }
}
