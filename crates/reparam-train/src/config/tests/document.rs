//! The tables of docs/run-file.md are made from the specs.

use std::fmt::Write as _;
use std::path::Path;

use reparam::methods::{BIAS, EXCLUDE_MODULES, TARGET_MODULES};
use reparam::optim::TransformEntry;
use reparam::schema::{Fallback, SettingKind, SettingSpec};

use super::super::{data, optimizer, text};
use super::*;
use crate::tasks::rows::RowTask;
use crate::tasks::{MaskedKeys, PairKeys, Questions, Sentences, Sequences, VectorKeys, Words};

/// Set to anything, the test writes the tables instead of comparing them.
const REWRITE: &str = "REPARAM_REWRITE_DOCS";

/// A table stands between its name, `<!-- table: NAME -->`, and [`END`].
const BEGIN: &str = "<!-- table: ";
const END: &str = "<!-- end of table -->";

/// The tables of the document, in its order.
const TABLES: [&str; 26] = [
    "model",
    "data",
    "train",
    "rows data",
    "sequence data",
    "token data",
    "question data",
    "embedding data",
    "masked data",
    "pair data",
    "word data",
    "tokenizer",
    "text",
    "regression model",
    "regression data",
    "regression train",
    "stopping",
    "methods",
    "every method",
    "method lora",
    "other methods",
    "update",
    "optimizers",
    "learning rate",
    "transforms",
    "output",
];

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn default_of(spec: &SettingSpec) -> String {
    match spec.fallback {
        Fallback::Required(_) | Fallback::Absent(_) | Fallback::Twice(_) => {
            spec.fallback.to_string()
        }
        _ => format!("`{}`", spec.fallback),
    }
}

