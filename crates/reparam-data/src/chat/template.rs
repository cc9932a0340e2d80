//! A compiled chat template.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use minijinja::value::{Enumerator, Object};
use minijinja::{Environment, Error, ErrorKind, OutputSpan, Value};
use reparam_formats::chat_templates::{ChatTemplates, TemplateText};
use serde_json::{Map, Value as Json};

use super::clock::Clock;
use super::engine::{self, Raised};
use super::{ChatError, Conversation};

/// The longest template that is read; those of published models have up to some twenty thousand bytes.
const MOST_BYTES: usize = 1 << 20;

/// What a rendering may take at least: about a million steps, or 64 MB.
const FUEL: u64 = 1 << 20;

/// What it may take more for each byte of the conversation.
const FUEL_A_BYTE: u64 = 8;

/// The stack that templates are run on. Dropping a value that is nested as deep as the fuel allows takes some 200 bytes a level.
const STACK: usize = 1 << 28;

/// Keys under which a message has its reasoning; the first one is what templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A chat template, ready to render conversations.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// The parts of its text that are marked as generated.
    generated: Vec<Range<usize>>,
    tokens: BTreeMap<String, String>,
    /// What it is called in messages.
    from: String,
}

/// What a template is told of a conversation, made once for all renderings of it.
pub(super) struct Context {
    messages: Vec<Value>,
    others: BTreeMap<String, Value>,
    fuel: u64,
}

impl Context {
    /// The number of messages.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }
}

/// A text, and the parts of it that are marked as generated.
pub(super) struct Text {
    pub(super) text: String,
    pub(super) generated: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// Compiles a template; `tokens` are the special tokens that it may name.
    ///
    /// # Errors
    ///
    /// [`ChatError::TooLong`], [`ChatError::Syntax`], [`ChatError::Thread`].
    pub fn new(
        template: &TemplateText,
        tokens: &BTreeMap<String, String>,
        clock: Clock,
    ) -> Result<Self, ChatError> {
        let from = template.from.display().to_string();
        let bytes = template.text.len();
        if bytes > MOST_BYTES {
            return Err(ChatError::TooLong {
                template: from,
                bytes,
                most: MOST_BYTES,
            });
        }
        let compiled = on_own_stack(|| engine::compile(&template.text, clock))?;
        let (environment, generated) = compiled.map_err(|error| ChatError::Syntax {
            template: from.clone(),
            line: error.line(),
            message: told(&error),
        })?;
        Ok(Self {
            environment,
            generated,
            tokens: tokens.clone(),
            from,
        })
    }

    /// Compiles the one of a checkpoint's templates that is for conversations with tools, or without.
    ///
    /// # Errors
    ///
    /// [`ChatError::NoTemplate`], and those of [`new`](Self::new).
    pub fn of(
        templates: &ChatTemplates,
        with_tools: bool,
        clock: Clock,
    ) -> Result<Self, ChatError> {
        let template = templates
            .template(with_tools)
            .ok_or(ChatError::NoTemplate)?;
        Self::new(template, templates.tokens(), clock)
    }

    /// Renders a conversation, as `apply_chat_template` of transformers does; with `add_generation_prompt` followed by the
    /// beginning of an answer.
    ///
    /// # Errors
    ///
    /// [`ChatError::Empty`] and [`ChatError::Thread`]; [`ChatError::Refused`], [`ChatError::Failed`] and
    /// [`ChatError::OutOfFuel`] of the template.
    pub fn render(
        &self,
        conversation: &Conversation,
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        if conversation.messages.is_empty() {
            return Err(ChatError::Empty);
        }
        let render = || {
            let context = self.context(conversation);
            let all = conversation.messages.len();
            self.text(&context, all, add_generation_prompt)
        };
        Ok(on_own_stack(render)??.text)
    }

    /// The token that ends a text.
    pub(super) fn eos(&self) -> Option<&str> {
        let token = self.tokens.get("eos_token")?;
        (!token.is_empty()).then_some(token.as_str())
    }

