//! The arguments of every command.

mod chat;
mod convert;
mod data;
mod examples;
mod explain;
mod merge;
mod sampling;

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand};
use reparam_data::{DataError, Fields, FieldsError, Format, OnError, Template};
use reparam_models::Sampling;
use reparam_models::architecture::Pooling;
use reparam_train::config::Precision;
use reparam_train::{
    Bootstrap, DataRequest, Decoding, EvalRequest, ModelRequest, TaskEntry, Tasks, Warnings,
};

pub(crate) use self::chat::{ChatArgs, TemplateArgs};
pub(crate) use self::convert::{ConvertArgs, Target, request as read_request};
pub(crate) use self::data::{DataArgs, DataCommand, InspectDataArgs};
pub(crate) use self::examples::ExampleArgs;
pub(crate) use self::explain::ExplainArgs;
pub(crate) use self::merge::MergeArgs;
pub(crate) use self::sampling::SamplingArgs;
use crate::context::Context;
use crate::env_vars;
use crate::error::Result;

/// The part of the help that applies to every command.
const EXIT_CODES: &str = "\
Exit codes:
    0   success
    1   the configuration, model, data or a file cannot be used
    2   wrong arguments
    3   the output pipe was closed
    4   the run diverged: a number is not finite, or the loss grew without bound
    130 interrupted; a run has saved its state
    255 a bug in reparam";

/// Train and fine-tune models through reparameterization
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
         reparam train --model assets/stories260K --data assets/tinyshakespeare.txt\n  \
         reparam init --model assets/stories260K --data train.jsonl\n  \
         reparam train run.toml\n  \
         reparam train run.toml --set train.max_steps=50 --output runs/short\n  \
         reparam study run.toml --vary optimizer.lambda=0.1,1\n  \
         reparam eval --model assets/stories260K --data assets/tinyshakespeare.txt --json\n  \
         reparam generate --model assets/stories260K --prompt \"Once upon a time\"\n\n\
         {}\n{EXIT_CODES}",
        env_vars::help()
    )
}

