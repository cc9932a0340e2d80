//! Activations, plain and as gates.

use burn::tensor::Tensor;
use reparam_kernels::activation::{activation_backward, activation_forward};
use reparam_kernels::gated::Activation;
use reparam_kernels::swiglu as kernels;

use crate::native::{self, Operation, from_values, values};
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
    let mut operation = Operation::default();
    let x = operation.input(x);
    let mut y = vec![0.0; dims[0] * dims[1]];
    profile::measure(Work::Activation, 0.0, || {
        native::run(activation_forward(function, values(&x), &mut y));
    });
    operation.output(from_values(y, dims), move |dy, [_]| {
        let mut dx = vec![0.0; dims[0] * dims[1]];
        profile::measure(Work::Activation, 0.0, || {
            native::run(activation_backward(
                function,
                values(&dy),
                values(&x),
                &mut dx,
            ));
        });
        [Some(from_values(dx, dims))]
    })
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
    let mut operation = Operation::default();
    let (gate, up) = (operation.input(gate), operation.input(up));
    let mut y = vec![0.0; dims[0] * dims[1]];
    profile::measure(Work::Activation, 0.0, || {
        native::run(kernels::swiglu_forward(values(&gate), values(&up), &mut y));
    });
    operation.output(from_values(y, dims), move |dy, [_, _]| {
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
        [dgate, dup].map(|gradient| Some(from_values(gradient, dims)))
    })
}
