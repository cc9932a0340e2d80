//! Where a run says what happens: its file of events, and whoever observes it.

use crate::event::{Event, Observer, Step, Time};
use crate::history::History;
use crate::run_dir::{PICTURE, RunDir};
use crate::state::Best;
use crate::{Result, TrainError};

/// A run's directory and its observer.
pub(crate) struct RunLog<'a> {
    pub(crate) directory: RunDir,
    observer: &'a mut dyn Observer,
    /// Steps between the steps that are written down; the observer is told of all.
    log_every: u64,
    /// What the file of events has of steps and evaluations.
    history: History,
}

impl<'a> RunLog<'a> {
    pub(crate) fn new(directory: RunDir, observer: &'a mut dyn Observer, log_every: u64) -> Self {
        Self {
            directory,
            observer,
            log_every,
            history: History::default(),
        }
    }

    /// Takes up what the file of events says, of a run that goes on.
    pub(crate) fn take_up(&mut self) -> Result<()> {
        self.history = History::read(&self.directory.read_events()?);
        Ok(())
    }

    /// Writes the picture of the run so far.
    pub(crate) fn picture(&self, best: Option<Best>) -> Result<()> {
        let svg = self.history.picture(best).map_err(TrainError::Plot)?;
        self.directory.write(PICTURE, svg.as_bytes()).map(drop)
    }

    pub(crate) fn emit(&mut self, event: Event) -> Result<()> {
        let time = Time::now();
        self.directory.append(&event, time)?;
        if let Event::Evaluation(evaluation) = &event {
            self.history.evaluation(evaluation);
        }
        self.observer.on_event(&event, time);
        Ok(())
    }

    /// Tells the observer alone.
    pub(crate) fn tell(&mut self, event: &Event) {
        self.observer.on_event(event, Time::now());
    }

    pub(crate) fn step(&mut self, step: &Step) -> Result<()> {
        let (event, time) = (Event::Step(step.clone()), Time::now());
        if step.step == 1 || is_due(self.log_every, step.step) {
            self.directory.append(&event, time)?;
            self.history.step(step);
        }
        self.observer.on_event(&event, time);
        Ok(())
    }

    /// Writes down why a run failed; the caller returns the error itself.
    pub(crate) fn failed(&mut self, error: &TrainError) {
        let failed = Event::Failed {
            error: error.to_failure(),
        };
        // The error that ended the run is the one to report, not that of writing it down.
        let _ = self.directory.append(&failed, Time::now());
    }
}

/// Whether something that happens every so many steps happens after this one.
pub(crate) fn is_due(every: u64, step: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}
