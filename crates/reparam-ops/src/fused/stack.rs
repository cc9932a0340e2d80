//! Linear layers of one input, forward and backward, on slices.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::NodeGuard;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;
use reparam_kernels::Bf16;
use reparam_kernels::packed::{
    Direction, Epilogue, LowRankTerm, Matrix, MatrixMut, matmul, product,
};

use super::buffer::Buffer;
use super::frozen::{FusedLinear, Numbers};
use crate::dropout::{self, DropoutKey};
use crate::native::{from_values, primitive, primitive_and_node, run, values};
use crate::profile::{self, Work};

/// The layers of one stack of weights, in its order.
#[derive(Debug, Clone)]
pub(super) struct Stack {
    weight: Arc<Numbers>,
    parts: Vec<Part>,
    /// The sum of the ranks.
    rank: usize,
    is_trained: bool,
}

/// One layer of a stack.
#[derive(Debug, Clone)]
struct Part {
    /// Its columns of the outputs.
    columns: Range<usize>,
    bias: Option<FlexTensor>,
    low_rank: Option<Factors>,
}

#[derive(Debug, Clone)]
struct Factors {
    a: FlexTensor,
    b: FlexTensor,
    scaling: f32,
    /// Its columns of `x A'`.
    columns: Range<usize>,
    dropout: Option<(f32, DropoutKey)>,
}

/// The gradients of one layer's factors, `[rank, d_in]` and `[d_out, rank]`.
#[derive(Debug, Default)]
pub(super) struct FactorGradients {
    /// Zero for a layer without factors.
    pub(super) rank: usize,
    pub(super) a: Vec<f32>,
    pub(super) b: Vec<f32>,
}

impl Stack {
    /// Takes apart layers that are the whole of one stack; returns with it the nodes of their `A` and `B`, two for each
    /// layer. A layer without factors has the nodes of `instead`, for which no gradient of factors is registered.
    ///
    /// # Panics
    ///
    /// Panics when the layers are not one stack.
    pub(super) fn new<const N: usize>(
        layers: [FusedLinear; N],
        instead: &Tensor<2>,
    ) -> (Self, Vec<NodeGuard>) {
        let weight = layers[0].weight.stack.clone();
        let d_in = weight.cols();
        let mut nodes = Vec::with_capacity(2 * N);
        let mut parts = Vec::with_capacity(N);
        let mut rank_so_far = 0;
        let mut is_trained = false;
        for (index, layer) in layers.into_iter().enumerate() {
            let FusedLinear {
                weight: frozen,
                bias,
                low_rank,
            } = layer;
            assert!(
                Arc::ptr_eq(&frozen.stack, &weight) && frozen.part == index,
                "the layers of a fused operation share one stack of weights, in its order"
            );
            let columns = weight.part_rows()[index].clone();
            let low_rank = low_rank.map(|low_rank| {
                let [rank, width] = low_rank.a.dims();
                assert_eq!(width, d_in, "A has the width of the layer's input");
                assert_eq!(low_rank.b.dims(), [columns.len(), rank], "dims of B");
                is_trained |= low_rank.a.is_tracked() || low_rank.b.is_tracked();
                let (a, a_node) = primitive_and_node(low_rank.a);
                let (b, b_node) = primitive_and_node(low_rank.b);
                nodes.extend([a_node, b_node]);
                let first = rank_so_far;
                rank_so_far += rank;
                Factors {
                    a,
                    b,
                    scaling: low_rank.scaling as f32,
                    columns: first..first + rank,
                    dropout: low_rank.dropout.filter(|(p, _)| *p > 0.0),
                }
            });
            if low_rank.is_none() {
                nodes.extend([(); 2].map(|()| primitive_and_node(instead.clone()).1));
            }
            parts.push(Part {
                columns,
                bias: bias.map(primitive),
                low_rank,
            });
        }
        assert_eq!(
            weight.part_rows().len(),
            N,
            "the layers are the whole stack"
        );
        let stack = Self {
            rank: rank_so_far,
            weight,
            parts,
            is_trained,
        };
        (stack, nodes)
    }

    /// Whether any factor is tracked.
    pub(super) fn is_trained(&self) -> bool {
        self.is_trained
    }

    pub(super) fn d_in(&self) -> usize {
        self.weight.cols()
    }

