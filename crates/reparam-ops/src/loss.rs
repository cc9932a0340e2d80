//! The output head and its cross-entropy, in one operation.

use burn::tensor::{Int, Tensor, TensorData};
use reparam_kernels::cross_entropy as kernels;

use crate::embedding::embedding;
use crate::linear::LinearPlan;
use crate::native::{self, Operation, from_values, values};
use crate::profile::{self, Work};
use crate::reference;

/// The label of a token from which nothing is predicted.
pub const IGNORE_INDEX: i32 = -100;

/// Bounds numbers smoothly: `cap * tanh(x / cap)`.
pub fn soft_cap(x: Tensor<2>, cap: f32) -> Tensor<2> {
    (x / cap).tanh() * cap
}

/// Computes the scaled sum of the negative log-likelihoods of the labelled tokens.
///
/// ```text
/// loss = scale * sum_i -log softmax(y_i)[labels_i]      over the i with labels_i != -100
/// ```
///
/// where `y = h W' + bias`, or what the [plan](LinearPlan) of the head makes of it. With a cap the logits `y_i` are bounded by
/// [`soft_cap`] before the softmax.
///
/// `labels[i]` is what is predicted *at* token `i`: the next token of the same document. With
/// `scale = 1 / (labelled tokens of the whole step)` the losses and gradients of micro-batches add
/// up to those of one large batch, whatever their lengths.
///
/// # Shapes
///
/// - h: `[N, d]`
/// - weight: `[V, d]`
/// - bias: `[V]`
/// - labels: `N` numbers below `V` or [`IGNORE_INDEX`]
/// - output: `[1]`
///
/// # Numerics
///
/// The sum is accumulated in `f64` in a fixed order and returned in the tensor's type.
///
/// # Cost
///
/// Only labelled rows are multiplied with the head, a block of rows at a time: memory does not
/// grow with `N * V`. The gradient is made in the forward pass, while a block's logits are there,
/// and is what is kept. With a cap there is no native form, and all logits of the labelled tokens exist at once. A low-rank
/// term of the plan is `rank` more columns of `h` and `W`, and a bias one, so that `W` is copied once.
pub fn linear_cross_entropy(
    h: Tensor<2>,
    (weight, bias): (Tensor<2>, Option<Tensor<1>>),
    plan: LinearPlan,
    cap: Option<f32>,
    labels: &[i32],
    scale: f32,
) -> Tensor<1> {
    let (h, weight) = widened(h, (weight, bias), plan);
    cross_entropy_of(h, weight, cap, labels, scale)
}

/// As [`linear_cross_entropy`] without a cap, with a share `eps` of each label spread evenly over all tokens:
///
/// ```text
/// loss = scale * sum_i ( (1 - eps) * -log p_i[labels_i] + eps * mean_v -log p_i[v] )      p_i = softmax(y_i)
///      = linear_cross_entropy + eps * scale * sum_i ( y_i[labels_i] - mean_v y_i[v] )
/// ```
///
/// It is torch's `cross_entropy` with `label_smoothing = eps`; transformers' `LabelSmoother` computes the same from the mean.
///
/// # Shapes
///
/// Those of [`linear_cross_entropy`].
///
/// # Cost
///
/// That of [`linear_cross_entropy`]: the second line needs a row of the head for each label and the mean of its rows, no logits.
///
/// # References
///
/// Szegedy et al., *Rethinking the Inception Architecture* (arXiv 1512.00567), section 7.
pub fn smoothed_linear_cross_entropy(
    h: Tensor<2>,
    (weight, bias): (Tensor<2>, Option<Tensor<1>>),
    plan: LinearPlan,
    labels: &[i32],
    (scale, eps): (f32, f32),
) -> Tensor<1> {
    let (h, weight) = widened(h, (weight, bias), plan);
    let loss = cross_entropy_of(h.clone(), weight.clone(), None, labels, scale);
    if eps == 0.0 {
        return loss;
    }
    let labelled = labels.iter().enumerate();
    let labelled = labelled.filter(|(_, label)| **label != IGNORE_INDEX);
    let (rows, ids): (Vec<i64>, Vec<u32>) = labelled
        .map(|(row, label)| (row as i64, *label as u32))
        .unzip();
    if rows.is_empty() {
        return loss;
    }
    let rows = TensorData::new(rows, [ids.len()]);
    let h = h
        .clone()
        .select(0, Tensor::<1, Int>::from_data(rows, &h.device()));
    let lead = embedding(weight.clone(), &ids) - weight.mean_dim(0);
    loss + (h * lead).sum() * (scale * eps)
}

