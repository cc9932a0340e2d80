//! Conversations: learned, measured, and held.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::reparam;
use crate::support::{Outcome, Workplace, json_lines, model};

/// What is taught: short enough to be known by heart.
const ASKED: [(&str, &str); 2] = [
    ("Who made the boat?", "Tim made it."),
    ("Where is Lily?", "In the park."),
];

/// Conversations in the form of OpenAI, some of two turns.
fn conversations() -> String {
    let mut rows = String::new();
    for (first, second) in [(0, None), (1, None), (0, Some(1)), (1, Some(0))] {
        let mut messages = Vec::new();
        for turn in [Some(first), second].into_iter().flatten() {
            let (asked, answered) = ASKED[turn];
            messages.push(json!({"role": "user", "content": asked}));
            messages.push(json!({"role": "assistant", "content": answered}));
        }
        rows += &format!("{}\n", json!({ "messages": messages }));
    }
    rows
}

/// A workplace with a model that has learned [`ASKED`] in the template `zephyr`.
fn taught() -> Workplace {
    let workplace = Workplace::new();
    workplace.write("chat.jsonl", conversations().as_bytes());
    let outcome = workplace.train(&[
        "data.train=chat.jsonl",
        "data.eval=chat.jsonl",
        "data.chat_template=zephyr",
        "method={ kind = \"full\" }",
        "optimizer.learning_rate=3e-3",
        "train.max_steps=80",
        "train.batch_size=4",
        "train.sequence_length=128",
    ]);
    outcome.succeeded();
    workplace
}

/// Runs the program with lines as standard input.
fn said(workplace: &Workplace, args: &[&str], lines: &str) -> Outcome {
    let output = reparam(workplace.root())
        .env("HF_HUB_OFFLINE", "1")
        .args(args)
        .write_stdin(lines)
        .output()
        .expect("a process");
    Outcome::of(output)
}

#[test]
fn a_model_learns_conversations_and_holds_them() {
    let workplace = taught();
    let model = model();
    let events = json_lines(&workplace.read_text("run/events.jsonl"));
    let start = events
        .iter()
        .find(|event| event["event"] == "start")
        .expect("a start");
    let data = &start["data"];
    assert_eq!(data["format"], "messages");
    assert_eq!(
        (&data["conversations"], &data["turns"]),
        (&json!(4), &json!(6))
    );
    assert_eq!(data["turns_not_located"], 0);
    // The template is in the model, which knows how it was taught.
    assert!(
        workplace
            .read_text("run/model/chat_template.jinja")
            .contains("generation")
    );
    let adapted = ["--model", "run/model"];

    let lines = format!("{}\n\n{}\n", ASKED[0].0, ASKED[1].0);
    let chat = [&["chat"][..], &adapted].concat();
    let outcome = said(&workplace, &chat, &lines).succeeded();
    assert_eq!(
        outcome.out,
        format!("{}\n{}\n", ASKED[0].1, ASKED[1].1),
        "{}",
        outcome.err
    );

    let json = [&chat[..], &["--json"]].concat();
    let answers = said(&workplace, &json, &lines).succeeded().events();
    assert_eq!(answers.len(), 2);
    for (answer, (asked, answered)) in answers.iter().zip(ASKED) {
        assert_eq!(
            (&answer["prompt"], &answer["text"]),
            (&json!(asked), &json!(answered))
        );
        assert_eq!(answer["finish_reason"], "end_of_text");
    }
    // What was said before is read, too: the second prompt has all of the first turn.
    let read = |answer: &Value| answer["prompt_tokens"].as_u64().expect("a number");
    let first = read(&answers[0]) + answers[0]["tokens"].as_array().expect("tokens").len() as u64;
    assert!(read(&answers[1]) > first, "{answers:?}");

    let generate = [
        &["generate"][..],
        &adapted,
        &["--prompt", ASKED[1].0, "--chat"],
    ]
    .concat();
    let outcome = workplace.reparam(&generate).succeeded();
    assert_eq!(outcome.out, format!("{}\n", ASKED[1].1));
    let plain = [&["generate"][..], &adapted, &["--prompt", ASKED[1].0]].concat();
    let outcome = workplace.reparam(&plain).succeeded();
    assert!(
        outcome.err.contains("--chat writes the prompt as one"),
        "{}",
        outcome.err
    );

    // It is measured as it was learned, in the form of ShareGPT as well; a base is told the template.
    let eval = [&["eval"][..], &adapted, &["--json", "--data", "chat.jsonl"]].concat();
    let measured = workplace.reparam(&eval).succeeded().json();
    let finished = events.last().expect("an end");
    assert!(
        (measured["loss"].as_f64().expect("a loss") - finished["after"].as_f64().expect("a loss"))
            .abs()
            < 1e-4,
        "{measured} {finished}"
    );
    let turns: Vec<Value> = ASKED
        .iter()
        .flat_map(|(asked, answered)| {
            [
                json!({"from": "human", "value": asked}),
                json!({"from": "gpt", "value": answered}),
            ]
        })
        .collect();
    workplace.write(
        "sharegpt.json",
        json!([{ "conversations": turns }]).to_string().as_bytes(),
    );
    let base = [
        "eval",
        "--model",
        &model,
        "--data",
        "sharegpt.json",
        "--json",
        "--chat-template",
        "zephyr",
    ];
    let of_base = workplace.reparam(&base).succeeded().json();
    assert!(
        of_base["loss"].as_f64() > measured["loss"].as_f64(),
        "{of_base} {measured}"
    );
    workplace.reparam(&base[..6]).failed(
        1,
        "sharegpt.json:1 (item 1): the model has no chat template",
        "--chat-template chatml",
    );
}

