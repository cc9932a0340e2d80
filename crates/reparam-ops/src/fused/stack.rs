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
    Direction, Epilogue, LowRankTerm, Matrix, MatrixMut, PackedView, matmul, product,
};

use super::buffer::Buffer;
use super::packed::{FusedLinear, WeightStack};
use super::slices::{
    CHUNK, add, column_sums, columns_of, columns_of_mut, map_from, matrix, matrix_mut,
    matrix_mut_f32, view,
};
use crate::dropout::{self, DropoutKey};
use crate::linear::LowRank;
use crate::native::{from_values, primitive_and_tracked_node, run, values};
use crate::profile::{self, Work};

/// The layers of one stack of weights, in its order, or one of them.
#[derive(Debug, Clone)]
pub(super) struct Stack {
    weight: Arc<WeightStack>,
    /// The place of the only layer in the stack of weights, if it is not for all of them.
    only: Option<usize>,
    parts: Vec<Part>,
    /// The sum of the ranks.
    rank: usize,
    is_trained: bool,
}

/// The tensors of a layer that may be trained: `A`, `B`, input scale, output scale, bias. As many nodes stand for it.
pub(super) const NODES: usize = 5;

/// One layer of a stack.
#[derive(Debug, Clone)]
struct Part {
    /// Its columns of the outputs.
    columns: Range<usize>,
    bias: Option<Vector>,
    low_rank: Option<Factors>,
    input_scale: Option<Vector>,
    output_scale: Option<Vector>,
}

/// A scale or a bias.
#[derive(Debug, Clone)]
struct Vector {
    values: FlexTensor,
    is_tracked: bool,
}

impl Vector {
    fn values(&self) -> &[f32] {
        values(&self.values)
    }
}

#[derive(Debug, Clone)]
struct Factors {
    a: FlexTensor,
    b: FlexTensor,
    /// Whether anything asks for the gradients of the two.
    is_tracked: bool,
    scaling: f32,
    /// Its columns of `x A'`.
    columns: Range<usize>,
    dropout: Option<(f32, DropoutKey)>,
}

// Their positions.
const A: usize = 0;
const B: usize = 1;
const INPUT_SCALE: usize = 2;
const OUTPUT_SCALE: usize = 3;
const BIAS: usize = 4;

/// The gradients of one layer, in the order of its nodes, of `A[rank, d_in]` and `B[d_out, rank]`
/// flat: what is not wanted is empty.
#[derive(Debug, Clone, Default)]
pub(super) struct PartGradients {
    rank: usize,
    of: [Vec<f32>; NODES],
}

/// What a backward pass leaves for the gradients that need the input.
#[derive(Debug)]
pub(super) struct Pending {
    /// `s dy B`, `[n, rank]`.
    g: Buffer<Bf16>,
    /// The gradients of the outputs and `x A'`, where an output scale is trained.
    outputs: Option<(Buffer<Bf16>, Buffer<Bf16>)>,
    /// The gradients of the scaled inputs of layers whose input scale is trained.
    inputs: Vec<Option<Buffer<Bf16>>>,
}

impl Stack {
    /// Takes apart layers that are the whole of one stack; returns with it the nodes of what may be trained, [`NODES`] for
    /// each layer, and none for what is not tracked.
    ///
    /// # Panics
    ///
    /// Panics when the layers are not one stack, or a tensor does not fit its layer.
    pub(super) fn new(layers: Vec<FusedLinear>) -> (Self, Vec<Option<NodeGuard>>) {
        let n_layers = layers.len();
        let (stack, nodes) = Self::of(layers, None);
        assert_eq!(
            stack.weight.part_rows().len(),
            n_layers,
            "the layers are the whole stack"
        );
        (stack, nodes)
    }

    /// Takes apart one layer, of whatever stack.
    ///
    /// # Panics
    ///
    /// Panics when a tensor does not fit the layer.
    pub(super) fn single(layer: FusedLinear) -> (Self, Vec<Option<NodeGuard>>) {
        let place = layer.weight.part();
        Self::of(vec![layer], Some(place))
    }

