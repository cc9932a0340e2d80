//! How much memory a run will take.

use reparam::optim::Optimizer;
use reparam::parameters::{NamedTensor, ParameterList};
use reparam_models::architecture::{
    BlockSpec, ExpertsSpec, FeedForwardSpec, MixerSpec, StateSpaceSpec,
};
use reparam_models::{Architecture, Precision};
use serde::Serialize;

use super::Finding;
use crate::memory::{available_bytes, held_bytes, peak_rss_bytes};
use crate::numbers::bytes;
use crate::task::{PreparedRun, ResultKind};

/// Bytes of a number of theta, its gradient and the optimizer's state.
const NUMBER: u64 = 4;

/// How many steps are looked through for the one with the most tokens; lengths repeat long before.
const STEPS_SEEN: u64 = 2_000;

/// What an update keeps besides parameters, gradients and its state while it is made: the updates, and the parameters after it.
const OF_UPDATE: u64 = 2;

/// What a run will take that it does not hold before its first step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Footprint {
    /// Bytes that a token of a micro-batch keeps from forward to backward.
    pub kept_per_token: u64,
    /// Bytes that a token needs while one layer goes back.
    pub working_per_token: u64,
    /// Numbers of the optimizer's state for each that is trained.
    pub state_per_parameter: f64,
}

impl Footprint {
    /// That of a model, see [`kept`] and [`working`], without the optimizer's state.
    pub(crate) fn of(
        architecture: &Architecture,
        (precision, recompute): (Precision, bool),
    ) -> Self {
        let is_packed = !matches!(precision, Precision::F32);
        let encoder = architecture.seq2seq.iter().map(|spec| &spec.encoder);
        let blocks = || {
            let all = encoder.clone().chain([architecture]);
            all.flat_map(|stack| {
                stack.blocks.iter().map(|block| {
                    let fuses = stack.fused_halves(block);
                    let fuses = fuses.map(|fuses| is_packed && fuses);
                    (stack.width as u64, block, fuses)
                })
            })
        };
        let kept = blocks().map(|(width, block, fuses)| kept(width, block, fuses, recompute));
        let working = blocks().map(|(width, block, fuses)| working(width, block, fuses));
        // Of a recurrent layer its gates before and after, and its states.
        let directions = (architecture.recurrent.iter())
            .flat_map(|spec| spec.layers.iter().flatten().map(|of| (of, spec.hidden)));
        let recurrent: u64 = directions
            .map(|(of, hidden)| NUMBER * (2 * of.input.d_out + 2 * hidden) as u64)
            .sum();
        let width = architecture.width as u64;
        let of_states = architecture.state_space.as_ref();
        let [of_states, states_working] = of_states.map_or([0; 2], |spec| state_space(width, spec));
        Self {
            kept_per_token: kept.sum::<u64>() + recurrent + of_states + NUMBER * width,
            working_per_token: working.max().unwrap_or(0).max(states_working) + 2 * NUMBER * width,
            state_per_parameter: 0.0,
        }
    }
}

/// Bytes that a token keeps of a block, with linear layers that all have a trained low-rank part.
///
/// In f32: the inputs of both norms, the inputs of all linear layers, queries, keys, values and what the activation is made of.
/// Where a half `fuses` it keeps what its `# Cost` says, in bf16, and with `recompute` its input alone.
fn kept(width: u64, block: &BlockSpec, [attends, feeds]: [bool; 2], recompute: bool) -> u64 {
    let [queries, keys, values] = block.attention.widths().map(|width| width as u64);
    let apart = NUMBER * (2 * width + 2 * queries + keys + values);
    let attention = match (attends, recompute) {
        (true, true) => 2 * width,
        (true, false) => 2 * (width + queries),
        (false, _) => apart,
    };
    let cross = block.cross.as_ref().map_or(0, |_| apart);
    let layer = &block.feed_forward;
    let feed_forward = match (feeds, recompute, &layer.experts) {
        (true, true, _) => 2 * width,
        (true, false, _) => 2 * (width + before_activation(layer)),
        (false, _, None) => NUMBER * (2 * width + inside(layer)),
        (false, _, Some(experts)) => NUMBER * (2 * width + of_experts(width, layer, experts)),
    };
    attention + cross + feed_forward
}

