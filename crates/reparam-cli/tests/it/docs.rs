//! The console blocks of README and docs are run as they stand, and what they show is compared.
//!
//! Each document has a directory of its own, with the repository's `assets` and `examples`. Times, speeds, sizes of memory and the
//! last digits of other numbers may differ. A line `...` in a block stands for any lines, and `...` at the end of a line for its
//! rest; of a command that shows nothing, only success is asked. A comment before a block says what is special about it:
//!
//! - `<!-- console: needs Python -->`: it is not run, for want of one of [`NEEDS`].
//! - `<!-- console: after COMMAND -->`: the command is run before it.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

use crate::support::repository;

/// What a block may need that tests do not have.
const NEEDS: [&str; 4] = ["the network", "a GPU", "a large model", "Python"];

const MARKER: &str = "<!-- console: ";

/// A console block of a document.
#[derive(Debug, Default)]
struct Block {
    /// Where it begins.
    line: usize,
    text: String,
    needs: Option<String>,
    after: Option<String>,
}

/// A command with what it shows.
#[derive(Debug, Default, PartialEq)]
struct Shown {
    command: String,
    lines: Vec<String>,
}

impl Block {
    /// The blocks of a document; an error says which line has a comment that means nothing.
    fn all(document: &str) -> Result<Vec<Self>, String> {
        let mut blocks = Vec::new();
        let mut next = Self::default();
        let mut lines = document.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            let at = index + 1;
            let indent = line.len() - line.trim_start().len();
            let line = &line[indent..];
            if let Some(marker) = line.strip_prefix(MARKER) {
                let marker = marker.strip_suffix(" -->").unwrap_or(marker);
                match (marker.strip_prefix("needs "), marker.strip_prefix("after ")) {
                    (Some(need), _) if NEEDS.contains(&need) => next.needs = Some(need.to_owned()),
                    (_, Some(command)) => next.after = Some(command.to_owned()),
                    _ => return Err(format!("line {at}: `{marker}` means nothing")),
                }
            } else if line == "```console" {
                next.line = at;
                let inside = lines
                    .by_ref()
                    .map(|(_, line)| line.get(indent..).unwrap_or(""));
                for line in inside.take_while(|line| *line != "```") {
                    next.text += line;
                    next.text.push('\n');
                }
                blocks.push(std::mem::take(&mut next));
            } else if !line.is_empty() && (next.needs.is_some() || next.after.is_some()) {
                return Err(format!(
                    "line {at}: a comment about a console block, and none follows"
                ));
            }
        }
        Ok(blocks)
    }

    /// The commands, which begin with `$ ` and go on after a backslash.
    fn commands(&self) -> Vec<Shown> {
        let mut all: Vec<Shown> = Vec::new();
        let mut lines = self.text.lines();
        while let Some(line) = lines.next() {
            let Some(command) = line.strip_prefix("$ ") else {
                let last = all.last_mut().expect("a command before its output");
                last.lines.push(line.trim_end().to_owned());
                continue;
            };
            let mut command = command.to_owned();
            while command.ends_with('\\') {
                command.push('\n');
                command += lines.next().unwrap_or_default();
            }
            all.push(Shown {
                command,
                lines: Vec::new(),
            });
        }
        all
    }
}

/// What of a line may differ from run to run, made equal.
struct Plain {
    measured: Regex,
    number: Regex,
}

