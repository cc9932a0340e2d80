//! A first run: without a run file, with one that `init` writes; and prompts from files.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Outcome, Workplace, model};

/// Short, on what there is.
const SHORT: [&str; 6] = [
    "--set",
    "train.max_steps=2",
    "--set",
    "train.sequence_length=32",
    "--set",
    "train.batch_size=2",
];

fn train(workplace: &Workplace, args: &[&str]) -> Outcome {
    workplace.reparam(&[&["train"], args, &SHORT].concat())
}

/// What people have: columns of other names, answers that are empty, questions with answers.
#[test]
fn flags_say_how_data_are_read() {
    let workplace = Workplace::new();
    let rows = |row: &str| format!("{}\n", [row; 8].join("\n"));
    let review = |i: usize| format!("A film number {i} to see twice,{i}\n");
    let reviews: String = (0..8).map(review).collect();
    workplace.write("reviews.csv", format!("Review,Stars\n{reviews}").as_bytes());
    let question = |i: usize| {
        format!(
            r#"{{"question": "What is {i} + 1?", "answer": "It is {}."}}"#,
            i + 1
        ) + "\n"
    };
    let questions: String = (0..8).map(question).collect();
    workplace.write("questions.jsonl", questions.as_bytes());
    let answers: String = (0..8)
        .map(|i| format!(r#"{{"instruction": "Say {i}", "output": "{i}"}}"#) + "\n")
        .collect();
    let empty = rows(r#"{"instruction": "Say nothing", "output": ""}"#);
    workplace.write("alpaca.jsonl", format!("{answers}{empty}").as_bytes());
    let model = model();
    for (file, flags, format, skipped) in [
        ("reviews.csv", ["--fields", "text=Review"], "csv", 0),
        (
            "questions.jsonl",
            ["--template", "Q: {question} A: {answer}"],
            "jsonl",
            0,
        ),
        ("alpaca.jsonl", ["--on-error", "skip"], "alpaca", 8),
        (
            "questions.jsonl",
            ["--format", "prompt_completion"],
            "prompt_completion",
            0,
        ),
    ] {
        let args = ["--model", &model, "--data", file, "--json"];
        let events = train(&workplace, &[&args[..], &flags].concat());
        let events = events.succeeded().events();
        let data = &events[0]["data"];
        assert_eq!(data["format"], format, "{file}: {data}");
        assert_eq!(data["skipped"], skipped, "{file}: {data}");
    }
    let args = ["--model", &model, "--data", "alpaca.jsonl"];
    train(&workplace, &args).failed(1, "8 such rows", "--on-error skip");
}

#[test]
fn a_run_needs_no_run_file() {
    let workplace = Workplace::new();
    let model = model();
    let args = ["--model", &model, "--data", "train.txt"];
    train(&workplace, &args).succeeded();
    let config = workplace.read_text("runs/stories260K-train/config.resolved.toml");
    assert!(
        config.contains("dir = \"runs/stories260K-train\""),
        "{config}"
    );
    // The file that the run leaves does the same.
    workplace.write("again.toml", config.as_bytes());
    let again = ["train", "again.toml", "--output", "again"];
    workplace.reparam(&again).succeeded();
    let weights = "adapter/adapter_model.safetensors";
    assert_eq!(
        workplace.read(&format!("runs/stories260K-train/{weights}")),
        workplace.read(&format!("again/{weights}"))
    );
    // A second run gets a directory of its own, and one that goes on finds the last.
    let events = train(
        &workplace,
        &[&args[..], &["--method", "ia3", "--json"]].concat(),
    );
    let events = events.succeeded().events();
    assert_eq!(events[0]["method"], "ia3");
    let finished = events.last().expect("an event");
    assert_eq!(finished["adapter"], "runs/stories260K-train-2/adapter");
    let resumed = train(
        &workplace,
        &[&args[..], &["--method", "ia3", "--resume"]].concat(),
    );
    let resumed = resumed.succeeded();
    assert!(
        resumed
            .err
            .contains("runs/stories260K-train-2 is already complete"),
        "{resumed:?}"
    );
    // One that takes the place of a run finds the last, too.
    let forced = train(&workplace, &[&args[..], &["--force"]].concat());
    let forced = forced.succeeded();
    assert!(
        forced.out.contains("replaced    the earlier run"),
        "{forced:?}"
    );
    assert!(!workplace.path("runs/stories260K-train-3").exists());
    let config = workplace.read_text("runs/stories260K-train-2/config.resolved.toml");
    assert!(config.contains("kind = \"lora\""), "{config}");
    // What is said outright goes before the default.
    train(
        &workplace,
        &[&args[..], &["--set", "output.dir=set"]].concat(),
    )
    .succeeded();
    train(
        &workplace,
        &[&args[..], &["--data", "held_out.txt", "--output", "flag"]].concat(),
    )
    .succeeded();
    assert!(workplace.path("set/adapter").is_dir());
    let config = workplace.read_text("flag/config.resolved.toml");
    assert!(
        config.contains("train = [\"train.txt\", \"held_out.txt\"]"),
        "{config}"
    );
}

#[test]
fn flags_override_a_run_file() {
    let workplace = Workplace::new();
    let args = [
        "train",
        "run.toml",
        "--data",
        "held_out.txt",
        "--method",
        "vera",
    ];
    workplace.reparam(&args).succeeded();
    let config = workplace.read_text("run/config.resolved.toml");
    assert!(config.contains("train = [\"held_out.txt\"]"), "{config}");
    // `rank` is in the file, and vera has one; `alpha` is not there to be refused.
    assert!(config.contains("kind = \"vera\"\nrank = 4\n"), "{config}");
}

#[test]
fn a_table_needs_no_model() {
    let workplace = Workplace::new();
    workplace.write("t.csv", b"x,y\n1,2\n2,4\n3,6\n4,8\n5,10\n");
    let args = ["train", "--task", "regression", "--data", "t.csv"];
    workplace.reparam(&args).failed(
        1,
        "missing `target` in [data]",
        "give --set data.target=\"a column\"",
    );
    workplace
        .reparam(&[&args[..], &["--set", "data.target=y"]].concat())
        .succeeded();
    assert!(workplace.path("runs/t/model").is_dir());
}

#[test]
fn too_little_is_a_wrong_use() {
    let workplace = Workplace::new();
    let model = model();
    for args in [
        &["train"][..],
        &["train", "--model", &model],
        &["train", "--data", "train.txt"],
    ] {
        let outcome = workplace.reparam(args);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(
            outcome.err.contains("--model and --data; `reparam init`"),
            "{outcome:?}"
        );
    }
}

#[test]
fn init_writes_a_run_file_that_train_takes() {
    let workplace = Workplace::new();
    let model = model();
    let init = [
        "init",
        "--model",
        &model,
        "--data",
        "train.txt",
        "--output",
        "run",
    ];
    let outcome = workplace
        .reparam(&[&init[..], &["new.toml"]].concat())
        .succeeded();
    assert!(outcome.out.contains("new.toml"), "{outcome:?}");
    let text = workplace.read_text("new.toml");
    for line in [
        "kind = \"lora\"",
        "rank = 16",
        "# alpha = 32.0",
        "learning_rate = 2e-4",
        "epochs = 1.0",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}: {text}");
    }
    train(&workplace, &["new.toml"]).succeeded();
    // A file that is there stays, unless it is told otherwise.
    let again = ["init", "new.toml"];
    workplace
        .reparam(&again)
        .failed(1, "new.toml is there already", "--force");
    assert_eq!(workplace.read_text("new.toml"), text);
    workplace
        .reparam(&["init", "new.toml", "--force"])
        .succeeded();
    assert_ne!(workplace.read_text("new.toml"), text);
    std::fs::remove_file(workplace.path("run.toml")).expect("a file");
    let object = workplace.reparam(&["init", "--json"]).succeeded().json();
    assert_eq!(object["path"], "run.toml");
    assert!(workplace.path("run.toml").is_file());
    workplace
        .reparam(&["init", "no/where.toml"])
        .failed(1, "no/where.toml", "");
    workplace
        .reparam(&["init", "other.toml", "--task", "nope"])
        .failed(1, "no such task: nope", "causal-lm");
}

/// The file is written, so that the command has to succeed.
#[cfg(unix)]
#[test]
fn init_writes_where_no_utf_8_leads() {
    use std::os::unix::ffi::OsStrExt as _;
    let workplace = Workplace::new();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.toml");
    let output = std::process::Command::new(assert_cmd::cargo::cargo_bin!("reparam"))
        .args(["init", "--json"])
        .arg(name)
        .env_clear()
        .current_dir(workplace.root())
        .output()
        .expect("a process");
    let object = Outcome::of(output).succeeded().json();
    assert_eq!(object["path"], "caf\u{fffd}.toml");
    assert!(workplace.root().join(name).is_file());
}

/// Generates with a text on standard input.
fn generate(workplace: &Workplace, args: &[&str], input: &str) -> Outcome {
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("reparam"))
        .args(["generate", "--model", &model(), "--max-new-tokens", "8"])
        .args(args)
        .env_clear()
        .current_dir(workplace.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut stdin = child.stdin.take().expect("a pipe");
    // Who does not read it has closed it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    Outcome::of(child.wait_with_output().expect("an end"))
}

#[test]
fn a_prompt_may_be_a_file_or_standard_input() {
    let workplace = Workplace::new();
    workplace.write("prompt.txt", "Once upon a time\r\n".as_bytes());
    workplace.write("lines.txt", b"a\n\n");
    let prompt = |args: &[&str], input: &str| -> Value {
        let report = generate(&workplace, &[&["--json"], args].concat(), input);
        report.succeeded().json()
    };
    let said = prompt(&["--prompt", "Once upon a time"], "");
    for (given, input) in [
        ("@prompt.txt", ""),
        ("-", "Once upon a time\n"),
        ("-", "Once upon a time"),
    ] {
        let report = prompt(&["--prompt", given], input);
        assert_eq!(
            (&report["prompt"], &report["tokens"]),
            (&said["prompt"], &said["tokens"]),
            "{given}"
        );
    }
    // As in training, a byte order mark is none of it, and lines end alike.
    workplace.write("windows.txt", "\u{feff}a\r\nb\r\n".as_bytes());
    assert_eq!(prompt(&["--prompt", "@windows.txt"], "")["prompt"], "a\nb");
    // One line end belongs to the file, the others to the text.
    assert_eq!(prompt(&["--prompt", "@lines.txt"], "")["prompt"], "a\n");
    assert_eq!(prompt(&["--prompt", "-"], "")["prompt"], "");
    let refused = |given: &str, input: &str| generate(&workplace, &["--prompt", given], input);
    refused("@no.txt", "").failed(1, "cannot read the prompt from no.txt", "--prompt -");
    refused("@.", "").failed(1, "cannot read the prompt from .", "--prompt -");
    workplace.write("latin1.txt", b"caf\xe9");
    refused("@latin1.txt", "").failed(1, "byte 3 is invalid", "UTF-8");
}

#[test]
fn a_prompt_may_be_an_instruction() {
    let workplace = Workplace::new();
    let format = |format: &str| {
        let args = ["--json", "--prompt", "Name a colour.", "--format", format];
        generate(&workplace, &args, "").succeeded().json()["prompt"].clone()
    };
    assert_eq!(
        format("alpaca"),
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\
         ### Instruction:\nName a colour.\n\n### Response:"
    );
    // The others would change nothing.
    let args = ["--prompt", "a", "--format", "prompt_completion"];
    let refused = generate(&workplace, &args, "");
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("alpaca"), "{refused:?}");
}

/// What was trained on instructions wants them; a prompt without is answered, and nothing is done behind the user's back.
#[test]
fn a_result_says_that_it_wants_instructions() {
    let workplace = Workplace::new();
    let examples: Vec<String> = (0..20)
        .map(|i| format!("{{\"instruction\":\"Say {i}.\",\"output\":\"I say {i}.\"}}\n"))
        .collect();
    let examples = examples.concat();
    workplace.write("a.jsonl", examples.as_bytes());
    let model = model();
    // The fields of the examples say it; so could `format`.
    let args = ["--model", &model, "--data", "a.jsonl"];
    train(&workplace, &args).succeeded();
    let adapter = [
        "--adapter",
        "runs/stories260K-a/adapter",
        "--prompt",
        "Say hello.",
    ];
    let said = generate(&workplace, &adapter, "").succeeded();
    assert!(said.err.contains("--format alpaca"), "{said:?}");
    let asked = [&adapter[..], &["--format", "alpaca"]].concat();
    let said = generate(&workplace, &asked, "").succeeded();
    assert!(!said.err.contains("--format"), "{said:?}");
    // Also where the run is named instead of the base.
    let run = [
        "generate",
        "--model",
        "runs/stories260K-a",
        "--prompt",
        "a",
        "--max-new-tokens",
        "1",
    ];
    let said = workplace.reparam(&run).succeeded();
    assert!(said.err.contains("--format alpaca"), "{said:?}");
    let other = generate(&workplace, &["--prompt", "Say hello."], "").succeeded();
    assert!(!other.err.contains("--format"), "{other:?}");
}
