//! The methods of the library as run files know them.

use reparam::methods::{
    AnyMethod, Biases, FactorInit, GammaInit, IdentityConfig, LoraConfig, MethodError,
    OverparameterizedConfig, ScaleConfig, Selection, SigmaReparamConfig, WeightNormConfig,
};
use reparam::schema::{
    Chosen, Fallback, MOST, Range, SchemaError, SettingKind, SettingSpec, SettingValue, Settings,
    TargetModules, flag, number, optional, size, word,
};
use reparam_formats::peft::Bias;

/// What is known of a method.
#[derive(Debug, Clone, Copy)]
pub struct MethodSpec {
    /// The name in a run file.
    pub kind: &'static str,
    /// Other names that a run file may use.
    pub aliases: &'static [&'static str],
    /// What it can be told.
    pub settings: &'static [SettingSpec],
    /// Whether it runs on weights that are packed in bf16.
    pub runs_packed: bool,
    /// Makes it of checked settings.
    pub build: fn(&Settings, &BuildContext) -> Result<AnyMethod, SchemaError>,
}

/// What building a method may need to know of the rest of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildContext {
    /// The planned number of steps, `T`.
    pub total_steps: u64,
}

/// The methods by name.
#[derive(Debug, Clone)]
pub struct Methods {
    specs: Vec<MethodSpec>,
}

impl Methods {
    /// Returns the methods of the library.
    pub fn builtin() -> Self {
        Self {
            specs: vec![
                LORA,
                IDENTITY,
                SCALE,
                WEIGHT_NORM,
                SIGMA_REPARAM,
                OVERPARAMETERIZED,
            ],
        }
    }

    /// Iterates over all methods.
    pub fn iter(&self) -> impl Iterator<Item = &MethodSpec> {
        self.specs.iter()
    }

    /// Returns the entry of a name.
    pub fn get(&self, kind: &str) -> Option<&MethodSpec> {
        self.iter()
            .find(|spec| spec.kind == kind || spec.aliases.contains(&kind))
    }

    /// Makes a method of what a run file says of it.
    ///
    /// # Errors
    ///
    /// Fails when there is no such method or setting, or a value is of the wrong kind or out of its range.
    pub fn build(&self, chosen: &Chosen, context: &BuildContext) -> Result<AnyMethod, MethodError> {
        let entry = self
            .get(&chosen.kind)
            .ok_or_else(|| SchemaError::UnknownKind {
                what: "method",
                kind: chosen.kind.clone(),
                known: self.iter().map(|entry| entry.kind).collect(),
            })?;
        let settings = Settings::new(entry.kind, entry.settings, &chosen.settings)?;
        Ok((entry.build)(&settings, context)?)
    }
}

const TARGET_MODULES: SettingSpec = SettingSpec {
    key: "target_modules",
    kind: SettingKind::Modules { all_linear: true },
    fallback: Fallback::Word("all-linear"),
    meaning: "which linear layers carry the method",
};

const EXCLUDE_MODULES: SettingSpec = optional(
    "exclude_modules",
    SettingKind::Modules { all_linear: false },
    "",
    "which of them do not",
);

const BIAS: SettingSpec = word(
    "bias",
    &["none", "all"],
    "none",
    "existing biases that are trained along",
);

fn selection(settings: &Settings) -> Result<Selection, SchemaError> {
    let words = [("none", Biases::None), ("all", Biases::All)];
    Ok(Selection {
        target_modules: settings.modules("target_modules")?.clone(),
        exclude_modules: settings
            .optional("exclude_modules", Settings::modules)?
            .cloned(),
        bias: settings.choice("bias", &words)?,
        ..Selection::default()
    })
}

const LORA: MethodSpec = MethodSpec {
    kind: "lora",
    aliases: &[],
    runs_packed: true,
    settings: &[
        size("rank", 16, "rows of A and columns of B"),
        number("alpha", Range::Positive, 32.0, "numerator of the scaling s"),
        flag(
            "use_rslora",
            false,
            "scaling alpha / sqrt(rank) instead of alpha / rank",
        ),
        number(
            "dropout",
            Range::BelowOne,
            0.0,
            "probability with which an element of the input of A is dropped in training",
        ),
        TARGET_MODULES,
        EXCLUDE_MODULES,
        optional(
            "rank_pattern",
            SettingKind::CountByPattern {
                least: 1,
                most: MOST,
            },
            "",
            "ranks of single modules; the first pattern that matches counts",
        ),
        optional(
            "alpha_pattern",
            SettingKind::NumberByPattern(Range::Positive),
            "",
            "alphas of single modules, likewise",
        ),
        optional(
            "layers_to_transform",
            SettingKind::Counts {
                noun: "layer",
                least: 0,
                most: u64::MAX,
            },
            "all",
            "layers that are adapted, counted from 0; needs a list in target_modules",
        ),
        optional(
            "layers_pattern",
            SettingKind::Texts,
            "any list",
            "name of the list of layers that layers_to_transform counts in, such as layers",
        ),
        word(
            "bias",
            &["none", "all", "lora_only"],
            "none",
            "existing biases that are trained along; lora_only: those of adapted modules",
        ),
        word(
            "init",
            &["kaiming", "gaussian"],
            "kaiming",
            "how A starts: kaiming, uniform in ±1/sqrt(d_in), or gaussian, with standard \
             deviation 1/rank; B starts at zero",
        ),
    ],
    build: |settings, _| {
        let biases = [
            ("none", Bias::None),
            ("all", Bias::All),
            ("lora_only", Bias::LoraOnly),
        ];
        let inits = [
            ("kaiming", FactorInit::Kaiming),
            ("gaussian", FactorInit::Gaussian),
        ];
        check_layers(settings)?;
        let config = LoraConfig {
            dropout: settings.number("dropout")?,
            use_rslora: settings.flag("use_rslora")?,
            target_modules: settings.modules("target_modules")?.clone(),
            exclude_modules: settings
                .optional("exclude_modules", Settings::modules)?
                .cloned(),
            rank_pattern: settings.counts_by_pattern("rank_pattern")?,
            alpha_pattern: settings.numbers_by_pattern("alpha_pattern")?,
            layers_to_transform: settings.optional("layers_to_transform", Settings::counts)?,
            layers_pattern: settings
                .optional("layers_pattern", Settings::texts)?
                .unwrap_or_default()
                .to_vec(),
            bias: settings.choice("bias", &biases)?,
            init: settings.choice("init", &inits)?,
            ..LoraConfig::new(settings.size("rank")?, settings.number("alpha")?)
        };
        Ok(config.into())
    },
};

