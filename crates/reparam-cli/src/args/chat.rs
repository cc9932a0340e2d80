//! Arguments of conversations.

use clap::Args;

use super::{GenerateArgs, ModelArgs, SamplingArgs, at_least};
use crate::error::Result;
use crate::wrong_use::conflict;

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) template: TemplateArgs,
    /// Maximum number of tokens of an answer; default: 512, or what the model has positions for
    #[arg(long, allow_negative_numbers = true, value_name = "N", value_parser = at_least(1))]
    pub(crate) max_new_tokens: Option<usize>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

/// How what is said becomes a text.
#[derive(Debug, Args)]
pub(crate) struct TemplateArgs {
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) system: Option<String>,
    /// Chat template: chatml, llama3, zephyr, vicuna, alpaca, mistral-instruct or a .jinja file; default: the adapter's, else the model's
    #[arg(long, value_name = "NAME_OR_FILE")]
    pub(crate) chat_template: Option<String>,
}

impl GenerateArgs {
    /// Refuses what only a conversation uses where there is none.
    pub(crate) fn check(&self) -> Result<()> {
        let template = &self.template;
        let only_chat = [
            ("--system", template.system.is_some()),
            ("--chat-template", template.chat_template.is_some()),
        ];
        match only_chat
            .into_iter()
            .find(|(_, given)| *given && !self.chat)
        {
            None => Ok(()),
            Some((flag, _)) => Err(conflict(
                "generate",
                format!("{flag} has no effect on a text that is continued; give --chat, too"),
            )),
        }
    }
}