    fn of(layers: Vec<FusedLinear>, only: Option<usize>) -> (Self, Vec<Option<NodeGuard>>) {
        let weight = layers[0].weight.stack.clone();
        let d_in = weight.cols();
        let n_layers = layers.len();
        let first = only.map_or(0, |place| weight.part_rows()[place].start);
        let mut nodes = Vec::with_capacity(NODES * n_layers);
        let mut parts = Vec::with_capacity(n_layers);
        let mut rank_so_far = 0;
        let mut is_trained = false;
        for (index, layer) in layers.into_iter().enumerate() {
            let place = only.unwrap_or(index);
            assert!(
                Arc::ptr_eq(&layer.weight.stack, &weight) && layer.weight.part() == place,
                "the layers of a fused operation share one stack of weights, in its order"
            );
            let rows = &weight.part_rows()[place];
            let columns = rows.start - first..rows.end - first;
            let FusedLinear { bias, plan, .. } = layer;
            is_trained |= plan.is_tracked() || bias.as_ref().is_some_and(Tensor::is_tracked);
            let low_rank = merged(plan.low_rank).map(|term| {
                let [rank, width] = term.a.dims();
                assert_eq!(width, d_in, "A has the width of the layer's input");
                assert_eq!(term.b.dims(), [columns.len(), rank], "dims of B");
                let is_tracked = term.a.is_tracked() || term.b.is_tracked();
                let (a, a_node) = primitive_and_tracked_node(term.a);
                let (b, b_node) = primitive_and_tracked_node(term.b);
                nodes.extend([a_node, b_node]);
                let first = rank_so_far;
                rank_so_far += rank;
                Factors {
                    a,
                    b,
                    is_tracked,
                    scaling: term.scaling as f32,
                    columns: first..first + rank,
                    dropout: term.dropout.filter(|(p, _)| *p > 0.0),
                }
            });
            if low_rank.is_none() {
                nodes.extend([None, None]);
            }
            let mut vector = |tensor: Option<Tensor<1>>, len: usize| match tensor {
                None => {
                    nodes.push(None);
                    None
                }
                Some(tensor) => {
                    assert_eq!(tensor.dims(), [len], "a number for each column");
                    let is_tracked = tensor.is_tracked();
                    let (values, node) = primitive_and_tracked_node(tensor);
                    nodes.push(node);
                    Some(Vector { values, is_tracked })
                }
            };
            parts.push(Part {
                input_scale: vector(plan.input_scale, d_in),
                output_scale: vector(plan.output_scale, columns.len()),
                bias: vector(bias, columns.len()),
                columns,
                low_rank,
            });
        }
        let stack = Self {
            rank: rank_so_far,
            weight,
            only,
            parts,
            is_trained,
        };
        (stack, nodes)
    }

    /// Asks for the gradients of all factors, whose tensors here are parts of those that are tracked.
    pub(super) fn track_factors(&mut self) {
        for factors in self
            .parts
            .iter_mut()
            .filter_map(|part| part.low_rank.as_mut())
        {
            factors.is_tracked = true;
            self.is_trained = true;
        }
    }

    /// Whether anything of the layers is tracked.
    pub(super) fn is_trained(&self) -> bool {
        self.is_trained
    }

    pub(super) fn d_in(&self) -> usize {
        self.weight.cols()
    }

    /// The number of layers.
    pub(super) fn n_parts(&self) -> usize {
        self.parts.len()
    }

    /// The width of the outputs side by side; between two of them may be columns of nothing.
    pub(super) fn width(&self) -> usize {
        match self.only {
            None => self.weight.rows(),
            Some(_) => self.parts[0].columns.len(),
        }
    }

