//! Run files to start from.

use super::*;
use crate::{TaskRun, Tasks};

fn start(model: &str, data: &[&str]) -> Start {
    Start {
        model: Some(model.to_owned()),
        data: data.iter().map(|path| (*path).to_owned()).collect(),
        output: None,
    }
}

fn read(text: &str) -> TaskRun {
    let run = Tasks::builtin().parse(text, "run.toml", &[]);
    run.unwrap_or_else(|error| panic!("{}\n{text}", render(&error)))
}

/// Every task's is read as it is, means what a file of the needed keys alone means, and says the defaults that there are.
#[test]
fn it_is_read_as_it_is_and_its_defaults_are_the_defaults() {
    let tasks = Tasks::builtin();
    let start = start("m", &["a.csv"]);
    for entry in tasks.entries() {
        let text = tasks.template(Some(entry.name), &start).unwrap();
        let resolved = read(&text).to_toml().unwrap();
        let needed = match entry.name {
            "regression" => {
                "[model]\ntask = \"regression\"\n[data]\ntrain = \"a.csv\"\ntarget = \"name\""
                    .to_owned()
            }
            task => format!("[model]\ntask = \"{task}\"\npath = \"m\"\n[data]\ntrain = \"a.csv\""),
        };
        let needed = read(&format!("{needed}\n[output]\ndir = \"runs/m-a\"\n"));
        assert_eq!(resolved, needed.to_toml().unwrap(), "{text}");
        let (mut settings, mut examples, mut defaults) = (0, 0, 0);
        let lines = text.lines().zip(text.lines().skip(1));
        for (meaning, line) in
            lines.filter(|(_, line)| line.starts_with("# ") && line.contains(" = "))
        {
            let Some((key, _)) = line[2..].split_once(" = ") else {
                continue;
            };
            if !key
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            {
                continue;
            }
            settings += 1;
            // Where the default is said beside it, the value is an example.
            examples += usize::from(meaning.contains("(default: "));
            let live = text.replace(line, &line[2..]);
            match tasks.parse(&live, "run.toml", &[]) {
                Ok(run) => defaults += usize::from(run.to_toml().unwrap() == resolved),
                // An example may clash with another key, but it is one of the key's values.
                Err(error) => assert!(
                    matches!(
                        error.kind(),
                        ConfigErrorKind::Conflict { .. }
                            | ConfigErrorKind::NoEffect { .. }
                            | ConfigErrorKind::NotApplicable { .. }
                    ),
                    "{line}: {}",
                    render(&error)
                ),
            }
        }
        assert!(
            settings > 15 && 2 * defaults >= settings - examples,
            "{settings} {examples} {defaults}\n{text}"
        );
    }
}

#[test]
fn what_is_given_is_in_it() {
    let tasks = Tasks::builtin();
    let mut start = start("models/a \"b\"", &["x.jsonl", "y.txt"]);
    start.output = Some("here".to_owned());
    let run = read(&tasks.template(None, &start).unwrap());
    let config = run.config::<RunConfig>().unwrap();
    assert_eq!(config.model.name(), "models/a \"b\"");
    assert_eq!(
        config.data.train,
        ["x.jsonl", "y.txt"].map(std::path::PathBuf::from)
    );
    assert_eq!(run.output(), Path::new("here"));
    assert!(tasks.template(Some("nope"), &start).is_err());
    let text = tasks.template(None, &Start::default()).unwrap();
    assert!(read(&text).config::<RunConfig>().is_some());
}

#[test]
fn a_run_is_named_after_its_model_and_its_data() {
    for (model, data, name) in [
        (
            "assets/stories260K/",
            &["d/tiny.txt"][..],
            "stories260K-tiny",
        ),
        ("org/Model-1.5B", &["a.b.jsonl", "c"], "Model-1.5B-a.b"),
        ("../..", &["*.csv"], "*"),
        ("m", &["texts/"], "m-texts"),
    ] {
        let expected = name.replace('*', "run");
        assert_eq!(start(model, data).name(), expected);
    }
    assert_eq!(Start::default().name(), "run");
}
