//! What `[data]` says of texts before they become tokens.

use reparam::schema::{
    Fallback, SchemaError, SettingKind, SettingSpec, Settings, flag, optional, word,
};
use reparam_data::preprocess::{Normalize, Segment, StopWords, TextOptions};

use super::section::Section;
use super::{Result, words};

const NORMALIZE: [(&str, Normalize); 3] = [
    ("none", Normalize::None),
    ("nfc", Normalize::Nfc),
    ("nfkc", Normalize::Nfkc),
];

const SEGMENT: [(&str, Segment); 4] = [
    ("none", Segment::None),
    ("words", Segment::Words),
    ("chinese", Segment::Chinese),
    ("auto", Segment::Auto),
];

const STOP_WORDS: [(&str, StopWords); 4] = [
    ("none", StopWords::None),
    ("en", StopWords::En),
    ("zh", StopWords::Zh),
    ("both", StopWords::Both),
];

/// The keys of the table.
pub(super) const KEYS: [SettingSpec; 7] = [
    word(
        "normalize",
        &words::names(&NORMALIZE),
        "none",
        "normal form of Unicode",
    ),
    flag("strip_html", false, "removes tags and decodes entities"),
    flag(
        "strip_control",
        false,
        "removes characters that are not shown",
    ),
    flag("lowercase", false, "makes letters lower case"),
    word(
        "segment",
        &words::names(&SEGMENT),
        "none",
        "splits into words: by Unicode, by a Chinese dictionary (jieba), or each where it fits",
    ),
    word(
        "stop_words",
        &words::names(&STOP_WORDS),
        "none",
        "removes words that say little; needs `segment`",
    ),
    SettingSpec::new(
        "min_length",
        SettingKind::COUNT_OR_ZERO,
        Fallback::Count(0),
        "training rows with fewer characters are left out",
    ),
];

/// The setting of `[data]`.
pub(crate) const TEXT_SETTING: SettingSpec = optional(
    "text",
    SettingKind::Table(&KEYS),
    "texts as they are",
    "what is done to texts before they become tokens, here and in predictions, see its keys",
);

/// Checks that every option of the table has an effect.
pub(super) fn check(section: &Section<'_>, settings: &Settings) -> Result<()> {
    let options = text_options(settings).map_err(|error| section.schema(error))?;
    options.check().map_err(|error| {
        let fix = error.hint().unwrap_or_default();
        section.no_effect(TEXT_SETTING.key, error.to_string(), fix)
    })
}

/// Returns what settings say of texts; nothing is done to them if there is no such table.
///
/// # Errors
///
/// Values that the keys cannot have.
pub(crate) fn text_options(settings: &Settings) -> Result<TextOptions, SchemaError> {
    match settings.has(TEXT_SETTING.key) {
        false => Ok(TextOptions::default()),
        true => options(&settings.table(TEXT_SETTING.key, &KEYS)?),
    }
}

fn options(settings: &Settings) -> Result<TextOptions, SchemaError> {
    Ok(TextOptions {
        normalize: settings.choice("normalize", &NORMALIZE)?,
        strip_html: settings.flag("strip_html")?,
        strip_control: settings.flag("strip_control")?,
        lowercase: settings.flag("lowercase")?,
        segment: settings.choice("segment", &SEGMENT)?,
        stop_words: settings.choice("stop_words", &STOP_WORDS)?,
        min_length: settings.size("min_length")?,
    })
}
