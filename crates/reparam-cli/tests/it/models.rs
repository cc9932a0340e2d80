//! Runs that result in a model instead of an adapter.

use serde_json::{Value, json};

use crate::reparam;
use crate::support::{
    Outcome, RawTensor, TensorFile, Workplace, copy_files, json_lines, model, repository,
};

fn eval(workplace: &Workplace, model: &str, adapter: &[&str]) -> Value {
    let args = [
        "eval",
        "--json",
        "--sequence-length",
        "64",
        "--data",
        "held_out.txt",
        "--model",
        model,
    ];
    workplace
        .reparam(&[&args, adapter].concat())
        .succeeded()
        .json()
}

const SHORT: [&str; 3] = [
    "train.batch_size=1",
    "train.sequence_length=64",
    "train.max_steps=3",
];

fn without_method(workplace: &Workplace) {
    let text = workplace.read_text("run.toml");
    let text = text.replace("kind = \"lora\"\nrank = 4\n", "");
    workplace.write("run.toml", text.as_bytes());
}

#[test]
fn a_model_is_no_adapter() {
    let workplace = Workplace::new();
    without_method(&workplace);
    workplace
        .train(&[&SHORT[..], &["method.kind=identity"]].concat())
        .succeeded();
    let base = model();
    let args = [
        "eval",
        "--data",
        "held_out.txt",
        "--model",
        &base,
        "--adapter",
        "run/model",
    ];
    workplace.reparam(&args).failed(
        1,
        "run/model is a model, not the directory of an adapter",
        "--model",
    );
    let args = ["predict", "--model", "run/model", "--data", "held_out.txt"];
    workplace.reparam(&args).failed(
        1,
        "a model for causal-lm cannot be used for predictions",
        "",
    );
}

/// The adapter names its base, so that the directory of the run is enough.
#[test]
fn a_run_with_an_adapter_is_used_over_its_base() {
    let workplace = Workplace::new();
    without_method(&workplace);
    workplace
        .train(&[&SHORT[..], &["method.kind=lora", "train.save_every=2"]].concat())
        .succeeded();
    let base = model();
    let expected = eval(&workplace, &base, &["--adapter", "run/adapter"]);
    assert_ne!(expected, eval(&workplace, &base, &[]));
    for directory in ["run", "run/adapter"] {
        assert_eq!(eval(&workplace, directory, &[]), expected, "{directory}");
        let of_adapter = eval(&workplace, &base, &["--adapter", directory]);
        assert_eq!(of_adapter, expected, "{directory}");
    }
    // A checkpoint is the adapter of an earlier step.
    let checkpoint = "run/checkpoints/step-000002";
    let earlier = eval(&workplace, checkpoint, &[]);
    assert_ne!(earlier, expected);
    let of_adapter = eval(&workplace, &base, &["--adapter", checkpoint]);
    assert_eq!(of_adapter, earlier);
    let named = eval(&workplace, "run", &["--task", "causal-lm"]);
    assert_eq!(named, expected);
    let generate = [
        "generate",
        "--prompt",
        "Once",
        "--max-new-tokens",
        "3",
        "--json",
    ];
    let text = |args: &[&str]| {
        let outcome = workplace.reparam(&[&generate[..], args].concat());
        outcome.succeeded().json()["text"].clone()
    };
    let [of_run, of_adapter] = [
        text(&["--model", "run"]),
        text(&["--model", &base, "--adapter", "run/adapter"]),
    ];
    assert_eq!(of_run, of_adapter);

    // Two adapters, a base that is not there, an adapter that says none.
    let eval = ["eval", "--data", "held_out.txt", "--model", "run"];
    let two = [&eval[..], &["--adapter", "run/adapter"]].concat();
    let hint = "--model BASE --adapter run/adapter";
    workplace
        .reparam(&two)
        .failed(1, "run/adapter is an adapter, not a model", hint);
    let config = workplace.read_text("run/adapter/adapter_config.json");
    let with_base = |base: Value| {
        let mut config: Value = serde_json::from_str(&config).expect("JSON");
        config["base_model_name_or_path"] = base;
        workplace.write(
            "run/adapter/adapter_config.json",
            config.to_string().as_bytes(),
        );
        workplace.reparam(&eval)
    };
    with_base(json!("./gone")).failed(
        1,
        "run/adapter is an adapter of ./gone, which is not found",
        hint,
    );
    with_base(Value::Null).failed(1, "run/adapter is an adapter, not a model", hint);
}

/// A hub id is looked up in the cache before the run file is read, for its keys depend on what the model is for.
#[test]
fn a_cached_model_says_what_it_is_for() {
    let workplace = Workplace::new();
    let cache = workplace.path("cache/models--org--judge");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    std::fs::create_dir_all(cache.join("refs")).expect("a directory");
    std::fs::write(cache.join("refs/main"), commit).expect("writes");
    let golden = repository().join("testdata/golden/bert/classifier");
    copy_files(&golden, &cache.join("snapshots").join(commit));
    workplace.write("rows.csv", b"text,label\nhello,ham\nwin,spam\n");
    let run = "[model]\npath = \"org/judge\"\n[data]\ntrain = \"rows.csv\"\neval_fraction = 0\nfields = { label = \"label\" }\n\
        [method]\nkind = \"lora\"\n[train]\nmax_steps = 1\n[output]\ndir = \"run\"\n";
    workplace.write("run.toml", run.as_bytes());
    let train = |cache: &str| {
        let mut command = reparam(workplace.root());
        command.env("HF_HUB_OFFLINE", "1");
        command.env("HF_HUB_CACHE", workplace.path(cache));
        Outcome::of(
            command
                .args(["train", "run.toml"])
                .output()
                .expect("a process"),
        )
    };
    let hint = "set `task` in [model] to one of causal-lm, ";
    train("empty").failed(1, "no field `label`", hint);
    train("cache").succeeded();
    let card = workplace.read_text("run/adapter/reparam.json");
    assert!(card.contains("\"sequence-classification\""), "{card}");
}

