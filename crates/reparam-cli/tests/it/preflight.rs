//! What is looked at before a run: `data inspect`, `--dry-run`, and the warnings of a run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::run;
use crate::support::{Workplace, all_paths, json_lines, repository};

/// Prompts with responses, with one of everything that is worth a word: a repeated row, one whose response begins behind
/// the first piece, and markup.
fn examples(workplace: &Workplace) {
    let long = "word ".repeat(60);
    let rows = [
        ("Say hi.", "Hi <b>there</b> & you."),
        ("Say hi.", "Hi <b>there</b> & you."),
        (&long, "No."),
        ("One and one?", "Two."),
        ("Two and one?", "Three."),
        ("Who are you?", "A small model."),
    ];
    let lines: String = (rows.iter())
        .map(|(prompt, completion)| {
            let row = serde_json::json!({ "prompt": prompt, "completion": completion });
            format!("{row}\n")
        })
        .collect();
    workplace.write("rows.jsonl", lines.as_bytes());
}

const ROWS: [&str; 4] = [
    "--set",
    "data.train=rows.jsonl",
    "--set",
    "data.eval_fraction=0",
];

/// Everything below a directory with its bytes and times.
fn state(workplace: &Workplace) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let files = all_paths(workplace.root()).into_iter();
    let files = files.filter(|path| path.is_file());
    files
        .map(|path| {
            let changed = path.metadata().and_then(|about| about.modified());
            let bytes = std::fs::read(&path).expect("a file");
            (path, (bytes, changed.expect("a time")))
        })
        .collect()
}

fn kinds(found: &Value) -> Vec<&str> {
    let findings = found["findings"].as_array().expect("a list").iter();
    findings
        .map(|finding| finding["kind"].as_str().expect("a word"))
        .collect()
}

