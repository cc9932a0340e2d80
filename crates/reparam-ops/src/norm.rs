//! Root mean square and layer normalization.

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use reparam_kernels::{layer_norm as layer_kernels, rms_norm as kernels};

use crate::native::{self, from_values, primitive_and_node, values};
use crate::profile::{self, Work};
use crate::reference;

/// Normalizes every row by its root mean square and scales it by a weight.
///
/// ```text
/// y = x / sqrt(mean(x^2) + eps) * weight
/// ```
///
/// # Shapes
///
/// - x: `[N, d]`
/// - weight: `[d]`
/// - output: `[N, d]`
///
/// # Cost
///
/// Keeps `x` and one number a row; the normalized rows are made again in the backward pass.
///
/// # References
///
/// Zhang and Sennrich, *Root Mean Square Layer Normalization* (arXiv 1910.07467), equation 4.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f32) -> Tensor<2> {
    if !native::is_native(&x) || !native::is_native(&weight) {
        return reference::rms_norm(x, weight, eps);
    }
    let [n, d] = x.dims();
    let is_tracked = x.is_tracked() || weight.is_tracked();
    let autodiff = x.is_autodiff() || weight.is_autodiff();
    let (x, x_node) = primitive_and_node(x);
    let (weight, weight_node) = primitive_and_node(weight);
    let mut y = vec![0.0; n * d];
    let mut inv_rms = vec![0.0; n];
    profile::measure(Work::Norm, 0.0, || {
        native::run(kernels::rms_norm_forward(
            values(&x),
            values(&weight),
            eps,
            &mut y,
            &mut inv_rms,
        ));
    });
    let y = from_values(y, [n, d]);
    if !is_tracked {
        return native::untracked(y, autodiff);
    }
    let state = RmsNormState {
        x,
        weight,
        inv_rms: from_values(inv_rms, [n]),
        dims: [n, d],
    };
    native::tracked(RmsNormBackward, [x_node, weight_node], y, state)
}

#[derive(Debug)]
struct RmsNormBackward;

#[derive(Debug, Clone)]
struct RmsNormState {
    x: FlexTensor,
    weight: FlexTensor,
    inv_rms: FlexTensor,
    dims: [usize; 2],
}

impl Backward<Flex, 2> for RmsNormBackward {
    type State = RmsNormState;

    fn backward(self, ops: Ops<RmsNormState, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let state = ops.state;
        let [n, d] = state.dims;
        let [x_node, weight_node] = ops.parents;
        let mut dx = vec![0.0; n * d];
        let mut dweight = weight_node.is_some().then(|| vec![0.0; d]);
        profile::measure(Work::Norm, 0.0, || {
            native::run(kernels::rms_norm_backward(
                values(&dy),
                values(&state.x),
                values(&state.weight),
                values(&state.inv_rms),
                &mut dx,
                dweight.as_deref_mut(),
            ));
        });
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, from_values(dx, [n, d]));
        }
        if let (Some(node), Some(dweight)) = (weight_node, dweight) {
            grads.register::<Flex>(node.id, from_values(dweight, [d]));
        }
    }
}

/// Takes the mean off every row, divides it by its standard deviation, scales and shifts it.
///
/// ```text
/// y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias,   var(x) = mean((x - mean(x))^2)
/// ```
///
/// # Shapes
///
/// - x: `[N, d]`
/// - weight, bias: `[d]`
/// - output: `[N, d]`
///
/// # Cost
///
/// Keeps `x` and two numbers a row; the normalized rows are made again in the backward pass.
///
/// # References
///
/// Ba, Kiros and Hinton, *Layer Normalization* (arXiv 1607.06450), equation 4.
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, eps: f32) -> Tensor<2> {
    if ![&weight, &bias].iter().all(|t| native::is_native(t)) || !native::is_native(&x) {
        return reference::layer_norm(x, weight, bias, eps);
    }
    let [n, d] = x.dims();
    let is_tracked = x.is_tracked() || weight.is_tracked() || bias.is_tracked();
    let autodiff = x.is_autodiff() || weight.is_autodiff() || bias.is_autodiff();
    let (x, x_node) = primitive_and_node(x);
    let (weight, weight_node) = primitive_and_node(weight);
    let (bias, bias_node) = primitive_and_node(bias);
    let mut y = vec![0.0; n * d];
    let (mut mean, mut inv_std) = (vec![0.0; n], vec![0.0; n]);
    profile::measure(Work::Norm, 0.0, || {
        native::run(layer_kernels::layer_norm_forward(
            values(&x),
            values(&weight),
            Some(values(&bias)),
            eps,
            &mut y,
            &mut mean,
            &mut inv_std,
        ));
    });
    let y = from_values(y, [n, d]);
    if !is_tracked {
        return native::untracked(y, autodiff);
    }
    let state = LayerNormState {
        x,
        weight,
        mean: from_values(mean, [n]),
        inv_std: from_values(inv_std, [n]),
        dims: [n, d],
    };
    native::tracked(
        LayerNormBackward,
        [x_node, weight_node, bias_node],
        y,
        state,
    )
}

#[derive(Debug)]
struct LayerNormBackward;

#[derive(Debug, Clone)]
struct LayerNormState {
    x: FlexTensor,
    weight: FlexTensor,
    mean: FlexTensor,
    inv_std: FlexTensor,
    dims: [usize; 2],
}

impl Backward<Flex, 3> for LayerNormBackward {
    type State = LayerNormState;

    fn backward(self, ops: Ops<LayerNormState, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let state = ops.state;
        let [n, d] = state.dims;
        let [x_node, weight_node, bias_node] = ops.parents;
        let mut dx = vec![0.0; n * d];
        let mut dweight = weight_node.is_some().then(|| vec![0.0; d]);
        let mut dbias = bias_node.is_some().then(|| vec![0.0; d]);
        profile::measure(Work::Norm, 0.0, || {
            native::run(layer_kernels::layer_norm_backward(
                values(&dy),
                values(&state.x),
                values(&state.weight),
                values(&state.mean),
                values(&state.inv_std),
                &mut dx,
                dweight.as_deref_mut(),
                dbias.as_deref_mut(),
            ));
        });
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, from_values(dx, [n, d]));
        }
        for (node, gradient) in [(weight_node, dweight), (bias_node, dbias)] {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<Flex>(node.id, from_values(gradient, [d]));
            }
        }
    }
}
