//! Rows that are conversations: from their fields to messages with `role` and `content`.

use std::fmt;

use reparam_formats::chat_templates::ChatTemplates;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Fields, Format, ReadOptions, json_type};
use crate::chat::{
    ASSISTANT, ChatError, ChatTemplate, Clock, Conversation, Rendered, Turns, message, role,
};

/// How conversations become texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatOptions {
    /// The templates.
    pub templates: ChatTemplates,
    /// Which of the assistant's turns are learned.
    pub turns: Turns,
}

/// The turns of the assistant in conversations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnCount {
    /// How many conversations there are.
    pub conversations: usize,
    /// How many parts of them are learned.
    pub learned: usize,
    /// How many turns are only read, because the template writes them otherwise once another message follows.
    pub not_located: usize,
}

impl TurnCount {
    pub(super) fn add(&mut self, other: Self) {
        self.conversations += other.conversations;
        self.learned += other.learned;
        self.not_located += other.not_located;
    }
}

/// The templates of a file, each compiled once it is needed.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    without_tools: Option<ChatTemplate>,
    with_tools: Option<ChatTemplate>,
}

impl Compiled {
    pub(super) fn render(
        &mut self,
        conversation: &Conversation,
        options: &ChatOptions,
    ) -> Result<Rendered, ChatError> {
        let with_tools = conversation.has_tools();
        let slot = match with_tools {
            true => &mut self.with_tools,
            false => &mut self.without_tools,
        };
        let template = match slot {
            Some(template) => template,
            None => {
                let template = ChatTemplate::of(&options.templates, with_tools, Clock::LEARNED)?;
                slot.insert(template)
            }
        };
        template.render_learned(conversation, options.turns)
    }
}

/// Which fields of a row make a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChatForm {
    /// A list of messages in the field of this name.
    List(&'static str, Format),
    /// Messages that are given, and messages that are learned.
    PromptCompletion,
    /// Alpaca's fields, and what was said before.
    Alpaca,
}

impl ChatForm {
    /// All of them.
    pub(super) const ALL: [Self; 5] = [
        Self::List("messages", Format::Messages),
        Self::PromptCompletion,
        Self::List("conversations", Format::Sharegpt),
        Self::List("conversation", Format::Sharegpt),
        Self::Alpaca,
    ];

    pub(super) fn format(self) -> Format {
        match self {
            Self::List(_, format) => format,
            Self::PromptCompletion => Format::Messages,
            Self::Alpaca => Format::AlpacaChat,
        }
    }

