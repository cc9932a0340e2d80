//! The task `causal-lm`: predicting the next token of texts.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use reparam::ForwardContext;
use reparam::methods::{self, AdapterMeta, AttachReport, MethodConfig};
use reparam_data::{BatchPlan, Dataset, DatasetOptions, Format, TextTokenizer};
use reparam_formats::config::ModelJson;
use reparam_formats::hub::HubOptions;
use reparam_models::{CausalLm, Precision, Sampling};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::cards::{self, CARD_FILE};
use crate::config::{self, EvalData, RunConfig, SampleConfig};
use crate::evaluate::{evaluate, evaluate_file, token_batch};
use crate::export::save_model;
use crate::generate::{FinishReason, generate};
use crate::learner::{ModuleLearner, Objective};
use crate::task::{
    BaseOrigin, DEFAULT_LENGTH, EvalRequest, ModelRequest, Origins, Prepared, ResultKind, RunFacts,
    RunPlan, Task,
};
use crate::{Metrics, Session, Stop, TrainError, settings};

/// A language model's texts.
#[derive(Debug)]
pub struct CausalLanguageModel {
    train: Dataset,
    eval: Option<Dataset>,
    /// Which blocks a micro-batch has.
    plan: BatchPlan,
    tokenizer: TextTokenizer,
    end_of_text: Vec<u32>,
    /// The text to generate before and after.
    sample: Option<SampleConfig>,
    card: TextCard,
    result: Saved,
}

/// What a run results in.
#[derive(Debug)]
enum Saved {
    /// An adapter in PEFT's format.
    Adapter(Arc<dyn MethodConfig>, Box<AdapterMeta>),
    /// The model with its effective weights, beside what its base's directory has.
    Model {
        base: PathBuf,
        config: Map<String, Value>,
    },
}

/// How the texts of a run were read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct TextCard {
    task: String,
    /// The most tokens of a piece.
    #[serde(default)]
    sequence_length: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<Format>,
}

impl TextCard {
    /// Reads what the adapter of a session says, else the model.
    fn of(request: &ModelRequest, session: &Session) -> Result<Option<Self>, TrainError> {
        let task = CausalLanguageModel::NAME;
        if let Some(directory) = &request.adapter
            && let Some(card) = cards::of_adapter(directory, task)?
        {
            return Ok(Some(card));
        }
        let json = ModelJson::load(&session.directory)?.json;
        cards::of_model(json.path(), json.map(), task)
    }
}

impl Objective for CausalLanguageModel {
    type Model = CausalLm;

    fn weight(&self, pass: u64) -> f64 {
        let blocks = self.plan.batch(pass).into_iter();
        let labelled = blocks.map(|block| self.train.blocks[block].n_labelled());
        labelled.sum::<usize>() as f64
    }

    fn loss(
        &self,
        model: &CausalLm,
        pass: u64,
        total: f64,
        context: &ForwardContext,
    ) -> Result<Tensor<1>, TrainError> {
        let batch = self.train.batch(&self.plan.batch(pass));
        let scale = (1.0 / total) as f32;
        Ok(model.loss(token_batch(&batch), &batch.labels, scale, context))
    }
}

impl Task for CausalLanguageModel {
    const NAME: &'static str = "causal-lm";
    const SUMMARY: &'static str = "predicts the next token";
    const UNIT: &'static str = "tokens";
    const TASK_TYPE: Option<&'static str> = Some("CAUSAL_LM");

    type Config = RunConfig;

    fn recognizes(config: &Value) -> bool {
        let named = config["architectures"].as_array().into_iter().flatten();
        named
            .filter_map(Value::as_str)
            .any(|name| name.ends_with("ForCausalLM") || name.ends_with("LMHeadModel"))
    }

    fn prepare(config: &RunConfig, hub: &HubOptions) -> Result<Prepared<Self>, TrainError> {
        let hub = config.model.hub(hub);
        let request = ModelRequest::new(&config.model.path)
            .with_precision(config.train.precision)
            .with_catalog(config.catalog.clone());
        let runs_in_bf16 = config::runs_in_bf16(&config.catalog, &config.method);
        let (mut session, precision) =
            Session::open_base(&request, &hub, runs_in_bf16, config.model.dropout)?;
        if precision != Precision::F32 && session.model.architecture().has_dropout() {
            return Err(TrainError::DropoutInBf16);
        }
        if config.train.recompute && precision == Precision::F32 {
            return Err(TrainError::RecomputeInF32);
        }
        session.model.check_length(config.train.sequence_length)?;
        session.model.body.recompute = config.train.recompute;
        let (train, eval) = load_data(config, &session)?;
        let max_steps = config.train.steps(train.blocks.len());
        let method = config.catalog.method(&config.method, max_steps)?;
        let model_parameters = session.model.num_params();
        let (model, report) = methods::attach(session.model, &*method, config.train.seed)?;
        let model = model.train();
        let is_transposed = model.stores_transposed(&report.modules);
        let result = result(config, &method, &report, is_transposed, &session.directory)?;
        // What cannot be written is known before the first step, not after the last.
        if let Saved::Adapter(method, meta) = &result {
            methods::to_adapter(&model, &**method, meta)?;
        }
        let optimizer = config
            .catalog
            .optimizer(&config.optimizer, &config.method, max_steps)?;
        optimizer.check(&model).map_err(TrainError::Update)?;
        let plan = BatchPlan::new(
            train.blocks.len(),
            config.train.batch_size,
            config.train.seed,
            config.data.shuffle,
        )?;
        let mut data = train.digests.clone();
        if let (EvalData::Files(_), Some(eval)) = (&config.data.eval, &eval) {
            data.extend(eval.digests.iter().cloned());
        }
        let origins = Origins {
            base: Some(BaseOrigin {
                model: config.model.path.clone(),
                revision: config.model.revision.clone(),
                directory: session.directory,
                files: [&BaseOrigin::FILES[..], &["generation_config.json"]].concat(),
            }),
            tokenizer: Some(session.tokenizer.digest().clone()),
            data,
        };
        let facts = RunFacts {
            model: config.model.path.clone(),
            method: config.method.kind.clone(),
            model_parameters,
            targets: report
                .modules
                .into_iter()
                .map(|module| module.module)
                .collect(),
            scaling: method.scaling(),
            batch_size: config.train.batch_size,
            precision: precision.name().to_owned(),
            learning_rate: config.optimizer.learning_rate,
            lambda: config.optimizer.update.lambda(max_steps),
            data: data_facts(&train, eval.as_ref(), config.train.sequence_length),
        };
        let kind = match &result {
            Saved::Adapter(..) => ResultKind::Adapter,
            Saved::Model { .. } => ResultKind::Model,
        };
        Ok(Prepared {
            learner: ModuleLearner {
                objective: Self {
                    train,
                    eval,
                    plan,
                    tokenizer: session.tokenizer,
                    end_of_text: session.end_of_text,
                    sample: config.train.sample.clone(),
                    card: TextCard {
                        task: Self::NAME.to_owned(),
                        sequence_length: Some(config.train.sequence_length),
                        format: config.data.format,
                    },
                    result,
                },
                model,
                seed: config.train.seed,
                accumulation: config.train.gradient_accumulation as u64,
                methods: config.catalog.methods.clone(),
            },
            optimizer,
            plan: RunPlan::new(&config.train, max_steps, kind),
            facts,
            origins,
        })
    }