    /// The place of a layer in the stack of weights; of all layers together, if they are one, its place.
    fn place(&self, index: Option<usize>) -> Option<usize> {
        self.only.or(index)
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

    /// `y = c_out * ((c_in * x) W' + s (z A') B') + b`, or `y += ...` with `accumulate`; `t` is what [`Stack::project`] gave.
    pub(super) fn forward(&self, x: &[Bf16], t: &[Bf16], y: &mut [Bf16], accumulate: bool) {
        let (d_in, width) = (self.d_in(), self.width());
        let n = x.len() / d_in;
        let operations = profile::product(n, d_in, width);
        profile::measure(Work::Linear, operations, || {
            // One product has fewer tasks to wait for than several, which matters when tokens come one by one.
            if self.parts.iter().all(Part::is_plain) {
                let epilogue = Epilogue {
                    accumulate,
                    ..Epilogue::default()
                };
                let (x, out) = (view(x, n, d_in), matrix_mut(y, n, width));
                run(self.weight.product(self.place(None), x, epilogue, out));
                return;
            }
            for (index, part) in self.parts.iter().enumerate() {
                if let Some(scale) = &part.output_scale {
                    let raw = self.unscaled(index, x, t);
                    part.add_scaled(scale.values(), &raw, y, width, accumulate);
                    continue;
                }
                let epilogue = Epilogue {
                    low_rank: self.term(part, t, n),
                    bias: part.bias.as_ref().map(Vector::values),
                    accumulate,
                };
                let out = columns_of_mut(y, n, width, &part.columns);
                self.layer(index, x, epilogue, out);
            }
        });
    }

    /// [`Stack::forward`] of a stack of one layer, in `f32`.
    pub(super) fn forward_f32(&self, x: &[Bf16], t: &[Bf16]) -> Vec<f32> {
        let n = x.len() / self.d_in();
        let part = &self.parts[0];
        let d_out = part.columns.len();
        let mut y = vec![0.0; n * d_out];
        let bias = part.bias.as_ref().map(Vector::values);
        let scale = part.output_scale.as_ref().map(Vector::values);
        let epilogue = Epilogue {
            low_rank: self.term(part, t, n),
            bias: bias.filter(|_| scale.is_none()),
            accumulate: false,
        };
        self.layer(0, x, epilogue, matrix_mut_f32(&mut y, n, d_out));
        if let Some(scale) = scale {
            y.par_chunks_mut(d_out).for_each(|row| {
                for (column, (y, scale)) in row.iter_mut().zip(scale).enumerate() {
                    *y = *y * scale + bias.map_or(0.0, |bias| bias[column]);
                }
            });
        }
        y
    }

    /// Whether the only layer is nothing but its weight.
    pub(super) fn is_plain(&self) -> bool {
        self.parts.iter().all(Part::is_plain)
    }

    /// The weights.
    pub(super) fn weight(&self) -> &WeightStack {
        &self.weight
    }

    /// The output of a layer before its output scale and bias, `[n, d_out]`.
    fn unscaled(&self, index: usize, x: &[Bf16], t: &[Bf16]) -> Buffer<Bf16> {
        let n = x.len() / self.d_in();
        let part = &self.parts[index];
        let d_out = part.columns.len();
        let mut raw = Buffer::dirty(n * d_out);
        let epilogue = Epilogue {
            low_rank: self.term(part, t, n),
            ..Epilogue::default()
        };
        self.layer(index, x, epilogue, matrix_mut(&mut raw, n, d_out));
        raw
    }

    /// The forward product of one layer with its scaled input.
    fn layer(&self, index: usize, x: &[Bf16], epilogue: Epilogue<'_>, out: MatrixMut<'_>) {
        let scaled = self.parts[index].scaled_input(x);
        let x = view(scaled.or(x), x.len() / self.d_in(), self.d_in());
        run(self
            .weight
            .product(self.place(Some(index)), x, epilogue, out));
    }

    /// The low-rank term of a layer, given `t` of all.
    fn term<'a>(&self, part: &'a Part, t: &'a [Bf16], n: usize) -> Option<LowRankTerm<'a>> {
        let factors = part.low_rank.as_ref()?;
        let (d_out, rank) = (part.columns.len(), factors.columns.len());
        Some(LowRankTerm {
            left: columns_of(t, n, self.rank, &factors.columns),
            right: matrix(values(&factors.b), d_out, rank).t(),
            scaling: factors.scaling,
        })
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
            if !self.has_own_inputs() {
                let a = stacked_a(&self.factors().collect::<Vec<_>>());
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
            for (part, factors) in self.adapted() {
                let z = part.low_rank_input(x);
                let a = self.a_of(factors);
                let out = columns_of_mut(&mut t, n, rank, &factors.columns);
                run(product(view(z.or(x), n, d_in), a.t(), 1.0, false, out));
            }
        });
        t
    }

