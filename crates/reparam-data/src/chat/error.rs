//! What can be wrong with a conversation or its template.

use std::fmt;

use reparam_formats::{shown, shown_sentence};

use super::NAMED_TEMPLATES;

/// An error in a conversation, or in the template that renders it.
///
/// The message says what is wrong; [`ChatError::hint`] says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    // Templates.
    /// There is no template.
    #[error("the model has no chat template")]
    NoTemplate,
    /// No template has this name.
    #[error("there is no chat template `{name}`", name = shown(name))]
    UnknownTemplate {
        /// The name.
        name: String,
    },
    /// The template is longer than any that is meant.
    #[error("the chat template {template} has {bytes} bytes, more than {most}", template = shown(template))]
    TooLong {
        /// Where it is from.
        template: String,
        /// Its length.
        bytes: usize,
        /// The longest that is read.
        most: usize,
    },
    /// The template is no Jinja.
    #[error("{}: the chat template cannot be read: {message}", At(template, *line), message = shown_sentence(message))]
    Syntax {
        /// Where it is from.
        template: String,
        /// The line of it, counted from 1.
        line: Option<usize>,
        /// What the parser says.
        message: String,
    },
    /// The template refuses the conversation.
    #[error("the chat template refuses the conversation: {message}", message = shown_sentence(message))]
    Refused {
        /// What it says.
        message: String,
    },
    /// The template fails on the conversation.
    #[error("{}: the chat template fails: {message}", At(template, *line), message = shown_sentence(message))]
    Failed {
        /// Where it is from.
        template: String,
        /// The line of it, counted from 1.
        line: Option<usize>,
        /// What is wrong.
        message: String,
    },
    /// The template computes more, or more text, than one conversation needs.
    #[error("{}: the chat template takes more than a conversation may: it does not end, or writes without end", At(template, *line))]
    OutOfFuel {
        /// Where it is from.
        template: String,
        /// The line of it that it had come to, counted from 1.
        line: Option<usize>,
    },
    /// The system gives no thread to render on.
    #[error("cannot render the chat template: {message}")]
    Thread {
        /// What the system says.
        message: String,
    },

    // Conversations.
    /// There are no messages.
    #[error("the conversation has no messages")]
    Empty,
    /// The messages are no list.
    #[error("the field `{field}` is {found}, not a list of messages", field = shown(field))]
    NotMessages {
        /// The field, as the file has it.
        field: String,
        /// The JSON type that is there.
        found: &'static str,
    },
    /// A field beside the messages is of another type than it has to be.
    #[error("the field `{field}` is {found}, not {wanted}", field = shown(field))]
    FieldType {
        /// The field, as the file has it.
        field: String,
        /// The JSON type that is there.
        found: &'static str,
        /// What belongs there, with its article.
        wanted: &'static str,
    },
    /// What a message says is no text.
    #[error("`content` of message {message} is {found}, not a string")]
    ContentType {
        /// Which, counted from 1.
        message: usize,
        /// The JSON type that is there.
        found: &'static str,
    },
    /// A message is none.
    #[error("message {message} is {found}, not an object with `role` and `content`")]
    NotAMessage {
        /// Which, counted from 1.
        message: usize,
        /// What is there.
        found: String,
    },
    /// A role that nobody has.
    #[error("message {message} is from `{role}`", role = shown(role))]
    UnknownRole {
        /// Which, counted from 1.
        message: usize,
        /// The role.
        role: String,
    },
    /// A message has something else than text.
    #[error("message {message} has a part that is no text: {part}", part = shown(part))]
    NotText {
        /// Which, counted from 1.
        message: usize,
        /// What it is.
        part: String,
    },
    /// A turn of the assistant says nothing.
    #[error("message {message} is the assistant's and says nothing")]
    EmptyAnswer {
        /// Which, counted from 1.
        message: usize,
    },
    /// The tools are no list.
    #[error("the field `{field}` is no list of tools", field = shown(field))]
    NotTools {
        /// The field, as the file has it.
        field: String,
    },
    /// There is no turn of the assistant, or none that is not given.
    #[error("the conversation has no answer of the assistant to learn")]
    NoAnswer,
    /// No turn of the assistant can be located in the text.
    #[error(
        "the chat template {template} writes the assistant's turns so that they cannot be told from the rest of the text",
        template = shown(template)
    )]
    NotLocated {
        /// Where the template is from.
        template: String,
    },
}

/// A place in a template.
struct At<'a>(&'a str, Option<usize>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", shown(self.0))?;
        match self.1 {
            Some(line) => write!(f, ":{line}"),
            None => Ok(()),
        }
    }
}

impl ChatError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let named = || {
            let names = NAMED_TEMPLATES.map(|(name, _)| format!("\"{name}\""));
            names.join(", ")
        };
        Some(match self {
            Self::NoTemplate => format!(
                "name one with chat_template = \"chatml\" in [data] (--chat-template chatml): {}, or a .jinja file",
                named()
            ),
            Self::UnknownTemplate { .. } => {
                format!("the names are {}; a path ends in .jinja", named())
            }
            Self::Refused { message } if message.contains("alternate") => {
                "this template wants user and assistant in turn: join messages of the same role, or leave the row out with \
                 on_error = \"skip\""
                    .to_owned()
            }
            Self::Refused { message } if message.to_lowercase().contains("system") => {
                "this template knows no system message: put its text into the first message of the user".to_owned()
            }
            Self::TooLong { .. }
            | Self::Syntax { .. }
            | Self::Refused { .. }
            | Self::Failed { .. }
            | Self::OutOfFuel { .. } => {
                "correct the template or the conversation, or use another template with chat_template in [data] \
                 (--chat-template)"
                    .to_owned()
            }
            Self::Empty | Self::NotMessages { .. } | Self::NotAMessage { .. } => {
                r#"write messages as [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]"#
                    .to_owned()
            }
            Self::FieldType { field, wanted, .. } => {
                format!("make `{}` {wanted}, leave it out, or skip such rows with on_error = \"skip\"", shown(field))
            }
            Self::ContentType { .. } => {
                "write what is said in quotes, or leave such rows out with on_error = \"skip\"".to_owned()
            }
            Self::UnknownRole { .. } => {
                "the roles are system, user, assistant and tool, of ShareGPT also human, gpt, function_call and observation"
                    .to_owned()
            }
            Self::NotText { .. } => "only text is learned: leave the row out with on_error = \"skip\"".to_owned(),
            Self::EmptyAnswer { .. } => "write the answer, or leave the message out".to_owned(),
            Self::NotTools { .. } => "write tools as a list of JSON schemas, as transformers takes them".to_owned(),
            Self::NoAnswer => {
                "a conversation needs a message with the role assistant; to learn all of it as one text, write it as `text`"
                    .to_owned()
            }
            Self::NotLocated { .. } => {
                "put the assistant's part of the template between {% generation %} and {% endgeneration %} and name the file with \
                 chat_template in [data], or set train_on_prompt = true to learn whole conversations"
                    .to_owned()
            }
            Self::Thread { .. } => return None,
        })
    }
}
