//! Written and read again, and texts of all sorts.

use proptest::prelude::*;

use reparam::optim::{
    SettingKind, SettingValue, TRANSFORMS, TransformEntry, TransformSpec, optimizer_entries,
};

use super::super::transform::with_defaults;
use super::*;
use crate::Tasks;

fn name() -> impl Strategy<Value = String> {
    // Quotes, dots, spaces, controls, non-ASCII: everything that a writer must escape.
    "[a-zA-Z0-9_.\\-/ \"'#=\\\\\u{e9}\u{1f600}\n\t]{1,12}"
}

fn pattern() -> impl Strategy<Value = String> {
    r"(layers|h)\\\.[0-9]{1,2}\\\.(q|v)_proj|[a-z]{1,8}|\.\*[a-z]{1,4}"
        .prop_filter("not the word for all", |p| p != "all-linear")
}

fn positive() -> impl Strategy<Value = f64> {
    prop_oneof![1e-12..1e6, Just(f64::MIN_POSITIVE), Just(1.0), Just(1e300)]
}

fn selector() -> impl Strategy<Value = ModuleSelector> {
    prop_oneof![
        prop::collection::vec(name(), 1..4).prop_map(ModuleSelector::Names),
        pattern().prop_map(ModuleSelector::Pattern),
    ]
}