/// PEFT refuses the same combinations, because it would ignore one of the keys.
fn check_layers(settings: &Settings) -> Result<(), SchemaError> {
    let no_effect = |setting, reason, fix| {
        Err(SchemaError::NoEffect {
            setting,
            reason,
            fix,
        })
    };
    if !settings.has("layers_to_transform") {
        if settings.has("layers_pattern") {
            return no_effect(
                "layers_pattern",
                "`layers_to_transform` is absent",
                "give the layers in `layers_to_transform`, or remove `layers_pattern`",
            );
        }
        return Ok(());
    }
    match settings.modules("target_modules")? {
        TargetModules::AllLinear => no_effect(
            "layers_to_transform",
            "`target_modules` is \"all-linear\", which is the layers of every block",
            "list names in `target_modules`, as in [\"q_proj\", \"v_proj\"]",
        ),
        TargetModules::Pattern(_) => no_effect(
            "layers_to_transform",
            "`target_modules` is a regular expression over whole module names",
            "select the layers in the regular expression, or list names in `target_modules`",
        ),
        TargetModules::Names(_) => Ok(()),
    }
}

const IDENTITY: MethodSpec = MethodSpec {
    kind: "identity",
    aliases: &["full"],
    runs_packed: false,
    settings: &[TARGET_MODULES, EXCLUDE_MODULES, BIAS],
    build: |settings, _| {
        let selection = selection(settings)?;
        Ok(IdentityConfig { selection }.into())
    },
};

const SCALE: MethodSpec = MethodSpec {
    kind: "scale",
    aliases: &[],
    runs_packed: false,
    settings: &[
        SettingSpec {
            key: "scale",
            kind: SettingKind::WordOrNumber(&["horizon"], Range::Positive),
            fallback: Fallback::Word("horizon"),
            meaning: "s, or horizon for sqrt(lambda) with lambda = 1/sqrt(T)",
        },
        TARGET_MODULES,
        EXCLUDE_MODULES,
        BIAS,
    ],
    build: |settings, context| {
        let config = match settings.value("scale")? {
            SettingValue::Number(scale) => ScaleConfig::new(*scale),
            _ => ScaleConfig::by_horizon(context.total_steps),
        };
        Ok(config.with_selection(selection(settings)?).into())
    },
};

const WEIGHT_NORM: MethodSpec = MethodSpec {
    kind: "weight_norm",
    aliases: &[],
    runs_packed: false,
    settings: &[
        TARGET_MODULES,
        EXCLUDE_MODULES,
        BIAS,
        word(
            "init",
            &["weights", "data"],
            "weights",
            "weights: at the weights as they are; data, for a regression: so that the \
                     outputs of each layer have mean 0 and variance 1 over the training rows",
        ),
    ],
    build: |settings, _| {
        let selection = selection(settings)?;
        Ok(WeightNormConfig { selection }.into())
    },
};

const SIGMA_REPARAM: MethodSpec = MethodSpec {
    kind: "sigma_reparam",
    aliases: &[],
    runs_packed: false,
    settings: &[
        TARGET_MODULES,
        EXCLUDE_MODULES,
        BIAS,
        word(
            "gamma_init",
            &["sigma", "one"],
            "sigma",
            "sigma keeps the weight; one starts at W0 / sigma, as the paper does for \
                     training from scratch",
        ),
    ],
    build: |settings, _| {
        let words = [("sigma", GammaInit::Sigma), ("one", GammaInit::One)];
        let config = SigmaReparamConfig {
            gamma_init: settings.choice("gamma_init", &words)?,
            selection: selection(settings)?,
        };
        Ok(config.into())
    },
};

const OVERPARAMETERIZED: MethodSpec = MethodSpec {
    kind: "overparameterized",
    aliases: &[],
    runs_packed: false,
    settings: &[
        SettingSpec {
            key: "branches",
            kind: SettingKind::Numbers(Range::Positive),
            fallback: Fallback::Numbers(&[1.0]),
            meaning: "the constants s_k of the dense branches; V_1 starts at W0 / s_1, \
                              the others at zero",
        },
        SettingSpec {
            key: "product_width",
            kind: SettingKind::Count {
                least: 0,
                most: MOST,
            },
            fallback: Fallback::Count(0),
            meaning: "inner width of the product B A; 0 for none",
        },
        flag(
            "diagonal",
            false,
            "whether square weights have a diagonal branch",
        ),
        TARGET_MODULES,
        EXCLUDE_MODULES,
        BIAS,
    ],
    build: |settings, _| {
        let config = OverparameterizedConfig {
            branches: settings.numbers("branches")?.to_vec(),
            product_width: settings.size("product_width")?,
            diagonal: settings.flag("diagonal")?,
            selection: selection(settings)?,
        };
        Ok(config.into())
    },
};
