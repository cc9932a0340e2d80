//! Runs that are killed or interrupted and go on: the same bytes and losses as without.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Outcome, Workplace, json_lines};

/// Methods, updates and precisions whose state has something of everything: moments, an average, a probe, gradients
/// held back, singular vectors beside theta, dropout.
const RUNS: [&[&str]; 5] = [
    &["method.dropout=0.1", "train.gradient_accumulation=2"],
    &[
        "method.dropout=0.1",
        "train.gradient_accumulation=2",
        "train.precision=bf16",
    ],
    &[
        "method={ kind = \"sigma_reparam\" }",
        "optimizer={ kind = \"adafactor\", learning_rate = 1e-3 }",
        "train.gradient_accumulation=2",
    ],
    &[
        "method={ kind = \"full\", target_modules = \"all-linear\" }",
        "optimizer={ learning_rate = 1e-3, transforms = [{ kind = \"muon\" }, { kind = \"ema\" }] }",
    ],
    &[
        "method.dropout=0.1",
        "optimizer={ learning_rate = 1e-3, transforms = [{ kind = \"sam\" }, { kind = \"accumulate\", steps = 3, transforms = [{ kind = \"adamw\" }] }] }",
    ],
];

/// What every run has: long enough to be killed in, evaluations and checkpoints at odd steps.
const COMMON: [&str; 4] = [
    "train.max_steps=24",
    "train.eval_every=5",
    "train.save_every=3",
    "optimizer.schedule=cosine",
];

fn arguments(output: &str, more: &[&str]) -> Vec<String> {
    let mut args: Vec<String> = ["train", "run.toml", "--output", output]
        .map(str::to_owned)
        .to_vec();
    for set in more.iter().chain(&COMMON) {
        args.extend(["--set".to_owned(), (*set).to_owned()]);
    }
    args
}

fn finish(workplace: &Workplace, output: &str, more: &[&str], flags: &[&str]) -> Outcome {
    let mut args = arguments(output, more);
    args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    workplace.reparam(&args).succeeded()
}

/// When a run is killed.
#[derive(Clone, Copy)]
enum Moment {
    /// After a part of the time that the whole run takes.
    Time(f64),
    /// So long after a checkpoint is there.
    Checkpoint(u64, Duration),
}

