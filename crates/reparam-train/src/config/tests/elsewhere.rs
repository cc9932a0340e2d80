//! Words of other programs are answered, and the answers can be followed.

use super::super::elsewhere::{Answer, TABLE, answers};
use super::*;
use crate::Tasks;

/// The hint for a line in a section.
fn hint(section: &str, line: &str) -> String {
    let error = parse(&with(section, line)).expect_err(line);
    error.hint().unwrap_or_default()
}

#[test]
fn keys_of_other_trainers() {
    // (section, line, what the hint says, what works instead)
    #[rustfmt::skip]
    let cases = [
        ("model", "device = \"cuda\"", "it computes on the CPU", None),
        ("train", "device = \"cuda\"", "it computes on the CPU", None),
        ("model", "load_in_4bit = true", "take the model in bf16 or f32", None),
        ("model", "load_in_8bit = true", "take the model in bf16 or f32", None),
        ("train", "report_to = \"wandb\"", "events.jsonl", None),
        ("train", "gradient_checkpointing = true", "it is called `recompute` here", Some(("train", "recompute = true"))),
        ("train", "bf16 = true", "write precision = \"bf16\" in [train]", Some(("train", "precision = \"bf16\""))),
        ("train", "fp16 = true", "the precisions are bf16 and f32", None),
        ("train", "val_size = 0.1", "it is called `eval_fraction` here, and belongs in [data]", Some(("data", "eval_fraction = 0.1"))),
        ("data", "val_set_size = 0.1", "it is called `eval_fraction` here", Some(("data", "eval_fraction = 0.1"))),
        ("train", "num_train_epochs = 2", "it is called `epochs` here", Some(("train", "epochs = 2"))),
        ("train", "per_device_train_batch_size = 2", "it is called `batch_size` here", Some(("train", "batch_size = 2"))),
        ("train", "lr = 1e-3", "it is called `learning_rate` here, and belongs in [optimizer]", Some(("optimizer", "learning_rate = 1e-3"))),
        ("method", "r = 8", "it is called `rank` here", Some(("method", "rank = 8"))),
        ("method", "lora_alpha = 8", "it is called `alpha` here", Some(("method", "alpha = 8"))),
        ("method", "lora_dropout = 0.1", "it is called `dropout` here", Some(("method", "dropout = 0.1"))),
        ("data", "cutoff_len = 64", "it is called `sequence_length` here, and belongs in [train]", Some(("train", "sequence_length = 64"))),
        ("train", "max_seq_length = 64", "it is called `sequence_length` here", Some(("train", "sequence_length = 64"))),
        ("train", "warmup_ratio = 0.1", "`warmup_ratio` belongs in [optimizer]", Some(("optimizer", "warmup_ratio = 0.1"))),
        ("train", "lr_scheduler_type = \"cosine\"", "it is called `schedule` here, and belongs in [optimizer]", Some(("optimizer", "schedule = \"cosine\""))),
        ("model", "seed = 1", "`seed` belongs in [train]", Some(("train", "seed = 1"))),
        ("data", "dataset = \"a.jsonl\"", "it is called `train` here", None),
        ("train", "output_dir = \"runs/b\"", "it is called `dir` here, and belongs in [output]", None),
        ("train", "logging_steps = 5", "it is called `log_every` here", Some(("train", "log_every = 5"))),
        ("train", "save_steps = 5", "it is called `save_every` here", Some(("train", "save_every = 5"))),
        ("method", "use_dora = true", "write kind = \"dora\" in [method]", Some(("method", "kind = \"dora\""))),
        ("train", "use_rslora = true", "`use_rslora` belongs in [method]", Some(("method", "use_rslora = true"))),
        ("method", "Use-DoRA = true", "write kind = \"dora\" in [method]", Some(("method", "kind = \"dora\""))),
        ("method", "kind = \"full-finetune\"", "write kind = \"full\"", Some(("method", "kind = \"full\""))),
        ("method", "kind = \"qlora\"", "take the model in bf16 or f32", None),
        ("method", "kind = \"rslora\"", "write use_rslora = true", Some(("method", "use_rslora = true"))),
        ("optimizer", "kind = \"adamw_torch\"", "write kind = \"adamw\"", Some(("optimizer", "kind = \"adamw\""))),
        ("train", "precision = \"fp16\"", "\"auto\" chooses", Some(("train", "precision = \"auto\""))),
        ("training", "max_steps = 5", "it is called [train] here", Some(("train", "max_steps = 5"))),
        ("lora", "r = 5", "it is called [method] here", None),
    ];
    for (section, line, says, instead) in cases {
        let hint = hint(section, line);
        assert!(hint.contains(says), "{line}: {hint}");
        if let Some((section, line)) = instead {
            let text = with(section, line);
            assert!(parse(&text).is_ok(), "{line}: {}", rendered(&text));
        }
    }
    // A regression has other keys.
    let table = "[model]\ntask = \"regression\"\n[data]\ntrain = \"a.csv\"\ntarget = \"y\"\nval_size = 0.1\n[output]\ndir = \"a\"";
    let error = Tasks::builtin().parse(table, "run.toml", &[]).unwrap_err();
    assert_eq!(
        error.hint().as_deref(),
        Some("it is called `test_fraction` here")
    );
}

/// Every line can be reached, and what it names is there.
#[test]
fn the_table_is_sound() {
    let tasks = Tasks::builtin();
    for (place, words, own) in TABLE {
        for word in *words {
            assert!(
                answers(*place, word).eq(own.iter().copied()),
                "{word} is there twice"
            );
            let plain = word.to_lowercase().replace('-', "_");
            assert_eq!(*word, plain, "no word is found by this");
        }
        for answer in *own {
            match *answer {
                Answer::Key(section, key) => {
                    assert!(tasks.has_key(section, key), "{section}.{key}")
                }
                Answer::Set(section, key, value) => {
                    let run = tasks.parse(
                        MINIMAL,
                        "run.toml",
                        &[Override::set(format!("{section}.{key}={value}"))],
                    );
                    assert!(run.is_ok(), "{section}.{key} = {value}");
                }
                Answer::Flag(flag) => assert!(flag.starts_with("--"), "{flag}"),
                Answer::Do(sentence) => assert!(!sentence.ends_with('.'), "{sentence}"),
            }
        }
    }
}
