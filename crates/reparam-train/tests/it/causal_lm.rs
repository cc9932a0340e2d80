//! Methods and updates on a language model: what they save is what they evaluated.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use reparam_data::ReadOptions;
use reparam_formats::checkpoint::Checkpoint;
use reparam_train::RunFile as _;
use reparam_train::config::Precision;
use reparam_train::config::{Override, RunConfig};
use reparam_train::event::Event;
use reparam_train::{Outcome, Session, Stop, evaluate_file};
use tempfile::TempDir;

use crate::witness::Witness;
use crate::{names, offline, repository, stories};

/// The run evaluates its own weights and a reader those on disk; both are `f32`.
const SAVED: f64 = 1e-5;

const LENGTH: usize = 64;

/// A directory with a text of two blocks and room for runs.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let text = std::fs::read(repository("assets/tinyshakespeare.txt")).expect("a text");
        std::fs::write(directory.path().join("train.txt"), &text[..160]).expect("writes");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self, run: &str, sections: &str, overrides: &[&str]) -> RunConfig {
        let data = self.path("train.txt");
        let text = format!(
            "[model]\npath = {:?}\n[data]\ntrain = {data:?}\neval = {data:?}\n\
             [train]\nmax_steps = 3\nbatch_size = 1\nsequence_length = {LENGTH}\nprecision = \"f32\"\n\
             [output]\ndir = {:?}\n{sections}",
            repository("assets/stories260K"),
            self.path(run),
        );
        let overrides: Vec<Override> = overrides.iter().copied().map(Override::set).collect();
        RunConfig::parse(&text, "run.toml", &overrides).unwrap_or_else(|error| panic!("{error}"))
    }

    #[track_caller]
    fn finish(&self, run: &str, sections: &str, overrides: &[&str]) -> Witness {
        let mut witness = Witness::default();
        let outcome = witness
            .train(&self.config(run, sections, overrides))
            .unwrap_or_else(|error| panic!("{run}: {error}"));
        assert_eq!(outcome, Outcome::Finished);
        let finished = witness.finished();
        let losses = (finished.before, finished.after);
        let (Some(before), Some(after)) = losses else {
            panic!("{losses:?}");
        };
        assert!(after < before, "{run}: {before} {after}");
        assert!(witness.losses().iter().all(|loss| loss.is_finite()));
        witness
    }

    /// The loss of a session on the text of the runs.
    fn loss(&self, session: &Session) -> f64 {
        let evaluation = evaluate_file(
            session,
            self.path("train.txt"),
            &ReadOptions::default(),
            LENGTH,
            Stop::never(),
        );
        evaluation.expect("evaluates").primary()
    }

    /// The loss of what a run saved as an adapter.
    fn loss_of_adapter(&self, run: &str) -> f64 {
        let session = stories().with_adapter(&self.path(run).join("adapter"));
        self.loss(&session.expect("an adapter"))
    }

    fn adapter(&self, run: &str) -> BTreeMap<String, Vec<f32>> {
        tensors(&self.path(run).join("adapter/adapter_model.safetensors"))
    }
}

fn tensors(file: &Path) -> BTreeMap<String, Vec<f32>> {
    let file = Checkpoint::open_file(file).expect("weights");
    file.tensors()
        .map(|(name, view)| (name.to_owned(), view.to_f32_vec().expect("numbers")))
        .collect()
}

const ADAMW: &str = "[optimizer]\nlearning_rate = 1e-3\n";
const LORA: &str = "[method]\nkind = \"lora\"\nrank = 4\nalpha = 8\n";