fn value_of(spec: &SettingSpec) -> String {
    match spec.kind {
        SettingKind::Text => "text".to_owned(),
        SettingKind::TextByName => "table of texts".to_owned(),
        SettingKind::Texts => "text or a list of texts".to_owned(),
        SettingKind::Flag => "`true` or `false`".to_owned(),
        SettingKind::Word(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word:?}`")).collect();
            words.join(", ")
        }
        kind => cell(&kind.describe()),
    }
}

fn settings<'a>(specs: impl IntoIterator<Item = &'a SettingSpec>) -> String {
    let mut table = "| key | value | default | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for spec in specs {
        let (value, default) = (value_of(spec), cell(&default_of(spec)));
        let meaning = cell(spec.meaning);
        let _ = writeln!(
            table,
            "| `{}` | {value} | {default} | {meaning} |",
            spec.key
        );
    }
    table
}

fn without<'a>(specs: &'a [SettingSpec], others: &'a [SettingSpec]) -> Vec<&'a SettingSpec> {
    let is_other = |spec: &&SettingSpec| others.iter().any(|other| other.key == spec.key);
    specs.iter().filter(|spec| !is_other(spec)).collect()
}

/// The settings of a transform in one cell: those without a default in bold.
fn short(entry: &TransformEntry) -> String {
    let settings: Vec<String> = entry
        .settings
        .iter()
        .map(|spec| match spec.fallback {
            Fallback::Required(_) => format!("**`{}`**", spec.key),
            Fallback::Absent(text) => format!("`{}` ({text})", spec.key),
            _ => format!("`{} = {}`", spec.key, spec.fallback),
        })
        .collect();
    if settings.is_empty() {
        return "-".to_owned();
    }
    settings.join(", ")
}

/// The table of a name.
fn table(name: &str) -> Option<String> {
    let catalog = Catalog::builtin();
    let method = |kind: &str| catalog.methods.get(kind).map(|entry| entry.settings);
    let every = &[TARGET_MODULES, EXCLUDE_MODULES, BIAS];
    Some(match name {
        "model" => settings(ModelConfig::SPECS),
        "data" => settings(data::SPECS),
        "rows data" => settings(RowsDataConfig::<NoKeys>::specs()),
        "sequence data" => settings(<Sequences as RowTask>::Keys::OWN),
        "token data" => settings(<Words as RowTask>::Keys::OWN),
        "pair data" => settings(<PairKeys as RowsKeys>::OWN),
        "word data" => settings(<VectorKeys as RowsKeys>::OWN),
        "tokenizer" => settings(NewModelConfig::TOKENIZER),
        "text" => settings(&text::KEYS),
        "question data" => settings(<Questions as RowTask>::Keys::OWN),
        "embedding data" => settings(<Sentences as RowTask>::Keys::OWN),
        "masked data" => settings(RowsDataConfig::<MaskedKeys>::specs()),
        "train" => settings(without(TrainConfig::SPECS, &StopConfig::SPECS)),
        "stopping" => settings(&StopConfig::SPECS),
        "output" => settings(OutputConfig::SPECS),
        "regression model" => settings(RegressionModelConfig::SPECS),
        "regression data" => settings(TableConfig::SPECS),
        "regression train" => settings(without(RegressionTrainConfig::SPECS, &StopConfig::SPECS)),
        "methods" => {
            let mut table = "| `kind` | effective weight | |\n| --- | --- | --- |\n".to_owned();
            for method in catalog.methods.iter() {
                let formula = cell(method.formula);
                let _ = writeln!(
                    table,
                    "| `\"{}\"` | `{formula}` | {} |",
                    method.kind, method.summary
                );
            }
            table
        }
        "every method" => settings(every),
        "method lora" => settings(without(method("lora")?, every)),
        "other methods" => {
            let mut table =
                "| kind | key | value | default | meaning |\n| --- | --- | --- | --- | --- |\n"
                    .to_owned();
            for entry in catalog.methods.iter().filter(|entry| entry.kind != "lora") {
                // Full training reads the shared keys in its own way.
                let shared: &[SettingSpec] = match entry.kind {
                    "full" => &[EXCLUDE_MODULES],
                    _ => every,
                };
                for spec in without(entry.settings, shared) {
                    let (value, default) = (value_of(spec), cell(&default_of(spec)));
                    let meaning = cell(spec.meaning);
                    let (kind, key) = (entry.kind, spec.key);
                    let _ = writeln!(
                        table,
                        "| `{kind}` | `{key}` | {value} | {default} | {meaning} |"
                    );
                }
            }
            table
        }
        "update" => settings(&optimizer::BEFORE),
        "learning rate" => settings(optimizer::OWN[..1].iter().chain(&SCHEDULE)),
        "optimizers" => {
            let mut table =
                "| kind | formula | settings | learning rate |\n| --- | --- | --- | --- |\n"
                    .to_owned();
            for (entry, optimizer) in catalog.transforms.optimizers() {
                let rate = optimizer.learning_rate;
                let rate = rate.map_or("none".to_owned(), |rate| format!("`{rate:e}`"));
                let (formula, settings) = (cell(entry.formula), short(entry));
                let _ = writeln!(
                    table,
                    "| `{}` | `{formula}` | {settings} | {rate} |",
                    entry.kind
                );
            }
            table
        }
        "transforms" => {
            let mut table = "| kind | formula | settings |\n| --- | --- | --- |\n".to_owned();
            let transforms = catalog.transforms.iter();
            for entry in transforms.filter(|entry| entry.optimizer.is_none()) {
                let (formula, settings) = (cell(entry.formula), short(entry));
                let _ = writeln!(table, "| `{}` | `{formula}` | {settings} |", entry.kind);
            }
            table
        }
        _ => return None,
    })
}

/// The document with every table made anew.
fn with_tables(document: &str) -> String {
    let mut rest = document;
    let mut made = String::new();
    while let Some(begin) = rest.find(BEGIN) {
        let name = &rest[begin + BEGIN.len()..];
        let (name, after) = name.split_once(" -->").expect("a name");
        let (_, after) = after.split_once(END).expect("an end");
        let table = table(name).unwrap_or_else(|| panic!("no table `{name}`"));
        let _ = write!(
            made,
            "{}{BEGIN}{name} -->\n\n{table}\n{END}",
            &rest[..begin]
        );
        rest = after;
    }
    made + rest
}

#[test]
fn the_document_has_the_tables_of_the_specs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/run-file.md");
    let document = std::fs::read_to_string(&path).expect("the document");
    let made = with_tables(&document);
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(&path, made).expect("the document can be written");
        return;
    }
    let differs = document
        .lines()
        .zip(made.lines())
        .find(|(old, new)| old != new);
    assert!(
        document == made,
        "docs/run-file.md differs from the settings, first in {differs:?}; run the test with {REWRITE}=1"
    );
    let parts = document.split(BEGIN).skip(1);
    let names: Vec<&str> = parts
        .filter_map(|part| Some(part.split_once(" -->")?.0))
        .collect();
    assert_eq!(
        names, TABLES,
        "the document has lost a table, or has a new one"
    );
}