#[test]
fn commands_of_a_conversation_are_obeyed() {
    let workplace = Workplace::new();
    let model = model();
    let chat = [
        "chat",
        "--model",
        &model,
        "--chat-template",
        "vicuna",
        "--max-new-tokens",
        "4",
        "--system",
        "Be short.",
    ];
    let lines = "Hi\n/save a.jsonl\n/reset\n/nothing\n/save\n//Hi\n/save a.jsonl\n/system Be long.\n/save b.jsonl\n/system\n/help\n/exit\nnever said\n";
    let outcome = said(&workplace, &chat, lines).succeeded();
    assert_eq!(outcome.out.lines().count(), 2, "{outcome:?}");
    for told in [
        "saved to a.jsonl",
        "begins anew",
        "no command /nothing",
        "/save needs",
        "Ctrl-C breaks",
    ] {
        assert!(outcome.err.contains(told), "{told}: {}", outcome.err);
    }
    let saved = json_lines(&workplace.read_text("a.jsonl"));
    let said_in = |row: &Value| -> Vec<(String, String)> {
        let messages = row["messages"].as_array().expect("a list").iter();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        messages
            .map(|message| (text(&message["role"]), text(&message["content"])))
            .collect()
    };
    for (row, asked) in saved.iter().zip(["Hi", "/Hi"]) {
        let turns = said_in(row);
        assert_eq!(turns.len(), 3);
        assert_eq!(turns[0], ("system".to_owned(), "Be short.".to_owned()));
        assert_eq!(turns[1], ("user".to_owned(), asked.to_owned()));
        assert_eq!(turns[2].0, "assistant");
    }
    let other = json_lines(&workplace.read_text("b.jsonl"));
    assert_eq!(
        said_in(&other[0]),
        [("system".to_owned(), "Be long.".to_owned())]
    );
    // What was saved can be learned.
    let eval = [
        "eval",
        "--model",
        &model,
        "--data",
        "a.jsonl",
        "--chat-template",
        "vicuna",
        "--json",
    ];
    workplace.reparam(&eval).succeeded();
}

