//! The two ends of a decoder over bf16 activations: the rows of the embedding, and the output head.

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::flex::FlexTensor;
use burn::tensor::{Device, Tensor};
use reparam_kernels::Bf16;
use reparam_kernels::packed::{self, MatrixMut};

use super::buffer::Buffer;
use super::norm::{FusedNorm, Norm};
use super::packed::PackedWeight;
use super::stack::view;
use super::states;
use crate::loss::head_operations;
use crate::native::{
    self, from_values, halves, halves_mut, primitive, primitive_and_node, run, values,
};
use crate::profile::{self, Work};

/// Looks up rows of a frozen table, `[N, d]` in bf16, on a device (with autodiff or without).
///
/// # Panics
///
/// Panics when an id is not below the number of rows; callers check the tokenizer against the table once.
pub fn frozen_embedding(table: &PackedWeight, ids: &[u32], device: &Device) -> Tensor<2> {
    let mut h = states::dirty([ids.len(), table.stack.cols()]);
    profile::measure(Work::Embedding, 0.0, || {
        run(table.stack.rows_of(ids, halves_mut(&mut h)));
    });
    native::untracked(h, device.is_autodiff())
}

/// Normalizes bf16 hidden states and returns their logits, `[N, V]` in `f32`. Nothing is tracked.
pub fn norm_logits(h: Tensor<2>, norm: FusedNorm, head: &PackedWeight) -> Tensor<2> {
    let autodiff = h.is_autodiff();
    let h = primitive(h);
    let (x, inv_rms) = Norm::new(norm).forward(halves(&h));
    let [vocabulary, d] = head.dims();
    let n = inv_rms.len();
    let mut logits = vec![0.0; n * vocabulary];
    profile::measure(Work::Loss, profile::product(n, d, vocabulary), || {
        let out = MatrixMut::new(&mut logits[..], n, vocabulary);
        run(out.and_then(|out| head.product(view(&x, n, d), out)));
    });
    native::untracked(from_values(logits, [n, vocabulary]), autodiff)
}

/// Normalizes bf16 hidden states and computes the scaled sum of the negative log-likelihoods of the labelled tokens.
///
/// The same as [`rms_norm`](crate::rms_norm) and [`linear_cross_entropy`](crate::linear_cross_entropy), which see for
/// `labels`, `scale` and the numerics, with a frozen norm and head. The gradient of `h` is made in the forward pass and is
/// what is kept.
pub fn norm_linear_cross_entropy(
    h: Tensor<2>,
    norm: FusedNorm,
    head: &PackedWeight,
    labels: &[i32],
    scale: f32,
) -> Tensor<1> {
    let is_tracked = h.is_tracked();
    let autodiff = h.is_autodiff();
    let dims = h.dims();
    let (h, node) = primitive_and_node(h);
    let norm = Norm::new(norm);
    let (x, inv_rms) = norm.forward(halves(&h));
    let mut dx = is_tracked.then(|| Buffer::<Bf16>::dirty(x.len()));
    let passes = if is_tracked { 2.0 } else { 1.0 };
    let operations = passes * head_operations(labels, head.dims());
    let loss = profile::measure(Work::Loss, operations, || {
        let x = view(&x, dims[0], dims[1]);
        let stack = head.stack.packed();
        let head = stack.part(head.part).expect("made with the stack");
        packed::linear_cross_entropy(x, head, labels, scale, dx.as_deref_mut())
    })
    .unwrap_or_else(|error| panic!("tensor shapes or labels do not fit: {error}"));
    let loss = from_values(vec![(loss.sum * f64::from(scale)) as f32], [1]);
    let Some(dx) = dx else {
        states::recycle(h);
        return native::untracked(loss, autodiff);
    };
    drop(x);
    let mut dh = states::dirty(dims);
    halves_mut(&mut dh).fill(Bf16::ZERO);
    norm.backward_add(&dx, halves(&h), &inv_rms, halves_mut(&mut dh));
    states::recycle(h);
    native::tracked(LossBackward, [node], loss, dh)
}

#[derive(Debug)]
struct LossBackward;

impl Backward<Flex, 1> for LossBackward {
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = grads.consume::<Flex>(&ops.node).to_contiguous();
        let factor = values(&upstream)[0];
        let mut dh = ops.state;
        let [node] = ops.parents;
        // The usual case is the loss itself being differentiated, which leaves the gradient as it was made.
        if factor != 1.0 {
            for value in halves_mut(&mut dh) {
                *value = Bf16::from_f32(factor * value.to_f32());
            }
        }
        if let Some(node) = node {
            grads.register::<Flex>(node.id, dh);
        }
    }
}