#[test]
fn data_are_shown_as_the_model_sees_them() {
    let workplace = Workplace::new();
    examples(&workplace);
    let model = repository().join("assets/stories260K");
    workplace.write(
        "rows.toml",
        format!(
            "[model]\npath = {model:?}\n[data]\ntrain = \"rows.jsonl\"\neval_fraction = 0\n\
             [train]\nmax_steps = 2\nsequence_length = 32\n[output]\ndir = \"run\"\n"
        )
        .as_bytes(),
    );
    let text = run(
        workplace.root(),
        &["data", "inspect", "rows.toml", "--rows", "2"],
    );
    let text = text.replace(model.to_str().expect("UTF-8"), "MODEL");
    insta::assert_snapshot!(text, @r"
    exit code: 0
    --- stdout
    task        causal-lm
    model       MODEL
    documents   6 of 279 tokens, 62 learned (22.22 %), at most 32 at once
    tokens      min 11, median 20, mean 46.5, 95 % 186, max 186
                  11-28  ######################################## 5
                  29-46  0
                  47-64  0
                  65-82  0
                 83-100  0
                101-118  0
                119-136  0
                137-154  0
                155-172  0
                173-186  ######## 1
    blocks      74.4 % full, without padding
    truncated   1: rows.jsonl:3
    duplicates  1: rows.jsonl:2
    file        rows.jsonl: 6 documents, 279 tokens
    warning: 1 of 6 documents, first at rows.jsonl:3 do not fit 32 tokens: a part is cut off or learned without what is before it
    hint: raise train.sequence_length; 95 % of the rows have at most 186 tokens, the longest has 186
    warning: 1 of 6 documents, first at rows.jsonl:2 say what an earlier one says
    hint: remove them, unless they are meant to weigh more
    note: `lm_head.weight` is `model.embed_tokens.weight`: one tensor, trained or frozen as one

    rows.jsonl:1 (24 tokens)
    <s> Say hi.[[Hi <b>there</b> & you.</s>]]

    rows.jsonl:2 (24 tokens)
    <s> Say hi.[[Hi <b>there</b> & you.</s>]]
    --- stderr
    ");
    workplace.assert_no_run();
}

#[test]
fn data_as_json_and_as_a_page() {
    let workplace = Workplace::new();
    examples(&workplace);
    let before = state(&workplace);
    let args = [
        "data",
        "inspect",
        "run.toml",
        "--json",
        "--html",
        "data.html",
        "--rows",
        "99",
    ];
    let asked = [&args[..], &ROWS, &["--set", "train.sequence_length=32"]].concat();
    let found = workplace.reparam(&asked).succeeded().json();
    let data = &found["data"];
    assert_eq!(
        (&data["rows"], &data["unit"]),
        (&6.into(), &"documents".into())
    );
    assert_eq!(data["duplicates"]["count"], 1);
    assert!(
        data["duplicates"]["first"][0]
            .as_str()
            .unwrap()
            .ends_with("rows.jsonl:2")
    );
    assert_eq!(data["truncated"]["count"], 1);
    // The share of what is learned is that of the rows that are shown, which are all.
    let examples = data["examples"].as_array().expect("rows");
    let (mut tokens, mut learned) = (0, 0);
    for part in examples
        .iter()
        .flat_map(|row| row["parts"].as_array().expect("parts"))
    {
        let ids = part["ids"].as_array().expect("tokens").len();
        tokens += ids;
        learned += if part["learned"] == true { ids } else { 0 };
    }
    assert_eq!(data["tokens"], tokens, "{data}");
    assert_eq!(data["labelled_tokens"], learned, "{data}");
    let page = workplace.read_text("data.html");
    assert!(
        page.contains("Hi &lt;b&gt;there&lt;/b&gt; &amp; you."),
        "{page}"
    );
    assert!(!page.contains("<b>"), "{page}");
    // The page is all that was written.
    std::fs::remove_file(workplace.path("data.html")).expect("a page");
    assert_eq!(state(&workplace), before);
}

#[test]
fn what_is_too_long_is_counted() {
    let workplace = Workplace::new();
    examples(&workplace);
    let inspect = |too_long: &str, more: &[&str]| {
        let too_long = format!("data.too_long={too_long}");
        let args = ["data", "inspect", "run.toml", "--json", "--set", &too_long];
        let length = ["--set", "train.sequence_length=32"];
        let asked = [&args[..], more, &length].concat();
        workplace.reparam(&asked).succeeded().json()
    };
    let cut = inspect("cut", &ROWS);
    assert_eq!(cut["data"]["dropped"]["count"], 0);
    let dropped = inspect("drop", &ROWS);
    assert_eq!(dropped["data"]["rows"], 5);
    assert_eq!(dropped["data"]["truncated"]["count"], 0);
    let noticed = &dropped["data"]["dropped"];
    assert_eq!(noticed["count"], 1);
    let first = noticed["first"][0].as_str().expect("a place");
    assert!(first.ends_with("rows.jsonl:3"), "{first}");
    assert_eq!(kinds(&dropped)[..2], ["dropped_rows", "duplicates"]);
    let truncated = inspect("truncate", &ROWS);
    assert_eq!(truncated["data"]["rows"], 6);
    assert_eq!(truncated["data"]["truncated"]["count"], 1);
    let tokens = |found: &Value| found["data"]["tokens"].as_u64().expect("a number");
    assert_eq!(tokens(&truncated), tokens(&dropped) + 32);
    assert!(tokens(&cut) > tokens(&truncated));
    // Of files that are measured on, too.
    let files = [
        "--set",
        "data.train=rows.jsonl",
        "--set",
        "data.eval=rows.jsonl",
    ];
    let both = inspect("drop", &files);
    assert_eq!(both["data"]["held_out_dropped"]["count"], 1);
    assert!(kinds(&both).contains(&"held_out_dropped_rows"), "{both}");
}

#[test]
fn a_task_without_tokens_has_nothing_to_show() {
    let workplace = Workplace::new();
    workplace.write("table.csv", b"x,y\n1,2\n2,4\n3,6\n4,8\n5,10\n");
    workplace.write(
        "table.toml",
        b"[model]\ntask = \"regression\"\n[data]\ntrain = \"table.csv\"\ntarget = \"y\"\n[output]\ndir = \"run\"\n",
    );
    let outcome = workplace.reparam(&["data", "inspect", "table.toml"]);
    outcome.failed(1, "regression", "");
}

#[test]
fn a_dry_run_says_what_a_run_would_be_and_leaves_nothing() {
    let workplace = Workplace::new();
    examples(&workplace);
    let before = state(&workplace);
    let args = [&["train", "run.toml", "--dry-run", "--json"], &ROWS[..]].concat();
    let found = workplace.reparam(&args).succeeded().json();
    assert_eq!(state(&workplace), before);
    assert!(!workplace.path("run").exists());
    assert_eq!(found["run"]["max_steps"], 2);
    let layers = found["layers"].as_array().expect("a list");
    let of: u64 = layers
        .iter()
        .map(|layer| layer["of"].as_u64().unwrap())
        .sum();
    let adapted: u64 = layers
        .iter()
        .map(|layer| layer["adapted"].as_u64().unwrap())
        .sum();
    let targets = found["run"]["targets"].as_array().expect("names").len() as u64;
    assert_eq!(adapted, targets);
    assert!(of >= adapted && adapted > 0, "{found}");
    assert_eq!(
        kinds(&found),
        ["truncated_rows", "duplicates", "tied_weights"],
        "{found}"
    );
    let measured = &found["measured"];
    for key in [
        "first_step_seconds",
        "second_step_seconds",
        "run_seconds",
        "loss",
    ] {
        assert!(
            measured[key].as_f64().is_some_and(|n| n > 0.0),
            "{key}: {measured}"
        );
    }
    // In text, the same.
    let args = [&["train", "run.toml", "--dry-run"], &ROWS[..]].concat();
    let text = workplace.reparam(&args).succeeded().out;
    for line in [
        "trainable ",
        "layers ",
        "memory ",
        "measured ",
        "time ",
        "warning: ",
    ] {
        assert!(
            text.lines().any(|own| own.starts_with(line)),
            "{line}: {text}"
        );
    }
}

/// A step of a dry run is that of the run, and what a run leaves is not touched.
#[test]
fn a_dry_run_beside_a_run() {
    let workplace = Workplace::new();
    let events = workplace.train(&[]).succeeded();
    drop(events);
    let events = json_lines(&workplace.read_text("run/events.jsonl"));
    let first = events
        .iter()
        .find(|event| event["event"] == "step")
        .expect("a step");
    let before = state(&workplace);
    // The directory is taken, which is an error: one object says it, with all the rest.
    let outcome = workplace.reparam(&["train", "run.toml", "--dry-run", "--json"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let found = outcome.json();
    assert!(
        found["error"]["message"]
            .as_str()
            .unwrap()
            .contains("already holds a run")
    );
    assert_eq!(kinds(&found)[0], "output");
    assert_eq!(found["findings"][0]["severity"], "error");
    outcome.failed(1, "already holds a run", "--force");
    let found = workplace.reparam(&["train", "run.toml", "--dry-run", "--force", "--json"]);
    let found = found.succeeded().json();
    assert_eq!(found["measured"]["loss"], first["loss"]);
    assert_eq!(state(&workplace), before);
}

/// What a run would fail with, a dry run fails with.
#[test]
fn a_dry_run_fails_as_the_run() {
    let workplace = Workplace::new();
    let pattern = "method.target_modules=[\"q_proj\", \"w_proj\"]";
    let mut seen = Vec::new();
    for dry in [&["--dry-run"][..], &[]] {
        let args = [&["train", "run.toml", "--set", pattern], dry].concat();
        let outcome = workplace.reparam(&args);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        seen.push(outcome.err);
    }
    assert_eq!(seen[0], seen[1]);
    workplace.assert_no_run();
}

#[test]
fn a_run_warns_of_what_was_found_before_it() {
    let workplace = Workplace::new();
    examples(&workplace);
    let outcome = workplace.reparam(&[&["train", "run.toml"], &ROWS[..]].concat());
    let text = outcome.succeeded().err;
    let events = json_lines(&workplace.read_text("run/events.jsonl"));
    let warnings = events.iter().filter(|event| event["event"] == "warning");
    let warnings: Vec<&Value> = warnings.collect();
    let kinds: Vec<&str> = warnings
        .iter()
        .filter_map(|one| one["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["truncated_rows", "duplicates"], "{warnings:?}");
    for warning in warnings {
        let message = warning["message"].as_str().expect("a text");
        let hint = warning["hint"].as_str().expect("a hint");
        assert!(
            text.contains(&format!("warning: {message}\nhint: {hint}\n")),
            "{text}"
        );
    }
}
