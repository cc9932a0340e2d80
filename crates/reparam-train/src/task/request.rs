//! What a trained model is asked.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use reparam_data::rows::{RowFormat, RowsOptions};
use reparam_data::{Fields, OnError, ReadOptions, Template};
use reparam_models::Sampling;
use reparam_models::architecture::Pooling;
use reparam_ops::runtime::Runtime;
use serde_json::Value;

use crate::bootstrap::Bootstrap;
use crate::config::{Catalog, Precision};
use crate::{Result, TrainError, Warnings};

/// What a model is measured on.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalRequest {
    /// The model, with what is attached to it.
    pub model: ModelRequest,
    /// The rows or texts.
    pub data: DataRequest,
    /// The most tokens that the model sees at once; if absent [`DEFAULT_LENGTH`], of rows what the model's run had.
    pub sequence_length: Option<usize>,
    /// How confidence intervals are made, if they are wanted.
    pub bootstrap: Option<Bootstrap>,
    /// The probability from which each label is predicted, of rows with any number of labels; that of the run, else 0.5, if absent.
    pub threshold: Option<f64>,
    /// Whether targets are also written and compared, and how; of a task that writes some.
    pub generate: Option<Decoding>,
    /// What a model without a head tells rows apart by.
    pub examples: Option<ExamplesRequest>,
}

impl EvalRequest {
    /// Asks for the metrics of a model on rows or texts.
    pub fn new(model: ModelRequest, data: DataRequest) -> Self {
        Self {
            model,
            data,
            sequence_length: None,
            bootstrap: None,
            threshold: None,
            generate: None,
            examples: None,
        }
    }

    /// The options that only some tasks look at, as the program calls them.
    pub(super) fn options(&self) -> impl Iterator<Item = &'static str> {
        given([
            (BOOTSTRAP, self.bootstrap.is_some()),
            (THRESHOLD, self.threshold.is_some()),
            (TARGETS, self.data.targets.is_some()),
            (CHAT_TEMPLATE, self.data.chat_template.is_some()),
            (GENERATE, self.generate == Some(Decoding::default())),
            (
                DECODING,
                self.generate
                    .is_some_and(|decoding| decoding != Decoding::default()),
            ),
        ])
        .chain(self.examples.iter().flat_map(ExamplesRequest::options))
    }
}

/// Solved examples, by which a model without a head tells rows apart.
///
/// A language model reads some of them before each row; an embedding model compares rows with the mean of each class.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExamplesRequest {
    /// Their file, a directory or a pattern of files, written as that of the rows.
    pub path: Option<PathBuf>,
    /// How many of them: of a language model before each row, of an embedding model of each class; there all if absent.
    pub shots: Option<usize>,
    /// What they are drawn by.
    pub seed: u64,
    /// What a language model says for labels; the names of those that are not there.
    pub words: BTreeMap<String, String>,
}

impl ExamplesRequest {
    /// The options that ask for them, as the program calls them.
    pub(crate) fn options(&self) -> impl Iterator<Item = &'static str> {
        given([
            (SHOTS, self.shots.is_some()),
            (EXAMPLES, self.path.is_some()),
            (LABEL_WORDS, !self.words.is_empty()),
        ])
    }
}

/// How a model that writes targets searches for them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Decoding {
    /// How many targets are followed at a time; 1, which chooses one token each time, if absent.
    pub num_beams: Option<usize>,
    /// How that token is chosen; the most likely one, if absent.
    pub sampling: Option<Sampling>,
    /// The most tokens of a target; as in training, else 128, if absent.
    pub max_new_tokens: Option<usize>,
}

/// `--bootstrap` of `reparam eval`, for [`Task::OPTIONS`](super::Task::OPTIONS).
pub const BOOTSTRAP: &str = "--bootstrap";

/// `--threshold` of `reparam eval` and `reparam predict`.
pub const THRESHOLD: &str = "--threshold";
/// `--pooling` of `reparam predict`.
pub const POOLING: &str = "--pooling";
/// `--normalize` of `reparam predict`.
pub const NORMALIZE: &str = "--normalize";
/// `--targets` of `reparam eval` and `reparam predict`.
pub const TARGETS: &str = "--targets";
/// `--chat-template` of `reparam eval`.
pub const CHAT_TEMPLATE: &str = "--chat-template";
/// `--generate` of `reparam eval`.
pub const GENERATE: &str = "--generate";
/// `--num-beams` and `--max-new-tokens` of both, `--temperature` of `reparam predict`.
pub const DECODING: &str = "--num-beams, --max-new-tokens or --temperature";

