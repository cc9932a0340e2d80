//! What the halves of a layer have in common as operations on tensors.

use burn::backend::Flex;
use burn::backend::autodiff::ops::NodeGuard;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use reparam_kernels::Bf16;

use super::norm::NormGradients;
use super::stack::{NODES, PartGradients};
use super::states;
use crate::native::{self, halves, halves_mut, primitive_and_node};

/// Half a layer on slices.
pub(super) trait Block: Send + 'static {
    /// What a forward pass leaves to its backward pass besides the input.
    type Kept: Send + 'static;

    /// Whether anything of the block is tracked.
    fn is_trained(&self) -> bool;

    /// Makes the block's output of `y`, which holds `h`.
    fn forward(&self, h: &[Bf16], y: &mut [Bf16]) -> Self::Kept;

    /// Turns `dy` into the gradient of `h` if that is wanted, and returns the gradients of the layers and of the norms, in the
    /// order of the nodes. What was not kept is computed again.
    ///
    /// With `dh`, which holds zeros, the block was added to something else than `h`: `dy` becomes the gradient of that, and `dh` that of
    /// `h`.
    fn backward(
        &self,
        h: &[Bf16],
        kept: Option<Self::Kept>,
        dy: &mut FlexTensor,
        dh: Option<&mut FlexTensor>,
        wants_dh: bool,
    ) -> BlockGradients;
}

/// The gradients of a block.
#[derive(Debug)]
pub(super) struct BlockGradients {
    pub(super) layers: Vec<PartGradients>,
    pub(super) norms: Vec<NormGradients>,
}

/// The nodes of the two inputs of a block.
pub(super) const INPUT_NODES: usize = 2;

/// Applies a block to `h`, and adds to `sum` if it is given, else to `h`; `nodes` are those of its layers and then those of its norms,
/// and `N` is [`INPUT_NODES`] more than their number.
///
/// A block that is added to something else has no norm after the sum: its backward pass would need that sum.
pub(super) fn apply<B: Block, const N: usize>(
    (h, sum): (Tensor<2>, Option<Tensor<2>>),
    block: B,
    nodes: Vec<Option<NodeGuard>>,
    recompute: bool,
) -> Tensor<2> {
    let autodiff = h.is_autodiff();
    let is_sum_tracked = sum.as_ref().is_some_and(Tensor::is_tracked);
    let is_tracked = h.is_tracked() || is_sum_tracked || block.is_trained();
    let (h, h_node) = primitive_and_node(h);
    let (sum, sum_node) = sum.map(primitive_and_node).unzip();
    let has_sum = sum.is_some();
    let mut y = states::copy_of(sum.as_ref().unwrap_or(&h));
    if let Some(sum) = sum {
        states::recycle(sum);
    }
    let kept = block.forward(halves(&h), halves_mut(&mut y));
    if !is_tracked {
        states::recycle(h);
        return native::untracked(y, autodiff);
    }
    let kept = (!recompute).then_some(kept);
    let nodes = [Some(h_node), sum_node].into_iter().chain(nodes);
    let nodes: Vec<_> = nodes.map(native::or_nothing).collect();
    let nodes: [NodeGuard; N] = nodes
        .try_into()
        .unwrap_or_else(|_| unreachable!("so many a layer and a norm, and the input's"));
    native::tracked(nodes, y, move |mut dy, nodes, grads| {
        let mut dh = has_sum.then(|| states::zeros(&h));
        let gradients = block.backward(halves(&h), kept, &mut dy, dh.as_mut(), nodes[0].is_some());
        let (dh, dsum) = match dh {
            Some(dh) => (dh, Some(dy)),
            None => (dy, None),
        };
        for (gradient, node) in [(Some(dh), nodes[0]), (dsum, nodes[1])] {
            match (gradient, node) {
                (Some(gradient), Some(id)) => grads.register::<Flex>(id, gradient),
                (Some(gradient), None) => states::recycle(gradient),
                (None, _) => {}
            }
        }
        states::recycle(h);
        let (layers, norms) = nodes[INPUT_NODES..].split_at(NODES * gradients.layers.len());
        for (gradient, nodes) in gradients.layers.into_iter().zip(layers.as_chunks().0) {
            gradient.register(*nodes, grads);
        }
        for (gradient, nodes) in gradients.norms.into_iter().zip(norms.as_chunks().0) {
            gradient.register(*nodes, grads);
        }
    })
}
