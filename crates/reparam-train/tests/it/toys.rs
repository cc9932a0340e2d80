//! What a caller adds to the library from outside, one file each: a method, a transform, a family, a task.

mod family;
mod method;
mod task;
mod transform;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use reparam::methods::MethodSpec;
use reparam::optim::TransformEntry;
use reparam_formats::checkpoint::Checkpoint;
use reparam_models::{Family, Sampling};
use reparam_train::config::{Catalog, ConfigErrorKind, Precision};
use reparam_train::event::Event;
use reparam_train::{
    DataRequest, EvalRequest, ModelRequest, Outcome, PredictRequest, Predictions, Session, Stop,
    TaskEntry, TaskRun, Tasks, TrainError, inspect,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::offline;
use crate::witness::{Witness, read_events};

/// A run measures its own weights and a reader those on disk; both are `f32`.
const SAVED: f64 = 1e-5;

/// What the four files add, a line each.
fn tasks() -> Tasks {
    let builtin = Catalog::builtin();
    let catalog = Catalog {
        methods: builtin.methods.with(&method::SPEC),
        transforms: builtin.transforms.with(transform::ENTRY),
        families: builtin.families.with(family::FAMILY),
    };
    let tasks = Tasks::builtin().with_catalog(catalog);
    tasks.with(TaskEntry::of::<task::Score>())
}

const ROWS: [(&str, f64, &str); 6] = [
    ("The dog ran to the big tree.", 1.0, "dog"),
    ("She loved to play outside.", -0.5, "girl"),
    ("Lily smiled and gave her mom a hug.", 0.25, "girl"),
    ("The dog had a red ball.", 0.75, "dog"),
    ("Tim had a big box.", -1.0, "girl"),
    ("A dog saw a cat.", 0.5, "dog"),
];

/// A directory with a checkpoint, data and room for runs.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        family::write(&directory.path().join("base"), true);
        family::write(&directory.path().join("two-sided"), false);
        let rows = ROWS.map(|(text, score, label)| {
            serde_json::json!({ "text": text, "score": score, "label": label }).to_string()
        });
        std::fs::write(directory.path().join("rows.jsonl"), rows.join("\n")).expect("writes");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A run file; `sections` are `[model]` without its path, `[data]` without its files, and the rest.
    fn text(&self, base: &str, run: &str, [model, data, more]: [&str; 3]) -> String {
        let rows = self.path("rows.jsonl");
        format!(
            "[model]\npath = {:?}\n{model}\n[data]\ntrain = {rows:?}\neval = {rows:?}\n{data}\n\
             [train]\nbatch_size = 2\nmax_steps = 6\nsequence_length = 32\nseed = 3\nsave_every = 2\n\
             eval_every = 3\nprecision = \"f32\"\n[output]\ndir = {:?}\n{more}\n",
            self.path(base),
            self.path(run),
        )
    }

    /// One run file with all four.
    fn all(&self, run: &str) -> String {
        let model = "task = \"score\"\ntemperature = 2.0";
        self.text("base", run, [model, "answer = \"yes\"", UPDATE])
    }

    fn request(&self, base: &str, run: &str) -> ModelRequest {
        let path = self.path(base).display().to_string();
        ModelRequest::new(path)
            .with_adapter(self.path(run).join("adapter"))
            .with_precision(Precision::F32)
            .with_catalog(tasks().catalog().clone())
    }
}

const UPDATE: &str = "[method]\nkind = \"common_offset\"\nstrength = 0.5\ntarget_modules = [\"ask\", \"key\"]\n\
                      [optimizer]\nlearning_rate = 0.2\n\
                      transforms = [{ kind = \"lagged\", lag = 0.25 }, { kind = \"adamw\" }]\n";

fn parse(text: &str) -> TaskRun {
    let run = tasks().parse(text, "run.toml", &[]);
    run.unwrap_or_else(|error| panic!("{error}"))
}

fn finish(run: &TaskRun) -> Witness {
    let mut witness = Witness::default();
    let outcome = witness.run(run, false);
    let outcome = outcome.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(outcome, Outcome::Finished);
    witness
}

fn tensors(file: &Path) -> BTreeMap<String, Vec<f32>> {
    let file = Checkpoint::open_file(file).expect("weights");
    file.tensors()
        .map(|(name, view)| (name.to_owned(), view.to_f32_vec().expect("numbers")))
        .collect()
}

