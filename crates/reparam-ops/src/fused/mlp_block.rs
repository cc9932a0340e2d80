//! The feed-forward half of a layer as one operation.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;
use reparam_kernels::Bf16;
use reparam_kernels::activation::{activation_backward, activation_forward};
use reparam_kernels::gated::{GatedRows, gated_backward_in_place, gated_forward};

use super::block::{Block, BlockGradients, INPUT_NODES, apply};
use super::buffer::Buffer;
use super::packed::FusedLinear;
use super::residual::{FusedNorms, Outputs, RESIDUAL_NODES, Residual};
use super::stack::{NODES, Stack};
use crate::Activation;
use crate::native::{halves, halves_mut, run};
use crate::profile::{self, Work};
use crate::runtime::Runtime;

/// A feed-forward block.
#[derive(Debug, Clone)]
pub struct MlpBlock {
    /// The norms around it.
    pub norms: FusedNorms,
    /// Gate and up, which share a stack, or one layer whose output holds them side by side; up alone without a gate.
    pub inputs: Vec<FusedLinear>,
    /// Whether there is a gate.
    pub gated: bool,
    /// Back to the width of the hidden states.
    pub down: FusedLinear,
    /// The activation.
    pub activation: Activation,
    /// Whether the backward pass computes the activations again instead of keeping them.
    pub recompute: bool,
}

/// Applies a feed-forward block to bf16 hidden states, and adds to `sum`, which is `h` where none is given.
///
/// ```text
/// x  = before(h)
/// h' = after(sum + factor * inside(down(act(gate(x)) * up(x))))      or, without a gate,
/// h' = after(sum + factor * inside(down(act(up(x)))))
/// ```
///
/// # Shapes
///
/// - h, sum, output: `[N, d]`, bf16
///
/// # Gradients
///
/// For `h`, `sum`, the low-rank factors, scales and biases, and the norms; weights are frozen.
///
/// # Numerics
///
/// What lies in memory between two steps is bf16, sums are `f32`; the residual is added before the rounding, unless a norm or a
/// factor comes between.
///
/// # Cost
///
/// Keeps `h`, the outputs of gate and up, and their products with the `A`s; `x` and the activations are made again in the
/// backward pass. With `recompute` it keeps `h` alone and computes gate and up once more. A norm inside or after keeps its
/// input.
///
/// # Panics
///
/// Panics when the inputs are not one layer or two, there is a norm after another sum than that with `h`, or anything else does not
/// fit.
pub fn mlp_block(h: Tensor<2>, sum: Option<Tensor<2>>, block: MlpBlock) -> Tensor<2> {
    /// Those of the inputs, the layer of the output and the norms.
    const REST: usize = INPUT_NODES + NODES + RESIDUAL_NODES;
    assert!(
        sum.is_none() || block.norms.after.is_none(),
        "a norm after the sum of parallel halves"
    );
    let h = (h, sum);
    let n_inputs = block.inputs.len();
    let (gate_up, mut nodes) = Stack::new(block.inputs);
    let (down, down_nodes) = Stack::new(vec![block.down]);
    let (residual, residual_nodes) = Residual::new(block.norms);
    nodes.extend(down_nodes);
    nodes.extend(residual_nodes);
    let inner = down.d_in();
    let gate = block.gated.then(|| GatedRows {
        inner,
        row_stride: gate_up.width(),
        up_at: match n_inputs {
            1 => inner,
            _ => gate_up.columns(1).start,
        },
    });
    let core = Core {
        residual,
        gate_up,
        down,
        gate,
        activation: block.activation,
    };
    match n_inputs {
        1 => apply::<_, { REST + NODES }>(h, core, nodes, block.recompute),
        2 => apply::<_, { REST + 2 * NODES }>(h, core, nodes, block.recompute),
        _ => panic!("gate and up are one layer or two"),
    }
}

/// Rows whose activations are made at a time; they stay in the second-level cache.
const ROWS: usize = 64;

/// The block on slices.
#[derive(Debug)]
struct Core {
    residual: Residual,
    /// The layers of the input, with a gate or without.
    gate_up: Stack,
    down: Stack,
    /// Where gate and up are, if there is a gate.
    gate: Option<GatedRows>,
    activation: Activation,
}

/// What the backward pass needs besides the input.
#[derive(Debug)]
struct Activations {
    gate_up: Buffer<Bf16>,
    t_gate_up: Buffer<Bf16>,
    t_down: Buffer<Bf16>,
    outputs: Outputs,
}

