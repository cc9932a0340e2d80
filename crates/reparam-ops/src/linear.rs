//! Linear layers, executed by plan.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use reparam_kernels::linear as kernels;
use reparam_kernels::linear::LinearShape;
use reparam_kernels::matmul::{MatMut, MatRef, matmul};

use crate::dropout::{DropoutKey, dropout};
use crate::native::{self, Operation, from_values, primitive, values};
use crate::profile::{self, Work};
use crate::reference;

/// How a linear layer runs without forming its effective weight.
///
/// ```text
/// y = c_out * ( (c_in * x) W' + sum_k s_k ((c_in * z_k) A_k') B_k' )
/// ```
///
/// `z_k` is `x`, or what the term's dropout leaves of it. Diagonals inside a term, as VeRA has them, are folded
/// into `A_k` and `B_k` by the method: those are `[rank, d_in]` and `[d_out, rank]`, small beside `W`.
///
/// The default is the plain layer, `y = x W'`.
#[derive(Debug, Clone, Default)]
pub struct LinearPlan {
    /// `c_in`, `[d_in]`.
    pub input_scale: Option<Tensor<1>>,
    /// The low-rank terms.
    pub low_rank: Vec<LowRank>,
    /// `c_out`, `[d_out]`.
    pub output_scale: Option<Tensor<1>>,
}

impl LinearPlan {
    /// Returns whether anything of the plan is tracked by autodiff.
    pub fn is_tracked(&self) -> bool {
        let scales = [&self.input_scale, &self.output_scale];
        scales.into_iter().flatten().any(Tensor::is_tracked)
            || self
                .low_rank
                .iter()
                .any(|term| term.a.is_tracked() || term.b.is_tracked())
    }
}

/// A low-rank term of a plan.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `A`, `[rank, d_in]`.
    pub a: Tensor<2>,
    /// `B`, `[d_out, rank]`.
    pub b: Tensor<2>,
    /// The effective multiplier `s`.
    pub scaling: f64,
    /// Probability and key of the dropout on the input of `A`.
    pub dropout: Option<(f32, DropoutKey)>,
}

impl LowRank {
    /// What dropout leaves of the input, if the term has dropout.
    pub(crate) fn dropped(&self, x: &Tensor<2>) -> Option<Tensor<2>> {
        let (p, key) = self.dropout.filter(|(p, _)| *p > 0.0)?;
        Some(dropout(x.clone(), p, key))
    }
}

/// Applies a linear layer by its [plan](LinearPlan).
///
/// # Shapes
///
/// - x: `[N, d_in]`
/// - weight: `[d_out, d_in]`, the order of the checkpoint
/// - output: `[N, d_out]`
///
/// # Gradients
///
/// Of a low-rank term, with `g = s (dy B)`: `dx = dy W + g A`, `dA = g' z`, `dB = s dy' (z A')`, where `g A` goes to `z` if
/// that is not `x`. `dW = dy' x` is computed only if `W` is tracked.
///
/// # Cost
///
/// A term takes `2 N r (d_in + d_out)` operations on top of the frozen product's `2 N d_in d_out` in the forward pass and
/// twice that in the backward pass. It keeps `x` and `x A'`. A scale keeps its input.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, plan: LinearPlan) -> Tensor<2> {
    if !native::is_native(&x) || !native::is_native(&weight) {
        return reference::linear(x, weight, plan);
    }
    let x = match plan.input_scale {
        None => x,
        Some(scale) => x * scale.unsqueeze::<2>(),
    };
    let mut terms = plan.low_rank;
    // The product with a term takes `W` as frozen.
    let first = (!terms.is_empty() && !weight.is_tracked()).then(|| terms.remove(0));
    let mut y = match first {
        None => dense(x.clone(), weight),
        Some(term) => low_rank_linear(x.clone(), weight, term),
    };
    for term in terms {
        y = y + reference::low_rank(x.clone(), term);
    }
    match plan.output_scale {
        None => y,
        Some(scale) => y * scale.unsqueeze::<2>(),
    }
}

