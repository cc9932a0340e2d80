//! What data are read from: paths, formats, fields, templates, and rows that cannot be read.

use serde_json::Value;

use crate::reparam;
use crate::support::{Outcome, Workplace, model};

const SUMS: &str = "{\"question\": \"One and one?\", \"answer\": \"two\"}\n{\"question\": \"Two and two?\", \"answer\": \"four\"}\n\
    {\"question\": \"One and two?\", \"answer\": \"three\"}\n";

/// The result of an evaluation with the built-in model.
fn eval(workplace: &Workplace, args: &[&str]) -> Value {
    let model = model();
    let args = [&["eval", "--json", "--model", &model], args].concat();
    workplace.reparam(&args).succeeded().json()
}

#[test]
fn the_same_documents_have_the_same_loss_in_every_file() {
    let workplace = Workplace::new();
    let texts = ["Lily saw a boat.", "A dog ran. 狗跑了。"];
    let lines: String = texts
        .iter()
        .map(|text| format!("{{\"text\": \"{text}\"}}\n"))
        .collect();
    let files: [(&str, String, &[&str]); 8] = [
        ("bom.jsonl", format!("\u{feff}{lines}"), &[]),
        ("crlf.jsonl", lines.replace('\n', "\r\n"), &[]),
        (
            "a.json",
            format!("{{\"data\": [{}]}}", lines.trim_end().replace('\n', ",\n")),
            &[],
        ),
        ("lines.txt", texts.join("\n"), &["--format", "lines"]),
        (
            "a.csv",
            format!("review;n\n{};1\n{};2\n", texts[0], texts[1]),
            &["--fields", "text=review"],
        ),
        (
            "a.tsv",
            format!("1\t{}\n2\t{}\n", texts[0], texts[1]),
            &["--fields", "text=2"],
        ),
        (
            "b.csv",
            format!("a\n{}\n{}\n", texts[0], texts[1]),
            &["--template", "{a}"],
        ),
        (
            "skip.jsonl",
            format!("{lines}{{\"text\": 5}}\n"),
            &["--on-error", "skip"],
        ),
    ];
    workplace.write("plain.jsonl", lines.as_bytes());
    let expected = eval(&workplace, &["--data", "plain.jsonl"]);
    for (name, content, args) in files {
        workplace.write(name, content.as_bytes());
        let found = eval(&workplace, &[&["--data", name], args].concat());
        for key in ["loss", "tokens"] {
            assert_eq!(found[key], expected[key], "{name}: {found}");
        }
        let skipped = args.contains(&"skip").then_some(1);
        assert_eq!(
            found.get("skipped").and_then(Value::as_u64),
            skipped,
            "{found}"
        );
    }
    std::fs::create_dir(workplace.path("texts")).expect("a directory");
    // One file a document, found by a directory or a pattern.
    for (number, text) in texts.iter().enumerate() {
        workplace.write(&format!("texts/{number}.txt"), text.as_bytes());
    }
    workplace.write("texts/notes", b"no data");
    for path in ["texts", "texts/*.txt", "**/[01].txt"] {
        assert_eq!(
            eval(&workplace, &["--data", path])["loss"],
            expected["loss"],
            "{path}"
        );
    }
}