/// Numbers of a token that the activation of a layer is made of.
fn before_activation(layer: &FeedForwardSpec) -> u64 {
    let inner = layer.output.d_in as u64;
    if layer.gated { 2 * inner } else { inner }
}

/// Numbers of a token inside of a feed-forward layer.
fn inside(layer: &FeedForwardSpec) -> u64 {
    before_activation(layer) + layer.output.d_in as u64
}

/// Numbers that a token keeps inside of a layer with experts: of each of its experts the input, what is inside, and the output in the
/// order of the tokens; logits and probabilities of all; and the shared expert, with its output.
fn of_experts(width: u64, layer: &FeedForwardSpec, experts: &ExpertsSpec) -> u64 {
    let each = inside(layer) + 2 * width;
    let shared = experts.shared.as_ref();
    let shared = shared.map_or(0, |shared| inside(&shared.feed_forward) + width);
    experts.per_token as u64 * each + 2 * experts.n_experts as u64 + shared
}

/// Bytes that a token needs while a block goes back: gradients of its widest half and what is made again.
fn working(width: u64, block: &BlockSpec, fuses: [bool; 2]) -> u64 {
    let widths = block.attention.widths().map(|width| width as u64);
    let layer = &block.feed_forward;
    let inner = layer.output.d_in as u64;
    let numbers = [
        2 * widths.iter().sum::<u64>() + 2 * width,
        match &layer.experts {
            None => 3 * inner + 2 * width,
            // Gate and up are also in one, and the output is also in the order of the experts and weighted.
            Some(experts) => {
                let more = before_activation(layer) + 2 * width;
                of_experts(width, layer, experts) + experts.per_token as u64 * more
            }
        },
    ];
    let sizes = fuses.map(|fuses| if fuses { 2 } else { NUMBER });
    (sizes[0] * numbers[0]).max(sizes[1] * numbers[1])
}

/// Bytes that a token keeps of state-space layers, and needs while one goes back.
///
/// A layer keeps its input, before and behind the norm, channels and gates, what the convolution, the steps, the scan and the gate make of them, what
/// is selected, and the states before every 32nd token. Going back, each of these has a gradient, and the coefficients one for each block of
/// 64 channels.
fn state_space(width: u64, spec: &StateSpaceSpec) -> [u64; 2] {
    let (channels, states) = (spec.channels as u64, spec.states as u64);
    let of_layer = |layer: &MixerSpec| {
        let selected = (layer.selection.d_out + layer.step.d_in) as u64 + 2 * states;
        2 * width + 6 * channels + selected + channels * states / 32
    };
    let working = 6 * channels + 2 * states * channels.div_ceil(64);
    let kept: u64 = spec.layers.iter().map(of_layer).sum();
    [NUMBER * kept, NUMBER * working]
}

/// Numbers of an optimizer's state for each that is trained, found by a step with gradients of zero on the smallest of the modules
/// that something is attached to, with all of its tensors, so that factors stay pairs; else on the smallest matrix.
pub(crate) fn state_per_parameter(
    mut optimizer: Optimizer,
    trainable: &[NamedTensor],
    modules: &[String],
) -> f64 {
    let of_module = |module: &String| -> Vec<&NamedTensor> {
        let inside = |tensor: &&NamedTensor| {
            let rest = tensor.name.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest.starts_with('.'))
        };
        trainable.iter().filter(inside).collect()
    };
    let size = |some: &Vec<&NamedTensor>| some.iter().map(|tensor| tensor.len()).sum::<usize>();
    let modules = modules.iter().map(of_module).filter(|some| size(some) > 0);
    let alone = trainable.iter().filter(|tensor| !tensor.is_empty());
    let smallest = modules.min_by_key(size).or_else(|| {
        alone
            .min_by_key(|tensor| (tensor.shape.len() < 2, tensor.len()))
            .map(|one| vec![one])
    });
    let Some(smallest) = smallest else {
        return 0.0;
    };
    let n = size(&smallest);
    let parameters: ParameterList = smallest.into_iter().cloned().collect();
    let zeros = |tensor: &NamedTensor| tensor.clone().with_values(tensor.values.zeros_like());
    let gradients = parameters.iter().map(zeros).collect();
    match optimizer.step_list(parameters, gradients) {
        Ok(_) => {
            let state = optimizer.state();
            state.iter().map(NamedTensor::len).sum::<usize>() as f64 / n as f64
        }
        // What is wrong with the update, a run says itself.
        Err(_) => 0.0,
    }
}

