//! Merging adapters and writing the formats of other programs.

use std::path::Path;

use serde_json::json;

use crate::support::{Workplace, model, repository};

fn adapter(name: &str) -> String {
    let path = repository().join("testdata/golden/peft").join(name);
    path.display().to_string()
}

fn begins(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("a file")[..4].to_vec()
}

#[test]
fn models_and_adapters_become_files_of_llama_cpp() {
    let workplace = Workplace::new();
    let (model, adapter) = (model(), adapter("patterns"));
    let cases: [(&[&str], &str, &str); 4] = [
        (&["--model", &model], "model", "f32"),
        (&["--model", &model, "--dtype", "q8_0"], "model", "q8_0"),
        (
            &["--adapter", &adapter, "--model", &model],
            "adapter",
            "f32",
        ),
        (
            &[
                "--adapter",
                &adapter,
                "--model",
                &model,
                "--merge",
                "--dtype",
                "bf16",
            ],
            "model",
            "bf16",
        ),
    ];
    for (args, kind, dtype) in cases {
        let all = [
            &["convert", "--json", "--to", "gguf", "--output", "a.gguf"],
            args,
        ]
        .concat();
        let mut report = workplace.reparam(&all).succeeded().json();
        let tensors = report.as_object_mut().and_then(|of| of.remove("tensors"));
        assert_eq!(tensors.is_some(), kind == "model");
        let expected = json!({"dtype": dtype, "format": "gguf", "kind": kind, "output": "a.gguf"});
        assert_eq!(report, expected);
        assert_eq!(begins(&workplace.root().join("a.gguf")), b"GGUF");
    }
}

#[test]
fn what_has_no_effect_or_no_meaning_is_wrong_use() {
    let workplace = Workplace::new();
    let (model, adapter) = (model(), adapter("plain"));
    let cases: [(&[&str], &str); 7] = [
        (&["--to", "gguf"], "--model"),
        (&["--to", "gguf", "--model", &model, "--merge"], "--adapter"),
        (&["--to", "peft", "--model", &model], "writes an adapter"),
        (
            &["--to", "mlx", "--adapter", &adapter, "--dtype", "f16"],
            "no effect",
        ),
        (
            &["--to", "mlx", "--adapter", &adapter, "--model", &model],
            "no effect",
        ),
        (
            &["--to", "mlx", "--model", &model, "--dtype", "q8_0"],
            "MLX quantizes",
        ),
        (&["--to", "onnx", "--model", &model], "onnx"),
    ];
    for (args, said) in cases {
        let all = [&["convert", "--output", "out"], args].concat();
        let outcome = workplace.reparam(&all);
        assert_eq!(outcome.code, Some(2), "{args:?}: {}", outcome.err);
        assert!(outcome.err.contains(said), "{args:?}: {}", outcome.err);
        assert!(!workplace.root().join("out").exists());
    }
}

#[test]
fn what_an_adapter_file_has_no_place_for_is_merged() {
    let workplace = Workplace::new();
    let dora = repository().join("testdata/golden/methods/dora");
    let dora = dora.display().to_string();
    let model = model();
    let args = [
        "convert",
        "--to",
        "gguf",
        "--output",
        "a.gguf",
        "--adapter",
        &dora,
        "--model",
        &model,
    ];
    workplace.reparam(&args).failed(1, "use_dora", "--merge");
    let merged = [&args[..], &["--merge"]].concat();
    workplace.reparam(&merged).succeeded();
}

#[test]
fn a_merged_adapter_says_its_base_itself() {
    let workplace = Workplace::new();
    workplace.train(&[]).succeeded();
    let convert = |more: &[&str]| {
        let args = ["convert", "--to", "gguf", "--merge", "--adapter"];
        workplace.reparam(&[&args[..], more].concat())
    };
    convert(&["run", "--output", "a.gguf"]).succeeded();
    convert(&["run/adapter", "--model", &model(), "--output", "b.gguf"]).succeeded();
    assert_eq!(workplace.read("a.gguf"), workplace.read("b.gguf"));
    convert(&["none", "--output", "c.gguf"]).failed(1, "none", "adapter_config.json");
    // One that says none has to be told.
    workplace.copy_model("only");
    convert(&["only", "--output", "c.gguf"]).failed(1, "only is not an adapter", "save_pretrained");
}

