//! Reading, refusing and writing run files.

mod document;
mod elsewhere;
mod errors;
mod regression;
mod round_trip;
mod template;
mod update;

use reparam::schema::{Chosen, SettingValue, TargetModules};
use reparam_data::chat::Turns;
use reparam_data::{Format, OnError, PackingStrategy, TooLong};

use super::data::CacheChoice;

use super::*;

const MINIMAL: &str = "\
[model]
path = \"assets/stories260K\"
[data]
train = \"data.txt\"
[output]
dir = \"runs/a\"
";

fn parse(text: &str) -> Result<RunConfig, ConfigError> {
    RunConfig::parse(text, "run.toml", &[])
}

fn method(config: &RunConfig) -> &MethodConfig {
    config.method.as_ref().expect("there is no adapter")
}

/// The value of a setting of the method.
fn setting<'a>(config: &'a RunConfig, key: &str) -> &'a SettingValue {
    let value = method(config).get(key);
    value.unwrap_or_else(|| panic!("{key}"))
}

/// The minimal file with `lines` in `section`.
fn with(section: &str, lines: &str) -> String {
    let header = format!("[{section}]\n");
    if MINIMAL.contains(&header) {
        MINIMAL.replace(&header, &format!("{header}{lines}\n"))
    } else {
        format!("{MINIMAL}{header}{lines}\n")
    }
}

/// The error as the program renders it.
fn render(error: &ConfigError) -> String {
    let mut text = format!("error: {}", error.kind());
    if let Some(location) = error.location() {
        text += &format!("\n{location}");
    }
    if let Some(hint) = error.hint() {
        text += &format!("\nhint: {hint}");
    }
    text
}

fn rendered(text: &str) -> String {
    render(&parse(text).expect_err(text))
}

fn rendered_set(overrides: &[&str]) -> String {
    let overrides: Vec<Override> = overrides.iter().map(|o| Override::set(*o)).collect();
    render(&RunConfig::parse(MINIMAL, "run.toml", &overrides).expect_err("an error"))
}

fn set(text: &str, overrides: &[&str]) -> RunConfig {
    let overrides: Vec<Override> = overrides.iter().map(|o| Override::set(*o)).collect();
    RunConfig::parse(text, "run.toml", &overrides).expect("a valid configuration")
}