    /// The gradients that need `dy` alone: those of `B`, of the biases and of the input (written to `dx`). What is left goes
    /// to [`Stack::input_gradients`].
    pub(super) fn backward(
        &self,
        dy: &[Bf16],
        t: &[Bf16],
        dx: Option<&mut [Bf16]>,
    ) -> (Pending, Vec<PartGradients>) {
        let (width, rank) = (self.width(), self.rank);
        let n = dy.len() / width;
        let mut gradients: Vec<PartGradients> = self
            .parts
            .iter()
            .map(|part| {
                let mut gradients = PartGradients::default();
                if part.bias.as_ref().is_some_and(|bias| bias.is_tracked) {
                    gradients.of[BIAS] = column_sums(dy, width, &part.columns, |dy, _| dy);
                }
                gradients
            })
            .collect();
        let is_trained = |scale: &Option<Vector>| scale.as_ref().is_some_and(|s| s.is_tracked);
        let outputs = self
            .parts
            .iter()
            .any(|part| is_trained(&part.output_scale))
            .then(|| (Buffer::copy_of(dy), Buffer::copy_of(t)));
        // From here on `dy` is the gradient of the outputs before their scales.
        let scaled_dy = self.scaled_outputs(dy);
        let dy = scaled_dy.as_deref().unwrap_or(dy);

        let mut g = Buffer::dirty(n * rank);
        for (part, gradient) in self.parts.iter().zip(&mut gradients) {
            let Some(factors) = &part.low_rank else {
                continue;
            };
            let (d_out, own_rank) = (part.columns.len(), factors.columns.len());
            gradient.rank = own_rank;
            let operations = 2.0 * profile::product(n, d_out, own_rank);
            profile::measure(Work::LowRank, operations, || {
                let dy = columns_of(dy, n, width, &part.columns);
                let b = matrix(values(&factors.b), d_out, own_rank);
                let out = columns_of_mut(&mut g, n, rank, &factors.columns);
                run(product(dy, b, factors.scaling, false, out));
                if factors.is_tracked {
                    gradient.of[B] = vec![0.0; d_out * own_rank];
                    let t = columns_of(t, n, rank, &factors.columns);
                    let out = matrix_mut_f32(&mut gradient.of[B], d_out, own_rank);
                    run(product(dy.t(), t, factors.scaling, false, out));
                }
            });
        }
        let mut inputs = vec![None; self.parts.len()];
        let has_input_scale = self.parts.iter().any(|part| part.input_scale.is_some());
        if has_input_scale {
            let wants_inputs = self.parts.iter().any(|part| is_trained(&part.input_scale));
            if dx.is_some() || wants_inputs {
                inputs = self.scaled_input_gradients(dy, &g, dx);
            }
        } else if let Some(dx) = dx {
            self.product_back(None, dy, &g, dx);
        }
        let pending = Pending { g, outputs, inputs };
        (pending, gradients)
    }

