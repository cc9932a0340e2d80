//! Texts made of the fields of a row.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{DataError, Result};

/// A text with the names of fields in braces, such as `Question: {question}\nAnswer: {answer}`.
///
/// A row's fields fill it. If it ends with a field and has another one before, it makes examples: that last field is the
/// response, which is learned, and all before it is the prompt. Any other template makes documents, which are learned as a
/// whole. `{{` and `}}` stand for braces.
///
/// ```
/// use reparam_data::Template;
///
/// let template: Template = "Question: {question}\nAnswer: {answer}".parse()?;
/// assert_eq!(template.fields().collect::<Vec<_>>(), ["question", "answer"]);
/// assert_eq!(template.response(), Some("answer"));
/// let text: Template = "# {title}\n\n{body}\n".parse()?;
/// assert_eq!(text.response(), None);
/// # Ok::<(), reparam_data::DataError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
}

impl Template {
    /// The fields, in order; one that is there twice comes twice.
    pub fn fields(&self) -> impl Iterator<Item = &str> + Clone {
        self.parts.iter().filter_map(|part| match part {
            Part::Field(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The field that is the response, if the template makes examples.
    #[must_use]
    pub fn response(&self) -> Option<&str> {
        match self.parts.last() {
            Some(Part::Field(name)) if self.fields().count() > 1 => Some(name),
            _ => None,
        }
    }

    /// Fills in the fields. Returns the text, and of an example how many bytes of it are the prompt.
    ///
    /// # Errors
    ///
    /// Those of `value`, which gives what a field holds.
    pub fn fill<'a>(
        &self,
        mut value: impl FnMut(&str) -> Result<std::borrow::Cow<'a, str>>,
    ) -> Result<(String, Option<usize>)> {
        let mut text = String::new();
        let mut prompt_len = 0;
        for part in &self.parts {
            prompt_len = text.len();
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Field(name) => text.push_str(&value(name)?),
            }
        }
        Ok((text, self.response().map(|_| prompt_len)))
    }
}

impl FromStr for Template {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |problem| DataError::Template {
            template: text.to_owned(),
            problem,
        };
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if after.starts_with(brace) {
                plain.push_str(brace);
                rest = &after[1..];
                continue;
            }
            if brace == "}" {
                return Err(wrong("has a `}` without a `{`"));
            }
            let end = after
                .find('}')
                .ok_or_else(|| wrong("has a `{` without a `}`"))?;
            let name = after[..end].trim();
            if name.is_empty() || name.contains('{') {
                return Err(wrong("has braces without a name in them"));
            }
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Field(name.to_owned()));
            rest = &after[end + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        let template = Self {
            text: text.to_owned(),
            parts,
        };
        if template.fields().next().is_none() {
            return Err(wrong("names no field"));
        }
        Ok(template)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Template {
    type Error = DataError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.text
    }
}
