//! Recurrent layers.

use burn::tensor::Tensor;
use reparam::{ForwardContext, Linear};
use reparam_ops::{Cell, RecurrentState, recurrent};

use super::{RecurrentCross, Sequences, dropped};
use crate::architecture::RecurrentSpec;
use crate::named::{List, Named, unnamed_module};
use crate::precision::widened;

/// Recurrent layers one after the other.
#[derive(Debug, Clone)]
pub struct Recurrent {
    /// The layers.
    pub layers: List<List<Direction>>,
    /// What the layers of a decoder read of the source.
    pub cross: Option<RecurrentCross>,
    /// What they are.
    pub spec: RecurrentSpec,
}

unnamed_module!(Recurrent, modules: [layers, cross], data: [spec]);

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
    /// The states of the last layer, `[N, directions * hidden]`, or what attention to a source makes of them. With `states`, by
    /// layer, then by direction, it begins where they are and leaves them where it ends; without segments there is one sequence.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        sequences: &Sequences,
        states: Option<&mut Vec<RecurrentState>>,
        context: &ForwardContext,
    ) -> Tensor<2> {
        let [n, _] = x.dims();
        let bounds = sequences.bounds(n);
        let read = self.cross.as_ref().zip(sequences.source.as_ref());
        let mut first = Vec::new();
        let mut states = match (states, read) {
            (None, Some(_)) => Some(&mut first),
            (states, _) => states,
        };
        if let (Some((cross, source)), Some(states)) = (read, &mut states)
            && states.is_empty()
        {
            **states = cross.first(source, bounds.len() - 1, context);
        }
        let (cell, n_layers) = (self.spec.cell, self.layers.len());
        let mut place = 0;
        let mut h = widened(x);
        for (index, directions) in self.layers.iter().enumerate() {
            let run = |direction: &Direction, initial, is_reverse| {
                direction.forward(h.clone(), initial, (cell, &bounds, is_reverse), context)
            };
            let mut outputs = Vec::with_capacity(directions.len());
            for (is_reverse, direction) in [false, true].into_iter().zip(directions.iter()) {
                let initial = states
                    .as_ref()
                    .and_then(|states| states.get(place))
                    .cloned();
                let (output, last) = run(direction, initial, is_reverse);
                if let Some(states) = &mut states {
                    match states.get_mut(place) {
                        Some(state) => *state = last,
                        None => states.push(last),
                    }
                }
                place += 1;
                outputs.push(output);
            }
            h = Tensor::cat(outputs, 1);
            if index + 1 < n_layers
                && let Some(first) = directions.first()
            {
                h = dropped(h, self.spec.dropout, first.hidden.path(), context);
            }
        }
        match read {
            Some((cross, source)) => cross.attention.forward(h, source, context),
            None => h,
        }
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
        let w_hh = w_hh.expect("these weights are never packed");
        let b_hh = self.hidden.bias.as_ref().map(|bias| bias.val());
        recurrent(xw, w_hh, b_hh, initial, cell, bounds, is_reverse)
    }
}