    /// `dx = dy W + g A` of one layer, or of all of them together.
    fn product_back(&self, index: Option<usize>, dy: &[Bf16], g: &[Bf16], dx: &mut [Bf16]) {
        let (d_in, width, rank) = (self.d_in(), self.width(), self.rank);
        let n = dy.len() / width;
        let (columns, parts) = match index {
            None => (0..width, &self.parts[..]),
            Some(index) => (
                self.parts[index].columns.clone(),
                std::slice::from_ref(&self.parts[index]),
            ),
        };
        let factors: Vec<&Factors> = parts.iter().filter_map(|p| p.low_rank.as_ref()).collect();
        let has_dropout = factors.iter().any(|factors| factors.dropout.is_some());
        let operations = profile::product(n, d_in, columns.len());
        profile::measure(Work::Linear, operations, || {
            let stacked = stacked_a(&factors);
            let ranks = match &factors[..] {
                [] => 0..0,
                [one] => one.columns.clone(),
                _ => 0..rank,
            };
            let low_rank = (!ranks.is_empty() && !has_dropout).then(|| LowRankTerm {
                left: columns_of(g, n, rank, &ranks),
                right: matrix(&stacked, ranks.len(), d_in),
                scaling: 1.0,
            });
            let epilogue = Epilogue {
                low_rank,
                ..Epilogue::default()
            };
            let dy = columns_of(dy, n, width, &columns);
            let out = matrix_mut(dx, n, d_in);
            let packed = self.weight.packed();
            let weight = match self.place(index) {
                None => PackedView::from(&*packed),
                Some(index) => packed.part(index).expect("made with the stack"),
            };
            run(matmul(dy, weight, Direction::Backward, epilogue, out));
        });
        if has_dropout {
            for factors in factors {
                self.add_dropped_gradient(factors, g, dx);
            }
        }
    }

    /// The gradients of the scaled inputs of the layers with an input scale; their sum over all layers, back at `x`, is written
    /// to `dx`.
    fn scaled_input_gradients(
        &self,
        dy: &[Bf16],
        g: &[Bf16],
        dx: Option<&mut [Bf16]>,
    ) -> Vec<Option<Buffer<Bf16>>> {
        let d_in = self.d_in();
        let n = dy.len() / self.width();
        let mut sum = dx.is_some().then(|| Buffer::<f32>::zeros(n * d_in));
        let inputs = (0..self.parts.len())
            .map(|index| {
                let mut own = Buffer::dirty(n * d_in);
                self.product_back(Some(index), dy, g, &mut own);
                let scale = self.parts[index].input_scale.as_ref();
                if let Some(sum) = &mut sum {
                    sum.par_chunks_mut(d_in)
                        .zip(own.par_chunks(d_in))
                        .for_each(|(sum, own)| match scale {
                            None => add(sum, own.iter().map(|x| x.to_f32())),
                            Some(scale) => {
                                let scaled = own.iter().zip(scale.values());
                                add(sum, scaled.map(|(x, scale)| x.to_f32() * scale));
                            }
                        });
                }
                scale.is_some_and(|scale| scale.is_tracked).then_some(own)
            })
            .collect();
        if let (Some(dx), Some(sum)) = (dx, sum) {
            dx.par_iter_mut()
                .zip(sum.par_iter())
                .for_each(|(dx, sum)| *dx = Bf16::from_f32(*sum));
        }
        inputs
    }

    /// `c_out * dy`, if any layer has an output scale.
    fn scaled_outputs(&self, dy: &[Bf16]) -> Option<Buffer<Bf16>> {
        let width = self.width();
        self.parts.iter().find(|part| part.output_scale.is_some())?;
        let mut scaled = Buffer::copy_of(dy);
        scaled.par_chunks_mut(width).for_each(|row| {
            for part in &self.parts {
                if let Some(scale) = &part.output_scale {
                    for (x, scale) in row[part.columns.clone()].iter_mut().zip(scale.values()) {
                        *x = Bf16::from_f32(x.to_f32() * scale);
                    }
                }
            }
        });
        Some(scaled)
    }

