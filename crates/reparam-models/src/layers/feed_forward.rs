//! Feed-forward layers.

use burn::tensor::Tensor;
use reparam::{ForwardContext, Linear};
use reparam_ops::fused::MlpBlock;
use reparam_ops::{activation, gated};

use super::{Norms, Sequences, dropped, drops};
use crate::architecture::FeedForwardSpec;
use crate::named::{List, Named, side_by_side, unnamed_module};

/// A feed-forward layer: `down(act(gate(x)) * up(x))`, or `down(act(up(x)))`.
#[derive(Debug, Clone)]
pub struct FeedForward {
    /// Gate and up: two layers, or one whose output holds them side by side; up alone without a gate.
    pub inputs: List<Named<Linear>>,
    /// Back to the hidden states.
    pub output: Named<Linear>,
    /// What it is.
    pub spec: FeedForwardSpec,
}

unnamed_module!(FeedForward, modules: [inputs, output], data: [spec]);

impl FeedForward {
    pub(crate) fn forward(&self, x: Tensor<2>, context: &ForwardContext) -> Tensor<2> {
        let function = self.spec.activation;
        let inner = match &self.inputs[..] {
            [gate, up] => {
                let gate = gate.forward(x.clone(), context);
                gated(gate, up.forward(x, context), function)
            }
            [gate_up] if self.spec.gated => {
                let joined = gate_up.forward(x, context);
                let [gate, up] = side_by_side([self.spec.output.d_in; 2])
                    .map(|columns| joined.clone().narrow(1, columns.start, columns.len()));
                gated(gate, up, function)
            }
            [up] => activation(up.forward(x, context), function),
            others => unreachable!("{} layers are checked when they are loaded", others.len()),
        };
        // Named apart from the layer, whose method may have a dropout of its own.
        let place = format!("{}.inner", self.output.path());
        let inner = dropped(inner, self.spec.inner_dropout, &place, context);
        self.output.forward(inner, context)
    }

    /// The whole block as one operation, if its weights are packed and no dropout is on.
    pub(crate) fn fused(
        &self,
        norms: &Norms,
        sequences: &Sequences,
        context: &ForwardContext,
    ) -> Option<MlpBlock> {
        if drops(self.spec.dropouts(), context) {
            return None;
        }
        let inputs = self.inputs.iter().map(|linear| linear.fused(context));
        Some(MlpBlock {
            inputs: inputs.collect::<Option<_>>()?,
            down: self.output.fused(context)?,
            norms: norms.fused(),
            gated: self.spec.gated,
            activation: self.spec.activation,
            recompute: sequences.recompute,
        })
    }
}