    /// The field that has the messages, if one has them all.
    pub(super) fn list(self) -> Option<&'static str> {
        match self {
            Self::List(field, _) => Some(field),
            _ => None,
        }
    }

    /// All fields that may be there.
    pub(super) fn fields(self) -> impl Iterator<Item = &'static str> + Clone {
        let own: &'static [&'static str] = match self {
            Self::List(_, _) => &["system"],
            Self::PromptCompletion => &["prompt", "completion"],
            Self::Alpaca => &["instruction", "input", "output", "system", "history"],
        };
        let others: &'static [&'static str] = match self {
            Self::Alpaca => &[],
            _ => &["tools", "chat_template_kwargs"],
        };
        let all = self.list().into_iter().chain(own.iter().copied());
        all.chain(others.iter().copied())
    }

    /// Whether rows of this form may be read with these options.
    pub(super) fn is_of(self, options: &ReadOptions) -> bool {
        options.chat.is_some()
            && match options.format {
                Some(format) if format.is_of_rows() => self.format() == format,
                Some(Format::Text | Format::Lines) => false,
                _ => true,
            }
    }

    /// Whether it has all fields that are named.
    pub(super) fn has_named(self, fields: &Fields) -> bool {
        let mut named = fields.named();
        named.all(|field| self.fields().any(|known| known == field))
    }

    /// Tells the form of a row.
    pub(super) fn of(row: &Map<String, Value>, options: &ReadOptions) -> Option<Self> {
        let get = |field: &'static str| row.get(options.fields.key(field));
        let is_list = |field| get(field).is_some_and(Value::is_array);
        let fits = |form: &Self| match form {
            Self::List(field, _) => get(field).is_some(),
            Self::PromptCompletion => is_list("prompt") && is_list("completion"),
            Self::Alpaca => {
                let asked = options.format == Some(Format::AlpacaChat);
                let says_more = get("history").is_some() || get("system").is_some();
                get("instruction").is_some() && get("output").is_some() && (asked || says_more)
            }
        };
        let mut forms = Self::ALL.into_iter();
        forms.find(|form| form.is_of(options) && form.has_named(&options.fields) && fits(form))
    }

    /// Whether its rows have fields of another form, which say less.
    pub(super) fn takes_precedence(self) -> bool {
        matches!(self, Self::PromptCompletion | Self::Alpaca)
    }

    /// Takes the conversation of a row.
    pub(super) fn conversation(
        self,
        mut row: Map<String, Value>,
        fields: &Fields,
    ) -> Result<Conversation, ChatError> {
        let mut take = |field: &'static str| -> Option<Value> {
            let value = row.get_mut(fields.key(field)).map(Value::take);
            value.filter(|value| !value.is_null())
        };
        let field = |field: &'static str| fields.key(field).to_owned();
        let mut given = 0;
        let mut messages = match self {
            Self::List(list, _) => messages(take(list).unwrap_or_default(), &field(list))?,
            Self::PromptCompletion => {
                let mut all = messages(take("prompt").unwrap_or_default(), &field("prompt"))?;
                given = all.len();
                let completion = take("completion").unwrap_or_default();
                all.extend(messages(completion, &field("completion"))?);
                all
            }
            Self::Alpaca => alpaca(&mut take, &field)?,
        };
        let has_system = put_system(&mut messages, &mut take, &field)?;
        given += usize::from(has_system && given > 0);
        if messages.is_empty() {
            return Err(ChatError::Empty);
        }
        check_answers(&messages, given)?;
        let (tools, variables) = beside(&mut take, &field)?;
        Ok(Conversation {
            messages,
            tools,
            variables,
            given,
        })
    }
}

/// The fields of a row that belong to any conversation.
pub(super) const BESIDE: [&str; 3] = ["system", "tools", "chat_template_kwargs"];