#[test]
fn what_a_conversation_needs_is_asked_for() {
    let workplace = Workplace::new();
    let model = model();
    said(&workplace, &["chat", "--model", &model], "Hi\n").failed(
        1,
        "the model has no chat template",
        "--chat-template chatml",
    );
    said(
        &workplace,
        &["chat", "--model", &model, "--chat-template", "chatlm"],
        "Hi\n",
    )
    .failed(1, "there is no chat template `chatlm`", "\"chatml\"");
    workplace.write("t.jinja", b"{{ raise_exception('no way') }}");
    said(
        &workplace,
        &["chat", "--model", &model, "--chat-template", "t.jinja"],
        "Hi\n",
    )
    .failed(1, "refuses the conversation: no way", "another template");
    workplace.write("t.jinja", b"a\n{% if %}");
    said(
        &workplace,
        &["chat", "--model", &model, "--chat-template", "t.jinja"],
        "",
    )
    .failed(1, "t.jinja:2: the chat template cannot be read", "template");
    let outcome = workplace.reparam(&[
        "generate", "--model", &model, "--prompt", "a", "--system", "b",
    ]);
    outcome.failed(2, "--system has no effect on a text that is continued", "");
    workplace.write("chat.jsonl", conversations().as_bytes());
    for (overrides, error, hint) in [
        (
            &["data.chat_template=zephyr"][..],
            "chat_template has no effect: the data have no conversations",
            "remove",
        ),
        (
            &["data.chat_template=other"],
            "there is no chat template `other`",
            "\"chatml\"",
        ),
        (
            &["data.train=chat.jsonl"],
            "chat.jsonl:1: the model has no chat template",
            "chat_template = \"chatml\"",
        ),
        (
            &["data.train_on_turns=last", "data.format=text"],
            "`train_on_turns` in [data] has no effect",
            "remove",
        ),
    ] {
        workplace.train(overrides).failed(1, error, hint);
    }
}

#[test]
fn what_is_learned_of_a_conversation_can_be_chosen() {
    let workplace = Workplace::new();
    workplace.write("chat.jsonl", conversations().as_bytes());
    let labelled = |overrides: &[&str]| {
        let common = [
            "data.train=chat.jsonl",
            "data.eval_fraction=0",
            "data.chat_template=zephyr",
            "train.sequence_length=128",
        ];
        let all = [&common[..], overrides].concat();
        std::fs::remove_dir_all(workplace.path("run")).ok();
        workplace.train(&all).succeeded();
        let events = json_lines(&workplace.read_text("run/events.jsonl"));
        let start = events
            .iter()
            .find(|event| event["event"] == "start")
            .expect("a start");
        (
            start["data"]["turns"].clone(),
            start["data"]["labelled_tokens"].as_u64().expect("a number"),
        )
    };
    let (turns, all) = labelled(&[]);
    assert_eq!(turns, 6);
    let (turns, last) = labelled(&["data.train_on_turns=last"]);
    assert_eq!(turns, 4);
    let (_, everything) = labelled(&["data.train_on_prompt=true"]);
    assert!(last < all && all < everything, "{last} {all} {everything}");
    // An adapter has the template, too.
    assert!(
        workplace
            .read_text("run/adapter/chat_template.jinja")
            .contains("generation")
    );
    let model = model();
    let chat = [
        "chat",
        "--model",
        &model,
        "--adapter",
        "run",
        "--max-new-tokens",
        "3",
    ];
    said(&workplace, &chat, "Hi\n").succeeded();
}

/// Ctrl-C ends the answer and not the conversation; between answers it ends the program.
#[test]
fn an_interrupt_ends_the_answer() {
    let workplace = Workplace::new();
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("reparam"))
        .args([
            "chat",
            "--model",
            &model(),
            "--chat-template",
            "zephyr",
            "--max-new-tokens",
            "400",
        ])
        .env_clear()
        .current_dir(workplace.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut input = child.stdin.take().expect("a pipe");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let interrupt = |id: u32| {
        let status = Command::new("kill")
            .args(["-INT", &id.to_string()])
            .status();
        assert!(status.expect("kill").success());
    };
    input.write_all(b"Once upon a time\n").expect("a line");
    let mut first = [0];
    output
        .read_exact(&mut first)
        .expect("the beginning of an answer");
    interrupt(child.id());
    let mut rest = String::new();
    output.read_line(&mut rest).expect("the rest of it");
    input.write_all(b"/save a.jsonl\n/exit\n").expect("lines");
    let mut err = String::new();
    child
        .stderr
        .take()
        .expect("a pipe")
        .read_to_string(&mut err)
        .expect("text");
    assert_eq!(child.wait().expect("an end").code(), Some(0), "{err}");
    let saved = json_lines(&workplace.read_text("a.jsonl"));
    assert_eq!(saved[0]["messages"].as_array().expect("a list").len(), 2);
}
