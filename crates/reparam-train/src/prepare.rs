//! Everything that is loaded and checked before a run starts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::module::Module;

use reparam::methods::{self, AnyMethod, AttachReport, AttachedModule};
use reparam::optim::Optimizer;
use reparam_data::{BatchPlan, Dataset, DatasetOptions};
use reparam_formats::hub::HubOptions;
use reparam_formats::peft::{LoraAdapterConfig, TargetModules};
use reparam_models::{CausalLm, Precision};

use crate::config::{self, EvalData, Length, RunConfig};
use crate::export::save_model;
use crate::provenance::provenance;
use crate::run_dir::RunDir;
use crate::{Session, TrainError, settings};

/// A run's model and data.
pub(crate) struct Prepared {
    /// The model with the method attached.
    pub(crate) session: Session,
    pub(crate) attached: Attached,
    pub(crate) train: Dataset,
    pub(crate) eval: Option<Dataset>,
    /// Which blocks a micro-batch has.
    pub(crate) plan: BatchPlan,
    pub(crate) max_steps: u64,
    pub(crate) optimizer: Optimizer,
    /// Resolved from `auto`.
    pub(crate) precision: Precision,
}

/// What was attached to the model, and how it is saved.
pub(crate) struct Attached {
    pub(crate) modules: Vec<AttachedModule>,
    /// The numbers of the model before anything was attached.
    pub(crate) model_parameters: usize,
    /// The scaling of modules without a pattern of their own, of a method that has one.
    pub(crate) scaling: Option<f64>,
    result: Saved,
}

/// What a run results in.
enum Saved {
    /// An adapter with PEFT's configuration.
    Adapter(Box<LoraAdapterConfig>),
    /// The model with its effective weights, beside what its base's directory has.
    Model { base: PathBuf },
}

impl Attached {
    /// Returns whether the result is an adapter; otherwise it is a whole model.
    pub(crate) fn is_adapter(&self) -> bool {
        matches!(self.result, Saved::Adapter(_))
    }

    /// Writes the trained state as what the method results in.
    pub(crate) fn save(&self, model: &CausalLm, directory: &Path) -> Result<(), TrainError> {
        match &self.result {
            Saved::Adapter(config) => {
                Ok(methods::to_adapter(model, (**config).clone())?.save(directory)?)
            }
            Saved::Model { base } => save_model(&model.valid(), base, directory),
        }
    }

    /// Checks before the first step that the result can be written.
    fn check_writable(&self, model: &CausalLm) -> Result<(), TrainError> {
        match &self.result {
            Saved::Adapter(config) => {
                let adapter = methods::to_adapter(model, (**config).clone())?;
                Ok(adapter.check_writable()?)
            }
            Saved::Model { .. } => Ok(()),
        }
    }
}

impl Prepared {
    pub(crate) fn new(config: &RunConfig, hub: &HubOptions) -> Result<Self, TrainError> {
        let hub = HubOptions {
            revision: config
                .model
                .revision
                .clone()
                .unwrap_or_else(|| hub.revision.clone()),
            ..hub.clone()
        };
        let (mut session, precision) = Session::open_for(
            &config.model.path,
            &hub,
            config.train.precision,
            config::runs_in_bf16(&config.method),
        )?;
        if config.train.recompute && precision == Precision::F32 {
            return Err(TrainError::RecomputeInF32);
        }
        session.model.recompute = config.train.recompute;
        let (train, eval) = load_data(config, &session)?;
        let max_steps = max_steps(config, &train);
        let method = settings::method(&config.method, max_steps)?;
        let model_parameters = session.model.num_params();
        let (model, report) = method.attach(session.model, config.train.seed)?;
        refuse_head(&report)?;
        let session = Session { model, ..session };
        let attached = attached(
            config,
            &method,
            report,
            model_parameters,
            &session.directory,
        );
        // What cannot be written is known before the first step, not after the last.
        let trained = session.model.clone().train();
        attached.check_writable(&trained)?;
        let optimizer = settings::optimizer(&config.optimizer, &config.method, max_steps)?;
        optimizer.check(&trained).map_err(TrainError::Update)?;
        let plan = BatchPlan::new(
            train.blocks.len(),
            config.train.batch_size,
            config.train.seed,
            config.data.shuffle,
        )?;
        Ok(Self {
            session,
            attached,
            train,
            eval,
            plan,
            max_steps,
            optimizer,
            precision,
        })
    }

