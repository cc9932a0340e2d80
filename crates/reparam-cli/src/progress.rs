//! How far long work is: bars on a terminal, else lines by time.

use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use reparam_train::event::Step;
use reparam_train::{Phase, Progress};

use crate::format::count;
use crate::output::Printer;

/// What is over within this is not shown.
const AT_ONCE: Duration = Duration::from_millis(300);

/// Between two lines where there is no terminal.
pub(crate) const BETWEEN_LINES: Duration = Duration::from_secs(10);

const BAR: &str = "{prefix} {percent}% {wide_bar} {eta} left";

/// Shows how far reading, tokenizing and evaluating are, and keeps what is to be said of the data.
pub(crate) struct Meter {
    /// The bars of a terminal; hidden where there is none.
    pub(crate) bars: MultiProgress,
    shows_bars: bool,
    writes_lines: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What is going on, and since when.
    phase: Option<(Phase, Instant)>,
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
    notes: Vec<String>,
}

impl Meter {
    /// Shows what a printer may show.
    pub(crate) fn new(printer: &Printer<'_>) -> Self {
        let shows_bars = printer.shows_progress();
        let target = match shows_bars {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        Self {
            bars: MultiProgress::with_draw_target(target),
            shows_bars,
            writes_lines: printer.writes_progress_lines(),
            state: Mutex::default(),
        }
    }

    /// Prints what has been said of the data since the last time.
    pub(crate) fn print_notes(&self, printer: &mut Printer<'_>) {
        let notes = std::mem::take(&mut self.state().notes);
        self.bars.suspend(|| {
            for note in &notes {
                printer.note(note);
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done in it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, state: &mut State, phase: Phase, done: u64, total: u64) {
        let bar = state.bar.get_or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new(total));
            if let Ok(style) = ProgressStyle::with_template(BAR) {
                bar.set_style(style);
            }
            bar
        });
        bar.set_prefix(phase.name());
        bar.set_length(total);
        bar.set_position(done);
    }
}

impl Progress for Meter {
    fn at(&self, phase: Phase, done: u64, total: u64) {
        let mut state = self.state();
        let now = Instant::now();
        let since = match state.phase {
            Some((known, since)) if known == phase && done > 0 => since,
            _ => {
                state.phase = Some((phase, now));
                now
            }
        };
        if done >= total {
            state.phase = None;
            if let Some(bar) = state.bar.take() {
                bar.finish_and_clear();
                self.bars.remove(&bar);
            }
            return;
        }
        if self.shows_bars && now - since > AT_ONCE {
            self.show(&mut state, phase, done, total);
        }
        let last = state.last_line.unwrap_or(since).max(since);
        if self.writes_lines && now - last > BETWEEN_LINES {
            state.last_line = Some(now);
            // As with every note, there is nobody to tell if standard error is closed.
            let _ = writeln!(
                std::io::stderr(),
                "{phase} {} of {}",
                count(done),
                count(total)
            );
        }
    }

    fn note(&self, text: &str) {
        self.state().notes.push(text.to_owned());
    }
}

/// How fast steps go, evaluations apart, and what came of them since the last line.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The time that the steps of this process took, in seconds.
    in_steps: f64,
    steps: i32,
    /// The weighted sum of the last steps' times.
    recent: f64,
    /// `in_steps` at the last line.
    last_line: f64,
    losses: f64,
    n_losses: f64,
}

impl Pace {
    /// What a step weighs beside the one after it.
    const DECAY: f64 = 0.95;

    /// Takes in a step.
    pub(crate) fn step(&mut self, step: &Step) {
        let seconds = step.weight / step.per_second;
        if seconds.is_finite() {
            self.in_steps += seconds;
            self.steps = self.steps.saturating_add(1);
            self.recent = Self::DECAY * self.recent + (1.0 - Self::DECAY) * seconds;
        }
        self.losses += step.loss;
        self.n_losses += 1.0;
    }

    /// The steps so far.
    pub(crate) fn n_steps(&self) -> i32 {
        self.steps
    }

    /// The seconds that so many more steps will take.
    pub(crate) fn left(&self, steps: u64) -> f64 {
        match self.steps {
            0 => 0.0,
            n => steps as f64 * self.recent / (1.0 - Self::DECAY.powi(n)),
        }
    }

    /// Whether it is time for a line.
    pub(crate) fn is_due(&self) -> bool {
        self.in_steps - self.last_line >= BETWEEN_LINES.as_secs_f64()
    }

    /// Takes the mean loss since the last line, of several steps.
    pub(crate) fn take_mean_loss(&mut self) -> Option<f64> {
        let mean = (self.n_losses > 1.0).then(|| self.losses / self.n_losses);
        *self = Self {
            last_line: self.in_steps,
            losses: 0.0,
            n_losses: 0.0,
            ..*self
        };
        mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(seconds: f64, loss: f64) -> Step {
        let step = serde_json::json!({"step": 1, "loss": loss, "learning_rate": 1e-3, "grad_norm": 1.0,
            "weight": 100.0, "unit": "rows", "per_second": 100.0 / seconds, "peak_rss_bytes": 1});
        serde_json::from_value(step).unwrap()
    }

    #[test]
    fn the_pace_is_that_of_the_last_steps() {
        let mut pace = Pace::default();
        assert_eq!(pace.left(10), 0.0);
        pace.step(&step(2.0, 4.0));
        assert!((pace.left(10) - 20.0).abs() < 1e-9);
        assert!(!pace.is_due());
        for _ in 0..200 {
            pace.step(&step(0.5, 1.0));
        }
        assert!((pace.left(10) - 5.0).abs() < 0.01, "{}", pace.left(10));
        assert!(pace.is_due());
        let mean = pace.take_mean_loss().unwrap();
        assert!((mean - 204.0 / 201.0).abs() < 1e-9);
        assert!(!pace.is_due());
        pace.step(&step(0.5, 3.0));
        assert_eq!(pace.take_mean_loss(), None);
    }
}