/// [`linear_cross_entropy`] of what [`widened`] returns.
fn cross_entropy_of(
    h: Tensor<2>,
    weight: Tensor<2>,
    cap: Option<f32>,
    labels: &[i32],
    scale: f32,
) -> Tensor<1> {
    if !native::is_native(&h) || !native::is_native(&weight) || cap.is_some() {
        return reference::linear_cross_entropy(h, weight, cap, labels, scale);
    }
    let h_dims = h.dims();
    let weight_dims = weight.dims();
    let h_tracked = h.is_tracked();
    let weight_tracked = weight.is_tracked();
    let mut operation = Operation::default();
    let (h, weight) = (operation.input(h), operation.input(weight));
    let mut dh = h_tracked.then(|| vec![0.0; h_dims[0] * h_dims[1]]);
    let mut dweight = weight_tracked.then(|| vec![0.0; weight_dims[0] * weight_dims[1]]);
    let passes = 1 + u8::from(h_tracked) + u8::from(weight_tracked);
    let operations = f64::from(passes) * head_operations(labels, weight_dims);
    let loss = profile::measure(Work::Loss, operations, || {
        kernels::linear_cross_entropy(
            values(&h),
            values(&weight),
            h_dims[1],
            labels,
            scale,
            dh.as_deref_mut(),
            dweight.as_deref_mut(),
        )
    })
    .unwrap_or_else(|error| panic!("tensor shapes or labels do not fit: {error}"));
    let loss = from_values(vec![(loss.sum * f64::from(scale)) as f32], [1]);
    let gradients = [(dh, h_dims), (dweight, weight_dims)];
    operation.output(loss, move |upstream, _: [bool; 2]| {
        let factor = values(&upstream)[0];
        gradients.map(|(gradient, dims)| {
            let mut gradient = gradient?;
            // The usual case is the loss itself being differentiated, which leaves the gradient
            // as it was made.
            if factor != 1.0 {
                for value in &mut gradient {
                    *value *= factor;
                }
            }
            Some(from_values(gradient, dims))
        })
    })
}

/// Returns inputs and a weight whose product is that of the plan, with the bias:
///
/// ```text
/// y = c_out * ( (c_in * x) W' + u B' ) + b = [c_in * x, u, 1] [c_out * W, c_out * B, b]',   u = s (c_in * z) A'
/// ```
fn widened(
    h: Tensor<2>,
    (weight, bias): (Tensor<2>, Option<Tensor<1>>),
    plan: LinearPlan,
) -> (Tensor<2>, Tensor<2>) {
    let h = match plan.input_scale {
        None => h,
        Some(scale) => h * scale.unsqueeze::<2>(),
    };
    let (mut inputs, mut weights) = (vec![h.clone()], vec![weight]);
    for term in plan.low_rank {
        let z = term.dropped(&h).unwrap_or_else(|| h.clone());
        inputs.push(z.matmul(term.a.transpose()) * term.scaling);
        weights.push(term.b);
    }
    let joined = |mut parts: Vec<Tensor<2>>| match parts.len() {
        1 => parts.remove(0),
        _ => Tensor::cat(parts, 1),
    };
    let weight = joined(weights);
    let weight = match plan.output_scale {
        None => weight,
        Some(scale) => weight * scale.unsqueeze_dim::<2>(1),
    };
    let Some(bias) = bias else {
        return (joined(inputs), weight);
    };
    inputs.push(Tensor::ones([h.dims()[0], 1], (&h.device(), h.dtype())));
    (
        joined(inputs),
        joined(vec![weight, bias.unsqueeze_dim::<2>(1)]),
    )
}

/// Operations of one product of the labelled rows and the head.
pub(crate) fn head_operations(labels: &[i32], [vocabulary, d]: [usize; 2]) -> f64 {
    let labelled = labels.iter().filter(|&&label| label != IGNORE_INDEX);
    profile::product(labelled.count(), d, vocabulary)
}
