//! The norms around half a layer, and the sum with its input.

use burn::backend::autodiff::ops::NodeGuard;
use reparam_kernels::Bf16;

use super::buffer::Buffer;
use super::norm::{FusedNorm, NORM_NODES, Norm, NormGradients, Normed, add, scale};
use super::stack::{PartGradients, Stack};

/// The norms around half a layer `f`, and what it is multiplied by:
///
/// ```text
/// h' = after(h + factor * inside(f(before(h))))
/// ```
#[derive(Debug, Clone, Default)]
pub struct FusedNorms {
    /// On the input.
    pub before: Option<FusedNorm>,
    /// On the output, before it is added.
    pub inside: Option<FusedNorm>,
    /// On the sum.
    pub after: Option<FusedNorm>,
    /// What is added is multiplied by this.
    pub factor: Option<f32>,
}

/// The nodes of the three norms.
pub(super) const RESIDUAL_NODES: usize = 3 * NORM_NODES;

/// The norms on slices.
#[derive(Debug)]
pub(super) struct Residual {
    before: Option<Norm>,
    inside: Option<Norm>,
    after: Option<Norm>,
    factor: Option<f32>,
}

/// What the norms behind the layer read, which the backward pass needs again.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    /// The layer's output.
    layer: Option<Buffer<Bf16>>,
    /// The sum.
    sum: Option<Buffer<Bf16>>,
}

impl Residual {
    /// Takes the norms apart; returns with them [`RESIDUAL_NODES`] nodes.
    pub(super) fn new(norms: FusedNorms) -> (Self, Vec<Option<NodeGuard>>) {
        let (before, before_nodes) = Norm::optional(norms.before);
        let (inside, inside_nodes) = Norm::optional(norms.inside);
        let (after, after_nodes) = Norm::optional(norms.after);
        let nodes = [before_nodes, inside_nodes, after_nodes];
        let residual = Self {
            before,
            inside,
            after,
            factor: norms.factor,
        };
        (residual, nodes.into_iter().flatten().collect())
    }

    /// Whether anything of the norms is tracked.
    pub(super) fn is_trained(&self) -> bool {
        let norms = [&self.before, &self.inside, &self.after];
        norms.into_iter().flatten().any(Norm::is_tracked)
    }

    /// Whether the gradient of the layer's input is wanted where that of `h` is not.
    pub(super) fn wants_input_gradient(&self) -> bool {
        self.before.as_ref().is_some_and(Norm::is_tracked)
    }

    /// Whether the backward pass needs [`Outputs`].
    pub(super) fn needs_outputs(&self) -> bool {
        self.inside.is_some() || self.after.is_some()
    }

    /// The input of the layer.
    pub(super) fn input<'a>(&self, h: &'a [Bf16]) -> Normed<'a> {
        match &self.before {
            None => Normed::Same(h),
            Some(norm) => {
                let (x, statistics) = norm.forward(h);
                Normed::Own(x, statistics)
            }
        }
    }

    /// Makes `h'` of `y`, which holds `h`. `layer` writes its output, or adds it if it is told so.
    pub(super) fn output(&self, y: &mut [Bf16], layer: impl FnOnce(&mut [Bf16], bool)) -> Outputs {
        let mut outputs = Outputs::default();
        match (&self.inside, self.factor) {
            (None, None) => layer(y, true),
            (norm, factor) => {
                let mut out = Buffer::dirty(y.len());
                layer(&mut out, false);
                let mut normed = norm.as_ref().map(|norm| norm.forward(&out).0);
                let added = normed.as_deref_mut().unwrap_or(&mut out);
                if let Some(factor) = factor {
                    scale(factor, added);
                }
                add(added, y);
                outputs.layer = norm.as_ref().map(|_| out);
            }
        }
        if let Some(norm) = &self.after {
            let sum = Buffer::copy_of(y);
            y.copy_from_slice(&norm.forward(&sum).0);
            outputs.sum = Some(sum);
        }
        outputs
    }

    /// Turns `dy` into the gradient of the sum. Returns that of the layer's output where it is another, and the gradients of
    /// the norms behind the layer.
    pub(super) fn output_gradient(
        &self,
        outputs: &Outputs,
        dy: &mut [Bf16],
    ) -> (Option<Buffer<Bf16>>, [NormGradients; 2]) {
        let mut gradients = [NormGradients::default(), NormGradients::default()];
        if let (Some(norm), Some(sum)) = (&self.after, &outputs.sum) {
            let (_, statistics) = norm.forward(sum);
            let dsum = Buffer::copy_of(dy);
            gradients[1] = norm.backward(&dsum, sum, &statistics, dy);
        }
        let scaled = self.factor.map(|factor| {
            let mut scaled = Buffer::copy_of(dy);
            scale(factor, &mut scaled);
            scaled
        });
        let dlayer = match (&self.inside, &outputs.layer) {
            (Some(norm), Some(out)) => {
                let (_, statistics) = norm.forward(out);
                let mut dlayer = Buffer::dirty(dy.len());
                let dnormed = scaled.as_deref().unwrap_or(dy);
                gradients[0] = norm.backward(dnormed, out, &statistics, &mut dlayer);
                Some(dlayer)
            }
            _ => scaled,
        };
        (dlayer, gradients)
    }

    /// The backward pass of the layers that read the input: adds the gradient of their input to `dh`,
    /// through the norm before it. Returns the gradients of the layers and of the norm.
    pub(super) fn backward_inputs<'a>(
        &self,
        layers: &Stack,
        dout: Buffer<Bf16>,
        t: &[Bf16],
        (h, input): (&[Bf16], impl FnOnce() -> Normed<'a>),
        dh: Option<&mut [Bf16]>,
    ) -> (Vec<PartGradients>, NormGradients) {
        let mut dx = dh.is_some().then(|| Buffer::dirty(h.len()));
        let (pending, mut gradients) = layers.backward(&dout, t, dx.as_deref_mut());
        drop(dout);
        let x = input();
        layers.input_gradients(&x, &pending, &mut gradients);
        let norm = match (dx, dh, &self.before, x.into_statistics()) {
            (Some(dx), Some(dh), Some(norm), Some(statistics)) => {
                norm.backward_add(&dx, h, &statistics, dh)
            }
            (Some(dx), Some(dh), ..) => {
                add(&dx, dh);
                NormGradients::default()
            }
            _ => NormGradients::default(),
        };
        (gradients, norm)
    }
}