impl Plain {
    fn new() -> Self {
        let measured = r"(?x)
            \b([0-9]+h\x20)?[0-9]+m\x20[0-9]{2}s\b
            | \b[0-9][0-9,]*(\.[0-9]+)?(e-?[0-9]+)?\x20?(s|ms|[KMGT]i?B|GFLOP/s|[a-z]+/s)\b
            | \x22(time|seconds|load_seconds|per_second|tokens_per_s|peak_rss_bytes)\x22:[^,}]*
            | \b20[0-9]{2}-[0-9]{2}-[0-9]{2}[T\x20][0-9:.]+Z?";
        Self {
            measured: Regex::new(measured).expect("a pattern"),
            number: Regex::new(r"[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?").expect("a pattern"),
        }
    }

    fn line(&self, line: &str) -> String {
        let line = self.measured.replace_all(line, "<measured>");
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Whether two lines say the same: the words exactly, numbers with a fraction about.
    fn agree(&self, shown: &str, said: &str) -> bool {
        let (shown, said) = (self.line(shown), self.line(said));
        let (shown, said) = match shown.strip_suffix("...") {
            // As many words as there are before it, and anything after.
            Some(start) => {
                let words = start.split_whitespace().count();
                let said: Vec<&str> = said.split_whitespace().take(words).collect();
                (start.trim_end().to_owned(), said.join(" "))
            }
            None => (shown, said),
        };
        let words = |line: &str| self.number.replace_all(line, "0").into_owned();
        let numbers = |line: &str| -> Vec<String> {
            let found = self.number.find_iter(line);
            found.map(|number| number.as_str().to_owned()).collect()
        };
        words(&shown) == words(&said)
            && numbers(&shown)
                .iter()
                .zip(&numbers(&said))
                .all(|(a, b)| about(a, b))
    }

    /// Whether the lines that a command printed are those that are shown.
    fn all_agree(&self, shown: &[String], said: &[String]) -> bool {
        match shown.split_first() {
            None => said.is_empty(),
            Some((line, rest)) if line == "..." => {
                (0..=said.len()).any(|skipped| self.all_agree(rest, &said[skipped..]))
            }
            Some((line, rest)) => said.split_first().is_some_and(|(first, others)| {
                self.agree(line, first) && self.all_agree(rest, others)
            }),
        }
    }
}

/// Whole numbers are equal; of others three digits, for instruction sets round differently and a run adds that up.
fn about(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let is_whole = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (Ok(x), Ok(y)) = (a.parse::<f64>(), b.parse::<f64>()) else {
        return false;
    };
    let decimals = a.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let last_digit = 10_f64.powi(-i32::try_from(decimals).expect("few digits"));
    let most = f64::max(
        1e-3 * x.abs(),
        if a.contains('e') { 0.0 } else { last_digit },
    );
    !is_whole(a) && (x - y).abs() <= most * 1.000_001
}

/// A directory in which a document's commands are run.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let link = |target: &Path, name: &str| {
            std::os::unix::fs::symlink(target, directory.path().join(name)).expect("a link");
        };
        let repository = repository().canonicalize().expect("the repository");
        for name in ["assets", "examples"] {
            link(&repository.join(name), name);
        }
        std::fs::create_dir(directory.path().join(".bin")).expect("a directory");
        link(assert_cmd::cargo::cargo_bin!("reparam"), ".bin/reparam");
        Self { directory }
    }

    /// Runs a command, and returns whether it succeeded with the lines of both its streams.
    fn run(&self, command: &str) -> (bool, Vec<String>) {
        let output = Command::new("bash")
            .args(["-c", &format!("exec 2>&1\n{command}")])
            .current_dir(self.directory.path())
            .env_clear()
            .env(
                "PATH",
                format!("{}/.bin:/usr/bin:/bin", self.directory.path().display()),
            )
            .env("HF_HUB_OFFLINE", "1")
            .env("REPARAM_THREADS", "2")
            .output()
            .expect("a shell");
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text.lines().map(|line| line.trim_end().to_owned());
        (output.status.success(), lines.collect())
    }
}

fn documents() -> Vec<PathBuf> {
    let root = repository();
    let docs = std::fs::read_dir(root.join("docs")).expect("docs");
    let docs = docs.map(|entry| entry.expect("an entry").path());
    let mut all: Vec<PathBuf> = docs
        .filter(|path| path.extension() == Some("md".as_ref()))
        .collect();
    all.extend(["README.md", "README.zh-CN.md"].map(|name| root.join(name)));
    all.sort();
    all
}

