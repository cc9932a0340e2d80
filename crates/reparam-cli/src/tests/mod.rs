//! Whole invocations with an engine that does as the tests say.

mod double;
mod tables;

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use reparam_train::event::Event;
use serde_json::{Value, json};

use self::double::{Behaviour, Double};
use crate::engine::Engine;
use crate::env_vars::Environment;
use crate::output::{Printer, Streams};
use crate::run::{Context, run};

const RUN_FILE: &str = "\
[model]
path = \"base\"
[data]
train = \"data.txt\"
[train]
max_steps = 40
[output]
dir = \"runs/a\"
";

/// What an invocation did.
struct Ran {
    code: u8,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{}", self.out);
        serde_json::from_str(&self.out).expect("JSON")
    }
}

fn invoke_to(args: &[&str], behaviour: Behaviour, env: Environment, out: &mut dyn Write) -> Ran {
    let mut err = Vec::new();
    let open = move |settings| {
        Ok(Box::new(Double {
            behaviour,
            settings,
        }) as Box<dyn Engine>)
    };
    let context = Context {
        environment: env,
        open_engine: &open,
        watch_interrupts: &|_| Ok(()),
    };
    let streams = Streams {
        out,
        err: &mut err,
        out_is_terminal: false,
        err_is_terminal: false,
    };
    let args = std::iter::once("reparam").chain(args.iter().copied());
    let code = run(args.map(OsString::from), &context, streams);
    Ran {
        code,
        out: String::new(),
        err: String::from_utf8(err).expect("UTF-8"),
    }
}

fn invoke_with(args: &[&str], behaviour: Behaviour, env: Environment) -> Ran {
    let mut out = Vec::new();
    let ran = invoke_to(args, behaviour, env, &mut out);
    let out = String::from_utf8(out).expect("UTF-8");
    Ran { out, ..ran }
}

fn invoke(args: &[&str]) -> Ran {
    invoke_with(args, Behaviour::default(), Environment::of(&[]))
}

fn train(behaviour: Behaviour, args: &[&str]) -> Ran {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("run.toml");
    std::fs::write(&file, RUN_FILE).expect("a file");
    let mut all = vec!["train", file.to_str().expect("UTF-8")];
    all.extend(args);
    invoke_with(&all, behaviour, Environment::of(&[]))
}

/// A reader that closes the output after some writes.
struct Closes {
    left: Cell<usize>,
    kind: io::ErrorKind,
}

