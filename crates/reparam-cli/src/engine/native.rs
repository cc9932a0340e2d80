//! The engine: the libraries of this project, called.

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rayon::ThreadPoolBuilder;
use reparam_formats::hub::HubOptions;
use reparam_kernels::capabilities::{
    capabilities, measure_matmul_gflops, measure_packed_gflops, measure_pair_limit_gflops,
};
use reparam_kernels::memory::keep_freed_pages;
use reparam_kernels::{Isa, KernelError, set_isa};
use reparam_models::{Generation, Sampling as ModelSampling, StopReason};
use reparam_train::bench::{BenchReport, BenchRequest, bench};
use reparam_train::config::{Precision, TaskConfig};
use reparam_train::event::{FailureKind, Observer};
use reparam_train::inspect::inspect;
use reparam_train::regression::{
    MissingPolicy, Prediction, RegressionModel, TabularError, predict_file, train_regression,
};
use reparam_train::study::{Study, StudyRequest, StudyRun, study};
use reparam_train::{Measure, Outcome, Session, TrainError, evaluate_file, train};

use super::{
    Engine, EngineError, EngineSettings, EvalReport, EvalRequest, FinishReason, GenerateReport,
    GenerateRequest, InspectReport, InspectRequest, PredictRequest, Sampling, TensorInfo,
    TrainOutcome, TrainRequest,
};

/// Opens the engine.
///
/// This is the single place where the commands meet the libraries that compute. A forced
/// instruction set takes effect here.
pub(crate) fn open(settings: EngineSettings) -> Result<Box<dyn Engine>, EngineError> {
    tracing::debug!(?settings, "opening the engine");
    keep_freed_pages();
    if let Some(isa) = &settings.isa {
        let isa: Isa = isa.parse().map_err(of_kernels)?;
        set_isa(isa).map_err(of_kernels)?;
    }
    Ok(Box::new(Native { settings }))
}

struct Native {
    settings: EngineSettings,
}

impl Native {
    fn hub(&self) -> HubOptions {
        let hub = &self.settings.hub;
        // Without a home directory there is no cache to look into; a relative one is the least
        // surprising place to download to.
        let cache = hub
            .cache
            .clone()
            .unwrap_or_else(|| ".cache/huggingface/hub".into());
        let mut options = HubOptions::new(cache);
        options.token.clone_from(&hub.token);
        options.offline = hub.offline;
        if let Some(endpoint) = &hub.endpoint {
            options.endpoint.clone_from(endpoint);
        }
        options
    }

    /// Starts the threads that compute: those of the run file, else of the environment, else one
    /// a core.
    fn start_threads(&self, asked: usize) -> Result<(), EngineError> {
        let threads = match asked {
            0 => self.settings.threads.map_or(0, std::num::NonZeroUsize::get),
            asked => asked,
        };
        // Kernels are called from this thread some thousand times a step; were it none of those that compute, each call would put
        // it to sleep and wake it up.
        ThreadPoolBuilder::new()
            .num_threads(threads)
            .use_current_thread()
            .build_global()
            .map_err(|error| {
                let hint = "ask for fewer threads".to_owned();
                EngineError::new(FailureKind::Io, error, [hint])
            })
    }

    fn session(
        &self,
        model: &str,
        adapter: Option<&std::path::Path>,
        precision: Precision,
    ) -> Result<Session, TrainError> {
        match adapter {
            None => Session::open(model, &self.hub(), precision),
            Some(adapter) => Session::open_with_adapter(model, adapter, &self.hub(), precision),
        }
    }
}

impl Engine for Native {
    fn train(
        &self,
        request: TrainRequest,
        observer: &mut dyn Observer,
    ) -> Result<TrainOutcome, EngineError> {
        self.start_threads(request.config.threads())?;
        let (measure, stop) = (Measure::Nothing, &request.stop);
        let outcome = match &request.config {
            TaskConfig::CausalLm(config) => train(config, &self.hub(), measure, stop, observer),
            TaskConfig::Regression(config) => train_regression(config, measure, stop, observer),
        };
        match outcome {
            Ok(Outcome::Finished) => Ok(TrainOutcome::Finished),
            Ok(Outcome::Interrupted { step }) => Ok(TrainOutcome::Interrupted { step }),
            Err(error) => Err(of_training(error)),
        }
    }

    fn study(
        &self,
        request: StudyRequest,
        stop: &AtomicBool,
        on_run: &mut dyn FnMut(&StudyRun),
    ) -> Result<Option<Study>, EngineError> {
        self.start_threads(0)?;
        study(&request, &self.hub(), stop, on_run).map_err(of_training)
    }

    fn predict(&self, request: PredictRequest) -> Result<Prediction, EngineError> {
        let missing = if request.drop_rows {
            MissingPolicy::DropRows
        } else {
            MissingPolicy::Error
        };
        let model = RegressionModel::load(&request.model).map_err(of_training)?;
        predict_file(&model, &request.data, missing).map_err(|error| match error {
            // Of a run file's ways out, only this one is a command's too.
            TrainError::Tabular(TabularError::MissingValues { .. }) => EngineError::new(
                error.kind(),
                error,
                ["fill them in, or leave these rows out with --drop-rows".to_owned()],
            ),
            error => of_training(error),
        })
    }

