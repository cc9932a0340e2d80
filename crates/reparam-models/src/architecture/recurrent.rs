//! Recurrent layers.

use reparam_ops::Cell;

use super::LinearSpec;

/// Recurrent layers one after the other, as in `torch.nn.RNN`, `GRU` and `LSTM`.
#[derive(Debug, Clone, PartialEq)]
pub struct RecurrentSpec {
    /// What a step computes.
    pub cell: Cell,
    /// Units of a layer in each direction.
    pub hidden: usize,
    /// The layers, each with its directions: from the first token on, and of a bidirectional one from the last token back.
    pub layers: Vec<Vec<DirectionSpec>>,
    /// The probability of the dropout between two layers.
    pub dropout: Option<f64>,
}

/// One direction of a recurrent layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectionSpec {
    /// From the input to the gates.
    pub input: LinearSpec,
    /// From the state before to the gates.
    pub hidden: LinearSpec,
}

impl RecurrentSpec {
    /// Returns whether a token's state depends on what comes after it.
    pub fn is_bidirectional(&self) -> bool {
        self.layers.iter().any(|layer| layer.len() > 1)
    }

    /// Returns the width of the input.
    pub fn d_in(&self) -> usize {
        let mut directions = self.layers.iter().flatten();
        directions.next().map_or(0, |first| first.input.d_in)
    }

    /// Returns the width of the output.
    pub fn d_out(&self) -> usize {
        self.layers.last().map_or(0, Vec::len) * self.hidden
    }

    pub(super) fn linears(&self) -> impl Iterator<Item = &LinearSpec> {
        let directions = self.layers.iter().flatten();
        directions.flat_map(|direction| [&direction.input, &direction.hidden])
    }

    pub(super) fn check(&self, width: usize) -> Option<String> {
        let gates = self.cell.gates() * self.hidden;
        let mut d_in = self.d_in();
        for layer in &self.layers {
            let fits = |direction: &DirectionSpec| {
                let DirectionSpec { input, hidden } = direction;
                (input.d_in, input.d_out) == (d_in, gates)
                    && (hidden.d_in, hidden.d_out) == (self.hidden, gates)
            };
            if !(1..=2).contains(&layer.len()) || !layer.iter().all(fits) {
                return Some(format!(
                    "a recurrent layer over {d_in} numbers does not fit"
                ));
            }
            d_in = layer.len() * self.hidden;
        }
        (d_in != width).then(|| format!("recurrent layers give {d_in} numbers, not {width}"))
    }
}
