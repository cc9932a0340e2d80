//! What is given as a model and is none, or is stored in another form: it is named, with what works.

use serde_json::{Value, json};

use crate::support::{RawTensor, TensorFile, Workplace, model};

const POINTER: &[u8] =
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n";

/// The beginning of a file of `torch.save`.
fn pickle() -> Vec<u8> {
    let name = b"archive/data.pkl";
    let mut bytes = b"PK\x03\x04".to_vec();
    bytes.extend([0; 22]);
    bytes.extend([name.len() as u8, 0, 0, 0]);
    bytes.extend(name);
    bytes
}

fn change_config(workplace: &Workplace, model: &str, change: impl FnOnce(&mut Value)) {
    let name = format!("{model}/config.json");
    let mut config: Value = serde_json::from_str(&workplace.read_text(&name)).expect("JSON");
    change(&mut config);
    workplace.write(&name, config.to_string().as_bytes());
}

/// Evaluates a copy of the model that is changed by `change`.
#[track_caller]
fn refused(change: impl FnOnce(&Workplace), error: &str, hint: &str) {
    let workplace = Workplace::new();
    workplace.copy_model("model");
    change(&workplace);
    let eval = ["eval", "--data", "held_out.txt", "--model", "model"];
    workplace.reparam(&eval).failed(1, error, hint);
    // What cannot be run is described all the same.
    let described = workplace
        .reparam(&["inspect", "model", "--json"])
        .succeeded();
    assert_eq!(described.json()["kind"], "model");
}

#[test]
fn files_that_are_something_else() {
    refused(
        |place| place.write("model/model.safetensors", POINTER),
        "model/model.safetensors is a Git LFS pointer, not a safetensors file",
        "git lfs pull",
    );
    refused(
        |place| place.write("model/tokenizer.json", POINTER),
        "model/tokenizer.json is a Git LFS pointer",
        "git lfs pull",
    );
    refused(
        |place| place.write("model/config.json", POINTER),
        "model/config.json is a Git LFS pointer",
        "git lfs pull",
    );
    refused(
        |place| place.write("model/model.safetensors", &pickle()),
        "model/model.safetensors is a pickle of PyTorch",
        "save_pretrained",
    );
    refused(
        |place| {
            let weights = place.path("model/model.safetensors");
            std::fs::remove_file(weights).expect("a file");
            place.write("model/pytorch_model.bin", &pickle());
        },
        "only pickled weights (pytorch_model.bin)",
        "save_pretrained(NEW_DIR)",
    );
}

#[test]
fn models_of_other_families_and_quantized_ones() {
    refused(
        |place| {
            change_config(place, "model", |config| {
                *config = json!({"model_type": "rwkv", "architectures": 3, "d_model": "wide"});
            });
        },
        "'architectures' in model/config.json has to be a list of strings",
        "",
    );
    refused(
        |place| {
            change_config(place, "model", |config| {
                *config = json!({"model_type": "rwkv", "d_model": "wide"});
            });
        },
        "the model type `rwkv` is not supported",
        "llama",
    );
    refused(
        |place| {
            change_config(place, "model", |config| {
                config["quantization_config"] = json!({"quant_method": "bitsandbytes"});
            });
        },
        "quantized by bitsandbytes",
        "int8",
    );
    refused(
        |place| {
            let path = place.path("model/model.safetensors");
            let mut file = TensorFile::read(&path);
            file.tensors.push(RawTensor {
                name: "model.layers.0.mlp.down_proj.weight.quant_state.bitsandbytes__nf4"
                    .to_owned(),
                dtype: "U8".to_owned(),
                shape: vec![4],
                bytes: vec![0; 4],
            });
            file.write(&path);
        },
        "quantized by bitsandbytes",
        "F32, BF16 or F16",
    );
    refused(
        |place| {
            let path = place.path("model/model.safetensors");
            let mut file = TensorFile::read(&path);
            let name = "model.layers.0.self_attn.q_proj.weight";
            let tensor = file.tensor(name);
            tensor.dtype = "F8_E4M3".to_owned();
            tensor.bytes.truncate(64 * 64);
            file.tensors.push(RawTensor {
                name: format!("{name}_scale_inv"),
                dtype: "F32".to_owned(),
                shape: vec![1, 1],
                bytes: vec![0; 4],
            });
            file.write(&path);
        },
        "quantized by FP8",
        "F32, BF16 or F16",
    );
}

