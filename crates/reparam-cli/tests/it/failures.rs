//! What cannot work ends with the right exit code, says why and what to do, and leaves nothing.

use std::path::Path;

use serde_json::json;

use crate::support::{
    Outcome, TensorFile, Workplace, all_paths, copy_files, model, path_text, repository,
};

/// Trains on a model that is damaged by `damage`.
#[track_caller]
fn damaged(damage: impl FnOnce(&Path), error: &str, hint: &str) {
    let workplace = Workplace::new();
    let model = workplace.copy_model("model");
    damage(&model);
    workplace
        .train(&["model.path=model"])
        .failed(1, error, hint);
    workplace.assert_no_run();
}

#[test]
fn a_model_that_is_not_there() {
    let workplace = Workplace::new();
    workplace.train(&["model.path=./nope"]).failed(
        1,
        "no such model directory: ./nope",
        "config.json",
    );
    // As a hub id it could be downloaded, but not offline.
    workplace
        .train(&["model.path=org/nope"])
        .failed(1, "org/nope", "network access");
    workplace.assert_no_run();
}

#[test]
fn a_shard_that_is_missing() {
    damaged(
        |model| {
            shard(model);
            std::fs::remove_file(model.join("model-00002-of-00002.safetensors")).expect("a file");
        },
        "model-00002-of-00002.safetensors",
        "download or copy the model again",
    );
}

/// Splits the model's file in two, with an index.
fn shard(model: &Path) {
    let file = model.join("model.safetensors");
    let mut first = TensorFile::read(&file);
    let second = TensorFile {
        tensors: first.tensors.split_off(first.tensors.len() / 2),
    };
    let mut map = serde_json::Map::new();
    for (number, shard) in [(1, &first), (2, &second)] {
        let name = format!("model-0000{number}-of-00002.safetensors");
        shard.write(&model.join(&name));
        for tensor in &shard.tensors {
            map.insert(tensor.name.clone(), json!(name));
        }
    }
    let index = json!({ "metadata": {}, "weight_map": map });
    std::fs::write(
        model.join("model.safetensors.index.json"),
        index.to_string(),
    )
    .expect("an index");
    std::fs::remove_file(file).expect("a file");
}

#[test]
fn shards_are_one_model() {
    let workplace = Workplace::new();
    let model = workplace.copy_model("model");
    shard(&model);
    workplace.train(&["model.path=model"]).succeeded();
}

#[test]
fn a_truncated_file() {
    damaged(
        |model| {
            let file = model.join("model.safetensors");
            let bytes = std::fs::read(&file).expect("a file");
            std::fs::write(&file, &bytes[..bytes.len() - 1000]).expect("a file");
        },
        "model.safetensors",
        "again",
    );
}

#[test]
fn a_tensor_of_the_wrong_shape() {
    const NAME: &str = "model.layers.2.mlp.up_proj.weight";
    damaged(
        |model| {
            let file = model.join("model.safetensors");
            let mut tensors = TensorFile::read(&file);
            tensors.tensor(NAME).shape.reverse();
            tensors.write(&file);
        },
        NAME,
        "config.json",
    );
}

#[test]
fn a_weight_that_is_not_a_number() {
    const NAME: &str = "model.layers.4.self_attn.o_proj.weight";
    damaged(
        |model| {
            let file = model.join("model.safetensors");
            let mut tensors = TensorFile::read(&file);
            tensors.tensor(NAME).bytes[40..44].copy_from_slice(&f32::NAN.to_le_bytes());
            tensors.write(&file);
        },
        NAME,
        "diverged",
    );
}

#[test]
fn weights_that_are_pickled() {
    damaged(
        |model| {
            std::fs::remove_file(model.join("model.safetensors")).expect("a file");
            std::fs::write(model.join("pytorch_model.bin"), b"pickle").expect("a file");
        },
        "pytorch_model.bin",
        "save_pretrained(NEW_DIR)",
    );
}

#[test]
fn a_tokenizer_with_more_ids_than_the_embedding_has_rows() {
    let workplace = Workplace::new();
    let variant = repository().join("testdata/golden/variants/bf16_sharded");
    let directory = workplace.path("model");
    copy_files(&variant, &directory);
    let tokenizer = Path::new(&model()).join("tokenizer.json");
    std::fs::copy(tokenizer, directory.join("tokenizer.json")).expect("a copy");
    workplace
        .train(&["model.path=model"])
        .failed(1, "embedding", "tokenizer");
    workplace.assert_no_run();
}

