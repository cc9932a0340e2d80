//! What `[model]` says of a model that begins with nothing.

use std::path::PathBuf;

use reparam::schema::{
    SettingKind, SettingSpec, SettingValue, Settings, count, flag, optional, word,
};
use reparam_data::vocabulary::{TokenizerKind, TokenizerOptions};
use serde::Serialize;

use super::section::Section;
use super::{Result, words};

/// A model that begins with nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewModelConfig {
    /// Its family.
    pub architecture: String,
    /// Keys of its `config.json`; for the others the family's defaults hold.
    #[serde(serialize_with = "write_keys", skip_serializing_if = "Vec::is_empty")]
    pub config: Vec<(String, SettingValue)>,
    /// Where its tokenizer comes from.
    pub tokenizer: TokenizerConfig,
    /// A file of word vectors that its table of tokens begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word_vectors: Option<PathBuf>,
}

/// Where the tokenizer of a new model comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TokenizerConfig {
    /// The directory of a model, whose tokenizer is taken.
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// The training files.
    Trained(TokenizerOptions),
}

const KINDS: [(&str, TokenizerKind); 4] = [
    ("bpe", TokenizerKind::Bpe),
    ("unigram", TokenizerKind::Unigram),
    ("word_level", TokenizerKind::WordLevel),
    ("word_piece", TokenizerKind::WordPiece),
];

const TOKENIZER: [SettingSpec; 6] = [
    optional(
        "path",
        SettingKind::Text,
        "trained",
        "directory of a model whose tokenizer is taken; the other keys are then left out",
    ),
    word(
        "kind",
        &words::names(&KINDS),
        "bpe",
        "pairs of bytes, parts of words by likelihood, whole words, or BERT's parts of words",
    ),
    count("vocab_size", 8192, "maximum tokens, special ones included"),
    count("min_count", 1, "what occurs less often becomes no token"),
    flag("lowercase", false, "makes texts lower case"),
    flag(
        "sentence_marks",
        false,
        "adds `<s>`, which begins every text, and `</s>`, which ends a document; not for word_piece",
    ),
];

impl NewModelConfig {
    /// The keys of `tokenizer`.
    #[cfg(test)]
    pub(super) const TOKENIZER: &'static [SettingSpec] = &TOKENIZER;

    /// The settings of `[model]` that it is read from.
    pub(super) const SPECS: [SettingSpec; 4] = [
        optional(
            "architecture",
            SettingKind::Text,
            "none",
            "family of a new model, such as lstm, llama or bert, in place of path",
        ),
        optional(
            "config",
            SettingKind::Keys,
            "the family's defaults",
            "keys of the new model's config.json, such as { hidden_size = 256, num_hidden_layers = 4 }",
        ),
        optional(
            "tokenizer",
            SettingKind::Table(&TOKENIZER),
            "{ kind = \"bpe\" }",
            "tokenizer of the new model, trained on the training files or taken from another model, see its keys",
        ),
        optional(
            "word_vectors",
            SettingKind::Text,
            "drawn",
            "file of GloVe or word2vec with the first values of the new model's token vectors",
        ),
    ];

    /// Reads it, if there is an `architecture`.
    pub(super) fn read(section: &Section<'_>, settings: &Settings) -> Result<Option<Self>> {
        section.exclusive("architecture", "path")?;
        let schema = |error| section.schema(error);
        let architecture = settings.optional("architecture", Settings::text);
        let Some(architecture) = architecture.map_err(schema)? else {
            for key in ["config", "tokenizer", "word_vectors"] {
                if section.find(key).is_some() {
                    let reason = "it is for a new model, and a model at a path has its own";
                    return Err(section.no_effect(key, reason, format!("remove `{key}`")));
                }
            }
            return Ok(None);
        };
        for key in ["revision", "adapter"] {
            if section.find(key).is_some() {
                let reason = "it is for a model at a path, and this one is new";
                return Err(section.no_effect(key, reason, format!("remove `{key}`")));
            }
        }
        let config = settings
            .optional("config", Settings::keys)
            .map_err(schema)?;
        let tokenizer = match settings.has("tokenizer") {
            true => settings.table("tokenizer", &TOKENIZER),
            false => Settings::new("tokenizer", &TOKENIZER, &[]),
        };
        let word_vectors = settings.optional("word_vectors", Settings::text);
        Ok(Some(Self {
            architecture,
            config: config.unwrap_or_default().to_vec(),
            tokenizer: tokenizer_of(section, &tokenizer.map_err(schema)?)?,
            word_vectors: word_vectors.map_err(schema)?.map(PathBuf::from),
        }))
    }
}

fn tokenizer_of(section: &Section<'_>, settings: &Settings) -> Result<TokenizerConfig> {
    let schema = |error| section.schema(error);
    let path = settings.optional("path", Settings::text).map_err(schema)?;
    let read = || {
        Ok(TokenizerOptions {
            vocab_size: settings.size("vocab_size")?,
            min_count: settings.count("min_count")?,
            lowercase: settings.flag("lowercase")?,
            sentence_marks: settings.flag("sentence_marks")?,
            ..TokenizerOptions::new(settings.choice("kind", &KINDS)?)
        })
    };
    let options = read().map_err(schema)?;
    if let Some(path) = path {
        let defaults = Settings::new("tokenizer", &TOKENIZER, &[]).map_err(schema)?;
        let is_default = |(key, value): (&str, &SettingValue)| {
            key == "path" || defaults.value(key).is_ok_and(|default| default == value)
        };
        if let Some((key, _)) = settings.iter().find(|pair| !is_default(*pair)) {
            let reason = format!("a tokenizer at a path is made already, so its `{key}` is");
            return Err(section.no_effect("tokenizer", reason, format!("remove `{key}`")));
        }
        return Ok(TokenizerConfig::Directory { path: path.into() });
    }
    if options.sentence_marks && options.kind == TokenizerKind::WordPiece {
        let reason = "word_piece has [CLS] and [SEP], so its `sentence_marks` have no place";
        return Err(section.no_effect("tokenizer", reason, "remove `sentence_marks`"));
    }
    Ok(TokenizerConfig::Trained(options))
}

fn write_keys<S: serde::Serializer>(
    keys: &[(String, SettingValue)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(keys.iter().map(|(key, value)| (key, value)))
}
