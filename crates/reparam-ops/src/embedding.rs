//! Token embedding.

use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::tensor::Tensor;
use reparam_kernels::embedding as kernels;

use crate::native::{self, from_values, primitive_and_node, values};
use crate::profile::{self, Work};
use crate::reference;

/// Looks up the rows of a table.
///
/// # Shapes
///
/// - table: `[V, d]`
/// - ids: `N` numbers below `V`
/// - output: `[N, d]`
///
/// # Panics
///
/// Panics when an id is not below `V`; callers check the tokenizer against the table once.
pub fn embedding(table: Tensor<2>, ids: &[u32]) -> Tensor<2> {
    if !native::is_native(&table) {
        return reference::embedding(table, ids);
    }
    let [vocab, d] = table.dims();
    let is_tracked = table.is_tracked();
    let autodiff = table.is_autodiff();
    let (table, node) = primitive_and_node(table);
    let mut out = vec![0.0; ids.len() * d];
    profile::measure(Work::Embedding, 0.0, || {
        native::run(kernels::embedding_forward(ids, values(&table), d, &mut out));
    });
    let out = from_values(out, [ids.len(), d]);
    if !is_tracked {
        return native::untracked(out, autodiff);
    }
    let state = EmbeddingState {
        ids: ids.into(),
        dims: [vocab, d],
    };
    native::tracked(EmbeddingBackward, [node], out, state)
}

#[derive(Debug)]
struct EmbeddingBackward;

#[derive(Debug, Clone)]
struct EmbeddingState {
    ids: Arc<[u32]>,
    dims: [usize; 2],
}

impl Backward<Flex, 1> for EmbeddingBackward {
    type State = EmbeddingState;

    fn backward(self, ops: Ops<EmbeddingState, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dout = grads.consume::<Flex>(&ops.node).to_contiguous();
        let EmbeddingState { ids, dims } = ops.state;
        let [node] = ops.parents;
        if let Some(node) = node {
            let mut dtable = vec![0.0; dims[0] * dims[1]];
            native::run(kernels::embedding_backward(
                values(&dout),
                &ids,
                dims[1],
                &mut dtable,
            ));
            grads.register::<Flex>(node.id, from_values(dtable, dims));
        }
    }
}
