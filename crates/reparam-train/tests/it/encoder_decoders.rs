//! Adapters of encoder-decoders that were trained from nothing.

use reparam_data::OnError;
use reparam_models::Sampling;
use reparam_train::config::Precision;
use reparam_train::{
    DataRequest, Decoding, EvalRequest, ModelRequest, PredictRequest, Stop, Tasks,
};
use serde_json::Value;

use crate::new_models::{EXAMPLES, Printed, place};
use crate::witness::Witness;
use crate::{measured, offline, task_of};

/// An adapter of an encoder-decoder learns in bf16 what it does in f32, with the dropout of the model, which both draw alike, and is
/// measured in either.
#[test]
fn encoder_decoders_learn_in_bf16() {
    for example in EXAMPLES.iter().filter(|one| one.task == "seq2seq") {
        let (base, dir) = (place(), place());
        let short = ["train.max_steps=10", "train.eval_every=0"];
        example.run(&base, &short).expect("a run");
        let model = base.path().join("run/model");
        let train = |precision: &str| {
            let text = format!(
                "[model]\npath = {model:?}\ndropout = 0.2\n[data]\ntrain = {:?}\neval_fraction = 0.1\n\
                 [method]\nkind = \"lora\"\nrank = 4\n[optimizer]\nlearning_rate = 1e-2\n\
                 [train]\nmax_steps = 8\nbatch_size = 16\nprecision = {precision:?}\n[output]\ndir = {:?}\n",
                example.data(),
                dir.path().join(precision),
            );
            let run = Tasks::builtin().parse(&text, "run.toml", &[]);
            let mut witness = Witness::default();
            let outcome = witness.run(&run.expect("a run file"), false);
            outcome.unwrap_or_else(|error| panic!("{}: {error}", example.name));
            assert_eq!(witness.start().precision, precision);
            witness
        };
        let (full, packed) = (train("f32"), train("bf16"));
        assert_ne!(full.losses(), packed.losses(), "{}", example.name);
        for (full, packed) in full.losses().iter().zip(packed.losses()) {
            let off = (full / packed - 1.0).abs();
            assert!(off < 0.02, "{}: {full} {packed}", example.name);
        }
        let after = packed.finished().after.expect("an evaluation");
        let rows = dir.path().join("rows.jsonl");
        let lines = std::fs::read_to_string(example.data()).expect("rows");
        let some: Vec<&str> = lines.lines().take(8).collect();
        std::fs::write(&rows, some.join("\n")).expect("writes");
        let measure = |precision| {
            let mut model = ModelRequest::new(dir.path().join("bf16").to_str().expect("UTF-8"));
            model.precision = precision;
            measured(&EvalRequest::new(model, DataRequest::new(&rows))).primary()
        };
        let (full, packed) = (measure(Precision::F32), measure(Precision::Bf16));
        let int8 = measure(Precision::Int8);
        assert!(after.is_finite() && full != packed && int8 != packed);
        assert!((full / packed - 1.0).abs() < 0.02, "{full} {packed}");
        assert!((full / int8 - 1.0).abs() < 0.05, "{full} {int8}");
    }
}

