//! Weights as matrices, whatever rank Burn's generic traits give them.

use burn::module::Param;
use burn::tensor::{Shape, Tensor};
use reparam_ops::LinearPlan;

/// Returns a two-dimensional tensor under its own type.
///
/// # Panics
///
/// Panics for another rank: methods are attached to two-dimensional weights only.
pub(super) fn matrix<const D: usize>(tensor: Tensor<D>) -> Tensor<2> {
    let dims = tensor.dims();
    assert_eq!(D, 2, "a method is attached to matrices only");
    tensor.reshape([dims[0], dims[1]])
}

/// Undoes [`matrix`].
pub(super) fn like<const D: usize>(matrix: Tensor<2>, shape: Shape) -> Tensor<D> {
    matrix.reshape(shape)
}

/// Applies `y = x W'` with an effective weight in either layout.
pub(super) fn dense(x: &Tensor<2>, weight: &Param<Tensor<2>>, transposed: bool) -> Tensor<2> {
    let w = weight.val();
    let w = if transposed { w.transpose() } else { w };
    reparam_ops::linear(x.clone(), w, LinearPlan::Dense)
}