/// The examples of `train`, and what can be trained.
fn after_train_help() -> String {
    let tasks = Tasks::builtin();
    let tasks = tasks.entries().iter();
    let lines = tasks.map(|task| format!("\n  {:<24}{}", task.name, task.summary));
    format!(
        "Examples:\n  \
         reparam train --model assets/stories260K --data assets/tinyshakespeare.txt\n  \
         reparam train run.toml\n  \
         reparam train run.toml --set train.max_steps=50 --set method.rank=8\n  \
         reparam train run.toml --output runs/second --json > events.jsonl\n  \
         reparam train run.toml --resume\n  \
         reparam train run.toml --dry-run\n\n\
         Tasks:{}",
        lines.collect::<String>()
    )
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Print JSON to standard output, on failure too
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Print only results and errors
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train or fine-tune a model
    #[command(
        long_about = "Train or fine-tune a model\n\n\
            Without a run file, --model and --data say what is trained, and a new directory in runs gets the \
            result; its config.resolved.toml is the run file that does the same. \
            A run file is TOML with the sections [model], [data], [method], [optimizer], [train] and \
            [output]. Paths in it are relative to the current directory. Ctrl-C stops after the \
            current step and saves a checkpoint; a second one quits at once. --resume continues from \
            the newest checkpoint, to the same bits as an uninterrupted run.",
        after_long_help = after_train_help()
    )]
    Train(TrainArgs),
    /// Write a commented run file
    #[command(
        long_about = "Write a commented run file\n\n\
            It has the common keys, and every other key of the task commented out, each with its meaning and its \
            default. `reparam train` takes it as it is.",
        after_long_help = "Examples:\n  \
            reparam init --model assets/stories260K --data assets/tinyshakespeare.txt\n  \
            reparam init --task regression --data houses.csv houses.toml"
    )]
    Init(InitArgs),
    /// Repeat one run under several settings and compare
    #[command(
        long_about = "Repeat one run under several settings and compare\n\n\
            Every combination of the varied values is a run. The output directory gets a table, plots \
            of loss and variances, one page with all of them (study.html), and a directory for each \
            run. A run that diverges counts as a result.",
        after_long_help = "Examples:\n  \
            reparam study examples/linear-regression.toml --vary optimizer.lambda=0.01,0.1,1\n  \
            reparam study run.toml --vary optimizer.kind=adamw,lion,muon \\\n      \
            --vary optimizer.learning_rate=1e-4,1e-3 --output studies/kinds"
    )]
    Study(StudyArgs),
    /// Predict the rows of a file
    #[command(
        long_about = "Predict the rows of a file\n\n\
            A classifier predicts a label with its score, a regression a number. Rows are printed as CSV, \
            counted from 0 without the header, or with --json as one object per line. If the file has \
            the target of a regression, its errors go to standard error.",
        after_long_help = "Examples:\n  \
            reparam predict --model runs/houses --data new.csv > predictions.csv\n  \
            reparam predict --model runs/houses/model --data new.csv --drop-rows --json\n  \
            reparam predict --model base --task sequence-classification --data new.csv \\\n      \
            --examples solved.csv --shots 4"
    )]
    Predict(PredictArgs),
    /// Evaluate a model on a file
    #[command(
        long_about = "Evaluate a model on a file\n\n\
            A language model: loss (mean negative log-likelihood per predicted token, in nats) and \
            perplexity. A .txt file is one document; a .jsonl or .json file has one document or example \
            per object. Only the response of an example is scored. Longer documents are cut into pieces \
            of the sequence length, each scored by itself. A classifier: loss, accuracy, F1 and which labels \
            are taken for which. A regression: squared error and R2.",
        after_long_help = "Examples:\n  \
            reparam eval --model assets/stories260K --data assets/tinyshakespeare.txt\n  \
            reparam eval --model base --adapter runs/a/adapter --data test.jsonl --json\n  \
            reparam eval --model runs/a --data test.jsonl --bootstrap 1000\n  \
            reparam eval --model base --task sequence-classification --data test.csv \\\n      \
            --examples solved.csv --shots 4 --seed 1"
    )]
    Eval(EvalArgs),
    /// Continue a prompt
    #[command(
        long_about = "Continue a prompt\n\n\
            Prints the continuation as it is generated. Decoding is greedy at temperature 0, the \
            default.",
        after_long_help = "Examples:\n  \
            reparam generate --model assets/stories260K --prompt \"Once upon a time\"\n  \
            reparam generate --model base --adapter runs/a/adapter --prompt \"To be\" \\\n      \
            --max-new-tokens 200 --temperature 0.8 --top-p 0.95 --seed 1"
    )]
    Generate(GenerateArgs),
    /// Hold a conversation with a model
    #[command(
        long_about = "Hold a conversation with a model\n\n\
            Each line of standard input is said to the model, in the model's own chat template, and the answer is \
            printed as it is generated. Ctrl-C breaks an answer off; Ctrl-D ends the conversation. A line that \
            begins with / is a command; /help lists them. Decoding is greedy at temperature 0, the default.",
        after_long_help = "Examples:\n  \
            reparam chat --model HuggingFaceTB/SmolLM2-135M-Instruct\n  \
            reparam chat --model base --adapter runs/a/adapter --system \"Be short.\" --temperature 0.7\n  \
            reparam chat --model base --chat-template chatml --json < questions.txt > answers.jsonl"
    )]
    Chat(ChatArgs),
    /// Explain what a model says of a text
    #[command(
        long_about = "Explain what a model says of a text\n\n\
            Says how much each token and each word counts for a score: the logit of a label, of the tag of \
            a word, or of the next token of a language model. See docs/explain.md.",
        after_long_help = "Examples:\n  \
            reparam explain --model runs/spam --text \"you have won a prize\"\n  \
            reparam explain --model runs/spam --text @mail.txt --target ham --output mail.html\n  \
            reparam explain --model assets/stories260K --text \"Once upon a\" --max-new-tokens 3 \\\n      \
            --method occlusion --json"
    )]
    Explain(ExplainArgs),
    /// Merge adapters into their base model
    #[command(
        long_about = "Merge adapters into their base model\n\n\
            Writes a model directory in Hugging Face layout, with the base's configuration, tokenizer and chat template. \
            Weights are summed in f64 and rounded once; for each, the error of that rounding is printed beside the \
            change. With --data, the merged model is compared with the adapter, and --max-kl refuses one that diverges.",
        after_long_help = "Examples:\n  \
            reparam merge --model base --adapter runs/a/adapter --output merged\n  \
            reparam merge --model base --adapter a --adapter b --weight 0.5 --weight 0.5 --output both\n  \
            reparam merge --model base --adapter a --dtype bf16 --data held-out.txt --max-kl 1e-3 --output merged"
    )]
    Merge(MergeArgs),
    /// Write a model or an adapter for another program
    #[command(
        long_about = "Write a model or an adapter for another program\n\n\
            To gguf: a model with its tokenizer, or a LoRA adapter, as one file for llama.cpp. To mlx: an adapter of PEFT \
            as one of MLX, or a model directory. To peft: an adapter of MLX as one of PEFT. To lora: what an adapter of any method, \
            or another model (--from), changes, as a LoRA. With --adapter, the adapter is \
            written, and --model is its base; with --merge, the base with the adapter in it. See docs/convert.md.",
        after_long_help = "Examples:\n  \
            reparam convert --model assets/stories260K --to gguf --output stories.gguf\n  \
            reparam convert --model base --to gguf --dtype q8_0 --output base.gguf\n  \
            reparam convert --adapter runs/a/adapter --to gguf --output adapter.gguf\n  \
            reparam convert --model base --adapter runs/a/adapter --merge --to gguf --output merged.gguf\n  \
            reparam convert --adapter runs/a/adapter --to mlx --output mlx-adapter\n  \
            reparam convert --adapter runs/a/adapter --to lora --rank 8 --output lora\n  \
            reparam convert --model base --from tuned --to lora --energy 0.9 --output lora"
    )]
    Convert(ConvertArgs),
    /// Look at training data as the model will see them
    #[command(after_long_help = "Examples:\n  \
            reparam data inspect run.toml\n  \
            reparam data inspect run.toml --rows 20 --html data.html")]
    Data(DataArgs),
    /// Describe a model, adapter, run directory or safetensors file
    #[command(after_long_help = "Examples:\n  \
            reparam inspect assets/stories260K\n  \
            reparam inspect runs/a/adapter --tensors\n  \
            reparam inspect model.safetensors --json")]
    Inspect(InspectArgs),
    /// Benchmark training steps on random tokens
    #[command(
        long_about = "Benchmark training steps on random tokens\n\n\
            Trains LoRA on all linear layers with AdamW and reports the time per step, peak memory, where \
            the time goes, and how close the linear layers come to the machine's limit. Run it on an \
            idle machine.",
        after_long_help = "Examples:\n  \
            reparam bench --model assets/stories260K\n  \
            reparam bench --model DIR --precision bf16 --recompute --json"
    )]
    Bench(BenchArgs),
    /// List methods and gradient transforms
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
    /// The run file; without one, --model and --data say what is trained, and the rest is by default
    #[arg(value_name = "RUN_FILE")]
    pub(crate) run_file: Option<PathBuf>,
    /// Model directory in Hugging Face layout, or hub id, instead of model.path
    #[arg(long, value_name = "DIR_OR_ID")]
    pub(crate) model: Option<String>,
    /// What to train on, instead of data.train (can be repeated)
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Vec<String>,
    /// File format (text, jsonl, csv, tsv, lines ...), instead of data.format; default: by file name and first row
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Which column holds which field, as in text=review,label=kind, instead of data.fields
    #[arg(long, value_name = "FIELD=COLUMN,..")]
    pub(crate) fields: Option<String>,
    /// Text made of each row's fields, as in "Question: {question} Answer: {answer}", instead of data.template
    #[arg(long, value_name = "TEXT")]
    pub(crate) template: Option<String>,
    /// Chat template of conversations (chatml, llama3 ... or a .jinja file), instead of data.chat_template; default: the model's
    #[arg(long, value_name = "NAME_OR_FILE")]
    pub(crate) chat_template: Option<String>,
    /// Stop at a row that cannot be read, or skip it, instead of data.on_error
    #[arg(long, value_name = "error|skip")]
    pub(crate) on_error: Option<String>,
    /// Method, instead of method.kind: see `reparam methods` [default: lora]
    #[arg(long, value_name = "KIND")]
    pub(crate) method: Option<String>,
    /// What is trained, instead of model.task: see Tasks below; default: what the model says
    #[arg(long, value_name = "TASK")]
    pub(crate) task: Option<String>,
    /// Override one value of the run file (can be repeated)
    ///
    /// The value is parsed as TOML; anything else is taken as a string.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Write the run here instead of to output.dir; without a run file, default: a new directory in runs
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Continue from the newest checkpoint, or start if there is none
    #[arg(long)]
    pub(crate) resume: bool,
    /// Replace the run in the output directory, finished or not
    ///
    /// It is removed once the new run is loaded and checked. Other files in the directory stay.
    #[arg(long, conflicts_with = "resume")]
    pub(crate) force: bool,
    /// Load and check everything, make two steps, and report what the run would take; writes only caches
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StudyArgs {
    /// The run file
    #[arg(value_name = "RUN_FILE")]
    pub(crate) run_file: PathBuf,
    /// Values that a key takes in turn (can be repeated)
    ///
    /// A comma inside brackets, braces, parentheses or quotes is part of a value.
    #[arg(long, value_name = "SECTION.KEY=VALUE,VALUE", required = true)]
    pub(crate) vary: Vec<String>,
    /// Override one value of the run file in every run (can be repeated)
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Write the study here instead of to output.dir
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("drawn").args(["bootstrap", "shots"]).multiple(true))]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// Add 95 % confidence intervals, from N samples of the rows or documents with replacement
    #[arg(long, allow_negative_numbers = true, value_name = "N", value_parser = between(1, 1_000_000))]
    bootstrap: Option<usize>,
    /// Seed of these samples, and of the examples that are drawn
    #[arg(long, allow_negative_numbers = true, value_name = "SEED", default_value = "0", value_parser = seed, requires = "drawn")]
    seed: u64,
    #[command(flatten)]
    labels: LabelArgs,
    #[command(flatten)]
    examples: ExampleArgs,
    /// Sources and targets: also write targets, and compare them with those of the file: BLEU, chrF, ROUGE-L
    #[arg(long)]
    generate: bool,
    #[command(flatten)]
    decoding: DecodingArgs,
    /// Conversations: chatml, llama3, zephyr, vicuna, alpaca, mistral-instruct or a .jinja file; default: as in training, else the model's
    #[arg(long, value_name = "NAME_OR_FILE")]
    chat_template: Option<String>,
}

