//! `[data]`.

use std::path::PathBuf;

use reparam::schema::{
    Range, SchemaError, SettingKind, SettingSpec, SettingValue, Settings, count, flag, number,
    optional, required, word,
};
use reparam_data::chat::Turns;
use reparam_data::preprocess::TextOptions;
use reparam_data::source::Learn;
use reparam_data::tokenizer::NewToken;
use reparam_data::{
    Cache, ChatOptions, DataError, Fields, Format, OnError, PackingStrategy, ReadOptions, Template,
    TooLong, Weights,
};
use reparam_formats::hub::HubOptions;
use serde::{Serialize, Serializer};

use super::error::{ConfigError, ConfigErrorKind};
use super::read::setting;
use super::section::Section;
use super::text::{TEXT_SETTING, text_options};
use super::{Precision, Result, RunConfig, RunData, runs_in_bf16, text, words};
use crate::chat;

/// `[data]`: the texts to train on and to evaluate with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataConfig {
    /// The files to train on; in the run file one path or a list.
    pub train: Vec<PathBuf>,
    /// `eval` or `eval_fraction`: what the loss is measured on.
    #[serde(flatten)]
    pub eval: EvalData,
    /// The most predicted tokens that are held out; only where a part of the training data is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_max: Option<u64>,
    /// The format of every file; told from each file's name and its first row if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Which column holds which field.
    #[serde(skip_serializing_if = "Fields::is_empty")]
    pub fields: Fields,
    /// What makes a text of a row's fields, instead of a format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    /// What makes texts of conversations: a name or a path; the model's own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// Which of the assistant's turns are learned.
    #[serde(serialize_with = "write_turns")]
    pub train_on_turns: Turns,
    /// What is done to texts before they become tokens; as in the run of the model if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<TextOptions>,
    /// What is done with a row that cannot be read.
    #[serde(serialize_with = "write_on_error")]
    pub on_error: OnError,
    /// Whether the prompts of examples are learned too, not given alone.
    pub train_on_prompt: bool,
    /// How often an epoch has the documents of each path of `train`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Vec<f64>>,
    /// How documents are put into blocks of `sequence_length` tokens.
    #[serde(serialize_with = "write_packing")]
    pub packing: PackingStrategy,
    /// What is done with examples that are longer than a sequence.
    #[serde(serialize_with = "write_too_long")]
    pub too_long: TooLong,
    /// Whether the order of the blocks is drawn anew, from the seed, for each epoch.
    pub shuffle: bool,
    /// Whether the states of a recurrent model go on from step to step.
    pub carry_state: bool,
    /// Where the tokens of the files are kept.
    #[serde(
        skip_serializing_if = "CacheChoice::is_auto",
        serialize_with = "write_cache"
    )]
    pub cache: CacheChoice,
    /// What is learned of pairs of answers.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_learn"
    )]
    pub learn: Option<Learn>,
    /// Tokens that the tokenizer gets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_tokens: Vec<String>,
    /// The same, left out of what is decoded for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_special_tokens: Vec<String>,
}

/// Where tokens are kept, so that they are neither made twice nor held in memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CacheChoice {
    /// Those of large files in `reparam` beside the models of the hub; others in memory.
    #[default]
    Auto,
    /// All in memory.
    Off,
    /// In this directory.
    Directory(PathBuf),
}

impl CacheChoice {
    const AUTO: &str = "auto";
    const OFF: &str = "off";

    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }

    fn of(text: &str) -> Self {
        match text {
            Self::AUTO => Self::Auto,
            Self::OFF => Self::Off,
            path => Self::Directory(path.into()),
        }
    }

    /// Returns the cache, which by default is beside that of a hub.
    #[must_use]
    pub fn directory(&self, hub: &HubOptions) -> Option<Cache> {
        match self {
            Self::Auto => Some(Cache::Large(hub.cache_dir.with_file_name("reparam"))),
            Self::Off => None,
            Self::Directory(path) => Some(Cache::All(path.clone())),
        }
    }
}

fn write_cache<S: Serializer>(cache: &CacheChoice, serializer: S) -> Result<S::Ok, S::Error> {
    match cache {
        CacheChoice::Auto => serializer.serialize_str(CacheChoice::AUTO),
        CacheChoice::Off => serializer.serialize_str(CacheChoice::OFF),
        CacheChoice::Directory(path) => path.serialize(serializer),
    }
}

