//! The arguments of every command.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use reparam_data::rows::{Fields, OnError, RowError};
use reparam_train::config::{Catalog, Precision};
use reparam_train::{DataRequest, ModelRequest};

use crate::env_vars;

/// The part of the help that applies to every command.
const EXIT_CODES: &str = "\
Exit codes:
    0   success
    1   a configuration, a model, data or a file cannot be used
    2   wrong arguments
    3   the reader of the output closed it
    4   the run diverged: a number is not finite, or the loss grew without bound
    130 interrupted; of a run, with its state saved
    255 a bug in reparam";

/// Fine-tune language models through reparameterization
#[derive(Debug, Parser)]
#[command(
    name = "reparam",
    version,
    max_term_width = 100,
    after_long_help = after_help(),
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

fn after_help() -> String {
    format!(
        "Examples:\n  \
         reparam train run.toml\n  \
         reparam train run.toml --set train.max_steps=50 --output runs/short\n  \
         reparam study run.toml --vary optimizer.lambda=0.1,1\n  \
         reparam eval --model assets/stories260K --data assets/tinyshakespeare.txt --json\n  \
         reparam generate --model assets/stories260K --prompt \"Once upon a time\"\n\n\
         {}\n{EXIT_CODES}",
        env_vars::help()
    )
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Print JSON on standard output, also on failure
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Print nothing but results and errors
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train or fine-tune a model as a run file says
    #[command(
        long_about = "Train or fine-tune a model as a run file says\n\n\
            The run file is TOML with the sections [model], [data], [method], [optimizer], \
            [train] and [output]. Relative paths in it are relative to the current directory. \
            Ctrl-C stops after the current step and saves a checkpoint; a second one quits at \
            once. With --resume a run goes on from its newest checkpoint, to the same numbers as \
            without the interruption.",
        after_long_help = "Examples:\n  \
            reparam train run.toml\n  \
            reparam train run.toml --set train.max_steps=50 --set method.rank=8\n  \
            reparam train run.toml --output runs/second --json > events.jsonl\n  \
            reparam train run.toml --resume"
    )]
    Train(TrainArgs),
    /// Make the same run under several settings, and compare
    #[command(
        long_about = "Make the same run under several settings, and compare\n\n\
            Every combination of the varied values is a run. The study's directory gets a table, \
            pictures of loss and variances against steps, a page with all of them (study.html), \
            and a directory for each run. A run that diverges is a result of the study.",
        after_long_help = "Examples:\n  \
            reparam study examples/linear-regression.toml --vary optimizer.lambda=0.01,0.1,1\n  \
            reparam study run.toml --vary optimizer.kind=adamw,lion,muon \\\n      \
            --vary optimizer.learning_rate=1e-4,1e-3 --output studies/kinds"
    )]
    Study(StudyArgs),
    /// Predict the rows of a file with a trained model
    #[command(
        long_about = "Predict the rows of a file with a trained model\n\n\
            What the model was trained for says what a prediction is. Of a regression it is a \
            CSV with the row of the file, counted from 0 without the header, and its prediction; \
            where the file has the target too, the errors are measured. With --json every row is \
            an object of its own.",
        after_long_help = "Examples:\n  \
            reparam predict --model runs/houses --data new.csv > predictions.csv\n  \
            reparam predict --model runs/houses/model --data new.csv --drop-rows --json"
    )]
    Predict(PredictArgs),
    /// Measure a model on a file
    #[command(
        long_about = "Measure a model on a file\n\n\
            What the model was trained for says what is measured. Of a language model it is the \
            loss, the mean negative log-likelihood of a predicted token in nats. A .txt \
            file is one document, a .jsonl or .json file one document or one example an object. \
            Of an example the response is scored and the prompt is given. What is longer than \
            the sequence length is cut into pieces that are scored each by itself.",
        after_long_help = "Examples:\n  \
            reparam eval --model assets/stories260K --data assets/tinyshakespeare.txt\n  \
            reparam eval --model base --adapter runs/a/adapter --data test.jsonl --json"
    )]
    Eval(EvalArgs),
    /// Continue a prompt with a model
    #[command(
        long_about = "Continue a prompt with a model\n\n\
            Prints what the model adds to the prompt. At temperature 0 it always takes the most \
            likely token.",
        after_long_help = "Examples:\n  \
            reparam generate --model assets/stories260K --prompt \"Once upon a time\"\n  \
            reparam generate --model base --adapter runs/a/adapter --prompt \"To be\" \\\n      \
            --max-new-tokens 200 --temperature 0.8 --top-p 0.95 --seed 1"
    )]
    Generate(GenerateArgs),
    /// Describe a model, an adapter, a run directory or a tensor file
    #[command(after_long_help = "Examples:\n  \
            reparam inspect assets/stories260K\n  \
            reparam inspect runs/a/adapter --tensors\n  \
            reparam inspect model.safetensors --json")]
    Inspect(InspectArgs),
    /// Measure training steps on random tokens
    #[command(
        long_about = "Measure training steps on random tokens\n\n\
            LoRA on all linear layers with AdamW. Says how long a step takes, how much memory, where \
            the time goes, and which share of the machine's limit the linear layers reach. Let nothing \
            else run meanwhile.",
        after_long_help = "Examples:\n  \
            reparam bench --model assets/stories260K\n  \
            reparam bench --model DIR --precision bf16 --recompute --json"
    )]
    Bench(BenchArgs),
    /// List the methods of reparameterization and the transforms of gradients
    #[command(after_long_help = "Examples:\n  \
            reparam methods\n  \
            reparam methods --json")]
    Methods,
    /// Show what reparam finds on this machine
    #[command(after_long_help = "Examples:\n  \
            reparam doctor\n  \
            reparam doctor --json")]
    Doctor,
}

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// The run file
    #[arg(value_name = "RUN_FILE")]
    pub(crate) run_file: PathBuf,
    /// Replace one value of the run file (can be repeated)
    ///
    /// The value is read as TOML; what is not TOML is taken as a string.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Where the run goes, instead of output.dir of the run file
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Go on from the newest checkpoint of the run, or start it if there is none
    #[arg(long)]
    pub(crate) resume: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StudyArgs {
    /// The run file
    #[arg(value_name = "RUN_FILE")]
    pub(crate) run_file: PathBuf,
    /// The values that a key takes in turn (can be repeated)
    ///
    /// A comma inside of brackets, braces, parentheses or quotes belongs to a value.
    #[arg(long, value_name = "SECTION.KEY=VALUE,VALUE", required = true)]
    pub(crate) vary: Vec<String>,
    /// Replace one value of the run file for all runs (can be repeated)
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Where the study goes, instead of output.dir of the run file
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PredictArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// The most tokens of a row, at least 2; without it, as many as in the model's run, else 512
    #[arg(long, value_name = "TOKENS", value_parser = at_least(2))]
    pub(crate) sequence_length: Option<usize>,
    /// Leave rows with missing values out instead of refusing them
    #[arg(long)]
    pub(crate) drop_rows: bool,
}

