//! The feed-forward half of a decoder layer as one operation.

use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;
use reparam_kernels::Bf16;
use reparam_kernels::gated::{GatedRows, gated_backward_in_place, gated_forward};

use super::buffer::Buffer;
use super::frozen::FusedLinear;
use super::norm::{FusedNorm, Norm};
use super::stack::{FactorGradients, Stack};
use super::{Kept, guards, states};
use crate::Activation;
use crate::native::{self, halves, halves_mut, primitive_and_node, run};
use crate::profile::{self, Work};

/// A gated feed-forward block.
#[derive(Debug, Clone)]
pub struct MlpBlock {
    /// The normalization before it.
    pub norm: FusedNorm,
    /// What the activation is applied to; shares a stack with `up`.
    pub gate: FusedLinear,
    /// What is gated.
    pub up: FusedLinear,
    /// Back to the width of the hidden states.
    pub down: FusedLinear,
    /// The activation.
    pub activation: Activation,
    /// Whether the backward pass computes the activations again instead of keeping them.
    pub recompute: bool,
}

/// Applies a gated feed-forward block to bf16 hidden states.
///
/// ```text
/// x  = norm(h)
/// h' = h + down(act(gate(x)) * up(x))
/// ```
///
/// # Shapes
///
/// - h, output: `[N, d]`, bf16
///
/// # Gradients
///
/// For `h` and the low-rank factors; weights, biases and the norm are frozen.
///
/// # Numerics
///
/// What lies in memory between two steps is bf16, sums are `f32`; the residual is added before the rounding.
///
/// # Cost
///
/// Keeps `h`, the outputs of gate and up, and a few numbers a token; `x` and the activations are made again in the
/// backward pass. With `recompute` it keeps `h` alone and computes gate and up once more.
pub fn mlp_block(h: Tensor<2>, block: MlpBlock) -> Tensor<2> {
    let is_tracked = h.is_tracked();
    let autodiff = h.is_autodiff();
    let (gate_up, mut nodes) = Stack::new([block.gate, block.up], &h);
    let (down, down_nodes) = Stack::new([block.down], &h);
    nodes.extend(down_nodes);
    let (h, h_node) = primitive_and_node(h);
    let is_tracked = is_tracked || gate_up.is_trained() || down.is_trained();
    let core = Arc::new(Core {
        norm: Norm::new(block.norm),
        gate_up,
        down,
        activation: block.activation,
    });
    let mut y = states::copy_of(&h);
    let kept = core.forward(halves(&h), Some(halves_mut(&mut y)));
    if !is_tracked {
        states::recycle(h);
        return native::untracked(y, autodiff);
    }
    let state = State {
        core,
        h,
        kept: Kept::new(kept, block.recompute),
    };
    native::tracked(MlpBackward, guards::<7>(h_node, nodes), y, state)
}

/// Rows whose activations are made at a time; they stay in the second-level cache.
const ROWS: usize = 64;

/// The block on slices.
#[derive(Debug)]
struct Core {
    norm: Norm,
    gate_up: Stack,
    down: Stack,
    activation: Activation,
}

/// What the backward pass needs besides the input.
#[derive(Debug)]
struct Activations {
    inv_rms: Buffer<f32>,
    gate_up: Buffer<Bf16>,
    t_gate_up: Buffer<Bf16>,
    t_down: Buffer<Bf16>,
}

impl Core {
    fn rows(&self) -> GatedRows {
        GatedRows {
            inner: self.down.d_in(),
            row_stride: self.gate_up.width(),
            up_at: self.gate_up.columns(1).start,
        }
    }

