//! State-space layers.

use super::{LinearSpec, NormSpec};

/// State-space layers one after the other, each behind its norm and added to its input:
///
/// ```text
/// h' = h + mixer(norm(h))
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct StateSpaceSpec {
    /// Channels of a layer, `d`.
    pub channels: usize,
    /// States of a channel, `n`.
    pub states: usize,
    /// Tokens that the convolution sees, the last of them the token itself, `K`.
    pub taps: usize,
    /// The layers.
    pub layers: Vec<MixerSpec>,
}

/// What a state-space layer computes of a token's vector `x`:
///
/// ```text
/// [v; g]     = input(x)
/// u          = silu(conv(v))              over the last K tokens
/// [t; B; C]  = selection(u)
/// dt         = step(t)
/// y          = scan(u, dt, A, B, C, D)    A = -exp(A_log)
/// output(y * silu(g))
/// ```
///
/// [`selective_scan`](reparam_ops::selective_scan) says what the scan is.
///
/// # References
///
/// Gu and Dao, *Mamba: Linear-Time Sequence Modeling with Selective State Spaces* (arXiv 2312.00752), section 3.4 and algorithm 2.
#[derive(Debug, Clone, PartialEq)]
pub struct MixerSpec {
    /// The path, which `A_log` and `D` are behind.
    pub path: String,
    /// The norm of the input.
    pub norm: NormSpec,
    /// To the channels and their gates.
    pub input: LinearSpec,
    /// The path of the convolution, whose weight is `[d, 1, K]`.
    pub conv: String,
    /// Whether it has a bias.
    pub conv_bias: bool,
    /// Of the channels, what makes their steps, and the coefficients `B` and `C`.
    pub selection: LinearSpec,
    /// The steps of the channels.
    pub step: LinearSpec,
    /// What the steps of a new layer are.
    pub steps: StepsSpec,
    /// Back to the hidden states.
    pub output: LinearSpec,
}

/// What the steps of a new layer are: its weight is uniform in `+-bound`, and the softplus of its bias is drawn from `least..most`,
/// uniformly by its logarithm, but is at least `floor`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepsSpec {
    /// The bound of the weight.
    pub bound: f64,
    /// The least step.
    pub least: f64,
    /// The greatest step.
    pub most: f64,
    /// What smaller ones become.
    pub floor: f64,
}

impl MixerSpec {
    pub(super) fn linears(&self) -> [&LinearSpec; 4] {
        [&self.input, &self.selection, &self.step, &self.output]
    }

    /// The layers whose stored weight transformers reads past what is attached to them: PEFT refuses adapters of the output, and
    /// one of the steps would do nothing there.
    pub(super) fn read_past_adapters(&self) -> [&LinearSpec; 2] {
        [&self.step, &self.output]
    }
}

impl StateSpaceSpec {
    /// Returns the numbers that generation keeps of a sequence, whatever its length.
    pub fn kept(&self) -> usize {
        let of_channel = self.taps - 1 + self.states;
        self.layers.len() * self.channels * of_channel
    }

    pub(super) fn linears(&self) -> impl Iterator<Item = &LinearSpec> {
        self.layers.iter().flat_map(MixerSpec::linears)
    }

    pub(super) fn read_past_adapters(&self) -> impl Iterator<Item = &LinearSpec> {
        self.layers.iter().flat_map(MixerSpec::read_past_adapters)
    }

    pub(super) fn check(&self, width: usize) -> Option<String> {
        let (d, n) = (self.channels, self.states);
        if self.layers.is_empty() || d == 0 || n == 0 || self.taps == 0 {
            return Some("state-space layers have channels, states and taps".to_owned());
        }
        let fits = |layer: &MixerSpec| {
            let sizes = layer.linears().map(|linear| [linear.d_in, linear.d_out]);
            let rank = layer.step.d_in;
            let selected = n.checked_mul(2).and_then(|both| both.checked_add(rank));
            let expected = [
                Some([width, d.checked_mul(2)?]),
                selected.map(|selected| [d, selected]),
                Some([rank, d]),
                Some([d, width]),
            ];
            Some(sizes.map(Some) == expected && layer.norm.width == width)
        };
        let fits = self.layers.iter().all(|layer| fits(layer) == Some(true));
        (!fits).then(|| "the layers of a state space do not fit together".to_owned())
    }
}