/// The model of a command, with its adapter and its precision.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// A model directory in Hugging Face layout, the directory of a run, or a hub id
    #[arg(long, value_name = "DIR_OR_ID")]
    pub(crate) model: String,
    /// An adapter directory in PEFT layout
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
    /// What is computed in; `auto` is bf16 where weights are stored so and the machine multiplies them natively, and `int8` has
    /// weights of 8-bit integers
    #[arg(long, default_value = "auto", value_parser = precision(Precision::INFERENCE))]
    pub(crate) precision: Precision,
}

/// What a model is asked for.
#[derive(Debug, Args)]
pub(crate) struct TaskArgs {
    /// What the model is for, such as causal-lm; without it, the adapter or the model tells
    #[arg(long, value_name = "TASK")]
    pub(crate) task: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// The most tokens in a piece or a row, at least 2; without it, as many as in the model's run, else 512
    #[arg(long, value_name = "TOKENS", value_parser = at_least(2))]
    pub(crate) sequence_length: Option<usize>,
}

/// The data of a command, and how they are read.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// The texts, examples or rows
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// What the file holds (text, jsonl, csv, tsv, lines ...); without it, what the model's run read, else the file's
    /// name tells
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Which column holds which field, as in text=review,label=kind; by number if no line names the columns
    #[arg(long, value_name = "FIELD=COLUMN,..", value_parser = fields)]
    pub(crate) fields: Option<Fields>,
    /// What to do with a row that cannot be read
    #[arg(long, value_name = "error|skip", default_value = "error", value_parser = on_error(), hide_possible_values = true)]
    pub(crate) on_error: OnError,
}

impl From<DataArgs> for DataRequest {
    fn from(args: DataArgs) -> Self {
        Self {
            path: args.data,
            format: args.format,
            fields: args.fields,
            on_error: args.on_error,
        }
    }
}

