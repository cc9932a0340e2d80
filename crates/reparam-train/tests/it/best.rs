//! Which model of a run stays: the best one that was evaluated, its checkpoints, and none where nothing was learned.

use std::path::{Path, PathBuf};

use reparam_data::ReadOptions;
use reparam_train::RunFile as _;
use reparam_train::config::{Override, RunConfig};
use reparam_train::event::Event;
use reparam_train::{Outcome, Stop, evaluate_file};
use tempfile::TempDir;

use crate::witness::{Witness, read_events};
use crate::{names, repository, stories};

/// What is learned is another language than what is held out, so that learning does harm.
const LEARNED: &str =
    "To be, or not to be, that is the question: Whether 'tis nobler in the mind to suffer";
const HELD_OUT: &str =
    "Once upon a time, there was a little girl named Lily. She loved to play outside.";

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a directory"));
        std::fs::write(place.path("learned.txt"), LEARNED).expect("writes");
        std::fs::write(place.path("held_out.txt"), HELD_OUT).expect("writes");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self, run: &str, overrides: &[&str]) -> RunConfig {
        let text = format!(
            "[model]\npath = {:?}\n[data]\ntrain = {:?}\neval = {:?}\n[method]\nkind = \"lora\"\nrank = 2\n\
             [optimizer]\nlearning_rate = 1e-2\n[train]\nmax_steps = 9\nbatch_size = 1\nsequence_length = 32\n\
             precision = \"f32\"\neval_every = 2\n[output]\ndir = {:?}\n",
            repository("assets/stories260K"),
            self.path("learned.txt"),
            self.path("held_out.txt"),
            self.path(run),
        );
        let overrides: Vec<Override> = overrides.iter().copied().map(Override::set).collect();
        let config = RunConfig::parse(&text, "run.toml", &overrides);
        config.unwrap_or_else(|error| panic!("{error}"))
    }

    fn finish(&self, run: &str, overrides: &[&str]) -> Witness {
        let mut witness = Witness::default();
        let outcome = witness.train(&self.config(run, overrides));
        assert_eq!(outcome.expect("a run"), Outcome::Finished);
        witness
    }

    /// The held-out loss of the base with a saved adapter.
    fn loss(&self, adapter: &str) -> f64 {
        let session = stories()
            .with_adapter(&self.path(adapter))
            .expect("an adapter");
        let loss = evaluate_file(
            &session,
            self.path("held_out.txt"),
            &ReadOptions::default(),
            32,
            Stop::never(),
        );
        loss.expect("evaluates").primary()
    }

    fn checkpoints(&self, run: &str) -> Vec<String> {
        let directory = self.path(run).join("checkpoints");
        if directory.is_dir() {
            names(&directory)
        } else {
            Vec::new()
        }
    }
}

/// The steps after which a checkpoint was saved.
fn saved_checkpoints(run: &Path) -> Vec<u64> {
    let events = read_events(run).into_iter();
    let steps = events.filter_map(|event| match event {
        Event::Saved { step, path } if path.parent()?.ends_with("checkpoints") => Some(step),
        _ => None,
    });
    steps.collect()
}

/// An average that the update keeps is what is evaluated, so it is what is saved of the best step, too.
#[test]
fn a_run_that_only_gets_worse_keeps_its_first_evaluation_and_says_so() {
    let updates = [
        "{ learning_rate = 1e-2 }",
        "{ kind = \"schedule_free_adamw\", learning_rate = 1e-2 }",
        "{ learning_rate = 1e-2, transforms = [{ kind = \"adamw\" }, { kind = \"ema\", decay = 0.5 }] }",
    ];
    for update in updates {
        let place = Place::new();
        let update = format!("optimizer={update}");
        let witness = place.finish("run", &[&update]);
        let evaluations = witness.evaluations();
        assert!(
            evaluations.windows(2).all(|pair| pair[1].1 > pair[0].1),
            "{update}: {evaluations:?}"
        );
        let finished = witness.finished();
        let [before, first, .., last] = &evaluations[..] else {
            panic!("{evaluations:?}");
        };
        assert_eq!((finished.steps, first.0, last.0), (9, 2, 9));
        assert_eq!(
            (finished.best_step, finished.best_loss),
            (Some(2), Some(first.1))
        );
        assert_eq!(
            (finished.before, finished.after),
            (Some(before.1), Some(first.1))
        );
        assert_eq!(
            (finished.last_loss, finished.improved),
            (Some(last.1), Some(false))
        );
        // What is saved is that model: a run reads its own numbers back to the bit.
        assert_eq!(place.loss("run/adapter"), first.1, "{update}");
        let saved = Event::Saved {
            step: 2,
            path: place.path("run/adapter"),
        };
        assert!(witness.events.contains(&saved));
        assert_eq!(place.checkpoints("run"), [""; 0]);

        let witness = place.finish("last", &[&update, "train.keep=last"]);
        let finished = witness.finished();
        assert_eq!(
            (finished.best_step, finished.best_loss),
            (Some(2), Some(first.1))
        );
        assert_eq!(
            (finished.after, finished.improved),
            (Some(last.1), Some(false))
        );
        assert_eq!(place.loss("last/adapter"), last.1, "{update}");
    }
}

