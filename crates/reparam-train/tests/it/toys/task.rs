//! A task that the library does not know: the logit of one token after a text is a score.

use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use reparam::ForwardContext;
use reparam::methods::{self, AdapterMeta, MethodConfig};
use reparam::schema::{Range, SettingKind, SettingSpec, Settings, number, required};
use reparam_data::rows::{OnError, RowBatch, RowsOptions, Schema, read_rows};
use reparam_data::{BatchPlan, EncodedRow, FileDigest};
use reparam_formats::hub::HubOptions;
use reparam_models::{CausalLm, TokenBatch};
use reparam_train::config::{DataConfig, Precision, TaskConfig, TaskKeys};
use reparam_train::{
    BaseOrigin, Carried, EvalRequest, Metrics, ModelRequest, ModuleLearner, Objective, Origins,
    PredictRequest, Predictions, Prepared, ResultKind, RunFacts, RunPlan, Session, Stop, Task,
    TrainError,
};
use serde_json::{Map, Value, json};

/// The settings that only this task has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Keys;

impl TaskKeys for Keys {
    const MODEL: &'static [SettingSpec] = &[number(
        "temperature",
        Range::Positive,
        1.0,
        "what logits are divided by",
    )];
    const DATA: &'static [SettingSpec] = &[
        DataConfig::TRAIN,
        DataConfig::EVAL,
        DataConfig::SHUFFLE,
        required(
            "answer",
            SettingKind::Text,
            "\"yes\"",
            "the text whose first token says the score",
        ),
    ];
}

/// The score of a text is `logit(answer) / temperature` behind its last token; the loss is the squared error.
#[derive(Debug)]
pub(crate) struct Score {
    train: Vec<Scored>,
    eval: Option<Vec<Scored>>,
    plan: BatchPlan,
    said: Said,
    method: Arc<dyn MethodConfig>,
    meta: AdapterMeta,
}

/// What the settings say, which predictions need too.
#[derive(Debug, Clone, Copy)]
struct Said {
    answer: u32,
    temperature: f64,
}

#[derive(Debug, Clone)]
struct Scored {
    row: EncodedRow,
    score: f64,
}

const WITH_SCORE: Schema = Schema {
    required: &["text", "score"],
    optional: &[],
    unread: &[],
};
const TEXT_ALONE: Schema = Schema {
    required: &["text"],
    optional: &[],
    unread: &["score"],
};

fn refuse(problem: impl Into<String>) -> TrainError {
    TrainError::Task(problem.into().into())
}

fn read(
    paths: &[String],
    schema: &Schema,
    session: &Session,
) -> Result<(Vec<Scored>, Vec<FileDigest>), TrainError> {
    let paths: Vec<_> = paths.iter().map(Into::into).collect();
    let rows = read_rows(&paths, schema, &RowsOptions::default())?;
    let files = rows.files.clone();
    let (rows, _) = rows.settle(OnError::Stop)?;
    let scored = rows.into_iter().map(|row| {
        let text = row.text("text")?.unwrap_or_default();
        let score = match row.number("score")? {
            None if schema.required.contains(&"score") => {
                return Err(refuse("a row without a score"));
            }
            score => score.unwrap_or_default(),
        };
        let row = session.tokenizer.encode_row(&text, None, 48)?;
        Ok(Scored { row, score })
    });
    Ok((scored.collect::<Result<_, TrainError>>()?, files))
}

impl Said {
    fn read(answer: &str, temperature: f64, session: &Session) -> Result<Self, TrainError> {
        let ids = session.tokenizer.encode(answer, false)?;
        let answer = ids.first().ok_or_else(|| refuse("the answer is empty"))?;
        Ok(Self {
            answer: *answer,
            temperature,
        })
    }