/// What the loss is measured on, apart from the training data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum EvalData {
    /// Files of their own.
    #[serde(rename = "eval")]
    Files(Vec<PathBuf>),
    /// A part of the training data, in 0..1, that is held out; 0 for none.
    #[serde(rename = "eval_fraction")]
    Fraction(f64),
}

impl EvalData {
    pub(super) fn of(settings: &Settings) -> Result<Self, SchemaError> {
        Ok(match settings.has("eval") {
            true => Self::Files(paths(settings, "eval")?),
            false => Self::Fraction(settings.number("eval_fraction")?),
        })
    }

    /// Reads the most that is held out, where a part of the training data is.
    pub(super) fn max(&self, settings: &Settings) -> Result<Option<u64>, SchemaError> {
        match self {
            Self::Fraction(fraction) if *fraction > 0.0 => settings.count("eval_max").map(Some),
            Self::Fraction(_) | Self::Files(_) => Ok(None),
        }
    }
}

/// Refuses a bound on what is held out where nothing is.
pub(super) fn check_eval_max(section: &Section<'_>, eval: &EvalData) -> Result<()> {
    section.exclusive("eval_max", "eval")?;
    if section.find("eval_max").is_some() && *eval == EvalData::Fraction(0.0) {
        return Err(section.no_effect(
            "eval_max",
            "`eval_fraction` is 0, so nothing is held out",
            "remove `eval_max`",
        ));
    }
    Ok(())
}

pub(super) fn paths(settings: &Settings, key: &str) -> Result<Vec<PathBuf>, SchemaError> {
    Ok(settings.texts(key)?.iter().map(PathBuf::from).collect())
}

const PACKING: [(&str, PackingStrategy); 3] = [
    ("best_fit", PackingStrategy::BestFitDecreasing),
    ("sequential", PackingStrategy::Sequential),
    ("none", PackingStrategy::None),
];

pub(super) fn write_on_error<S: Serializer>(
    on_error: &OnError,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    words::write(&OnError::WORDS, on_error, serializer)
}

/// Reads which column holds which field.
pub(super) fn fields(section: &Section<'_>) -> Result<Fields> {
    let Some(entry) = section.find("fields") else {
        return Ok(Fields::default());
    };
    let Some(SettingValue::TextByName(pairs)) = setting(section, &DataConfig::FIELDS)? else {
        return Ok(Fields::default());
    };
    Fields::new(pairs).map_err(|_| {
        let expected = "columns that are all names or all numbers, each field once";
        section.out_of_range("fields", &entry.node, expected)
    })
}

/// The formats of files of texts. Conversations are behind them among all formats.
pub(super) const FORMATS: [(&str, Format); 8] = words_of();

/// The formats of what a causal language model learns from.
const ALL_FORMATS: [(&str, Format); Format::ALL.len()] = words_of();

