//! Linear layers of several experts, each over rows of its own.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use reparam_kernels::linear as kernels;
use reparam_kernels::linear::LinearShape;
use reparam_kernels::matmul::{MatMut, MatRef, matmul};

use crate::native::{self, Operation, from_values, values};
use crate::profile::{self, Work};
use crate::{LowRank, reference};

/// Which rows each expert has: those of expert `e` are `bounds[e]..bounds[e + 1]`.
///
/// A clone shares the numbers, as every layer's backward pass keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpertRows(Arc<[usize]>);

impl ExpertRows {
    /// Takes how many rows each expert has, in order.
    pub fn new(counts: &[usize]) -> Self {
        let mut bounds = vec![0];
        let mut last = 0;
        bounds.extend(counts.iter().map(|count| {
            last += count;
            last
        }));
        Self(bounds.into())
    }

    /// Returns the number of experts.
    pub fn n_experts(&self) -> usize {
        self.0.len() - 1
    }

    /// Returns the number of rows of all experts.
    pub fn n_rows(&self) -> usize {
        self.0.last().copied().unwrap_or(0)
    }

    /// Iterates over the experts that have rows, with those.
    pub fn used(&self) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let rows = self.0.windows(2).map(|pair| pair[0]..pair[1]);
        rows.enumerate().filter(|(_, rows)| !rows.is_empty())
    }
}

/// Applies to each row the linear layer of its expert.
///
/// ```text
/// y_i = x_i W_e' + s (x_i A_e') B_e',   e the expert that row i belongs to
/// ```
///
/// # Shapes
///
/// - x: `[P, d_in]`, the rows of the first expert first
/// - weight: `[E d_out, d_in]`, the experts one below the other
/// - A: `[E r, d_in]`, the experts one below the other; B: `[d_out, r E]`, in which column `j E + e` is column `j` of `B_e`: the
///   order of PEFT
/// - output: `[P, d_out]`
///
/// # Gradients
///
/// As those of [`linear`](crate::linear()), an expert at a time; that of an expert without rows is zero.
///
/// # Cost
///
/// Each row costs what it costs in one layer. Keeps `x`, and `x A'` with a term.
///
/// # Panics
///
/// Panics when the shapes do not fit, or the term has dropout.
pub fn expert_linear(
    x: Tensor<2>,
    weight: Tensor<2>,
    low_rank: Option<LowRank>,
    rows: &ExpertRows,
) -> Tensor<2> {
    check(x.dims(), weight.dims(), low_rank.as_ref(), rows);
    if !native::is_native(&x) || !native::is_native(&weight) {
        return reference::expert_linear(x, weight, low_rank, rows);
    }
    let ([n, d_in], [all_out, _]) = (x.dims(), weight.dims());
    let n_experts = rows.n_experts();
    let d_out = all_out / n_experts;
    let scaling = low_rank.as_ref().map_or(0.0, |term| term.scaling as f32);
    let (a, b) = low_rank.map(|term| (term.a, term.b)).unzip();
    let rank = a.as_ref().map_or(0, |a| a.dims()[0] / n_experts);
    let mut operation = Operation::default();
    let (x, weight) = (operation.input(x), operation.input(weight));
    let (a, b) = (operation.optional_input(a), operation.optional_input(b));

    let shape = move |rows: &Range<usize>| LinearShape {
        tokens: rows.len(),
        d_in,
        d_out,
    };
    let size = d_out * d_in;
    let mut y = vec![0.0; n * d_out];
    let mut xa = vec![0.0; n * rank];
    for (expert, rows) in rows.used() {
        let b = b
            .as_ref()
            .map(|b| expert_columns(values(b), n_experts, expert));
        let term = a.as_ref().zip(b.as_ref()).map(|(a, b)| kernels::LowRank {
            a: &values(a)[expert * rank * d_in..][..rank * d_in],
            b,
            rank,
            scaling,
        });
        measure(shape(&rows), || {
            native::run(kernels::low_rank_forward(
                shape(&rows),
                part(values(&x), &rows, d_in),
                &values(&weight)[expert * size..][..size],
                term,
                None,
                part_mut(&mut y, &rows, d_out),
                part_mut(&mut xa, &rows, rank),
            ));
        });
    }
    let rows = rows.clone();
    operation.output(from_values(y, [n, d_out]), move |dy, wants| {
        let [wants_x, wants_weight, wants_a, wants_b] = wants;
        let zeros = |needed: bool, len: usize| needed.then(|| vec![0.0; len]);
        let mut dx = zeros(wants_x, n * d_in);
        let mut dw = zeros(wants_weight, all_out * d_in);
        let mut da = zeros(wants_a, n_experts * rank * d_in);
        let mut db = zeros(wants_b, d_out * rank * n_experts);
        for (expert, rows) in rows.used() {
            let own_dy = part(values(&dy), &rows, d_out);
            let own_x = part(values(&x), &rows, d_in);
            let w = &values(&weight)[expert * size..][..size];
            if let Some(dw) = &mut dw {
                let dw = &mut dw[expert * size..][..size];
                measure(shape(&rows), || {
                    native::run(kernels::dense_backward_weight(
                        shape(&rows),
                        own_dy,
                        own_x,
                        dw,
                    ));
                });
            }
            let Some((a, b)) = a.as_ref().zip(b.as_ref()) else {
                if let Some(dx) = &mut dx {
                    let dx = part_mut(dx, &rows, d_in);
                    measure(shape(&rows), || {
                        native::run(multiply(dx, own_dy, w, shape(&rows)));
                    });
                }
                continue;
            };
            let b = expert_columns(values(b), n_experts, expert);
            let own = expert * rank * d_in..(expert + 1) * rank * d_in;
            let mut own_db = zeros(wants_b, d_out * rank);
            measure(shape(&rows), || {
                native::run(kernels::low_rank_backward(
                    shape(&rows),
                    kernels::LowRankInputs {
                        dy: own_dy,
                        x: own_x,
                        x_low_rank: None,
                        w,
                        low_rank: Some(kernels::LowRank {
                            a: &values(a)[own.clone()],
                            b: &b,
                            rank,
                            scaling,
                        }),
                        xa: part(&xa, &rows, rank),
                    },
                    kernels::LowRankGrads {
                        dx: dx.as_mut().map(|dx| part_mut(dx, &rows, d_in)),
                        dx_low_rank: None,
                        da: da.as_mut().map(|da| &mut da[own]),
                        db: own_db.as_deref_mut(),
                    },
                ));
            });
            if let Some((db, own)) = db.as_mut().zip(own_db) {
                put_expert_columns(&own, n_experts, expert, db);
            }
        }
        [
            dx.map(|dx| from_values(dx, [n, d_in])),
            dw.map(|dw| from_values(dw, [all_out, d_in])),
            da.map(|da| from_values(da, [n_experts * rank, d_in])),
            db.map(|db| from_values(db, [d_out, rank * n_experts])),
        ]
    })
}

