//! Runs in bf16, on the built-in model and text.

use std::path::Path;

use reparam_data::ReadOptions;
use reparam_kernels::Isa;
use reparam_train::RunFile as _;
use reparam_train::config::{EvalData, Override, Precision, RunConfig};
use reparam_train::event::Event;
use reparam_train::tasks::CausalLanguageModel;
use reparam_train::{
    Outcome, Runtime, RuntimeOptions, Session, Stop, TaskRun, TrainError, TrainOptions,
    evaluate_file,
};

use crate::witness::Witness;
use crate::{offline, repository, with_threads};

/// By how much a loss in bf16 may differ from that in f32: of single steps, and of the end.
const STEP: f64 = 0.02;
const END: f64 = 0.005;

fn config(directory: &Path, name: &str, overrides: &[&str]) -> RunConfig {
    let text = format!(
        "[model]\npath = {:?}\n[data]\ntrain = {:?}\neval_fraction = 0.01\n\
         [method]\nkind = \"lora\"\nrank = 8\nalpha = 16\n\
         [optimizer]\nlearning_rate = 5e-3\nwarmup_ratio = 0.05\nschedule = \"cosine\"\n\
         [train]\nmax_steps = 4\nbatch_size = 2\nsequence_length = 96\nprecision = \"bf16\"\n\
         [output]\ndir = {:?}\n",
        repository("assets/stories260K"),
        repository("assets/tinyshakespeare.txt"),
        directory.join(name),
    );
    let overrides: Vec<Override> = overrides.iter().copied().map(Override::set).collect();
    RunConfig::parse(&text, "run.toml", &overrides).expect("a run file")
}

/// What a run said of its losses.
#[derive(Debug, PartialEq)]
struct Losses {
    steps: Vec<f64>,
    evaluations: Vec<f64>,
    precision: String,
}

fn losses(config: &RunConfig) -> Losses {
    let mut witness = Witness::default();
    assert_eq!(witness.train(config).expect("a run"), Outcome::Finished);
    let steps = witness.events.iter().filter_map(|event| match event {
        Event::Step(step) => Some(step.loss),
        _ => None,
    });
    let evaluations = witness.evaluations().into_iter().map(|(_, loss)| loss);
    Losses {
        steps: steps.collect(),
        evaluations: evaluations.collect(),
        precision: witness.start().precision.clone(),
    }
}

#[test]
fn two_hundred_steps_stay_with_those_in_f32() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let run = |precision: &str| {
        let precision_key = format!("train.precision={precision}");
        losses(&config(
            directory.path(),
            precision,
            &["train.max_steps=200", &precision_key],
        ))
    };
    let (half, full) = (run("bf16"), run("f32"));
    assert_eq!(
        (half.precision.as_str(), full.precision.as_str()),
        ("bf16", "f32")
    );
    assert_eq!(half.steps.len(), 200);
    for (step, (half, full)) in half.steps.iter().zip(&full.steps).enumerate() {
        assert!(
            (half - full).abs() <= STEP * full,
            "step {step}: {half} {full}"
        );
    }
    // It has learnt a lot, and the same.
    let (first, last) = (full.evaluations[0], full.evaluations[1]);
    assert!(last < 0.7 * first, "{full:?}");
    let difference = (half.evaluations[1] - last).abs();
    assert!(difference <= END * last, "{} {last}", half.evaluations[1]);
    assert_ne!(half.steps, full.steps, "they are not the same computation");
}

#[test]
fn recomputing_and_threads_change_no_bit() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let on = |threads, name: &str, overrides: &[&str]| {
        let config = config(directory.path(), name, overrides);
        with_threads(threads, || losses(&config))
    };
    let dropout = "method.dropout=0.1";
    let one = on(1, "one", &[dropout]);
    assert_eq!(one, on(2, "two", &[dropout]));
    assert_eq!(one, on(2, "recomputed", &[dropout, "train.recompute=true"]));
    assert_ne!(one, on(2, "without dropout", &[]));
    let adapter = |run: &str| {
        let path = directory
            .path()
            .join(run)
            .join("adapter/adapter_model.safetensors");
        std::fs::read(path).expect("an adapter")
    };
    assert!(adapter("one") == adapter("two") && adapter("one") == adapter("recomputed"));
}

