//! Generating, evaluating, inspecting and diagnosing, with the built-in model.

use reparam_formats::is_unprintable;
use serde_json::{Value, json};

use crate::support::{Outcome, RawTensor, TensorFile, Workplace, model, repository};

fn generate(workplace: &Workplace, args: &[&str]) -> Outcome {
    let model = model();
    workplace.reparam(&[&["generate", "--model", &model][..], args].concat())
}

fn golden(name: &str) -> String {
    let path = repository().join("testdata/golden").join(name);
    std::fs::read_to_string(path).expect("a golden file")
}

#[test]
fn greedy_text_is_the_golden_text() {
    let workplace = Workplace::new();
    let outcome = generate(&workplace, &["--prompt", "", "--max-new-tokens", "256"]).succeeded();
    assert_eq!(
        outcome.out.trim_end_matches('\n'),
        golden("golden_greedy_n256.txt").trim_end_matches('\n')
    );
}

#[test]
fn greedy_tokens_are_the_golden_tokens() {
    let workplace = Workplace::new();
    let golden: Value = serde_json::from_str(&golden("generate.json")).expect("JSON");
    let mut cases = golden["continuations"].as_array().expect("cases").clone();
    cases.push(golden["greedy_file"].clone());
    assert!(cases.len() >= 3);
    for case in &cases {
        let prompt = case["prompt"].as_str().expect("a prompt");
        let n_tokens = case["max_new_tokens"].to_string();
        let args = ["--json", "--prompt", prompt, "--max-new-tokens", &n_tokens];
        let report = generate(&workplace, &args).succeeded().json();
        assert_eq!(report["tokens"], case["new_ids"], "{prompt}");
        assert_eq!(report["text"], case["text"], "{prompt}");
        let prompt_ids = case["prompt_ids"].as_array().expect("ids");
        assert_eq!(report["prompt_tokens"], prompt_ids.len());
        assert_eq!(report["finish_reason"], "max_new_tokens");
    }
}

/// What may be long takes no memory before it is; what could never be so long is refused.
#[test]
fn a_limit_beyond_all_bounds_is_no_problem() {
    let workplace = Workplace::new();
    let most = u64::MAX.to_string();
    let model = model();
    let args = ["generate", "--model", &model, "--prompt", "Once"];
    workplace
        .reparam(&[&args[..], &["--max-new-tokens", &most]].concat())
        .failed(
            1,
            "this needs at least",
            "lower the number of new tokens, which takes",
        );
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = std::process::Command::new(assert_cmd::cargo::cargo_bin!("reparam"))
        .args(args)
        .args(["--max-new-tokens", "500000"])
        .env_clear()
        .current_dir(workplace.root())
        .stdout(writer)
        .output()
        .expect("a process");
    // It runs until it finds that nobody listens.
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn wrong_arguments_exit_with_2() {
    let workplace = Workplace::new();
    for args in [
        &["--prompt", "a", "--max-new-tokens", "0"][..],
        &["--prompt", "a", "--top-k", "3"],
        &["--prompt", "a", "--seed", "3"],
        &["--prompt", "a", "--temperature", "-1"],
        &[],
    ] {
        let outcome = generate(&workplace, args);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.err.starts_with("error: "), "{outcome:?}");
        assert!(outcome.out.is_empty(), "{outcome:?}");
    }
}