#[test]
fn an_adapter_of_mlx_is_none_of_peft() {
    let workplace = Workplace::new();
    let plain = adapter("plain");
    let to = [
        "convert",
        "--to",
        "mlx",
        "--output",
        "mlx",
        "--adapter",
        &plain,
    ];
    workplace.reparam(&to).succeeded();
    let (model, all) = (model(), ["--adapter", "mlx", "--model"]);
    let gguf = ["convert", "--to", "gguf", "--output", "a.gguf"];
    let gguf = [&gguf[..], &all, &[&model]].concat();
    workplace
        .reparam(&gguf)
        .failed(1, "mlx is an adapter of MLX, not of PEFT", "--to peft");
}

#[test]
fn an_adapter_goes_to_mlx_and_back_with_the_same_bits() {
    let workplace = Workplace::new();
    let plain = adapter("plain");
    let convert = |adapter: &str, to: &str, output: &str| {
        let args = [
            "convert",
            "--adapter",
            adapter,
            "--to",
            to,
            "--output",
            output,
        ];
        workplace.reparam(&args).succeeded();
    };
    convert(&plain, "mlx", "mlx");
    convert("mlx", "peft", "peft");
    let bytes =
        |path: &Path| std::fs::read(path.join("adapter_model.safetensors")).expect("a file");
    let again = workplace.root().join("peft");
    assert_eq!(bytes(Path::new(&plain)), bytes(&again));
    workplace
        .reparam(&[
            "convert",
            "--adapter",
            &plain,
            "--to",
            "peft",
            "--output",
            "no",
        ])
        .failed(1, "is not an adapter of MLX", "mlx_lm.lora");
}

#[test]
fn a_merged_model_is_evaluated_as_its_adapter() {
    let workplace = Workplace::new();
    let (model, adapter) = (model(), adapter("rslora"));
    let text = workplace.root().join("text.txt");
    std::fs::write(
        text,
        "Once upon a time, there was a little girl named Lily.",
    )
    .expect("writes");
    let merge = [
        "merge",
        "--model",
        &model,
        "--adapter",
        &adapter,
        "--output",
        "merged",
    ];
    let args = [
        &merge[..],
        &["--json", "--data", "text.txt", "--max-kl", "1e-6"],
    ]
    .concat();
    let report = workplace.reparam(&args).succeeded().json();
    assert_eq!(report["layers"].as_array().map(Vec::len), Some(35));
    assert!(
        report["kl"].as_f64().is_some_and(|kl| kl < 1e-9),
        "{report}"
    );
    let loss = |args: &[&str]| {
        let all = [
            &["eval", "--json", "--data", "text.txt", "--precision", "f32"],
            args,
        ]
        .concat();
        workplace.reparam(&all).succeeded().json()["loss"]
            .as_f64()
            .expect("a loss")
    };
    let difference =
        loss(&["--model", "merged"]) - loss(&["--model", &model, "--adapter", &adapter]);
    assert!(difference.abs() < 1e-5, "{difference}");
    // By people it is read a weight a line.
    workplace
        .reparam(&merge)
        .failed(1, "merged is there already", "--output");
    std::fs::remove_dir_all(workplace.root().join("merged")).expect("removes");
    let text = workplace.reparam(&merge).succeeded().out;
    assert!(
        text.contains("model.layers.0.mlp.down_proj.weight") && text.contains("error"),
        "{text}"
    );
    let weights = [&merge[..], &["--weight", "1", "--weight", "2"]].concat();
    assert_eq!(workplace.reparam(&weights).code, Some(2));
}