#[test]
fn tensors_of_types_that_are_not_read_are_listed() {
    let workplace = Workplace::new();
    workplace.copy_model("model");
    let path = workplace.path("model/model.safetensors");
    let mut file = TensorFile::read(&path);
    let name = "model.layers.0.self_attn.q_proj.weight";
    let tensor = file.tensor(name);
    tensor.dtype = "F8_E4M3".to_owned();
    tensor.bytes.truncate(64 * 64);
    file.write(&path);
    let eval = ["eval", "--data", "held_out.txt", "--model", "model"];
    workplace
        .reparam(&eval)
        .failed(1, "unsupported dtype F8_E4M3", "F32, BF16 or F16");
    for path in ["model", "model/model.safetensors"] {
        let described = workplace.reparam(&["inspect", path, "--tensors", "--json"]);
        let described = described.succeeded().json();
        assert_eq!(described["tensor_count"], 47);
        let tensors = described["tensors"].as_array().expect("a list").iter();
        let dtypes: Vec<&Value> = tensors
            .filter(|tensor| tensor["name"] == name)
            .map(|tensor| &tensor["dtype"])
            .collect();
        assert_eq!(dtypes, ["F8_E4M3"]);
        let problem = described["properties"]["problem"]
            .as_str()
            .expect("a reason");
        assert!(problem.contains("F8_E4M3"), "{problem}");
    }
}