    /// What it is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.from
    }

    /// Returns whether it marks what is generated.
    #[must_use]
    pub fn marks_generated(&self) -> bool {
        !self.generated.is_empty()
    }

    /// Makes what it is told of a conversation.
    pub(super) fn context(&self, conversation: &Conversation) -> Context {
        let tokens = self.tokens.iter();
        let mut others: BTreeMap<String, Value> = tokens
            .map(|(name, token)| (name.clone(), Value::from(token.as_str())))
            .collect();
        let optional = |value: Option<&Json>| value.map_or(Value::from(()), value_of);
        others.insert("documents".to_owned(), Value::from(()));
        others.insert("tools".to_owned(), optional(conversation.tools.as_ref()));
        for (name, value) in &conversation.variables {
            others.insert(name.clone(), value_of(value));
        }
        let bytes =
            size(&conversation.messages) + conversation.tools.iter().map(json_size).sum::<u64>();
        Context {
            messages: conversation.messages.iter().map(plain).collect(),
            others,
            fuel: FUEL.saturating_add(bytes.saturating_mul(FUEL_A_BYTE)),
        }
    }

    /// Renders the first messages of a conversation.
    pub(super) fn text(
        &self,
        context: &Context,
        messages: usize,
        add_generation_prompt: bool,
    ) -> Result<Text, ChatError> {
        // A clone shares the compiled template.
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(context.fuel));
        let mut told = context.others.clone();
        told.insert(
            "messages".to_owned(),
            Value::from(context.messages[..messages].to_vec()),
        );
        told.insert(
            "add_generation_prompt".to_owned(),
            Value::from(add_generation_prompt),
        );
        let rendered = environment
            .get_template(engine::NAME)
            .and_then(|template| template.render_with_spans(Value::from(told)));
        let (text, spans) = rendered.map_err(|error| self.failure(&error))?;
        let generated = self.generated_of(&spans);
        Ok(Text { text, generated })
    }

    /// The parts of a text that come from parts of the template that are marked as generated.
    fn generated_of(&self, spans: &[OutputSpan]) -> Vec<Range<usize>> {
        let mut parts: Vec<Range<usize>> = Vec::new();
        let is_marked = |span: &&OutputSpan| {
            let begin = span.source_range().start;
            self.generated.iter().any(|part| part.contains(&begin))
        };
        for span in spans.iter().filter(is_marked) {
            let written = span.output_range();
            match parts.last_mut() {
                Some(last) if last.end == written.start => last.end = written.end,
                _ => parts.push(written),
            }
        }
        parts
    }

    fn failure(&self, error: &Error) -> ChatError {
        let template = self.from.clone();
        let line = error.line();
        if let Some(message) = raised(error) {
            return ChatError::Refused { message };
        }
        match error.kind() {
            ErrorKind::OutOfFuel => ChatError::OutOfFuel { template, line },
            _ => ChatError::Failed {
                template,
                line,
                message: told(error),
            },
        }
    }
}

/// A message as transformers hands it to templates: without keys that are null, and with its reasoning under the names that they
/// read.
fn plain(message: &Map<String, Json>) -> Value {
    let kept = message.iter().filter(|(_, value)| !value.is_null());
    let mut plain: Map<String, Json> = kept
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if let Some(reasoning) = REASONING.iter().find_map(|key| plain.get(*key)).cloned() {
        plain
            .entry(REASONING[1])
            .or_insert_with(|| reasoning.clone());
        plain.insert(REASONING[0].to_owned(), reasoning);
    }
    value_of(&Json::Object(plain))
}

/// A value of JSON as one of the engine's.
fn value_of(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => Value::from(number),
            (None, Some(number), _) => Value::from(number),
            (None, None, number) => Value::from(number.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(value_of).collect(),
        Json::Object(map) => {
            let pairs = map.iter();
            let pairs = pairs.map(|(key, value)| (Value::from(key.as_str()), value_of(value)));
            Value::from_object(Ordered(pairs.collect()))
        }
    }
}

/// An object in the order of its text, as a dictionary of Python has it.
#[derive(Debug)]
struct Ordered(Vec<(Value, Value)>);

impl Object for Ordered {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let mut pairs = self.0.iter();
        pairs
            .find(|(own, _)| own == key)
            .map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(key, _)| key.clone()).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.0.len())
    }
}

/// What a template said of a conversation that it refused.
fn raised(error: &Error) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref() {
            return Some(message.clone());
        }
        cause = error.source();
    }
    None
}

/// What the engine says, without the place.
fn told(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

fn size(messages: &[Map<String, Json>]) -> u64 {
    let values = messages.iter().flat_map(Map::iter);
    values
        .map(|(key, value)| key.len() as u64 + json_size(value))
        .sum()
}

/// About as many bytes as a value has.
fn json_size(value: &Json) -> u64 {
    match value {
        Json::String(text) => text.len() as u64,
        Json::Array(items) => items.iter().map(json_size).sum::<u64>() + 2,
        Json::Object(map) => {
            let entries = map.iter();
            entries
                .map(|(key, value)| key.len() as u64 + json_size(value) + 2)
                .sum()
        }
        _ => 4,
    }
}

/// Runs a template, whose values may be nested deep, on a stack that is deep enough; a panic becomes an error.
pub(super) fn on_own_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, ChatError> {
    let failed = |message: String| ChatError::Thread { message };
    thread::scope(|scope| {
        let builder = thread::Builder::new().stack_size(STACK);
        let running = builder.spawn_scoped(scope, work);
        let running = running.map_err(|error| failed(error.to_string()))?;
        running
            .join()
            .map_err(|_| failed("the template engine panicked".to_owned()))
    })
}
