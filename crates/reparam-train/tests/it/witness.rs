//! Remembers what a run tells.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use reparam_train::config::{RegressionConfig, RunConfig};
use reparam_train::event::{Event, Finished, Observer, Start, Step, StopReason, Time};
use reparam_train::tasks::{CausalLanguageModel, Regression};
use reparam_train::{Outcome, TaskRun, TrainError, TrainOptions, train};

use crate::offline;

/// Remembers the events, and may ask the run to stop.
#[derive(Default)]
pub(crate) struct Witness {
    pub(crate) events: Vec<Event>,
    /// The step after which the run is asked to stop; 0 is when it starts.
    pub(crate) stop_at: Option<u64>,
    pub(crate) stop: AtomicBool,
}

/// Shares a witness with the run: the observer is borrowed mutably, the flag is not.
struct Telling<'a> {
    events: &'a mut Vec<Event>,
    stop_at: Option<u64>,
    stop: &'a AtomicBool,
}

impl Observer for Telling<'_> {
    fn on_event(&mut self, event: &Event, _: Time) {
        self.events.push(event.clone());
        let at = match event {
            Event::Start(_) => Some(0),
            Event::Step(step) => Some(step.step),
            _ => None,
        };
        if at.is_some() && at == self.stop_at {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

impl Witness {
    pub(crate) fn train(&mut self, config: &RunConfig) -> Result<Outcome, TrainError> {
        self.run(&TaskRun::of::<CausalLanguageModel>(config.clone()), false)
    }

    pub(crate) fn regress(&mut self, config: &RegressionConfig) -> Result<Outcome, TrainError> {
        self.run(&TaskRun::of::<Regression>(config.clone()), false)
    }

    /// Makes a run, or goes on with it.
    pub(crate) fn run(&mut self, run: &TaskRun, resume: bool) -> Result<Outcome, TrainError> {
        let options = TrainOptions {
            resume,
            ..TrainOptions::new(offline())
        };
        self.run_with(run, &options)
    }

    /// Makes a run in another way than usual.
    pub(crate) fn run_with(
        &mut self,
        run: &TaskRun,
        options: &TrainOptions,
    ) -> Result<Outcome, TrainError> {
        let mut telling = Telling {
            events: &mut self.events,
            stop_at: self.stop_at,
            stop: &self.stop,
        };
        train(run, options, &self.stop, &mut telling)
    }

    pub(crate) fn steps(&self) -> Vec<&Step> {
        let steps = self.events.iter().filter_map(|event| match event {
            Event::Step(step) => Some(step),
            _ => None,
        });
        steps.collect()
    }

    pub(crate) fn losses(&self) -> Vec<f64> {
        self.steps().iter().map(|step| step.loss).collect()
    }

    /// The measures that decide, by the step after which they were taken.
    pub(crate) fn evaluations(&self) -> Vec<(u64, f64)> {
        let evaluations = self.events.iter().filter_map(|event| match event {
            Event::Evaluation(evaluation) => Some((evaluation.step, evaluation.value())),
            _ => None,
        });
        evaluations.collect()
    }

    pub(crate) fn start(&self) -> &Start {
        match &self.events[0] {
            Event::Start(start) => start,
            other => panic!("a run begins with {other:?}"),
        }
    }

    pub(crate) fn finished(&self) -> &Finished {
        match self.events.last() {
            Some(Event::Finished(finished)) => finished,
            other => panic!("a run ends with {other:?}"),
        }
    }

    /// The step after which the run ended, and why.
    pub(crate) fn stopped(&self) -> (u64, StopReason) {
        let mut stopped = self.events.iter().filter_map(|event| match event {
            Event::Stopped { step, reason } => Some((*step, *reason)),
            _ => None,
        });
        let found = stopped.next().expect("a reason");
        assert_eq!(stopped.next(), None, "one reason");
        found
    }
}

/// The events that a run has written down.
pub(crate) fn read_events(run: &Path) -> Vec<Event> {
    let text = std::fs::read_to_string(run.join("events.jsonl")).expect("events");
    assert!(text.ends_with('\n'));
    let lines = text.lines();
    lines
        .map(|line| Event::from_json_line(line).expect("an event"))
        .collect()
}
