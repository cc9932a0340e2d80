//! Rows of questions about a text, with answers that stand in it.

use std::ops::Range;

use serde_json::Value;

use super::error::{Result, RowError};
use super::read::{Row, Rows, Schema};
use crate::order::ContentHash;
use crate::source::{DocumentSource, json_type};

#[cfg(test)]
mod tests;

/// The fields of questions with answers, to learn from and to measure on.
pub const ANSWERED_QUESTION: Schema = Schema {
    required: &["context", "question", "answers"],
    optional: &["id"],
    unread: &[],
};

/// The fields of questions to answer; answers may be there and are not read.
pub const QUESTION: Schema = Schema {
    required: &["context", "question"],
    optional: &["id"],
    unread: &["answers"],
};

/// A question about a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionRow {
    /// The text that the answer stands in.
    pub context: String,
    /// The question.
    pub question: String,
    /// Its answers, none if the context does not have one; `None` where they are not read.
    pub answers: Option<Vec<Answer>>,
    /// What the file calls it.
    pub id: Option<String>,
    /// Where it stands.
    pub place: DocumentSource,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What it says, never nothing.
    pub text: String,
    /// The characters of the context that it is, in code points; `None` if it does not stand where it is said to, or nowhere.
    pub characters: Option<Range<usize>>,
}

/// What is demanded of the places of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnswerPlaces {
    /// Every answer stands where it is said to, as one that is learned has to; otherwise the row is an error.
    Checked,
    /// An answer may have no place, for only its text is compared.
    Optional,
}

/// Takes the questions, the contexts and the answers of rows.
///
/// `answers` is SQuAD's `{"text": [..], "answer_start": [..]}` with offsets in code points, a list of
/// `{"text": .., "answer_start": ..}`, a list of strings, or a string. Without an offset, the first occurrence in the context is
/// the place. An empty list says that there is no answer, as do answers of no text. In a table's cell it is the string, or such
/// a list or object as JSON.
///
/// A row whose fields are something else becomes an error in its place, as does with [`AnswerPlaces::Checked`] one with an
/// answer that is not there ([`RowError::AnswerNotThere`], [`RowError::AnswerNotFound`]).
#[must_use]
pub fn question_rows(rows: Rows<Row>, places: AnswerPlaces) -> Rows<QuestionRow> {
    rows.and_then(|row| {
        let text = |field| {
            let text = row.text(field)?;
            text.ok_or_else(|| row.wrong_type(field, "a string", "null".to_owned()))
        };
        let (context, question) = (text("context")?, text("question")?);
        let answers = row.value("answers").map(|value| answers(&row, value));
        let answers = answers.transpose()?.map(|answers| {
            let context = Context::of(&context);
            let answers = answers.into_iter().filter(|answer| !answer.text.is_empty());
            let placed = answers.map(|answer| context.place(answer, places, &row.place));
            placed.collect::<Result<Vec<_>>>()
        });
        let id = match row.value("id") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(Value::Number(id)) => Some(id.to_string()),
            Some(other) => {
                let found = json_type(other).to_owned();
                return Err(row.wrong_type("id", "a string or a number", found));
            }
        };
        Ok(QuestionRow {
            answers: answers.transpose()?,
            context,
            question,
            id,
            place: row.place,
        })
    })
}

/// An answer as it is written.
#[derive(Clone)]
struct Written {
    text: String,
    start: Option<i64>,
}

