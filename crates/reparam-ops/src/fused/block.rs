//! What the halves of a layer have in common as operations on tensors.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops};
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use reparam_kernels::Bf16;

use super::stack::{NODES, PartGradients};
use super::states;
use crate::native::{self, halves, halves_mut, primitive_and_node};

/// Half a layer on slices.
pub(super) trait Block: Debug + Send + Sync + 'static {
    /// What a forward pass leaves to its backward pass besides the input.
    type Kept: Debug + Send + 'static;

    /// Whether any factor is tracked.
    fn is_trained(&self) -> bool;

    /// Adds the block's output to `y`, which holds `h`.
    fn forward(&self, h: &[Bf16], y: &mut [Bf16]) -> Self::Kept;

    /// Turns `dy` into the gradient of `h` if that is wanted, and returns the gradients of the factors, in the order of the
    /// nodes. What was not kept is computed again.
    fn backward(
        &self,
        h: &[Bf16],
        kept: Option<Self::Kept>,
        dy: &mut FlexTensor,
        wants_dh: bool,
    ) -> Vec<PartGradients>;
}

/// Applies a block to `h`; `factors` are the nodes of its factors, and `N` is one more than their number.
pub(super) fn apply<B: Block, const N: usize>(
    h: Tensor<2>,
    block: B,
    factors: Vec<NodeGuard>,
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
    let state = State {
        block: Arc::new(block),
        h,
        kept: Arc::new(Mutex::new((!recompute).then_some(kept))),
    };
    let nodes: Vec<_> = std::iter::once(h_node).chain(factors).collect();
    let nodes: [NodeGuard; N] = nodes
        .try_into()
        .unwrap_or_else(|_| unreachable!("so many a layer, and the input's"));
    native::tracked(BlockBackward(PhantomData::<B>), nodes, y, state)
}

#[derive(Debug)]
struct BlockBackward<B>(PhantomData<B>);

/// Burn wants states that can be cloned, but it hands out each once; so a clone shares, and whoever asks first has what was
/// kept.
#[derive(Debug)]
struct State<B: Block> {
    block: Arc<B>,
    h: FlexTensor,
    kept: Arc<Mutex<Option<B::Kept>>>,
}

impl<B: Block> Clone for State<B> {
    fn clone(&self) -> Self {
        Self {
            block: self.block.clone(),
            h: self.h.clone(),
            kept: self.kept.clone(),
        }
    }
}

impl<B: Block, const N: usize> Backward<Flex, N> for BlockBackward<B> {
    type State = State<B>;

    fn backward(self, ops: Ops<State<B>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let mut dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let State { block, h, kept } = ops.state;
        let kept = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let nodes = ops.parents.map(|node| node.map(|node| node.id));
        let gradients = block.backward(halves(&h), kept, &mut dy, nodes[0].is_some());
        match nodes[0] {
            Some(id) => grads.register::<Flex>(id, dy),
            None => states::recycle(dy),
        }
        states::recycle(h);
        for (gradient, nodes) in gradients.into_iter().zip(nodes[1..].as_chunks::<NODES>().0) {
            gradient.register(*nodes, grads);
        }
    }
}
