//! The two ends of a model over bf16 activations: the rows of the embedding, and the output head.

use burn::backend::Flex;
use burn::tensor::{Device, Tensor};
use rayon::prelude::*;
use reparam_kernels::Bf16;
use reparam_kernels::cross_entropy::CrossEntropy;
use reparam_kernels::packed;

use super::buffer::Buffer;
use super::norm::{FusedNorm, NORM_NODES, Norm, NormGradients, Normed};
use super::packed::{FusedLinear, PackedWeight};
use super::slices::{rounded, view};
use super::stack::{NODES, PartGradients, Stack};
use super::states;
use crate::IGNORE_INDEX;
use crate::loss::head_operations;
use crate::native::{
    self, from_values, halves, halves_mut, primitive, primitive_and_node, run, values,
};
use crate::profile::{self, Work};

/// Adds up rows of frozen tables, `[N, d]` in bf16, on a device (with autodiff or without).
///
/// Each table comes with the number of its row for each token, and what the row is multiplied by. The sum is rounded after
/// each product and each addition, as a model in bf16 does it.
///
/// # Panics
///
/// Panics when there is no table, or a number is not below its rows; callers check the tokenizer against the table once.
pub fn frozen_embedding(
    tables: &[(&PackedWeight, &[u32], Option<f32>)],
    device: &Device,
) -> Tensor<2> {
    let (first, ids, _) = tables[0];
    let mut h = states::dirty([ids.len(), first.stack.cols()]);
    profile::measure(Work::Embedding, 0.0, || {
        let sum = halves_mut(&mut h);
        for (index, (table, ids, factor)) in tables.iter().enumerate() {
            let mut own = (index > 0).then(|| Buffer::dirty(sum.len()));
            let rows = own.as_deref_mut().unwrap_or(&mut *sum);
            run(table.stack.rows_of(ids, rows));
            if let Some(factor) = factor {
                let factor = Bf16::from_f32(*factor).to_f32();
                rows.par_iter_mut()
                    .for_each(|x| *x = Bf16::from_f32(x.to_f32() * factor));
            }
            if let Some(own) = own {
                super::norm::add(&own, sum);
            }
        }
    });
    native::untracked(h, device.is_autodiff())
}

/// The norm before the head, if there is one.
fn normed<'a>(norm: Option<&Norm>, h: &'a [Bf16]) -> Normed<'a> {
    match norm {
        None => Normed::Same(h),
        Some(norm) => {
            let (x, statistics) = norm.forward(h);
            Normed::Own(x, statistics)
        }
    }
}

/// Normalizes bf16 hidden states and returns their logits, `[N, V]` in `f32`. Nothing is tracked.
///
/// # Panics
///
/// Panics when the head is a part of a stack.
pub fn norm_logits(h: Tensor<2>, norm: Option<FusedNorm>, head: FusedLinear) -> Tensor<2> {
    let autodiff = h.is_autodiff();
    let h = primitive(h);
    let (norm, _) = Norm::optional(norm);
    let x = normed(norm.as_ref(), halves(&h));
    let (head, _) = Stack::new(vec![head]);
    let (n, d, vocabulary) = (x.len() / head.d_in(), head.d_in(), head.width());
    let logits = profile::measure(Work::Loss, profile::product(n, d, vocabulary), || {
        head.forward_f32(&x, &head.project(&x))
    });
    native::untracked(from_values(logits, [n, vocabulary]), autodiff)
}