/// What the shapes of rows, weights and factors have to be.
pub(crate) fn check(
    [n, d_in]: [usize; 2],
    [all_out, width]: [usize; 2],
    low_rank: Option<&LowRank>,
    rows: &ExpertRows,
) {
    let n_experts = rows.n_experts();
    assert_eq!(rows.n_rows(), n, "each row belongs to an expert");
    assert_eq!(width, d_in, "the width of the experts' input");
    assert!(
        n_experts > 0 && all_out.is_multiple_of(n_experts),
        "the experts' weights are of one shape"
    );
    let Some(term) = low_rank else { return };
    assert!(term.dropout.is_none(), "factors of experts have no dropout");
    let ([all_ranks, a_width], b) = (term.a.dims(), term.b.dims());
    assert!(
        all_ranks.is_multiple_of(n_experts),
        "the experts have one rank"
    );
    assert_eq!(a_width, d_in, "A has the width of the experts' input");
    assert_eq!(b, [all_out / n_experts, all_ranks], "dims of B");
}

/// `B_e`, `[d_out, r]`, of the `B` of all experts.
pub(crate) fn expert_columns(b: &[f32], n_experts: usize, expert: usize) -> Vec<f32> {
    b.iter().skip(expert).step_by(n_experts).copied().collect()
}

/// Puts `B_e` back among the others.
pub(crate) fn put_expert_columns(own: &[f32], n_experts: usize, expert: usize, b: &mut [f32]) {
    let places = b.iter_mut().skip(expert).step_by(n_experts);
    for (place, value) in places.zip(own) {
        *place = *value;
    }
}

fn part<'a>(x: &'a [f32], rows: &Range<usize>, width: usize) -> &'a [f32] {
    &x[rows.start * width..rows.end * width]
}

fn part_mut<'a>(x: &'a mut [f32], rows: &Range<usize>, width: usize) -> &'a mut [f32] {
    &mut x[rows.start * width..rows.end * width]
}

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
