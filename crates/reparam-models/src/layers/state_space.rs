//! State-space layers.

#![expect(non_snake_case, reason = "Burn names parameters as their fields")]

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use reparam::{ForwardContext, Linear};
use reparam_ops::{Activation, ScanInputs, causal_conv, gated, selective_scan};

use super::{Norm, Sequences};
use crate::architecture::{MixerSpec, StateSpaceSpec};
use crate::named::{List, Named, unnamed_module};
use crate::precision::widened;

/// State-space layers one after the other: see [`StateSpaceSpec`].
///
/// Where weights are packed, the linear layers compute with those, one at a time, and what is between them in `f32`, as are the
/// hidden states.
#[derive(Debug, Clone)]
pub struct StateSpace {
    /// The layers.
    pub layers: List<Mixer>,
    /// What they are.
    pub spec: StateSpaceSpec,
}

unnamed_module!(StateSpace, modules: [layers], data: [spec]);

/// A state-space layer: see [`MixerSpec`].
#[derive(Debug, Clone)]
pub struct Mixer {
    /// The norm of the input.
    pub norm: Named<Norm>,
    /// To the channels and their gates.
    pub input: Named<Linear>,
    /// The convolution.
    pub conv: Named<Conv>,
    /// What makes steps and coefficients of the channels.
    pub selection: Named<Linear>,
    /// The steps of the channels.
    pub step: Named<Linear>,
    /// What the scan has of its own.
    pub scan: Named<Scan>,
    /// Back to the hidden states.
    pub output: Named<Linear>,
    /// What it is.
    pub spec: MixerSpec,
}

unnamed_module!(
    Mixer,
    modules: [norm, input, conv, selection, step, scan, output],
    data: [spec]
);

/// A convolution of each channel over the last tokens.
#[derive(Module, Debug)]
pub struct Conv {
    /// `[d, 1, K]`
    pub weight: Param<Tensor<3>>,
    /// `[d]`, if it has one.
    pub bias: Option<Param<Tensor<1>>>,
}

/// The parameters of a scan, under their names in checkpoints.
#[derive(Module, Debug)]
pub struct Scan {
    /// `[d, n]`, the logarithm of what `A` is the negative of.
    pub A_log: Param<Tensor<2>>,
    /// `[d]`
    pub D: Param<Tensor<1>>,
}

/// What a layer knows of the tokens before, of one sequence.
#[derive(Debug, Clone, Default)]
pub(crate) struct MixerState {
    /// The last inputs of the convolution, `[K - 1, d]`; zeros if there are none.
    before: Option<Tensor<2>>,
    /// The states of the scan, `[1, n, d]`; zeros if there are none.
    states: Option<Tensor<3>>,
}

impl StateSpace {
    /// The hidden states after the last layer. With `states`, one for each layer, a single sequence goes on from there and leaves
    /// them where it ends.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        sequences: &Sequences,
        mut states: Option<&mut Vec<MixerState>>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let [n, _] = x.dims();
        let bounds = sequences.bounds(n);
        if let Some(states) = &mut states {
            states.resize_with(self.layers.len(), MixerState::default);
        }
        let mut h = widened(x);
        for (index, layer) in self.layers.iter().enumerate() {
            let state = states.as_mut().and_then(|states| states.get_mut(index));
            let out = layer.forward(layer.norm.forward(h.clone()), &bounds, state, context);
            h = h + out;
        }
        h
    }
}

impl Mixer {
    fn forward(
        &self,
        x: Tensor<2>,
        bounds: &[usize],
        mut state: Option<&mut MixerState>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let (channels, rank) = (self.spec.output.d_in, self.spec.step.d_in);
        let n_states = (self.spec.selection.d_out - rank) / 2;
        let joined = self.input.forward(x, context);
        let part = |of: &Tensor<2>, start: usize, width: usize| of.clone().narrow(1, start, width);
        let (v, gate) = (
            part(&joined, 0, channels),
            part(&joined, channels, channels),
        );
        let u = self.convolve(v, bounds, state.as_deref_mut());
        let selected = self.selection.forward(u.clone(), context);
        let dt = self.step.forward(part(&selected, 0, rank), context);
        let inputs = ScanInputs {
            u,
            dt,
            a: self.scan.A_log.val().exp().neg(),
            b: part(&selected, rank, n_states),
            c: part(&selected, rank + n_states, n_states),
            d: self.scan.D.val(),
        };
        let initial = state.as_ref().and_then(|state| state.states.clone());
        let (y, last) = selective_scan(inputs, initial, bounds);
        if let Some(state) = state {
            state.states = Some(last);
        }
        let gated = gated(gate, y, Activation::Silu);
        self.output.forward(gated, context)
    }

    fn convolve(
        &self,
        v: Tensor<2>,
        bounds: &[usize],
        state: Option<&mut MixerState>,
    ) -> Tensor<2> {
        let weight = self.conv.weight.val();
        let [channels, _, taps] = weight.dims();
        let weight = weight.reshape([channels, taps]);
        let bias = self.conv.bias.as_ref().map(Param::val);
        let Some(state) = state.filter(|_| taps > 1) else {
            return causal_conv(v, weight, bias, bounds);
        };
        let [n, _] = v.dims();
        let zeros = || Tensor::zeros([taps - 1, channels], (&v.device(), v.dtype()));
        let before = state.before.take().unwrap_or_else(zeros);
        let all = Tensor::cat(vec![before, v], 0);
        state.before = Some(all.clone().narrow(0, n, taps - 1).detach());
        let u = causal_conv(all, weight, bias, &[0, taps - 1 + n]);
        u.narrow(0, taps - 1, n)
    }
}
