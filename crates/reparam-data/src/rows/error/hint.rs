//! What to do about an error in rows.

use super::RowError;
use crate::error::{DataError, list};

impl RowError {
    /// What the user can do about it, if there is something to say beyond the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Fields(error) => error.hint(),
            Self::Read(DataError::NotAnObject { .. }) => {
                r#"write each row as an object of the fields of the task, as in {"text": "...", "label": "..."}"#.to_owned()
            }
            Self::Read(error) => return error.hint(),
            Self::Rows { first, .. } => {
                let skip = "leave such rows out with on_error = \"skip\" (--on-error skip)";
                return Some(match first.hint() {
                    Some(hint) => format!("{hint}; or {skip}"),
                    None => skip.to_owned(),
                });
            }
            Self::UnknownFormat { .. } => return None,
            Self::NoFormat { known, .. } => {
                format!("set format (or --format) to one of {}", list(known))
            }
            Self::FormatWithoutField { usable, .. } => {
                format!("this task reads the formats {}", list(usable))
            }
            Self::NotSquad { .. } => {
                "write {\"data\": [{\"paragraphs\": [{\"context\": .., \"qas\": [..]}]}]}, or set format (or --format) \
                 to `jsonl` for one object a question"
                    .to_owned()
            }
            Self::NoColumn {
                nearest: Some(name),
                field,
                ..
            } => {
                format!("set fields (or --fields) to {field}={name}")
            }
            Self::NoColumn { field, .. } => format!(
                "say which column it is with fields (or --fields), as in {field}=NAME; \
                 by number, as in {field}=1, if no line names the columns"
            ),
            Self::WrongType {
                field, expected, ..
            } => format!("put {expected} into `{field}`"),
            Self::UnpairedFiles { .. } => {
                "give each file of sources the file of its targets right behind it, as in [\"a.en\", \"a.de\"]; sources \
                 alone are read with format (or --format) `lines`"
                    .to_owned()
            }
            Self::LineCounts { .. } => {
                "line n of one file belongs to line n of the other: look for a line that was lost or split".to_owned()
            }
            Self::Blank { field, .. } => format!("give it a text in `{field}`, or remove the row"),
            Self::NothingLeft { first, .. } => return first.hint(),
            Self::TagCount { .. } => "give each token one tag".to_owned(),
            Self::NoTags { .. } => "give it `tags`, one a token".to_owned(),
            Self::UnknownTag {
                nearest: Some(name),
                ..
            } => format!("did you mean `{name}`?"),
            Self::UnknownTag { .. } => {
                "a tag has to be in the training data, or in the model's id2label".to_owned()
            }
            Self::AnswerCount { .. } => "give each text one answer_start".to_owned(),
            Self::AnswerNotThere {
                occurs: Some(start),
                ..
            } => {
                format!("it first occurs at {start}; offsets count characters, not bytes, from 0")
            }
            Self::AnswerNotThere { .. } | Self::AnswerNotFound { .. } => {
                "write the answer exactly as it stands in the context".to_owned()
            }
            Self::NoPair { missing, .. } => format!(
                "add it, or say which columns they are with fields (or --fields), as in {}=NAME",
                missing.first().copied().unwrap_or("text_pair")
            ),
            Self::NoLabel { .. } => "give it a `label` (or `labels`)".to_owned(),
            Self::TwoLabels { .. } => "keep the one that is meant".to_owned(),
            Self::SeveralLabels { .. } => {
                "keep one label, or train a model for several with `labels` in every row".to_owned()
            }
            Self::UnknownLabel {
                nearest: Some(name),
                ..
            } => format!("did you mean `{name}`?"),
            Self::UnknownLabel { .. } => "write a label's name, or its index from 0".to_owned(),
            Self::AmbiguousLabel { .. } => "write the names of all labels".to_owned(),
            Self::OneLabel { .. } => "add rows of another class".to_owned(),
            Self::NoLabels => "give each row a `label` or `labels`".to_owned(),
            Self::RepeatedName { .. } => "give each class a name of its own in id2label".to_owned(),
        };
        Some(hint)
    }
}
