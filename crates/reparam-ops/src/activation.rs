//! Activations, plain and as gates.

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use reparam_kernels::activation::{activation_backward, activation_forward};
use reparam_kernels::gated::Activation;
use reparam_kernels::swiglu as kernels;

use crate::native::{self, from_values, primitive_and_node, values};
use crate::profile::{self, Work};
use crate::reference;

/// Applies an activation function, element by element.
///
/// # Shapes
///
/// - x, output: `[N, d]`
///
/// # Cost
///
/// Keeps `x`.
pub fn activation(x: Tensor<2>, function: Activation) -> Tensor<2> {
    if !native::is_native(&x) {
        return reference::activation(x, function);
    }
    let dims = x.dims();
    let (is_tracked, autodiff) = (x.is_tracked(), x.is_autodiff());
    let (x, node) = primitive_and_node(x);
    let mut y = vec![0.0; dims[0] * dims[1]];
    profile::measure(Work::Activation, 0.0, || {
        native::run(activation_forward(function, values(&x), &mut y));
    });
    let y = from_values(y, dims);
    if !is_tracked {
        return native::untracked(y, autodiff);
    }
    let state = ActivationState { x, function, dims };
    native::tracked(ActivationBackward, [node], y, state)
}

#[derive(Debug)]
struct ActivationBackward;

#[derive(Debug, Clone)]
struct ActivationState {
    x: FlexTensor,
    function: Activation,
    dims: [usize; 2],
}

impl Backward<Flex, 1> for ActivationBackward {
    type State = ActivationState;

    fn backward(self, ops: Ops<ActivationState, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let ActivationState { x, function, dims } = ops.state;
        let [node] = ops.parents;
        let Some(node) = node else { return };
        let mut dx = vec![0.0; dims[0] * dims[1]];
        profile::measure(Work::Activation, 0.0, || {
            native::run(activation_backward(
                function,
                values(&dy),
                values(&x),
                &mut dx,
            ));
        });
        grads.register::<Flex>(node.id, from_values(dx, dims));
    }
}

/// Multiplies one projection by the activation of another.
///
/// ```text
/// y = act(gate) * up
/// ```
///
/// # Shapes
///
/// - gate, up, output: `[N, d]`
///
/// # References
///
/// Shazeer, *GLU Variants Improve Transformer* (arXiv 2002.05202), equations 5 and 6.
pub fn gated(gate: Tensor<2>, up: Tensor<2>, function: Activation) -> Tensor<2> {
    match function {
        Activation::Silu => swiglu(gate, up),
        function => activation(gate, function) * up,
    }
}

/// Multiplies one projection by the SiLU of another.
///
/// ```text
/// y = silu(gate) * up,   silu(z) = z / (1 + exp(-z))
/// ```
///
/// # Shapes
///
/// - gate, up, output: `[N, d]`
///
/// # Cost
///
/// Keeps `gate` and `up`; the sigmoid is computed again in the backward pass.
///
/// # References
///
/// Shazeer, *GLU Variants Improve Transformer* (arXiv 2002.05202), equation 6.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    if !native::is_native(&gate) || !native::is_native(&up) {
        return reference::swiglu(gate, up);
    }
    let dims = gate.dims();
    let is_tracked = gate.is_tracked() || up.is_tracked();
    let autodiff = gate.is_autodiff() || up.is_autodiff();
    let (gate, gate_node) = primitive_and_node(gate);
    let (up, up_node) = primitive_and_node(up);
    let mut y = vec![0.0; dims[0] * dims[1]];
    profile::measure(Work::Activation, 0.0, || {
        native::run(kernels::swiglu_forward(values(&gate), values(&up), &mut y));
    });
    let y = from_values(y, dims);
    if !is_tracked {
        return native::untracked(y, autodiff);
    }
    let state = SwigluState { gate, up, dims };
    native::tracked(SwigluBackward, [gate_node, up_node], y, state)
}

#[derive(Debug)]
struct SwigluBackward;

#[derive(Debug, Clone)]
struct SwigluState {
    gate: FlexTensor,
    up: FlexTensor,
    dims: [usize; 2],
}

impl Backward<Flex, 2> for SwigluBackward {
    type State = SwigluState;

    fn backward(self, ops: Ops<SwigluState, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let SwigluState { gate, up, dims } = ops.state;
        let mut dgate = vec![0.0; dims[0] * dims[1]];
        let mut dup = vec![0.0; dims[0] * dims[1]];
        profile::measure(Work::Activation, 0.0, || {
            native::run(kernels::swiglu_backward(
                values(&dy),
                values(&gate),
                values(&up),
                &mut dgate,
                &mut dup,
            ));
        });
        let [gate_node, up_node] = ops.parents;
        if let Some(node) = gate_node {
            grads.register::<Flex>(node.id, from_values(dgate, dims));
        }
        if let Some(node) = up_node {
            grads.register::<Flex>(node.id, from_values(dup, dims));
        }
    }
}
