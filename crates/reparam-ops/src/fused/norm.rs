//! Norms inside of fused operations.

use std::ops::Deref;

use burn::backend::Flex;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::NodeGuard;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;
use reparam_kernels::{Bf16, layer_norm, number, rms_norm};

use super::buffer::Buffer;
use super::states;
use crate::native::{
    self, from_values, halves, halves_mut, primitive_and_node, primitive_and_tracked_node, run,
    values,
};
use crate::profile::{self, Work};

/// A norm over bf16 rows.
///
/// ```text
/// without shift:  y = x / sqrt(mean(x^2) + eps) * weight
/// with shift:     y = (x - mean(x)) / sqrt(var(x) + eps) * weight + shift
/// ```
#[derive(Debug, Clone)]
pub struct FusedNorm {
    /// `[d]`, `f32`.
    pub weight: Tensor<1>,
    /// `[d]`, `f32`; its presence makes the norm a layer norm.
    pub shift: Option<Tensor<1>>,
    /// What is added to the mean square.
    pub eps: f32,
}

/// The tensors of a norm that may be trained: weight and shift. As many nodes stand for it.
pub(super) const NORM_NODES: usize = 2;

/// The norm on slices.
#[derive(Debug, Clone)]
pub(super) struct Norm {
    weight: FlexTensor,
    shift: Option<FlexTensor>,
    eps: f32,
    /// Whether anything asks for the gradients of the two.
    is_tracked: bool,
}

/// The gradients of a norm: what is not wanted is empty.
#[derive(Debug, Clone, Default)]
pub(super) struct NormGradients {
    weight: Vec<f32>,
    shift: Vec<f32>,
}

impl NormGradients {
    /// Multiplies all of them.
    pub(super) fn scale(&mut self, factor: f32) {
        for gradient in self.weight.iter_mut().chain(&mut self.shift) {
            *gradient *= factor;
        }
    }

    /// Registers them with the nodes of the tensors that want a gradient.
    pub(super) fn register(self, nodes: [Option<NodeId>; NORM_NODES], grads: &mut Gradients) {
        for (gradient, node) in [self.weight, self.shift].into_iter().zip(nodes) {
            if let (Some(id), false) = (node, gradient.is_empty()) {
                let d = gradient.len();
                grads.register::<Flex>(id, from_values(gradient, [d]));
            }
        }
    }
}

/// What the backward pass needs of each row besides the row.
#[derive(Debug)]
pub(super) struct Statistics {
    /// The means, of a layer norm.
    mean: Buffer<f32>,
    /// The inverse root mean square, or standard deviation.
    inv: Buffer<f32>,
}

/// Rows after a norm, or as they are without one.
pub(super) enum Normed<'a> {
    Own(Buffer<Bf16>, Statistics),
    Same(&'a [Bf16]),
}

impl Deref for Normed<'_> {
    type Target = [Bf16];

    fn deref(&self) -> &[Bf16] {
        match self {
            Self::Own(rows, _) => rows,
            Self::Same(rows) => rows,
        }
    }
}

impl Normed<'_> {
    /// Gives up the rows and keeps what the backward pass needs.
    pub(super) fn into_statistics(self) -> Option<Statistics> {
        match self {
            Self::Own(_, statistics) => Some(statistics),
            Self::Same(_) => None,
        }
    }
}

impl Norm {
    /// Takes a norm apart; returns with it the nodes of what is tracked.
    pub(super) fn new(norm: FusedNorm) -> (Self, [Option<NodeGuard>; NORM_NODES]) {
        let FusedNorm { weight, shift, eps } = norm;
        let is_tracked = weight.is_tracked() || shift.as_ref().is_some_and(Tensor::is_tracked);
        let (weight, weight_node) = primitive_and_tracked_node(weight);
        let (shift, shift_node) = shift.map(primitive_and_tracked_node).unzip();
        let norm = Self {
            weight,
            shift,
            eps,
            is_tracked,
        };
        (norm, [weight_node, shift_node.flatten()])
    }

    /// [`Norm::new`] of a norm that may be missing.
    pub(super) fn optional(
        norm: Option<FusedNorm>,
    ) -> (Option<Self>, [Option<NodeGuard>; NORM_NODES]) {
        match norm {
            None => (None, [None, None]),
            Some(norm) => {
                let (norm, nodes) = Self::new(norm);
                (Some(norm), nodes)
            }
        }
    }

    pub(super) fn is_tracked(&self) -> bool {
        self.is_tracked
    }

