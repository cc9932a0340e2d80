//! Ctrl-C in commands that only read.

use std::io::Read as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Workplace, model, repository};

/// Starts a command that would run for hours.
fn start(workplace: &Workplace, args: &[&str]) -> Child {
    Command::new(assert_cmd::cargo::cargo_bin!("reparam"))
        .args(args)
        .env_clear()
        .current_dir(workplace.root())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process")
}

/// Waits until the process handles interrupts itself.
fn wait_for_handler(child: &Child) {
    const SIGINT: u64 = 1 << 1;
    let began = Instant::now();
    let path = format!("/proc/{}/status", child.id());
    loop {
        let status = std::fs::read_to_string(&path).expect("a running process");
        let mut lines = status.lines();
        let caught = lines.find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.expect("a mask").trim(), 16).expect("hexadecimal");
        if caught & SIGINT != 0 {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no handler");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn interrupt(child: &Child) {
    let id = child.id().to_string();
    let status = Command::new("kill").args(["-INT", &id]).status();
    assert!(status.expect("kill").success());
}

#[test]
fn a_download_ends_at_an_interrupt() {
    let workplace = Workplace::new();
    // A hub that takes a request and never answers.
    let hub = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", hub.local_addr().expect("an address"));
    let args = ["generate", "--model", "org/name", "--prompt", "Once"];
    let child = Command::new(assert_cmd::cargo::cargo_bin!("reparam"))
        .args(args)
        .env_clear()
        .env("HF_ENDPOINT", endpoint)
        .env("HF_HUB_CACHE", workplace.path("cache"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process");
    let (mut request, _) = hub.accept().expect("a request");
    request.read_exact(&mut [0; 16]).expect("its beginning");
    let asked = Instant::now();
    interrupt(&child);
    let output = child.wait_with_output().expect("an end");
    // Far less than the 30 s that the answer may take; the machine may be busy.
    assert!(asked.elapsed() < Duration::from_secs(10));
    assert_eq!(output.status.code(), Some(130), "{output:?}");
}

#[test]
fn commands_that_only_read_end_at_an_interrupt() {
    let workplace = Workplace::new();
    let text =
        std::fs::read_to_string(repository().join("assets/tinyshakespeare.txt")).expect("text");
    workplace.write("long.txt", text.repeat(2).as_bytes());
    let model = &model();
    let eval = [
        "eval",
        "--model",
        model,
        "--data",
        "long.txt",
        "--precision",
        "f32",
    ];
    // Far more than are made before the interrupt; memory for a cache of them has to be there.
    let most = "1000000";
    let generate = [
        "generate",
        "--model",
        model,
        "--prompt",
        "Once",
        "--max-new-tokens",
        most,
    ];
    for (args, is_json) in [(&eval[..], false), (&generate, false), (&generate, true)] {
        let args = [args, &["--json"][..usize::from(is_json)]].concat();
        let mut child = start(&workplace, &args);
        wait_for_handler(&child);
        if args[0] == "generate" && !is_json {
            let mut first = [0];
            let stdout = child.stdout.as_mut().expect("a pipe");
            stdout
                .read_exact(&mut first)
                .expect("a text that has begun");
        }
        interrupt(&child);
        let output = child.wait_with_output().expect("an end");
        let err = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(130), "{args:?}: {err}");
        if is_json {
            let out = String::from_utf8(output.stdout).expect("UTF-8");
            assert!(out.contains("\"kind\":\"interrupted\""), "{out}");
        }
    }
}

/// A long prompt is read in parts; what is to be said of its length is said before.
#[test]
fn a_long_prompt_is_warned_of_and_can_be_broken_off() {
    use std::io::{BufRead as _, BufReader, Write as _};

    let workplace = Workplace::new();
    let text =
        std::fs::read_to_string(repository().join("assets/tinyshakespeare.txt")).expect("text");
    // Some minutes of reading in a program without optimizations, and one line.
    let prompt = text[..400_000].replace('\n', " ");
    let model = &model();
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("reparam"))
        .args(["chat", "--model", model, "--chat-template", "vicuna"])
        .env_clear()
        .current_dir(workplace.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut stdin = child.stdin.take().expect("a pipe");
    let said = format!("{prompt}\n/exit\n");
    let writer = std::thread::spawn(move || stdin.write_all(said.as_bytes()));
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let warned = lines.find(|line| {
        let line = line.as_ref().expect("a line");
        line.contains("the model was made for sequences of up to 512 tokens")
    });
    assert!(warned.is_some());
    let asked = Instant::now();
    interrupt(&child);
    // The answer is broken off, and the next line leaves.
    let status = child.wait().expect("an end");
    assert!(
        asked.elapsed() < Duration::from_secs(60),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(status.code(), Some(0));
    writer.join().expect("a thread").expect("writes");
}