    /// The gradients that need the input `x`: those of `A`, `dA = g' z`, and of the scales; put into `gradients`.
    pub(super) fn input_gradients(
        &self,
        x: &[Bf16],
        pending: &Pending,
        gradients: &mut [PartGradients],
    ) {
        self.a_gradients(x, &pending.g, gradients);
        for (index, (part, gradient)) in self.parts.iter().zip(gradients).enumerate() {
            if let Some(dinput) = &pending.inputs[index] {
                let all = 0..self.d_in();
                gradient.of[INPUT_SCALE] =
                    column_sums(dinput, self.d_in(), &all, |d, at| d * x[at].to_f32());
            }
            if let (Some((dy, t)), Some(scale)) = (&pending.outputs, &part.output_scale)
                && scale.is_tracked
            {
                let d_out = part.columns.len();
                let operations = profile::product(x.len() / self.d_in(), self.d_in(), d_out);
                let raw = profile::measure(Work::Linear, operations, || self.unscaled(index, x, t));
                let (width, first) = (self.width(), part.columns.start);
                gradient.of[OUTPUT_SCALE] = column_sums(dy, width, &part.columns, |dy, at| {
                    dy * raw[at / width * d_out + at % width - first].to_f32()
                });
            }
        }
    }

    fn a_gradients(&self, x: &[Bf16], g: &[Bf16], gradients: &mut [PartGradients]) {
        let (d_in, rank) = (self.d_in(), self.rank);
        let n = x.len() / d_in;
        if !self.factors().any(|factors| factors.is_tracked) {
            return;
        }
        let operations = profile::product(n, d_in, rank);
        profile::measure(Work::LowRank, operations, || {
            let mut all = Buffer::<f32>::dirty(rank * d_in);
            if self.has_own_inputs() {
                for (part, factors) in self.adapted() {
                    let z = part.low_rank_input(x);
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
                if let Some(factors) = &part.low_rank
                    && factors.is_tracked
                {
                    let rows = factors.columns.start * d_in..factors.columns.end * d_in;
                    gradient.of[A] = all[rows].to_vec();
                }
            }
        });
    }

    fn factors(&self) -> impl Iterator<Item = &Factors> {
        self.parts.iter().filter_map(|part| part.low_rank.as_ref())
    }

    /// The layers with factors.
    fn adapted(&self) -> impl Iterator<Item = (&Part, &Factors)> {
        self.parts
            .iter()
            .filter_map(|part| Some((part, part.low_rank.as_ref()?)))
    }

    /// Whether the `A` of some layer sees something else than `x`.
    fn has_own_inputs(&self) -> bool {
        self.adapted()
            .any(|(part, factors)| factors.dropout.is_some() || part.input_scale.is_some())
    }

    fn a_of<'a>(&self, factors: &'a Factors) -> Matrix<'a> {
        matrix(values(&factors.a), factors.columns.len(), self.d_in())
    }

    /// `dx += mask * (g A)`; without dropout the mask is one.
    fn add_dropped_gradient(&self, factors: &Factors, g: &[Bf16], dx: &mut [Bf16]) {
        let (d_in, rank) = (self.d_in(), self.rank);
        let n = dx.len() / d_in;
        let mut dz = Buffer::<f32>::dirty(dx.len());
        let g = columns_of(g, n, rank, &factors.columns);
        let out = matrix_mut_f32(&mut dz, n, d_in);
        run(product(g, self.a_of(factors), 1.0, false, out));
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

impl Part {
    fn is_plain(&self) -> bool {
        self.low_rank.is_none()
            && self.bias.is_none()
            && self.input_scale.is_none()
            && self.output_scale.is_none()
    }

    /// `c_in * x`.
    fn scaled_input(&self, x: &[Bf16]) -> Own {
        let scale = self.input_scale.as_ref().map(Vector::values);
        Own(scale.map(|scale| map_from(x, |at, x| x * scale[at % scale.len()])))
    }

    /// The input of `A`: what scale and dropout make of `x`.
    fn low_rank_input(&self, x: &[Bf16]) -> Own {
        let scaled = self.scaled_input(x);
        let dropout = self.low_rank.as_ref().and_then(|factors| factors.dropout);
        let Some((p, key)) = dropout else {
            return scaled;
        };
        let mask = dropout::mask(x.len(), p, key);
        Own(Some(map_from(scaled.or(x), |at, x| x * mask[at])))
    }

    /// `y = c_out * raw + b` in this layer's columns, or `y += ...`.
    fn add_scaled(
        &self,
        scale: &[f32],
        raw: &[Bf16],
        y: &mut [Bf16],
        width: usize,
        accumulate: bool,
    ) {
        let bias = self.bias.as_ref().map(Vector::values);
        y.par_chunks_mut(width)
            .zip(raw.par_chunks(scale.len()))
            .for_each(|(y, raw)| {
                let y = &mut y[self.columns.clone()];
                for (column, (y, raw)) in y.iter_mut().zip(raw).enumerate() {
                    let mut value = scale[column] * raw.to_f32();
                    if let Some(bias) = bias {
                        value += bias[column];
                    }
                    if accumulate {
                        value += y.to_f32();
                    }
                    *y = Bf16::from_f32(value);
                }
            });
    }
}

/// Makes one term of several, by putting their factors side by side.
///
/// # Panics
///
/// Panics when one of several has dropout, whose inputs would differ.
fn merged(mut terms: Vec<LowRank>) -> Option<LowRank> {
    if terms.len() < 2 {
        return terms.pop();
    }
    assert!(
        terms.iter().all(|term| term.dropout.is_none()),
        "terms of one layer share their input"
    );
    let a = terms.iter().map(|term| term.a.clone()).collect();
    let b = terms.iter().map(|term| term.b.clone() * term.scaling);
    Some(LowRank {
        a: Tensor::cat(a, 0),
        b: Tensor::cat(b.collect(), 1),
        scaling: 1.0,
        dropout: None,
    })
}

/// `A` of some layers, one below the other, `[rank, d_in]`: as it is if there is one, else copied.
fn stacked_a<'a>(factors: &[&'a Factors]) -> Cow<'a, [f32]> {
    match factors {
        [one] => Cow::Borrowed(values(&one.a)),
        all => {
            let all: Vec<&[f32]> = all.iter().map(|factors| values(&factors.a)).collect();
            Cow::Owned(all.concat())
        }
    }
}