/// Pairs with different keys.
fn pairs<T: std::fmt::Debug>(
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = Vec<(String, T)>> {
    prop::collection::hash_map(pattern(), value, 0..4).prop_map(|map| map.into_iter().collect())
}

prop_compose! {
    fn lora()(
        rank in 1..10_000_usize,
        alpha in positive(),
        dropout in 0.0..1.0,
        use_rslora: bool,
        target_modules in prop_oneof![Just(ModuleSelector::AllLinear), selector()],
        exclude_modules in prop::option::of(selector()),
        rank_pattern in pairs(1..512_usize),
        alpha_pattern in pairs(positive()),
        layers in prop::option::of((
            prop::collection::vec(0..100_usize, 1..4),
            prop::option::of(prop::collection::vec(name(), 1..3)),
        )),
        bias in prop::sample::select(vec![Bias::None, Bias::All, Bias::LoraOnly]),
        init in prop::sample::select(vec![LoraInit::Kaiming, LoraInit::Gaussian]),
    ) -> LoraConfig {
        let layers = layers.filter(|_| matches!(target_modules, ModuleSelector::Names(_)));
        let (layers_to_transform, layers_pattern) = layers.map_or((None, None), |(l, p)| (Some(l), p));
        LoraConfig {
            rank, alpha, dropout, use_rslora, target_modules, exclude_modules, rank_pattern,
            alpha_pattern, layers_to_transform, layers_pattern, bias, init,
        }
    }
}

/// A value for a setting, within what every transform accepts.
fn setting(kind: SettingKind) -> BoxedStrategy<SettingValue> {
    let number = |range: std::ops::Range<f64>| range.prop_map(SettingValue::Number).boxed();
    match kind {
        SettingKind::Positive | SettingKind::Lambda => number(1e-9..1.0),
        SettingKind::NonNegative => number(0.0..2.0),
        SettingKind::BelowOne => number(0.01..0.99),
        SettingKind::Number => number(-2.0..-0.1),
        SettingKind::Count => (1..1000_u64).prop_map(SettingValue::Count).boxed(),
        SettingKind::Flag => any::<bool>().prop_map(SettingValue::Flag).boxed(),
        SettingKind::Word(words) => prop::sample::select(words)
            .prop_map(|word: &str| SettingValue::Word(word.to_owned()))
            .boxed(),
        SettingKind::Pattern => pattern().prop_map(SettingValue::Word).boxed(),
        SettingKind::Numbers => prop::collection::vec(0.1..2.0, 1..4)
            .prop_map(SettingValue::Numbers)
            .boxed(),
        SettingKind::Chain => Just(SettingValue::Chain(vec![with_defaults("adam")])).boxed(),
    }
}

/// A transform with all of its settings.
fn transform(entry: &'static TransformEntry) -> BoxedStrategy<TransformSpec> {
    let values: Vec<_> = entry.settings.iter().map(|one| setting(one.kind)).collect();
    values
        .prop_map(move |values| TransformSpec {
            kind: entry.kind.to_owned(),
            settings: entry
                .settings
                .iter()
                .map(|setting| setting.key.to_owned())
                .zip(values)
                .collect(),
        })
        .boxed()
}

fn update() -> impl Strategy<Value = UpdateConfig> {
    let optimizers: Vec<_> = optimizer_entries().map(|(entry, _)| entry).collect();
    let algorithm = prop::sample::select(optimizers).prop_flat_map(transform);
    let lambda = prop::option::of(prop_oneof![
        Just(Lambda::InverseSqrtHorizon),
        Just(Lambda::Adaptive),
        positive().prop_map(Lambda::Fixed),
    ]);
    let clip_norm = prop_oneof![Just(0.0), positive()];
    let named = (algorithm, lambda, clip_norm, prop::option::of(positive())).prop_map(
        |(algorithm, lambda, clip_grad_norm, clip_grad_value)| {
            // A scale before signs is refused.
            let by_signs = ["sign", "lion"].contains(&algorithm.kind.as_str());
            UpdateConfig::Named(NamedUpdate {
                lambda: lambda.filter(|_| !by_signs),
                algorithm,
                clip_grad_norm,
                clip_grad_value,
            })
        },
    );
    // One of a kind, or none: which orders are lawful is another test's subject.
    let all: Vec<&'static TransformEntry> = TRANSFORMS.iter().collect();
    let one = prop::sample::select(all)
        .prop_flat_map(transform)
        // A mask for Adam is lawful only in two halves.
        .prop_map(|mut spec| {
            if spec.kind == "mask" {
                spec.settings[1].1 = SettingValue::Word("sgd".into());
            }
            spec
        });
    let listed = prop::collection::vec(one, 0..2).prop_map(UpdateConfig::Transforms);
    prop_oneof![named, listed]
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let shapes = vec![
        DecayShape::Linear,
        DecayShape::Cosine,
        DecayShape::OneMinusSqrt,
    ];
    let wsd = (0.0..=1.0, prop::sample::select(shapes)).prop_map(|(decay_ratio, decay_shape)| {
        Schedule::Wsd {
            decay_ratio,
            decay_shape,
        }
    });
    let plain = vec![
        Schedule::Constant,
        Schedule::Linear,
        Schedule::Cosine,
        Schedule::InverseSqrt,
    ];
    prop_oneof![prop::sample::select(plain), wsd]
}

prop_compose! {
    fn optimizer(max_warmup: u64)(
        update in update(),
        learning_rate in positive(),
        schedule in schedule(),
        warmup in prop_oneof![
            (0..=max_warmup).prop_map(Warmup::Steps),
            (0.0..=1.0).prop_map(Warmup::Ratio),
        ],
        ratio in 0.0..=1.0,
    ) -> OptimizerConfig {
        OptimizerConfig {
            update, learning_rate, schedule, warmup,
            min_learning_rate_ratio: if schedule == Schedule::Constant { 0.0 } else { ratio },
        }
    }
}

fn targets() -> impl Strategy<Value = TargetConfig> {
    let bias = prop::sample::select(vec![TrainedBias::None, TrainedBias::All]);
    (selector(), prop::option::of(selector()), bias).prop_map(
        |(target_modules, exclude_modules, bias)| TargetConfig {
            target_modules,
            exclude_modules,
            bias,
        },
    )
}

fn method() -> impl Strategy<Value = MethodConfig> {
    let scale = prop_oneof![
        Just(WeightScale::Horizon),
        positive().prop_map(WeightScale::Fixed)
    ];
    let gamma = prop::sample::select(vec![GammaInit::Sigma, GammaInit::One]);
    let branches = prop::collection::vec(positive(), 1..4);
    prop_oneof![
        lora().prop_map(MethodConfig::Lora),
        targets().prop_map(MethodConfig::Identity),
        (scale, targets())
            .prop_map(|(scale, targets)| MethodConfig::Scale(ScaleConfig { scale, targets })),
        targets().prop_map(|targets| MethodConfig::WeightNorm(WeightNormConfig {
            init: WeightNormInit::Weights,
            targets,
        })),
        (gamma, targets()).prop_map(|(gamma_init, targets)| {
            MethodConfig::SigmaReparam(SigmaReparamConfig {
                gamma_init,
                targets,
            })
        }),
        (branches, 0..100_usize, any::<bool>(), targets()).prop_map(
            |(branches, product_width, diagonal, targets)| {
                MethodConfig::Overparameterized(OverparameterizedConfig {
                    branches,
                    product_width,
                    diagonal,
                    targets,
                })
            }
        ),
    ]
}

prop_compose! {
    fn stop()(
        stop_loss_change in prop::option::of(positive()),
        window in 1..100_u64,
        stop_grad_norm in prop::option::of(positive()),
        patience in prop::option::of(1..10_u64),
    ) -> StopConfig {
        StopConfig {
            stop_loss_change, stop_grad_norm, patience,
            stop_window: stop_loss_change.map(|_| window),
        }
    }
}

fn regression_model() -> impl Strategy<Value = RegressionModelKind> {
    let hidden = prop::collection::vec(1..100_usize, 1..3);
    let activation = prop::sample::select(vec![Activation::Tanh, Activation::Relu]);
    prop_oneof![
        Just(RegressionModelKind::Linear),
        (hidden, activation)
            .prop_map(|(hidden, activation)| RegressionModelKind::Mlp { hidden, activation }),
    ]
}

fn table_source() -> impl Strategy<Value = TableSource> {
    let features = prop::option::of(prop::collection::vec(name(), 1..3));
    let missing = prop::sample::select(vec![MissingValues::Error, MissingValues::DropRows]);
    let csv = (name(), name(), features, missing).prop_map(|(train, target, features, missing)| {
        TableSource::Csv {
            train: train.into(),
            target,
            features,
            missing,
        }
    });
    let generate = (2..1000_usize, 1..10_usize, 0.0..10.0, any::<u64>()).prop_map(
        |(samples, features, noise, seed)| TableSource::Generate {
            generate: GenerateConfig {
                samples,
                features,
                noise,
                seed,
            },
        },
    );
    prop_oneof![csv, generate]
}

prop_compose! {
    fn regression()(
        kind in regression_model(),
        source in table_source(),
        test_fraction in 0.01..0.99,
        split_seed: u64,
        standardize: bool,
        method in method(),
        optimizer in optimizer(100),
        max_steps in 100..100_000_u64,
        batch_size in prop::option::of(1..100_usize),
        seed: u64,
        eval_every in 1..100_u64,
        log_every in 1..100_u64,
        stop in stop(),
        dir in name(),
    ) -> RegressionConfig {
        RegressionConfig {
            model: RegressionModelConfig { task: "regression", kind },
            data: TableConfig { source, test_fraction, split_seed, standardize },
            method,
            optimizer,
            train: RegressionTrainConfig {
                max_steps, batch_size, seed, eval_every, log_every, stop,
            },
            output: OutputConfig { dir: dir.into() },
        }
    }
}

prop_compose! {
    fn train()(
        length in prop_oneof![
            (100..1_000_000_u64).prop_map(Length::MaxSteps),
            positive().prop_map(Length::Epochs),
        ],
        batch_size in 1..1000_usize,
        sequence_length in 2..100_000_usize,
        gradient_accumulation in 1..64_usize,
        seed: u64,
        precision in prop::sample::select(vec![Precision::Auto, Precision::F32]),
        eval_every in 1..100_u64,
        log_every in 1..100_u64,
        save_every in 0..100_u64,
        stop in stop(),
        sample in prop::option::of((name(), 1..100_usize)),
        threads in 0..64_usize,
    ) -> TrainConfig {
        TrainConfig {
            length, batch_size, sequence_length, gradient_accumulation, seed, precision,
            // Whether it may be given depends on the method; see the cases of errors.
            recompute: false,
            eval_every, log_every, save_every, stop, threads,
            sample: sample.map(|(prompt, tokens)| SampleConfig { prompt, tokens }),
        }
    }
}

prop_compose! {
    fn run_config()(
        (path, revision) in (name(), prop::option::of(name())),
        train_files in prop::collection::vec(name(), 1..3),
        eval in prop_oneof![
            prop::collection::vec(name(), 1..3)
                .prop_map(|files| EvalData::Files(files.into_iter().map(Into::into).collect())),
            (0.001..1.0).prop_map(EvalData::Fraction),
        ],
        (format, train_on_prompt) in prop::sample::select(vec![
            (None, false), (None, true), (Some(Format::Text), false), (Some(Format::Documents), false),
            (Some(Format::PromptCompletion), true), (Some(Format::Alpaca), false),
        ]),
        packing in prop::sample::select(vec![Packing::BestFit, Packing::Sequential, Packing::None]),
        shuffle: bool,
        method in method(),
        optimizer in optimizer(100),
        train in train(),
        dir in name(),
    ) -> RunConfig {
        RunConfig {
            model: ModelConfig { task: None, path, revision },
            data: DataConfig {
                train: train_files.into_iter().map(Into::into).collect(),
                eval, format, train_on_prompt, packing, shuffle,
            },
            method,
            optimizer,
            train,
            output: OutputConfig { dir: dir.into() },
        }
    }
}

proptest! {
    /// What is written as TOML reads back equal, floats to the last bit.
    #[test]
    fn resolved_configuration_reads_back_equal(config in run_config()) {
        let text = config.to_toml().unwrap();
        let again = parse(&text);
        prop_assert!(again.is_ok(), "{}\n{text}", render(&again.unwrap_err()));
        prop_assert_eq!(again.unwrap(), config);
    }

    /// The same of a regression's.
    #[test]
    fn resolved_regression_reads_back_equal(config in regression()) {
        let text = config.to_toml().unwrap();
        let again = Tasks::builtin().parse(&text, "run.toml", &[]);
        prop_assert!(again.is_ok(), "{}\n{text}", render(&again.unwrap_err()));
        let again = again.unwrap();
        prop_assert_eq!(again.config::<RegressionConfig>(), Some(&config));
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