    /// The normalized rows.
    pub(super) fn forward(&self, x: &[Bf16]) -> (Buffer<Bf16>, Statistics) {
        let n = x.len() / values(&self.weight).len();
        let mut y = Buffer::dirty(x.len());
        let mut inv = Buffer::dirty(n);
        let mut mean = Buffer::dirty(if self.shift.is_some() { n } else { 0 });
        profile::measure(Work::Norm, 0.0, || {
            let weight = values(&self.weight);
            run(match &self.shift {
                None => rms_norm::rms_norm_forward(x, weight, self.eps, &mut y, &mut inv),
                Some(shift) => layer_norm::layer_norm_forward(
                    x,
                    weight,
                    Some(values(shift)),
                    self.eps,
                    &mut y,
                    &mut mean,
                    &mut inv,
                ),
            });
        });
        (y, Statistics { mean, inv })
    }

    /// Adds the gradient of the rows to `dx`, and returns the gradients of the norm.
    pub(super) fn backward_add(
        &self,
        dy: &[Bf16],
        x: &[Bf16],
        statistics: &Statistics,
        dx: &mut [Bf16],
    ) -> NormGradients {
        if self.is_tracked {
            let mut own = Buffer::dirty(dx.len());
            let gradients = self.backward(dy, x, statistics, &mut own);
            add(&own, dx);
            return gradients;
        }
        let Statistics { mean, inv } = statistics;
        profile::measure(Work::Norm, 0.0, || {
            let weight = values(&self.weight);
            run(match &self.shift {
                None => rms_norm::rms_norm_backward_add(dy, x, weight, inv, dx),
                Some(_) => layer_norm::layer_norm_backward_add(dy, x, weight, mean, inv, dx),
            });
        });
        NormGradients::default()
    }

    /// Writes the gradient of the rows to `dx`, and returns the gradients of the norm.
    pub(super) fn backward(
        &self,
        dy: &[Bf16],
        x: &[Bf16],
        statistics: &Statistics,
        dx: &mut [Bf16],
    ) -> NormGradients {
        let Statistics { mean, inv } = statistics;
        let weight = values(&self.weight);
        let zeros = |wanted: bool| vec![0.0; if wanted { weight.len() } else { 0 }];
        let mut gradients = NormGradients {
            weight: zeros(self.is_tracked),
            shift: zeros(self.is_tracked && self.shift.is_some()),
        };
        let NormGradients {
            weight: dweight,
            shift: dshift,
        } = &mut gradients;
        let dweight = self.is_tracked.then_some(&mut dweight[..]);
        profile::measure(Work::Norm, 0.0, || {
            run(match &self.shift {
                None => rms_norm::rms_norm_backward(dy, x, weight, inv, dx, dweight),
                Some(_) => {
                    let dshift = self.is_tracked.then_some(&mut dshift[..]);
                    layer_norm::layer_norm_backward(dy, x, weight, mean, inv, dx, dweight, dshift)
                }
            });
        });
        gradients
    }
}

/// `to += x`, rounded once.
pub(super) fn add(x: &[Bf16], to: &mut [Bf16]) {
    run(number::add(x, to));
}

/// `x *= factor`, rounded once.
pub(super) fn scale(factor: f32, x: &mut [Bf16]) {
    x.par_iter_mut()
        .with_min_len(1 << 12)
        .for_each(|x| *x = Bf16::from_f32(factor * x.to_f32()));
}

/// Applies a norm to bf16 rows, `[N, d]`, as an operation of its own: where it stands between no two layers of a block.
///
/// # Gradients
///
/// For the rows, and for weight and shift if they are tracked.
///
/// # Cost
///
/// Keeps the rows and one or two numbers for each.
pub fn norm(x: Tensor<2>, norm: FusedNorm) -> Tensor<2> {
    let dims = x.dims();
    let autodiff = x.is_autodiff();
    let (norm, [weight_node, shift_node]) = Norm::new(norm);
    let is_tracked = x.is_tracked() || norm.is_tracked;
    let (x, x_node) = primitive_and_node(x);
    let (rows, statistics) = norm.forward(halves(&x));
    let mut y = states::dirty(dims);
    halves_mut(&mut y).copy_from_slice(&rows);
    drop(rows);
    if !is_tracked {
        return native::untracked(y, autodiff);
    }
    let nodes = [Some(x_node), weight_node, shift_node].map(native::or_nothing);
    native::tracked(nodes, y, move |dy, [x_node, norm_nodes @ ..], grads| {
        let mut dx = states::dirty(dims);
        let gradients = norm.backward(halves(&dy), halves(&x), &statistics, halves_mut(&mut dx));
        if let Some(id) = x_node {
            grads.register::<Flex>(id, dx);
        }
        gradients.register(norm_nodes, grads);
    })
}
