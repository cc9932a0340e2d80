//! The chat templates of a checkpoint: which text of which file, and the special tokens that they may name.
//!
//! A template is a text in Jinja. It stands in `tokenizer_config.json` as `chat_template` (a text, or a list of templates with
//! names), in `chat_template.jinja`, in `additional_chat_templates/NAME.jinja`, or, where only a processor was saved, in
//! `chat_template.json`. As in transformers, files of templates replace what the configuration says. What a template makes of a
//! conversation is not known here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::FormatError;
use crate::config::{ConfigError, JsonObject};
use crate::file;

/// The file of the template that is used where none is named.
pub const TEMPLATE_FILE: &str = "chat_template.jinja";

/// The folder of further templates.
pub const MORE_TEMPLATES: &str = "additional_chat_templates";

/// The name of the template that is used where none is named.
const DEFAULT: &str = "default";

/// The name of the template that is used where a conversation comes with tools.
const TOOLS: &str = "tool_use";

/// The special tokens that transformers hands to templates, by the names that they have there.
const TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// The text of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateText {
    /// The text, in Jinja.
    pub text: String,
    /// The file that it is from, or what else it is called in messages.
    pub from: PathBuf,
}

/// The chat templates of a checkpoint, and what they may name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatTemplates {
    templates: BTreeMap<String, TemplateText>,
    tokens: BTreeMap<String, String>,
}

impl ChatTemplates {
    /// Takes them from the files of a directory, each with its name in it and its bytes; other files are not looked at.
    ///
    /// # Errors
    ///
    /// A file that is no text or no JSON object, and a `chat_template` that is neither a text nor a list of templates.
    pub fn of_files<'a>(
        directory: &Path,
        files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, ConfigError> {
        let files: BTreeMap<&str, &[u8]> = files.into_iter().collect();
        let text = |name: &str| -> Result<Option<(PathBuf, String)>, FormatError> {
            let Some(bytes) = files.get(name) else {
                return Ok(None);
            };
            let path = directory.join(name);
            let text = file::text_of(&path, bytes.to_vec())?;
            Ok(Some((path, text)))
        };
        let object = |name: &str| -> Result<Option<JsonObject>, ConfigError> {
            match text(name)? {
                Some((path, text)) => JsonObject::parse(&path, &text).map(Some),
                None => Ok(None),
            }
        };
        let mut found = Self::default();
        // What comes later replaces what came before; of tokens, the first that names one counts.
        for name in ["chat_template.json", "tokenizer_config.json"] {
            if let Some(object) = object(name)? {
                found.take_field(&object)?;
                found.take_tokens(&object);
            }
        }
        if let Some(map) = object("special_tokens_map.json")? {
            found.take_tokens(&map);
        }
        let mut own = BTreeMap::new();
        if let Some((from, text)) = text(TEMPLATE_FILE)? {
            own.insert(DEFAULT.to_owned(), TemplateText { text, from });
        }
        for name in files.keys() {
            if let Some(short) = more_name(name)
                && let Some((from, text)) = text(name)?
            {
                own.insert(short.to_owned(), TemplateText { text, from });
            }
        }
        if !own.is_empty() {
            found.templates = own;
        }
        Ok(found)
    }

    /// Returns them with one template in the place of all.
    #[must_use]
    pub fn with(mut self, template: TemplateText) -> Self {
        self.templates = BTreeMap::from([(DEFAULT.to_owned(), template)]);
        self
    }

    /// Returns them with a token where none is named, such as `eos_token`.
    #[must_use]
    pub fn with_token(mut self, name: &str, token: Option<String>) -> Self {
        if let Some(token) = token {
            self.tokens.entry(name.to_owned()).or_insert(token);
        }
        self
    }

    /// Returns the template for conversations that come with tools, or without: `tool_use` for tools where there is one, else
    /// `default`, else the only one.
    #[must_use]
    pub fn template(&self, with_tools: bool) -> Option<&TemplateText> {
        let named = |name: &str| self.templates.get(name);
        let of_tools = with_tools.then(|| named(TOOLS)).flatten();
        let only = || match self.templates.len() {
            1 => self.templates.values().next(),
            _ => None,
        };
        of_tools.or_else(|| named(DEFAULT)).or_else(only)
    }