/// PEFT stores the weight of an output head that it adapts beside the factors.
#[test]
fn the_head_of_the_base_in_an_adapter_has_to_be_its_own() {
    const HEAD: &str = "lm_head.weight";
    let workplace = Workplace::new();
    let base = workplace.copy_model("base");
    let mut config: Value =
        serde_json::from_slice(&workplace.read("base/config.json")).expect("JSON");
    config["tie_word_embeddings"] = false.into();
    workplace.write("base/config.json", config.to_string().as_bytes());
    let mut file = TensorFile::read(&base.join("model.safetensors"));
    let embedding = file.tensor("model.embed_tokens.weight");
    let mut head = RawTensor {
        name: HEAD.to_owned(),
        dtype: embedding.dtype.clone(),
        shape: embedding.shape.clone(),
        bytes: embedding.bytes.clone(),
    };
    head.bytes.reverse();
    // Any number will do that is one.
    head.bytes
        .chunks_exact_mut(4)
        .for_each(|number| number[3] = 0x3c);
    file.tensors.push(head);
    file.write(&base.join("model.safetensors"));
    workplace
        .train(&[
            "model.path=base",
            "method.target_modules=[\"q_proj\",\"lm_head\"]",
        ])
        .succeeded();
    let adapter = ["--adapter", "run/adapter"];
    let expected = eval(&workplace, "base", &adapter);

    let path = workplace.path("run/adapter/adapter_model.safetensors");
    let mut stored = TensorFile::read(&path);
    let head = file.tensors.pop().expect("the head");
    stored.tensors.push(RawTensor {
        name: "base_model.model.lm_head.base_layer.weight".to_owned(),
        ..head
    });
    stored.write(&path);
    assert_eq!(eval(&workplace, "base", &adapter), expected);
    let described = workplace.reparam(&["inspect", "run/adapter", "--json"]);
    let properties = &described.succeeded().json()["properties"];
    // Rank 4: five layers of 64 x 64, and the head.
    assert_eq!(
        properties["trainable_parameters"],
        5 * 4 * (64 + 64) + 4 * (64 + 512)
    );

    let last = stored.tensors.last_mut().expect("the head");
    last.bytes[0] ^= 1;
    stored.write(&path);
    let args = [
        "eval",
        "--data",
        "held_out.txt",
        "--adapter",
        "run/adapter",
        "--model",
    ];
    let refused = |base: &str, problem: &str| {
        let error =
            format!("the adapter has the weight 'lm_head.weight' of its base, but {problem}");
        let outcome = workplace.reparam(&[&args[..], &[base]].concat());
        outcome.failed(1, &error, "give the base that the adapter was trained on");
    };
    refused("base", "that of the base is another");
    // Where the head is the embedding, it is that which is another.
    refused(&model(), "that of the base is another");
}

/// What a run was told of its data holds for its result; the length of pieces is said anew.
#[test]
fn texts_are_measured_as_in_training() {
    let workplace = Workplace::new();
    // Without `format` such rows are refused: they are documents or examples.
    let row = "{\"text\":\"t\",\"prompt\":\"Once upon a time there was \",\"completion\":\"a big red ball.\"}\n";
    workplace.write("rows.jsonl", row.repeat(3).as_bytes());
    let of_run = [
        "data.train=rows.jsonl",
        "data.eval=rows.jsonl",
        "data.format=prompt_completion",
        "train.sequence_length=12",
    ];
    let eval = |more: &[&str]| {
        let args = ["eval", "--json", "--data", "rows.jsonl"];
        workplace.reparam(&[&args, more].concat())
    };
    for (run, method, place) in [
        (
            "lora",
            &[][..],
            ["--model", &model(), "--adapter", "lora/adapter"].as_slice(),
        ),
        (
            "full",
            &["method={ kind = \"full\" }"],
            &["--model", "full"],
        ),
    ] {
        let output = format!("output.dir={run}");
        workplace
            .train(&[&of_run[..], method, &[output.as_str()]].concat())
            .succeeded();
        let events = json_lines(&workplace.read_text(&format!("{run}/events.jsonl")));
        let after = events.last().expect("an event")["after"]
            .as_f64()
            .expect("a loss");
        let length = ["--sequence-length", "12"];
        let found = eval(&[place, &length].concat()).succeeded().json();
        let loss = found["loss"].as_f64().expect("a loss");
        assert!((loss - after).abs() <= 1e-5, "{run}: {loss} {after}");
        let whole = eval(place).succeeded();
        assert_ne!(whole.json()["loss"], found["loss"], "{run}");
        // What is said counts more.
        eval(&[place, &["--format", "text"]].concat()).succeeded();
    }
    let card: Value =
        serde_json::from_slice(&workplace.read("lora/adapter/reparam.json")).expect("JSON");
    let expected = json!({"task": "causal-lm", "format": "prompt_completion"});
    assert_eq!(card, expected);
    let config: Value =
        serde_json::from_slice(&workplace.read("full/model/config.json")).expect("JSON");
    assert_eq!(config["reparam"], expected);
}