#[test]
fn a_run_that_is_stopped_keeps_its_best_model_beside_its_state() {
    let place = Place::new();
    let mut witness = Witness {
        stop_at: Some(5),
        ..Witness::default()
    };
    let outcome = witness.train(&place.config("run", &[]));
    assert_eq!(
        outcome.expect("it ends well"),
        Outcome::Interrupted { step: 5 }
    );
    let evaluations = witness.evaluations();
    let steps: Vec<u64> = evaluations.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [0, 2, 4]);
    assert_eq!(place.loss("run/adapter"), evaluations[1].1);
    assert_eq!(place.checkpoints("run"), ["best-000002", "step-000005"]);
    // It can be asked at any time, by whoever reads adapters.
    assert_eq!(place.loss("run/checkpoints/best-000002"), evaluations[1].1);
    let svg = std::fs::read_to_string(place.path("run/loss.svg")).expect("a picture");
    assert!(svg.contains("after step 2"), "{svg}");
}

#[test]
fn the_newest_checkpoints_stay() {
    let place = Place::new();
    for (run, overrides, saved, kept) in [
        (
            "two",
            &["train.save_every=2"][..],
            &[2, 4, 6, 8][..],
            &[6, 8][..],
        ),
        (
            "one",
            &["train.save_every=2", "train.keep_last=1"],
            &[2, 4, 6, 8],
            &[8],
        ),
        (
            "all",
            &["train.save_every=2", "train.keep_last=0"],
            &[2, 4, 6, 8],
            &[2, 4, 6, 8],
        ),
        (
            "none",
            &["train.save_every=0", "train.max_steps=25"],
            &[],
            &[],
        ),
        // A tenth of the run, but at least ten steps.
        ("default", &["train.max_steps=25"], &[10, 20], &[10, 20]),
        ("short", &[], &[], &[]),
    ] {
        place.finish(run, overrides);
        assert_eq!(saved_checkpoints(&place.path(run)), saved, "{run}");
        let kept: Vec<String> = kept.iter().map(|step| format!("step-{step:06}")).collect();
        assert_eq!(place.checkpoints(run), kept, "{run}");
    }
    // Which checkpoints stay changes no number.
    let result = |run: &str| {
        let file = place.path(run).join("adapter/adapter_model.safetensors");
        std::fs::read(file).expect("a result")
    };
    assert!(
        ["two", "one", "all"]
            .iter()
            .all(|run| result(run) == result("short"))
    );
    let other = [
        "train.save_every=3",
        "train.keep_last=5",
        &format!("output.dir={}", place.path("two").display()),
    ];
    let mut witness = Witness::default();
    let config = place.config("two", &other);
    let run = reparam_train::TaskRun::of::<reparam_train::tasks::CausalLanguageModel>(config);
    let outcome = witness.run(&run, true).expect("the same run");
    assert_eq!(outcome, Outcome::AlreadyFinished);
}

#[test]
fn a_run_that_is_stopped_before_its_first_step_saves_nothing() {
    let place = Place::new();
    // In the evaluation before the first step.
    let mut witness = Witness {
        stop_at: Some(0),
        ..Witness::default()
    };
    let outcome = witness.train(&place.config("run", &[]));
    assert_eq!(
        outcome.expect("it ends well"),
        Outcome::Interrupted { step: 0 }
    );
    let saved = witness
        .events
        .iter()
        .find(|event| matches!(event, Event::Saved { .. }));
    assert_eq!(saved, None);
    assert_eq!(witness.events.last(), Some(&Event::Interrupted { step: 0 }));
    for entry in ["adapter", "model", "checkpoints"] {
        assert!(!place.path("run").join(entry).exists(), "{entry}");
    }
}

/// The picture is a function of the events, and so the same when a run goes on.
#[test]
fn every_run_draws_its_losses() {
    let place = Place::new();
    let overrides = ["train.log_every=2", "train.save_every=4"];
    place.finish("run", &overrides);
    let picture = |run: &str| std::fs::read_to_string(place.path(run).join("loss.svg"));
    let svg = picture("run").expect("a picture");
    for text in ["training loss", "held-out loss", "best: ", "step"] {
        assert!(svg.contains(text), "{text}");
    }
    assert!(svg.len() < 20_000 && !svg.contains("NaN"), "{}", svg.len());
    let mut witness = Witness {
        stop_at: Some(7),
        ..Witness::default()
    };
    let config = place.config("stopped", &overrides);
    let outcome = witness.train(&config).expect("it ends well");
    assert_eq!(outcome, Outcome::Interrupted { step: 7 });
    assert_ne!(picture("stopped").expect("a picture"), svg);
    let run = reparam_train::TaskRun::of::<reparam_train::tasks::CausalLanguageModel>(config);
    Witness::default().run(&run, true).expect("it goes on");
    assert_eq!(picture("stopped").expect("a picture"), svg);
}