    /// What was said when an adapter was trained.
    fn of_adapter(request: &ModelRequest) -> Result<Self, TrainError> {
        let directory = request.adapter.as_deref();
        let directory = directory.ok_or_else(|| refuse("a score needs an adapter"))?;
        let card = std::fs::read_to_string(directory.join("reparam.json"));
        let card = card.map_err(|error| TrainError::Task(error.into()))?;
        let card: Value =
            serde_json::from_str(&card).map_err(|error| TrainError::Task(error.into()))?;
        match (card["answer"].as_u64(), card["temperature"].as_f64()) {
            (Some(answer), Some(temperature)) => Ok(Self {
                answer: u32::try_from(answer).map_err(|error| TrainError::Task(error.into()))?,
                temperature,
            }),
            _ => Err(refuse("reparam.json is not of this task")),
        }
    }

    /// The scores of rows, `[R]`.
    fn scores<'a>(
        self,
        model: &CausalLm,
        rows: impl Iterator<Item = &'a Scored>,
        context: &ForwardContext,
    ) -> Tensor<1> {
        let batch = RowBatch::concat(rows.map(|scored| &scored.row));
        let tokens = TokenBatch {
            input_ids: &batch.input_ids,
            position_ids: &batch.position_ids,
            bounds: &batch.bounds,
        };
        let logits = model.logits(tokens, context);
        let index = |places: Vec<i64>| {
            let n_places = places.len();
            Tensor::<1, Int>::from_data(TensorData::new(places, [n_places]), &logits.device())
        };
        let lasts = batch.bounds[1..].iter().map(|end| *end as i64 - 1);
        let (lasts, answer) = (index(lasts.collect()), index(vec![i64::from(self.answer)]));
        let chosen = logits.clone().select(0, lasts).select(1, answer);
        chosen.reshape([batch.n_rows()]) / self.temperature
    }

    fn measure(self, model: &CausalLm, rows: &[Scored]) -> Metrics {
        let scores = self.scores(model, rows.iter(), &ForwardContext::inference());
        let scores: Vec<f64> = scores.into_data().iter::<f64>().collect();
        let errors = scores
            .iter()
            .zip(rows)
            .map(|(score, row)| score - row.score);
        let mse = errors.map(|error| error * error).sum::<f64>() / rows.len() as f64;
        Metrics::lower_is_better("mse", mse).with("examples", rows.len())
    }
}

impl Objective for Score {
    type Model = CausalLm;

    fn weight(&self, pass: u64) -> f64 {
        self.plan.batch(pass).len() as f64
    }

    fn loss(
        &self,
        model: &CausalLm,
        pass: u64,
        total: f64,
        context: &ForwardContext,
    ) -> Result<Tensor<1>, TrainError> {
        let places = self.plan.batch(pass);
        let rows: Vec<&Scored> = places.iter().map(|place| &self.train[*place]).collect();
        let scores = self.said.scores(model, rows.iter().copied(), context);
        let wanted: Vec<f32> = rows.iter().map(|row| row.score as f32).collect();
        let wanted = Tensor::from_data(wanted.as_slice(), &scores.device());
        Ok((scores - wanted).square().sum() / total)
    }
}

impl Task for Score {
    const NAME: &'static str = "score";
    const SUMMARY: &'static str = "says a number after a text";
    const UNIT: &'static str = "rows";

    type Config = TaskConfig<Keys>;

