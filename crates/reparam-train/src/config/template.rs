//! A run file to start from, made from the settings: the common keys live, the others commented out.

use std::fmt::Write as _;

use reparam::schema::{Fallback, Range, SettingKind, SettingSpec, SettingValue};

use super::defaults::{MethodDefaults, OptimizerDefaults};
use super::suggest::Layout;
use super::{Catalog, OutputConfig, SCHEDULE, optimizer, read};

/// What the run file of a task may say.
#[derive(Debug, Clone)]
pub struct RunKeys {
    /// Of `[model]`, `[data]` and `[train]`.
    pub(super) own: [Vec<&'static SettingSpec>; 3],
    /// `[method]` where it says nothing.
    pub(super) method: MethodDefaults,
    /// `[optimizer]` where it says nothing.
    pub(super) optimizer: OptimizerDefaults,
}

/// What a run file is made for; what is left open is an example.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Start {
    /// `path` of `[model]`.
    pub model: Option<String>,
    /// `train` of `[data]`.
    pub data: Vec<String>,
    /// `dir` of `[output]`.
    pub output: Option<String>,
}

impl Start {
    /// Returns a name for the run: the last parts of the model's and the data's paths, of letters, digits, `.`, `_` and `-`.
    #[must_use]
    pub fn name(&self) -> String {
        fn last(path: &str) -> &str {
            let path = path.trim_end_matches(['/', '\\']);
            path.rsplit(['/', '\\']).next().unwrap_or(path)
        }
        let plain = |name: &str| {
            let kept = |c: char| c.is_alphanumeric() || "._-".contains(c);
            let name: String = name
                .chars()
                .map(|c| if kept(c) { c } else { '-' })
                .collect();
            name.trim_matches(['.', '-']).to_owned()
        };
        let model = self.model.as_deref().map(|path| plain(last(path)));
        let data = self.data.first().map(|path| {
            let name = last(path);
            plain(name.rsplit_once('.').map_or(name, |(stem, _)| stem))
        });
        let parts = model.into_iter().chain(data);
        let parts: Vec<String> = parts.filter(|part| !part.is_empty()).collect();
        match parts.is_empty() {
            true => "run".to_owned(),
            false => parts.join("-"),
        }
    }
}

/// The keys that are live beside those that have no default.
const COMMON: [(&str, &str); 10] = [
    ("model", "task"),
    ("model", "kind"),
    ("method", "kind"),
    ("method", "rank"),
    ("optimizer", "kind"),
    ("optimizer", "learning_rate"),
    ("train", "epochs"),
    ("train", "batch_size"),
    ("train", "sequence_length"),
    ("train", "max_steps"),
];

/// An example of a model, where none is given.
const MODEL: &str = "HuggingFaceTB/SmolLM2-135M";

const HEAD: &str = "\
# A run file of `reparam train`. A key that is commented out has the value shown, or the default said beside it.
# docs/run-file.md explains every key, `reparam methods` lists methods and optimizers with their settings.
";

impl RunKeys {
    /// Returns all keys by section.
    pub(super) fn layout(&self, catalog: &Catalog) -> Layout {
        let keys = |specs: &[&'static SettingSpec]| specs.iter().map(|spec| spec.key).collect();
        let [model, data, train] = &self.own;
        let methods = catalog.methods.iter().map(|spec| spec.settings);
        let mut method = vec!["kind"];
        method.extend(read::keys_of_kinds(methods));
        vec![
            ("model", keys(model)),
            ("data", keys(data)),
            ("method", method),
            ("optimizer", super::OptimizerConfig::keys(catalog)),
            ("train", keys(train)),
            (
                "output",
                OutputConfig::SPECS.iter().map(|spec| spec.key).collect(),
            ),
        ]
    }

    /// Returns the section that has a key.
    pub(crate) fn section_of(&self, catalog: &Catalog, key: &str) -> Option<&'static str> {
        super::suggest::home_of(&self.layout(catalog), key)
    }

    /// Returns whether a section has a key.
    pub(crate) fn has(&self, catalog: &Catalog, section: &str, key: &str) -> bool {
        super::suggest::keys(&self.layout(catalog), section).contains(&key)
    }