/// An input of a layer's own, if it has one.
struct Own(Option<Buffer<Bf16>>);

impl Own {
    fn or<'a>(&'a self, x: &'a [Bf16]) -> &'a [Bf16] {
        self.0.as_deref().unwrap_or(x)
    }
}

impl PartGradients {
    /// Adds those of other rows.
    pub(super) fn add(&mut self, other: Self) {
        self.rank = other.rank;
        for (sum, part) in self.of.iter_mut().zip(other.of) {
            if sum.is_empty() {
                *sum = part;
            } else {
                add(sum, part.into_iter());
            }
        }
    }

    /// Returns those of `A` and `B`; what is not wanted is empty.
    pub(super) fn into_factors(self) -> [Vec<f32>; 2] {
        let [a, b, ..] = self.of;
        [a, b]
    }

    /// Multiplies all of them.
    pub(super) fn scale(&mut self, factor: f32) {
        for gradient in self.of.iter_mut().flatten() {
            *gradient *= factor;
        }
    }

    /// Registers them with the nodes of the layer, where those want a gradient.
    pub(super) fn register(self, nodes: [Option<NodeId>; NODES], grads: &mut Gradients) {
        for (index, (node, gradient)) in nodes.into_iter().zip(self.of).enumerate() {
            let (Some(id), len @ 1..) = (node, gradient.len()) else {
                continue;
            };
            let gradient = match index {
                A => from_values(gradient, [self.rank, len / self.rank]),
                B => from_values(gradient, [len / self.rank, self.rank]),
                _ => from_values(gradient, [len]),
            };
            grads.register::<Flex>(id, gradient);
        }
    }
}