#[test]
fn a_template_makes_examples_and_is_remembered() {
    let workplace = Workplace::new();
    workplace.write("sums.jsonl", SUMS.as_bytes());
    workplace.write(
        "broken.jsonl",
        format!("{SUMS}{{\"question\": \"x\", \"answer\": \"\"}}\n").as_bytes(),
    );
    let run = format!(
        "\u{feff}[model]\npath = {:?}\n[data]\ntrain = \"~/broken.jsonl\"\neval = \"sums.jsonl\"\non_error = \"skip\"\n\
         template = \"Q: {{question}} A: {{answer}}\"\n[train]\nmax_steps = 1\n[output]\ndir = \"run\"\n",
        model()
    );
    workplace.write("run.toml", run.as_bytes());
    let output = reparam(workplace.root())
        .env("HOME", workplace.root())
        .args(["train", "run.toml", "--json"])
        .output();
    let outcome = Outcome::of(output.expect("a process")).succeeded();
    let start = &outcome.events()[0];
    assert_eq!(
        (&start["data"]["skipped"], &start["data"]["format"]),
        (&1.into(), &"jsonl".into())
    );
    let row = start["data"]["skipped_rows"][0].as_str().expect("a row");
    assert!(
        row.ends_with("broken.jsonl:4: the response in `answer` is empty"),
        "{row}"
    );

    // Only the answers are scored, in training and after, and the card says how.
    let asked = eval(
        &workplace,
        &[
            "--data",
            "sums.jsonl",
            "--template",
            "Q: {question} A: {answer}",
        ],
    );
    let as_is = eval(&workplace, &["--data", "sums.jsonl"]);
    assert_ne!(asked["loss"], as_is["loss"]);
    let first = outcome
        .events()
        .into_iter()
        .find(|event| event["event"] == "evaluation");
    let first = first.expect("an evaluation");
    let (before, asked) = (first["metrics"]["loss"].as_f64(), asked["loss"].as_f64());
    let (before, asked) = (before.expect("a loss"), asked.expect("a loss"));
    assert!((before - asked).abs() < 1e-4, "{before} {asked}");
    let adapted = |data: &str| {
        let model = model();
        workplace.reparam(&[
            "eval",
            "--model",
            &model,
            "--adapter",
            "run/adapter",
            "--data",
            data,
        ])
    };
    adapted("sums.jsonl").succeeded();
    workplace.write("other.jsonl", b"{\"text\": \"a\"}\n");
    adapted("other.jsonl").failed(1, "no field `question`", "run/adapter/reparam.json says");
}

#[test]
fn what_cannot_be_read_is_refused_with_what_to_do() {
    let workplace = Workplace::new();
    let files: [(&str, &[u8], &str, &str); 6] = [
        (
            "lfs.jsonl",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 26906\n",
            "is a Git LFS pointer, not text",
            "git lfs pull",
        ),
        ("gbk.txt", b"\xcb\xfd\xc5\xdc\xc1\xcb\xba\xdc\xd4\xb6\xa1\xa3\xd0\xa1\xb4\xac\n", "it looks like GB18030", "iconv -f GB18030"),
        (
            "chat.jsonl",
            b"{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}\n",
            "chat.jsonl:1: the model has no chat template",
            "--chat-template chatml",
        ),
        (
            "alpaca.jsonl",
            b"{\"instruction\": \"a\", \"output\": \"\"}\n{\"instruction\": \"b\", \"output\": \" \"}\n",
            "alpaca.jsonl:1: the response in `output` is empty (2 such rows: also line 2)",
            "--on-error skip",
        ),
        ("table.csv", b"price,size\n1,2\n", "neither a document nor an example, found `price`, `size`", "--fields"),
        ("data.xyz", b"a", "cannot tell the format of data.xyz", "--format"),
    ];
    let model = model();
    for (name, content, error, hint) in files {
        workplace.write(name, content);
        workplace
            .reparam(&["eval", "--model", &model, "--data", name])
            .failed(1, error, hint);
    }
    workplace
        .reparam(&["eval", "--model", &model, "--data", "openai/gsm8k"])
        .failed(1, "no such file", "hf://datasets/");
}

#[test]
fn a_model_may_have_byte_order_marks() {
    let workplace = Workplace::new();
    workplace.write("a.txt", b"Lily saw a boat.");
    let expected = eval(&workplace, &["--data", "a.txt"]);
    let copy = workplace.copy_model("copy");
    for name in ["config.json", "tokenizer_config.json"] {
        let content = workplace.read_text(&format!("copy/{name}"));
        workplace.write(
            &format!("copy/{name}"),
            format!("\u{feff}{content}").as_bytes(),
        );
    }
    let copy = copy.to_str().expect("a path");
    let found = workplace
        .reparam(&["eval", "--json", "--model", copy, "--data", "a.txt"])
        .succeeded()
        .json();
    assert_eq!(found["loss"], expected["loss"]);
}