impl Write for Closes {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self.left.get() {
            0 => Err(self.kind.into()),
            left => {
                self.left.set(left - 1);
                Ok(buffer.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn train_reports_in_text() {
    let ran = train(Behaviour::Finishes, &["--set", "train.seed=7"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    insta::assert_snapshot!(ran.out, @r#"
    model       base, 7,000 parameters
    method      lora on 2 modules, scaling 2
    trainable   1,000 parameters (12.50 %)
    data        12,345 tokens in 24 blocks, 12,000 to learn from, 600 held out, 3 examples cut
    run         40 steps of 4 x 512 x 2 tokens, f32, 2 threads, seed 7, lambda 0.5
    output      runs/a
    evaluation  step 0: loss 2.0000, perplexity 7.39 on 600 tokens
    sample      step 0: Once upon
    saved       step 40: runs/a/adapter
    evaluation  step 40: loss 1.5000, perplexity 4.48 on 600 tokens
    finished    40 steps in 1m 15s, held-out loss 2.0000 -> 1.5000
    adapter     runs/a/adapter
    "#);
    insta::assert_snapshot!(ran.err.lines().take(3).collect::<Vec<_>>().join("\n"), @r#"
    step 1/40  loss 1.9900  learning rate 2.000e-4  gradient 5.000e-1  1234 tokens/s  1.5 GiB
    step 2/40  loss 1.9800  learning rate 2.000e-4  gradient 5.000e-1  1234 tokens/s  1.5 GiB
    step 4/40  loss 1.9600  learning rate 2.000e-4  gradient 5.000e-1  1234 tokens/s  1.5 GiB
    "#);
    // The first step, every second of forty, and nothing twice.
    assert_eq!(ran.err.lines().count(), 21);
}

#[test]
fn quiet_training_prints_the_result_alone() {
    let ran = train(Behaviour::Finishes, &["-q"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    insta::assert_snapshot!(ran.out, @r#"
    finished    40 steps in 1m 15s, held-out loss 2.0000 -> 1.5000
    adapter     runs/a/adapter
    "#);
}

#[test]
fn train_prints_every_event_as_json() {
    let ran = train(Behaviour::Finishes, &["--json", "--output", "elsewhere"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let events: Vec<Event> = ran
        .out
        .lines()
        .map(|line| Event::from_json_line(line).expect(line))
        .collect();
    assert_eq!(events.len(), 46);
    let Event::Start(start) = &events[0] else {
        panic!("{:?}", events[0]);
    };
    assert_eq!(start.output, Path::new("elsewhere"));
    assert!(matches!(events[45], Event::Finished(_)));
}

#[test]
fn an_interrupted_run_exits_with_130() {
    let ran = train(Behaviour::IsInterrupted, &[]);
    assert_eq!(ran.code, 130);
    assert!(
        ran.err
            .ends_with("error: interrupted after step 2; what it has learned is saved\n"),
        "{}",
        ran.err
    );

    let ran = train(Behaviour::IsInterrupted, &["--json"]);
    assert_eq!(ran.code, 130);
    let last = ran.out.lines().last().map(Event::from_json_line);
    assert_eq!(last.unwrap().unwrap(), Event::Interrupted { step: 2 });
}

#[test]
fn a_diverged_run_exits_with_4() {
    let ran = train(Behaviour::Diverges, &[]);
    assert_eq!(ran.code, 4);
    assert_eq!(
        ran.err,
        "error: the loss is NaN at step 1\nhint: lower the learning rate\n"
    );

    let ran = train(Behaviour::Diverges, &["--json"]);
    assert_eq!(ran.code, 4);
    let failed: Vec<&str> = ran.out.lines().filter(|l| l.contains("failed")).collect();
    assert_eq!(failed.len(), 1, "{}", ran.out);
    insta::assert_snapshot!(failed[0], @r#"{"schema_version":1,"event":"failed","error":{"message":"the loss is NaN at step 1","kind":"diverged","exit_code":4,"hints":["lower the learning rate"]}}"#);
    // Readers of events can read it too.
    assert!(matches!(
        Event::from_json_line(failed[0]),
        Ok(Event::Failed { .. })
    ));
}

#[test]
fn a_panic_is_a_bug() {
    let ran = train(Behaviour::Panics, &["--json"]);
    assert_eq!(ran.code, 255);
    let last: Value = serde_json::from_str(ran.out.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["kind"], "bug");
    assert_eq!(last["error"]["exit_code"], 255);
    assert_eq!(
        last["error"]["message"],
        "internal error: index out of bounds"
    );
    assert!(
        ran.err.contains("hint: this is a bug in reparam"),
        "{}",
        ran.err
    );
}

#[test]
fn a_closed_output_stops_the_run_and_exits_with_3() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("run.toml");
    std::fs::write(&file, RUN_FILE).unwrap();
    let args = ["train", file.to_str().unwrap(), "--json"];
    let close = |left, kind| {
        let left = Cell::new(left);
        invoke_to(
            &args,
            Behaviour::Finishes,
            Environment::of(&[]),
            &mut Closes { left, kind },
        )
    };
    let ran = close(5, io::ErrorKind::BrokenPipe);
    assert_eq!((ran.code, ran.err.as_str()), (3, ""));
    let ran = close(5, io::ErrorKind::StorageFull);
    assert_eq!(ran.code, 1);
    assert!(
        ran.err
            .starts_with("error: cannot write to standard output\n  caused by: "),
        "{}",
        ran.err
    );
}

#[test]
fn eval_prints_the_loss() {
    let args = [
        "eval",
        "--model",
        "base",
        "--adapter",
        "runs/a/adapter",
        "--data",
        "test.txt",
        "--format",
        "text",
        "--sequence-length",
        "64",
        "--precision",
        "f32",
    ];
    insta::assert_snapshot!(invoke(&args).out, @r#"
    loss        1.250000 nats a token
    perplexity  3.4903
    scored      1,234 tokens
    "#);
    let ran = invoke(&[&args[..], &["--json"]].concat());
    insta::assert_snapshot!(ran.out, @r#"{"loss":1.25,"perplexity":3.4903429574618414,"tokens":1234}"#);
}

#[test]
fn failures_are_objects_with_json() {
    for args in [
        &["eval", "--model", "absent", "--data", "x", "--json"][..],
        &["inspect", "absent", "--json"],
    ] {
        let ran = invoke(args);
        assert_eq!(ran.code, 1);
        assert_eq!(
            ran.json(),
            json!({ "error": {
                "message": "no such model", "kind": "data", "exit_code": 1,
                "hints": ["check the path"],
            }})
        );
        assert_eq!(ran.err, "error: no such model\nhint: check the path\n");
    }
}

#[test]
fn generate_prints_the_continuation() {
    let args = [
        "generate",
        "--model",
        "base",
        "--prompt",
        "- a",
        "--max-new-tokens",
        "3",
    ];
    let ran = invoke(&args);
    assert_eq!((ran.code, ran.out.as_str()), (0, " day day day\n"));
    assert_eq!(ran.err, "3 tokens at 10.0 tokens/s\n");

    let ran = invoke(&[&args[..], &["--json"]].concat());
    insta::assert_snapshot!(ran.out, @r#"{"prompt":"- a","text":" day day day","tokens":[0,1,2],"prompt_tokens":3,"finish_reason":"max_new_tokens","tokens_per_s":10.0}"#);
    let ran = invoke(&["generate", "--model", "base", "--prompt", "When?", "--json"]);
    assert_eq!(ran.json()["finish_reason"], "end_of_text");
    let random = invoke(&[&args[..], &["--temperature", "0.5", "--top-k", "4"]].concat());
    assert_eq!(random.out, " night night night\n");
}

#[test]
fn bench_prints_where_the_time_goes() {
    let args = ["bench", "--model", "base", "--steps", "2", "--warmup", "1"];
    let ran = invoke(&args);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    insta::assert_snapshot!(ran.out, @r"
    step        0.500 s (median; 0.500 to 0.500)
    speed       4096 tokens/s
    computed in bf16, portable, 2 threads
    loading     0.250 s
    peak memory 64.0 MiB
    page faults 3 a step at most
    share       the linear layers reach 400 of 800 GFLOP/s, 50 % of what the registers can do
    linear      0.2500 s, 50.0 %, 400 GFLOP/s
    ");
    let report = invoke(&[&args[..], &["--recompute", "--rank", "4", "--json"]].concat()).json();
    assert_eq!(
        (&report["recompute"], &report["rank"]),
        (&true.into(), &4.into())
    );
    assert_eq!(report["step_seconds"].as_array().map(Vec::len), Some(2));
    assert_eq!(report["linear_share_of_limit"], 0.5);
    assert_eq!(
        invoke(&["bench", "--model", "base", "--steps", "0"]).code,
        2
    );
}

#[test]
fn generate_stops_when_nobody_reads() {
    let mut out = Closes {
        left: Cell::new(2),
        kind: io::ErrorKind::BrokenPipe,
    };
    let args = [
        "generate",
        "--model",
        "base",
        "--prompt",
        "x",
        "--max-new-tokens",
        "1000000000",
    ];
    let ran = invoke_to(&args, Behaviour::default(), Environment::of(&[]), &mut out);
    assert_eq!((ran.code, ran.err.as_str()), (3, ""));
}

#[test]
fn options_without_effect_are_refused() {
    let base = ["generate", "--model", "base", "--prompt", "x"];
    for option in ["--top-k=3", "--top-p=0.5"] {
        let ran = invoke(&[&base[..], &[option, "--json"]].concat());
        assert_eq!(ran.code, 2);
        let error = &ran.json()["error"];
        assert_eq!(error["kind"], "usage");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("has no effect at temperature 0"),
            "{message}"
        );
    }
}

#[test]
fn inspect_describes() {
    insta::assert_snapshot!(invoke(&["inspect", "runs/a/adapter", "--tensors"]).out, @r#"
    path            runs/a/adapter
    kind            adapter
    tensors         2 tensors with 33,792 elements, 132.0 KiB
    rank            16
    target_modules  ["q_proj"]
    base            base

    q.lora_A.weight  F32      4.0 KiB  [16 x 64]
    q.lora_B.weight  F32    128.0 KiB  [2,048 x 16]
    "#);
    let ran = invoke(&["inspect", "runs/a/adapter", "--json"]);
    insta::assert_snapshot!(ran.out, @r#"{"path":"runs/a/adapter","kind":"adapter","tensor_count":2,"elements":33792,"bytes":135168,"properties":{"rank":16,"target_modules":["q_proj"],"base":"base"}}"#);
    let ran = invoke(&["inspect", "runs/a/adapter", "--json", "--tensors"]);
    assert_eq!(ran.json()["tensors"][1]["shape"], json!([2048, 16]));
}

#[test]
fn doctor_shows_capabilities_and_variables_but_no_token() {
    let env = || Environment::of(&[("REPARAM_ISA", "avx2"), ("HF_TOKEN", "hf_secret")]);
    let ran = invoke_with(&["doctor"], Behaviour::default(), env());
    assert_eq!(ran.code, 0);
    for label in [
        "reparam",
        "processor",
        "cores",
        "memory",
        "disk",
        "kernels",
        "environment",
    ] {
        assert!(
            ran.out.lines().any(|line| line.starts_with(label)),
            "{label}: {}",
            ran.out
        );
    }
    assert!(!ran.out.contains("secret"));

    let ran = invoke_with(&["doctor", "--json"], Behaviour::default(), env());
    let report = ran.json();
    assert_eq!(report["kernels"]["isa"], "avx2");
    assert_eq!(report["environment"]["HF_TOKEN"], "(set, not shown)");
    assert!(report["cpu"]["logical_cores"].as_u64() >= Some(1));
    assert!(report["memory"]["total_bytes"].as_u64() > Some(1 << 20));
    assert!(report["disk"]["free_bytes"].is_u64());
}

#[test]
fn a_variable_that_cannot_be_used_is_an_error() {
    let env = Environment::of(&[("REPARAM_THREADS", "many")]);
    let ran = invoke_with(&["doctor", "--json"], Behaviour::default(), env);
    assert_eq!(ran.code, 1);
    assert_eq!(ran.json()["error"]["kind"], "config");
}

#[test]
fn errors_are_colored_on_a_terminal_unless_told_not_to() {
    for (is_terminal, env, colored) in [
        (true, Environment::of(&[]), true),
        (true, Environment::of(&[("NO_COLOR", "1")]), false),
        (false, Environment::of(&[]), false),
    ] {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let streams = Streams {
            out: &mut out,
            err: &mut err,
            out_is_terminal: false,
            err_is_terminal: is_terminal,
        };
        Printer::new(streams, &env).failure(&crate::error::CliError::Interrupted { step: 1 });
        let text = String::from_utf8(err).unwrap();
        assert_eq!(
            text.starts_with("\x1b[1;31merror:\x1b[0m "),
            colored,
            "{text:?}"
        );
        assert_eq!(text.contains('\x1b'), colored, "{text:?}");
    }
}

#[test]
fn a_progress_bar_needs_a_terminal_and_nothing_in_its_way() {
    let shown = |is_terminal, env: &Environment, json, quiet, verbose| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let streams = Streams {
            out: &mut out,
            err: &mut err,
            out_is_terminal: false,
            err_is_terminal: is_terminal,
        };
        let mut printer = Printer::new(streams, env);
        printer.set_json(json);
        printer.set_verbosity(quiet, verbose);
        printer.shows_progress()
    };
    let none = Environment::of(&[]);
    let forbidden = Environment::of(&[("REPARAM_NO_PROGRESS", "1")]);
    assert!(shown(true, &none, false, false, 0));
    assert!(!shown(false, &none, false, false, 0));
    assert!(!shown(true, &forbidden, false, false, 0));
    assert!(!shown(true, &none, true, false, 0));
    assert!(!shown(true, &none, false, true, 0));
    assert!(!shown(true, &none, false, false, 1));
}