#[test]
fn targets_that_match_nothing() {
    let workplace = Workplace::new();
    workplace
        .train(&["method.target_modules=[\"q_proj\", \"query\"]"])
        .failed(1, "'query' in target_modules matches no module", "list");
    workplace
        .train(&["method.target_modules=\"layers[.]9[.].*\""])
        .failed(
            1,
            "'layers[.]9[.].*' in target_modules matches no module",
            "regular expression",
        );
    workplace.train(&["method.layers_to_transform=[1]"]).failed(
        1,
        "`target_modules` is \"all-linear\"",
        "list names",
    );
    workplace.assert_no_run();
}

#[test]
fn data_that_cannot_be_used() {
    let workplace = Workplace::new();
    workplace.write("empty.txt", b"");
    workplace.write("latin1.txt", b"first line\ncaf\xe9\n");
    workplace.write("field.jsonl", b"{\"text\":\"one\"}\n{\"txt\":\"two\"}\n");
    workplace.write("number.jsonl", b"{\"text\":3}\n");
    workplace.write("broken.jsonl", b"{\"text\":\n");
    let empty_response = br#"[{"instruction":"a","output":"b"},{"instruction":"a","output":" "}]"#;
    workplace.write("response.json", empty_response);
    workplace.write("object.json", b"{\n  \"text\":\"one\"\n");
    let two_ways = br#"{"text":"a","prompt":"b","completion":"c"}"#;
    workplace.write("two_ways.jsonl", two_ways);
    for (file, error, hint) in [
        (
            "response.json",
            "response.json:1 (item 2): the response in `output` is empty",
            "leave such rows out",
        ),
        (
            "object.json",
            "object.json:3:0: invalid JSON: EOF",
            "one array of objects",
        ),
        (
            "two_ways.jsonl",
            "`text` as well as `prompt` and `completion`",
            "set format to `jsonl` or `prompt_completion`",
        ),
        ("empty.txt", "empty.txt is empty", "put some text into it"),
        ("latin1.txt", "latin1.txt:2: invalid UTF-8", "iconv"),
        ("field.jsonl", "field.jsonl:2: no field `text`", "rename"),
        ("number.jsonl", "`text` is a number", "string"),
        ("broken.jsonl", "broken.jsonl:1", "one whole JSON object"),
        ("trian.txt", "no such file: trian.txt", "`train.txt`"),
        ("model", "no such file: model", ""),
    ] {
        for key in ["train", "eval"] {
            let text = format!("data.{key}={file}");
            let outcome = workplace.train(&[&text]);
            // The hint of a file without a namesake is whatever else there is to say.
            if hint.is_empty() {
                assert_eq!(outcome.code, Some(1), "{outcome:?}");
                assert!(outcome.err.contains(error), "{outcome:?}");
            } else {
                outcome.failed(1, error, hint);
            }
        }
    }
    workplace.assert_no_run();
}

#[test]
fn settings_that_cannot_be_used() {
    let workplace = Workplace::new();
    let text = workplace.read_text("run.toml");
    let text = text.replace("learning_rate", "lerning_rate");
    workplace.write("typo.toml", text.as_bytes());
    let outcome = workplace.train_file("typo.toml", &[]).failed(
        1,
        "unknown key `lerning_rate` in [optimizer]",
        "did you mean `learning_rate`?",
    );
    assert!(outcome.err.contains("--> typo.toml:13"), "{outcome:?}");
    for (text, error) in [
        ("method.rank=-1", "at least 1, not `-1`"),
        ("method.rank=100000000000", "at most 65536"),
        ("train.max_steps=0", "at least 1, not `0`"),
        ("train.batch_size=18446744073709551615", "at most 65536"),
        ("train.gradient_accumulation=1000000", "at most 65536"),
        ("train.threads=1000000", "at most 1024"),
        (
            "optimizer.learning_rate=-1",
            "from 1.2e-38 to 3.4e38 (the range of f32), not `-1`",
        ),
        ("optimizer.learning_rate=fast", "must be a number"),
        ("train.nope=1", "unknown key `nope` in [train]"),
        ("trian.seed=1", "unknown section `[trian]`"),
        ("train.seed", "has no `=`"),
    ] {
        let outcome = workplace.train(&[text]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.err.contains(error), "{text}: {outcome:?}");
    }
    workplace.assert_no_run();
}

