//! Runs that go on from a checkpoint, within one process: every kind of state, every checkpoint.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use reparam_train::RunFile as _;
use reparam_train::config::{Override, RunConfig};
use reparam_train::event::{Event, Finished, Observer, Time};
use reparam_train::tasks::CausalLanguageModel;
use reparam_train::{Outcome, TaskRun, TrainError, TrainOptions, train};

use crate::witness::{Witness, read_events};
use crate::{offline, repository};

const LORA: &str = "method.dropout=0.1";

/// Updates whose state is of every kind that there is.
const UPDATES: [&str; 9] = [
    "{ kind = \"adamw\" }",
    "{ kind = \"lion\" }",
    "{ kind = \"adafactor\" }",
    "{ kind = \"schedule_free_adamw\" }",
    "{ kind = \"rmsprop\" }",
    "{ kind = \"lamb\" }",
    "{ kind = \"sgd\", momentum = 0.9, lambda = \"adaptive\" }",
    "{ transforms = [{ kind = \"sam\" }, { kind = \"adamw\" }, { kind = \"ema\" }] }",
    "{ transforms = [{ kind = \"accumulate\", steps = 2, transforms = [{ kind = \"muon\" }] }] }",
];

pub(crate) fn run(directory: &Path, data: &Path, overrides: &[&str]) -> TaskRun {
    let text = format!(
        "[model]\npath = {:?}\n[data]\ntrain = {data:?}\neval_fraction = 0.3\n[method]\nkind = \"lora\"\nrank = 2\n\
         [optimizer]\nlearning_rate = 1e-3\n[train]\nmax_steps = 7\nbatch_size = 1\nsequence_length = 16\nseed = 3\n\
         precision = \"f32\"\neval_every = 2\nsave_every = 2\ngradient_accumulation = 2\n[output]\ndir = {directory:?}\n",
        repository("assets/stories260K"),
    );
    let overrides: Vec<Override> = overrides.iter().copied().map(Override::set).collect();
    let config = RunConfig::parse(&text, "run.toml", &overrides);
    TaskRun::of::<CausalLanguageModel>(config.unwrap_or_else(|error| panic!("{error}")))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

/// The losses, norms and measures of a run's file of events.
fn numbers(run: &Path) -> Vec<(u64, f64, f64)> {
    let events = read_events(run)
        .into_iter()
        .filter_map(|event| match event {
            Event::Step(step) => Some((step.step, step.loss, step.grad_norm)),
            Event::Evaluation(evaluation) => Some((evaluation.step, evaluation.value(), 0.0)),
            Event::Finished(finished) => Some((finished.steps, finished.before?, finished.after?)),
            _ => None,
        });
    events.collect()
}

fn result(run: &Path) -> Vec<u8> {
    let adapter = run.join("adapter/adapter_model.safetensors");
    let model = run.join("model/model.safetensors");
    fs::read(if adapter.is_file() { adapter } else { model }).expect("a result")
}

/// Copies a run's directory after each checkpoint: what is left if it is killed then.
struct Copying<'a> {
    run: &'a Path,
    place: &'a Path,
    finished: Option<Finished>,
}

impl Observer for Copying<'_> {
    fn on_event(&mut self, event: &Event, _: Time) {
        match event {
            Event::Saved { step, path } if path.starts_with(self.run.join("checkpoints")) => {
                copy(self.run, &self.place.join(format!("killed-{step}")));
            }
            Event::Finished(finished) => self.finished = Some(finished.clone()),
            _ => {}
        }
    }
}

/// Makes a run that nothing interrupts; beside it are `killed-2` and so on.
#[track_caller]
fn make_whole(task: &TaskRun, place: &Path) -> Finished {
    let mut copying = Copying {
        run: task.output(),
        place,
        finished: None,
    };
    let options = TrainOptions::new(offline());
    let outcome = train(task, &options, &AtomicBool::new(false), &mut copying);
    assert_eq!(outcome.expect("a run"), Outcome::Finished);
    copying.finished.expect("an end")
}

#[track_caller]
fn goes_on(overrides: &[&str], has_early_best: bool) {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("train.txt");
    let text = fs::read(repository("assets/tinyshakespeare.txt")).expect("a text");
    fs::write(&data, &text[..700]).expect("writes");
    let whole = place.path().join("whole");
    let finished = make_whole(&run(&whole, &data, overrides), place.path());
    let is_early = finished.best_step.is_some_and(|step| step < 7);
    assert_eq!(is_early, has_early_best, "{overrides:?}: {finished:?}");

    // As if killed after a checkpoint, while a later step's line was being written.
    for newest in [2, 4, 6] {
        let killed = place.path().join(format!("killed-{newest}"));
        let events = fs::read_to_string(killed.join("events.jsonl")).expect("events");
        fs::write(killed.join("events.jsonl"), events + "{\"schema_ver").expect("writes");
        let outcome = Witness::default().run(&run(&killed, &data, overrides), true);
        assert_eq!(outcome.expect("a run"), Outcome::Finished, "{overrides:?}");
        assert!(result(&killed) == result(&whole), "{newest}: {overrides:?}");
        assert_eq!(numbers(&killed), numbers(&whole), "{newest}: {overrides:?}");
        let resumed = read_events(&killed)
            .into_iter()
            .find_map(|event| match event {
                Event::Resumed { step } => Some(step),
                _ => None,
            });
        assert_eq!(resumed, Some(newest));
    }

    // Asked to stop after each step.
    for stop_at in [1, 6, 7] {
        let stopped = place.path().join(format!("stopped-{stop_at}"));
        let task = run(&stopped, &data, overrides);
        let mut witness = Witness {
            stop_at: Some(stop_at),
            ..Witness::default()
        };
        let outcome = witness.run(&task, false).expect("it ends well");
        assert_eq!(outcome, Outcome::Interrupted { step: stop_at });
        let outcome = Witness::default().run(&task, true);
        assert_eq!(outcome.expect("a run"), Outcome::Finished);
        assert!(
            result(&stopped) == result(&whole),
            "{stop_at}: {overrides:?}"
        );
        assert_eq!(
            numbers(&stopped),
            numbers(&whole),
            "{stop_at}: {overrides:?}"
        );
    }
}