fn dense(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let ([tokens, d_in], [d_out, _]) = (x.dims(), weight.dims());
    let weight_tracked = weight.is_tracked();
    let mut operation = Operation::default();
    let (x, weight) = (operation.input(x), operation.input(weight));
    let shape = LinearShape {
        tokens,
        d_in,
        d_out,
    };
    let mut y = vec![0.0; tokens * d_out];
    measure(shape, || {
        native::run(kernels::low_rank_forward(
            shape,
            values(&x),
            values(&weight),
            None,
            None,
            &mut y,
            &mut [],
        ));
    });
    // The input is only needed for a gradient of the weight.
    let x = weight_tracked.then_some(x);
    operation.output(
        from_values(y, [tokens, d_out]),
        move |dy, [wants_x, wants_weight]| {
            let dx = wants_x.then(|| {
                let mut dx = vec![0.0; tokens * d_in];
                measure(shape, || {
                    native::run(multiply(&mut dx, values(&dy), values(&weight), shape));
                });
                from_values(dx, [tokens, d_in])
            });
            let dw = x.filter(|_| wants_weight).map(|x| {
                let mut dw = vec![0.0; d_out * d_in];
                measure(shape, || {
                    native::run(kernels::dense_backward_weight(
                        shape,
                        values(&dy),
                        values(&x),
                        &mut dw,
                    ));
                });
                from_values(dw, [d_out, d_in])
            });
            [dx, dw]
        },
    )
}

/// Runs a product with a weight; low-rank terms are counted with it, as they run in one call here.
fn measure(shape: LinearShape, run: impl FnOnce()) {
    let operations = profile::product(shape.tokens, shape.d_in, shape.d_out);
    profile::measure(Work::Linear, operations, run);
}

/// `dx = dy W`
fn multiply(
    dx: &mut [f32],
    dy: &[f32],
    weight: &[f32],
    shape: LinearShape,
) -> Result<(), reparam_kernels::KernelError> {
    matmul(
        MatMut::new(dx, shape.tokens, shape.d_in)?,
        MatRef::new(dy, shape.tokens, shape.d_out)?,
        MatRef::new(weight, shape.d_out, shape.d_in)?,
        1.0,
        0.0,
    )
}

fn low_rank_linear(x: Tensor<2>, weight: Tensor<2>, low_rank: LowRank) -> Tensor<2> {
    let input = low_rank.dropped(&x);
    let LowRank { a, b, scaling, .. } = low_rank;
    let scaling = scaling as f32;
    let ([tokens, d_in], [d_out, _], [rank, _]) = (x.dims(), weight.dims(), a.dims());
    let shape = LinearShape {
        tokens,
        d_in,
        d_out,
    };
    let has_input = input.is_some();
    // Without an input of its own the low-rank path hangs on `x` alone; the second guard of the
    // same node then receives nothing.
    let input = input.unwrap_or_else(|| x.clone());
    let mut operation = Operation::default();
    let [x, input, a, b] = [x, input, a, b].map(|tensor| operation.input(tensor));
    let weight = primitive(weight);
    let input = has_input.then_some(input);

    let mut y = vec![0.0; tokens * d_out];
    let mut xa = vec![0.0; tokens * rank];
    measure(shape, || {
        native::run(kernels::low_rank_forward(
            shape,
            values(&x),
            values(&weight),
            Some(term(&a, &b, rank, scaling)),
            input.as_ref().map(values),
            &mut y,
            &mut xa,
        ));
    });
    operation.output(from_values(y, [tokens, d_out]), move |dy, wants| {
        let [wants_x, wants_input, wants_a, wants_b] = wants;
        let zeros = |needed: bool, len: usize| needed.then(|| vec![0.0; len]);
        let mut dx = zeros(wants_x, tokens * d_in);
        let mut dinput = zeros(wants_input && has_input, tokens * d_in);
        let mut da = zeros(wants_a, rank * d_in);
        let mut db = zeros(wants_b, d_out * rank);
        measure(shape, || {
            native::run(kernels::low_rank_backward(
                shape,
                kernels::LowRankInputs {
                    dy: values(&dy),
                    x: values(&x),
                    x_low_rank: input.as_ref().map(values),
                    w: values(&weight),
                    low_rank: Some(term(&a, &b, rank, scaling)),
                    xa: &xa,
                },
                kernels::LowRankGrads {
                    dx: dx.as_deref_mut(),
                    dx_low_rank: dinput.as_deref_mut(),
                    da: da.as_deref_mut(),
                    db: db.as_deref_mut(),
                },
            ));
        });
        let (of_x, of_a, of_b) = ([tokens, d_in], [rank, d_in], [d_out, rank]);
        [(dx, of_x), (dinput, of_x), (da, of_a), (db, of_b)]
            .map(|(gradient, dims)| gradient.map(|gradient| from_values(gradient, dims)))
    })
}

fn term<'a>(
    a: &'a FlexTensor,
    b: &'a FlexTensor,
    rank: usize,
    scaling: f32,
) -> kernels::LowRank<'a> {
    kernels::LowRank {
        a: values(a),
        b: values(b),
        rank,
        scaling,
    }
}