/// Normalizes bf16 hidden states and computes the scaled sum of the negative log-likelihoods of the labelled tokens.
///
/// The same as [`rms_norm`](crate::rms_norm) or [`layer_norm`](crate::layer_norm) and
/// [`linear_cross_entropy`](crate::linear_cross_entropy), which see for `cap`, `labels`, `scale` and the numerics.
///
/// # Gradients
///
/// For `h`, and for what is tracked of the norm and of the head: its low-rank factors, scales and bias. They are made in the
/// forward pass and are what is kept.
///
/// # Cost
///
/// Without anything but a weight, and without a cap, the head runs by blocks of the vocabulary. Else the logits of a few
/// hundred labelled tokens exist at a time; the dropout of a low-rank term then is that of these tokens.
///
/// # Panics
///
/// Panics when the head is a part of a stack, or a label is not below its rows.
pub fn norm_linear_cross_entropy(
    h: Tensor<2>,
    norm: Option<FusedNorm>,
    head: FusedLinear,
    cap: Option<f32>,
    labels: &[i32],
    scale: f32,
) -> Tensor<1> {
    let autodiff = h.is_autodiff();
    let dims = h.dims();
    let h_tracked = h.is_tracked();
    let (h, h_node) = primitive_and_node(h);
    let (norm, norm_nodes) = Norm::optional(norm);
    let (stack, head_nodes) = Stack::new(vec![head]);
    let norm_tracked = norm.as_ref().is_some_and(Norm::is_tracked);
    let is_tracked = h_tracked || norm_tracked || stack.is_trained();
    let x = normed(norm.as_ref(), halves(&h));
    let mut dx = is_tracked.then(|| Buffer::<Bf16>::dirty(x.len()));
    let passes = if is_tracked { 2.0 } else { 1.0 };
    let operations = passes * head_operations(labels, [stack.width(), stack.d_in()]);
    let (sum, mut head) = profile::measure(Work::Loss, operations, || {
        if stack.is_plain() && cap.is_none() {
            let weight = stack.weight().packed();
            let x = view(&x, dims[0], dims[1]);
            let loss = packed::linear_cross_entropy(x, &*weight, labels, scale, dx.as_deref_mut());
            let CrossEntropy { sum, .. } =
                loss.unwrap_or_else(|error| panic!("tensor shapes or labels do not fit: {error}"));
            (sum, PartGradients::default())
        } else {
            let rows = Rows {
                stack: &stack,
                cap,
                scale,
            };
            rows.run(&x, labels, dx.as_deref_mut())
        }
    });
    let loss = from_values(vec![(sum * f64::from(scale)) as f32], [1]);
    let Some(dx) = dx else {
        drop(x);
        states::recycle(h);
        return native::untracked(loss, autodiff);
    };
    let statistics = x.into_statistics();
    let mut dh = states::dirty(dims);
    let mut norm = match (&norm, statistics) {
        (Some(norm), Some(statistics)) => {
            norm.backward(&dx, halves(&h), &statistics, halves_mut(&mut dh))
        }
        _ => {
            halves_mut(&mut dh).copy_from_slice(&dx);
            NormGradients::default()
        }
    };
    states::recycle(h);
    let mut nodes = std::iter::once(Some(h_node))
        .chain(norm_nodes)
        .chain(head_nodes);
    let nodes: [_; 1 + NORM_NODES + NODES] =
        std::array::from_fn(|_| native::or_nothing(nodes.next().flatten()));
    native::tracked(nodes, loss, move |upstream, [h_node, rest @ ..], grads| {
        let factor = values(&upstream)[0];
        // The usual case is the loss itself being differentiated, which leaves the gradients as they were made.
        if factor != 1.0 {
            for value in halves_mut(&mut dh) {
                *value = Bf16::from_f32(factor * value.to_f32());
            }
            norm.scale(factor);
            head.scale(factor);
        }
        if let Some(id) = h_node {
            grads.register::<Flex>(id, dh);
        }
        let [weight, shift, layer @ ..] = rest;
        norm.register([weight, shift], grads);
        head.register(layer, grads);
    })
}

/// The labelled rows of a head that has more than a weight, or a cap.
struct Rows<'a> {
    stack: &'a Stack,
    cap: Option<f32>,
    scale: f32,
}

/// Numbers of the logits that exist at a time: 64 MiB.
const LOGITS: usize = 16 << 20;

impl Rows<'_> {
    /// Returns the sum of the losses and the gradients of the head, and writes those of the rows to `dx`, if it is given.
    fn run(&self, x: &[Bf16], labels: &[i32], mut dx: Option<&mut [Bf16]>) -> (f64, PartGradients) {
        let (d, vocabulary) = (self.stack.d_in(), self.stack.width());
        let labelled: Vec<(usize, usize)> = labels
            .iter()
            .enumerate()
            .filter(|(_, label)| **label != IGNORE_INDEX)
            .map(|(row, label)| (row, usize::try_from(*label).unwrap_or(usize::MAX)))
            .collect();
        assert!(
            labelled.iter().all(|(_, label)| *label < vocabulary),
            "labels are below the number of rows of the head"
        );
        if let Some(dx) = dx.as_deref_mut() {
            dx.fill(Bf16::ZERO);
        }
        let at_once = (LOGITS / vocabulary.max(1)).clamp(64, 512);
        let mut sum = 0.0;
        let mut gradients = PartGradients::default();
        for chunk in labelled.chunks(at_once) {
            let mut rows = Buffer::dirty(chunk.len() * d);
            for (row, (at, _)) in rows.chunks_exact_mut(d).zip(chunk) {
                row.copy_from_slice(&x[at * d..][..d]);
            }
            let t = self.stack.project(&rows);
            let mut logits = self.stack.forward_f32(&rows, &t);
            let losses: Vec<f64> = logits
                .par_chunks_exact_mut(vocabulary)
                .zip(chunk)
                .map(|(logits, (_, label))| self.row(logits, *label))
                .collect();
            sum += losses.iter().sum::<f64>();
            let Some(dx) = dx.as_deref_mut() else {
                continue;
            };
            let dy = rounded(&logits);
            drop(logits);
            let mut drows = Buffer::dirty(rows.len());
            let (pending, mut own) = self.stack.backward(&dy, &t, Some(&mut drows));
            self.stack.input_gradients(&rows, &pending, &mut own);
            own.into_iter().for_each(|own| gradients.add(own));
            for (row, (at, _)) in drows.chunks_exact(d).zip(chunk) {
                dx[at * d..][..d].copy_from_slice(row);
            }
        }
        (sum, gradients)
    }

    /// Returns the loss of a row and replaces its logits by their gradients.
    fn row(&self, logits: &mut [f32], label: usize) -> f64 {
        if let Some(cap) = self.cap {
            logits
                .iter_mut()
                .for_each(|logit| *logit = cap * (*logit / cap).tanh());
        }
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exp = |logit: f32| f64::from((logit - max).exp());
        let total: f64 = logits.iter().map(|logit| exp(*logit)).sum();
        let loss = total.ln() - f64::from(logits[label] - max);
        for (column, logit) in logits.iter_mut().enumerate() {
            let hit = if column == label { 1.0 } else { 0.0 };
            let slope = self.cap.map_or(1.0, |cap| 1.0 - (*logit / cap).powi(2));
            *logit = self.scale * slope * (exp(*logit) / total - hit) as f32;
        }
        loss
    }
}