/// How targets are searched for.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct DecodingArgs {
    /// Sources and targets: follow N targets at a time [default: 1, the most likely token each time]
    #[arg(long, allow_negative_numbers = true, value_name = "N", value_parser = between(1, 1024))]
    num_beams: Option<usize>,
    /// Sources and targets: maximum tokens of a target [default: 128]
    #[arg(long, allow_negative_numbers = true, value_name = "TOKENS", value_parser = at_least(1))]
    max_new_tokens: Option<usize>,
}

impl DecodingArgs {
    pub(crate) fn asked(self, sampling: Option<Sampling>) -> Decoding {
        Decoding {
            num_beams: self.num_beams,
            sampling,
            max_new_tokens: self.max_new_tokens,
        }
    }
}

/// How labels are predicted.
#[derive(Debug, Args)]
pub(crate) struct LabelArgs {
    /// Rows with any number of labels: the probability from which a label is predicted; default: as the run chose, else 0.5
    #[arg(long, allow_negative_numbers = true, value_name = "P", value_parser = inside_unit)]
    pub(crate) threshold: Option<f64>,
}

impl EvalArgs {
    /// Starts the work of the command, as [`AskArgs::start`].
    pub(crate) fn start(self, context: &Context) -> Result<(&TaskEntry, EvalRequest)> {
        let (task, request) = self.ask.start(context)?;
        // Who says how targets are written wants them.
        let decoding = self.decoding.asked(None);
        let writes = self.generate || decoding != Decoding::default();
        let bootstrap = self.bootstrap.map(|samples| Bootstrap {
            samples: samples as u64,
            seed: self.seed,
        });
        let request = EvalRequest {
            bootstrap,
            threshold: self.labels.threshold,
            generate: writes.then_some(decoding),
            examples: self.examples.asked(self.seed, context),
            data: DataRequest {
                chat_template: self.chat_template,
                ..request.data
            },
            ..request
        };
        Ok((task, request))
    }
}