    /// Adds the block's output to `y`, which holds `h`; without `y` only what is kept is computed.
    fn forward(&self, h: &[Bf16], y: Option<&mut [Bf16]>) -> Activations {
        let (x, inv_rms) = self.norm.forward(h);
        let n = inv_rms.len();
        let mut gate_up = self.gate_up.output_buffer(n);
        let t_gate_up = self.gate_up.project(&x);
        self.gate_up.forward(&x, &t_gate_up, &mut gate_up, false);
        drop(x);
        let mut act = Buffer::dirty(n * self.down.d_in());
        profile::measure(Work::Activation, 0.0, || {
            run(gated_forward(
                self.activation,
                &gate_up,
                self.rows(),
                &mut act,
            ));
        });
        let t_down = self.down.project(&act);
        if let Some(y) = y {
            self.down.forward(&act, &t_down, y, true);
        }
        Activations {
            inv_rms,
            gate_up,
            t_gate_up,
            t_down,
        }
    }

    /// Replaces gate and up by their gradients, and the gradient of the activations by the activations, which the gradient of
    /// the factors needs.
    fn activation_backward(&self, gate_up: &mut [Bf16], dact: &mut [Bf16]) {
        let rows = self.rows();
        profile::measure(Work::Activation, 0.0, || {
            gate_up
                .par_chunks_mut(ROWS * rows.row_stride)
                .zip(dact.par_chunks_mut(ROWS * rows.inner))
                .for_each(|(gate_up, dact)| {
                    let mut act = Buffer::dirty(dact.len());
                    run(gated_backward_in_place(
                        self.activation,
                        gate_up,
                        rows,
                        dact,
                        Some(&mut act),
                    ));
                    dact.copy_from_slice(&act);
                });
        });
    }

    /// Turns `dy` into the gradient of `h` if that is wanted, and returns the gradients of the factors.
    fn backward(
        &self,
        h: &[Bf16],
        kept: Activations,
        dy: &mut FlexTensor,
        wants_dh: bool,
    ) -> [Vec<FactorGradients>; 2] {
        let Activations {
            inv_rms,
            mut gate_up,
            t_gate_up,
            t_down,
        } = kept;
        let mut dact = Buffer::dirty(inv_rms.len() * self.down.d_in());
        let (g, mut down) = self.down.backward(halves(dy), &t_down, Some(&mut dact));
        self.activation_backward(&mut gate_up, &mut dact);
        let act = dact;
        self.down.a_gradients(&act, &g, &mut down);
        drop((act, g));

        let dgate_up = gate_up;
        let mut dx = wants_dh.then(|| Buffer::dirty(h.len()));
        let dx_out = dx.as_deref_mut();
        let (g, mut gate_up) = self.gate_up.backward(&dgate_up, &t_gate_up, dx_out);
        drop(dgate_up);
        let (x, _) = self.norm.forward(h);
        self.gate_up.a_gradients(&x, &g, &mut gate_up);
        if let Some(dx) = dx {
            self.norm.backward_add(&dx, h, &inv_rms, halves_mut(dy));
        }
        [gate_up, down]
    }
}

#[derive(Debug)]
struct MlpBackward;

#[derive(Debug, Clone)]
struct State {
    core: Arc<Core>,
    h: FlexTensor,
    kept: Kept<Activations>,
}

impl Backward<Flex, 7> for MlpBackward {
    type State = State;

    fn backward(self, ops: Ops<State, 7>, grads: &mut Gradients, _: &mut Checkpointer) {
        let mut dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let State { core, h, kept } = ops.state;
        let kept = kept.take(|| core.forward(halves(&h), None));
        let nodes = ops.parents.map(|node| node.map(|node| node.id));
        let gradients = core.backward(halves(&h), kept, &mut dy, nodes[0].is_some());
        match nodes[0] {
            Some(id) => grads.register::<Flex>(id, dy),
            None => states::recycle(dy),
        }
        states::recycle(h);
        let widths = [core.gate_up.d_in(), core.gate_up.d_in(), core.down.d_in()];
        let gradients = gradients.into_iter().flatten().zip(widths);
        for ((gradient, d_in), nodes) in gradients.zip(nodes[1..].as_chunks::<2>().0) {
            gradient.register(d_in, *nodes, grads);
        }
    }
}