    /// Creates the run directory with what is known at the start.
    pub(crate) fn create_run_dir(&self, config: &RunConfig) -> Result<RunDir, TrainError> {
        let resolved = config.to_toml()?;
        let mut data: Vec<_> = self.train.digests.iter().collect();
        if let (EvalData::Files(_), Some(eval)) = (&config.data.eval, &self.eval) {
            data.extend(&eval.digests);
        }
        let provenance = provenance(config, &resolved, &self.session, &data)?;
        RunDir::create(&config.output.dir, &resolved, &provenance)
    }
}

/// Refuses an adapter on the output head.
///
/// The head and its loss are one operation, which has no low-rank plan yet: it would form the
/// effective weight and a dense gradient of it, and would know no dropout.
fn refuse_head(report: &AttachReport) -> Result<(), TrainError> {
    let is_head = |module: &&AttachedModule| module.module.rsplit('.').next() == Some("lm_head");
    match report.modules.iter().find(is_head) {
        None => Ok(()),
        Some(head) => Err(TrainError::HeadTarget {
            module: head.module.clone(),
        }),
    }
}

/// Returns the steps of a run: those asked for, or as many as the epochs need.
fn max_steps(config: &RunConfig, train: &Dataset) -> u64 {
    match config.train.length {
        Length::MaxSteps(steps) => steps,
        Length::Epochs(epochs) => {
            let blocks = (epochs * train.blocks.len() as f64).ceil() as u64;
            let accumulation = config.train.gradient_accumulation as u64;
            blocks
                .div_ceil(config.train.batch_size as u64 * accumulation)
                .max(1)
        }
    }
}

fn load_data(
    config: &RunConfig,
    session: &Session,
) -> Result<(Dataset, Option<Dataset>), TrainError> {
    let options = settings::dataset(&config.data, config.train.sequence_length);
    let tokenizer = &session.tokenizer;
    let train = &config.data.train;
    Ok(match &config.data.eval {
        EvalData::Files(files) => {
            // Measured as `eval` and a held-out part are: by the responses.
            let measured = DatasetOptions {
                train_on_prompt: false,
                ..options.clone()
            };
            (
                Dataset::build(train, tokenizer, &options)?,
                Some(Dataset::build(files, tokenizer, &measured)?),
            )
        }
        EvalData::Fraction(fraction) => {
            Dataset::build_split(train, tokenizer, &options, *fraction)?
        }
    })
}

fn attached(
    config: &RunConfig,
    method: &AnyMethod,
    report: AttachReport,
    model_parameters: usize,
    base: &Path,
) -> Attached {
    let (scaling, result) = match method {
        AnyMethod::Lora(lora) => {
            let adapter_config = LoraAdapterConfig {
                base_model_name_or_path: Some(config.model.path.clone()),
                revision: config.model.revision.clone(),
                task_type: Some("CAUSAL_LM".to_owned()),
                target_modules: Some(written_targets(&lora.target_modules, &report.modules)),
                ..lora.to_adapter_config()
            };
            (
                Some(lora.scaling()),
                Saved::Adapter(Box::new(adapter_config)),
            )
        }
        _ => (
            None,
            Saved::Model {
                base: base.to_owned(),
            },
        ),
    };
    Attached {
        modules: report.modules,
        model_parameters,
        scaling,
        result,
    }
}

/// Returns the targets as they are written: `all-linear` by the names that it stands for.
///
/// PEFT does the same, and other readers of its files do not know the word. The names are the last
/// parts of the paths; they select the same modules, because what `all-linear` leaves out is the
/// output head, which shares its name with no other module, and what `exclude_modules` names, which
/// is written too.
fn written_targets(configured: &TargetModules, modules: &[AttachedModule]) -> TargetModules {
    if *configured != TargetModules::AllLinear {
        return configured.clone();
    }
    let names: BTreeSet<&str> = modules
        .iter()
        .filter_map(|module| module.module.rsplit('.').next())
        .collect();
    TargetModules::Names(names.into_iter().map(str::to_owned).collect())
}
