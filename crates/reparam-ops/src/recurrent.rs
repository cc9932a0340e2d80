//! Recurrent layers: RNN, LSTM and GRU.

use burn::tensor::Tensor;
use reparam_kernels::recurrent as kernels;
use reparam_kernels::recurrent::{Cell, RecurrentShape, State, StateMut};

use crate::native::{self, Operation, from_values, values};
use crate::profile::{self, Work};
use crate::reference;

/// The state of each sequence: before its first token, or after its last one.
#[derive(Debug, Clone)]
pub struct RecurrentState {
    /// `h`, `[B, H]`
    pub h: Tensor<2>,
    /// `c`, `[B, H]`, of cells that have a cell state.
    pub c: Option<Tensor<2>>,
}

/// Runs a recurrent layer over the sequences of a flat batch, each from its first token to its last
/// or, with `reverse`, the other way. Returns the state after each token and the last states.
///
/// It begins with `xw = x W_ih' + b_ih`, which is one [`linear`](crate::linear) for all tokens, so that every plan works for
/// it. With `a = h W_hh' + b_hh` of the state before, in parts of `H` numbers in torch's order of gates, and `s` the
/// sigmoid function:
///
/// ```text
/// Cell::Tanh   h' = tanh(x + a)
/// Cell::Relu   h' = max(0, x + a)
/// Cell::Lstm   i = s(x_i + a_i)   f = s(x_f + a_f)   g = tanh(x_g + a_g)   o = s(x_o + a_o)
///              c' = f c + i g     h' = o tanh(c')
/// Cell::Gru    r = s(x_r + a_r)   z = s(x_z + a_z)   n = tanh(x_n + r a_n)
///              h' = (1 - z) n + z h
/// ```
///
/// # Shapes
///
/// `N` tokens, `B` sequences, `H` units, `G` gates: 1, of an LSTM 4, of a GRU 3.
///
/// - xw: `[N, G H]`
/// - w_hh: `[G H, H]`, b_hh: `[G H]`, the order of torch's parameters
/// - initial: `[B, H]`; zeros if not given
/// - bounds: `[0, n1, n1 + n2, ..., N]`
/// - outputs: `[N, H]` in the order of the tokens, and `[B, H]`
///
/// # Panics
///
/// Panics unless all have these shapes, there is a `c` for the cells that have one and for no others, and the bounds rise.
///
/// # Gradients
///
/// Of `xw`, `w_hh`, `b_hh` and the initial states, from the states and the last states.
///
/// # Cost
///
/// `2 N G H^2` operations in the forward pass, twice that in the backward pass; nothing is padded. Keeps the states and, of an
/// LSTM, five numbers a token and unit, of a GRU four. Each of the outputs whose gradient is used costs a copy of all in the backward
/// pass.
///
/// # References
///
/// `torch.nn.RNN`, `LSTM` and `GRU`. Hochreiter and Schmidhuber, *Long Short-Term Memory* (1997), with the forget gate of
/// Gers et al. (2000); Cho et al. (arXiv 1406.1078), with the reset gate behind the product.
pub fn recurrent(
    xw: Tensor<2>,
    w_hh: Tensor<2>,
    b_hh: Option<Tensor<1>>,
    initial: Option<RecurrentState>,
    cell: Cell,
    bounds: &[usize],
    reverse: bool,
) -> (Tensor<2>, RecurrentState) {
    let [_, hidden] = w_hh.dims();
    let tokens = bounds.last().copied().unwrap_or(0);
    assert_eq!(xw.dims(), [tokens, cell.gates() * hidden], "xw");
    if let Some(state) = &initial {
        let dims = [bounds.len().saturating_sub(1), hidden];
        assert_eq!(state.h.dims(), dims, "the initial h");
        let of_cell = cell.has_cell_state().then_some(dims);
        assert_eq!(state.c.as_ref().map(Tensor::dims), of_cell, "the initial c");
    }
    let has_native_states = initial.as_ref().is_none_or(|state| {
        native::is_native(&state.h) && state.c.as_ref().is_none_or(native::is_native)
    });
    let is_native = native::is_native(&xw)
        && native::is_native(&w_hh)
        && b_hh.as_ref().is_none_or(native::is_native)
        && has_native_states;
    if !is_native {
        return reference::recurrent(xw, w_hh, b_hh, initial, cell, bounds, reverse);
    }
    let layer = Layer {
        cell,
        hidden,
        bounds: bounds.to_vec(),
        reverse,
    };
    let rows = Rows::new(&layer);
    let output = layer.run(&rows, xw, w_hh, b_hh, initial);
    let part = |start: usize, len: usize| output.clone().slice([start..start + len, 0..hidden]);
    let last = RecurrentState {
        h: part(rows.tokens, rows.sequences),
        c: cell
            .has_cell_state()
            .then(|| part(rows.tokens + rows.sequences, rows.sequences)),
    };
    (part(0, rows.tokens), last)
}

/// What the forward and the backward pass know of a layer.
struct Layer {
    cell: Cell,
    hidden: usize,
    bounds: Vec<usize>,
    reverse: bool,
}

/// Rows of the one output that holds all: the states, the last states, and the last cell states.
#[derive(Clone, Copy)]
struct Rows {
    tokens: usize,
    sequences: usize,
    all: usize,
}