impl ModelArgs {
    /// Returns the request, with where families and methods are looked up.
    pub(crate) fn request(self, catalog: &Catalog) -> ModelRequest {
        ModelRequest {
            model: self.model,
            adapter: self.adapter,
            precision: self.precision,
            catalog: catalog.clone(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The text to continue
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prompt: String,
    /// The most tokens to add
    #[arg(long, value_name = "N", default_value = "64", value_parser = at_least(1))]
    pub(crate) max_new_tokens: usize,
    /// How freely tokens are drawn; 0 always takes the most likely one
    #[arg(long, value_name = "T", default_value = "0", value_parser = temperature)]
    pub(crate) temperature: f64,
    /// Draw from the K most likely tokens only
    #[arg(long, value_name = "K", value_parser = at_least(1))]
    pub(crate) top_k: Option<usize>,
    /// Draw from the fewest tokens whose probabilities sum to P only
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(crate) top_p: Option<f64>,
    /// What the draws are derived from; at temperature 0 nothing is drawn
    #[arg(long, value_name = "SEED", default_value = "0")]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// A model directory in Hugging Face layout, or a hub id
    #[arg(long, value_name = "DIR_OR_ID")]
    pub(crate) model: String,
    /// LoRA's rank; alpha is twice that
    #[arg(long, value_name = "R", default_value = "16", value_parser = between(1, 65536))]
    pub(crate) rank: usize,
    /// Sequences a step
    #[arg(long, value_name = "N", default_value = "4", value_parser = between(1, 65536))]
    pub(crate) batch_size: usize,
    /// Tokens a sequence, at least 2
    #[arg(long, value_name = "N", default_value = "512", value_parser = between(2, 1 << 20))]
    pub(crate) sequence_length: usize,
    /// Steps to measure
    #[arg(long, value_name = "N", default_value = "10", value_parser = between(1, 1_000_000))]
    pub(crate) steps: usize,
    /// Steps before those
    #[arg(long, value_name = "N", default_value = "2", value_parser = between(0, 1_000_000))]
    pub(crate) warmup: usize,
    /// What activations are computed in
    #[arg(long, default_value = "auto", value_parser = precision(Precision::TRAINING))]
    pub(crate) precision: Precision,
    /// Compute activations again in the backward pass, for less memory
    #[arg(long)]
    pub(crate) recompute: bool,
    /// What the tokens are derived from
    #[arg(long, value_name = "SEED", default_value = "0")]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A directory, or a file with tensors
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// List every tensor
    #[arg(long)]
    pub(crate) tensors: bool,
}

/// A parser of the words for precisions.
fn precision<const N: usize>(
    words: [(&'static str, Precision); N],
) -> impl TypedValueParser<Value = Precision> {
    PossibleValuesParser::new(words.map(|(word, _)| word)).try_map(move |word| {
        words
            .into_iter()
            .find(|(known, _)| *known == word)
            .map(|(_, precision)| precision)
            .ok_or("an unknown precision")
    })
}

/// A parser of what to do with rows that cannot be read.
fn on_error() -> impl TypedValueParser<Value = OnError> {
    PossibleValuesParser::new(OnError::WORDS.map(|(word, _)| word)).try_map(|word| {
        let mut words = OnError::WORDS.into_iter();
        words
            .find(|(known, _)| *known == word)
            .map(|(_, value)| value)
            .ok_or("an unknown word")
    })
}

fn fields(text: &str) -> Result<Fields, String> {
    text.parse().map_err(|error: RowError| error.to_string())
}

/// A parser of whole numbers from `least` to `most`.
fn between(least: usize, most: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("must be a whole number from {least} to {most}")),
    }
}

/// A parser of whole numbers of at least `least`.
fn at_least(least: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| match text.parse() {
        Ok(number) if number >= least => Ok(number),
        _ => Err(format!("must be a whole number of at least {least}")),
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("must be a finite number of at least 0".to_owned()),
    }
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1.0 => Ok(number),
        _ => Err("must be greater than 0 and at most 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_is_described_in_the_same_way() {
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let about = command.get_about().expect(name).to_string();
            assert!(!about.ends_with('.'), "{name}: {about}");
            assert!(
                about.starts_with(|c: char| c.is_uppercase()),
                "{name}: {about}"
            );
            let after = command.get_after_long_help().expect(name).to_string();
            assert!(after.starts_with("Examples:\n"), "{name}: {after}");
        }
    }

    #[test]
    fn every_example_parses() {
        let mut examples = vec![after_help()];
        for command in Cli::command().get_subcommands() {
            examples.extend(command.get_after_long_help().map(ToString::to_string));
        }
        let mut parsed = 0;
        for line in examples.join("\n").replace("\\\n", " ").lines() {
            let Some(example) = line.trim().strip_prefix("reparam ") else {
                continue;
            };
            // The shell takes redirections and quotes away.
            let example = example.split(" > ").next().unwrap_or_default();
            let words = example.split('"').enumerate().flat_map(|(index, part)| {
                if index % 2 == 1 {
                    vec![part]
                } else {
                    part.split_whitespace().collect()
                }
            });
            Cli::try_parse_from(std::iter::once("reparam").chain(words)).expect(example);
            parsed += 1;
        }
        assert!(parsed >= 15, "{parsed}");
    }
}
