//! Small mathematics on lists of flat tensors.

mod linalg;
mod noise;

use burn::tensor::{ElementConversion, Tensor};

pub(crate) use linalg::{
    as_matrix, damped_inverse, from_nalgebra, matrix_dims, require_matrices, to_nalgebra,
};
pub(crate) use noise::Noise;

use crate::parameters::NamedTensor;

/// Returns the Euclidean norm of all gradients together.
///
/// Every tensor's sum of squares is taken in its own type and the sums are added in `f64`, in the
/// list's order.
pub fn global_norm(gradients: &[NamedTensor]) -> f64 {
    gradients
        .iter()
        .map(|gradient| sum_of_squares(&gradient.values))
        .sum::<f64>()
        .sqrt()
}

fn sum_of_squares(values: &Tensor<1>) -> f64 {
    (values.clone() * values.clone())
        .sum()
        .into_scalar::<f64>()
        .elem()
}