#[test]
fn methods_of_weights_save_a_model_that_anyone_reads() {
    let place = Place::new();
    let base = repository("assets/stories260K");
    let before = tensors(&base.join("model.safetensors"));
    for (run, method) in [
        ("full", "kind = \"identity\""),
        (
            "full-linear",
            "kind = \"full\"\ntarget_modules = \"all-linear\"",
        ),
        ("scale", "kind = \"scale\"\nscale = 0.5"),
        ("weight_norm", "kind = \"weight_norm\""),
        ("sigma_reparam", "kind = \"sigma_reparam\""),
        (
            "overparameterized",
            "kind = \"overparameterized\"\nbranches = [0.7, 0.3]\nproduct_width = 4",
        ),
    ] {
        let witness = place.finish(run, &format!("[method]\n{method}\n{ADAMW}"), &[]);
        let finished = witness.finished();
        let model = place.path(run).join("model");
        assert_eq!(
            (&finished.adapter, &finished.model),
            (&None, &Some(model.clone()))
        );
        let kind = run.split('-').next();
        assert_eq!(Some(witness.start().method.as_str()), kind);
        assert!(!place.path(run).join("adapter").exists());

        // A directory like the base's, with other weights of the same names and shapes.
        let mut expected = names(&base);
        expected.retain(|name| name != "LICENSE");
        assert_eq!(names(&model), expected);
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            let bytes = |directory: &Path| std::fs::read(directory.join(name)).expect(name);
            assert!(bytes(&model) == bytes(&base), "{name}");
        }
        let after = tensors(&model.join("model.safetensors"));
        let mut moved = 0;
        for (name, values) in &before {
            let now = &after[name];
            assert_eq!(values.len(), now.len(), "{name}");
            // Full training takes all parameters where it is not told which.
            let is_target = run == "full" || name.ends_with("proj.weight");
            assert_eq!(values != now, is_target, "{run}: {name}");
            moved += usize::from(is_target);
        }
        let expected = if run == "full" { before.len() } else { 35 };
        assert_eq!((after.len(), moved), (before.len(), expected));

        let session = Session::open(model.to_str().expect("UTF-8"), &offline(), Precision::F32)
            .expect("a model");
        let saved = place.loss(&session);
        let told = finished.after.expect("evaluated");
        assert!((saved - told).abs() <= SAVED, "{run}: {saved} {told}");
    }
}

/// Until it moves, a method is the model that it is attached to.
#[test]
fn methods_start_at_the_base() {
    let place = Place::new();
    let base = place.loss(&stories());
    for (method, is_base) in [
        ("kind = \"lora\"", true),
        ("kind = \"identity\"", true),
        ("kind = \"weight_norm\"", true),
        ("kind = \"overparameterized\"\nbranches = [0.7, 0.3]", true),
        ("kind = \"sigma_reparam\"", true),
        ("kind = \"sigma_reparam\"\ngamma_init = \"one\"", false),
    ] {
        let mut witness = Witness::default();
        let run = format!("run-{}-{is_base}", method.len());
        let config = place.config(&run, &format!("[method]\n{method}\n{ADAMW}"), &[]);
        witness.train(&config).expect("a run");
        let before = witness.finished().before.expect("evaluated");
        assert_eq!(
            (before - base).abs() <= SAVED,
            is_base,
            "{method}: {before} {base}"
        );
    }
}

#[test]
fn checkpoints_and_interrupted_runs_are_models_too() {
    let place = Place::new();
    let sections = format!("[method]\nkind = \"identity\"\n{ADAMW}");
    let whole = place.finish(
        "whole",
        &sections,
        &["train.save_every=2", "train.eval_every=2"],
    );
    let checkpoint = place.path("whole/checkpoints/step-000002");
    let at_two = whole.evaluations().into_iter().find(|(step, _)| *step == 2);
    let at_two = at_two.map(|(_, loss)| loss);
    let open =
        |path: &Path| Session::open(path.to_str().expect("UTF-8"), &offline(), Precision::F32);
    let saved = place.loss(&open(&checkpoint).expect("a checkpoint"));
    assert!((saved - at_two.expect("evaluated")).abs() <= SAVED);

    let mut stopped = Witness {
        stop_at: Some(2),
        ..Witness::default()
    };
    let outcome = stopped
        .train(&place.config("stopped", &sections, &[]))
        .expect("a run");
    assert_eq!(outcome, Outcome::Interrupted { step: 2 });
    assert_eq!(
        tensors(&place.path("stopped/model/model.safetensors")),
        tensors(&checkpoint.join("model.safetensors"))
    );
}

#[test]
fn conditions_end_a_run() {
    let place = Place::new();
    let witness = place.finish(
        "run",
        &format!("{LORA}{ADAMW}"),
        &["train.max_steps=50", "train.stop_grad_norm=1e9"],
    );
    assert_eq!(witness.stopped().0, 1);
    assert_eq!(witness.steps().len(), 1);
    assert!(place.path("run/adapter").exists());
}