#[derive(Debug, Args)]
pub(crate) struct PredictArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,
    /// Skip rows with missing values instead of refusing them
    #[arg(long)]
    pub(crate) drop_rows: bool,
    #[command(flatten)]
    pub(crate) labels: LabelArgs,
    /// Embeddings: the mean over the tokens, or the first token; default: as the model says, else mean
    #[arg(long, value_parser = word_of([("mean", Pooling::Mean), ("cls", Pooling::First)]))]
    pub(crate) pooling: Option<Pooling>,
    /// Embeddings: scale vectors to a length of 1
    #[arg(long)]
    pub(crate) normalize: bool,
    #[command(flatten)]
    pub(crate) decoding: DecodingArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) examples: ExampleArgs,
}

/// What a model is asked, and about which data.
#[derive(Debug, Args)]
pub(crate) struct AskArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// What the model is for, such as causal-lm; default: what the adapter or model says
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// Texts, examples or rows: a file, a directory, or a pattern in quotes
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Sequence-to-sequence: the file of the targets, line by line those of the sources in --data
    #[arg(long, value_name = "PATH")]
    targets: Option<PathBuf>,
    /// File format (text, jsonl, csv, tsv, lines ...); default: as in training, else by file name
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Which column holds which field, as in text=review,label=kind; by number if there is no header
    #[arg(long, value_name = "FIELD=COLUMN,..", value_parser = fields)]
    fields: Option<Fields>,
    /// Text made of each row's fields, as in "Question: {question} Answer: {answer}"; default: as in training
    #[arg(long, value_name = "TEXT", value_parser = template)]
    template: Option<Template>,
    /// Stop at a row that cannot be read, or skip it
    #[arg(long, value_name = "error|skip", default_value = "error", value_parser = word_of(OnError::WORDS), hide_possible_values = true)]
    on_error: OnError,
    /// Maximum tokens per piece or row, at least 2; default: 512, for rows as in training
    #[arg(long, allow_negative_numbers = true, value_name = "TOKENS", value_parser = at_least(2))]
    sequence_length: Option<usize>,
}

