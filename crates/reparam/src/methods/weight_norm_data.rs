//! Weight normalization that starts from a batch of data.

use std::collections::HashMap;

use burn::module::{Module, ParamId};
use burn::tensor::{Tensor, TensorData};

use super::weight_norm::{G, SPEC, row_norms};
use super::{MethodError, Result, WeightLayout, linear_modules};
use crate::walk::{Change, Part, rewrite, walk};

/// Initializes a weight-normalized linear layer so that its outputs over a batch have mean 0 and
/// variance 1.
///
/// ```text
/// t = v x / |v|,   g = 1 / std(t),   b = -mean(t) / std(t)
/// ```
///
/// with the mean and the standard deviation over the rows of `x`; the deviation divides by their
/// number. `v` stays as it is. The effective weight is another than before: this is for training
/// from scratch, layer after layer, each with the outputs of those before it.
///
/// `layer` is the layer itself, this crate's or Burn's, with
/// [`WeightNormConfig`](super::WeightNormConfig) attached.
///
/// # Shapes
///
/// - x: `[N, d_in]`
///
/// # Errors
///
/// Fails when the layer has no weight normalization or no bias, the batch has another width, or an
/// output does not vary over it.
///
/// # References
///
/// Salimans and Kingma, *Weight Normalization* (arXiv 1602.07868), section 3.
pub fn initialize_from_data<M: Module>(layer: M, x: Tensor<2>, layout: WeightLayout) -> Result<M> {
    let linears = linear_modules(&layer);
    let is_normalized =
        |linear: &super::LinearModule| linear.path.is_empty() && linear.methods == [SPEC.kind];
    let Some(linear) = linears.into_iter().find(is_normalized) else {
        return Err(MethodError::NotInitializable {
            missing: "weight normalization of its own weight",
        });
    };
    let (_, d_in) = linear.dims(layout);
    if x.dims()[1] != d_in {
        return Err(MethodError::BatchWidth {
            expected: d_in,
            found: x.dims()[1],
        });
    }
    let [mut v, mut lengths, mut bias]: [Option<(ParamId, Tensor<1>)>; 3] = [None, None, None];
    walk(&layer, |entry, param| {
        let found = Some((entry.id, param.values()));
        match &entry.part {
            Part::Own { field, .. } if field == "weight" => v = found,
            Part::Own { field, .. } if field == "bias" => bias = found,
            Part::Tensor { .. } if entry.name == G => lengths = found,
            _ => {}
        }
    });
    let (Some((_, v)), Some((g_id, g))) = (v, lengths) else {
        return Err(MethodError::NotInitializable { missing: "weight" });
    };
    let Some((bias_id, _)) = bias else {
        return Err(MethodError::NotInitializable { missing: "bias" });
    };
    let v = v.reshape(linear.shape);
    let v = match layout {
        WeightLayout::OutIn => v,
        WeightLayout::InOut => v.transpose(),
    };
    let t = x.inner().matmul(v.clone().transpose()) / row_norms(v).transpose();
    let (new_g, new_b) = moments(&t)?;
    let change = |values: Vec<f64>| {
        let len = values.len();
        let data = TensorData::new(values, [len]).convert_dtype(g.dtype());
        Change::of_values(Tensor::from_data(data, (&g.device(), g.dtype())))
    };
    let changes = HashMap::from([(g_id, change(new_g)), (bias_id, change(new_b))]);
    Ok(rewrite(layer, changes))
}

/// Returns `1 / std` and `-mean / std` of each column, computed in `f64`.
fn moments(t: &Tensor<2>) -> Result<(Vec<f64>, Vec<f64>)> {
    let [rows, cols] = t.dims();
    let data = t.to_data().convert::<f64>();
    let values: Vec<f64> = data.iter::<f64>().collect();
    let column = |output: usize| values.iter().skip(output).step_by(cols);
    let mut g = Vec::with_capacity(cols);
    let mut b = Vec::with_capacity(cols);
    for output in 0..cols {
        let mean = column(output).sum::<f64>() / rows as f64;
        let squares = column(output).map(|value| (value - mean).powi(2));
        let deviation = (squares.sum::<f64>() / rows as f64).sqrt();
        if !(deviation.is_finite() && deviation > 0.0) {
            return Err(MethodError::NoDeviation { output, deviation });
        }
        g.push(1.0 / deviation);
        b.push(-mean / deviation);
    }
    Ok((g, b))
}
