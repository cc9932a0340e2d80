//! A directory to work in, with a small text and a run file, and what a process did there.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::reparam;

/// The root of the repository, where the model and the golden files are.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The built-in model.
pub(crate) fn model() -> String {
    path_text(&repository().join("assets/stories260K"))
}

pub(crate) fn path_text(path: &Path) -> String {
    path.to_str().expect("a UTF-8 path").to_owned()
}

/// What a process did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Outcome {
    pub(crate) fn of(output: std::process::Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Checks the exit code and that an error and a hint say what they should.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, error: &str, hint: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        let (errors, hints) = self.err.split_once("hint: ").unwrap_or((&self.err, ""));
        let errors = &errors[errors.find("error: ").unwrap_or(errors.len())..];
        assert!(errors.contains(error), "{error:?} is not in {:?}", self.err);
        assert!(
            hints.contains(hint),
            "{hint:?} is no hint in {:?}",
            self.err
        );
        assert_eq!(hint.is_empty(), hints.is_empty(), "{:?}", self.err);
        assert!(!self.err.contains("panic"), "{:?}", self.err);
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).expect("one JSON value")
    }

    /// The output as JSON Lines.
    pub(crate) fn events(&self) -> Vec<Value> {
        json_lines(&self.out)
    }
}

pub(crate) fn json_lines(text: &str) -> Vec<Value> {
    assert!(text.ends_with('\n'), "{text:?}");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a JSON value a line"))
        .collect()
}

/// A directory with `train.txt`, `held_out.txt` and `run.toml`.
pub(crate) struct Workplace {
    directory: TempDir,
}

impl Workplace {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let workplace = Self { directory };
        let text = std::fs::read(repository().join("assets/tinyshakespeare.txt")).expect("a text");
        workplace.write("train.txt", &text[..1500]);
        workplace.write("held_out.txt", &text[2000..2600]);
        // A JSON string is a TOML string too.
        let run = format!(
            "[model]\npath = {}\n\n[data]\ntrain = \"train.txt\"\neval = \"held_out.txt\"\n\n\
             [method]\nkind = \"lora\"\nrank = 4\n\n[optimizer]\nlearning_rate = 1e-3\n\n\
             [train]\nmax_steps = 2\nbatch_size = 2\nsequence_length = 32\n\n\
             [output]\ndir = \"run\"\n",
            json!(model())
        );
        workplace.write("run.toml", run.as_bytes());
        workplace
    }

    /// Trains `run.toml` without end, interrupts it after its first step, and returns all events and
    /// what was said on standard error.
    #[cfg(unix)]
    pub(crate) fn interrupt_training(&self) -> (Vec<Value>, String) {
        use std::io::{BufRead as _, BufReader, Read as _};
        use std::process::{Command, Stdio};

        let mut child = Command::new(assert_cmd::cargo::cargo_bin!("reparam"))
            .args(["train", "run.toml", "--json"])
            .args(["--set", "train.max_steps=100000000"])
            .env_clear()
            .current_dir(self.root())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut events: Vec<Value> = Vec::new();
        let mut is_asked = false;
        for line in BufReader::new(child.stdout.take().expect("a pipe")).lines() {
            let event = serde_json::from_str(&line.expect("a line")).expect("JSON");
            events.push(event);
            if !is_asked && events.last().is_some_and(|event| event["event"] == "step") {
                let id = child.id().to_string();
                let status = Command::new("kill").args(["-INT", &id]).status();
                assert!(status.expect("kill").success());
                is_asked = true;
            }
        }
        let mut err = String::new();
        let stderr = child.stderr.as_mut().expect("a pipe");
        stderr.read_to_string(&mut err).expect("text");
        assert_eq!(child.wait().expect("an end").code(), Some(130), "{err}");
        (events, err)
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).expect("a file");
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect(name)
    }

    pub(crate) fn read_text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).expect("UTF-8")
    }

    pub(crate) fn reparam(&self, args: &[&str]) -> Outcome {
        // Nothing here may reach for the network.
        let output = reparam(self.root())
            .env("HF_HUB_OFFLINE", "1")
            .args(args)
            .output()
            .expect("a process");
        Outcome::of(output)
    }

    /// Runs the run file with overrides.
    pub(crate) fn train(&self, overrides: &[&str]) -> Outcome {
        self.train_file("run.toml", overrides)
    }

    pub(crate) fn train_file(&self, file: &str, overrides: &[&str]) -> Outcome {
        let mut args = vec!["train", file];
        for text in overrides {
            args.extend(["--set", text]);
        }
        self.reparam(&args)
    }

    /// A copy of the built-in model to damage.
    pub(crate) fn copy_model(&self, name: &str) -> PathBuf {
        let copy = self.path(name);
        copy_files(Path::new(&model()), &copy);
        copy
    }

    #[track_caller]
    pub(crate) fn assert_no_temporary_files(&self) {
        for path in all_paths(self.root()) {
            let is_temporary = path.extension().is_some_and(|end| end == "tmp");
            assert!(!is_temporary, "{}", path.display());
        }
    }

    /// Checks that nothing was left behind: no adapter and no temporary file; `run` may be there.
    #[track_caller]
    pub(crate) fn assert_nothing_half_written(&self) {
        for path in all_paths(self.root()) {
            let name = path.file_name().expect("a name").to_string_lossy();
            assert!(!name.ends_with(".tmp"), "{}", path.display());
            assert_ne!(name, "adapter", "{}", path.display());
        }
    }

    /// Checks that the failed run has not even begun.
    #[track_caller]
    pub(crate) fn assert_no_run(&self) {
        self.assert_nothing_half_written();
        assert!(!self.path("run").exists());
    }
}

pub(crate) fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

/// Everything below a directory.
pub(crate) fn all_paths(directory: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            paths.extend(all_paths(&path));
        }
        paths.push(path);
    }
    paths
}

/// The tensors of a safetensors file, taken apart by the format's definition.
pub(crate) struct TensorFile {
    pub(crate) tensors: Vec<RawTensor>,
}

pub(crate) struct RawTensor {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

impl TensorFile {
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("a file");
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
        let data = 8 + usize::try_from(length).expect("a length");
        let header: Value = serde_json::from_slice(&bytes[8..data]).expect("a header");
        let tensors = header.as_object().expect("an object").iter();
        let tensors = tensors
            .filter(|(name, _)| *name != "__metadata__")
            .map(|(name, entry)| {
                let offset = |index: usize| {
                    let offset = entry["data_offsets"][index].as_u64().expect("an offset");
                    data + usize::try_from(offset).expect("an offset")
                };
                RawTensor {
                    name: name.clone(),
                    dtype: entry["dtype"].as_str().expect("a dtype").to_owned(),
                    shape: serde_json::from_value(entry["shape"].clone()).expect("a shape"),
                    bytes: bytes[offset(0)..offset(1)].to_vec(),
                }
            })
            .collect();
        Self { tensors }
    }

    pub(crate) fn write(&self, path: &Path) {
        let mut header = serde_json::Map::new();
        let mut data: Vec<u8> = Vec::new();
        for tensor in &self.tensors {
            let start = data.len();
            data.extend(&tensor.bytes);
            header.insert(
                tensor.name.clone(),
                json!({
                    "dtype": tensor.dtype,
                    "shape": tensor.shape,
                    "data_offsets": [start, data.len()],
                }),
            );
        }
        let mut header = Value::Object(header).to_string();
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        std::fs::write(path, bytes).expect("a file");
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut RawTensor {
        let tensor = self.tensors.iter_mut().find(|tensor| tensor.name == name);
        tensor.expect(name)
    }
}
