//! The feed-forward half of a decoder layer as one operation.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;
use reparam_kernels::Bf16;
use reparam_kernels::gated::{GatedRows, gated_backward_in_place, gated_forward};

use super::block::{Block, apply};
use super::buffer::Buffer;
use super::norm::{FusedNorm, Norm};
use super::packed::FusedLinear;
use super::stack::{NODES, PartGradients, Stack};
use crate::Activation;
use crate::native::{halves, halves_mut, run};
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
/// For `h`, the low-rank factors, scales and biases; weights and the norm are frozen.
///
/// # Numerics
///
/// What lies in memory between two steps is bf16, sums are `f32`; the residual is added before the rounding.
///
/// # Cost
///
/// Keeps `h`, the outputs of gate and up, and their products with the `A`s; `x` and the activations are made again in the
/// backward pass. With `recompute` it keeps `h` alone and computes gate and up once more.
pub fn mlp_block(h: Tensor<2>, block: MlpBlock) -> Tensor<2> {
    let (gate_up, mut nodes) = Stack::new([block.gate, block.up], &h);
    let (down, down_nodes) = Stack::new([block.down], &h);
    nodes.extend(down_nodes);
    let core = Core {
        norm: Norm::new(block.norm),
        gate_up,
        down,
        activation: block.activation,
    };
    apply::<_, { 1 + 3 * NODES }>(h, core, nodes, block.recompute)
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

    /// Adds the block's output to `y`; without `y` only what is kept is computed.
    fn activations(&self, h: &[Bf16], y: Option<&mut [Bf16]>) -> Activations {
        let (x, _) = self.norm.forward(h);
        let n = self.norm.n_tokens(h);
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
}

impl Block for Core {
    type Kept = Activations;

    fn is_trained(&self) -> bool {
        self.gate_up.is_trained() || self.down.is_trained()
    }

    fn forward(&self, h: &[Bf16], y: &mut [Bf16]) -> Activations {
        self.activations(h, Some(y))
    }

    fn backward(
        &self,
        h: &[Bf16],
        kept: Option<Activations>,
        dy: &mut FlexTensor,
        wants_dh: bool,
    ) -> Vec<PartGradients> {
        let Activations {
            mut gate_up,
            t_gate_up,
            t_down,
        } = kept.unwrap_or_else(|| self.activations(h, None));
        let mut dact = Buffer::dirty(self.norm.n_tokens(h) * self.down.d_in());
        let (g, mut down) = self.down.backward(halves(dy), &t_down, Some(&mut dact));
        self.activation_backward(&mut gate_up, &mut dact);
        let act = dact;
        self.down.input_gradients(&act, &g, &mut down);
        drop((act, g));

        let dgate_up = gate_up;
        let mut dx = wants_dh.then(|| Buffer::dirty(h.len()));
        let dx_out = dx.as_deref_mut();
        let (g, mut gradients) = self.gate_up.backward(&dgate_up, &t_gate_up, dx_out);
        drop(dgate_up);
        let (x, inv_rms) = self.norm.forward(h);
        self.gate_up.input_gradients(&x, &g, &mut gradients);
        if let Some(dx) = dx {
            self.norm.backward_add(&dx, h, &inv_rms, halves_mut(dy));
        }
        gradients.extend(down);
        gradients
    }
}