    fn eval(&self, request: EvalRequest) -> Result<EvalReport, EngineError> {
        self.start_threads(0)?;
        let session = self
            .session(
                &request.model,
                request.adapter.as_deref(),
                request.precision,
            )
            .map_err(of_training)?;
        let evaluation = evaluate_file(
            &session,
            request.data,
            request.format,
            request.sequence_length,
        )
        .map_err(of_training)?;
        Ok(EvalReport {
            loss: evaluation.loss,
            perplexity: evaluation.perplexity(),
            tokens: evaluation.tokens,
        })
    }

    fn generate(
        &self,
        request: GenerateRequest,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<GenerateReport, EngineError> {
        self.start_threads(0)?;
        let session = self
            .session(
                &request.model,
                request.adapter.as_deref(),
                request.precision,
            )
            .map_err(of_training)?;
        let sampling = model_sampling(request.sampling);
        let (prompt, generation) = session
            .generate(&request.prompt, request.max_new_tokens, sampling)
            .map_err(of_training)?;
        stream(&session, &prompt, generation, on_text).map_err(of_training)
    }

    fn bench(&self, request: BenchRequest) -> Result<BenchReport, EngineError> {
        self.start_threads(0)?;
        bench(&request, &self.hub()).map_err(of_training)
    }

    fn inspect(&self, request: InspectRequest) -> Result<InspectReport, EngineError> {
        let description = inspect(&request.path).map_err(of_training)?;
        Ok(InspectReport {
            kind: description.kind.name().to_owned(),
            properties: description
                .properties
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            tensors: description
                .tensors
                .into_iter()
                .map(|tensor| TensorInfo {
                    name: tensor.name,
                    dtype: tensor.dtype.to_owned(),
                    shape: tensor.shape.iter().map(|&size| size as u64).collect(),
                    bytes: tensor.bytes,
                })
                .collect(),
        })
    }

    fn capabilities(&self) -> Vec<(String, String)> {
        let found = capabilities();
        let names: Vec<&str> = found.available.iter().map(|isa| isa.name()).collect();
        let speed = |measured: Result<f64, KernelError>, what: &str| match measured {
            Ok(gflops) => format!("{gflops:.0} GFLOP/s ({what}, measured)"),
            Err(error) => error.to_string(),
        };
        [
            ("features", found.features.join(" ")),
            ("instruction sets", names.join(", ")),
            ("row kernels", found.row_kernels),
            ("matrix kernels", found.matrix_kernels),
            ("threads", found.threads.to_string()),
            ("bf16 kernels", found.packed_kernels),
            (
                "speed",
                speed(measure_matmul_gflops(), "f32 matrix product"),
            ),
            (
                "bf16 speed",
                speed(measure_packed_gflops(), "bf16 matrix product"),
            ),
            (
                "bf16 limit",
                speed(measure_pair_limit_gflops(), "registers alone"),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// Hands a generation out as text, piece by piece.
fn stream(
    session: &Session,
    prompt: &[u32],
    mut generation: Generation<'_>,
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<GenerateReport, TrainError> {
    let started = Instant::now();
    let mut first_token = None;
    let mut decoder = session.tokenizer.stream_decoder(true);
    decoder.skip(prompt)?;
    let mut text = String::new();
    let mut tokens = Vec::new();
    let mut stopped = false;
    while !stopped && let Some(token) = generation.next().transpose()? {
        tokens.push(token);
        first_token.get_or_insert_with(Instant::now);
        if let Some(piece) = decoder.push(token)? {
            stopped = on_text(&piece).is_break();
            text.push_str(&piece);
        }
    }
    if !stopped && let Some(piece) = decoder.finish()? {
        // What the reader says to the last piece changes nothing.
        let _ = on_text(&piece);
        text.push_str(&piece);
    }
    let finish_reason = match generation.stop_reason() {
        _ if stopped => FinishReason::Stopped,
        Some(StopReason::EndOfText) => FinishReason::EndOfText,
        _ => FinishReason::MaxNewTokens,
    };
    // The first token comes with reading the prompt, which is another speed.
    let tokens_per_s = match first_token {
        Some(first) if tokens.len() > 1 => {
            (tokens.len() - 1) as f64 / first.elapsed().as_secs_f64()
        }
        _ => tokens.len() as f64 / started.elapsed().as_secs_f64(),
    };
    Ok(GenerateReport {
        tokens_per_s,
        text,
        tokens,
        prompt_tokens: prompt.len(),
        finish_reason,
    })
}

fn model_sampling(sampling: Sampling) -> ModelSampling {
    match sampling {
        Sampling::Greedy => ModelSampling::greedy(),
        Sampling::Random {
            temperature,
            top_k,
            top_p,
            seed,
        } => ModelSampling {
            temperature,
            top_k: top_k.unwrap_or(0),
            top_p: top_p.unwrap_or(1.0),
            seed,
        },
    }
}

fn of_training(error: TrainError) -> EngineError {
    let (kind, hint) = (error.kind(), error.hint());
    EngineError::new(kind, error, hint)
}

fn of_kernels(error: KernelError) -> EngineError {
    let hint = error.hint();
    EngineError::new(FailureKind::Config, error, hint)
}
