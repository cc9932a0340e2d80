//! Hidden states and their gradients as tensors, whose memory is used again.

use burn::backend::flex::FlexTensor;
use reparam_kernels::Bf16;

use crate::native::{halves, halves_mut, zero_halves};
use crate::runtime::Runtime;

/// Tensors that nobody reads any more, the oldest first.
///
/// Left to the allocator, their places would be cut up by the small tensors that an update makes, and the next step's would
/// have to lie elsewhere.
pub(crate) type States = Vec<FlexTensor>;

/// Takes a bf16 tensor with any content.
pub(super) fn dirty(shape: [usize; 2]) -> FlexTensor {
    let runtime = Runtime::current();
    let mut free = runtime.states();
    let same = |tensor: &FlexTensor| tensor.layout().shape()[..] == shape;
    if let Some(found) = free.iter().rposition(same) {
        return free.remove(found);
    }
    // Batches of another size: as much is given back as is taken anew, so that the free ones never add to the peak.
    let mut missing = shape[0] * shape[1];
    while missing > 0 && !free.is_empty() {
        let oldest = free.remove(0);
        missing = missing.saturating_sub(halves(&oldest).len());
    }
    drop(free);
    zero_halves(shape)
}

/// Takes a bf16 tensor that holds what `source` holds.
pub(super) fn copy_of(source: &FlexTensor) -> FlexTensor {
    let shape = source.layout().shape();
    let mut copy = dirty([shape[0], shape[1]]);
    halves_mut(&mut copy).copy_from_slice(halves(source));
    copy
}

/// Takes a bf16 tensor of zeros, as large as another.
pub(super) fn zeros(like: &FlexTensor) -> FlexTensor {
    let shape = like.layout().shape();
    let mut zeros = dirty([shape[0], shape[1]]);
    halves_mut(&mut zeros).fill(Bf16::ZERO);
    zeros
}

/// Gives a tensor back, if nobody else holds it and it is not a part of a larger one.
pub(super) fn recycle(tensor: FlexTensor) {
    let layout = tensor.layout();
    let is_whole = layout.start_offset() == 0
        && tensor.bytes().len() == size_of::<Bf16>() * layout.num_elements();
    if tensor.is_unique() && tensor.is_contiguous() && is_whole {
        Runtime::current().states().push(tensor);
    }
}