#[test]
fn defaults() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.model.name(), "assets/stories260K");
    assert_eq!(config.model.revision, None);
    assert_eq!(config.data.train, [std::path::PathBuf::from("data.txt")]);
    assert_eq!(config.data.eval, EvalData::Fraction(0.05));
    assert_eq!(config.data.eval_max, Some(100_000));
    assert_eq!(config.data.packing, PackingStrategy::BestFitDecreasing);
    assert!(config.data.shuffle);
    assert_eq!(method(&config).kind, "lora");
    assert_eq!(setting(&config, "rank"), &SettingValue::Count(16));
    assert_eq!(setting(&config, "alpha"), &SettingValue::Number(32.0));
    assert_eq!(
        setting(&config, "target_modules"),
        &SettingValue::Modules(TargetModules::AllLinear)
    );
    assert_eq!(method(&config).get("layers_to_transform"), None);
    assert_eq!(config.optimizer, OptimizerConfig::default());
    assert_eq!(config.train, TrainConfig::default());
    assert_eq!(config.output.dir, std::path::PathBuf::from("runs/a"));
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        [model]
        path = "org/name"
        revision = "main"
        [data]
        train = ["a.txt", "b.jsonl"]
        eval = "c.txt"
        format = "alpaca"
        fields = "output=answer"
        on_error = "skip"
        train_on_prompt = true
        packing = "sequential"
        weights = [1, 0.5]
        too_long = "drop"
        cache = "tokens"
        shuffle = false
        [method]
        kind = "lora"
        rank = 8
        alpha = 16
        dropout = 0.1
        use_rslora = true
        target_modules = ["q_proj", "v_proj"]
        exclude_modules = ".*lm_head"
        rank_pattern = { "z.q_proj" = 4, q_proj = 2 }
        alpha_pattern = { q_proj = 8 }
        layers_to_transform = 3
        layers_pattern = "layers"
        bias = "lora_only"
        init = "gaussian"
        [optimizer]
        kind = "sgd"
        learning_rate = 1
        momentum = 0.9
        nesterov = true
        weight_decay = 0.01
        clip_grad_norm = 0
        clip_grad_value = 0.5
        lambda = "1/sqrt(T)"
        schedule = "cosine"
        warmup_ratio = 0.1
        min_learning_rate_ratio = 0.2
        [train]
        max_steps = 10
        batch_size = 2
        sequence_length = 64
        gradient_accumulation = 3
        seed = 18446744073709551615
        precision = "f32"
        recompute = false
        eval_every = 5
        log_every = 2
        save_every = 4
        keep_last = 3
        keep = "last"
        metric = "perplexity"
        sample_prompt = "Once"
        sample_tokens = 16
        threads = 2
        [output]
        dir = "out"
        "#,
    )
    .unwrap();
    let expected = RunConfig {
        model: ModelConfig {
            task: None,
            path: Some("org/name".into()),
            new: None,
            revision: Some("main".into()),
            adapter: None,
            dropout: None,
        },
        data: DataConfig {
            train: vec!["a.txt".into(), "b.jsonl".into()],
            eval: EvalData::Files(vec!["c.txt".into()]),
            eval_max: None,
            format: Some(Format::Alpaca),
            fields: "output=answer".parse().unwrap(),
            template: None,
            text: None,
            on_error: OnError::Skip,
            chat_template: None,
            train_on_turns: Turns::All,
            train_on_prompt: true,
            weights: Some(vec![1.0, 0.5]),
            packing: PackingStrategy::Sequential,
            too_long: TooLong::Drop,
            shuffle: false,
            carry_state: false,
            cache: CacheChoice::Directory("tokens".into()),
            learn: None,
            add_tokens: Vec::new(),
            add_special_tokens: Vec::new(),
        },
        method: Some(
            Chosen::new("lora")
                .with("rank", SettingValue::Count(8))
                .with("alpha", SettingValue::Number(16.0))
                .with("use_rslora", SettingValue::Flag(true))
                .with("dropout", SettingValue::Number(0.1))
                .with(
                    "target_modules",
                    SettingValue::Modules(TargetModules::Names(vec![
                        "q_proj".into(),
                        "v_proj".into(),
                    ])),
                )
                .with(
                    "exclude_modules",
                    SettingValue::Modules(TargetModules::Pattern(".*lm_head".into())),
                )
                // In the order of the file, not of the alphabet.
                .with(
                    "rank_pattern",
                    SettingValue::CountByPattern(vec![
                        ("z.q_proj".into(), 4),
                        ("q_proj".into(), 2),
                    ]),
                )
                .with(
                    "alpha_pattern",
                    SettingValue::NumberByPattern(vec![("q_proj".into(), 8.0)]),
                )
                .with("layers_to_transform", SettingValue::Counts(vec![3]))
                .with("layers_pattern", SettingValue::Texts(vec!["layers".into()]))
                .with("bias", SettingValue::Word("lora_only".into()))
                .with("init", SettingValue::Word("gaussian".into())),
        ),
        optimizer: OptimizerConfig {
            update: UpdateConfig::Named(NamedUpdate {
                algorithm: Chosen::new("sgd")
                    .with("momentum", SettingValue::Number(0.9))
                    .with("nesterov", SettingValue::Flag(true))
                    .with("weight_decay", SettingValue::Number(0.01)),
                clip_grad_norm: 0.0,
                clip_grad_value: Some(0.5),
                lambda: Some(Lambda::InverseSqrtHorizon),
            }),
            learning_rate: 1.0,
            schedule: ScheduleConfig(vec![
                ("schedule".into(), SettingValue::Word("cosine".into())),
                ("warmup_ratio".into(), SettingValue::Number(0.1)),
                ("min_learning_rate_ratio".into(), SettingValue::Number(0.2)),
            ]),
        },
        train: TrainConfig {
            length: Length::MaxSteps(10),
            batch_size: 2,
            sequence_length: 64,
            gradient_accumulation: 3,
            seed: u64::MAX,
            precision: Precision::F32,
            recompute: false,
            eval_every: 5,
            log_every: 2,
            save_every: Some(4),
            keep_last: 3,
            keep: Keep::Last,
            metric: Some("perplexity".into()),
            stop: StopConfig::default(),
            sample: Some(SampleConfig {
                prompt: "Once".into(),
                tokens: 16,
            }),
            threads: 2,
        },
        output: OutputConfig { dir: "out".into() },
        catalog: Catalog::builtin(),
    };
    assert_eq!(config, expected);
    assert_eq!(parse(&config.to_toml().unwrap()).unwrap(), expected);
}