/// What an adapter or a trained model changes, as a LoRA that says the same as far as its rank goes.
#[test]
fn changes_become_a_lora() {
    let workplace = Workplace::new();
    let model = model();
    let convert = |output: &str, more: &[&str]| {
        let args = [
            "convert", "--to", "lora", "--json", "--model", &model, "--output", output,
        ];
        workplace.reparam(&[&args[..], more].concat())
    };
    let loss = |adapter: &str| {
        let args = [
            "eval",
            "--model",
            &model,
            "--adapter",
            adapter,
            "--data",
            "held_out.txt",
        ];
        let report = workplace.reparam(&[&args[..], &["--json", "--precision", "f32"]].concat());
        report.succeeded().json()["loss"].as_f64().expect("a loss")
    };
    let number = |report: &serde_json::Value, key: &str| report[key].as_f64().expect("a number");

    // A LoRA is found again, but for the rounding of its factors.
    let plain = adapter("plain");
    let data = ["--data", "held_out.txt", "--sequence-length", "32"];
    let of_plain = [&["--adapter", &plain, "--rank", "4"][..], &data].concat();
    let report = convert("plain", &of_plain).succeeded().json();
    assert!(number(&report, "relative_error") < 1e-6, "{report}");
    assert!(number(&report, "kl") < 1e-8, "{report}");
    assert_eq!(report["left_out"], json!([]));
    let layers = report["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 10);
    assert!(layers.iter().all(|layer| layer["rank"] == 4), "{layers:?}");
    assert!((loss("plain") - loss(&plain)).abs() < 1e-5);

    // A DoRA changes more directions than its rank; each error is what it has to be.
    let dora = repository().join("testdata/golden/methods/dora");
    let dora = dora.display().to_string();
    let mut before = f64::INFINITY;
    for energy in ["0.5", "0.9", "1"] {
        let of_dora = ["--adapter", &dora, "--energy", energy];
        let report = convert(&format!("dora-{energy}"), &of_dora)
            .succeeded()
            .json();
        let error = number(&report, "relative_error");
        let most = (1.0 - energy.parse::<f64>().expect("a number")).sqrt();
        assert!(error <= most + 1e-6 && error < before, "{energy}: {report}");
        before = error;
        let text = workplace.read_text(&format!("dora-{energy}/adapter_config.json"));
        let config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            (&config["peft_type"], &config["use_dora"]),
            (&json!("LORA"), &json!(false))
        );
    }
    assert!((loss("dora-1") - loss(&dora)).abs() < 1e-4);

    // A model that was trained whole changes norms, too, which are named.
    workplace
        .train(&["method={ kind = \"full\" }", "train.max_steps=2"])
        .succeeded();
    let of_model = [&["--from", "run/model", "--rank", "64"][..], &data].concat();
    let outcome = convert("tuned", &of_model).succeeded();
    let report = outcome.json();
    assert!(
        outcome.err.contains("not in the LoRA, though different"),
        "{}",
        outcome.err
    );
    let left_out = report["left_out"].as_array().expect("names");
    assert!(left_out.contains(&json!("model.norm.weight")), "{report}");
    assert!(number(&report, "relative_error") < 1e-5, "{report}");
    assert!(number(&report, "kl") > 0.0);
    let config = workplace.read_text("tuned/adapter_config.json");
    assert!(config.contains("CAUSAL_LM"), "{config}");

    convert("none", &["--from", &model]).failed(1, "no linear layer differs", "--model");
    assert!(!workplace.path("none").exists());
    convert("plain", &of_plain).failed(1, "is there already", "--output");
    for (more, said) in [
        (&["--rank", "4"][..], "--from"),
        (
            &["--adapter", &plain, "--rank", "4", "--energy", "0.5"],
            "--energy",
        ),
        (&["--adapter", &plain, "--energy", "1.5"], "at most 1"),
        (&["--adapter", &plain, "--dtype", "f16"], "no effect"),
        (&["--adapter", &plain, "--from", &model], "--from"),
    ] {
        let outcome = convert("wrong", more);
        assert_eq!(outcome.code, Some(2), "{more:?}: {}", outcome.err);
        assert!(outcome.err.contains(said), "{more:?}: {}", outcome.err);
    }
    let gguf = [
        "convert", "--to", "gguf", "--model", &model, "--output", "a", "--rank", "4",
    ];
    let outcome = workplace.reparam(&gguf);
    assert_eq!(outcome.code, Some(2), "{}", outcome.err);
}