/// Keeps predictions.
#[derive(Default)]
struct Kept {
    header: String,
    rows: Vec<(Value, String)>,
}

impl Predictions for Kept {
    fn header(&mut self, text: &str) {
        text.clone_into(&mut self.header);
    }

    fn row(&mut self, object: Value, text: String) -> ControlFlow<()> {
        self.rows.push((object, text));
        ControlFlow::Continue(())
    }

    fn note(&mut self, text: String) {
        panic!("{text}");
    }
}

#[test]
fn a_run_of_a_task_a_method_a_transform_and_a_family_from_outside() {
    let place = Place::new();
    let run = parse(&place.all("run"));
    let witness = finish(&run);
    let start = witness.start();
    assert_eq!(
        (start.task.as_str(), start.method.as_str()),
        ("score", "common_offset")
    );
    let targets = ["0.ask", "0.key", "1.ask", "1.key"].map(|layer| format!("house.floors.{layer}"));
    assert_eq!(start.targets, targets);
    // One matrix for four layers.
    assert_eq!(start.trainable_parameters, 16 * 16);
    assert_eq!(start.data["train_rows"], 6);
    let steps = witness.steps();
    assert_eq!(steps.len(), 6);
    assert!(
        steps
            .iter()
            .all(|step| (step.unit.as_str(), step.weight) == ("rows", 2.0))
    );
    let finished = witness.finished();
    let (Some(before), Some(after)) = (finished.before, finished.after) else {
        panic!("{finished:?}");
    };
    assert!(after < before * 0.95, "{before} {after}");
    assert_eq!(finished.metric.as_deref(), Some("mse"));
    assert_eq!(finished.adapter, Some(place.path("run/adapter")));

    // What is written reads back: the configuration, the events, the checkpoints, the adapter.
    let resolved = std::fs::read_to_string(place.path("run/config.resolved.toml")).expect("config");
    for line in [
        "temperature = 2.0",
        "answer = \"yes\"",
        "strength = 0.5",
        "lag = 0.25",
    ] {
        assert!(resolved.contains(line), "{line}\n{resolved}");
    }
    assert_eq!(parse(&resolved).task(), "score");
    assert_eq!(read_events(&place.path("run")), witness.events);
    let adapter = tensors(&place.path("run/adapter/adapter_model.safetensors"));
    let mut names = vec![format!("base_model.{}", method::OFFSET)];
    names.extend(targets.map(|layer| format!("base_model.model.{layer}.{}", method::COUNT)));
    assert_eq!(adapter.keys().cloned().collect::<Vec<_>>(), names);
    assert!(adapter[&names[0]].iter().any(|value| *value != 0.0));
    // It follows the steps: one before them, one more after each.
    assert_eq!(adapter[&names[1]], [7.0]);
    let theta = tensors(&place.path("run/checkpoints/step-000004/state/theta.safetensors"));
    assert_eq!(
        theta
            .keys()
            .filter(|name| name.contains(method::OFFSET))
            .count(),
        1
    );
    let state = tensors(&place.path("run/checkpoints/step-000004/state/optimizer.safetensors"));
    let lagged = state.keys().filter(|name| name.contains("lagged"));
    assert_eq!(lagged.count(), 1, "{:?}", state.keys());

    // The adapter says what it is for.
    let (tasks, request) = (tasks(), place.request("base", "run"));
    let entry = tasks
        .of_request(None, &request, &offline())
        .expect("a task");
    assert_eq!(entry.name, "score");
    let data = DataRequest::new(place.path("rows.jsonl"));
    let request = EvalRequest::new(request, data.clone());
    let metrics = entry
        .eval(&request, &offline(), Stop::never())
        .expect("measures");
    assert!(
        (metrics.primary() - after).abs() <= SAVED,
        "{metrics:?} {after}"
    );
    let request = PredictRequest::new(request.model, data);
    let mut kept = Kept::default();
    let predicted = entry.predict(&request, &offline(), Stop::never(), &mut kept);
    predicted.expect("predicts");
    assert_eq!(
        (kept.header.as_str(), kept.rows.len()),
        ("row,score", ROWS.len())
    );
    let errors = kept
        .rows
        .iter()
        .zip(ROWS)
        .map(|((object, _), (_, score, _))| {
            let predicted = object["score"].as_f64().expect("a number");
            (predicted - score).powi(2)
        });
    let mse = errors.sum::<f64>() / ROWS.len() as f64;
    assert!((mse - after).abs() <= SAVED, "{mse} {after}");
}