#[test]
fn overrides_take_toml_values_and_bare_strings() {
    let config = set(
        MINIMAL,
        &[
            "train.max_steps=50",
            "optimizer.learning_rate=1e-3",
            "model.path=other/model",
            "data.train=[\"a\", \"b\"]",
            "method.target_modules= q_proj|v_proj ",
            "method.rank_pattern.\"a=b\"=4",
            "optimizer.lambda=1/sqrt(T)",
            "train.sample_prompt=To be, # or not",
            "train.seed=1",
            "train.seed=2",
        ],
    );
    assert_eq!(config.train.length, Length::MaxSteps(50));
    assert_eq!(config.optimizer.learning_rate, 1e-3);
    assert_eq!(config.model.name(), "other/model");
    assert_eq!(config.data.train.len(), 2);
    let UpdateConfig::Named(update) = &config.optimizer.update else {
        panic!("a kind");
    };
    assert_eq!(update.lambda, Some(Lambda::InverseSqrtHorizon));
    assert_eq!(config.train.seed, 2);
    let sample = config.train.sample.as_ref().expect("a sample");
    assert_eq!(sample.prompt, "To be, # or not");
    assert_eq!(
        method(&config).get("rank_pattern"),
        Some(&SettingValue::CountByPattern(vec![("a=b".to_owned(), 4)]))
    );
    let pattern = TargetModules::Pattern("q_proj|v_proj".into());
    assert_eq!(
        method(&config).get("target_modules"),
        Some(&SettingValue::Modules(pattern))
    );
}

#[test]
fn override_replaces_the_rival_of_the_file_but_not_of_another_override() {
    let text = with("train", "epochs = 3");
    let config = set(&text, &["train.max_steps=50"]);
    assert_eq!(config.train.length, Length::MaxSteps(50));
    assert!(rendered_set(&["train.max_steps=50", "train.epochs=2"]).contains("exclude each other"));
    let config = set(&with("data", "eval = \"e.txt\""), &["data.eval_fraction=0"]);
    assert_eq!(config.data.eval, EvalData::Fraction(0.0));
}

#[test]
fn a_table_as_value_replaces_the_section() {
    let text = with("method", "rank = 4\nalpha = 8");
    for (set_, alpha) in [("method={rank=2}", 4.0), ("method.rank=2", 8.0)] {
        let config = set(&text, &[set_]);
        assert_eq!(setting(&config, "rank"), &SettingValue::Count(2));
        assert_eq!(setting(&config, "alpha"), &SettingValue::Number(alpha));
    }
}

#[test]
fn alpha_follows_the_rank_unless_it_is_given() {
    for kind in ["lora", "dora"] {
        for (lines, alpha) in [
            ("", 32.0),
            ("rank = 4", 8.0),
            ("rank = 4\nalpha = 32", 32.0),
        ] {
            let config = parse(&with("method", &format!("kind = \"{kind}\"\n{lines}"))).unwrap();
            assert_eq!(
                setting(&config, "alpha"),
                &SettingValue::Number(alpha),
                "{lines}"
            );
            // The file of the run says it, whatever the default will be.
            assert!(
                config
                    .to_toml()
                    .unwrap()
                    .contains(&format!("alpha = {alpha:.1}"))
            );
        }
    }
    let config = set(&with("method", "rank = 4"), &["method.rank=2"]);
    assert_eq!(setting(&config, "alpha"), &SettingValue::Number(4.0));
}