/// Starts a run, or goes on with it, and kills it; returns whether it was still running.
fn kill_at(
    workplace: &Workplace,
    output: &str,
    more: &[&str],
    moment: Moment,
    whole: Duration,
) -> bool {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("reparam"))
        .args(arguments(output, more))
        .arg("--resume")
        .env_clear()
        .current_dir(workplace.root())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
    let started = Instant::now();
    let mut until = match moment {
        Moment::Time(part) => Some(started + whole.mul_f64(part)),
        Moment::Checkpoint(..) => None,
    };
    while until.is_none_or(|until| Instant::now() < until) {
        if child.try_wait().expect("a child").is_some() {
            return false;
        }
        if let (None, Moment::Checkpoint(step, wait)) = (until, moment) {
            let path = format!("{output}/checkpoints/step-{step:06}");
            until = workplace
                .path(&path)
                .is_dir()
                .then(|| Instant::now() + wait);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // On Unix this is SIGKILL: nothing of the program runs after it.
    child.kill().expect("it is there");
    child.wait().expect("an end");
    true
}

/// The result's tensors.
fn result(workplace: &Workplace, output: &str) -> Vec<u8> {
    [
        "adapter/adapter_model.safetensors",
        "model/model.safetensors",
    ]
    .into_iter()
    .find_map(|name| std::fs::read(workplace.path(output).join(name)).ok())
    .expect("a result")
}

/// Every loss and gradient norm that a run has written down, and what it was measured by.
fn numbers(workplace: &Workplace, output: &str) -> Vec<(String, Value, Value)> {
    let events = json_lines(&workplace.read_text(&format!("{output}/events.jsonl")));
    assert_eq!(events.last().expect("events")["event"], "finished");
    let numbers = events.iter().filter_map(|event| {
        let kind = event["event"].as_str().expect("a kind");
        match kind {
            "step" => Some((kind, &event["step"], &event["loss"])),
            "evaluation" => Some((kind, &event["step"], &event["metrics"])),
            "finished" => Some((kind, &event["before"], &event["after"])),
            _ => None,
        }
    });
    let numbers = numbers.map(|(kind, a, b)| (kind.to_owned(), a.clone(), b.clone()));
    numbers.collect()
}

/// Makes a run that nothing interrupts, and returns the time that it takes.
fn make_whole(workplace: &Workplace, more: &[&str]) -> Duration {
    let started = Instant::now();
    finish(workplace, "whole", more, &[]);
    started.elapsed()
}

/// Kills a run at some moments, and lets it finish; returns how often it has gone on from a checkpoint.
fn survives(workplace: &Workplace, more: &[&str], moments: &[Moment], whole: Duration) -> usize {
    let mut resumed = 0;
    let mut go_on = |path: &str| {
        let text = std::fs::read_to_string(workplace.path(path)).unwrap_or_default();
        let last = text
            .lines()
            .rfind(|line| line.contains("\"event\":\"resumed\""));
        resumed += usize::from(last.is_some_and(|line| !line.contains("\"step\":0}")));
    };
    for moment in moments {
        kill_at(workplace, "killed", more, *moment, whole);
        go_on("killed/events.jsonl");
    }
    finish(workplace, "killed", more, &["--resume"]);
    go_on("killed/events.jsonl");
    assert!(
        result(workplace, "killed") == result(workplace, "whole"),
        "other bytes: {more:?}"
    );
    assert_eq!(
        numbers(workplace, "killed"),
        numbers(workplace, "whole"),
        "{more:?}"
    );
    std::fs::remove_dir_all(workplace.path("killed")).expect("removes");
    resumed
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let moments = [
        Moment::Time(0.2),
        Moment::Checkpoint(6, Duration::from_millis(3)),
        Moment::Checkpoint(18, Duration::ZERO),
    ];
    for more in RUNS {
        let workplace = Workplace::new();
        let whole = make_whole(&workplace, more);
        let resumed = survives(&workplace, more, &moments, whole);
        assert!(resumed >= 1, "it always started anew: {more:?}");
    }
}

/// Thirty moments, twenty of them between the first checkpoint and the last step.
#[test]
#[ignore = "slow: thirty kills of each of five runs"]
fn a_run_that_is_killed_at_thirty_moments_goes_on_to_the_same_bytes() {
    // A linear congruential generator is random enough, and repeats.
    let mut state = 12345_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    for more in RUNS {
        let workplace = Workplace::new();
        let whole = make_whole(&workplace, more);
        let mut resumed = 0;
        for number in 0..30 {
            let moment = if number < 10 {
                Moment::Time(random())
            } else {
                let step = 3 * (1 + (random() * 7.0) as u64);
                Moment::Checkpoint(step, Duration::from_secs_f64(random() * 0.02))
            };
            resumed += survives(&workplace, more, &[moment], whole);
        }
        assert!(resumed >= 15, "{resumed} of thirty: {more:?}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_goes_on_to_the_same_bytes() {
    let workplace = Workplace::new();
    let (events, err) = workplace.interrupt_training();
    assert!(
        err.contains("hint: run the same command with --resume to continue"),
        "{err}"
    );
    let step = events.last().expect("an end")["step"]
        .as_u64()
        .expect("a step");
    let more = ["--set", "train.max_steps=100000000"];
    let state = format!("run/checkpoints/step-{step:06}/state/state.json");
    assert!(workplace.path(&state).is_file());

    // Another length is another run: the schedule may depend on it.
    let args = [
        "train",
        "run.toml",
        "--resume",
        "--set",
        "train.max_steps=3",
    ];
    workplace.reparam(&args).failed(
        1,
        "cannot resume: `train.max_steps` is not what the run was started with (100000000, now 3)",
        "start a new run",
    );
    // Nor does it start anew where a run is.
    let args = [&["train", "run.toml"][..], &more].concat();
    workplace
        .reparam(&args)
        .failed(1, "run already holds a run", "--resume");
}

#[test]
fn resume_of_nothing_starts_and_of_a_complete_run_says_so() {
    let workplace = Workplace::new();
    let started = workplace
        .reparam(&["train", "run.toml", "--resume"])
        .succeeded();
    assert!(!started.out.contains("resumed"), "{started:?}");
    let adapter = workplace.read("run/adapter/adapter_model.safetensors");
    let events = workplace.read("run/events.jsonl");

    let again = workplace
        .reparam(&["train", "run.toml", "--resume"])
        .succeeded();
    assert!(
        again.err.contains("the run in run is already complete"),
        "{again:?}"
    );
    assert!(again.out.contains("finished    2 steps"), "{again:?}");
    let json = workplace
        .reparam(&["train", "run.toml", "--resume", "--json"])
        .succeeded();
    assert_eq!(json.events().len(), 1);
    assert_eq!(json.events()[0]["event"], "finished");
    assert_eq!(
        workplace.read("run/adapter/adapter_model.safetensors"),
        adapter
    );
    assert_eq!(workplace.read("run/events.jsonl"), events);
    // Where the output goes, how many threads compute and what is written down is no other run.
    let args = [
        "train",
        "run.toml",
        "--resume",
        "--set",
        "train.threads=1",
        "--set",
        "train.log_every=2",
    ];
    workplace.reparam(&args).succeeded();
}

#[test]
fn another_base_tokenizer_or_data_is_refused() {
    let more = [
        "optimizer.clip_grad_norm=0",
        "optimizer.kind=sgd",
        "optimizer.learning_rate=1e18",
    ];
    let workplace = Workplace::new();
    workplace.copy_model("base");
    let mut args = vec!["train", "run.toml"];
    for set in more
        .iter()
        .chain(&["model.path=base", "train.save_every=1"])
    {
        args.extend(["--set", set]);
    }
    // The run diverges in its second step, after its first checkpoint.
    assert_eq!(workplace.reparam(&args).code, Some(4));
    args.push("--resume");
    let outcome = workplace.reparam(&args);
    assert_eq!(
        outcome.code,
        Some(4),
        "it goes on, and diverges again: {outcome:?}"
    );
    assert!(
        outcome.out.contains("resumed     after step 1"),
        "{outcome:?}"
    );

    let text = workplace.read("train.txt");
    workplace.write("train.txt", &text[..1400]);
    let hint = "start a new run";
    workplace
        .reparam(&args)
        .failed(1, "cannot resume: the data is not what", hint);
    workplace.write("train.txt", &text);
    let opened = |name: &str, with: &str| {
        let text = workplace.read_text(&format!("base/{name}"));
        text.replacen('{', with, 1).into_bytes()
    };
    let mut tensors = workplace.read("base/model.safetensors");
    *tensors.last_mut().expect("a weight") ^= 1;
    // The file of the base, what it is now, and what is said to differ.
    let cases: [(&str, Vec<u8>, &str); 6] = [
        (
            "config.json",
            opened("config.json", "{\"rope_theta\": 77.0,"),
            "`config.json` of the base model",
        ),
        (
            "tokenizer_config.json",
            opened("tokenizer_config.json", "{\"truncation_side\": \"left\","),
            "`tokenizer_config.json` of the base model",
        ),
        (
            "special_tokens_map.json",
            b"{}".to_vec(),
            "`special_tokens_map.json` of the base model",
        ),
        (
            "generation_config.json",
            b"{\"eos_token_id\": 7}".to_vec(),
            "`generation_config.json` of the base model",
        ),
        (
            "tokenizer.json",
            opened("tokenizer.json", "{ "),
            "the tokenizer",
        ),
        ("model.safetensors", tensors, "the base model"),
    ];
    for (name, bytes, what) in cases {
        let path = format!("base/{name}");
        let before = workplace
            .path(&path)
            .exists()
            .then(|| workplace.read(&path));
        workplace.write(&path, &bytes);
        let error = format!("cannot resume: {what} is not what");
        workplace.reparam(&args).failed(1, &error, hint);
        match before {
            Some(before) => workplace.write(&path, &before),
            None => std::fs::remove_file(workplace.path(&path)).expect("removes"),
        }
    }
    let moved = workplace.path("moved");
    std::fs::rename(workplace.path("run"), &moved).expect("renames");
    args.extend(["--output", "moved"]);
    let outcome = workplace.reparam(&args);
    assert!(
        outcome.out.contains("resumed     after step 1"),
        "{outcome:?}"
    );
}

/// One of the two processes trains, whichever is first; the other says so, and the lock is gone with the process.
#[cfg(unix)]
#[test]
fn two_processes_do_not_train_in_one_directory() {
    let workplace = Workplace::new();
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("reparam"))
        .args(["train", "run.toml", "--set", "train.max_steps=100000000"])
        .env_clear()
        .current_dir(workplace.root())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
    let started = Instant::now();
    while !workplace.path("run/provenance.json").is_file() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "it does not start"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let args = [
        "train",
        "run.toml",
        "--resume",
        "--set",
        "train.max_steps=100000000",
    ];
    workplace
        .reparam(&args)
        .failed(1, "another process is training in run", "wait for it");
    child.kill().expect("it is there");
    child.wait().expect("an end");
    let args = ["train", "run.toml", "--resume"];
    workplace
        .reparam(&args)
        .failed(1, "`train.max_steps` is not what", "new run");
}