impl AskArgs {
    /// Starts the work of a command: finds the task, and returns with it what the model is asked.
    pub(crate) fn start(self, context: &Context) -> Result<(&TaskEntry, EvalRequest)> {
        let tasks = &context.tasks;
        let model = self.model.request(context);
        context.watch_interrupts(None)?;
        let task = tasks.of_request(self.task.as_deref(), &model, &context.hub)?;
        let data = DataRequest {
            path: context.expand(self.data),
            targets: self.targets.map(|path| context.expand(path)),
            format: self.format,
            fields: self.fields,
            template: self.template,
            chat_template: None,
            on_error: self.on_error,
        };
        let request = EvalRequest {
            sequence_length: self.sequence_length,
            ..EvalRequest::new(model, data)
        };
        Ok((task, request))
    }
}

/// The model of a command, with its adapter and its precision.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Model directory in Hugging Face layout, run directory, or hub id
    #[arg(long, value_name = "DIR_OR_ID")]
    pub(crate) model: String,
    /// Adapter directory in PEFT layout
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
    /// Compute precision. `auto`: bf16 if the checkpoint is bf16 and the CPU supports it, else f32; `int8`: bf16 with 8-bit
    /// weights
    #[arg(long, default_value = "auto", value_parser = word_of(Precision::INFERENCE))]
    pub(crate) precision: Precision,
}