#[test]
fn runs_beside_each_other_compute_with_their_own_runtimes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let of = |isa: Isa, name: &str| {
        let options = TrainOptions {
            runtime: Runtime::new(RuntimeOptions {
                isa: Some(isa),
                ..RuntimeOptions::default()
            }),
            ..TrainOptions::new(offline())
        };
        let config = config(directory.path(), name, &[]);
        let mut witness = Witness::default();
        let run = TaskRun::of::<CausalLanguageModel>(config);
        let outcome = witness.run_with(&run, &options).expect("a run");
        assert_eq!(outcome, Outcome::Finished);
        witness.losses()
    };
    let (slow, fast) = (Isa::Portable, Isa::best());
    let alone = [of(slow, "slow alone"), of(fast, "fast alone")];
    let beside = std::thread::scope(|scope| {
        let slow = scope.spawn(|| of(slow, "slow"));
        [of(fast, "fast"), slow.join().expect("no panic")]
    });
    assert_eq!(beside, [alone[1].clone(), alone[0].clone()]);
    if fast >= Isa::Avx2Fma {
        assert_ne!(
            alone[0], alone[1],
            "another instruction set rounds otherwise"
        );
    }
}

#[test]
fn an_adapter_has_the_loss_of_its_run() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // A text of its own, all of which is evaluated.
    let text = directory.path().join("held-out.txt");
    std::fs::write(
        &text,
        "To be, or not to be: that is the question. ".repeat(9),
    )
    .expect("writes");
    let mut config = config(directory.path(), "run", &[]);
    config.data.eval = EvalData::Files(vec![text.clone()]);
    config.data.eval_max = None;
    let found = losses(&config);
    let open = |precision| {
        let model = repository("assets/stories260K");
        let adapter = directory.path().join("run/adapter");
        let model = model.to_str().expect("UTF-8");
        let session = Session::open_with_adapter(model, &adapter, &offline(), precision);
        let session = session.expect("a model with its adapter");
        evaluate_file(
            &session,
            text.clone(),
            &ReadOptions::default(),
            96,
            Stop::never(),
        )
        .expect("a loss")
        .primary()
    };
    assert_eq!(open(Precision::Bf16), found.evaluations[1]);
    let full = open(Precision::F32);
    assert!((full - found.evaluations[1]).abs() <= END * full);
    // The weights are stored as f32, and without being asked nothing is rounded.
    assert_eq!(open(Precision::Auto), full);
}

#[test]
fn what_has_no_effect_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let overrides = ["train.precision=auto", "train.recompute=true"];
    let config = config(directory.path(), "run", &overrides);
    let error = Witness::default()
        .train(&config)
        .expect_err("its weights are f32");
    assert!(matches!(error, TrainError::RecomputeInF32), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("bf16")));
    assert!(!directory.path().join("run").exists());
}

/// The built-in model is small, its rows are short and of few numbers each: larger ones lose less.
const INT8: f64 = 0.005;

#[test]
fn weights_of_integers_have_nearly_the_same_loss() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let text = directory.path().join("text.txt");
    let story = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. ";
    std::fs::write(&text, story.repeat(8)).expect("writes");
    let adapter = {
        let config = config(directory.path(), "run", &["train.max_steps=10"]);
        losses(&config);
        directory.path().join("run/adapter")
    };
    let model = repository("assets/stories260K");
    let model = model.to_str().expect("UTF-8");
    for adapter in [None, Some(adapter)] {
        let open = |precision| {
            match &adapter {
                None => Session::open(model, &offline(), precision),
                Some(adapter) => Session::open_with_adapter(model, adapter, &offline(), precision),
            }
            .expect("a model")
        };
        let loss = |session: &Session| {
            let evaluation = evaluate_file(
                session,
                text.clone(),
                &ReadOptions::default(),
                96,
                Stop::never(),
            );
            evaluation.expect("a loss").primary()
        };
        let (full, int8) = (open(Precision::F32), open(Precision::Int8));
        let (expected, found) = (loss(&full), loss(&int8));
        assert!(
            (found - expected).abs() <= INT8 * expected,
            "{found} {expected}"
        );
        assert_ne!(found, expected);

        // One token at a time multiplies integers, a prompt their copy in bf16: both mean the same.
        let ids = int8.tokenizer.encode(story, true).expect("ids");
        let logits = |pieces: &mut dyn Iterator<Item = &[u32]>| {
            let mut cache = int8.model.new_cache(ids.len());
            let logits = pieces.map(|piece| int8.model.next_logits(piece, &mut cache));
            let last = logits.last().expect("a piece").into_data();
            last.convert::<f32>().try_to_vec::<f32>().expect("floats")
        };
        let at_once = logits(&mut std::iter::once(&ids[..]));
        let one_by_one = logits(&mut ids.chunks(1));
        let greatest = at_once.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        for (a, b) in at_once.iter().zip(&one_by_one) {
            assert!((a - b).abs() <= 0.03 * greatest, "{a} {b}");
        }
    }
}

#[test]
fn weights_of_integers_are_not_trained() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut config = config(directory.path(), "run", &[]);
    config.train.precision = Precision::Int8;
    let error = Witness::default()
        .train(&config)
        .expect_err("int8 is for inference");
    assert!(error.to_string().contains("int8"), "{error}");
    assert!(!directory.path().join("run").exists());
}