/// Puts what `system` says before messages that have none of it; returns whether it did.
pub(super) fn put_system(
    messages: &mut Vec<Map<String, Value>>,
    take: &mut impl FnMut(&'static str) -> Option<Value>,
    field: &impl Fn(&'static str) -> String,
) -> Result<bool, ChatError> {
    let system = text_of(take("system"), || field("system"))?;
    let first = messages.first();
    let has_own = first.is_some_and(|first| role(first) == Some("system"));
    match system.filter(|system| !system.is_empty() && !has_own) {
        None => Ok(false),
        Some(system) => {
            messages.insert(0, message("system", system));
            Ok(true)
        }
    }
}

/// Refuses an answer of the assistant that says nothing, among the messages that are not given.
pub(super) fn check_answers(
    messages: &[Map<String, Value>],
    given: usize,
) -> Result<(), ChatError> {
    for (at, message) in messages.iter().enumerate().skip(given) {
        let content = message.get("content");
        let is_blank = |text: &str| text.trim().is_empty();
        let is_empty = content.is_none_or(|content| content.as_str().is_some_and(is_blank));
        let says = |key| message.get(key).is_some_and(|value| !value.is_null());
        if role(message) == Some(ASSISTANT)
            && (is_empty || content == Some(&Value::Null))
            && !["tool_calls", "reasoning_content", "thinking", "reasoning"]
                .into_iter()
                .any(says)
        {
            return Err(ChatError::EmptyAnswer { message: at + 1 });
        }
    }
    Ok(())
}

/// Takes the tools and the template's variables.
pub(super) fn beside(
    take: &mut impl FnMut(&'static str) -> Option<Value>,
    field: &impl Fn(&'static str) -> String,
) -> Result<(Option<Value>, Map<String, Value>), ChatError> {
    let tools = match take("tools") {
        None => None,
        Some(tools) => tools_of(tools, &field("tools"))?,
    };
    let kwargs = "chat_template_kwargs";
    let variables = match take(kwargs) {
        None => Map::new(),
        Some(Value::Object(variables)) => variables,
        Some(other) => variables_of(&other, field(kwargs))?,
    };
    Ok((tools, variables))
}

/// Names the fields, for messages.
impl fmt::Display for ChatForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(field, _) => write!(f, "`{field}`"),
            Self::PromptCompletion => f.write_str("`prompt` and `completion` of messages"),
            Self::Alpaca => f.write_str("`instruction` and `output` with `history` or `system`"),
        }
    }
}

/// Takes the messages of a list; a table has it as a text.
pub(super) fn messages(list: Value, field: &str) -> Result<Vec<Map<String, Value>>, ChatError> {
    let found = json_type(&list);
    let wrong = || ChatError::NotMessages {
        field: field.to_owned(),
        found,
    };
    let list = match list {
        Value::Array(list) => list,
        Value::String(text) => serde_json::from_str(&text).map_err(|_| wrong())?,
        _ => return Err(wrong()),
    };
    let numbered = list.into_iter().zip(1..);
    numbered
        .map(|(message, number)| message_of(message, number))
        .collect()
}

/// Takes a message, which has `role` and `content`, or as in ShareGPT `from` and `value`.
fn message_of(value: Value, number: usize) -> Result<Map<String, Value>, ChatError> {
    let wrong = |found: String| ChatError::NotAMessage {
        message: number,
        found,
    };
    let Value::Object(mut object) = value else {
        return Err(wrong(json_type(&value).to_owned()));
    };
    let keys = || {
        let keys = object.keys().take(10).map(|key| format!("`{key}`"));
        keys.collect::<Vec<_>>().join(", ")
    };
    let is_text = |key: &str| object.get(key).is_some_and(Value::is_string);
    match (is_text("role"), is_text("from")) {
        (true, _) => {
            match object.get("content") {
                None | Some(Value::Null | Value::String(_)) => {}
                Some(Value::Array(parts)) => {
                    let text = joined(parts, number)?;
                    object.insert("content".to_owned(), text.into());
                }
                // What a tool gives is often an object, which templates write as JSON.
                Some(Value::Object(_)) if role(&object) == Some("tool") => {}
                Some(other) => {
                    return Err(ChatError::ContentType {
                        message: number,
                        found: json_type(other),
                    });
                }
            }
            Ok(object)
        }
        (false, true) => {
            let text = |value: Option<Value>| match value {
                Some(Value::String(text)) => Some(text),
                _ => None,
            };
            let from = text(object.remove("from")).unwrap_or_default();
            let said = object.remove("value").unwrap_or_default();
            let found = json_type(&said);
            let said = text(Some(said)).ok_or_else(|| wrong(format!("{found} in `value`")))?;
            sharegpt(&from, said).ok_or(ChatError::UnknownRole {
                message: number,
                role: from,
            })
        }
        (false, false) => Err(wrong(format!("an object with {}", keys()))),
    }
}

/// Takes a field that has to be a text, if it is there.
fn text_of(
    value: Option<Value>,
    field: impl FnOnce() -> String,
) -> Result<Option<String>, ChatError> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(ChatError::FieldType {
            field: field(),
            found: json_type(&other),
            wanted: "a string",
        }),
    }
}

/// The variables of a template that are written as a text of JSON, as tables have them.
fn variables_of(value: &Value, field: String) -> Result<Map<String, Value>, ChatError> {
    let text = value.as_str().unwrap_or("null");
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text).map_err(|_| ChatError::FieldType {
        field,
        found: json_type(value),
        wanted: "an object",
    })
}

