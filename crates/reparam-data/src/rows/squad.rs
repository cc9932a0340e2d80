//! The nested JSON of SQuAD: articles of paragraphs of questions.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::{Result, RowError};
use super::format::RowFormat;
use super::read::{File, Row};
use crate::error::DataError;
use crate::source::json::object_of_line;
use crate::source::{DocumentSource, Fields, extension};

#[cfg(test)]
mod tests;

/// A file as far as it tells that it is one of SQuAD.
#[derive(Deserialize)]
struct Probe {
    #[serde(rename = "data")]
    _data: Vec<ArticleProbe>,
}

#[derive(Deserialize)]
struct ArticleProbe {
    #[serde(rename = "paragraphs")]
    _paragraphs: Vec<IgnoredAny>,
}

/// A file. Questions stay text until their place is known.
#[derive(Deserialize)]
struct Articles<'a> {
    #[serde(borrow)]
    data: Vec<Article<'a>>,
}

#[derive(Deserialize)]
struct Article<'a> {
    #[serde(borrow)]
    paragraphs: Vec<Paragraph<'a>>,
}

#[derive(Deserialize)]
struct Paragraph<'a> {
    context: String,
    #[serde(borrow)]
    qas: Vec<&'a RawValue>,
}

impl File<'_> {
    /// Whether an object around the articles is read where the task has questions and the name says no more than JSON.
    pub(super) fn is_squad(&self) -> bool {
        RowFormat::Squad.lacks(self.schema).is_none()
            && extension(self.path).as_deref() != Some("jsonl")
            && self.text.trim_start().starts_with('{')
            && serde_json::from_str::<Probe>(self.text).is_ok()
    }

    /// Reads the questions of all paragraphs, each with its paragraph's `context`. One with `is_impossible` has no answers.
    pub(super) fn questions(&self, rows: &mut Vec<Result<Row>>) -> Result<()> {
        let articles: Articles<'_> = serde_json::from_str(self.text).map_err(|error| {
            let message = error.to_string();
            RowError::NotSquad {
                path: self.path.to_owned(),
                line: error.line(),
                message: message
                    .split(" at line ")
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            }
        })?;
        // The format names its fields, whatever `fields` says of other files.
        let fields = Fields::default();
        let file = File {
            fields: &fields,
            ..*self
        };
        let path: Arc<Path> = Arc::from(self.path);
        let first_row = rows.len();
        let (mut line, mut at) = (1, 0);
        let paragraphs = articles.data.iter().flat_map(|article| &article.paragraphs);
        let questions = paragraphs.flat_map(|paragraph| {
            let questions = paragraph.qas.iter();
            questions.map(|question| (&paragraph.context, question.get()))
        });
        for ((context, question), item) in questions.zip(1..) {
            // The text of a question is a part of the file's.
            let begin = question.as_ptr().addr() - self.text.as_ptr().addr();
            line += self.text.as_bytes()[at..begin]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            at = begin;
            let place = DocumentSource {
                path: Arc::clone(&path),
                line,
                item: Some(item),
            };
            let object = object_of_line(question, &place).map_err(RowError::from);
            rows.push(object.and_then(|object| file.question(object, context, place)));
        }
        if rows.len() == first_row {
            return Err(DataError::NoRows {
                path: self.path.to_owned(),
            }
            .into());
        }
        Ok(())
    }

    fn question(
        &self,
        mut object: Map<String, Value>,
        context: &str,
        place: DocumentSource,
    ) -> Result<Row> {
        if object.get("is_impossible") == Some(&Value::Bool(true)) {
            object.insert("answers".to_owned(), Value::Array(Vec::new()));
        }
        object.insert("context".to_owned(), Value::from(context));
        self.object(object, place)
    }
}