    /// The width of the outputs side by side; between two of them may be columns of nothing.
    pub(super) fn width(&self) -> usize {
        self.weight.rows()
    }

    /// The columns of one layer's output.
    pub(super) fn columns(&self, part: usize) -> Range<usize> {
        self.parts[part].columns.clone()
    }

    /// Whether the outputs fill their rows.
    fn is_dense(&self) -> bool {
        let used: usize = self.parts.iter().map(|part| part.columns.len()).sum();
        used == self.width()
    }

    /// A buffer for `n` rows of outputs, or of their gradients. What no layer writes is zero: the backward product runs over all columns.
    pub(super) fn output_buffer(&self, n: usize) -> Buffer<Bf16> {
        if self.is_dense() {
            Buffer::dirty(n * self.width())
        } else {
            Buffer::zeros(n * self.width())
        }
    }

    /// `y = x W' + b + s (z A') B'`, or `y += ...` with `accumulate`; `t` is what [`Stack::project`] gave.
    pub(super) fn forward(&self, x: &[Bf16], t: &[Bf16], y: &mut [Bf16], accumulate: bool) {
        let (d_in, width) = (self.d_in(), self.width());
        let n = x.len() / d_in;
        let operations = profile::product(n, d_in, width);
        profile::measure(Work::Linear, operations, || {
            // One product has fewer tasks to wait for than several, which matters when tokens come one by one.
            let is_plain = |part: &Part| part.low_rank.is_none() && part.bias.is_none();
            if self.parts.iter().all(is_plain) {
                let epilogue = Epilogue {
                    accumulate,
                    ..Epilogue::default()
                };
                let (x, out) = (view(x, n, d_in), matrix_mut(y, n, width));
                run(self.weight.product(None, x, epilogue, out));
                return;
            }
            for (index, part) in self.parts.iter().enumerate() {
                let low_rank = part.low_rank.as_ref().map(|factors| LowRankTerm {
                    left: columns_of(t, n, self.rank, &factors.columns),
                    right: matrix(
                        values(&factors.b),
                        part.columns.len(),
                        factors.columns.len(),
                    )
                    .t(),
                    scaling: factors.scaling,
                });
                let epilogue = Epilogue {
                    low_rank,
                    bias: part.bias.as_ref().map(values),
                    accumulate,
                };
                let out = columns_of_mut(y, n, width, &part.columns);
                let x = view(x, n, d_in);
                run(self.weight.product(Some(index), x, epilogue, out));
            }
        });
    }

    /// `t = z A'` of all layers, `[n, rank]`.
    pub(super) fn project(&self, x: &[Bf16]) -> Buffer<Bf16> {
        let (d_in, rank) = (self.d_in(), self.rank);
        let n = x.len() / d_in;
        let mut t = Buffer::dirty(n * rank);
        if rank == 0 {
            return t;
        }
        let operations = profile::product(n, d_in, rank);
        profile::measure(Work::LowRank, operations, || {
            if !self.has_dropout() {
                let a = self.stacked_a();
                let a = matrix(&a, rank, d_in);
                run(product(
                    view(x, n, d_in),
                    a.t(),
                    1.0,
                    false,
                    matrix_mut(&mut t, n, rank),
                ));
                return;
            }
            for factors in self.factors() {
                let z = self.dropped(x, factors);
                let a = self.a_of(factors);
                let out = columns_of_mut(&mut t, n, rank, &factors.columns);
                run(product(view(z.or(x), n, d_in), a.t(), 1.0, false, out));
            }
        });
        t
    }

