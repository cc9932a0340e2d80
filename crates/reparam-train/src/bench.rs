//! Training steps on random tokens, measured.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Tensor;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use reparam::ForwardContext;
use reparam::methods::{self, MethodError, MethodSpec};
use reparam::schema::Settings;
use reparam_data::{Batch, IGNORE_INDEX};
use reparam_formats::hub::HubOptions;
use reparam_kernels::capabilities::{measure_mul_add_limit_gflops, measure_pair_limit_gflops};
use reparam_models::{CausalLm, Precision as Computed};
use reparam_ops::profile::Work;
use reparam_ops::runtime::{Runtime, RuntimeOptions};
use serde::Serialize;

use crate::config::{Override, Precision, RunConfig};
use crate::evaluate::token_batch;
use crate::learner::{self, Carried, ModuleLearner, Objective, Stepped};
use crate::memory::{minor_page_faults, peak_rss_bytes};
use crate::{ModelRequest, RunFile as _, Session, TrainError};

/// What is measured: a method with its default settings, LoRA on all linear layers, with AdamW and clipping to norm 1.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchRequest {
    /// A model directory or a hub id.
    pub model: String,
    /// The word for the method; LoRA if absent.
    pub method: Option<String>,
    /// The method's rank, if it has one; the usual one if absent.
    pub rank: Option<usize>,
    /// Sequences a step.
    pub batch_size: usize,
    /// Tokens a sequence.
    pub sequence_length: usize,
    /// Steps that are measured.
    pub steps: usize,
    /// Steps before those.
    pub warmup: usize,
    /// What activations are computed in.
    pub precision: Precision,
    /// Whether activations are computed again in the backward pass.
    pub recompute: bool,
    /// What the tokens are derived from.
    pub seed: u64,
    /// What the steps are computed with; they are profiled in any case.
    pub runtime: RuntimeOptions,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    /// The name of this program.
    pub program: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What activations were computed in.
    pub precision: &'static str,
    /// The instruction set of the kernels.
    pub isa: &'static str,
    /// Threads that computed.
    pub threads: usize,
    /// The processor's name.
    pub cpu: String,
    /// Sequences a step.
    pub batch_size: usize,
    /// Tokens a sequence.
    pub sequence_length: usize,
    /// The word for the method.
    pub method: &'static str,
    /// Its rank, if it has one.
    pub rank: Option<usize>,
    /// Whether activations were computed again.
    pub recompute: bool,
    /// From nothing to a model with its method attached.
    pub load_seconds: f64,
    /// Time of each measured step.
    pub step_seconds: Vec<f64>,
    /// Their median.
    pub step_seconds_median: f64,
    /// Tokens a second by the median.
    pub tokens_per_s: f64,
    /// The loss of each step, those before the measured ones included.
    pub losses: Vec<f64>,
    /// The largest resident size of the process so far; 0 where the system does not tell.
    pub peak_rss_bytes: u64,
    /// Page faults without disk access in each measured step; empty where the system does not tell.
    pub minor_page_faults: Vec<u64>,
    /// Where the time of a step went, the longest first.
    pub operations: Vec<OperationReport>,
    /// What the machine's registers can multiply and add, in GFLOP/s, measured after the steps.
    pub limit_gflops: f64,
    /// What the linear layers reached.
    pub linear_gflops: f64,
    /// Their share of the limit.
    pub linear_share_of_limit: f64,
}

/// One kind of work in the measured steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OperationReport {
    /// Its name.
    pub name: &'static str,
    /// Median time a step.
    pub seconds: f64,
    /// Operations of its matrix products, in 10^9; 0 if it has none.
    pub gflop: f64,
    /// Its share of the median step.
    pub share: f64,
}

/// Measures training steps of a model on random tokens.
///
/// A step is all of it: forward, loss, backward, clipping, update. Its tokens are uniform over the vocabulary and new at
/// every step.
///
/// # Errors
///
/// As a run's preparation does; [`TrainError::LossNotFinite`].
pub fn bench(request: &BenchRequest, hub: &HubOptions) -> Result<BenchReport, TrainError> {
    let runtime = Runtime::new(RuntimeOptions {
        profile: true,
        ..request.runtime
    });
    runtime.run(|| bench_in(&runtime, request, hub))?
}