impl Core {
    /// Makes the block's output of `y`, which holds `h`; without `y` only what is kept is computed.
    fn activations(&self, h: &[Bf16], y: Option<&mut [Bf16]>) -> Activations {
        let x = self.residual.input(h);
        let n = h.len() / self.gate_up.d_in();
        let mut gate_up = self.gate_up.output_buffer(n);
        let t_gate_up = self.gate_up.project(&x);
        self.gate_up.forward(&x, &t_gate_up, &mut gate_up, false);
        drop(x);
        let mut act = Buffer::dirty(n * self.down.d_in());
        profile::measure(Work::Activation, 0.0, || {
            run(match self.gate {
                Some(rows) => gated_forward(self.activation, &gate_up, rows, &mut act),
                None => activation_forward(self.activation, &gate_up, &mut act),
            });
        });
        let t_down = self.down.project(&act);
        let output = |y: &mut [Bf16]| {
            self.residual.output(y, |y, accumulate| {
                self.down.forward(&act, &t_down, y, accumulate);
            })
        };
        let outputs = match y {
            Some(y) => output(y),
            None if self.residual.needs_outputs() => output(&mut Buffer::copy_of(h)),
            None => Outputs::default(),
        };
        Activations {
            gate_up,
            t_gate_up,
            t_down,
            outputs,
        }
    }

    /// Replaces the outputs of the input layers by their gradients, and the gradient of the activations by the activations,
    /// which the gradient of the factors needs.
    fn activation_backward(&self, gate_up: &mut [Bf16], dact: &mut [Bf16]) {
        let (inner, width) = (self.down.d_in(), self.gate_up.width());
        // Threads of the pool do not know what is in force here.
        let runtime = Runtime::current();
        profile::measure(Work::Activation, 0.0, || {
            gate_up
                .par_chunks_mut(ROWS * width)
                .zip(dact.par_chunks_mut(ROWS * inner))
                .for_each(|(gate_up, dact)| {
                    runtime.share(|| self.activation_backward_of(gate_up, dact));
                });
        });
    }

    /// The same for a few rows.
    fn activation_backward_of(&self, gate_up: &mut [Bf16], dact: &mut [Bf16]) {
        let mut act = Buffer::dirty(dact.len());
        match self.gate {
            Some(rows) => run(gated_backward_in_place(
                self.activation,
                gate_up,
                rows,
                dact,
                Some(&mut act),
            )),
            None => {
                let up = Buffer::copy_of(gate_up);
                run(activation_forward(self.activation, &up, &mut act));
                run(activation_backward(self.activation, dact, &up, gate_up));
            }
        }
        dact.copy_from_slice(&act);
    }
}

impl Block for Core {
    type Kept = Activations;

    fn is_trained(&self) -> bool {
        self.gate_up.is_trained() || self.down.is_trained() || self.residual.is_trained()
    }

    fn forward(&self, h: &[Bf16], y: &mut [Bf16]) -> Activations {
        self.activations(h, Some(y))
    }

    fn backward(
        &self,
        h: &[Bf16],
        kept: Option<Activations>,
        dy: &mut FlexTensor,
        dh: Option<&mut FlexTensor>,
        wants_dh: bool,
    ) -> BlockGradients {
        let Activations {
            mut gate_up,
            t_gate_up,
            t_down,
            outputs,
        } = kept.unwrap_or_else(|| self.activations(h, None));
        let (dlayer, output_norms) = self.residual.output_gradient(&outputs, halves_mut(dy));
        drop(outputs);
        let n = h.len() / self.gate_up.d_in();
        let mut dact = Buffer::dirty(n * self.down.d_in());
        let dlayer_rows = dlayer.as_deref().unwrap_or(halves(dy));
        let (g, mut down) = self.down.backward(dlayer_rows, &t_down, Some(&mut dact));
        drop(dlayer);
        self.activation_backward(&mut gate_up, &mut dact);
        let act = dact;
        self.down.input_gradients(&act, &g, &mut down);
        drop((act, g));

        let wants_dx = wants_dh || self.residual.wants_input_gradient();
        let dh = wants_dx.then(|| halves_mut(dh.unwrap_or(dy)));
        let input = (h, || self.residual.input(h));
        let (mut layers, before) =
            self.residual
                .backward_inputs(&self.gate_up, gate_up, &t_gate_up, input, dh);
        layers.extend(down);
        let [inside, after] = output_norms;
        BlockGradients {
            layers,
            norms: vec![before, inside, after],
        }
    }
}