    /// The gradients that need `dy` alone: those of `B`, of the input (written to `dx`), and `g = s dy B`, `[n, rank]`.
    pub(super) fn backward(
        &self,
        dy: &[Bf16],
        t: &[Bf16],
        dx: Option<&mut [Bf16]>,
    ) -> (Buffer<Bf16>, Vec<FactorGradients>) {
        let (d_in, width, rank) = (self.d_in(), self.width(), self.rank);
        let n = dy.len() / width;
        let mut g = Buffer::dirty(n * rank);
        let mut gradients = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let mut gradient = FactorGradients::default();
            if let Some(factors) = &part.low_rank {
                let (d_out, own_rank) = (part.columns.len(), factors.columns.len());
                gradient.rank = own_rank;
                let operations = 2.0 * profile::product(n, d_out, own_rank);
                profile::measure(Work::LowRank, operations, || {
                    let dy = columns_of(dy, n, width, &part.columns);
                    let b = matrix(values(&factors.b), d_out, own_rank);
                    let out = columns_of_mut(&mut g, n, rank, &factors.columns);
                    run(product(dy, b, factors.scaling, false, out));
                    gradient.b = vec![0.0; d_out * own_rank];
                    let t = columns_of(t, n, rank, &factors.columns);
                    let out = matrix_mut_f32(&mut gradient.b, d_out, own_rank);
                    run(product(dy.t(), t, factors.scaling, false, out));
                });
            }
            gradients.push(gradient);
        }
        if let Some(dx) = dx {
            let operations = profile::product(n, d_in, width);
            profile::measure(Work::Linear, operations, || {
                let a = self.stacked_a();
                let low_rank = (rank > 0 && !self.has_dropout()).then(|| LowRankTerm {
                    left: view(&g, n, rank),
                    right: matrix(&a, rank, d_in),
                    scaling: 1.0,
                });
                let epilogue = Epilogue {
                    low_rank,
                    ..Epilogue::default()
                };
                let out = matrix_mut(dx, n, d_in);
                run(matmul(
                    view(dy, n, width),
                    &*self.weight.packed(),
                    Direction::Backward,
                    epilogue,
                    out,
                ));
            });
            if self.has_dropout() {
                self.add_dropped_gradients(&g, dx);
            }
        }
        (g, gradients)
    }

    /// The gradients of `A`, `dA = g' z`, put into `gradients`.
    pub(super) fn a_gradients(&self, x: &[Bf16], g: &[Bf16], gradients: &mut [FactorGradients]) {
        let (d_in, rank) = (self.d_in(), self.rank);
        let n = x.len() / d_in;
        if rank == 0 {
            return;
        }
        let operations = profile::product(n, d_in, rank);
        profile::measure(Work::LowRank, operations, || {
            let mut all = Buffer::<f32>::dirty(rank * d_in);
            if self.has_dropout() {
                for factors in self.factors() {
                    let z = self.dropped(x, factors);
                    let rows = factors.columns.start * d_in..factors.columns.end * d_in;
                    let out = matrix_mut_f32(&mut all[rows], factors.columns.len(), d_in);
                    let g = columns_of(g, n, rank, &factors.columns);
                    run(product(g.t(), view(z.or(x), n, d_in), 1.0, false, out));
                }
            } else {
                let out = matrix_mut_f32(&mut all, rank, d_in);
                run(product(
                    view(g, n, rank).t(),
                    view(x, n, d_in),
                    1.0,
                    false,
                    out,
                ));
            }
            for (part, gradient) in self.parts.iter().zip(gradients) {
                if let Some(factors) = &part.low_rank {
                    let rows = factors.columns.start * d_in..factors.columns.end * d_in;
                    gradient.a = all[rows].to_vec();
                }
            }
        });
    }

    fn factors(&self) -> impl Iterator<Item = &Factors> {
        self.parts.iter().filter_map(|part| part.low_rank.as_ref())
    }

    fn has_dropout(&self) -> bool {
        self.factors().any(|factors| factors.dropout.is_some())
    }

    fn a_of<'a>(&self, factors: &'a Factors) -> Matrix<'a> {
        matrix(values(&factors.a), factors.columns.len(), self.d_in())
    }

    /// `A` of all layers, one below the other, `[rank, d_in]`: as it is if there is one, else copied.
    fn stacked_a(&self) -> Cow<'_, [f32]> {
        let mut all = self.factors().map(|factors| values(&factors.a));
        match (all.next(), all.next()) {
            (None, _) => Cow::Borrowed(&[]),
            (Some(one), None) => Cow::Borrowed(one),
            (Some(first), Some(second)) => {
                let mut stacked = [first, second].concat();
                all.for_each(|a| stacked.extend_from_slice(a));
                Cow::Owned(stacked)
            }
        }
    }

    /// What the dropout of a layer leaves of its input.
    fn dropped(&self, x: &[Bf16], factors: &Factors) -> Dropped {
        let Some((p, key)) = factors.dropout else {
            return Dropped(None);
        };
        let mask = dropout::mask(x.len(), p, key);
        let mut z = Buffer::dirty(x.len());
        z.par_chunks_mut(CHUNK)
            .zip(x.par_chunks(CHUNK).zip(mask.par_chunks(CHUNK)))
            .for_each(|(z, (x, mask))| {
                for ((z, x), mask) in z.iter_mut().zip(x).zip(mask) {
                    *z = Bf16::from_f32(x.to_f32() * mask);
                }
            });
        Dropped(Some(z))
    }

    /// `dx += mask * (g A)` of each layer; without dropout the mask is one.
    fn add_dropped_gradients(&self, g: &[Bf16], dx: &mut [Bf16]) {
        let (d_in, rank) = (self.d_in(), self.rank);
        let n = dx.len() / d_in;
        let mut dz = Buffer::<f32>::dirty(dx.len());
        for factors in self.factors() {
            let g = columns_of(g, n, rank, &factors.columns);
            run(product(
                g,
                self.a_of(factors),
                1.0,
                false,
                matrix_mut_f32(&mut dz, n, d_in),
            ));
            let mask = factors
                .dropout
                .map(|(p, key)| dropout::mask(dx.len(), p, key));
            dx.par_chunks_mut(CHUNK)
                .zip(dz.par_chunks(CHUNK))
                .enumerate()
                .for_each(|(chunk, (dx, dz))| {
                    let mask = mask.as_ref().map(|mask| &mask[chunk * CHUNK..][..dx.len()]);
                    for (i, (dx, dz)) in dx.iter_mut().zip(dz).enumerate() {
                        let factor = mask.map_or(1.0, |mask| mask[i]);
                        *dx = Bf16::from_f32(dx.to_f32() + factor * dz);
                    }
                });
        }
    }
}