#[test]
fn flags_of_their_own_are_literal_and_name_their_place() {
    let read = |overrides: &[Override]| RunConfig::parse(MINIMAL, "run.toml", overrides);
    let paths = ["a b".to_owned(), "{1}".to_owned()];
    let config = read(&[
        Override::set("model.path=other"),
        Override::flag("--model", ["model", "path"], "[m]"),
        Override::files("--data", ["data", "train"], &paths),
        Override::flag("--method", ["method", "kind"], "vera"),
    ]);
    let config = config.unwrap();
    assert_eq!(config.model.name(), "[m]");
    assert_eq!(
        config.data.train,
        ["a b", "{1}"].map(std::path::PathBuf::from)
    );
    assert_eq!(config.method.unwrap().kind, "vera");
    let error = read(&[Override::flag("--method", ["method", "kind"], "lara")]);
    assert_eq!(
        render(&error.unwrap_err()),
        "error: unknown kind `lara` in [method]\n--> --method\n |\n | lara\n | ^^^^\n\
         hint: did you mean `lora`? supported: `lora`, `dora`, `vera`, `ia3`, `full`, `scale`, `weight_norm`, `sigma_reparam`, \
         `overparameterized`"
    );
    let error = read(&[Override::files(
        "--data",
        ["data", "train"],
        &["a".into(), String::new()],
    )]);
    assert!(render(&error.unwrap_err()).contains("--> --data"));
    // A file takes the place of a generated table.
    let generated = "[model]\ntask = \"regression\"\n[data]\ngenerate = { samples = 9, features = 1 }\n[output]\ndir = \"a\"";
    let tasks = crate::Tasks::builtin();
    let data = Override::files("--data", ["data", "train"], &["a.csv".to_owned()]);
    let run = tasks.parse(
        generated,
        "run.toml",
        &[data, Override::set("data.target=y")],
    );
    let run = run.unwrap();
    let config = run.config::<RegressionConfig>().unwrap();
    assert!(
        matches!(&config.data.source, TableSource::Csv { train, .. } if train.ends_with("a.csv"))
    );
}

#[test]
fn output_override_is_literal() {
    let overrides = [Override::output("12")];
    let config = RunConfig::parse(MINIMAL, "run.toml", &overrides).unwrap();
    assert_eq!(config.output.dir, std::path::PathBuf::from("12"));
    let error = RunConfig::parse(MINIMAL, "run.toml", &[Override::output("")]);
    assert!(render(&error.unwrap_err()).contains("--> --output"));
}

#[test]
fn display_is_one_line_with_the_place() {
    let error = parse(&with("method", "rank = 0")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "run.toml:8: `rank` in [method] must be a whole number of at least 1, not `0`"
    );
}

#[test]
fn files_that_cannot_be_read() {
    let error = RunConfig::load(Path::new("no/such/run.toml"), &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read the run file no/such/run.toml"
    );
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("current directory"))
    );
    assert!(std::error::Error::source(&error).is_some());

    // The test's own executable is a file that is not text.
    let executable = std::env::current_exe().unwrap();
    let error = RunConfig::load(&executable, &[]).unwrap_err();
    assert!(
        matches!(error.kind(), ConfigErrorKind::NotUtf8 { .. }),
        "{error}"
    );

    let directory = executable.parent().unwrap();
    let error = RunConfig::load(directory, &[]).unwrap_err();
    assert!(
        matches!(error.kind(), ConfigErrorKind::Read { .. }),
        "{error}"
    );
}

#[test]
fn code_made_configurations_are_checked() {
    let mut config = parse(MINIMAL).unwrap();
    config.check().unwrap();
    config.train.batch_size = 0;
    let error = config.check().unwrap_err();
    assert!(
        error.to_string().contains("`batch_size` in [train]"),
        "{error}"
    );
}

#[test]
fn a_period_of_evaluation_needs_data() {
    let text = with("data", "eval_fraction = 0");
    let overrides = [Override::set("train.eval_every=5")];
    let error = RunConfig::parse(&text, "run.toml", &overrides).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`eval_every` in [train] has no effect"),
        "{error}"
    );
    set(&text, &["train.eval_every=0"]);
}

#[cfg(unix)]
#[test]
fn a_path_that_is_not_utf8_cannot_be_written() {
    use std::os::unix::ffi::OsStringExt as _;

    let mut config = parse(MINIMAL).unwrap();
    config.output.dir = std::ffi::OsString::from_vec(vec![b'a', 0xff]).into();
    let error = config.to_toml().unwrap_err();
    assert!(
        matches!(error.kind(), ConfigErrorKind::Write { .. }),
        "{error}"
    );
}