#[test]
fn every_update_goes_on_to_the_same_bits() {
    for update in UPDATES {
        // The last of seven steps only accumulates, so step 6 has the same loss and comes first.
        let has_early_best = update.contains("accumulate");
        let update = update.replacen('{', "{ learning_rate = 1e-3,", 1);
        goes_on(&[LORA, &format!("optimizer={update}")], has_early_best);
    }
}

#[test]
fn every_method_goes_on_to_the_same_bits() {
    for method in ["full", "weight_norm", "sigma_reparam", "overparameterized"] {
        // Slow enough to get better up to the last step.
        let method = format!("method={{ kind = \"{method}\" }}");
        goes_on(&[&method, "optimizer.learning_rate=1e-4"], false);
    }
    goes_on(&[LORA, "train.precision=bf16"], false);
}

/// The best model is in none of the newest checkpoints, but in a folder of its own.
#[test]
fn an_early_best_model_survives() {
    for update in [
        "{ kind = \"adamw\", learning_rate = 0.1 }",
        "{ learning_rate = 0.1, transforms = [{ kind = \"adamw\" }, { kind = \"ema\", decay = 0.5 }] }",
    ] {
        goes_on(
            &[
                LORA,
                "train.save_every=2",
                "train.keep_last=1",
                &format!("optimizer={update}"),
            ],
            true,
        );
    }
    goes_on(
        &["method={ kind = \"full\" }", "optimizer.learning_rate=0.1"],
        true,
    );
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("train.txt");
    let text = fs::read(repository("assets/tinyshakespeare.txt")).expect("a text");
    fs::write(&data, &text[..700]).expect("writes");
    let whole = place.path().join("whole");
    make_whole(&run(&whole, &data, &[]), place.path());
    for (file, resumed) in [
        ("state.json", 4),
        ("theta.safetensors", 4),
        ("optimizer.safetensors", 4),
    ] {
        let damaged = place.path().join(file);
        copy(&place.path().join("killed-6"), &damaged);
        let path = damaged.join("checkpoints/step-000006/state").join(file);
        let bytes = fs::read(&path).expect("a file");
        fs::write(&path, &bytes[..bytes.len() / 2]).expect("writes");
        let mut witness = Witness::default();
        let outcome = witness.run(&run(&damaged, &data, &[]), true);
        assert_eq!(outcome.expect("a run"), Outcome::Finished, "{file}");
        assert!(
            witness.events.contains(&Event::Resumed { step: resumed }),
            "{file}"
        );
        assert!(result(&damaged) == result(&whole), "{file}");
    }
}

/// A damaged checkpoint of a later step does not push out the one that is whole.
#[test]
fn the_newest_whole_checkpoint_stays() {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("train.txt");
    let text = fs::read(repository("assets/tinyshakespeare.txt")).expect("a text");
    fs::write(&data, &text[..700]).expect("writes");
    let whole = place.path().join("whole");
    make_whole(&run(&whole, &data, &[]), place.path());
    let damaged = place.path().join("damaged");
    copy(&place.path().join("killed-6"), &damaged);
    for step in [4, 6] {
        let theta = damaged.join(format!(
            "checkpoints/step-{step:06}/state/theta.safetensors"
        ));
        fs::write(theta, b"not whole").expect("writes");
    }
    let mut witness = Witness {
        stop_at: Some(3),
        ..Witness::default()
    };
    let outcome = witness.run(&run(&damaged, &data, &["train.keep_last=1"]), true);
    let outcome = outcome.expect("a run");
    assert!(
        matches!(outcome, Outcome::Interrupted { .. }),
        "{outcome:?}"
    );
    let checkpoints = fs::read_dir(damaged.join("checkpoints")).expect("checkpoints");
    let names = checkpoints.map(|entry| entry.expect("an entry").file_name());
    let mut steps: Vec<_> = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with("step-"))
        .collect();
    steps.sort();
    assert_eq!(steps, ["step-000003"]);
}

#[test]
fn a_run_of_another_version_is_left_alone() {
    let place = tempfile::tempdir().expect("a directory");
    let old = place.path().join("old");
    fs::create_dir(&old).expect("a directory");
    let line = "{\"schema_version\":1,\"event\":\"interrupted\",\"step\":3}\n";
    fs::write(old.join("events.jsonl"), line).expect("writes");
    let task = run(&old, &old.join("none.txt"), &[]);
    let error = Witness::default()
        .run(&task, true)
        .expect_err("another version");
    assert!(matches!(error, TrainError::OldRun { .. }), "{error}");
    assert_eq!(
        fs::read_to_string(old.join("events.jsonl")).expect("events"),
        line
    );
}