/// The model of a run is a base like any other: an adapter of it is saved, found, measured and asked.
#[test]
fn adapters_of_encoder_decoders_are_measured_and_write_targets() {
    let example = EXAMPLES.iter().find(|one| one.task == "seq2seq");
    let example = example.expect("an example");
    let (base, dir) = (place(), place());
    let longer = [
        "train.max_steps=30",
        "train.eval_every=0",
        "train.batch_size=16",
    ];
    example.run(&base, &longer).expect("a run");
    let model = base.path().join("run/model");
    let text = format!(
        "[model]\npath = {model:?}\n[data]\ntrain = {:?}\neval_fraction = 0.1\n\
         [method]\nkind = \"lora\"\nrank = 2\n[train]\nmax_steps = 4\nbatch_size = 8\n[output]\ndir = {:?}\n",
        example.data(),
        dir.path().join("run"),
    );
    // The model says what it is for.
    let run = Tasks::builtin()
        .parse(&text, "run.toml", &[])
        .expect("a run file");
    assert_eq!(run.task(), "seq2seq");
    let mut witness = Witness::default();
    witness.run(&run, false).expect("a run");
    let config = std::fs::read(dir.path().join("run/adapter/adapter_config.json"));
    let config: Value = serde_json::from_slice(&config.expect("a file")).expect("JSON");
    assert_eq!(config["task_type"], "SEQ_2_SEQ_LM");

    let held_out = witness.start().data["eval_rows"].as_u64().expect("rows");
    assert!(held_out > 0);
    let rows = dir.path().join("rows.jsonl");
    let some =
        "{\"source\":\"ninety-two\",\"target\":\"9 2\"}\n{\"source\":\"five\",\"target\":\"5\"}\n";
    std::fs::write(&rows, some).expect("writes");
    let model = ModelRequest::new(dir.path().join("run").to_str().expect("UTF-8"));
    let request = EvalRequest {
        generate: Some(Decoding {
            num_beams: Some(2),
            max_new_tokens: Some(6),
            sampling: None,
        }),
        ..EvalRequest::new(model, DataRequest::new(&rows))
    };
    let task = task_of(&request.model);
    let metrics = measured(&request);
    let names: Vec<&String> = metrics.values().keys().collect();
    assert_eq!(names, ["loss", "tokens", "bleu", "chrf", "rouge_l"]);
    assert!(metrics.primary().is_finite());

    // Two files say the same as one.
    let [sources, targets] =
        [("a", "ninety-two\nfive\n"), ("b", "9 2\n5\n")].map(|(name, text)| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("writes");
            path
        });
    let two = DataRequest {
        targets: Some(targets),
        ..DataRequest::new(sources)
    };
    let of_two = EvalRequest {
        data: two.clone(),
        ..request.clone()
    };
    assert_eq!(measured(&of_two), metrics);
    let asked = PredictRequest::new(request.model.clone(), two);
    let mut printed = Printed::default();
    task.predict(&asked, &offline(), Stop::never(), &mut printed)
        .expect("predicts");
    assert_eq!(printed.0.len(), 2);

    // Each row is drawn by itself, and all of them by the seed.
    std::fs::write(&rows, "{\"source\":\"five\"}\n{\"source\":\"five\"}\n").expect("writes");
    let drawn = |seed: u64| {
        let sampling = Sampling {
            temperature: 3.0,
            top_k: 0,
            top_p: 1.0,
            seed,
        };
        let mut asked = PredictRequest::new(request.model.clone(), DataRequest::new(&rows));
        asked.decoding.sampling = Some(sampling);
        let mut printed = Printed::default();
        let predicted = task.predict(&asked, &offline(), Stop::never(), &mut printed);
        predicted.expect("predicts");
        printed.0
    };
    let first = drawn(1);
    assert_ne!(first[0], first[1]);
    assert_eq!(drawn(1), first);
    assert_ne!(drawn(2), first);

    std::fs::write(&rows, "{\"source\":\"ninety-two\"}\n{\"source\":3}\n").expect("writes");
    let mut request = PredictRequest::new(request.model, DataRequest::new(&rows));
    let mut printed = Printed::default();
    let error = task.predict(&request, &offline(), Stop::never(), &mut printed);
    let error = error.expect_err("a number is no source").to_string();
    assert!(error.contains("rows.jsonl:2"), "{error}");
    request.data.on_error = OnError::Skip;
    let mut printed = Printed::default();
    task.predict(&request, &offline(), Stop::never(), &mut printed)
        .expect("predicts");
    assert!(printed.0[0]["text"].is_string(), "{:?}", printed.0);
    assert!(printed.0[1]["error"].is_string(), "{:?}", printed.0);
}

/// What `generation_config.json` says of drawing counts where tokens are drawn, and there what is not done is refused.
#[test]
fn settings_of_drawing_count_where_tokens_are_drawn() {
    let dir = place();
    let example = EXAMPLES.iter().find(|one| one.task == "seq2seq");
    let short = ["train.max_steps=2", "train.eval_every=0"];
    example
        .expect("an example")
        .run(&dir, &short)
        .expect("a run");
    let model = dir.path().join("run/model");
    let settings = "{\"do_sample\": true, \"num_beams\": 4, \"typical_p\": 0.9}";
    std::fs::write(model.join("generation_config.json"), settings).expect("writes");
    let rows = dir.path().join("rows.jsonl");
    std::fs::write(&rows, "{\"source\":\"five\"}\n").expect("writes");
    let predict = |temperature: f64| {
        let model = ModelRequest::new(model.to_str().expect("UTF-8"));
        let mut request = PredictRequest::new(model, DataRequest::new(&rows));
        request.decoding.sampling = Some(Sampling {
            temperature,
            ..Sampling::greedy()
        });
        let task = task_of(&request.model);
        let mut printed = Printed::default();
        let predicted = task.predict(&request, &offline(), Stop::never(), &mut printed);
        predicted.map(|()| printed.0.len())
    };
    assert_eq!(predict(0.0).expect("the most likely tokens"), 1);
    let refused = predict(1.0).expect_err("a way to draw that is not done");
    assert!(refused.to_string().contains("typical_p"), "{refused}");
}
