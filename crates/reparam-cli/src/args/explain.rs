//! Arguments of `reparam explain`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use reparam_train::TaskEntry;
use reparam_train::config::Precision;
use reparam_train::explain::{Attribution, Baseline, ExplainRequest};

use super::{ModelArgs, at_least, between, word_of};
use crate::context::Context;
use crate::error::Result;
use crate::prompt;

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Model directory in Hugging Face layout, run directory, or hub id; it computes in f32
    #[arg(long, value_name = "DIR_OR_ID")]
    model: String,
    /// Adapter directory in PEFT layout
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// What the model is for, such as causal-lm; default: what the adapter or model says
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// Text to explain; @FILE takes it from a file, - from standard input
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    text: String,
    /// Second text of a pair
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pair: Option<String>,
    /// How attributions are made
    #[arg(long, default_value = "integrated-gradients", value_parser = word_of(Attribution::ALL))]
    method: Attribution,
    /// Label, or text that a language model goes on with; default: what the model predicts
    #[arg(long, value_name = "LABEL", allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    target: Option<String>,
    /// Word whose tag is explained, counted from 0
    #[arg(long, allow_negative_numbers = true, value_name = "N", value_parser = at_least(0))]
    word: Option<usize>,
    /// Points on the way from the baseline, of integrated gradients [default: 64]
    #[arg(long, allow_negative_numbers = true, value_name = "N", value_parser = between(1, 1_000_000))]
    steps: Option<usize>,
    /// Where integrated gradients begin, or what hides a word in occlusion; default: the first that the tokenizer has of mask, pad
    /// and unk, else zero; for occlusion mask, else words are left out
    #[arg(long, value_parser = word_of(Baseline::ALL))]
    baseline: Option<Baseline>,
    /// Tokens of a language model to generate and explain [default: 1]
    #[arg(long, allow_negative_numbers = true, value_name = "N", value_parser = at_least(1), conflicts_with = "target")]
    max_new_tokens: Option<usize>,
    /// Maximum tokens of the text, at least 2; default: as in training
    #[arg(long, allow_negative_numbers = true, value_name = "TOKENS", value_parser = at_least(2))]
    sequence_length: Option<usize>,
    /// Write a page with the words coloured here, and the same as JSON beside it
    #[arg(long, value_name = "FILE.html", value_parser = page)]
    pub(crate) output: Option<PathBuf>,
}

impl ExplainArgs {
    /// Starts the work of the command: finds the task, and returns with it what is to be explained.
    pub(crate) fn start(self, context: &Context) -> Result<(&TaskEntry, ExplainRequest)> {
        let model = ModelArgs {
            model: self.model,
            adapter: self.adapter,
            precision: Precision::F32,
        };
        let model = model.request(context);
        let text = prompt::read(&self.text)?;
        context.watch_interrupts(None)?;
        let task = context
            .tasks
            .of_request(self.task.as_deref(), &model, &context.hub)?;
        let request = ExplainRequest {
            pair: self.pair,
            method: self.method,
            target: self.target,
            word: self.word,
            steps: self.steps,
            baseline: self.baseline,
            max_new_tokens: self.max_new_tokens,
            sequence_length: self.sequence_length,
            ..ExplainRequest::new(model, text)
        };
        Ok((task, request))
    }
}

/// A path of a page, whose name is not that of the JSON beside it.
fn page(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension() {
        Some(extension) if extension == "json" => Err(
            "the page is HTML, and its JSON is written beside it: give a name such as page.html"
                .to_owned(),
        ),
        _ => Ok(path),
    }
}