#[test]
fn inspect_tells_what_things_are() {
    let workplace = Workplace::new();
    workplace.train(&[]).succeeded();
    let inspect = |path: &str| {
        workplace
            .reparam(&["inspect", "--json", path])
            .succeeded()
            .json()
    };

    let of_model = inspect(&model());
    assert_eq!(of_model["kind"], "model");
    assert_eq!(of_model["properties"]["parameters"], 260_032);
    assert_eq!(of_model["properties"]["trainable_parameters"], 0);
    assert_eq!(of_model["tensor_count"], 47);

    let of_adapter = inspect("run/adapter");
    assert_eq!(of_adapter["kind"], "adapter");
    assert_eq!(of_adapter["properties"]["rank"], 4);
    assert_eq!(of_adapter["properties"]["scaling"], 2.0);
    assert_eq!(of_adapter["properties"]["adapted_modules"], 35);
    assert_eq!(of_adapter["properties"]["trainable_parameters"], 23_120);
    let of_run = inspect("run");
    assert_eq!(of_run["kind"], "adapter");
    assert_eq!(of_run["properties"]["result"], "there");
    for (key, value) in of_adapter["properties"].as_object().expect("properties") {
        assert_eq!(&of_run["properties"][key], value);
    }

    let of_file = inspect("run/adapter/adapter_model.safetensors");
    assert_eq!(of_file["kind"], "tensors");
    assert_eq!(of_file["elements"], 23_120);
    assert_eq!(of_file["bytes"], 4 * 23_120);

    let text = workplace
        .reparam(&["inspect", "--tensors", "run"])
        .succeeded();
    assert!(
        text.out.contains("layers.4.mlp.down_proj.lora_A.weight"),
        "{text:?}"
    );
    workplace
        .reparam(&["inspect", "nope"])
        .failed(1, "no such file: nope", "");
    let of_text = inspect("train.txt");
    assert_eq!(of_text["kind"], "text file");
    let lines = workplace.read_text("train.txt").lines().count();
    assert_eq!(of_text["properties"]["lines"], lines);
}

#[test]
fn names_from_files_steer_no_terminal() {
    const NAME: &str = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}\n\u{7f}x";
    let workplace = Workplace::new();
    let tensor = |name: String| RawTensor {
        name,
        dtype: "F32".to_owned(),
        shape: vec![0],
        bytes: Vec::new(),
    };
    let file = |name: &str, tensors| TensorFile { tensors }.write(&workplace.path(name));
    file("evil.safetensors", vec![tensor(NAME.to_owned())]);
    let inspect = ["inspect", "--tensors", "evil.safetensors"];
    let text = workplace.reparam(&inspect).succeeded().out;
    let escaped = r"\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}\n\u{7f}x  F32";
    assert!(text.contains(escaped), "{text:?}");
    assert!(!text.contains(|c: char| c != '\n' && is_unprintable(c)));

    let json = workplace.reparam(&[&inspect[..], &["--json"]].concat());
    assert_eq!(json.json()["tensors"][0]["name"], NAME);
    assert!(!json.out.trim_end().contains(is_unprintable), "{json:?}");

    // In errors, too, and no name makes a message that nobody can read.
    let mut evil = tensor(format!("{NAME}{}", "x".repeat(100_000)));
    evil.shape = vec![5];
    workplace.copy_model("model");
    file("model/model.safetensors", vec![evil]);
    let described = workplace.reparam(&["inspect", "--tensors", "model"]);
    let described = described.succeeded().out;
    assert!(described.contains("problem"), "{described}");
    assert!(!described.contains(|c: char| c != '\n' && is_unprintable(c)));
    assert!(described.len() < 2000, "{}", described.len());
    let failed = workplace.reparam(&["eval", "--model", "model", "--data", "held_out.txt"]);
    assert_eq!(failed.code, Some(1));
    assert!(
        !failed
            .err
            .contains(|c: char| c != '\n' && is_unprintable(c))
    );
    assert!(failed.err.contains("xxx…' of dtype"), "{failed:?}");
    assert!(failed.err.len() < 1000, "{}", failed.err.len());
}

#[test]
fn doctor_reports_the_machine_as_json() {
    let workplace = Workplace::new();
    let report = workplace.reparam(&["doctor", "--json"]).succeeded().json();
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert!(report["cpu"]["logical_cores"].as_u64().expect("cores") >= 1);
    assert!(report["memory"]["total_bytes"].as_u64().expect("bytes") > 0);
    let kernels = report["kernels"].as_object().expect("kernels");
    assert!(
        kernels["instruction sets"]
            .as_str()
            .expect("names")
            .contains("portable")
    );
}