/// [`bench`] with the runtime in force.
fn bench_in(
    runtime: &Runtime,
    request: &BenchRequest,
    hub: &HubOptions,
) -> Result<BenchReport, TrainError> {
    let config = run_config(request)?;
    let loading = Instant::now();
    // There is nothing to be exact about, so `auto` is what is fastest, however the weights are stored.
    let spec = spec_of(&config);
    let runs_packed = spec.is_none_or(|spec| spec.runs_packed);
    let wanted = match request.precision.resolve(runs_packed) {
        Computed::Bf16 => Precision::Bf16,
        Computed::F32 => Precision::F32,
        Computed::Int8 => return Err(TrainError::Int8InTraining),
    };
    let model = ModelRequest::new(&request.model)
        .with_precision(wanted)
        .with_runtime(runtime.clone());
    let (session, precision) = Session::open_base(&model, hub, true, None)?;
    if request.recompute && precision == Computed::F32 {
        return Err(TrainError::RecomputeInF32);
    }
    session.model.check_length(request.sequence_length)?;
    let steps = (request.warmup + request.steps) as u64;
    let chosen = config.method.as_ref().ok_or(TrainError::NoMethod)?;
    let method = config.catalog.method(chosen, steps)?;
    let spec = method.spec();
    let settings = Settings::new(spec.kind, spec.settings, &chosen.settings);
    let settings = settings.map_err(MethodError::from)?;
    let rank = settings.size("rank").ok();
    let (mut model, _) = methods::attach(session.model, &*method, request.seed)?;
    model.body.recompute = request.recompute;
    let vocabulary = model.vocab_size();
    let mut learner = ModuleLearner {
        carried: Carried::new(),
        objective: RandomTokens {
            request: request.clone(),
            vocabulary,
        },
        model: model.train(),
        seed: request.seed,
        accumulation: 1,
        methods: config.catalog.methods.clone(),
    };
    let mut optimizer = config.catalog.optimizer(&config.optimizer, chosen, steps)?;
    let load_seconds = loading.elapsed().as_secs_f64();

    let mut losses = Vec::new();
    let mut timed = Timed::default();
    for step in 0..request.warmup + request.steps {
        let faults = minor_page_faults();
        // What is not a step does not count.
        let _ = runtime.take_measured();
        let started = Instant::now();
        let stepped = learner::step(&mut learner, &mut optimizer, |_, _, _| Ok(()));
        let seconds = started.elapsed().as_secs_f64();
        let work = runtime.take_measured();
        let Stepped { loss, update, .. } = stepped.map_err(not_finite)?;
        timed.update.push(update.as_secs_f64());
        losses.push(loss);
        if step < request.warmup {
            timed.update.clear();
            continue;
        }
        timed.seconds.push(seconds);
        if let (Some(before), Some(after)) = (faults, minor_page_faults()) {
            timed.faults.push(after - before);
        }
        for (work, measured) in work {
            let entry = timed.work.entry(work).or_default();
            entry.0.push(measured.time.as_secs_f64());
            entry.1 = measured.operations / 1e9;
        }
    }

    let limit_gflops = if precision == Computed::F32 {
        measure_mul_add_limit_gflops()
    } else {
        measure_pair_limit_gflops()
    }
    .unwrap_or_default();
    let step_seconds_median = median(&timed.seconds);
    let operations = timed.operations(step_seconds_median);
    let linear_gflops = operations
        .iter()
        .find(|operation| operation.name == Work::Linear.name())
        .map_or(0.0, |linear| linear.gflop / linear.seconds);
    let tokens = (request.batch_size * request.sequence_length) as f64;
    Ok(BenchReport {
        program: "reparam",
        version: env!("CARGO_PKG_VERSION"),
        precision: precision.name(),
        isa: runtime.isa().name(),
        threads: Runtime::running_threads(),
        cpu: cpu_name(),
        batch_size: request.batch_size,
        sequence_length: request.sequence_length,
        method: spec.kind,
        rank,
        recompute: request.recompute,
        load_seconds,
        tokens_per_s: tokens / step_seconds_median,
        step_seconds_median,
        losses,
        peak_rss_bytes: peak_rss_bytes(),
        minor_page_faults: timed.faults,
        operations,
        limit_gflops,
        linear_gflops,
        linear_share_of_limit: if limit_gflops > 0.0 {
            linear_gflops / limit_gflops
        } else {
            0.0
        },
        step_seconds: timed.seconds,
    })
}