/// What a run is expected to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// Bytes that are held before the first step: weights, data, theta, and the program.
    pub loaded: u64,
    /// Gradients of what is trained.
    pub gradients: u64,
    /// The optimizer's state.
    pub optimizer: u64,
    /// What the largest micro-batch keeps and works with.
    pub activations: u64,
    /// The most that is held at once.
    pub peak: u64,
    /// What this process may have now, with what it holds: the least of what is free and of its limits.
    pub available: Option<u64>,
    /// The tokens of the largest micro-batch.
    pub largest_batch: u64,
}

impl MemoryEstimate {
    /// Estimates what a run takes; `None` for a task that does not say what a token costs.
    pub(crate) fn of(prepared: &PreparedRun) -> Option<Self> {
        let footprint = prepared.facts.footprint?;
        let (_, largest) = prepared.largest();
        let trainable = prepared.counts.trainable as u64 * NUMBER;
        let optimizer = (trainable as f64 * footprint.state_per_parameter) as u64;
        // The gradients of a micro-batch beside the sum of those before it.
        let gradients = if prepared.accumulation > 1 {
            2 * trainable
        } else {
            trainable
        };
        let activations = largest * (footprint.kept_per_token + footprint.working_per_token);
        let loaded = held_bytes();
        let forward = activations + gradients;
        let update = gradients + OF_UPDATE * trainable;
        // A whole model is written with all of its effective weights beside it.
        let result = match prepared.plan.result {
            ResultKind::Adapter => 0,
            ResultKind::Model => prepared.counts.total as u64 * NUMBER,
        };
        let most = forward.max(update).max(result);
        Some(Self {
            loaded,
            gradients,
            optimizer,
            activations,
            peak: (loaded + optimizer + most).max(peak_rss_bytes()),
            available: available_bytes(),
            largest_batch: largest,
        })
    }

    /// Finds that there is less than a run takes.
    pub(crate) fn finding(&self) -> Option<Finding> {
        let available = self.available?;
        (self.peak > available).then(|| {
            Finding::warning(
                "memory",
                format!(
                    "the run is expected to take {} of memory, and {} are free: {} for activations, {} for gradients and the \
                     optimizer",
                    bytes(self.peak.into()),
                    bytes(available.into()),
                    bytes(self.activations.into()),
                    bytes((self.gradients + self.optimizer).into()),
                ),
                "lower train.batch_size or train.sequence_length, raise train.gradient_accumulation in their place, or, with \
                 bf16, set train.recompute = true",
            )
        })
    }
}

impl PreparedRun {
    /// Returns the step with the micro-batch of most tokens among those that are looked at, and its tokens.
    pub(crate) fn largest(&self) -> (u64, u64) {
        let steps = 0..self.plan.max_steps.min(STEPS_SEEN);
        let sizes = steps.map(|step| {
            let first = step * self.accumulation;
            let passes = first..first + self.accumulation;
            let largest = passes.map(|pass| self.learner.tokens(pass) as u64).max();
            (step, largest.unwrap_or(0))
        });
        // The first of equals, so that the first step is taken where all are alike.
        sizes.fold(
            (0, 0),
            |best, found| if found.1 > best.1 { found } else { best },
        )
    }
}