#[test]
fn the_documents_show_what_the_program_does() {
    let plain = Plain::new();
    let (mut done, mut skipped) = (HashSet::new(), BTreeMap::new());
    let (mut run, mut same) = (0, 0);
    let mut wrong = String::new();
    for path in documents() {
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let document = std::fs::read_to_string(&path).expect("a document");
        let blocks = Block::all(&document).unwrap_or_else(|error| panic!("{name}, {error}"));
        let place = Place::new();
        for block in blocks {
            if let Some(need) = block.needs {
                *skipped.entry(need).or_insert(0) += 1;
                continue;
            }
            // The two READMEs share blocks, and what is before them.
            if !done.insert((block.text.clone(), block.after.clone())) {
                same += 1;
                continue;
            }
            run += 1;
            if let Some(command) = &block.after {
                let (succeeded, said) = place.run(command);
                assert!(succeeded, "{name}: {command}: {said:?}");
            }
            for shown in block.commands() {
                let (succeeded, said) = place.run(&shown.command);
                let is_right = match shown.lines.is_empty() {
                    true => succeeded,
                    false => plain.all_agree(&shown.lines, &said),
                };
                if !is_right {
                    let (line, command) = (block.line, &shown.command);
                    let _ = writeln!(wrong, "{name}:{line}: $ {command}");
                    for (mark, lines) in [("shown", &shown.lines), ("said", &said)] {
                        let _ = writeln!(wrong, "  {mark}:\n    {}", lines.join("\n    "));
                    }
                }
            }
        }
    }
    let needs: Vec<String> = skipped
        .iter()
        .map(|(need, n)| format!("{n} need {need}"))
        .collect();
    println!(
        "{run} console blocks run, {same} the same again, skipped: {}",
        needs.join(", ")
    );
    assert!(run >= 8, "{run}");
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn blocks_and_comments_are_found() {
    let text = "a\n\n<!-- console: needs Python -->\n\n```console\n$ python x \\\n    --y\nz\n...\n$ q\n```\nb\n   ```console\n   $ i\n   j\n   ```\n```toml\n$ no\n```\n\
                <!-- console: after x -->\n```console\n$ c\n```\n";
    let blocks = Block::all(text).unwrap();
    assert_eq!(blocks.len(), 3);
    assert_eq!(blocks[1].text, "$ i\nj\n");
    assert_eq!(
        (blocks[0].line, blocks[0].needs.as_deref()),
        (5, Some("Python"))
    );
    assert_eq!(
        (blocks[2].needs.as_deref(), blocks[2].after.as_deref()),
        (None, Some("x"))
    );
    let commands = blocks[0].commands();
    assert_eq!(commands[0].command, "python x \\\n    --y");
    assert_eq!(commands[0].lines, ["z", "..."]);
    assert_eq!(
        (commands[1].command.as_str(), commands[1].lines.len()),
        ("q", 0)
    );
    assert!(Block::all("<!-- console: needs luck -->\n```console\n```\n").is_err());
    assert!(Block::all("<!-- console: needs Python -->\ntext\n").is_err());
}

#[test]
fn what_may_differ_is_what_was_measured() {
    let plain = Plain::new();
    for (shown, said, agree) in [
        (
            "step 5/9  loss 1.2345  12.3s",
            "step 5/9  loss 1.2346  4m 05s",
            true,
        ),
        (
            "step 5/9  loss 1.2345  12.3s",
            "step 6/9  loss 1.2345  12.3s",
            false,
        ),
        ("loss 1.2345", "loss 1.3345", false),
        (
            "tokens 692,010 at 12 tokens/s",
            "tokens 692,010 at 1,344 tokens/s",
            true,
        ),
        ("tokens 692,010", "tokens 692,011", false),
        (
            "gradient 3.681e-9  ...",
            "gradient 3.682e-9  update 1  5 rows/s",
            true,
        ),
        ("gradient 3.681e-9", "gradient 3.681e-8", false),
        ("memory 1.0 GB", "memory 12 MiB", true),
        ("memory 1.0 GB", "memory", false),
        (
            "{\"loss\":2.4266084806820665,\"seconds\":1.5}",
            "{\"loss\":2.42660848,\"seconds\":9}",
            true,
        ),
        ("{\"loss\":2.4266084806820665}", "{\"loss\":2.5}", false),
        ("hint: write this", "hint: write that", false),
        ("a  b", "a b", true),
    ] {
        assert_eq!(plain.agree(shown, said), agree, "{shown} | {said}");
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    for (shown, said, agree) in [
        ("a\n...\nb", "a\nx\ny\nb", true),
        ("a\n...\nb", "a\nb", true),
        ("a\n...", "a", true),
        ("a\n...\nb", "a\nx\nb\nc", false),
        ("a", "a\nb", false),
        ("a\nb", "a", false),
        ("", "", true),
        ("", "a", false),
    ] {
        assert_eq!(
            plain.all_agree(&lines(shown), &lines(said)),
            agree,
            "{shown} | {said}"
        );
    }
}
