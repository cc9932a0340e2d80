//! What tasks over a pretrained model have in common: method, update and result of a run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use reparam::methods::{
    self, AdapterMeta, AttachedModule, MethodConfig, TrainableRows, linear_modules,
};
use reparam::parameters::{self, ParameterList};
use reparam_data::{BatchPlan, FileDigest, TextTokenizer};
use reparam_formats::file;
use reparam_formats::hub::HubOptions;
use reparam_formats::peft::{AdapterFiles, CONFIG_FILE, WEIGHTS_FILE};
use reparam_models::{Architecture, NewModel, Precision};
use serde_json::Value;

use crate::adapter::{AdapterBase, attach_with_tokens};
use crate::cards::CARD_FILE;
use crate::config::{Catalog, ModelRun, NewModelConfig};
use crate::export::save_model;
use crate::json::object;
use crate::learner::{Carried, ModuleLearner, Objective};
use crate::memory::check_fits;
use crate::model_files::ModelFiles;
use crate::new_model::Recipe;
use crate::new_tokens::AdapterTokens;
use crate::open::OpenedModel;
use crate::preflight::{self, Finding, Footprint, ModelLook, of_weights, state_per_parameter};
use crate::session::{adapter_directory, load_adapter, runs_packed};
use crate::task::{BaseOrigin, Origins, Prepared, ResultKind, RunFacts, RunPlan, Task};
use crate::{Result, TrainError};

/// What a run results in.
#[derive(Debug)]
pub(super) enum Saved {
    /// An adapter in PEFT's format.
    Adapter(Arc<dyn MethodConfig>, Box<AdapterMeta>),
    /// The model with its effective weights, beside what was read of its base's directory.
    Model { base: Arc<ModelFiles> },
}

/// A base that is loaded.
pub(super) struct Loaded<M> {
    pub(super) model: M,
    pub(super) from: Arc<ModelFiles>,
    /// What else of the directory decides the run.
    pub(super) files: Vec<&'static str>,
    pub(super) tokenizer: FileDigest,
    pub(super) precision: Precision,
    /// Bytes that a token of a training pass keeps at least.
    pub(super) token_bytes: u128,
    /// What a micro-batch takes; the state of the optimizer is found here.
    pub(super) footprint: Option<Footprint>,
    /// What the user should know of it.
    pub(super) findings: Vec<Finding>,
    /// The adapter to train on from.
    pub(super) adapter: Option<Adapter>,
    /// Rows of new tokens that are trained beside the method, of tables that it does not train itself.
    pub(super) new_rows: Vec<TrainableRows>,
}

/// What a run begins with.
pub(super) enum Beginning<'a> {
    /// A model that was found.
    Found(Box<OpenedModel>),
    /// A new model, which is made once its training data are read.
    New(&'a NewModelConfig),
}

impl<'a> Beginning<'a> {
    pub(super) fn find<D>(config: &'a ModelRun<D>, hub: &HubOptions) -> Result<Self> {
        let model = &config.model;
        if let Some(new) = &model.new {
            return Ok(Self::New(new));
        }
        let opened = OpenedModel::open(model.name(), hub, &config.catalog, model.dropout)?;
        Ok(Self::Found(Box::new(opened)))
    }

    /// Opens it; `texts` gives what a tokenizer is trained on.
    pub(super) fn open(
        self,
        recipe: &Recipe<'_>,
        texts: impl FnOnce() -> Result<Vec<String>>,
    ) -> Result<OpenedModel> {
        match self {
            Self::Found(opened) => Ok(*opened),
            Self::New(config) => OpenedModel::new(config, recipe, texts),
        }
    }
}

impl<'a> Recipe<'a> {
    /// The one of a run's new model.
    pub(super) fn of<D>(config: &'a ModelRun<D>, of: NewModel) -> Self {
        Self {
            catalog: &config.catalog,
            of,
            seed: config.train.seed,
            dropout: config.model.dropout,
        }
    }
}

/// An adapter that a run trains on from.
pub(super) struct Adapter {
    pub(super) directory: PathBuf,
    pub(super) tensors: AdapterFiles,
    /// The rows of tokens in it, for a task that can have some.
    pub(super) tokens: Option<AdapterTokens>,
    files: Vec<FileDigest>,
}

impl Adapter {
    /// Reads the one that a run file names, if it names one.
    pub(super) fn load<D>(config: &ModelRun<D>) -> Result<Option<Self>> {
        let Some(directory) = &config.model.adapter else {
            return Ok(None);
        };
        let directory = adapter_directory(Path::new(directory));
        let tensors = load_adapter(&directory)?;
        let digest = |name: &str| -> Result<FileDigest> {
            let path = directory.join(name);
            Ok(FileDigest::of(&path, &file::read(&path)?))
        };
        let files = [CONFIG_FILE, WEIGHTS_FILE].map(digest);
        Ok(Some(Self {
            files: files.into_iter().collect::<Result<_>>()?,
            directory,
            tensors,
            tokens: None,
        }))
    }

