//! Help, version and wrong arguments.

use serde_json::Value;

use crate::{reparam, run};

const VERBS: [&str; 15] = [
    "train", "init", "study", "predict", "eval", "generate", "chat", "explain", "merge", "convert",
    "data", "inspect", "bench", "methods", "doctor",
];

fn here() -> &'static std::path::Path {
    std::path::Path::new(".")
}

#[test]
fn help_lists_the_commands() {
    insta::assert_snapshot!(run(here(), &["--help"]), @r#"
    exit code: 0
    --- stdout
    Train and fine-tune models through reparameterization

    Usage: reparam [OPTIONS] <COMMAND>

    Commands:
      train     Train or fine-tune a model
      init      Write a commented run file
      study     Repeat one run under several settings and compare
      predict   Predict the rows of a file
      eval      Evaluate a model on a file
      generate  Continue a prompt
      chat      Hold a conversation with a model
      explain   Explain what a model says of a text
      merge     Merge adapters into their base model
      convert   Write a model or an adapter for another program
      data      Look at training data as the model will see them
      inspect   Describe a model, adapter, run directory or safetensors file
      bench     Benchmark training steps on random tokens
      methods   List methods and gradient transforms
      doctor    Show what reparam finds on this machine

    Options:
      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Global options:
          --json
              Print JSON to standard output, on failure too

      -q, --quiet
              Print only results and errors

    Examples:
      reparam train --model assets/stories260K --data assets/tinyshakespeare.txt
      reparam init --model assets/stories260K --data train.jsonl
      reparam train run.toml
      reparam train run.toml --set train.max_steps=50 --output runs/short
      reparam study run.toml --vary optimizer.lambda=0.1,1
      reparam eval --model assets/stories260K --data assets/tinyshakespeare.txt --json
      reparam generate --model assets/stories260K --prompt "Once upon a time"

    Environment variables:
      HF_ENDPOINT          URL of the hub
      HF_TOKEN             Access token for the hub
      HF_HUB_OFFLINE       Never contact the hub (1, true, yes, on)
      HF_HOME              Directory of files from the hub
      HF_HUB_CACHE         Directory of models from the hub
      REPARAM_ISA          Force an instruction set (see doctor)
      REPARAM_THREADS      Number of compute threads
      NO_COLOR             Disable colored output
      REPARAM_NO_PROGRESS  Disable the progress bar

    Exit codes:
        0   success
        1   the configuration, model, data or a file cannot be used
        2   wrong arguments
        3   the output pipe was closed
        4   the run diverged: a number is not finite, or the loss grew without bound
        130 interrupted; a run has saved its state
        255 a bug in reparam
    --- stderr
    "#);
}

#[test]
fn help_of_train() {
    insta::assert_snapshot!(run(here(), &["train", "--help"]), @r#"
    exit code: 0
    --- stdout
    Train or fine-tune a model

    Without a run file, --model and --data say what is trained, and a new directory in runs gets the
    result; its config.resolved.toml is the run file that does the same. A run file is TOML with the
    sections [model], [data], [method], [optimizer], [train] and [output]. Paths in it are relative to
    the current directory. Ctrl-C stops after the current step and saves a checkpoint; a second one
    quits at once. --resume continues from the newest checkpoint, to the same bits as an uninterrupted
    run.

    Usage: reparam train [OPTIONS] [RUN_FILE]

    Arguments:
      [RUN_FILE]
              The run file; without one, --model and --data say what is trained, and the rest is by
              default

    Options:
          --model <DIR_OR_ID>
              Model directory in Hugging Face layout, or hub id, instead of model.path

          --data <PATH>
              What to train on, instead of data.train (can be repeated)

          --format <FORMAT>
              File format (text, jsonl, csv, tsv, lines ...), instead of data.format; default: by file
              name and first row

          --fields <FIELD=COLUMN,..>
              Which column holds which field, as in text=review,label=kind, instead of data.fields

          --template <TEXT>
              Text made of each row's fields, as in "Question: {question} Answer: {answer}", instead of
              data.template

          --chat-template <NAME_OR_FILE>
              Chat template of conversations (chatml, llama3 ... or a .jinja file), instead of
              data.chat_template; default: the model's

          --on-error <error|skip>
              Stop at a row that cannot be read, or skip it, instead of data.on_error

          --method <KIND>
              Method, instead of method.kind: see `reparam methods` [default: lora]

          --task <TASK>
              What is trained, instead of model.task: see Tasks below; default: what the model says

          --set <SECTION.KEY=VALUE>
              Override one value of the run file (can be repeated)

              The value is parsed as TOML; anything else is taken as a string.

          --output <DIR>
              Write the run here instead of to output.dir; without a run file, default: a new directory
              in runs

          --resume
              Continue from the newest checkpoint, or start if there is none

          --force
              Replace the run in the output directory, finished or not

              It is removed once the new run is loaded and checked. Other files in the directory stay.

          --dry-run
              Load and check everything, make two steps, and report what the run would take; writes only
              caches

      -h, --help
              Print help (see a summary with '-h')

    Global options:
          --json
              Print JSON to standard output, on failure too

      -q, --quiet
              Print only results and errors

    Examples:
      reparam train --model assets/stories260K --data assets/tinyshakespeare.txt
      reparam train run.toml
      reparam train run.toml --set train.max_steps=50 --set method.rank=8
      reparam train run.toml --output runs/second --json > events.jsonl
      reparam train run.toml --resume
      reparam train run.toml --dry-run

    Tasks:
      causal-lm               predicts the next token
      embedding               makes vectors of texts, near to one another where the texts are alike
      masked-lm               guesses masked tokens
      question-answering      finds answers to questions in texts
      regression              predicts a number from a row of a table
      seq2seq                 writes a target for a source, such as a translation
      sequence-classification classifies texts or pairs of texts
      token-classification    tags words, as those of named entities
      word-embedding          learns vectors of words from the words around them
    --- stderr
    "#);
}

#[test]
fn help_of_generate() {
    insta::assert_snapshot!(run(here(), &["generate", "--help"]), @r#"
    exit code: 0
    --- stdout
    Continue a prompt

    Prints the continuation as it is generated. Decoding is greedy at temperature 0, the default.

    Usage: reparam generate [OPTIONS] --model <DIR_OR_ID> --prompt <TEXT>

    Options:
          --model <DIR_OR_ID>
              Model directory in Hugging Face layout, run directory, or hub id

          --adapter <DIR>
              Adapter directory in PEFT layout

          --precision <PRECISION>
              Compute precision. `auto`: bf16 if the checkpoint is bf16 and the CPU supports it, else
              f32; `int8`: bf16 with 8-bit weights

              [default: auto]
              [possible values: auto, bf16, f32, int8]

          --prompt <TEXT>
              Text to continue; @FILE takes it from a file, - from standard input

          --format <FORMAT>
              Write the prompt as the examples of a format have it: alpaca makes it the instruction of
              Alpaca's template; default: as it is

              [possible values: alpaca]

          --chat
              Say the prompt in a conversation: the model's chat template is put around it

          --system <TEXT>
              What the model is told before the conversation

          --chat-template <NAME_OR_FILE>
              Chat template: chatml, llama3, zephyr, vicuna, alpaca, mistral-instruct or a .jinja file;
              default: the adapter's, else the model's

          --max-new-tokens <N>
              Maximum number of tokens to generate

              [default: 64]

          --temperature <T>
              Sampling temperature; 0 is greedy

              [default: 0]

          --top-k <K>
              Sample from the K most likely tokens

          --top-p <P>
              Sample from the fewest tokens whose probabilities sum to P

          --seed <SEED>
              Seed of what is drawn; default: 0

      -h, --help
              Print help (see a summary with '-h')

    Global options:
          --json
              Print JSON to standard output, on failure too

      -q, --quiet
              Print only results and errors

    Examples:
      reparam generate --model assets/stories260K --prompt "Once upon a time"
      reparam generate --model base --adapter runs/a/adapter --prompt "To be" \
          --max-new-tokens 200 --temperature 0.8 --top-p 0.95 --seed 1
    --- stderr
    "#);
}

#[test]
fn every_help_starts_with_an_imperative_and_has_examples() {
    for verb in VERBS {
        let text = run(here(), &[verb, "--help"]);
        let mut lines = text.lines().skip(2);
        let first = lines.next().unwrap_or_default();
        assert!(
            !first.is_empty() && !first.ends_with('.'),
            "{verb}: {first}"
        );
        assert!(text.contains("\nExamples:\n  reparam "), "{verb}: {text}");
        assert!(text.starts_with("exit code: 0\n"), "{verb}: {text}");
        assert!(text.ends_with("--- stderr\n"), "{verb}: {text}");
    }
}

#[test]
fn version() {
    insta::assert_snapshot!(run(here(), &["--version"]), @r#"
    exit code: 0
    --- stdout
    reparam 0.1.0
    --- stderr
    "#);
}

#[test]
fn nothing_at_all_is_a_wrong_use() {
    let output = reparam(here()).output().expect("a process");
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("Usage: reparam"));
}

#[test]
fn unknown_commands_and_flags() {
    insta::assert_snapshot!(run(here(), &["trian"]), @r#"
    exit code: 2
    --- stdout
    --- stderr
    error: unrecognized subcommand 'trian'

      tip: a similar subcommand exists: 'train'

    Usage: reparam [OPTIONS] <COMMAND>

    For more information, try '--help'.
    "#);
    insta::assert_snapshot!(run(here(), &["methods", "--jsn"]), @r#"
    exit code: 2
    --- stdout
    --- stderr
    error: unexpected argument '--jsn' found

      tip: a similar argument exists: '--json'

    Usage: reparam methods --json

    For more information, try '--help'.
    "#);
    insta::assert_snapshot!(
        run(here(), &["eval", "--model", "m", "--data", "d", "--precision", "fp8"]),
        @r#"
    exit code: 2
    --- stdout
    --- stderr
    error: invalid value 'fp8' for '--precision <PRECISION>'
      [possible values: auto, bf16, f32, int8]

    For more information, try '--help'.
    "#
    );
}

#[test]
fn wrong_arguments_are_an_object_with_json() {
    let output = reparam(here())
        .args(["eval", "--json"])
        .output()
        .expect("a process");
    assert_eq!(output.status.code(), Some(2));
    let object: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(object["error"]["kind"], "usage");
    assert_eq!(object["error"]["exit_code"], 2);
    assert_eq!(
        object["error"]["message"],
        "the following required arguments were not provided: --model <DIR_OR_ID> --data <PATH>"
    );
}

#[test]
fn methods() {
    let text = run(here(), &["methods"]);
    // The whole table would be a copy of the sources; one entry of each kind shows the form.
    for entry in [
        r#"
scale  A constant scale: the effective weight is a fixed multiple of the trained one
"#,
        r#"
lora  Low-rank adaptation: a product of two thin matrices is added to a frozen weight
  formula    W = W0 + s B A,  s = alpha / rank, or alpha / sqrt(rank) with use_rslora
  mergeable  yes
  reference  arXiv 2106.09685, equation 3; rsLoRA: arXiv 2312.03732
  files      adapter of PEFT (LORA)
  bf16       yes
  settings
    rank                      16            rows of A and columns of B
    alpha                     2 x rank      numerator of the scaling s
"#,
        r#"
clip_by_value  Bound every element
  formula    u = min(max(g, -max_value), max_value)
  reference  as torch.nn.utils.clip_grad_value_
  settings
    max_value                 required      the largest magnitude of an element
"#,
        r#"
lion*  The sign of an interpolation between momentum and gradient
"#,
    ] {
        assert!(text.contains(entry), "{entry}{text}");
    }
    let output = reparam(here())
        .args(["methods", "--json"])
        .output()
        .expect("a process");
    let object: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let named = |list: &str, name: &str| {
        let entries = object[list].as_array().expect("a list");
        entries
            .iter()
            .find(|entry| entry["name"] == name)
            .unwrap_or_else(|| panic!("no {name} in {list}"))
            .clone()
    };
    assert_eq!(named("methods", "lora")["mergeable"], true);
    assert_eq!(named("methods", "lora")["settings"][0]["key"], "rank");
    assert_eq!(named("transforms", "adamw")["is_optimizer"], true);
    assert_eq!(named("transforms", "ema")["is_optimizer"], false);
    assert_eq!(
        named("transforms", "galore")["settings"][0]["default"],
        "required"
    );
}

/// A reader that has closed its end is no error worth a message.
#[cfg(unix)]
#[test]
fn a_closed_pipe_exits_with_3() {
    use std::process::Stdio;

    for args in [&["methods"][..], &["--help"], &["doctor", "--json"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = std::process::Command::new(assert_cmd::cargo::cargo_bin!("reparam"))
            .args(args)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .expect("a process");
        assert_eq!(output.status.code(), Some(3), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    let output = std::process::Command::new(assert_cmd::cargo::cargo_bin!("reparam"))
        .arg("methods")
        .stdout(full)
        .output()
        .expect("a process");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.starts_with("error: cannot write to standard output\n"),
        "{text}"
    );
}
