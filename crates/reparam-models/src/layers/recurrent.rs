//! Recurrent layers.

use burn::tensor::Tensor;
use reparam::{ForwardContext, Linear};
use reparam_ops::{Cell, RecurrentState, Segments, recurrent};

use super::dropped;
use crate::architecture::RecurrentSpec;
use crate::named::{List, Named, unnamed_module};

/// Recurrent layers one after the other.
#[derive(Debug, Clone)]
pub struct Recurrent {
    /// The layers.
    pub layers: List<List<Direction>>,
    /// What they are.
    pub spec: RecurrentSpec,
}

unnamed_module!(Recurrent, modules: [layers], data: [spec]);

/// One direction of a layer.
#[derive(Debug, Clone)]
pub struct Direction {
    /// From the input to the gates.
    pub input: Named<Linear>,
    /// From the state before to the gates. What is attached to it acts as its effective weight, formed once a pass, and a
    /// dropout of the method has no place in it.
    pub hidden: Named<Linear>,
}

unnamed_module!(Direction, modules: [input, hidden], data: []);

impl Recurrent {
    /// The states of the last layer, `[N, directions * hidden]`. With `states`, one a layer, of the one sequence that there is,
    /// it begins where they are and leaves them where it ends.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        segments: &Segments,
        mut states: Option<&mut Vec<RecurrentState>>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let [n, _] = x.dims();
        let mut bounds = vec![0];
        match segments.is_empty() {
            true => bounds.push(n),
            false => bounds.extend(segments.iter().map(|one| one.q_start + one.q_len)),
        }
        let (cell, n_layers) = (self.spec.cell, self.layers.len());
        let mut h = x;
        for (index, directions) in self.layers.iter().enumerate() {
            let run = |direction: &Direction, initial, is_reverse| {
                direction.forward(h.clone(), initial, (cell, &bounds, is_reverse), context)
            };
            let mut outputs = Vec::with_capacity(directions.len());
            for (is_reverse, direction) in [false, true].into_iter().zip(directions.iter()) {
                let initial = states
                    .as_ref()
                    .and_then(|states| states.get(index))
                    .cloned();
                let (output, last) = run(direction, initial, is_reverse);
                if let Some(states) = &mut states {
                    match states.get_mut(index) {
                        Some(state) => *state = last,
                        None => states.push(last),
                    }
                }
                outputs.push(output);
            }
            h = Tensor::cat(outputs, 1);
            if index + 1 < n_layers
                && let Some(first) = directions.first()
            {
                h = dropped(h, self.spec.dropout, first.hidden.path(), context);
            }
        }
        h
    }
}

impl Direction {
    fn forward(
        &self,
        x: Tensor<2>,
        initial: Option<RecurrentState>,
        (cell, bounds, is_reverse): (Cell, &[usize], bool),
        context: &ForwardContext,
    ) -> (Tensor<2>, RecurrentState) {
        let xw = self.input.forward(x, context);
        let w_hh = self.hidden.weight.dense();
        let w_hh = w_hh.expect("recurrent layers are loaded in f32");
        let b_hh = self.hidden.bias.as_ref().map(|bias| bias.val());
        recurrent(xw, w_hh, b_hh, initial, cell, bounds, is_reverse)
    }
}
