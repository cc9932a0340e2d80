//! Written and read again, and texts of all sorts.
//!
//! Random run files are drawn from the specs of their settings, so that a new setting is tested with
//! the others.

use proptest::prelude::*;
use reparam::schema::{SettingSpec, draws};

use super::super::optimizer;
use super::*;
use crate::{TaskRun, Tasks};

/// A source of draws.
type Draw<'a> = &'a mut dyn FnMut(u64) -> u64;

/// A run file as a table of tables.
struct Document(Vec<(String, Chosen)>);

impl Document {
    fn section(&mut self, name: &str) -> &mut Chosen {
        let place = self.0.iter().position(|(section, _)| section == name);
        let place = place.unwrap_or_else(|| {
            self.0.push((name.to_owned(), Chosen::new("")));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }

    /// Puts random valid values of settings into a section.
    fn draw(&mut self, section: &str, kind: &str, specs: &[SettingSpec], draw: Draw<'_>) {
        let drawn = Chosen::sample(kind, specs, draw);
        let section = self.section(section);
        if !kind.is_empty() {
            section
                .settings
                .push(("kind".into(), SettingValue::Word(kind.into())));
        }
        section.settings.extend(drawn.settings);
    }

    fn remove(&mut self, section: &str, key: &str) -> bool {
        let settings = &mut self.section(section).settings;
        let before = settings.len();
        settings.retain(|(name, _)| name != key);
        settings.len() < before
    }

    fn text(&self) -> String {
        let sections = self.0.iter();
        let sections =
            sections.map(|(name, own)| (name.clone(), SettingValue::Table(own.settings.clone())));
        toml::to_string(&SettingValue::Table(sections.collect())).expect("TOML")
    }
}

fn pick<'a, T>(list: &'a [T], draw: Draw<'_>) -> &'a T {
    &list[draw(list.len() as u64) as usize]
}

/// A random run file; what excludes each other may both be there.
fn document(task: &str, specs: [&[SettingSpec]; 3], draw: Draw<'_>) -> Document {
    let catalog = Catalog::builtin();
    let mut document = Document(Vec::new());
    for (section, specs) in ["model", "data", "train"].into_iter().zip(specs) {
        document.draw(section, "", specs, draw);
    }
    document.remove("model", "task");
    let task = ("task".to_owned(), SettingValue::Word(task.to_owned()));
    document.section("model").settings.push(task);
    document.draw("output", "", OutputConfig::SPECS, draw);
    let methods: Vec<_> = catalog.methods.iter().collect();
    let method = pick(&methods, draw);
    document.draw("method", method.kind, method.settings, draw);
    document.draw("optimizer", "", &optimizer::BEFORE, draw);
    document.draw("optimizer", "", &SCHEDULE, draw);
    if draw(2) == 0 {
        let optimizers: Vec<_> = catalog.transforms.optimizers().collect();
        let (entry, _) = pick(&optimizers, draw);
        document.draw("optimizer", entry.kind, entry.settings, draw);
    } else {
        // One of a kind, or none: which orders are lawful is another test's subject.
        let all: Vec<_> = catalog.transforms.iter().collect();
        let one = pick(&all, draw);
        let mut one = Chosen::sample(one.kind, one.settings, draw);
        for (_, value) in &mut one.settings {
            if let SettingValue::Chain(inner) = value {
                inner.push(Chosen::new("adam"));
            }
        }
        let chain = if draw(4) == 0 { Vec::new() } else { vec![one] };
        let chain = ("transforms".to_owned(), SettingValue::Chain(chain));
        document.section("optimizer").settings.push(chain);
    }
    document
}

/// Reads a random run file. A key that an error calls superfluous is left out, and one that it calls missing
/// is added as its example shows: then the file can be read.
fn read(mut document: Document) -> Result<TaskRun, String> {
    loop {
        let text = document.text();
        let error = match Tasks::builtin().parse(&text, "run.toml", &[]) {
            Ok(config) => return Ok(config),
            Err(error) => error,
        };
        let is_mended = match error.kind() {
            ConfigErrorKind::NoEffect { section, key, .. }
            | ConfigErrorKind::Conflict { section, key, .. }
            | ConfigErrorKind::NotApplicable { section, key, .. } => document.remove(section, key),
            ConfigErrorKind::OutOfRange { key, .. } => {
                key == "warmup_steps" && document.remove("optimizer", key)
            }
            ConfigErrorKind::Transforms { .. } => document.remove("optimizer", "transforms"),
            // Names that are drawn at random are those of no row.
            ConfigErrorKind::Data { .. } => {
                let mut keys =
                    ["template", "fields", "chat_template", "weights", "format"].into_iter();
                keys.any(|key| document.remove("data", key))
            }
            ConfigErrorKind::MissingKey {
                section,
                key,
                example,
                ..
            } => {
                let value = match example.parse() {
                    Ok(number) => SettingValue::Number(number),
                    Err(_) => SettingValue::Word(example.trim_matches('"').to_owned()),
                };
                let settings = &mut document.section(section).settings;
                settings.push((key.clone(), value));
                true
            }
            _ => false,
        };
        if !is_mended {
            return Err(format!("{}\n{text}", render(&error)));
        }
    }
}

proptest! {
    /// What is written as TOML reads back equal, floats to the last bit.
    #[test]
    fn resolved_configuration_reads_back_equal(seed: u64) {
        let specs = [ModelConfig::SPECS, super::super::data::SPECS, TrainConfig::SPECS];
        let read = read(document("causal-lm", specs, &mut draws(seed)));
        prop_assert!(read.is_ok(), "{}", read.unwrap_err());
        let run = read.unwrap();
        let config = run.config::<RunConfig>().unwrap();
        let text = config.to_toml().unwrap();
        let again = parse(&text);
        prop_assert!(again.is_ok(), "{}\n{text}", render(&again.unwrap_err()));
        prop_assert_eq!(&again.unwrap(), config);
    }

    /// The same of a regression's.
    #[test]
    fn resolved_regression_reads_back_equal(seed: u64) {
        let specs = [
            RegressionModelConfig::SPECS,
            TableConfig::SPECS,
            RegressionTrainConfig::SPECS,
        ];
        let read = read(document("regression", specs, &mut draws(seed)));
        prop_assert!(read.is_ok(), "{}", read.unwrap_err());
        let run = read.unwrap();
        let config = run.config::<RegressionConfig>().unwrap();
        let text = config.to_toml().unwrap();
        let again = Tasks::builtin().parse(&text, "run.toml", &[]);
        prop_assert!(again.is_ok(), "{}\n{text}", render(&again.unwrap_err()));
        let again = again.unwrap();
        prop_assert_eq!(again.config::<RegressionConfig>(), Some(config));
    }

    /// No text can panic the reader, and every error can be drawn.
    #[test]
    fn any_text_is_read_or_refused(
        text in "(\\[(model|data|method|optimizer|train|output)\\]\r?\n|[a-z_]{1,5}|rank|alpha|[={}\\[\\]\"'., \n#]|[0-9]{1,3}|\\PC){0,24}"
    ) {
        if let Err(error) = parse(&text) {
            render(&error);
        }
    }

    /// No override can panic the reader either.
    #[test]
    fn any_override_is_taken_or_refused(
        text in "(train|method|model|rank|[.={}\\[\\]\"' \n#]|[0-9]{1,3}|\\PC){0,12}"
    ) {
        if let Err(error) = RunConfig::parse(MINIMAL, "run.toml", &[Override::set(text)]) {
            render(&error);
        }
    }
}
