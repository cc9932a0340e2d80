//! Root mean square and layer normalization.

use burn::tensor::Tensor;
use reparam_kernels::{layer_norm as layer_kernels, rms_norm as kernels};

use crate::native::{self, Operation, from_values, values};
use crate::profile::{self, Work};
use crate::reference;

/// Normalizes every row by its root mean square and scales it by a weight.
///
/// ```text
/// y = x / sqrt(mean(x^2) + eps) * weight
/// ```
///
/// # Shapes
///
/// - x: `[N, d]`
/// - weight: `[d]`
/// - output: `[N, d]`
///
/// # Cost
///
/// Keeps `x` and one number a row; the normalized rows are made again in the backward pass.
///
/// # References
///
/// Zhang and Sennrich, *Root Mean Square Layer Normalization* (arXiv 1910.07467), equation 4.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f32) -> Tensor<2> {
    if !native::is_native(&x) || !native::is_native(&weight) {
        return reference::rms_norm(x, weight, eps);
    }
    let [n, d] = x.dims();
    let mut operation = Operation::default();
    let (x, weight) = (operation.input(x), operation.input(weight));
    let mut y = vec![0.0; n * d];
    let mut inv_rms = vec![0.0; n];
    profile::measure(Work::Norm, 0.0, || {
        native::run(kernels::rms_norm_forward(
            values(&x),
            values(&weight),
            eps,
            &mut y,
            &mut inv_rms,
        ));
    });
    operation.output(from_values(y, [n, d]), move |dy, [_, wants_weight]| {
        let mut dx = vec![0.0; n * d];
        let mut dweight = wants_weight.then(|| vec![0.0; d]);
        profile::measure(Work::Norm, 0.0, || {
            native::run(kernels::rms_norm_backward(
                values(&dy),
                values(&x),
                values(&weight),
                &inv_rms,
                &mut dx,
                dweight.as_deref_mut(),
            ));
        });
        let dweight = dweight.map(|dweight| from_values(dweight, [d]));
        [Some(from_values(dx, [n, d])), dweight]
    })
}

/// Takes the mean off every row, divides it by its standard deviation, scales and shifts it.
///
/// ```text
/// y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias,   var(x) = mean((x - mean(x))^2)
/// ```
///
/// # Shapes
///
/// - x: `[N, d]`
/// - weight, bias: `[d]`
/// - output: `[N, d]`
///
/// # Cost
///
/// Keeps `x` and two numbers a row; the normalized rows are made again in the backward pass.
///
/// # References
///
/// Ba, Kiros and Hinton, *Layer Normalization* (arXiv 1607.06450), equation 4.
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, eps: f32) -> Tensor<2> {
    if ![&weight, &bias].iter().all(|t| native::is_native(t)) || !native::is_native(&x) {
        return reference::layer_norm(x, weight, bias, eps);
    }
    let [n, d] = x.dims();
    let mut operation = Operation::default();
    let (x, weight) = (operation.input(x), operation.input(weight));
    let bias = operation.input(bias);
    let mut y = vec![0.0; n * d];
    let (mut mean, mut inv_std) = (vec![0.0; n], vec![0.0; n]);
    profile::measure(Work::Norm, 0.0, || {
        native::run(layer_kernels::layer_norm_forward(
            values(&x),
            values(&weight),
            Some(values(&bias)),
            eps,
            &mut y,
            &mut mean,
            &mut inv_std,
        ));
    });
    operation.output(
        from_values(y, [n, d]),
        move |dy, [_, wants_weight, wants_bias]| {
            let mut dx = vec![0.0; n * d];
            let mut dweight = wants_weight.then(|| vec![0.0; d]);
            let mut dbias = wants_bias.then(|| vec![0.0; d]);
            profile::measure(Work::Norm, 0.0, || {
                native::run(layer_kernels::layer_norm_backward(
                    values(&dy),
                    values(&x),
                    values(&weight),
                    &mean,
                    &inv_std,
                    &mut dx,
                    dweight.as_deref_mut(),
                    dbias.as_deref_mut(),
                ));
            });
            let [dweight, dbias] = [dweight, dbias].map(|sum| sum.map(|sum| from_values(sum, [d])));
            [Some(from_values(dx, [n, d])), dweight, dbias]
        },
    )
}