#[test]
fn a_closed_pipe_ends_every_command_with_3() {
    let workplace = Workplace::new();
    let model = model();
    for args in [
        &["inspect", &model][..],
        &["eval", "--model", &model, "--data", "held_out.txt"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = std::process::Command::new(assert_cmd::cargo::cargo_bin!("reparam"))
            .args(args)
            .env_clear()
            .current_dir(workplace.root())
            .stdout(writer)
            .output()
            .expect("a process");
        assert_eq!(output.status.code(), Some(3), "{args:?}");
    }
}

#[test]
fn bench_measures_the_built_in_model() {
    let workplace = Workplace::new();
    let model = &model();
    let bench = |extra: &[&str]| {
        let args = [
            "bench",
            "--model",
            model,
            "--batch-size",
            "1",
            "--sequence-length",
            "16",
            "--warmup",
            "1",
            "--json",
        ];
        workplace.reparam(&[&args[..], extra].concat())
    };
    for precision in ["bf16", "f32"] {
        let report = bench(&["--steps", "2", "--precision", precision]);
        let report = report.succeeded().json();
        assert_eq!(report["precision"], precision);
        for loss in report["losses"].as_array().expect("a list") {
            let loss = loss.as_f64().expect("a number");
            assert!(loss > 1.0 && loss < 40.0, "{loss}");
        }
        let seconds = report["step_seconds_median"].as_f64().expect("a number");
        let operations = report["operations"].as_array().expect("a list");
        let known: f64 = operations
            .iter()
            .map(|operation| operation["seconds"].as_f64().expect("a number"))
            .sum();
        assert!(known > 0.2 * seconds && known < 5.0 * seconds, "{report}");
        assert!(
            operations
                .iter()
                .any(|operation| operation["name"] == "linear")
        );
        assert!(report["linear_gflops"].as_f64() > Some(0.0));
    }
    // Every method that runs in bf16 is measured there; a rank is that of a method that has one.
    let short = |extra: &[&str]| bench(&[&["--steps", "1", "--precision", "bf16"], extra].concat());
    for (method, rank) in [("lora", 16), ("dora", 16), ("vera", 256)] {
        let report = short(&["--method", method]).succeeded().json();
        assert_eq!(
            (&report["method"], &report["rank"]),
            (&json!(method), &json!(rank))
        );
    }
    let report = short(&["--method", "vera", "--rank", "8"])
        .succeeded()
        .json();
    assert_eq!(report["rank"], 8);
    let report = short(&["--method", "ia3"]).succeeded().json();
    assert_eq!(report["rank"], Value::Null);
    for (extra, word) in [
        (&["--method", "ia3", "--rank", "8"][..], "rank"),
        (&["--method", "weight_norm"][..], "packed"),
        (&["--method", "lorra"][..], "lora"),
    ] {
        let refused = short(extra);
        assert_eq!(refused.code, Some(1), "{extra:?}");
        assert!(refused.out.contains(word), "{extra:?}: {}", refused.out);
    }
    let refused = workplace.reparam(&[
        "bench",
        "--model",
        model,
        "--precision",
        "f32",
        "--recompute",
        "--json",
    ]);
    assert_eq!(refused.code, Some(1), "recomputing belongs to bf16");
}

/// Of an example the response is scored; the format says what the file's objects are.
#[test]
fn eval_scores_what_the_format_says() {
    let workplace = Workplace::new();
    let example = br#"{"text":"Hi there","prompt":"Once upon a","completion":" time"}"#;
    workplace.write("both.jsonl", example);
    let eval = |format: &str| {
        let model = model();
        let arguments = [
            "eval",
            "--model",
            &model,
            "--data",
            "both.jsonl",
            "--format",
            format,
            "--json",
        ];
        workplace.reparam(&arguments).succeeded().json()
    };
    let (text, example) = (eval("jsonl"), eval("prompt_completion"));
    // `▁H` `i` `▁there` and `▁time`, each with the end-of-text token.
    assert_eq!(text["tokens"], 4);
    assert_eq!(example["tokens"], 2);
    let model = model();
    let wrong = [
        "eval",
        "--model",
        &model,
        "--data",
        "both.jsonl",
        "--format",
        "conll",
    ];
    let outcome = workplace.reparam(&wrong);
    assert_eq!(outcome.code, Some(1));
    for format in ["text", "jsonl", "prompt_completion", "alpaca"] {
        assert!(outcome.err.contains(format), "{outcome:?}");
    }
}

#[test]
fn a_seed_repeats_a_drawn_text() {
    let workplace = Workplace::new();
    let draw = |seed: &str| {
        let args = [
            "--prompt",
            "Once",
            "--temperature",
            "1",
            "--top-p",
            "0.95",
            "--seed",
            seed,
        ];
        generate(&workplace, &args).succeeded().out
    };
    assert_eq!(draw("1"), draw("1"));
    assert_ne!(draw("1"), draw("2"));
}