/// `--shots` of `reparam eval` and `reparam predict`.
pub const SHOTS: &str = "--shots";
/// `--examples` of both.
pub const EXAMPLES: &str = "--examples";
/// `--label-words` of both.
pub const LABEL_WORDS: &str = "--label-words";

fn given<const N: usize>(options: [(&'static str, bool); N]) -> impl Iterator<Item = &'static str> {
    let given = options.into_iter().filter(|(_, is_given)| *is_given);
    given.map(|(option, _)| option)
}

/// The most tokens that a model sees at once, if nothing says it.
pub const DEFAULT_LENGTH: usize = 512;

/// Rows or texts, and how they are read.
#[derive(Debug, Clone, PartialEq)]
pub struct DataRequest {
    /// The file, or a directory or a pattern of files.
    pub path: PathBuf,
    /// The file of the targets, whose lines belong to those of the other; without it one file has both.
    pub targets: Option<PathBuf>,
    /// The word for its format; by the file's name, or with fields and template as in the model's run, if absent.
    pub format: Option<String>,
    /// Which column holds which field; those of its format, or with format and template as in the model's run, if absent.
    pub fields: Option<Fields>,
    /// What makes a text of a row's fields; none, or with format and fields as in the model's run, if absent.
    pub template: Option<Template>,
    /// The name or the path of what makes texts of conversations; that of the adapter or the model, if absent.
    pub chat_template: Option<String>,
    /// What is done with a row that cannot be read.
    pub on_error: OnError,
}

impl DataRequest {
    /// Asks for a file that is read by its name.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            targets: None,
            format: None,
            fields: None,
            template: None,
            chat_template: None,
            on_error: OnError::Stop,
        }
    }

    /// Returns the files.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        [&self.path]
            .into_iter()
            .chain(&self.targets)
            .cloned()
            .collect()
    }

    /// Returns how a file of rows is read: as asked, else with what the run had.
    pub(crate) fn row_options(
        &self,
        format: Option<RowFormat>,
        fields: &Fields,
    ) -> Result<RowsOptions> {
        if self.targets.is_some() && self.format.is_none() {
            return Ok(RowsOptions {
                format: Some(RowFormat::Parallel),
                ..RowsOptions::default()
            });
        }
        if self.is_as_in_run() {
            let fields = fields.clone();
            return Ok(RowsOptions { format, fields });
        }
        Ok(RowsOptions {
            format: self.format.as_deref().map(str::parse).transpose()?,
            fields: self.fields.clone().unwrap_or_default(),
        })
    }

    /// Returns how a file of texts is read to be measured.
    pub(crate) fn text_options(&self) -> Result<ReadOptions> {
        let options = ReadOptions {
            format: self.format.as_deref().map(str::parse).transpose()?,
            fields: self.fields.clone().unwrap_or_default(),
            template: self.template.clone(),
            on_error: self.on_error,
            ..ReadOptions::default()
        };
        Ok(options.measured())
    }

    /// Returns whether nothing here says how the file is read, so that it is read as those of the model's run were.
    ///
    /// A format, its fields and a template belong together, so that one of them that is asked for takes the place of all.
    pub(crate) fn is_as_in_run(&self) -> bool {
        let no_fields = self.fields.as_ref().is_none_or(Fields::is_empty);
        self.format.is_none() && no_fields && self.template.is_none() && self.targets.is_none()
    }

    /// Refuses what a task without fields does not look at.
    ///
    /// # Errors
    ///
    /// [`TrainError::NoFields`].
    pub(crate) fn refuse_fields(&self, task: &'static str) -> Result<()> {
        let option = match (&self.fields, self.on_error) {
            (Some(_), _) => "--fields",
            (None, OnError::Skip) => "--on-error skip",
            (None, OnError::Stop) => return self.refuse_template(task),
        };
        Err(TrainError::NoFields { task, option })
    }

    /// Refuses a template, which makes texts of rows.
    ///
    /// # Errors
    ///
    /// [`TrainError::NoFields`].
    pub(crate) fn refuse_template(&self, task: &'static str) -> Result<()> {
        match self.template {
            None => Ok(()),
            Some(_) => Err(TrainError::NoFields {
                task,
                option: "--template",
            }),
        }
    }
}