    /// Takes the rows of tokens out of it.
    pub(super) fn with_tokens(mut self) -> Result<Self> {
        self.tokens = AdapterTokens::take(&mut self.tensors, &self.directory)?;
        Ok(self)
    }

    /// Returns whether it runs on weights that are packed in bf16.
    pub(super) fn runs_in_bf16(&self, catalog: &Catalog) -> Result<bool> {
        runs_packed(catalog, &self.tensors)
    }
}

/// What is learned from it.
pub(super) struct Learned {
    /// Blocks or rows.
    pub(super) count: usize,
    /// The tokens of all of them.
    pub(super) tokens: usize,
    pub(super) shuffle: bool,
    /// What the run says of them.
    pub(super) facts: Value,
    pub(super) files: Vec<FileDigest>,
}

/// Attaches the method of a run, checks its update and its result, and says what the run is.
///
/// `adapt` is given the model with the method and what an adapter will say; `task` makes the task of the order of the data and
/// the result.
pub(super) fn prepare<D, T>(
    config: &ModelRun<D>,
    base: Loaded<T::Model>,
    data: Learned,
    adapt: impl FnOnce(T::Model, &[AttachedModule], &mut AdapterMeta) -> T::Model,
    task: impl FnOnce(BatchPlan, Saved) -> T,
) -> Result<Prepared<T>>
where
    T: Task + Objective,
    T::Model: AdapterBase,
{
    let (train, seed) = (&config.train, config.train.seed);
    let plan = BatchPlan::new(data.count, train.batch_size, seed, data.shuffle)?
        .with_accumulation(train.gradient_accumulation);
    let max_steps = train.steps(&plan);
    let catalog = &config.catalog;
    let model_parameters = base.model.num_params();
    let linears = linear_modules(&base.model);
    let head = linears.iter().find(|linear| linear.is_output_head);
    let head = head.map(|linear| linear.path.clone());
    let linears: Vec<String> = linears.into_iter().map(|linear| linear.path).collect();
    let tied = base.model.tied();
    let mut base = base;
    let adapter = base.adapter.take();
    let method = match (&adapter, &config.method) {
        (None, Some(method)) => Some(catalog.method(method, max_steps)?),
        _ => None,
    };
    check_fits(&least_bytes(
        train.batch_size,
        &base,
        &data,
        method.as_deref(),
    )?)?;
    let mut adapter_files = Vec::new();
    let (model, report, method) = match (adapter, method) {
        (Some(adapter), _) => {
            adapter_files = adapter.files;
            let files = (adapter.tensors, adapter.tokens.as_ref());
            attach_with_tokens(base.model, files, &base.from, &catalog.methods)?
        }
        (None, Some(method)) => {
            let method = match method.spec().peft {
                Some(_) => {
                    let selection = method.selection().clone();
                    method.with_selection(selection.with_untargeted(base.model.untargeted()))
                }
                None => method,
            };
            let (model, report) = methods::attach(base.model, &*method, seed)?;
            (model, report, method)
        }
        (None, None) => return Err(TrainError::NoMethod),
    };
    let mut meta = AdapterMeta {
        base_model_name_or_path: config.model.path.clone(),
        revision: config.model.revision.clone(),
        task_type: T::TASK_TYPE.map(str::to_owned),
        ..AdapterMeta::new(&*method, &report.modules)
    };
    let model = adapt(model, &report.modules, &mut meta).train();
    let model = train_rows(model, base.new_rows)?;
    let scaling = method.scaling();
    let patterns = method.selection().target_modules.clone();
    let method_kind = method.spec().kind;
    // An adapter would be of a base that is nowhere.
    let is_adapter = method.spec().peft.is_some() && config.model.new.is_none();
    let (kind, result) = match is_adapter {
        true => {
            // What cannot be written is known before the first step, not after the last.
            methods::to_adapter(&model, &*method, &meta)?;
            let saved = Saved::Adapter(method, Box::new(meta));
            (ResultKind::Adapter, saved)
        }
        false => {
            let base = base.from.clone();
            (ResultKind::Model, Saved::Model { base })
        }
    };
    let optimizer = catalog.optimizer_for(&config.optimizer, scaling, max_steps)?;
    optimizer.check(&model).map_err(TrainError::Update)?;
    let modules = report.modules.into_iter();
    let targets: Vec<String> = modules.map(|module| module.module).collect();
    let (layers, target_modules) = preflight::layers(&linears, &targets, &patterns)?;
    let trainable = parameters::trainable(&model);
    let probe = catalog.optimizer_for(&config.optimizer, scaling, max_steps)?;
    let footprint = base.footprint.map(|footprint| Footprint {
        state_per_parameter: state_per_parameter(probe, &trainable, &targets),
        ..footprint
    });
    let trained: Vec<String> = trainable.into_iter().map(|tensor| tensor.name).collect();
    let mut findings = base.findings;
    findings.extend(of_weights(&ModelLook {
        weights: base.from.weights(),
        linears: &linears,
        tied,
        head,
        trained: &trained,
    })?);
    Ok(Prepared {
        learner: ModuleLearner {
            carried: Carried::new(),
            accumulation: plan.accumulation(),
            objective: task(plan, result),
            model,
            seed,
            methods: catalog.methods.clone(),
        },
        optimizer,
        plan: RunPlan::new(train, max_steps, kind),
        facts: RunFacts {
            model: config.model.name().to_owned(),
            method: method_kind.to_owned(),
            model_parameters,
            targets,
            scaling,
            batch_size: train.batch_size,
            precision: base.precision.name().to_owned(),
            learning_rate: config.optimizer.learning_rate,
            lambda: config.optimizer.update.lambda(max_steps),
            data: object(data.facts),
            findings,
            layers,
            target_modules,
            footprint,
        },
        origins: Origins {
            base: Some(BaseOrigin {
                model: config.model.name().to_owned(),
                revision: config.model.revision.clone(),
                from: base.from,
                files: base.files,
            }),
            tokenizer: Some(base.tokenizer),
            adapter: adapter_files,
            data: data.files,
        },
    })
}

