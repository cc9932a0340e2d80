//! Everything that is loaded and checked before a run starts.

use reparam::phi::{self, AttachReport, LoraConfig};
use reparam_data::Dataset;
use reparam_formats::hub::HubOptions;
use reparam_formats::peft::{LoraAdapterConfig, PeftAdapter};
use reparam_models::CausalLm;

use crate::config::{EvalData, MethodConfig, RunConfig};
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
}

/// What was attached to the model, and how it is saved.
pub(crate) struct Attached {
    pub(crate) modules: Vec<phi::AttachedModule>,
    /// The scaling of modules without a pattern of their own.
    pub(crate) scaling: f64,
    adapter_config: LoraAdapterConfig,
}

impl Attached {
    /// Returns the trainable state as an adapter.
    pub(crate) fn to_adapter(&self, model: &CausalLm) -> Result<PeftAdapter, TrainError> {
        Ok(phi::to_adapter(model, self.adapter_config.clone())?)
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
        let session = Session::open(&config.model.path, &hub)?;
        let (train, eval) = load_data(config, &session)?;
        let MethodConfig::Lora(lora) = &config.method;
        let lora = settings::lora(lora);
        let (model, report) = phi::attach_lora(session.model, &lora, config.train.seed)?;
        let session = Session { model, ..session };
        let attached = attached(config, &lora, report);
        Ok(Self {
            session,
            attached,
            train,
            eval,
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

fn load_data(
    config: &RunConfig,
    session: &Session,
) -> Result<(Dataset, Option<Dataset>), TrainError> {
    let format = config.data.format.map(settings::format);
    let packing = settings::packing(config.data.packing);
    let length = config.train.sequence_length;
    let tokenizer = &session.tokenizer;
    let train = &config.data.train;
    Ok(match &config.data.eval {
        EvalData::Files(files) => (
            Dataset::build(train, format, tokenizer, length, packing)?,
            Some(Dataset::build(files, format, tokenizer, length, packing)?),
        ),
        EvalData::Fraction(fraction) => {
            Dataset::build_split(train, format, tokenizer, length, packing, *fraction)?
        }
    })
}

fn attached(config: &RunConfig, lora: &LoraConfig, report: AttachReport) -> Attached {
    let adapter_config = LoraAdapterConfig {
        base_model_name_or_path: Some(config.model.path.clone()),
        revision: config.model.revision.clone(),
        task_type: Some("CAUSAL_LM".to_owned()),
        ..lora.to_adapter_config()
    };
    Attached {
        modules: report.modules,
        scaling: lora.scaling(),
        adapter_config,
    }
}