    fn prepare(
        config: &Self::Config,
        hub: &HubOptions,
        watch: Stop<'_>,
    ) -> Result<Prepared<Self>, TrainError> {
        watch.check()?;
        let (common, train_config) = (&config.model.common, &config.train);
        let request = ModelRequest::new(common.name())
            .with_precision(Precision::F32)
            .with_catalog(config.catalog.clone());
        let hub = common.hub(hub);
        let (session, precision) = Session::open_base(&request, &hub, false, common.dropout)?;
        let temperature = config.model.own.number("temperature")?;
        let said = Said::read(config.data.word("answer")?, temperature, &session)?;
        let (train, mut files) = read(config.data.texts("train")?, &WITH_SCORE, &session)?;
        let eval = match config.data.optional("eval", Settings::texts)? {
            None => None,
            Some(paths) => {
                let (eval, of_eval) = read(paths, &WITH_SCORE, &session)?;
                files.extend(of_eval);
                Some(eval)
            }
        };
        let (seed, shuffle) = (train_config.seed, config.data.flag("shuffle")?);
        let plan = BatchPlan::new(train.len(), train_config.batch_size, seed, shuffle)?
            .with_accumulation(train_config.gradient_accumulation);
        let max_steps = train_config.steps(&plan);
        let method = config.catalog.method(&config.method, max_steps)?;
        let model_parameters = session.model.num_params();
        let (model, report) = methods::attach(session.model, &*method, train_config.seed)?;
        let model = model.train();
        let optimizer = config
            .catalog
            .optimizer(&config.optimizer, &config.method, max_steps)?;
        optimizer.check(&model).map_err(TrainError::Update)?;
        let modules = report.modules.iter();
        let facts = RunFacts {
            findings: Vec::new(),
            layers: Vec::new(),
            target_modules: Vec::new(),
            footprint: None,
            model: common.name().to_owned(),
            method: config.method.kind.clone(),
            model_parameters,
            targets: modules.map(|module| module.module.clone()).collect(),
            scaling: method.scaling(),
            batch_size: train_config.batch_size,
            precision: precision.name().to_owned(),
            learning_rate: config.optimizer.learning_rate,
            lambda: config.optimizer.update.lambda(max_steps),
            data: Map::from_iter([("train_rows".to_owned(), json!(train.len()))]),
        };
        let origins = Origins {
            base: Some(BaseOrigin {
                model: common.name().to_owned(),
                revision: common.revision.clone(),
                from: session.files,
                files: BaseOrigin::FILES.to_vec(),
            }),
            tokenizer: Some(session.tokenizer.digest().clone()),
            data: files,
            ..Origins::default()
        };
        Ok(Prepared {
            learner: ModuleLearner {
                carried: Carried::new(),
                objective: Self {
                    plan,
                    train,
                    eval,
                    said,
                    meta: AdapterMeta {
                        base_model_name_or_path: common.path.clone(),
                        ..AdapterMeta::new(&*method, &report.modules)
                    },
                    method,
                },
                model,
                seed,
                accumulation: train_config.gradient_accumulation as u64,
                methods: config.catalog.methods.clone(),
            },
            optimizer,
            plan: RunPlan::new(train_config, max_steps, ResultKind::Adapter),
            facts,
            origins,
        })
    }

    fn evaluate(&self, model: &CausalLm, stop: Stop<'_>) -> Result<Option<Metrics>, TrainError> {
        stop.check()?;
        Ok(self
            .eval
            .as_ref()
            .map(|rows| self.said.measure(model, rows)))
    }

    fn save(&self, model: &CausalLm, directory: &Path) -> Result<(), TrainError> {
        let card = json!({
            "task": Self::NAME, "answer": self.said.answer, "temperature": self.said.temperature,
        });
        let files = methods::to_adapter(model, &*self.method, &self.meta)?;
        Ok(files.save_with(directory, &[("reparam.json", &card.to_string())])?)
    }

    fn eval(
        request: &EvalRequest,
        hub: &HubOptions,
        stop: Stop<'_>,
    ) -> Result<Metrics, TrainError> {
        stop.check()?;
        let session = Session::open_request(&request.model, hub)?;
        let said = Said::of_adapter(&request.model)?;
        let path = request.data.path.display().to_string();
        let (rows, _) = read(&[path], &WITH_SCORE, &session)?;
        Ok(said.measure(&session.model, &rows))
    }

    fn predict(
        request: &PredictRequest,
        hub: &HubOptions,
        stop: Stop<'_>,
        rows: &mut dyn Predictions,
    ) -> Result<(), TrainError> {
        let session = Session::open_request(&request.model, hub)?;
        let said = Said::of_adapter(&request.model)?;
        let path = request.data.path.display().to_string();
        let (read, _) = read(&[path], &TEXT_ALONE, &session)?;
        rows.header("row,score");
        for (place, row) in read.iter().enumerate() {
            stop.check()?;
            let context = ForwardContext::inference();
            let score = said.scores(&session.model, std::iter::once(row), &context);
            let score = score.into_scalar::<f64>();
            let object = json!({ "row": place, "score": score });
            if rows.row(object, format!("{place},{score}")).is_break() {
                break;
            }
        }
        Ok(())
    }
}
