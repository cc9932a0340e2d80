//! Small dense linear algebra on flat tensors.

use burn::tensor::{Tensor, TensorData};
use nalgebra::DMatrix;

use crate::optim::error::{OptimError, Result};
use crate::parameters::NamedTensor;

/// Returns the rows and columns of a matrix: the first axis, and all others together.
pub(crate) fn matrix_dims(shape: &[usize]) -> Option<(usize, usize)> {
    match shape {
        [rows, rest @ ..] if !rest.is_empty() => Some((*rows, rest.iter().product())),
        _ => None,
    }
}

/// Returns a tensor of two or more axes as a matrix.
pub(crate) fn as_matrix(tensor: &NamedTensor) -> Option<Tensor<2>> {
    let (rows, cols) = matrix_dims(&tensor.shape)?;
    Some(tensor.values.clone().reshape([rows, cols]))
}

/// Refuses parameters that are not matrices.
pub(crate) fn require_matrices(transform: &'static str, parameters: &[NamedTensor]) -> Result<()> {
    match parameters.iter().find(|tensor| tensor.shape.len() != 2) {
        None => Ok(()),
        Some(tensor) => Err(OptimError::NotAMatrix {
            transform,
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
        }),
    }
}

/// Copies a matrix out of a tensor, in `f64`.
pub(crate) fn to_nalgebra(matrix: &Tensor<2>) -> DMatrix<f64> {
    let [rows, cols] = matrix.dims();
    let data = matrix.clone().into_data().convert::<f64>();
    let values = data.as_slice::<f64>().unwrap_or_default();
    DMatrix::from_row_slice(rows, cols, values)
}

/// Makes a tensor like another one, on its device and in its type, of a matrix.
pub(crate) fn from_nalgebra(matrix: &DMatrix<f64>, like: &Tensor<2>) -> Tensor<2> {
    // nalgebra stores columns; the transpose's columns are the rows.
    let values: Vec<f64> = matrix.transpose().as_slice().to_vec();
    let data = TensorData::new(values, [matrix.nrows(), matrix.ncols()]);
    Tensor::from_data(
        data.convert_dtype(like.dtype()),
        (&like.device(), like.dtype()),
    )
}

/// Returns `(M + damping I)^-1` of a positive semidefinite matrix, computed in `f64`.
///
/// # Errors
///
/// [`OptimError::Singular`] when the damped matrix cannot be inverted.
pub(crate) fn damped_inverse(
    gram: &Tensor<2>,
    damping: f64,
    transform: &'static str,
    name: &str,
) -> Result<Tensor<2>> {
    let mut matrix = to_nalgebra(gram);
    for i in 0..matrix.nrows() {
        matrix[(i, i)] += damping;
    }
    let inverse = matrix.cholesky().map(|factors| factors.inverse());
    match inverse {
        Some(inverse) => Ok(from_nalgebra(&inverse, gram)),
        None => Err(OptimError::Singular {
            transform,
            name: name.to_owned(),
        }),
    }
}