    /// Returns a run file of a task with every key that applies by default.
    pub(crate) fn template(&self, catalog: &Catalog, task: &str, start: &Start) -> String {
        let [model, data, train] = &self.own;
        let known = |specs: &'static [SettingSpec]| specs.iter().collect::<Vec<_>>();
        let (methods, transforms) = (&catalog.methods, &catalog.transforms);
        let method = methods.get(self.method.kind);
        let method = method.map_or(&[][..], |spec| spec.settings);
        let chosen = transforms.find(self.optimizer.kind);
        let algorithm = chosen.map_or(&[][..], |entry| entry.settings);
        let rate = self.optimizer.learning_rate.or_else(|| {
            let mut optimizers = transforms.optimizers();
            let own = optimizers.find(|(entry, _)| entry.kind == self.optimizer.kind);
            own.and_then(|(_, optimizer)| optimizer.learning_rate)
        });
        let mut text = HEAD.to_owned();
        let section = |name: &'static str, specs: &[&'static SettingSpec]| {
            let mut lines = Lines {
                text: String::new(),
                name,
                before: Vec::new(),
            };
            for spec in specs {
                let given = match (name, spec.key) {
                    ("model", "task") => Some(SettingValue::Word(task.to_owned())),
                    ("model", "path") => {
                        let model = start.model.as_deref().unwrap_or(MODEL);
                        Some(SettingValue::Word(model.to_owned()))
                    }
                    ("data", "train") if !start.data.is_empty() => Some(files(&start.data)),
                    ("output", "dir") => {
                        let named = || format!("runs/{}", start.name());
                        Some(SettingValue::Word(
                            start.output.clone().unwrap_or_else(named),
                        ))
                    }
                    // As it is read: a setting that is absent by default is not given by a task either.
                    ("method", "bias") if !matches!(spec.fallback, Fallback::Absent(_)) => {
                        Some(SettingValue::Word(self.method.bias.to_owned()))
                    }
                    ("optimizer", "learning_rate") => rate.map(SettingValue::Number),
                    ("optimizer", "clip_grad_norm") => {
                        Some(SettingValue::Number(self.optimizer.clip_grad_norm))
                    }
                    _ => None,
                };
                lines.setting(spec, given);
            }
            lines.text
        };
        let kind = |kind: &str, kinds: Vec<&str>| {
            let others: Vec<&str> = kinds.into_iter().filter(|one| *one != kind).collect();
            format!("# Others: {}\nkind = \"{kind}\"\n", others.join(", "))
        };
        let kinds = methods.iter().map(|spec| spec.kind).collect();
        let optimizers = transforms
            .optimizers()
            .map(|(entry, _)| entry.kind)
            .collect();
        let update = [
            &optimizer::OWN[..1],
            algorithm,
            &optimizer::BEFORE,
            &SCHEDULE,
        ];
        let update: Vec<&SettingSpec> = update.into_iter().flatten().collect();
        let parts = [
            ("model", String::new(), section("model", model)),
            ("data", String::new(), section("data", data)),
            (
                "method",
                kind(self.method.kind, kinds),
                section("method", &known(method)),
            ),
            (
                "optimizer",
                kind(self.optimizer.kind, optimizers),
                section("optimizer", &update),
            ),
            ("train", String::new(), section("train", train)),
            (
                "output",
                String::new(),
                section("output", &known(OutputConfig::SPECS)),
            ),
        ];
        for (name, first, settings) in parts {
            let _ = write!(text, "\n[{name}]\n{first}{settings}");
        }
        text
    }
}

/// The lines of one section.
struct Lines {
    text: String,
    name: &'static str,
    /// The values of the settings so far.
    before: Vec<(String, SettingValue)>,
}

impl Lines {
    fn setting(&mut self, spec: &SettingSpec, given: Option<SettingValue>) {
        let is_needed = match spec.fallback {
            Fallback::Required(_) => true,
            // Of keys that exclude each other none is required by itself.
            Fallback::Absent(otherwise) => otherwise.starts_with("required"),
            _ => false,
        };
        let default = spec.default_value(&self.before);
        let is_common =
            COMMON.contains(&(self.name, spec.key)) && (given.is_some() || default.is_some());
        let value = given.or(default);
        self.before
            .extend(value.clone().map(|value| (spec.key.to_owned(), value)));
        let value = match (&value, spec.fallback) {
            (Some(value), _) => written(value),
            (None, Fallback::Required(example)) => Some(example.to_owned()),
            (None, _) => example(spec),
        };
        // What cannot be written in a line has no example.
        let Some(value) = value else { return };
        let mark = if is_needed || is_common { "" } else { "# " };
        let mut meaning = spec.meaning.to_owned();
        if let SettingKind::Word(words) = spec.kind {
            let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
            let _ = write!(meaning, " [{}]", words.join(", "));
        }
        match spec.fallback {
            Fallback::Absent(otherwise) if !is_needed && !is_common && !otherwise.is_empty() => {
                let _ = write!(meaning, " (default: {otherwise})");
            }
            Fallback::Twice(_) => {
                let _ = write!(meaning, " (default: {})", spec.fallback);
            }
            _ => {}
        }
        let _ = writeln!(self.text, "# {meaning}\n{mark}{} = {value}", spec.key);
    }
}

fn files(paths: &[String]) -> SettingValue {
    match paths {
        [one] => SettingValue::Word(one.clone()),
        many => SettingValue::Texts(many.to_vec()),
    }
}

/// A value as TOML in one line.
fn written(value: &SettingValue) -> Option<String> {
    Some(match value {
        // As people write it: 1e-8.
        SettingValue::Number(x) if *x != 0.0 && x.abs() < 1e-3 => format!("{x:e}"),
        value => toml::Value::try_from(value).ok()?.to_string(),
    })
}

/// A value that a setting without a default may have.
fn example(spec: &SettingSpec) -> Option<String> {
    Some(match spec.kind {
        SettingKind::Number(Range::Negative) => "-0.8".to_owned(),
        SettingKind::Number(_) | SettingKind::WordOrNumber(..) => "0.1".to_owned(),
        SettingKind::Numbers(_) => "[1.0]".to_owned(),
        SettingKind::Count { least, .. } => least.max(1).to_string(),
        SettingKind::Counts { least, .. } => format!("[{}]", least.max(1)),
        SettingKind::Flag => "true".to_owned(),
        SettingKind::Word(words) => format!("{:?}", words.first()?),
        SettingKind::Text if spec.key == "train" => "\"table.csv\"".to_owned(),
        SettingKind::Text if spec.key == "template" => {
            r#""Question: {question}\nAnswer: {answer}""#.to_owned()
        }
        SettingKind::Text if spec.key == "chat_template" => "\"chatml\"".to_owned(),
        SettingKind::Text | SettingKind::Pattern => "\"name\"".to_owned(),
        SettingKind::Texts | SettingKind::Modules { .. } => "[\"name\"]".to_owned(),
        SettingKind::CountByPattern { .. } => "{ q_proj = 8 }".to_owned(),
        SettingKind::NumberByPattern(_) => "{ q_proj = 16.0 }".to_owned(),
        SettingKind::WordOrNumberByName(words, _) => format!("{:?}", words.first()?),
        _ => return None,
    })
}
