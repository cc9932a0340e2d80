//! Root mean square normalization.

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use reparam_kernels::rms_norm as kernels;

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