    fn evaluate(&self, model: &CausalLm, stop: Stop<'_>) -> Result<Option<Metrics>, TrainError> {
        let eval = self.eval.as_ref();
        eval.map(|eval| evaluate(model, eval, stop)).transpose()
    }

    fn save(&self, model: &CausalLm, directory: &Path) -> Result<(), TrainError> {
        match &self.result {
            Saved::Adapter(method, meta) => {
                let files = methods::to_adapter(model, &**method, meta)?;
                Ok(files.save_with(directory, &[(CARD_FILE, &cards::text(&self.card))])?)
            }
            Saved::Model { base, config } => {
                let config = cards::in_config(config.clone(), &self.card);
                save_model(model.valid().to_tensors(), base, &config, directory)
            }
        }
    }

    fn sample(
        &self,
        model: &CausalLm,
        stop: Stop<'_>,
    ) -> Result<Option<(String, String)>, TrainError> {
        let Some(SampleConfig { prompt, tokens }) = &self.sample else {
            return Ok(None);
        };
        let request = (prompt.as_str(), *tokens, Sampling::greedy());
        let (tokenizer, end) = (&self.tokenizer, &self.end_of_text);
        let mut go_on = |_: &str| ControlFlow::Continue(());
        let generated = generate(model, tokenizer, end, request, stop, &mut go_on)?;
        if generated.finish_reason == FinishReason::Stopped {
            return Err(TrainError::Interrupted);
        }
        Ok(Some((prompt.clone(), generated.text)))
    }

    fn eval(
        request: &EvalRequest,
        hub: &HubOptions,
        stop: Stop<'_>,
    ) -> Result<Metrics, TrainError> {
        request.data.refuse_fields(Self::NAME)?;
        let format = request.data.format.as_deref().map(str::parse);
        let format = format.transpose()?;
        let session = Session::open_request(&request.model, hub)?;
        let card = TextCard::of(&request.model, &session)?;
        let (length, of_run) =
            card.map_or((None, None), |card| (card.sequence_length, card.format));
        let format = format.or(of_run);
        let data = request.data.path.clone();
        let sequence_length = request.sequence_length.or(length).unwrap_or(DEFAULT_LENGTH);
        session.model.check_length(sequence_length)?;
        evaluate_file(&session, data, format, sequence_length, stop)
    }
}

fn data_facts(
    train: &Dataset,
    eval: Option<&Dataset>,
    sequence_length: usize,
) -> Map<String, Value> {
    let report = &train.report;
    let facts = json!({
        "train_tokens": report.tokens,
        "labelled_tokens": report.labelled_tokens,
        "cut_examples": report.cut_examples,
        "blocks": report.blocks,
        "sequence_length": sequence_length,
        "eval_tokens": eval.map_or(0, |eval| eval.report.labelled_tokens),
    });
    match facts {
        Value::Object(facts) => facts,
        _ => Map::new(),
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

/// Returns what a run with a method results in: an adapter if PEFT has the method, else a model.
fn result(
    config: &RunConfig,
    method: &Arc<dyn MethodConfig>,
    report: &AttachReport,
    fan_in_fan_out: bool,
    base: &Path,
) -> Result<Saved, TrainError> {
    if method.spec().peft.is_none() {
        let config = ModelJson::load(base)?.json.map().clone();
        let base = base.to_owned();
        return Ok(Saved::Model { base, config });
    }
    let meta = AdapterMeta {
        base_model_name_or_path: Some(config.model.path.clone()),
        revision: config.model.revision.clone(),
        task_type: CausalLanguageModel::TASK_TYPE.map(str::to_owned),
        fan_in_fan_out,
        ..AdapterMeta::new(&**method, &report.modules)
    };
    Ok(Saved::Adapter(method.clone(), Box::new(meta)))
}