/// LoRA is all matrices, so every optimizer can train it.
#[test]
fn every_optimizer_trains_lora() {
    let place = Place::new();
    for (kind, rate) in [
        ("lion", 1e-3),
        ("adafactor", 1e-2),
        ("schedule_free_adamw", 5e-3),
        ("muon", 1e-2),
        ("lora_fa", 1e-3),
        ("adam", 1e-3),
        ("lamb", 1e-2),
        ("adagrad", 1e-2),
        ("rmsprop", 1e-4),
        ("sgd", 1e-2),
    ] {
        let optimizer = format!("{LORA}[optimizer]\nkind = \"{kind}\"\nlearning_rate = {rate}\n");
        place.finish(kind, &optimizer, &[]);
        let saved = place.loss_of_adapter(kind);
        let witness_loss = last_evaluation(&place, kind);
        assert!(
            (saved - witness_loss).abs() <= SAVED,
            "{kind}: {saved} {witness_loss}"
        );
    }
}

fn last_evaluation(place: &Place, run: &str) -> f64 {
    let events = crate::witness::read_events(&place.path(run));
    let losses = events.iter().rev().find_map(|event| match event {
        Event::Evaluation(evaluation) => Some(evaluation.value()),
        _ => None,
    });
    losses.expect("an evaluation")
}

#[test]
fn lists_of_transforms_train_lora() {
    let place = Place::new();
    for (run, list) in [
        (
            "galore",
            "{ kind = \"galore\", rank = 2, refresh = 2, transforms = [{ kind = \"adam\" }] }",
        ),
        (
            "riemannian",
            "{ kind = \"riemannian\" }, { kind = \"adamw\" }",
        ),
        (
            "lora_plus",
            "{ kind = \"adamw\" }, { kind = \"lora_plus\", ratio = 4.0 }",
        ),
        (
            "sam",
            "{ kind = \"sam\", rho = 0.01 }, { kind = \"adamw\" }",
        ),
        (
            "ema",
            "{ kind = \"adamw\" }, { kind = \"ema\", decay = 0.5 }",
        ),
        (
            "group",
            "{ kind = \"group\", pattern = \".*lora_B.*\", transforms = [{ kind = \"muon\" }] }",
        ),
        (
            "clipped",
            "{ kind = \"centralize\" }, { kind = \"clip_by_unit_norm\" }, { kind = \"sign\" }",
        ),
    ] {
        let update = format!("{LORA}[optimizer]\nlearning_rate = 1e-3\ntransforms = [{list}]\n");
        place.finish(run, &update, &[]);
        let saved = place.loss_of_adapter(run);
        let told = last_evaluation(&place, run);
        assert!((saved - told).abs() <= SAVED, "{run}: {saved} {told}");
    }
}

#[test]
fn lora_fa_leaves_a_as_it_was() {
    let place = Place::new();
    let optimizer = |kind: &str, rate: &str| {
        format!("{LORA}[optimizer]\nkind = \"{kind}\"\nlearning_rate = {rate}\n")
    };
    // A rate that moves no digit shows the first values.
    let mut witness = Witness::default();
    let still = place.config("still", &optimizer("sgd", "1e-30"), &["train.max_steps=1"]);
    witness.train(&still).expect("a run");
    place.finish("fa", &optimizer("lora_fa", "1e-3"), &[]);
    place.finish("adamw", &optimizer("adamw", "1e-3"), &[]);
    let (first, fa, adamw) = (
        place.adapter("still"),
        place.adapter("fa"),
        place.adapter("adamw"),
    );
    let mut factors = 0;
    for (name, values) in &first {
        if name.contains("lora_A") {
            assert_eq!(&fa[name], values, "{name}");
            assert_ne!(&adamw[name], values, "{name}");
            factors += 1;
        } else {
            assert_ne!(&fa[name], values, "{name}");
        }
    }
    assert_eq!(factors, 35);
}

/// A mean of the parameters is evaluated and saved, and does not change how they are trained.
#[test]
fn a_running_mean_is_saved_and_not_the_trained_values() {
    let place = Place::new();
    let run = |name: &str, list: &str| {
        let update = format!("{LORA}[optimizer]\nlearning_rate = 2e-3\ntransforms = [{list}]\n");
        place.finish(name, &update, &["train.save_every=1"])
    };
    let plain = run("plain", "{ kind = \"adamw\" }");
    let mean = run(
        "mean",
        "{ kind = \"adamw\" }, { kind = \"ema\", decay = 0.5 }",
    );
    assert_eq!(plain.losses(), mean.losses());
    let loss = |witness: &Witness| witness.finished().after.expect("evaluated");
    assert!((place.loss_of_adapter("mean") - loss(&mean)).abs() <= SAVED);
    assert!((loss(&mean) - loss(&plain)).abs() > 1e-3);

    // From the trained values of each step: e_1 = t_1, e_n = (e_n-1 + t_n) / 2.
    let of_step = |step: u64| {
        let path = place
            .path("plain")
            .join(format!("checkpoints/step-{step:06}"));
        tensors(&path.join("adapter_model.safetensors"))
    };
    let (one, two, three) = (of_step(1), of_step(2), place.adapter("plain"));
    for (name, saved) in place.adapter("mean") {
        for (place, found) in saved.iter().enumerate() {
            let at = |values: &BTreeMap<String, Vec<f32>>| f64::from(values[&name][place]);
            let expected = (at(&one) + at(&two)) / 4.0 + at(&three) / 2.0;
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{name}");
        }
    }
}

