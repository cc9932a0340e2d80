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
    fn backward(
        &self,
        h: &[Bf16],
        kept: Option<Self::Kept>,
        dy: &mut FlexTensor,
        wants_dh: bool,
    ) -> BlockGradients;
}

/// The gradients of a block.
#[derive(Debug)]
pub(super) struct BlockGradients {
    pub(super) layers: Vec<PartGradients>,
    pub(super) norms: Vec<NormGradients>,
}

/// Applies a block to `h`; `nodes` are those of its layers and then those of its norms, and `N` is one more than their number.
pub(super) fn apply<B: Block, const N: usize>(
    h: Tensor<2>,
    block: B,
    nodes: Vec<Option<NodeGuard>>,
    recompute: bool,
) -> Tensor<2> {
    let autodiff = h.is_autodiff();
    let is_tracked = h.is_tracked() || block.is_trained();
    let (h, h_node) = primitive_and_node(h);
    let mut y = states::copy_of(&h);
    let kept = block.forward(halves(&h), halves_mut(&mut y));
    if !is_tracked {
        states::recycle(h);
        return native::untracked(y, autodiff);
    }
    let kept = (!recompute).then_some(kept);
    let nodes = std::iter::once(Some(h_node)).chain(nodes);
    let nodes: Vec<_> = nodes.map(native::or_nothing).collect();
    let nodes: [NodeGuard; N] = nodes
        .try_into()
        .unwrap_or_else(|_| unreachable!("so many a layer and a norm, and the input's"));
    native::tracked(nodes, y, move |mut dy, nodes, grads| {
        let gradients = block.backward(halves(&h), kept, &mut dy, nodes[0].is_some());
        match nodes[0] {
            Some(id) => grads.register::<Flex>(id, dy),
            None => states::recycle(dy),
        }
        states::recycle(h);
        let (layers, norms) = nodes[1..].split_at(NODES * gradients.layers.len());
        for (gradient, nodes) in gradients.layers.into_iter().zip(layers.as_chunks().0) {
            gradient.register(*nodes, grads);
        }
        for (gradient, nodes) in gradients.norms.into_iter().zip(norms.as_chunks().0) {
            gradient.register(*nodes, grads);
        }
    })
}
