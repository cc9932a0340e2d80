//! One linear layer with a packed weight, over `f32` activations.

use burn::backend::Flex;
use burn::tensor::Tensor;

use super::buffer::Buffer;
use super::packed::FusedLinear;
use super::slices::{rounded, widened};
use super::stack::{NODES, Stack};
use crate::native::{self, from_values, primitive_and_node, values};

/// Applies a linear layer with a packed weight to activations in `f32`: for what is between two layers and has no fused operation,
/// such as dropout, attention to a source, scores by distance, and recurrent layers.
///
/// ```text
/// y = c_out * ((c_in * x) W' + s (c_in * z) A' B') + b
/// ```
///
/// It is [`linear`](crate::linear()) of the same plan. The layer may be a part of a stack of weights.
///
/// # Shapes
///
/// - x: `[N, d_in]`, output: `[N, d_out]`, both `f32`
///
/// # Gradients
///
/// For `x`, the low-rank factors, scales and bias; the weight is frozen.
///
/// # Numerics
///
/// `x`, and the gradient of the output, are rounded to bf16 once; sums and the output are `f32`. The gradient of `x` has the
/// precision of bf16.
///
/// # Cost
///
/// Keeps `x` in bf16 where anything of the layer is trained, and `x A'`.
///
/// # Panics
///
/// Panics when the width of `x` is not that of the layer.
pub fn packed_linear(x: Tensor<2>, layer: FusedLinear) -> Tensor<2> {
    let autodiff = x.is_autodiff();
    let is_tracked = x.is_tracked();
    let [n, d_in] = x.dims();
    let (stack, nodes) = Stack::single(layer);
    assert_eq!(d_in, stack.d_in(), "the width of the layer's input");
    let (x, x_node) = primitive_and_node(x);
    let x = rounded(values(&x));
    let t = stack.project(&x);
    let y = from_values(stack.forward_f32(&x, &t), [n, stack.width()]);
    if !is_tracked && !stack.is_trained() {
        return native::untracked(y, autodiff);
    }
    let x = stack.is_trained().then_some(x);
    let mut nodes = std::iter::once(Some(x_node)).chain(nodes);
    let nodes: [_; 1 + NODES] = std::array::from_fn(|_| native::or_nothing(nodes.next().flatten()));
    native::tracked(nodes, y, move |dy, [x_node, layer @ ..], grads| {
        let dy = rounded(values(&dy));
        let mut dx = x_node.map(|_| Buffer::dirty(n * d_in));
        let (pending, mut gradients) = stack.backward(&dy, &t, dx.as_deref_mut());
        if let Some(x) = &x {
            stack.input_gradients(x, &pending, &mut gradients);
        }
        if let (Some(id), Some(dx)) = (x_node, dx) {
            grads.register::<Flex>(id, from_values(widened(&dx), [n, d_in]));
        }
        for gradient in gradients {
            gradient.register(layer, grads);
        }
    })
}