/// What schedule-free saves is its average; the loss of the next step is of other values.
#[test]
fn schedule_free_saves_its_average_and_not_the_trained_values() {
    let place = Place::new();
    let update =
        format!("{LORA}[optimizer]\nkind = \"schedule_free_adamw\"\nlearning_rate = 1e-2\n");
    // One batch is the whole text, so that a step's loss is the loss of the text.
    let whole = |steps: u64| {
        let steps = format!("train.max_steps={steps}");
        place.finish(
            &steps,
            &update,
            &[&steps, "train.batch_size=4", "data.packing=none"],
        )
    };
    let three = whole(3);
    let four = whole(4);
    assert_eq!(four.losses()[..3], three.losses()[..]);
    let saved = place.loss_of_adapter("train.max_steps=3");
    let told = three.finished().after.expect("evaluated");
    assert!((saved - told).abs() <= SAVED, "{saved} {told}");
    assert!((four.losses()[3] - saved).abs() > 1e-3, "{saved}");
    // The first step is made where the base is, which is where both are.
    let before = three.finished().before.expect("evaluated");
    assert!((three.losses()[0] - before).abs() <= SAVED);
}

/// Whatever happens to the base's directory after it was read: what is saved is what was trained.
#[cfg(unix)]
#[test]
fn what_is_saved_does_not_look_at_the_base_again() {
    use std::fs;
    use std::sync::atomic::AtomicBool;

    use reparam_train::event::{Observer, Time};
    use reparam_train::tasks::CausalLanguageModel;
    use reparam_train::{TaskRun, TrainOptions, train};

    /// Changes the base as soon as the run has begun.
    struct Meddler<'a>(&'a Path, fn(&Path));

    impl Observer for Meddler<'_> {
        fn on_event(&mut self, event: &Event, _: Time) {
            if matches!(event, Event::Start(_)) {
                self.1(self.0);
            }
        }
    }

    let changes: [fn(&Path); 5] = [
        |_| {},
        |base| fs::remove_dir_all(base).expect("removes"),
        |base| fs::remove_file(base.join("config.json")).expect("removes"),
        |base| {
            let path = base.join("config.json");
            let config = fs::read_to_string(&path).expect("reads");
            fs::write(path, config.replace("10000.0", "2.0")).expect("writes");
        },
        |base| {
            for name in ["config.json", "tokenizer.json", "model.safetensors"] {
                fs::write(base.join(name), "").expect("writes");
            }
        },
    ];
    let place = Place::new();
    let mut losses = Vec::new();
    for (number, change) in changes.into_iter().enumerate() {
        let (base, run) = (
            place.path(&format!("base-{number}")),
            format!("run-{number}"),
        );
        fs::create_dir(&base).expect("creates");
        for name in names(&repository("assets/stories260K")) {
            let from = repository("assets/stories260K").join(&name);
            fs::copy(from, base.join(name)).expect("copies");
        }
        let path = format!("model.path={:?}", base.display().to_string());
        let sections = format!("[method]\nkind = \"identity\"\n{ADAMW}");
        let config = place.config(&run, &sections, &[&path]);
        let task = TaskRun::of::<CausalLanguageModel>(config);
        let options = TrainOptions::new(offline());
        let mut meddler = Meddler(&base, change);
        let outcome = train(&task, &options, &AtomicBool::new(false), &mut meddler);
        assert_eq!(outcome.expect("it ends well"), Outcome::Finished);
        let model = place.path(&run).join("model");
        let model = model.to_str().expect("UTF-8");
        let session = Session::open(model, &offline(), Precision::F32).expect("a whole model");
        losses.push(place.loss(&session));
    }
    assert!(losses.iter().all(|loss| *loss == losses[0]), "{losses:?}");
}