/// A run that is interrupted and goes on is the run that was never interrupted.
#[test]
fn a_run_of_toys_goes_on_to_the_same_bits() {
    let place = Place::new();
    let whole = finish(&parse(&place.all("whole")));
    for stop_at in [1, 3, 4] {
        let name = format!("stopped-{stop_at}");
        let run = parse(&place.all(&name));
        let mut first = Witness {
            stop_at: Some(stop_at),
            ..Witness::default()
        };
        let outcome = first.run(&run, false).expect("a run");
        assert_eq!(outcome, Outcome::Interrupted { step: stop_at });
        let mut second = Witness::default();
        assert_eq!(second.run(&run, true).expect("a run"), Outcome::Finished);
        assert_eq!(
            [first.losses(), second.losses()].concat(),
            whole.losses(),
            "{stop_at}"
        );
        let adapter = |run: &str| {
            let path = place.path(run).join("adapter/adapter_model.safetensors");
            std::fs::read(path).expect("an adapter")
        };
        assert!(adapter(&name) == adapter("whole"), "{stop_at}");
        let resumed = read_events(&place.path(&name)).into_iter();
        let mut resumed = resumed.filter(|event| matches!(event, Event::Resumed { .. }));
        assert_eq!(resumed.next(), Some(Event::Resumed { step: stop_at }));
    }
    let mut again = Witness::default();
    let outcome = again.run(&parse(&place.all("whole")), true);
    assert_eq!(outcome.expect("nothing to do"), Outcome::AlreadyFinished);
}

/// The tasks of the library look families and methods up where the caller says.
#[test]
fn tasks_of_the_library_take_a_method_and_a_family_from_outside() {
    let place = Place::new();
    // A new head is trained, too, which needs smaller steps.
    let update = UPDATE.replace("learning_rate = 0.2", "learning_rate = 0.01");
    assert_ne!(update, UPDATE);
    let evaluate = |entry: &TaskEntry, model: ModelRequest| {
        let request = EvalRequest {
            sequence_length: Some(32),
            ..EvalRequest::new(model, DataRequest::new(place.path("rows.jsonl")))
        };
        entry.eval(&request, &offline(), Stop::never())
    };
    for (task, base) in [
        ("causal-lm", "base"),
        ("sequence-classification", "two-sided"),
    ] {
        let model = format!("task = {task:?}");
        let run = parse(&place.text(base, task, [&model, "", &update]));
        let finished = finish(&run).finished().clone();
        let (Some(before), Some(after)) = (finished.before, finished.after) else {
            panic!("{finished:?}");
        };
        assert!(after < before, "{task}: {before} {after}");
        let (tasks, request) = (tasks(), place.request(base, task));
        let entry = tasks
            .of_request(Some(task), &request, &offline())
            .expect("a task");
        let metrics = evaluate(entry, request.clone());
        let metrics = metrics.unwrap_or_else(|error| panic!("{task}: {error}"));
        assert!(
            (metrics.primary() - after).abs() <= SAVED,
            "{task}: {metrics:?} {after}"
        );

        // Whoever does not add them is told what is missing.
        let builtin = Catalog::builtin();
        let without_method = Catalog {
            families: tasks.catalog().families.clone(),
            ..builtin.clone()
        };
        let error = evaluate(entry, request.clone().with_catalog(without_method));
        let error = error.expect_err("no such method").to_string();
        assert!(error.contains("COMMON_OFFSET"), "{task}: {error}");
        let without_family = Catalog {
            families: builtin.families,
            ..tasks.catalog().clone()
        };
        let error = evaluate(entry, request.with_catalog(without_family));
        let error = error.expect_err("no such family");
        assert!(error.to_string().contains("toy"), "{task}: {error}");
    }
    let session = Session::open_request(&place.request("base", "causal-lm"), &offline());
    let session = session.expect("a model with an adapter");
    let mut go_on = |_: &str| ControlFlow::Continue(());
    let generated = session.generate("Once", 4, Sampling::greedy(), Stop::never(), &mut go_on);
    assert_eq!(generated.expect("generates").tokens.len(), 4);
    let described = inspect::inspect(&place.path("base"), &tasks()).expect("a model");
    let width = described
        .properties
        .iter()
        .find(|(name, _)| *name == "hidden_size");
    assert_eq!(width.map(|(_, value)| value), Some(&Value::from(16)));
    let described = inspect::inspect(&place.path("causal-lm"), &tasks()).expect("an adapter");
    let of = |key: &str| {
        let mut properties = described.properties.iter();
        properties
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value)
    };
    assert_eq!(of("method"), Some(&Value::from("common_offset")));
    assert_eq!(of("adapted_modules"), Some(&Value::from(4)));
}