const fn words_of<const N: usize>() -> [(&'static str, Format); N] {
    let mut words = [("", Format::Text); N];
    let mut i = 0;
    while i < words.len() {
        words[i] = (Format::ALL[i].name(), Format::ALL[i]);
        i += 1;
    }
    words
}

/// The format of files of texts.
pub(super) const FORMAT: SettingSpec = optional(
    "format",
    SettingKind::Word(&words::names(&FORMATS)),
    "by extension and fields",
    "file format, see formats",
);

fn write_turns<S: Serializer>(turns: &Turns, serializer: S) -> Result<S::Ok, S::Error> {
    words::write(&Turns::WORDS, turns, serializer)
}

fn write_too_long<S: Serializer>(too_long: &TooLong, serializer: S) -> Result<S::Ok, S::Error> {
    words::write(&TooLong::WORDS, too_long, serializer)
}

fn write_learn<S: Serializer>(learn: &Option<Learn>, serializer: S) -> Result<S::Ok, S::Error> {
    match learn {
        Some(learn) => words::write(&Learn::WORDS, learn, serializer),
        None => serializer.serialize_none(),
    }
}

fn write_packing<S: Serializer>(
    packing: &PackingStrategy,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    words::write(&PACKING, packing, serializer)
}

impl DataConfig {
    /// Returns how the files are read.
    #[must_use]
    pub fn reading(&self) -> ReadOptions {
        ReadOptions {
            format: self.format,
            fields: self.fields.clone(),
            template: self.template.clone(),
            on_error: self.on_error,
            text: self.text.clone().unwrap_or_default(),
            // The templates are those of the model, which is not read yet.
            chat: Some(ChatOptions {
                turns: self.train_on_turns,
                ..ChatOptions::default()
            }),
            learn: self.learn,
        }
    }

    /// Returns the tokens that the tokenizer gets, the special ones last.
    #[must_use]
    pub fn new_tokens(&self) -> Vec<NewToken> {
        let of = |tokens: &[String], special| {
            let tokens = tokens.iter().cloned();
            let tokens = tokens.map(|content| NewToken { content, special });
            tokens.collect::<Vec<_>>()
        };
        [
            of(&self.add_tokens, false),
            of(&self.add_special_tokens, true),
        ]
        .concat()
    }

    /// Refuses what streams have no use for: they are read as they come.
    fn in_order(self, section: &Section<'_>) -> Result<Self> {
        let is_said = |key: &str| section.find(key).is_some();
        let unused = [
            ("shuffle", self.shuffle),
            ("packing", self.packing != PackingStrategy::Sequential),
            ("train_on_prompt", self.train_on_prompt),
            ("weights", self.weights.is_some()),
        ];
        for (key, is_other) in unused {
            if is_other && is_said(key) {
                let reason = "`carry_state` reads documents in the order of the files";
                return Err(section.no_effect(key, reason, format!("remove `{key}`")));
            }
        }
        Ok(Self {
            shuffle: false,
            packing: PackingStrategy::Sequential,
            ..self
        })
    }

    /// The files to train on.
    pub const TRAIN: SettingSpec = required(
        "train",
        SettingKind::Texts,
        "\"data.txt\"",
        "training data: a path or a list of paths; a path is a file, a directory, or a pattern such as \
         data/**/*.jsonl",
    );

    /// The files to measure on.
    pub const EVAL: SettingSpec = optional(
        "eval",
        SettingKind::Texts,
        "",
        "held-out files; excludes eval_fraction",
    );

    /// Which column holds which field.
    pub const FIELDS: SettingSpec = optional(
        "fields",
        SettingKind::TextByName,
        "columns named as the fields",
        "which column holds which field, as in { text = \"review\" } or \"text=review,label=kind\"; by number if no \
         line names the columns",
    );

    /// What is done with a row that cannot be read.
    pub const ON_ERROR: SettingSpec = word(
        "on_error",
        &words::names(&OnError::WORDS),
        "error",
        "unreadable rows: error, or skip to leave them out and count them",
    );

    /// The part of the training data to measure on.
    pub const EVAL_FRACTION: SettingSpec = number(
        "eval_fraction",
        Range::BelowOne,
        0.05,
        "fraction of the training data to hold out; 0 for none",
    );

    /// The most tokens that are held out.
    const EVAL_MAX: SettingSpec = count(
        "eval_max",
        100_000,
        "maximum predicted tokens to hold out, whatever eval_fraction says",
    );

    /// Where tokens are kept.
    const CACHE: SettingSpec = optional(
        "cache",
        SettingKind::Text,
        CacheChoice::AUTO,
        "where tokens are kept: auto (those of 64 MB of files and more beside the hub's cache), off (in memory), or a directory",
    );

    /// Whether the order is drawn anew for each epoch.
    pub const SHUFFLE: SettingSpec = flag("shuffle", true, "reshuffle blocks or rows every epoch");
}

/// The settings of the section.
pub(super) const SPECS: &[SettingSpec] = &[
    DataConfig::TRAIN,
    optional(
        "weights",
        SettingKind::Numbers(Range::Positive),
        "all 1",
        "how often an epoch has each document of each path of train: [1, 0.25] takes a quarter of the second",
    ),
    DataConfig::EVAL,
    DataConfig::EVAL_FRACTION,
    DataConfig::EVAL_MAX,
    optional(
        "format",
        SettingKind::Word(&words::names(&ALL_FORMATS)),
        "by extension and fields",
        "file format, see formats",
    ),
    DataConfig::FIELDS,
    optional(
        "template",
        SettingKind::Text,
        "",
        "makes a text of a row's fields, see templates",
    ),
    optional(
        "chat_template",
        SettingKind::Text,
        "the model's own",
        "makes texts of conversations: chatml, llama3, zephyr, vicuna, alpaca, mistral-instruct or a .jinja file, see conversations",
    ),
    TEXT_SETTING,
    DataConfig::ON_ERROR,
    flag(
        "train_on_prompt",
        false,
        "also learn the prompts of examples and all else of conversations; an error if there are none",
    ),
    word(
        "train_on_turns",
        &words::names(&Turns::WORDS),
        "all",
        "which of the assistant's turns in conversations are learned: all, or the last",
    ),
    word(
        "packing",
        &words::names(&PACKING),
        "best_fit",
        "best_fit: each piece goes where it leaves the least room; sequential: in the order of the \
             files; none: one piece a block",
    ),
    word(
        "too_long",
        &words::names(&TooLong::WORDS),
        "cut",
        "examples and conversations longer than sequence_length: cut, truncate to keep their beginnings, drop to leave them out, or error",
    ),
    DataConfig::SHUFFLE,
    flag(
        "carry_state",
        false,
        "recurrent models: each step goes on in the texts where the step before ended, with its states, see carried states",
    ),
    DataConfig::CACHE,
    optional(
        "learn",
        SettingKind::Word(&words::names(&Learn::WORDS)),
        "none",
        "what is learned of pairs of answers (format = \"preference\"): the chosen ones, as examples",
    ),
    optional(
        "add_tokens",
        SettingKind::Texts,
        "none",
        "new tokens, such as [\"<tool>\", \"</tool>\"], whose vectors are trained, see new tokens",
    ),
    optional(
        "add_special_tokens",
        SettingKind::Texts,
        "none",
        "the same, left out of generated texts",
    ),
];

impl RunData for DataConfig {
    fn specs() -> Vec<&'static SettingSpec> {
        SPECS.iter().collect()
    }

    fn read(section: &Section<'_>) -> Result<Self> {
        section.exclusive("eval_fraction", "eval")?;
        let fields = fields(section)?;
        let template = template(section)?;
        let chat_template = chat_template(section)?;
        text::check(section, &section.read(&[TEXT_SETTING])?)?;
        let mut config = section.typed(SPECS, |settings| {
            let eval = EvalData::of(settings)?;
            Ok(Self {
                train: paths(settings, "train")?,
                weights: settings
                    .optional("weights", Settings::numbers)?
                    .map(<[f64]>::to_vec),
                eval_max: eval.max(settings)?,
                eval,
                format: settings
                    .optional("format", |settings, key| settings.choice(key, &ALL_FORMATS))?,
                fields,
                template,
                chat_template,
                train_on_turns: settings.choice("train_on_turns", &Turns::WORDS)?,
                text: settings
                    .has(TEXT_SETTING.key)
                    .then(|| text_options(settings))
                    .transpose()?,
                on_error: settings.choice("on_error", &OnError::WORDS)?,
                train_on_prompt: settings.flag("train_on_prompt")?,
                packing: settings.choice("packing", &PACKING)?,
                too_long: settings.choice("too_long", &TooLong::WORDS)?,
                shuffle: settings.flag("shuffle")?,
                carry_state: settings.flag("carry_state")?,
                cache: settings
                    .optional("cache", Settings::text)?
                    .map_or(CacheChoice::Auto, |text| CacheChoice::of(&text)),
                learn: settings
                    .optional("learn", |settings, key| settings.choice(key, &Learn::WORDS))?,
                add_tokens: added(settings, "add_tokens")?,
                add_special_tokens: added(settings, "add_special_tokens")?,
            })
        })?;
        for (key, tokens) in [
            ("add_tokens", &config.add_tokens),
            ("add_special_tokens", &config.add_special_tokens),
        ] {
            if tokens.iter().any(|token| token.trim().is_empty()) {
                let source = DataError::EmptyToken;
                return Err(section.at(key, ConfigErrorKind::Data { source }));
            }
        }
        if let Some(of) = &config.weights {
            let weights = Weights {
                of: of.clone(),
                seed: 0,
            };
            weights
                .check(config.train.len())
                .map_err(|source| section.at("weights", ConfigErrorKind::Data { source }))?;
        }
        if config.carry_state {
            config = config.in_order(section)?;
        }
        check_eval_max(section, &config.eval)?;
        config.reading().check().map_err(|source| {
            let key = match source {
                DataError::LearnWithoutPairs => {
                    let fix = "remove `learn`, or set format = \"preference\"";
                    return section.no_effect("learn", "the format is not `preference`", fix);
                }
                DataError::TemplateAndFormat { .. } | DataError::LearnOfPairs => "format",
                _ => "fields",
            };
            section.at(key, ConfigErrorKind::Data { source })
        })?;
        let has_no_prompts = match (&config.template, config.format) {
            (Some(template), _) => template.response().is_none(),
            (None, format) => matches!(format, Some(Format::Text | Format::Lines)),
        };
        let is_other = |format: Format| {
            let may_be_one = format.is_of_conversations() || format == Format::Preference;
            format.is_of_rows() && !may_be_one
        };
        let has_no_turns =
            has_no_prompts || config.template.is_some() || config.format.is_some_and(is_other);
        // A resolved file says the default, too.
        let learns_last = config.train_on_turns != Turns::default();
        let of_turns = [
            ("chat_template", config.chat_template.is_some()),
            ("train_on_turns", learns_last),
        ];
        if let Some((key, _)) = of_turns
            .into_iter()
            .find(|(_, is_set)| *is_set && has_no_turns)
        {
            let reason = "rows of this `format` or `template` are no conversations";
            return Err(section.no_effect(key, reason, format!("remove `{key}`")));
        }
        if config.train_on_prompt && learns_last {
            let reason = "`train_on_prompt` learns whole conversations";
            return Err(section.no_effect("train_on_turns", reason, "remove one of the two"));
        }
        if config.too_long != TooLong::Cut && has_no_prompts {
            return Err(section.no_effect(
                "too_long",
                "documents of this `format` or `template` are always cut",
                "remove `too_long`",
            ));
        }
        if config.train_on_prompt && has_no_prompts {
            return Err(section.no_effect(
                "train_on_prompt",
                "documents of this `format` or `template` have no prompts",
                "remove `train_on_prompt`",
            ));
        }
        Ok(config)
    }

    fn eval(&self) -> &EvalData {
        &self.eval
    }

    /// What runs in bf16 is methods with a plan, and recomputing is part of that.
    fn check(run: &RunConfig, train: &Section<'_>) -> Result<()> {
        // What an adapter runs in is known when it is read.
        let method = run.method.as_ref();
        let runs_in_bf16 = method.is_none_or(|method| runs_in_bf16(&run.catalog, method));
        if run.train.precision == Precision::Bf16 && !runs_in_bf16 {
            return Err(train.no_effect(
                "precision",
                "the `kind` in [method] runs in f32 only",
                "set `precision` to \"f32\"",
            ));
        }
        if run.train.recompute && (run.train.precision == Precision::F32 || !runs_in_bf16) {
            return Err(recompute_in_f32(train));
        }
        Ok(())
    }
}

fn added(settings: &Settings, key: &str) -> Result<Vec<String>, SchemaError> {
    let texts = settings.optional(key, Settings::texts)?;
    Ok(texts.map(<[String]>::to_vec).unwrap_or_default())
}

fn template(section: &Section<'_>) -> Result<Option<Template>> {
    let Some(entry) = section.find("template") else {
        return Ok(None);
    };
    let text = section.string_of("template", &entry.node, "a string")?;
    let template = text.parse();
    template
        .map(Some)
        .map_err(|source| section.at("template", ConfigErrorKind::Data { source }))
}

fn chat_template(section: &Section<'_>) -> Result<Option<String>> {
    let Some(entry) = section.find("chat_template") else {
        return Ok(None);
    };
    let name = section.string_of("chat_template", &entry.node, "a string")?;
    chat::check_name(&name).map_err(|error| {
        section.at(
            "chat_template",
            ConfigErrorKind::Data {
                source: error.into(),
            },
        )
    })?;
    Ok(Some(name))
}

/// The error for recomputing where nothing runs in bf16.
pub(super) fn recompute_in_f32(train: &Section<'_>) -> ConfigError {
    let reason = "it applies to bf16, and this run is in f32";
    train.no_effect("recompute", reason, "remove `recompute`")
}