impl ModelArgs {
    /// Returns the request, with where families and methods are looked up and what is computed with.
    pub(crate) fn request(self, context: &Context) -> ModelRequest {
        ModelRequest {
            model: self.model,
            adapter: self.adapter,
            precision: self.precision,
            catalog: context.tasks.catalog().clone(),
            runtime: context.runtime(0),
            warnings: Warnings::default(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Text to continue; @FILE takes it from a file, - from standard input
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prompt: String,
    /// Write the prompt as the examples of a format have it: alpaca makes it the instruction of Alpaca's template; default: as
    /// it is
    #[arg(long, value_name = "FORMAT", value_parser = word_of([(Format::Alpaca.name(), Format::Alpaca)]))]
    pub(crate) format: Option<Format>,
    /// Say the prompt in a conversation: the model's chat template is put around it
    #[arg(long, conflicts_with = "format")]
    pub(crate) chat: bool,
    #[command(flatten)]
    pub(crate) template: TemplateArgs,
    /// Maximum number of tokens to generate
    #[arg(long, allow_negative_numbers = true, value_name = "N", default_value = "64", value_parser = at_least(1))]
    pub(crate) max_new_tokens: usize,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Model directory in Hugging Face layout, or hub id
    #[arg(long, value_name = "DIR_OR_ID")]
    pub(crate) model: String,
    /// Method, with its default settings: see `reparam methods` [default: lora]
    #[arg(long, value_name = "KIND")]
    pub(crate) method: Option<String>,
    /// Rank of the method, 16 for LoRA if not given
    #[arg(long, allow_negative_numbers = true, value_name = "R", value_parser = between(1, 65536))]
    pub(crate) rank: Option<usize>,
    /// Sequences per step
    #[arg(long, allow_negative_numbers = true, value_name = "N", default_value = "4", value_parser = between(1, 65536))]
    pub(crate) batch_size: usize,
    /// Tokens per sequence, at least 2
    #[arg(long, allow_negative_numbers = true, value_name = "N", default_value = "512", value_parser = between(2, 1 << 20))]
    pub(crate) sequence_length: usize,
    /// Steps to measure
    #[arg(long, allow_negative_numbers = true, value_name = "N", default_value = "10", value_parser = between(1, 1_000_000))]
    pub(crate) steps: usize,
    /// Warm-up steps before them
    #[arg(long, allow_negative_numbers = true, value_name = "N", default_value = "2", value_parser = between(0, 1_000_000))]
    pub(crate) warmup: usize,
    /// Compute precision. `auto`: bf16 if the CPU supports it, else f32
    #[arg(long, default_value = "auto", value_parser = word_of(Precision::TRAINING))]
    pub(crate) precision: Precision,
    /// Recompute activations in the backward pass to save memory
    #[arg(long)]
    pub(crate) recompute: bool,
    /// Seed of the random tokens
    #[arg(long, allow_negative_numbers = true, value_name = "SEED", default_value = "0", value_parser = seed)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The file to write
    #[arg(value_name = "PATH", default_value = "run.toml")]
    pub(crate) path: PathBuf,
    /// Model directory in Hugging Face layout, or hub id: model.path
    #[arg(long, value_name = "DIR_OR_ID")]
    pub(crate) model: Option<String>,
    /// What to train on: data.train (can be repeated)
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Vec<String>,
    /// What is trained, such as causal-lm; default: what the model says, else causal-lm
    #[arg(long, value_name = "TASK")]
    pub(crate) task: Option<String>,
    /// Where the run goes: output.dir
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<String>,
    /// Write over a file that is there
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A directory or a safetensors file
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// List every tensor
    #[arg(long)]
    pub(crate) tensors: bool,
    /// Of word vectors: the words nearest to this one
    #[arg(
        long,
        value_name = "WORD",
        group = "question",
        conflicts_with = "tensors"
    )]
    pub(crate) nearest: Option<String>,
    /// Of word vectors: what is to C as B is to A
    #[arg(long, value_names = ["A", "B", "C"], num_args = 3, group = "question", conflicts_with = "tensors")]
    pub(crate) analogy: Option<Vec<String>>,
    /// Maximum words to show
    #[arg(long, short, allow_negative_numbers = true, value_name = "N", default_value = "10", value_parser = at_least(1), requires = "question")]
    pub(crate) k: usize,
}

/// A parser of words that stand for values.
fn word_of<const N: usize, T: Copy + Send + Sync + 'static>(
    words: [(&'static str, T); N],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words.map(|(word, _)| word)).try_map(move |word| {
        let found = words.into_iter().find(|(known, _)| *known == word);
        found.map(|(_, value)| value).ok_or("an unknown word")
    })
}

fn fields(text: &str) -> Result<Fields, String> {
    text.parse().map_err(|error: FieldsError| error.to_string())
}

fn template(text: &str) -> Result<Template, String> {
    text.parse().map_err(|error: DataError| error.to_string())
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

fn seed(text: &str) -> Result<u64, String> {
    let error = || "must be a whole number of at least 0".to_owned();
    text.parse().map_err(|_| error())
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("must be a finite number of at least 0".to_owned()),
    }
}

fn inside_unit(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number < 1.0 => Ok(number),
        _ => Err("must be greater than 0 and less than 1".to_owned()),
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
            let example = example.split(" < ").next().unwrap_or_default();
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