#[test]
fn an_output_directory_that_holds_a_run() {
    let workplace = Workplace::new();
    workplace.train(&[]).succeeded();
    let contents = || -> Vec<_> {
        let mut paths = all_paths(&workplace.path("run"));
        paths.sort();
        paths
            .into_iter()
            .map(|path| {
                let bytes = path
                    .is_file()
                    .then(|| std::fs::read(&path).expect("a file"));
                (path, bytes)
            })
            .collect()
    };
    let before = contents();
    workplace
        .train(&["train.seed=7"])
        .failed(1, "run already holds a run", "--output");
    assert_eq!(contents(), before);
}

#[test]
fn an_output_directory_that_cannot_be_made() {
    let workplace = Workplace::new();
    for directory in ["train.txt", "train.txt/run"] {
        workplace
            .reparam(&["train", "run.toml", "--output", directory])
            .failed(1, &format!("cannot write a run to {directory}"), "--output");
    }
    // Nobody can make a directory there, not even the superuser.
    if cfg!(target_os = "linux") {
        workplace
            .reparam(&["train", "run.toml", "--output", "/proc/nope"])
            .failed(1, "cannot write a run to /proc/nope", "--output");
    }
    workplace.assert_no_run();
}

/// A limit on the size of files stands for the full disk: the write fails in the same place.
#[cfg(unix)]
fn with_file_limit(workplace: &Workplace, blocks: u32, args: &str) -> Outcome {
    let program = path_text(assert_cmd::cargo::cargo_bin!("reparam"));
    let output = std::process::Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("ulimit -f {blocks} && exec \"$0\" {args}"))
        .arg(program)
        .current_dir(workplace.root())
        .output()
        .expect("a shell");
    Outcome::of(output)
}

#[cfg(unix)]
#[test]
fn a_full_disk_at_the_start() {
    let workplace = Workplace::new();
    // The provenance has more than two blocks of 512 or 1024 bytes, the configuration fewer.
    with_file_limit(&workplace, 2, "train run.toml").failed(
        1,
        "cannot write run/provenance.json",
        "limit on the size of files",
    );
    workplace.assert_no_run();
    // So the next attempt has nothing in its way.
    workplace.train(&[]).succeeded();
}

/// What is printed to a file has the same limit.
#[cfg(unix)]
#[test]
fn a_full_disk_for_what_is_printed() {
    let workplace = Workplace::new();
    let outcome = with_file_limit(&workplace, 0, "methods > methods.txt");
    outcome.failed(1, "cannot write to standard output", "ulimit");
}

#[cfg(unix)]
#[test]
fn a_full_disk_at_the_end() {
    let workplace = Workplace::new();
    // An adapter of rank 64 has 1.4 MiB, and nothing else is near that.
    with_file_limit(&workplace, 256, "train run.toml --set method.rank=64").failed(
        1,
        "adapter_model.safetensors",
        "limit on the size of files",
    );
    workplace.assert_nothing_half_written();
    let events = crate::support::json_lines(&workplace.read_text("run/events.jsonl"));
    let last = events.last().expect("an event");
    assert_eq!(last["event"], "failed");
    assert_eq!(last["error"]["kind"], "io");
}

/// What is written of the events are whole lines, also where the disk is full within one.
#[cfg(unix)]
#[test]
fn a_full_disk_among_the_events() {
    let workplace = Workplace::new();
    workplace.write("table.csv", b"a,y\n1,2\n2,3\n3,5\n4,6\n5,8\n");
    let run = "[model]\ntask = \"regression\"\n[data]\ntrain = \"table.csv\"\ntarget = \"y\"\n\
               [train]\nmax_steps = 1000\nlog_every = 1\n[output]\ndir = \"run\"\n";
    workplace.write("regression.toml", run.as_bytes());
    with_file_limit(&workplace, 8, "train regression.toml").failed(
        1,
        "cannot write run/events.jsonl",
        "limit on the size of files",
    );
    let events = crate::support::json_lines(&workplace.read_text("run/events.jsonl"));
    assert!(events.len() > 5, "{}", events.len());
}

/// The system's own answer to a write beyond the limit is a signal.
#[cfg(unix)]
#[test]
fn a_file_that_the_output_does_not_fit_into() {
    let workplace = Workplace::new();
    let model = model();
    for command in [
        "methods".to_owned(),
        "doctor".to_owned(),
        "train --help".to_owned(),
        format!("inspect {model}"),
        format!("eval --model {model} --data held_out.txt"),
        format!("generate --model {model} --prompt Once --max-new-tokens 2"),
    ] {
        with_file_limit(&workplace, 0, &format!("{command} > out")).failed(
            1,
            "cannot write to standard output",
            "limit on the size of files",
        );
    }
}

