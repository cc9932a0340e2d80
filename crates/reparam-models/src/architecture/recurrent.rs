//! Recurrent layers, and what those of a decoder read of a source.

use std::ops::Range;

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
    /// What the layers of a decoder read of the source.
    pub cross: Option<RecurrentCrossSpec>,
}

/// One direction of a recurrent layer.
#[derive(Debug, Clone, PartialEq)]
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
        let layers = directions.flat_map(|direction| [&direction.input, &direction.hidden]);
        layers.chain(self.cross.iter().flat_map(RecurrentCrossSpec::linears))
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

/// What recurrent layers of a decoder read of a source: the states that they begin with, and attention behind the last of them.
#[derive(Debug, Clone, PartialEq)]
pub struct RecurrentCrossSpec {
    /// Of each layer, what it begins with.
    pub starts: Vec<StartSpec>,
    /// Attention to the states of the encoder.
    pub attention: GlobalAttentionSpec,
}

/// What a layer begins with: the states in which a layer of the encoder ends, those of its directions side by side, each through a
/// linear layer where there is one.
#[derive(Debug, Clone, PartialEq)]
pub struct StartSpec {
    /// The place of these states among the last ones of the encoder, which are by layer, then by direction.
    pub from: Range<usize>,
    /// Of the state.
    pub h: Option<LinearSpec>,
    /// Of the cell state.
    pub c: Option<LinearSpec>,
}

/// Attention of the state `h_t` of a token to all states `s_j` of its source:
///
/// ```text
/// a_t  = softmax_j(score(h_t, s_j))
/// c_t  = sum_j a_tj s_j
/// h~_t = tanh(W_c [c_t; h_t])
/// ```
///
/// and `h~_t` takes the place of `h_t`.
///
/// # References
///
/// Luong et al., *Effective Approaches to Attention-based Neural Machine Translation* (arXiv 1508.04025), section 3.1 and equation
/// 5. Differs from the paper: `h~_t` is no input of the next step (its section 3.3), so that all tokens of a target attend at once.
#[derive(Debug, Clone, PartialEq)]
pub struct GlobalAttentionSpec {
    /// What is compared.
    pub score: ScoreSpec,
    /// `W_c`, from the width of the source and that of the target to the latter.
    pub output: LinearSpec,
}

/// How a state of a target is compared with one of its source.
#[derive(Debug, Clone, PartialEq)]
pub enum ScoreSpec {
    /// `h . s`, of states that are equally wide.
    Dot,
    /// `(W_a h) . s`: the `h' W_a s` of the paper, whose matrix is the transposed one.
    General {
        /// `W_a`, from the width of the target to that of the source.
        query: LinearSpec,
    },
    /// `v . tanh(W_h h + W_s s)`: the `concat` of the paper, whose matrix has the two side by side. Bahdanau et al., *Neural Machine
    /// Translation by Jointly Learning to Align and Translate* (arXiv 1409.0473), appendix A.1.2, with the state after a step in
    /// place of that before it.
    Additive {
        /// `W_h`
        query: LinearSpec,
        /// `W_s`
        key: LinearSpec,
        /// `v`, to one number.
        energy: Box<LinearSpec>,
    },
}

impl ScoreSpec {
    /// Returns the linear layers, in order.
    pub(crate) fn linears(&self) -> Vec<&LinearSpec> {
        match self {
            Self::Dot => Vec::new(),
            Self::General { query } => vec![query],
            Self::Additive { query, key, energy } => vec![query, key, energy],
        }
    }

    fn fits(&self, [target, source]: [usize; 2]) -> bool {
        let maps = |linear: &LinearSpec, d_in, d_out| (linear.d_in, linear.d_out) == (d_in, d_out);
        match self {
            Self::Dot => target == source,
            Self::General { query } => maps(query, target, source),
            Self::Additive { query, key, energy } => {
                let inner = query.d_out;
                maps(query, target, inner) && maps(key, source, inner) && maps(energy, inner, 1)
            }
        }
    }
}

impl RecurrentCrossSpec {
    fn linears(&self) -> impl Iterator<Item = &LinearSpec> {
        let starts = self.starts.iter();
        let starts = starts.flat_map(|start| start.h.iter().chain(&start.c));
        let GlobalAttentionSpec { score, output } = &self.attention;
        starts.chain(score.linears()).chain([output])
    }

    /// Checks what layers read of an encoder.
    pub(super) fn check(&self, of: &RecurrentSpec, encoder: &RecurrentSpec) -> Option<String> {
        if of.is_bidirectional() {
            return Some("a decoder reads forwards".to_owned());
        }
        if of.cell != encoder.cell {
            return Some("a decoder has the cells of its encoder".to_owned());
        }
        let (width, source) = (of.d_out(), encoder.d_out());
        let n_last = encoder.layers.iter().map(Vec::len).sum::<usize>();
        let begins = |start: &StartSpec| {
            let d_in = start.from.len() * encoder.hidden;
            let fits = |linear: &Option<LinearSpec>| match linear {
                Some(linear) => (linear.d_in, linear.d_out) == (d_in, of.hidden),
                None => d_in == of.hidden,
            };
            let c_fits = match of.cell.has_cell_state() {
                true => fits(&start.c),
                false => start.c.is_none(),
            };
            !start.from.is_empty() && start.from.end <= n_last && fits(&start.h) && c_fits
        };
        if self.starts.len() != of.layers.len() || !self.starts.iter().all(begins) {
            return Some("the states that layers begin with do not fit".to_owned());
        }
        let GlobalAttentionSpec { score, output } = &self.attention;
        let fits =
            score.fits([width, source]) && (output.d_in, output.d_out) == (source + width, width);
        (!fits).then(|| {
            format!("attention of states of {width} numbers to those of {source} does not fit")
        })
    }
}