#[test]
fn run_files_say_what_a_caller_has_not_added() {
    let place = Place::new();
    let text = place.all("run");
    let read = |tasks: &Tasks, text: &str| match tasks.parse(text, "run.toml", &[]) {
        Ok(_) => panic!("it was read:\n{text}"),
        Err(error) => error,
    };
    let message = |tasks: &Tasks, text: &str| read(tasks, text).to_string();
    let error = message(&Tasks::builtin(), &text);
    assert!(error.contains("score"), "{error}");
    let bare = Tasks::builtin().with(TaskEntry::of::<task::Score>());
    let error = message(&bare, &text);
    assert!(
        error.contains("common_offset") || error.contains("strength"),
        "{error}"
    );
    let tasks = tasks();
    // Its own settings are as strict as any.
    let error = read(
        &tasks,
        &text.replace("temperature = 2.0", "temperature = 0"),
    );
    assert!(
        matches!(error.kind(), ConfigErrorKind::OutOfRange { .. }),
        "{error}"
    );
    let error = message(&tasks, &text.replace("answer =", "anwser ="));
    assert!(error.contains("anwser"), "{error}");
    let error = message(&tasks, &text.replace("answer = \"yes\"", ""));
    assert!(error.contains("answer"), "{error}");
    let error = message(&tasks, &text.replace("strength = 0.5", "strength = -1"));
    assert!(error.contains("strength"), "{error}");
    let error = message(&tasks, &text.replace("lag = 0.25", "lag = 1.5"));
    assert!(error.contains("lag"), "{error}");
    // The keys of one task are unknown to the others.
    let error = message(
        &tasks,
        &text.replace("task = \"score\"", "task = \"causal-lm\""),
    );
    assert!(error.contains("temperature"), "{error}");

    // A family is looked up when the model is opened, a method when it meets its layers.
    let families = Tasks::builtin().with_catalog(Catalog {
        families: Catalog::builtin().families,
        ..tasks.catalog().clone()
    });
    let run = families.with(TaskEntry::of::<task::Score>());
    let run = run.parse(&text, "run.toml", &[]).expect("a run file");
    let error = Witness::default()
        .run(&run, false)
        .expect_err("no such family");
    assert!(matches!(error, TrainError::Model(_)), "{error}");
    let run = parse(&text.replace("[\"ask\", \"key\"]", "[\"ask\", \"up\"]"));
    let error = Witness::default().run(&run, false).expect_err("two shapes");
    assert!(error.to_string().contains("one shape"), "{error}");
    assert!(!place.path("run").exists());
}

/// What comes first in a table is what holds where nothing is said.
#[test]
fn a_line_takes_the_place_of_one_of_the_same_name() {
    let builtin = Catalog::builtin();
    let first = builtin.methods.iter().next().expect("a method");
    let method: &'static MethodSpec = Box::leak(Box::new(MethodSpec {
        kind: first.kind,
        peft: None,
        ..method::SPEC
    }));
    let transform = TransformEntry {
        kind: builtin.transforms.iter().next().expect("a transform").kind,
        ..transform::ENTRY
    };
    let family = Family {
        model_type: builtin.families.model_types()[0],
        ..family::FAMILY
    };
    let mut task = Tasks::builtin().entries()[0];
    task.summary = "replaced";
    let kinds = |catalog: &Catalog, tasks: &Tasks| {
        [
            catalog.methods.iter().map(|spec| spec.kind).collect(),
            catalog.transforms.iter().map(|entry| entry.kind).collect(),
            catalog.families.model_types(),
            tasks.entries().iter().map(|entry| entry.name).collect(),
        ]
    };
    let tasks = Tasks::builtin().with(task);
    let replaced = Catalog {
        methods: builtin.methods.clone().with(method),
        transforms: builtin.transforms.clone().with(transform),
        families: builtin.families.clone().with(family),
    };
    let before: [Vec<&str>; 4] = kinds(&builtin, &Tasks::builtin());
    assert_eq!(kinds(&replaced, &tasks), before);
    let found = replaced.methods.iter().next().map(|spec| spec.summary);
    assert_eq!(found, Some(method.summary));
    assert_eq!(tasks.entries()[0].summary, "replaced");
}