/// Refuses what a task that runs no model of texts, but reads a table, has no use for.
///
/// # Errors
///
/// [`TrainError::NotForTask`] for an adapter, [`TrainError::NoFields`] for an option.
pub(crate) fn refuse_options_of_texts(
    task: &'static str,
    model: &ModelRequest,
    data: &DataRequest,
    sequence_length: Option<usize>,
) -> Result<()> {
    if model.adapter.is_some() {
        return Err(TrainError::not_for_task(task, "given an adapter"));
    }
    data.refuse_fields(task)?;
    let is_csv = matches!(data.format.as_deref(), None | Some("csv"));
    let others = [
        ("--format", !is_csv),
        ("--sequence-length", sequence_length.is_some()),
        ("--precision", model.precision != Precision::Auto),
    ];
    match others.into_iter().find(|(_, is_given)| *is_given) {
        Some((option, _)) => Err(TrainError::NoFields { task, option }),
        None => Ok(()),
    }
}

/// What a model predicts.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictRequest {
    /// The model, with what is attached to it.
    pub model: ModelRequest,
    /// The rows.
    pub data: DataRequest,
    /// The most tokens that the model sees at once; as in [`EvalRequest`].
    pub sequence_length: Option<usize>,
    /// Whether rows that lack a value are left out; otherwise they are an error.
    pub drop_rows: bool,
    /// As in [`EvalRequest`].
    pub threshold: Option<f64>,
    /// What the vector of a text is made of; as the model says, if absent.
    pub pooling: Option<Pooling>,
    /// Whether vectors are scaled to a length of 1, whatever the model says.
    pub normalize: bool,
    /// How targets are searched for, of a task that writes some.
    pub decoding: Decoding,
    /// As in [`EvalRequest`].
    pub examples: Option<ExamplesRequest>,
}

impl PredictRequest {
    /// Asks for the predictions of a model on rows.
    pub fn new(model: ModelRequest, data: DataRequest) -> Self {
        Self {
            model,
            data,
            sequence_length: None,
            drop_rows: false,
            threshold: None,
            pooling: None,
            normalize: false,
            decoding: Decoding::default(),
            examples: None,
        }
    }

    /// The options that only some tasks look at, as the program calls them.
    pub(super) fn options(&self) -> impl Iterator<Item = &'static str> {
        given([
            (THRESHOLD, self.threshold.is_some()),
            (POOLING, self.pooling.is_some()),
            (NORMALIZE, self.normalize),
            (TARGETS, self.data.targets.is_some()),
            (DECODING, self.decoding != Decoding::default()),
        ])
        .chain(self.examples.iter().flat_map(ExamplesRequest::options))
    }
}

/// A model that is only asked.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRequest {
    /// A directory, or a hub id.
    pub model: String,
    /// The directory of an adapter of it.
    pub adapter: Option<PathBuf>,
    /// What activations are computed in.
    pub precision: Precision,
    /// Where its family and the adapter's method are looked up.
    pub catalog: Catalog,
    /// What it is loaded and computed with.
    pub runtime: Runtime,
    /// Where is put what the user should know of it.
    pub warnings: Warnings,
}

impl ModelRequest {
    /// Asks for a model by its directory or hub id, among the built-in families and methods, with the runtime in force.
    pub fn new(model: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            adapter: None,
            precision: Precision::Auto,
            catalog: Catalog::builtin(),
            runtime: Runtime::current(),
            warnings: Warnings::default(),
        }
    }

    /// Asks for an adapter of it.
    #[must_use]
    pub fn with_adapter(self, directory: impl Into<PathBuf>) -> Self {
        Self {
            adapter: Some(directory.into()),
            ..self
        }
    }

    /// Sets what activations are computed in.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Sets where families and methods are looked up.
    #[must_use]
    pub fn with_catalog(self, catalog: Catalog) -> Self {
        Self { catalog, ..self }
    }

    /// Sets what it is loaded and computed with.
    #[must_use]
    pub fn with_runtime(self, runtime: Runtime) -> Self {
        Self { runtime, ..self }
    }
}

/// Where predictions go, one row after the other.
pub trait Predictions {
    /// Is told the heading of the rows' texts, before the first of them, where they have one.
    fn header(&mut self, text: &str);

    /// Is told of a row: as an object, and as a line of text.
    ///
    /// Nothing more is predicted after a `Break`.
    fn row(&mut self, object: Value, text: String) -> ControlFlow<()>;

    /// Is told what is worth saying of all of them, in a sentence.
    fn note(&mut self, text: String);
}
