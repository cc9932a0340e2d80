//! Which part of a rendered conversation the assistant says.

use std::ops::Range;

use super::template::{ChatTemplate, Context, Text, on_own_stack};
use super::{ASSISTANT, ChatError, Conversation, Turns, role};

/// A conversation as a text, and what of it is learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text, special tokens included.
    pub text: String,
    /// The bytes that the assistant says, in the order of the text.
    pub learned: Vec<Range<usize>>,
    /// Whether the template marks them. Else they are found by what comes before and behind them, and may end in what stands
    /// between two turns.
    pub marked: bool,
    /// How many turns of the assistant should be learned and are not, because the template writes them otherwise once another
    /// message follows.
    pub not_located: usize,
}

impl ChatTemplate {
    /// Renders a conversation and locates the assistant's turns.
    ///
    /// # Errors
    ///
    /// Those of [`render`](Self::render); [`ChatError::NoAnswer`] if there is no turn to learn, and [`ChatError::NotLocated`] if
    /// there is one and none can be located.
    pub fn render_learned(
        &self,
        conversation: &Conversation,
        turns: Turns,
    ) -> Result<Rendered, ChatError> {
        let messages = &conversation.messages;
        if messages.is_empty() {
            return Err(ChatError::Empty);
        }
        let is_answer = |at: &usize| role(&messages[*at]) == Some(ASSISTANT);
        let mut wanted: Vec<usize> = (0..messages.len()).filter(is_answer).collect();
        let answers = wanted.len();
        if turns == Turns::Last {
            wanted.drain(..wanted.len().saturating_sub(1));
        }
        wanted.retain(|at| *at >= conversation.given);
        if wanted.is_empty() {
            return Err(ChatError::NoAnswer);
        }
        let rendered = on_own_stack(|| {
            let context = self.context(conversation);
            let whole = self.text(&context, messages.len(), false)?;
            Ok(match self.marks_generated() {
                true => self.marked(&context, whole, &wanted, answers),
                false => self.located(&context, whole, &wanted),
            })
        })??;
        match rendered.learned.is_empty() {
            true => Err(ChatError::NotLocated {
                template: self.name().to_owned(),
            }),
            false => Ok(rendered),
        }
    }

    /// Takes what the template marks, of a conversation with so many answers, of which the last ones are wanted.
    fn marked(&self, context: &Context, whole: Text, wanted: &[usize], answers: usize) -> Rendered {
        let Text { text, generated } = whole;
        let unwanted = answers - wanted.len();
        let learned = match unwanted {
            0 => generated,
            // Each part is an answer.
            _ if generated.len() == answers => generated[unwanted..].to_vec(),
            _ => {
                // A mark may be around the header of a turn, too.
                let begin = match wanted[0] {
                    0 => 0,
                    first => {
                        let begin = self.prefix(context, &text, first, false);
                        begin.unwrap_or(text.len())
                    }
                };
                let parts = generated.into_iter();
                parts.filter(|part| part.start >= begin).collect()
            }
        };
        Rendered {
            text,
            learned,
            marked: true,
            not_located: 0,
        }
    }

    /// Locates turns by what comes before and behind them.
    fn located(&self, context: &Context, whole: Text, wanted: &[usize]) -> Rendered {
        let text = whole.text;
        let mut learned: Vec<Range<usize>> = Vec::new();
        for &at in wanted {
            let end = match at + 1 == context.len() {
                true => Some(text.len()),
                false => self.prefix(context, &text, at + 1, false),
            };
            let part = self
                .begin(context, &text, at)
                .zip(end)
                .map(|(begin, end)| begin..end);
            let behind = learned.last().map_or(0, |last| last.end);
            learned.extend(part.filter(|part| part.start >= behind && part.start < part.end));
        }
        Rendered {
            not_located: wanted.len() - learned.len(),
            text,
            learned,
            marked: false,
        }
    }

    /// Where the turn of this message begins: behind the messages before it and the beginning of an answer.
    fn begin(&self, context: &Context, whole: &str, at: usize) -> Option<usize> {
        match at {
            // Templates look at the first message, and so are not asked about none.
            0 => None,
            _ => self.prefix(context, whole, at, true),
        }
    }

    /// The length of the text of the first messages, if that is how the whole text begins.
    fn prefix(
        &self,
        context: &Context,
        whole: &str,
        messages: usize,
        add_generation_prompt: bool,
    ) -> Option<usize> {
        // A template may refuse the beginning of a conversation that it takes as a whole.
        let prefix = self.text(context, messages, add_generation_prompt).ok()?;
        let text = prefix.text.as_str();
        if whole.starts_with(text) {
            return Some(text.len());
        }
        // Some templates end with EOS what they write, which only the last turn of the whole has then.
        let open = text.strip_suffix(self.eos()?)?;
        whole.starts_with(open).then_some(open.len())
    }
}
