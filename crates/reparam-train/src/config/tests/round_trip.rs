//! Written and read again, and texts of all sorts.

use proptest::prelude::*;

use super::*;

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

fn algorithm() -> impl Strategy<Value = Algorithm> {
    let adamw =
        (0.0..1.0, 0.0..1.0, positive(), 0.0..1.0).prop_map(|(beta1, beta2, eps, weight_decay)| {
            Algorithm::AdamW {
                beta1,
                beta2,
                eps,
                weight_decay,
            }
        });
    let sgd = (0.0..1.0, any::<bool>(), 0.0..1.0).prop_map(|(momentum, nesterov, weight_decay)| {
        Algorithm::Sgd {
            momentum,
            nesterov: nesterov && momentum > 0.0,
            weight_decay,
        }
    });
    prop_oneof![adamw, sgd]
}

prop_compose! {
    fn optimizer(max_warmup: u64)(
        algorithm in algorithm(),
        learning_rate in positive(),
        clip_grad_norm in prop_oneof![Just(0.0), positive()],
        clip_grad_value in prop::option::of(positive()),
        lambda in prop::option::of(prop_oneof![
            Just(Lambda::InverseSqrtHorizon),
            positive().prop_map(Lambda::Fixed),
        ]),
        schedule in prop::sample::select(vec![Schedule::Constant, Schedule::Linear, Schedule::Cosine]),
        warmup in prop_oneof![
            (0..=max_warmup).prop_map(Warmup::Steps),
            (0.0..=1.0).prop_map(Warmup::Ratio),
        ],
        ratio in 0.0..=1.0,
    ) -> OptimizerConfig {
        OptimizerConfig {
            algorithm, learning_rate, clip_grad_norm, clip_grad_value, lambda, schedule, warmup,
            min_learning_rate_ratio: if schedule == Schedule::Constant { 0.0 } else { ratio },
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
        eval_every in 0..100_u64,
        log_every in 1..100_u64,
        save_every in 0..100_u64,
        sample in prop::option::of((name(), 1..100_usize)),
        threads in 0..64_usize,
    ) -> TrainConfig {
        TrainConfig {
            length, batch_size, sequence_length, gradient_accumulation, seed, precision,
            eval_every, log_every, save_every, threads,
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
        format in prop::option::of(prop::sample::select(vec![DataFormat::Text, DataFormat::Jsonl])),
        packing in prop::sample::select(vec![Packing::BestFit, Packing::Sequential, Packing::None]),
        shuffle: bool,
        lora in lora(),
        optimizer in optimizer(100),
        train in train(),
        dir in name(),
    ) -> RunConfig {
        RunConfig {
            model: ModelConfig { path, revision },
            data: DataConfig {
                train: train_files.into_iter().map(Into::into).collect(),
                eval, format, packing, shuffle,
            },
            method: MethodConfig::Lora(lora),
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