#[test]
fn an_adapter_that_does_not_fit() {
    let workplace = Workplace::new();
    workplace.train(&[]).succeeded();
    // Of a model with fewer layers.
    let other = path_text(&repository().join("testdata/golden/peft/bias_all"));
    // Of a model with the same layers, but half as wide.
    copy_files(&workplace.path("run/adapter"), &workplace.path("narrow"));
    let file = workplace.path("narrow/adapter_model.safetensors");
    let mut tensors = TensorFile::read(&file);
    let name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    let tensor = tensors.tensor(name);
    assert_eq!(tensor.shape, [4, 64]);
    tensor.shape = vec![4, 32];
    tensor.bytes.truncate(4 * 4 * 32);
    tensors.write(&file);
    let model = model();
    let eval = ["eval", "--data", "held_out.txt", "--model", &model];
    let generate = ["generate", "--prompt", "a", "--model", &model];
    for command in [&eval[..], &generate[..]] {
        let with = |adapter: &str| workplace.reparam(&[command, &["--adapter", adapter]].concat());
        with("nope").failed(1, "no such adapter directory: nope", "adapter_config.json");
        with(&model).failed(1, "is a model, not the directory of an adapter", "--model");
        for (adapter, error, hint) in [
            (
                other.as_str(),
                "the model has no such biases",
                "trained on another base model",
            ),
            (
                "narrow",
                "has shape [4, 32], the layer needs [4, 64]",
                "another base model",
            ),
        ] {
            let outcome = with(adapter).failed(1, error, hint);
            assert!(outcome.out.is_empty(), "{outcome:?}");
        }
    }
}

#[test]
fn a_run_that_diverges() {
    let workplace = Workplace::new();
    let diverging = [
        "optimizer.kind=sgd",
        "optimizer.learning_rate=1e9",
        "optimizer.clip_grad_norm=0",
        "train.max_steps=20",
    ];
    let outcome = workplace
        .train(&diverging)
        .failed(4, "at step 2", "lower the learning rate");
    assert!(outcome.err.contains("1e9"), "{outcome:?}");
    workplace.assert_nothing_half_written();
    let events = crate::support::json_lines(&workplace.read_text("run/events.jsonl"));
    assert_eq!(
        events.last().expect("an event")["error"]["kind"],
        "diverged"
    );
    // The step before is kept, and the error says where.
    let checkpoints = ["train.save_every=1", "output.dir=b"];
    workplace
        .train(&[&diverging[..], &checkpoints].concat())
        .failed(4, "at step 2", "b/checkpoints/step-000001");
    // An update that overflows is noticed by the step that makes it, also if it is the last.
    let overflowing = [
        "optimizer.learning_rate=1e38",
        "train.max_steps=1",
        "output.dir=c",
    ];
    workplace
        .train(&[&diverging[..1], &diverging[2..3], &overflowing].concat())
        .failed(4, "not finite at step 1", "lower the learning rate");
    assert!(!workplace.path("c/adapter").exists());
}

#[test]
fn failures_are_json_where_json_is_asked_for() {
    let workplace = Workplace::new();
    let outcome = workplace.reparam(&[
        "train",
        "run.toml",
        "--json",
        "--set",
        "data.train=nope.txt",
    ]);
    let object = outcome.json();
    assert_eq!(outcome.code, Some(1));
    assert_eq!(object["event"], "failed");
    assert_eq!(object["error"]["kind"], "data");
    assert_eq!(object["error"]["exit_code"], 1);
    let outcome = workplace.reparam(&["eval", "--json", "--model", "./nope", "--data", "a.txt"]);
    let object = outcome.json();
    assert_eq!(outcome.code, Some(1));
    assert_eq!(object["error"]["exit_code"], 1);
    assert!(
        !object["error"]["hints"]
            .as_array()
            .expect("hints")
            .is_empty()
    );
}

#[test]
fn prompts_to_learn_that_are_not_there() {
    let workplace = Workplace::new();
    let overrides = ["data.train_on_prompt=true"];
    let outcome = workplace.train(&overrides);
    outcome.failed(1, "none of 1 documents has a prompt", "remove it");
    let outcome = workplace.train(&["data.train_on_prompt=true", "data.format=text"]);
    outcome.failed(1, "`train_on_prompt` in [data] has no effect", "remove");
    workplace.assert_no_run();
}
