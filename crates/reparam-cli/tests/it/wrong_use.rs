//! Words of other programs as commands, flags and values: a wrong use, with what to do.

use serde_json::Value;

use crate::reparam;
use crate::support::Workplace;

#[test]
fn words_of_other_programs_are_answered() {
    let workplace = Workplace::new();
    #[rustfmt::skip]
    let cases: &[(&[&str], &str)] = &[
        (&["resume", "run.toml"], "`reparam train RUN_FILE --resume` goes on with a run"),
        (&["repl"], "`reparam chat`"),
        (&["run"], "`reparam chat --model MODEL`"),
        (&["train", "run.toml", "--train-on-inputs"], "--set data.train_on_prompt=VALUE"),
        (&["train", "run.toml", "--mask-history"], "--set data.train_on_turns=VALUE"),
        (&["fuse", "--model", "m"], "`reparam merge --model BASE"),
        (&["serve"], "llama.cpp or vLLM"),
        (&["fine-tune"], "`reparam train`"),
        (&["Finetune"], "`reparam train`"),
        (&["gguf"], "`reparam convert --model MODEL --to gguf"),
        (&["train", "run.toml", "--lr", "1e-3"], "it is called `learning_rate` here: --set optimizer.learning_rate=VALUE"),
        (&["train", "run.toml", "--learning-rate=1e-3"], "it is a key of the run file: --set optimizer.learning_rate=VALUE"),
        (&["train", "run.toml", "--epochs", "2"], "--set train.epochs=VALUE"),
        (&["train", "run.toml", "--lora_r", "8"], "it is called `rank` here: --set method.rank=VALUE"),
        (&["train", "run.toml", "--device", "cuda"], "it computes on the CPU"),
        (&["train", "run.toml", "--load-in-4bit"], "take the model in bf16 or f32"),
        (&["train", "run.toml", "--gradient-checkpointing"], "it is called `recompute` here: --set train.recompute=VALUE"),
        (&["train", "run.toml", "--bf16"], "write --set train.precision=bf16"),
        (&["train", "run.toml", "--use-dora"], "write --set method.kind=dora"),
        (&["train", "run.toml", "--dataset", "d"], "it is called --data here"),
        (&["train", "run.toml", "--output_dir", "d"], "it is called --output here"),
        (&["train", "run.toml", "--report-to", "wandb"], "events.jsonl"),
        (&["train", "run.toml", "--resume-from-checkpoint", "c"], "it is called --resume here"),
        (&["study", "run.toml", "--vary", "train.seed=1", "--lr", "1"], "--set optimizer.learning_rate=VALUE"),
        (&["generate", "--model", "m", "--prompt", "p", "--max-tokens", "9"], "it is called --max-new-tokens here"),
        (&["generate", "--model", "m", "--prompt", "p", "--lora", "a"], "it is called --adapter here"),
        (&["generate", "--model", "m", "--text", "p"], "it is called --prompt here"),
        (&["generate", "--model", "m", "--prompt", "p", "--threads", "2"], "REPARAM_THREADS"),
        (&["eval", "--model", "m", "--data", "d", "--batch-size", "4"], "no result depends on"),
        (&["eval", "--model", "m", "--data", "d", "--max_length", "64"], "it is called --sequence-length here"),
        (&["eval", "--model", "m", "--data", "d", "--precision", "bfloat16"], "it is called bf16 here"),
        (&["eval", "--model", "m", "--data", "d", "--precision", "fp16"], "the precisions are bf16 and f32"),
        (&["predict", "--model", "m", "--data", "d", "--output", "o"], "> FILE"),
    ];
    for (args, tip) in cases {
        let output = reparam(workplace.root())
            .args(*args)
            .arg("--json")
            .output()
            .expect("a process");
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert_eq!(output.status.code(), Some(2), "{args:?}: {err}");
        let told = err
            .lines()
            .find(|line| line.trim_start().starts_with("tip: "));
        assert!(
            told.is_some_and(|line| line.contains(tip)),
            "{args:?}: {err}"
        );
        let object: Value = serde_json::from_str(&out).expect("JSON");
        let hints = object["error"]["hints"].as_array().expect("hints");
        assert!(
            hints[0].as_str().expect("a hint").contains(tip),
            "{args:?}: {out}"
        );
        assert_eq!(object["error"]["kind"], "usage");
    }
    workplace.assert_no_run();
}

/// A number that an option cannot have is told from a flag.
#[test]
fn negative_numbers_are_values() {
    let workplace = Workplace::new();
    let generate = ["generate", "--model", "m", "--prompt", "p"];
    let bench = ["bench", "--model", "m"];
    for (command, flag, value, error) in [
        (
            &generate[..],
            "--temperature",
            "-1",
            "must be a finite number of at least 0",
        ),
        (
            &generate,
            "--temperature",
            "nan",
            "must be a finite number of at least 0",
        ),
        (
            &generate,
            "--temperature",
            "inf",
            "must be a finite number of at least 0",
        ),
        (
            &generate,
            "--temperature",
            "hot",
            "must be a finite number of at least 0",
        ),
        (
            &generate,
            "--top-p",
            "-0.5",
            "must be greater than 0 and at most 1",
        ),
        (
            &generate,
            "--top-p",
            "0",
            "must be greater than 0 and at most 1",
        ),
        (
            &generate,
            "--top-k",
            "-1",
            "must be a whole number of at least 1",
        ),
        (
            &generate,
            "--max-new-tokens",
            "-5",
            "must be a whole number of at least 1",
        ),
        (
            &generate,
            "--seed",
            "-1",
            "must be a whole number of at least 0",
        ),
        (
            &generate,
            "--seed",
            "18446744073709551616",
            "must be a whole number",
        ),
        (
            &bench,
            "--rank",
            "-1",
            "must be a whole number from 1 to 65536",
        ),
        (
            &bench,
            "--steps",
            "0",
            "must be a whole number from 1 to 1000000",
        ),
        (
            &bench,
            "--seed",
            "-1",
            "must be a whole number of at least 0",
        ),
        (
            &["eval", "--model", "m", "--data", "d"],
            "--sequence-length",
            "-2",
            "must be a whole number of at least 2",
        ),
    ] {
        let outcome = workplace.reparam(&[command, &[flag, value]].concat());
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        let expected = format!("invalid value '{value}' for '{flag}");
        assert!(
            outcome.err.contains(&expected) && outcome.err.contains(error),
            "{outcome:?}"
        );
    }
}