#[test]
fn things_that_are_no_model() {
    let workplace = Workplace::new();
    workplace.write("model.gguf", b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0");
    workplace.write("table.csv", b"text,label\na,b\nc,d\n");
    for directory in ["empty", "runs/a", "runs/b"] {
        std::fs::create_dir_all(workplace.path(directory)).expect("a directory");
    }
    for run in ["a", "b"] {
        workplace.write(&format!("runs/{run}/events.jsonl"), b"");
    }
    let eval =
        |model: &str| workplace.reparam(&["eval", "--data", "held_out.txt", "--model", model]);
    eval("model.gguf").failed(
        1,
        "model.gguf is a GGUF file, not the directory of a model",
        "safetensors",
    );
    eval("table.csv").failed(1, "table.csv is a table with commas (CSV)", "");
    eval("empty").failed(1, "empty is an empty directory", "config.json");
    eval("runs").failed(1, "runs is a directory of runs", "runs/a, runs/b");
    let kinds = [
        ("model.gguf", "GGUF file"),
        ("table.csv", "table with commas (CSV)"),
        ("empty", "empty directory"),
        ("runs", "runs"),
        ("runs/a", "run"),
    ];
    for (path, kind) in kinds {
        let described = workplace.reparam(&["inspect", path, "--json"]).succeeded();
        assert_eq!(described.json()["kind"], kind, "{path}");
    }
    let table = workplace
        .reparam(&["inspect", "table.csv", "--json"])
        .succeeded();
    let properties = &table.json()["properties"];
    assert_eq!(properties["lines"], 3);
    assert_eq!(properties["first_line"], json!(["text", "label"]));
}

/// An adapter of a method that is not read, and one whose tensors are pickled.
#[test]
fn adapters_that_are_not_read_are_listed() {
    let workplace = Workplace::new();
    workplace.train(&[]).succeeded();
    let name = "run/adapter/adapter_config.json";
    let text = workplace.read_text(name);
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["init_lora_weights"] = json!("pissa");
    config["brand_new_key"] = json!(true);
    workplace.write(name, config.to_string().as_bytes());
    let inspect = || {
        let described = workplace.reparam(&["inspect", "run/adapter", "--json"]);
        described.succeeded().json()
    };
    let described = inspect();
    assert_eq!(described["kind"], "adapter");
    assert_eq!(described["tensor_count"], 70);
    assert_eq!(described["properties"]["init_lora_weights"], "pissa");
    assert!(described["properties"]["problem"].is_string());

    workplace.write(name, text.as_bytes());
    let weights = workplace.path("run/adapter/adapter_model.safetensors");
    std::fs::remove_file(weights).expect("a file");
    workplace.write("run/adapter/adapter_model.bin", &pickle());
    let files = &inspect()["properties"]["files"];
    assert_eq!(*files, json!(["adapter_model.bin: a pickle of PyTorch"]));
    let eval = [
        "eval",
        "--data",
        "held_out.txt",
        "--model",
        &model(),
        "--adapter",
        "run/adapter",
    ];
    workplace
        .reparam(&eval)
        .failed(1, "only pickled weights (adapter_model.bin)", "PeftModel");
}

/// Every way to name the tokens that end a text counts, the tokenizer's among them.
#[test]
fn a_text_ends_at_every_token_that_is_named() {
    let workplace = Workplace::new();
    workplace.copy_model("model");
    let generate = |prompt: &str| {
        let args = [
            "generate",
            "--model",
            "model",
            "--prompt",
            prompt,
            "--max-new-tokens",
            "12",
            "--json",
        ];
        workplace
            .reparam(&[&args[..], &["--temperature", "0"]].concat())
            .succeeded()
            .json()
    };
    let free = generate("Once upon a time");
    assert_eq!(free["finish_reason"], "max_new_tokens");
    let token = |at: usize| free["tokens"][at].clone();
    let ends_before = |at: usize| {
        let found = generate("Once upon a time");
        assert_eq!(found["finish_reason"], "end_of_text");
        assert_eq!(found["tokens"].as_array().expect("ids").len(), at);
    };
    let (fourth, sixth) = (token(3), token(5));
    let first = |id: &Value| {
        let ids = free["tokens"].as_array().expect("ids").iter();
        ids.clone()
            .position(|other| other == id)
            .expect("it is there")
    };

    let generation = workplace.read_text("model/generation_config.json");
    workplace.write(
        "model/generation_config.json",
        json!({"eos_token_id": [2, sixth]}).to_string().as_bytes(),
    );
    ends_before(first(&sixth));
    change_config(&workplace, "model", |config| {
        config["eos_token_id"] = json!([2, fourth])
    });
    ends_before(first(&sixth).min(first(&fourth)));

    workplace.write("model/generation_config.json", generation.as_bytes());
    change_config(&workplace, "model", |config| {
        config["eos_token_id"] = json!(2)
    });
    let tokenizer: Value =
        serde_json::from_str(&workplace.read_text("model/tokenizer.json")).expect("JSON");
    let vocabulary = tokenizer["model"]["vocab"]
        .as_object()
        .expect("a vocabulary");
    let (word, _) = vocabulary
        .iter()
        .find(|(_, id)| **id == fourth)
        .expect("a token");
    let config = json!({"bos_token": "<s>", "eos_token": word});
    workplace.write("model/tokenizer_config.json", config.to_string().as_bytes());
    ends_before(first(&fourth));
}

#[test]
fn a_prompt_that_ends_in_bytes_is_not_printed_again() {
    let workplace = Workplace::new();
    let model = model();
    for prompt in ["\u{4f60}", "Once\n", "a \u{1f525}"] {
        let args = [
            "generate",
            "--model",
            &model,
            "--prompt",
            prompt,
            "--max-new-tokens",
            "4",
            "--temperature",
            "0",
        ];
        let plain = workplace.reparam(&args).succeeded();
        let json = workplace
            .reparam(&[&args[..], &["--json"]].concat())
            .succeeded()
            .json();
        let text = json["text"].as_str().expect("a text");
        assert!(
            !text.is_empty()
                && !text.contains(prompt.trim_start_matches(['O', 'n', 'c', 'e', 'a', ' '])),
            "{text:?}"
        );
        assert_eq!(plain.out, format!("{text}\n"));
    }
}

#[test]
fn a_length_beyond_the_positions_is_said() {
    let workplace = Workplace::new();
    workplace.copy_model("model");
    change_config(&workplace, "model", |config| {
        config["max_position_embeddings"] = json!(16)
    });
    let generate = |most: &str| {
        let args = [
            "generate",
            "--model",
            "model",
            "--prompt",
            "Once",
            "--max-new-tokens",
            most,
        ];
        workplace.reparam(&args).succeeded().err
    };
    let said = generate("15");
    assert!(
        said.starts_with("warning: the model was made for sequences of up to 16 tokens (max_position_embeddings), and 17 are"),
        "{said}"
    );
    assert!(!generate("14").contains("warning"));
    let eval = |args: &[&str]| {
        let all = [
            &["eval", "--model", "model", "--data", "held_out.txt"],
            args,
        ]
        .concat();
        workplace.reparam(&all).succeeded().err
    };
    assert!(eval(&["--sequence-length", "17"]).contains("and 17 are asked for"));
    assert!(!eval(&["--sequence-length", "16"]).contains("warning"));
    let train = workplace
        .train(&["model.path=model", "train.max_steps=1"])
        .succeeded();
    assert!(
        train.err.contains("warning: the model was made for"),
        "{}",
        train.err
    );
    assert!(
        workplace
            .read_text("run/events.jsonl")
            .contains("\"event\":\"warning\"")
    );
}

#[test]
fn a_head_that_differs_from_the_embedding_is_said_and_kept() {
    let workplace = Workplace::new();
    workplace.copy_model("model");
    let path = workplace.path("model/model.safetensors");
    let mut file = TensorFile::read(&path);
    let table = file.tensor("model.embed_tokens.weight");
    let mut head = RawTensor {
        name: "lm_head.weight".to_owned(),
        dtype: table.dtype.clone(),
        shape: table.shape.clone(),
        bytes: table.bytes.clone(),
    };
    // The signs of one token's numbers; a single sign is lost in rounding.
    let n_rows = head.shape[0] as usize;
    let row = head.bytes.len() / n_rows;
    for number in head.bytes[..row].as_chunks_mut::<4>().0 {
        number[3] ^= 0x80;
    }
    file.tensors.push(head);
    file.write(&path);
    let eval = |model: &str| {
        let args = ["eval", "--data", "held_out.txt", "--json", "--model", model];
        workplace.reparam(&args).succeeded()
    };
    let outcome = eval("model");
    assert!(
        outcome.err.contains("tie_word_embeddings"),
        "{}",
        outcome.err
    );
    assert_ne!(outcome.json(), eval(&model()).json());
    // A whole model that is trained from it says what it is.
    let full = [
        "model.path=model",
        "train.max_steps=1",
        "method={ kind = \"full\" }",
    ];
    workplace.train(&full).succeeded();
    assert!(
        workplace
            .read_text("run/model/config.json")
            .contains("\"tie_word_embeddings\": false")
    );
    assert!(!eval("run/model").err.contains("warning"));
}

#[test]
fn weights_that_overflow_are_an_error_in_evaluation() {
    let workplace = Workplace::new();
    workplace.copy_model("model");
    let path = workplace.path("model/model.safetensors");
    let mut file = TensorFile::read(&path);
    for tensor in &mut file.tensors {
        for word in tensor.bytes.as_chunks_mut::<4>().0 {
            *word = (f32::from_le_bytes(*word) * 1e30).to_le_bytes();
        }
    }
    file.write(&path);
    for precision in ["f32", "bf16"] {
        let model = ["--model", "model", "--precision", precision];
        let eval = [&["eval", "--data", "held_out.txt"], &model[..]].concat();
        workplace.reparam(&eval).failed(1, "not finite", "damaged");
        let generate = [&["generate", "--prompt", "Once"], &model[..]].concat();
        workplace
            .reparam(&generate)
            .failed(1, "not finite", "damaged");
    }
}