impl Rows {
    fn new(layer: &Layer) -> Self {
        let shape = layer.shape();
        let (tokens, sequences) = (shape.tokens(), shape.sequences());
        let states = 1 + usize::from(layer.cell.has_cell_state());
        Self {
            tokens,
            sequences,
            all: tokens + states * sequences,
        }
    }

    /// The parts of the output, of `hidden` numbers a row.
    fn split(self, output: &[f32], hidden: usize) -> (&[f32], State<'_>) {
        let (states, last) = output.split_at(self.tokens * hidden);
        let (h, c) = last.split_at(self.sequences * hidden);
        (states, State { h, c })
    }

    fn split_mut(self, output: &mut [f32], hidden: usize) -> (&mut [f32], StateMut<'_>) {
        let (states, last) = output.split_at_mut(self.tokens * hidden);
        let (h, c) = last.split_at_mut(self.sequences * hidden);
        (states, StateMut { h, c })
    }
}

impl Layer {
    fn shape(&self) -> RecurrentShape<'_> {
        RecurrentShape {
            cell: self.cell,
            hidden: self.hidden,
            bounds: &self.bounds,
            reverse: self.reverse,
        }
    }

    /// Operations of the products of a pass.
    fn operations(&self, tokens: usize) -> f64 {
        profile::product(tokens, self.hidden, self.cell.gates() * self.hidden)
    }

    /// All outputs as one, since a step of autodiff has one.
    fn run(
        self,
        rows: &Rows,
        xw: Tensor<2>,
        w_hh: Tensor<2>,
        b_hh: Option<Tensor<1>>,
        initial: Option<RecurrentState>,
    ) -> Tensor<2> {
        let (hidden, gates, rows) = (self.hidden, self.cell.gates(), *rows);
        let [n, width] = xw.dims();
        let mut operation = Operation::default();
        let (xw, w_hh) = (operation.input(xw), operation.input(w_hh));
        let b_hh = operation.optional_input(b_hh);
        let (h, c) = initial.map_or((None, None), |state| (Some(state.h), state.c));
        let (h, c) = (operation.optional_input(h), operation.optional_input(c));
        let mut output = vec![0.0; rows.all * hidden];
        let mut kept = operation
            .is_tracked()
            .then(|| vec![0.0; rows.tokens * self.cell.kept() * hidden]);
        let (states, last) = rows.split_mut(&mut output, hidden);
        let weights = kernels::Weights {
            w_hh: values(&w_hh),
            b_hh: b_hh.as_ref().map(values),
        };
        let initial = state(h.as_ref().map(values), c.as_ref().map(values));
        let kept_to = kept.as_deref_mut();
        profile::measure(Work::Recurrent, self.operations(n), || {
            native::run(kernels::recurrent_forward(
                self.shape(),
                values(&xw),
                weights,
                initial,
                states,
                last,
                kept_to,
            ));
        });
        let output = from_values(output, [rows.all, hidden]);
        let saved = output.clone();
        operation.output(
            output,
            move |dy, [_, wants_w, wants_b, wants_h, wants_c]| {
                let mut dxw = vec![0.0; n * width];
                let mut dinitial = vec![0.0; (rows.all - rows.tokens) * hidden];
                let mut dw = wants_w.then(|| vec![0.0; width * hidden]);
                let mut db = wants_b.then(|| vec![0.0; gates * hidden]);
                let (dh, dlast) = rows.split(values(&dy), hidden);
                let (dh_first, dc_first) = dinitial.split_at_mut(rows.sequences * hidden);
                let operations = self.operations(n) * (1.0 + f64::from(u8::from(wants_w)));
                profile::measure(Work::Recurrent, operations, || {
                    native::run(kernels::recurrent_backward(
                        kernels::RecurrentSaved {
                            shape: self.shape(),
                            dh,
                            dlast: Some(dlast),
                            h: rows.split(values(&saved), hidden).0,
                            kept: kept.as_deref().unwrap_or(&[]),
                            w_hh: values(&w_hh),
                            initial: state(h.as_ref().map(values), c.as_ref().map(values)),
                        },
                        kernels::RecurrentGrads {
                            dxw: &mut dxw,
                            dinitial: StateMut {
                                h: dh_first,
                                c: dc_first,
                            },
                            dw_hh: dw.as_deref_mut(),
                            db_hh: db.as_deref_mut(),
                        },
                    ));
                });
                let of_state = [rows.sequences, hidden];
                let dc = wants_c.then(|| dinitial.split_off(rows.sequences * hidden));
                dinitial.truncate(rows.sequences * hidden);
                [
                    Some(from_values(dxw, [n, width])),
                    dw.map(|dw| from_values(dw, [width, hidden])),
                    db.map(|db| from_values(db, [width])),
                    wants_h.then(|| from_values(dinitial, of_state)),
                    dc.map(|dc| from_values(dc, of_state)),
                ]
            },
        )
    }
}

/// The initial states; of a cell state that is not there nothing.
fn state<'a>(h: Option<&'a [f32]>, c: Option<&'a [f32]>) -> Option<State<'a>> {
    h.map(|h| State {
        h,
        c: c.unwrap_or(&[]),
    })
}