/// Trains rows of the tables that the method leaves frozen.
fn train_rows<M: Module>(model: M, rows: Vec<TrainableRows>) -> Result<M> {
    if rows.is_empty() {
        return Ok(model);
    }
    let trained = parameters::trainable(&model);
    let is_frozen = |rows: &TrainableRows| {
        let name = format!("{}.weight", rows.module);
        trained.iter().all(|tensor| tensor.name != name)
    };
    let rows: Vec<TrainableRows> = rows.into_iter().filter(is_frozen).collect();
    Ok(methods::attach_rows(model, &rows)?)
}

/// What a run takes at least, by the settings that decide: the numbers of the method with their gradient, and what the tokens
/// of an average batch keep for the backward pass.
fn least_bytes<M: Module>(
    batch_size: usize,
    base: &Loaded<M>,
    data: &Learned,
    method: Option<&dyn MethodConfig>,
) -> Result<Vec<(&'static str, u128)>> {
    const NUMBER: u128 = 4;
    let tokens =
        (data.tokens as u128).saturating_mul(batch_size as u128) / data.count.max(1) as u128;
    let setting = match batch_size {
        1 => "sequence_length",
        _ => "batch_size or sequence_length",
    };
    let mut parts = vec![(setting, tokens.saturating_mul(base.token_bytes))];
    let numbers = match method {
        Some(method) => methods::least_numbers(&base.model, method)?,
        None => None,
    };
    if let Some((setting, numbers)) = numbers {
        parts.push((setting, numbers.saturating_mul(2 * NUMBER)));
    }
    Ok(parts)
}

/// Checks that there is something to compute again, where that is asked for.
pub(super) fn check_recompute(
    recompute: bool,
    architecture: &Architecture,
    precision: Precision,
) -> Result<()> {
    match (recompute, precision) {
        (true, Precision::F32) => Err(TrainError::RecomputeInF32),
        (true, _) if !architecture.fuses_in_training() => Err(TrainError::NothingRecomputed),
        _ => Ok(()),
    }
}

/// Returns the bytes that each token keeps in a training pass at least: one hidden state a layer.
pub(super) fn token_bytes(architecture: &Architecture, precision: Precision) -> u128 {
    let number = match precision {
        Precision::F32 => 4,
        _ => 2,
    };
    number * architecture.width as u128 * architecture.n_layers() as u128
}

impl Saved {
    /// Writes an adapter with `files` beside it, or a model: its tensors, its `config.json`, which has what a card says, and the
    /// other files.
    pub(super) fn save<M: Module>(
        &self,
        model: &M,
        directory: &Path,
        files: &[(&str, &str)],
        whole: impl FnOnce() -> (ParameterList, String),
    ) -> Result<()> {
        match self {
            Self::Adapter(method, meta) => {
                Ok(methods::to_adapter(model, &**method, meta)?.save_with(directory, files)?)
            }
            Self::Model { base } => {
                let (tensors, config) = whole();
                let is_other = |file: &&(&str, &str)| file.0 != CARD_FILE;
                let others: Vec<_> = files.iter().filter(is_other).copied().collect();
                save_model(tensors, base, &config, &others, directory)
            }
        }
    }
}

/// Returns whether a model's `config.json` names a class whose name ends with one of these.
pub(super) fn is_of_class(config: &Value, ends: &[&str]) -> bool {
    let named = config["architectures"].as_array().into_iter().flatten();
    named
        .filter_map(Value::as_str)
        .any(|name| ends.iter().any(|end| name.ends_with(end)))
}

/// What is found of a model and its tokenizer, with what was said while it was opened.
pub(super) fn findings(
    notes: &[Finding],
    tokenizer: &TextTokenizer,
    architecture: &Architecture,
) -> Vec<Finding> {
    let said = notes.iter().cloned();
    said.chain(preflight::of_tokenizer(tokenizer, architecture))
        .collect()
}