/// Joins the parts of a content that are texts.
fn joined(parts: &[Value], number: usize) -> Result<String, ChatError> {
    let mut text = String::new();
    for part in parts {
        let own = part.as_str().or_else(|| part.get("text")?.as_str());
        match own {
            Some(own) => text.push_str(own),
            None => {
                let kind = part.get("type").and_then(Value::as_str);
                return Err(ChatError::NotText {
                    message: number,
                    part: kind.unwrap_or(json_type(part)).to_owned(),
                });
            }
        }
    }
    Ok(text)
}

/// A message of ShareGPT, by what speakers are called there.
fn sharegpt(from: &str, said: String) -> Option<Map<String, Value>> {
    let role = match from {
        "human" | "user" => "user",
        "gpt" | "chatgpt" | "bing" | "bard" | "bot" | "model" | "assistant" => ASSISTANT,
        "system" => "system",
        "tool" | "observation" | "function_response" | "function" => "tool",
        "function_call" | "tool_call" => {
            // A call is JSON with a name and arguments; what is none is said as it is.
            let call: Option<Value> = serde_json::from_str(&said).ok();
            let calls = match call {
                Some(Value::Array(calls)) => calls,
                Some(call) => vec![call],
                None => Vec::new(),
            };
            if calls.is_empty() || !calls.iter().all(|call| call["name"].is_string()) {
                return Some(message(ASSISTANT, said));
            }
            let of = |call: &Value| json!({ "type": "function", "function": call });
            let calls: Vec<Value> = calls.iter().map(of).collect();
            let mut message = message(ASSISTANT, "");
            message.insert("tool_calls".to_owned(), calls.into());
            return Some(message);
        }
        _ => return None,
    };
    Some(message(role, said))
}

/// The messages of Alpaca's fields, with those of `history`, a list of pairs, before them.
fn alpaca(
    take: &mut impl FnMut(&'static str) -> Option<Value>,
    field: &impl Fn(&'static str) -> String,
) -> Result<Vec<Map<String, Value>>, ChatError> {
    let wrong = |found| ChatError::NotMessages {
        field: field("history"),
        found,
    };
    let mut all = Vec::new();
    match take("history") {
        None => {}
        Some(Value::Array(pairs)) => {
            for pair in &pairs {
                let texts = pair.as_array().filter(|pair| pair.len() == 2);
                let texts = texts.and_then(|pair| pair[0].as_str().zip(pair[1].as_str()));
                let (asked, answered) = texts.ok_or_else(|| wrong("a list of other than pairs"))?;
                all.extend([message("user", asked), message(ASSISTANT, answered)]);
            }
        }
        Some(other) => return Err(wrong(json_type(&other))),
    }
    let mut text = |name| -> Result<String, ChatError> {
        let text = text_of(take(name), || field(name))?;
        Ok(text.unwrap_or_default())
    };
    let (mut asked, input, answered) = (text("instruction")?, text("input")?, text("output")?);
    if !input.is_empty() {
        if !asked.is_empty() {
            asked.push('\n');
        }
        asked.push_str(&input);
    }
    all.extend([message("user", asked), message(ASSISTANT, answered)]);
    Ok(all)
}

/// Takes a list of tools, which may be written as a text of JSON; an empty one is none.
fn tools_of(value: Value, field: &str) -> Result<Option<Value>, ChatError> {
    let wrong = || ChatError::NotTools {
        field: field.to_owned(),
    };
    let list = match value {
        Value::String(text) if text.trim().is_empty() => Value::Null,
        Value::String(text) => serde_json::from_str(&text).map_err(|_| wrong())?,
        other => other,
    };
    match list {
        Value::Null => Ok(None),
        Value::Array(tools) if tools.is_empty() => Ok(None),
        Value::Array(tools) if tools.iter().all(Value::is_object) => Ok(Some(tools.into())),
        _ => Err(wrong()),
    }
}