fn answers(row: &Row, value: &Value) -> Result<Vec<Written>> {
    let wrong = |found: &Value| {
        let expected = r#"a text, a list of texts or {"text": [..], "answer_start": [..]}"#;
        row.wrong_type("answers", expected, json_type(found).to_owned())
    };
    let one = |text: &Value, start: Option<&Value>| {
        let text = text.as_str().ok_or_else(|| wrong(text))?.to_owned();
        let start = match start {
            None | Some(Value::Null) => None,
            Some(start) => Some(start.as_i64().ok_or_else(|| wrong(start))?),
        };
        Ok(Written { text, start })
    };
    let object = |object: &serde_json::Map<String, Value>| {
        let starts = object.get("answer_start");
        match (object.get("text"), starts) {
            (Some(Value::Array(texts)), Some(Value::Array(starts))) => {
                if texts.len() != starts.len() {
                    return Err(RowError::AnswerCount {
                        place: row.place.clone(),
                        texts: texts.len(),
                        starts: starts.len(),
                    });
                }
                let pairs = texts.iter().zip(starts);
                pairs.map(|(text, start)| one(text, Some(start))).collect()
            }
            (Some(Value::Array(texts)), None) => texts.iter().map(|text| one(text, None)).collect(),
            (Some(text), starts) => Ok(vec![one(text, starts)?]),
            (None, _) => Err(wrong(value)),
        }
    };
    match value {
        Value::String(text) => {
            // A cell of a table may hold what JSON would; what is none of its forms is a text, however it begins.
            let is_json = text.starts_with(['[', '{']);
            let parsed = is_json
                .then(|| serde_json::from_str::<Value>(text).ok())
                .flatten();
            match parsed.and_then(|parsed| answers(row, &parsed).ok()) {
                Some(answers) => Ok(answers),
                None => Ok(vec![one(value, None)?]),
            }
        }
        Value::Object(map) => object(map),
        Value::Array(entries) => {
            let entries = entries.iter().map(|entry| match entry {
                Value::Object(map) => object(map),
                text => Ok(vec![one(text, None)?]),
            });
            Ok(entries.collect::<Result<Vec<_>>>()?.concat())
        }
        other => Err(wrong(other)),
    }
}

/// A context with the byte of each character.
struct Context<'a> {
    text: &'a str,
    bytes: Vec<usize>,
}

impl<'a> Context<'a> {
    fn of(text: &'a str) -> Self {
        let bytes = text.char_indices().map(|(at, _)| at);
        Self {
            text,
            bytes: bytes.chain([text.len()]).collect(),
        }
    }

    fn place(
        &self,
        answer: Written,
        places: AnswerPlaces,
        place: &DocumentSource,
    ) -> Result<Answer> {
        let Written { text, start } = answer;
        let length = text.chars().count();
        let found = match start {
            Some(start) => usize::try_from(start).ok().filter(|start| {
                let behind = self.bytes.get(*start).map(|at| &self.text[*at..]);
                behind.is_some_and(|behind| behind.starts_with(&text))
            }),
            None => self.first(&text),
        };
        match (found, places, start) {
            (None, AnswerPlaces::Checked, Some(start)) => Err(RowError::AnswerNotThere {
                place: place.clone(),
                start,
                found: self.at(start, length),
                occurs: self.first(&text),
                answer: text,
            }),
            (None, AnswerPlaces::Checked, None) => Err(RowError::AnswerNotFound {
                place: place.clone(),
                answer: text,
            }),
            (found, ..) => Ok(Answer {
                characters: found.map(|start| start..start + length),
                text,
            }),
        }
    }

    /// The character at which a text first occurs.
    fn first(&self, text: &str) -> Option<usize> {
        let at = self.text.find(text)?;
        self.bytes.binary_search(&at).ok()
    }

    /// What stands at a character, up to a length; nothing before the beginning and behind the end.
    fn at(&self, start: i64, length: usize) -> String {
        let begin = usize::try_from(start).ok();
        let begin = begin.and_then(|start| self.bytes.get(start));
        let behind = begin.map_or("", |at| &self.text[*at..]);
        behind.chars().take(length).collect()
    }
}

impl QuestionRow {
    /// The characters of the context in a range of code points, as far as there are any.
    #[must_use]
    pub fn text_at(&self, characters: &Range<usize>) -> String {
        let from = self.context.chars().skip(characters.start);
        from.take(characters.len()).collect()
    }

    /// A digest of the context alone: all questions about one text are on the same side where rows are held out.
    #[must_use]
    pub fn content(&self) -> ContentHash {
        ContentHash::of([self.context.as_bytes()])
    }
}