    /// Returns the template with this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&TemplateText> {
        self.templates.get(name)
    }

    /// Returns the names of all templates.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.templates.keys().map(String::as_str)
    }

    /// Returns whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.templates.is_empty()
    }

    /// The special tokens, by the names that templates have for them.
    #[must_use]
    pub fn tokens(&self) -> &BTreeMap<String, String> {
        &self.tokens
    }

    fn take_field(&mut self, object: &JsonObject) -> Result<(), ConfigError> {
        const KEY: &str = "chat_template";
        let from = object.path().to_owned();
        let wrong = || {
            let expected = "a text, or a list of templates with `name` and `template`";
            object.wrong_type(KEY, expected)
        };
        let one = |text: &str| TemplateText {
            text: text.to_owned(),
            from: from.clone(),
        };
        self.templates = match object.get(KEY) {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::String(text)) => BTreeMap::from([(DEFAULT.to_owned(), one(text))]),
            Some(Value::Array(list)) => {
                let pair = |entry: &Value| {
                    let name = entry["name"].as_str()?;
                    Some((name.to_owned(), one(entry["template"].as_str()?)))
                };
                let pairs: Option<BTreeMap<_, _>> = list.iter().map(pair).collect();
                pairs.ok_or_else(wrong)?
            }
            // As transformers has them in memory.
            Some(Value::Object(map)) => {
                let pair =
                    |(name, text): (&String, &Value)| Some((name.clone(), one(text.as_str()?)));
                let pairs: Option<BTreeMap<_, _>> = map.iter().map(pair).collect();
                pairs.ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
        };
        Ok(())
    }

    fn take_tokens(&mut self, object: &JsonObject) {
        for name in TOKENS {
            let token = match object.get(name) {
                Some(Value::String(token)) => Some(token.as_str()),
                Some(Value::Object(token)) => token.get("content").and_then(Value::as_str),
                _ => None,
            };
            if let Some(token) = token {
                self.tokens
                    .entry(name.to_owned())
                    .or_insert_with(|| token.to_owned());
            }
        }
    }
}

/// Returns what a template is called that is in the folder of further ones, by its file's name in the checkpoint.
#[must_use]
pub fn more_name(file: &str) -> Option<&str> {
    let name = file.strip_prefix(MORE_TEMPLATES)?.strip_prefix('/')?;
    let name = name.strip_suffix(".jinja")?;
    (!name.is_empty() && !name.contains(['/', '\\'])).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)]) -> Result<ChatTemplates, ConfigError> {
        let files = files.iter().map(|(name, text)| (*name, text.as_bytes()));
        ChatTemplates::of_files(Path::new("m"), files)
    }

    fn text(templates: &ChatTemplates, tools: bool) -> Option<&str> {
        templates
            .template(tools)
            .map(|template| template.text.as_str())
    }

    #[test]
    fn the_template_is_found_wherever_it_stands() {
        let config = r#"{"chat_template": "c"}"#;
        let list = r#"{"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]}"#;
        for (files, plain, tools) in [
            (&[][..], None, None),
            (&[("tokenizer_config.json", "{}")], None, None),
            (&[("tokenizer_config.json", config)], Some("c"), Some("c")),
            (&[("tokenizer_config.json", list)], Some("d"), Some("t")),
            (
                &[("tokenizer_config.json", config), (TEMPLATE_FILE, "j")],
                Some("j"),
                Some("j"),
            ),
            (
                &[
                    ("tokenizer_config.json", list),
                    (TEMPLATE_FILE, "j"),
                    ("additional_chat_templates/tool_use.jinja", "u"),
                ],
                Some("j"),
                Some("u"),
            ),
            (
                &[("chat_template.json", r#"{"chat_template": "p"}"#)],
                Some("p"),
                Some("p"),
            ),
            (
                &[
                    ("chat_template.json", r#"{"chat_template": "p"}"#),
                    ("tokenizer_config.json", config),
                ],
                Some("c"),
                Some("c"),
            ),
            // Neither is the one that is meant.
            (
                &[(
                    "tokenizer_config.json",
                    r#"{"chat_template": {"a": "1", "b": "2"}}"#,
                )],
                None,
                None,
            ),
        ] {
            let found = of(files).unwrap();
            assert_eq!(text(&found, false), plain, "{files:?}");
            assert_eq!(text(&found, true), tools, "{files:?}");
        }
    }

    #[test]
    fn tokens_are_texts_or_have_a_content_and_the_first_file_counts() {
        let found = of(&[
            (
                "tokenizer_config.json",
                r#"{"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "pad_token": null}"#,
            ),
            (
                "special_tokens_map.json",
                r#"{"eos_token": "<other>", "unk_token": "<unk>"}"#,
            ),
        ])
        .unwrap()
        .with_token("eos_token", Some("<third>".to_owned()))
        .with_token("pad_token", Some("<pad>".to_owned()));
        let tokens: Vec<_> = found.tokens().iter().collect();
        let expected = [
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("pad_token", "<pad>"),
            ("unk_token", "<unk>"),
        ];
        let expected = expected.map(|(name, token)| (name.to_owned(), token.to_owned()));
        assert_eq!(
            tokens,
            expected.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_field_that_is_no_template_is_an_error() {
        for wrong in ["1", r#"["a"]"#, r#"[{"name": "a"}]"#, r#"{"a": 1}"#] {
            let config = format!(r#"{{"chat_template": {wrong}}}"#);
            let error = of(&[("tokenizer_config.json", &config)]).unwrap_err();
            assert!(error.to_string().contains("chat_template"), "{error}");
        }
        of(&[("tokenizer_config.json", "{")]).unwrap_err();
    }

    #[test]
    fn names_of_further_templates_stay_in_their_folder() {
        for (file, name) in [
            ("additional_chat_templates/rag.jinja", Some("rag")),
            ("additional_chat_templates/.jinja", None),
            ("additional_chat_templates/a/b.jinja", None),
            ("additional_chat_templates/rag.txt", None),
            ("chat_template.jinja", None),
        ] {
            assert_eq!(more_name(file), name, "{file}");
        }
    }
}