/// What is collected over the measured steps.
#[derive(Default)]
struct Timed {
    seconds: Vec<f64>,
    faults: Vec<u64>,
    /// Times of each step, and its operations in 10^9.
    work: BTreeMap<Work, (Vec<f64>, f64)>,
    /// The time of the update.
    update: Vec<f64>,
}

impl Timed {
    fn operations(&self, step: f64) -> Vec<OperationReport> {
        let report = |name, seconds, gflop| OperationReport {
            name,
            seconds,
            gflop,
            share: seconds / step,
        };
        let mut operations: Vec<_> = self
            .work
            .iter()
            .map(|(work, (seconds, gflop))| report(work.name(), median(seconds), *gflop))
            .collect();
        operations.push(report("update", median(&self.update), 0.0));
        let known: f64 = operations.iter().map(|operation| operation.seconds).sum();
        operations.push(report("other", (step - known).max(0.0), 0.0));
        operations.retain(|operation| operation.seconds > 0.0);
        operations.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        operations
    }
}

/// The run of which steps are measured; it has no data of its own.
fn run_config(request: &BenchRequest) -> Result<RunConfig, TrainError> {
    let text = format!(
        "[model]\npath = \"-\"\n[data]\ntrain = \"-\"\n\
         [optimizer]\nlearning_rate = 1e-4\nclip_grad_norm = 1.0\nschedule = \"constant\"\nwarmup_steps = 0\n\
         [train]\nmax_steps = {}\n[output]\ndir = \"-\"\n",
        (request.warmup + request.steps).max(1),
    );
    let parse = |overrides: &[Override]| RunConfig::parse(&text, "the measured run", overrides);
    let set = |key: &str, value: &dyn Display| Override::set(format!("method.{key}={value}"));
    let mut overrides = Vec::new();
    overrides.extend(request.method.iter().map(|kind| set("kind", kind)));
    let config = parse(&overrides)?;
    let Some(rank) = request.rank else {
        return Ok(config);
    };
    let settings = spec_of(&config).map_or(&[][..], |spec| spec.settings);
    if settings.iter().all(|setting| setting.key != "rank") {
        let method = config.method.ok_or(TrainError::NoMethod)?.kind;
        return Err(TrainError::NoRank { method });
    }
    overrides.push(set("rank", &rank));
    Ok(parse(&overrides)?)
}

fn spec_of(config: &RunConfig) -> Option<&'static MethodSpec> {
    config.catalog.methods.get(&config.method.as_ref()?.kind)
}

/// Of a measurement there is nothing to say but that it cannot be used.
fn not_finite(error: TrainError) -> TrainError {
    match error {
        TrainError::Diverged { .. } => TrainError::LossNotFinite,
        error => error,
    }
}

/// Tokens that are new at every step.
#[derive(Debug)]
struct RandomTokens {
    request: BenchRequest,
    vocabulary: usize,
}

impl Objective for RandomTokens {
    type Model = CausalLm;

    fn weight(&self, _: u64) -> f64 {
        let request = &self.request;
        (request.batch_size * (request.sequence_length - 1)) as f64
    }

    fn loss(
        &self,
        model: &CausalLm,
        pass: u64,
        total: f64,
        context: &ForwardContext,
    ) -> Result<Tensor<1>, TrainError> {
        let batch = random_batch(&self.request, self.vocabulary, pass);
        let scale = (1.0 / total) as f32;
        Ok(model.loss(token_batch(&batch), &batch.labels, scale, context))
    }
}

fn random_batch(request: &BenchRequest, vocabulary: usize, step: u64) -> Batch {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&request.seed.to_le_bytes());
    key[8..16].copy_from_slice(&step.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    let (length, tokens) = (
        request.sequence_length,
        request.batch_size * request.sequence_length,
    );
    let input_ids: Vec<u32> = (0..tokens)
        .map(|_| (rng.next_u64() % vocabulary as u64) as u32)
        .collect();
    let is_last = |at: usize| (at + 1).is_multiple_of(length);
    Batch {
        position_ids: (0..tokens).map(|at| (at % length) as u32).collect(),
        labels: (0..tokens)
            .map(|at| {
                if is_last(at) {
                    IGNORE_INDEX
                } else {
                    input_ids[at + 1] as i32
                }
            })
            .collect(),
        bounds: (0..=request.batch_size).map(|i| i * length).collect(),
        input_ids,
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The processor's name as Linux gives it; the architecture elsewhere.
fn cpu_name() -> String {
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}