/// Numbers of one task of the loops above.
const CHUNK: usize = 1 << 14;

/// The input of a layer after its dropout, if it has one.
struct Dropped(Option<Buffer<Bf16>>);

impl Dropped {
    fn or<'a>(&'a self, x: &'a [Bf16]) -> &'a [Bf16] {
        self.0.as_deref().unwrap_or(x)
    }
}

/// A call that can only fail when shapes that were checked do not fit.
pub(super) fn fits<T>(result: Result<T, reparam_kernels::KernelError>) -> T {
    result.unwrap_or_else(|error| panic!("tensor shapes do not fit: {error}"))
}

pub(super) fn view(x: &[Bf16], rows: usize, cols: usize) -> Matrix<'_> {
    fits(Matrix::new(x, rows, cols))
}

fn matrix(x: &[f32], rows: usize, cols: usize) -> Matrix<'_> {
    fits(Matrix::new(x, rows, cols))
}

fn matrix_mut(x: &mut [Bf16], rows: usize, cols: usize) -> MatrixMut<'_> {
    fits(MatrixMut::new(x, rows, cols))
}

fn matrix_mut_f32(x: &mut [f32], rows: usize, cols: usize) -> MatrixMut<'_> {
    fits(MatrixMut::new(x, rows, cols))
}

/// Some columns of a row-major matrix of `n` rows.
fn columns_of<'a>(x: &'a [Bf16], n: usize, width: usize, columns: &Range<usize>) -> Matrix<'a> {
    let first = columns.start.min(x.len());
    fits(Matrix::with_row_stride(
        &x[first..],
        n,
        columns.len(),
        width,
    ))
}

fn columns_of_mut<'a>(
    x: &'a mut [Bf16],
    n: usize,
    width: usize,
    columns: &Range<usize>,
) -> MatrixMut<'a> {
    let first = columns.start.min(x.len());
    fits(MatrixMut::with_row_stride(
        &mut x[first..],
        n,
        columns.len(),
        width,
    ))
}

impl FactorGradients {
    /// Registers them with the nodes of `A` and `B`, where those want a gradient.
    pub(super) fn register(self, [a_node, b_node]: [Option<NodeId>; 2], grads: &mut Gradients) {
        let Self { rank, a, b } = self;
        // Without factors the nodes are those of the input.
        if rank == 0 {
            return;
        }
        if let Some(id) = a_node {
            let d_in = a.len() / rank;
            grads.register::<Flex>(id, from_values(a, [rank, d_in]));
        }
        if let Some(id) = b_node {
            let d_out = b.len() / rank;
            grads.register::<Flex>(id, from_values(b, [d_out, rank]));
        }
    }
}
