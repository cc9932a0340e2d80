//! Recurrent layers: a plain RNN, LSTM and GRU, over flat batches.
//!
//! The part of the gates that comes from the input is one product for all time steps, `x W_ih' +
//! b_ih`, which the caller makes; a layer here begins with it. What is left is one loop over time,
//! in which each step multiplies the states by the recurrent weight and computes the gates.
//!
//! # Cells
//!
//! With `x` a row of `x W_ih' + b_ih` and `a = h W_hh' + b_hh` of the state `h` before, both in
//! parts of `H` numbers, one for each gate in torch's order, and `s` the sigmoid function:
//!
//! ```text
//! Tanh:  h' = tanh(x + a)
//! Relu:  h' = max(0, x + a)
//!
//! Lstm:  i = s(x_i + a_i)      f = s(x_f + a_f)      g = tanh(x_g + a_g)      o = s(x_o + a_o)
//!        c' = f c + i g        h' = o tanh(c')
//!
//! Gru:   r = s(x_r + a_r)      z = s(x_z + a_z)      n = tanh(x_n + r a_n)
//!        h' = (1 - z) n + z h
//! ```
//!
//! They are those of `torch.nn.RNN`, `LSTM` and `GRU`. Sources: Elman, *Finding Structure in Time*
//! (1990); Hochreiter and Schmidhuber, *Long Short-Term Memory* (1997), with the forget gate of Gers
//! et al. (2000); Cho et al. (arXiv 1406.1078), with the reset gate behind the product.
//!
//! # Sequences
//!
//! Of sequences of different lengths, a step computes those that still go on: nothing is padded.
//! Results lie where the tokens do. With `reverse`, each sequence runs from its last token to its
//! first, as the second direction of a bidirectional layer does.
//!
//! # Cost
//!
//! The recurrent weight is put into panels once for a call. Where each thread has enough sequences
//! it runs them on its own, from the first step to the last; else the threads share each step, and
//! wait for one another as a [team](crate::team) does.

mod backward;
mod cell;
mod forward;
mod panels;
mod schedule;

use crate::KernelError;
use crate::error::{check_len, elements};
use cell::{CellCode, with_cell};

/// What a layer does at a step; see the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cell {
    /// A plain RNN with the hyperbolic tangent.
    Tanh,
    /// A plain RNN with the positive part.
    Relu,
    /// Gates `i`, `f`, `g` and `o`, and a cell state.
    Lstm,
    /// Gates `r`, `z` and `n`; `r` is applied to the product, as torch does.
    Gru,
}

impl Cell {
    /// Gates, `G`: the recurrent weight is `[G H, H]`.
    pub fn gates(self) -> usize {
        fn gates<C: CellCode>(_: C) -> usize {
            C::GATES
        }
        with_cell!(self, |cell| gates(cell))
    }

    /// Numbers that the backward pass needs of each token and unit, `K`, beside the state.
    pub fn kept(self) -> usize {
        fn kept<C: CellCode>(_: C) -> usize {
            C::KEPT
        }
        with_cell!(self, |cell| kept(cell))
    }

    /// Whether there is a cell state beside the hidden state.
    pub fn has_cell_state(self) -> bool {
        fn has_c<C: CellCode>(_: C) -> bool {
            C::HAS_C
        }
        with_cell!(self, |cell| has_c(cell))
    }
}

/// A layer and the sequences that it runs over.
#[derive(Debug, Clone, Copy)]
pub struct RecurrentShape<'a> {
    /// What it does at a step.
    pub cell: Cell,
    /// Units, `H`.
    pub hidden: usize,
    /// Where the `B` sequences lie among the `N` tokens: `[0, n1, n1 + n2, ..., N]`.
    pub bounds: &'a [usize],
    /// Whether each sequence runs from its end.
    pub reverse: bool,
}

impl RecurrentShape<'_> {
    /// `N`
    pub fn tokens(&self) -> usize {
        self.bounds.last().copied().unwrap_or(0)
    }

    /// `B`
    pub fn sequences(&self) -> usize {
        self.bounds.len().saturating_sub(1)
    }

    fn check(&self) -> Result<(), KernelError> {
        if self.hidden == 0 {
            return Err(KernelError::Zero { name: "hidden" });
        }
        // So that no product of dimensions overflows later.
        let widest = self.cell.kept().max(self.cell.gates());
        elements(
            "tokens",
            &[self.tokens().max(self.hidden), widest, self.hidden],
        )?;
        let mut before = 0;
        for (index, &bound) in self.bounds.iter().enumerate() {
            if bound < before || (index == 0 && bound != 0) {
                return Err(KernelError::Bounds {
                    index,
                    bound,
                    before,
                });
            }
            before = bound;
        }
        Ok(())
    }

    fn check_state(
        &self,
        names: [&'static str; 2],
        h: &[f32],
        c: &[f32],
    ) -> Result<(), KernelError> {
        check_len(names[0], h, &[self.sequences(), self.hidden])?;
        let width = if self.cell.has_cell_state() {
            self.hidden
        } else {
            0
        };
        check_len(names[1], c, &[self.sequences(), width])
    }
}

/// The parameters of the recurrence.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// `w_hh[G H, H]`
    pub w_hh: &'a [f32],
    /// `b_hh[G H]`
    pub b_hh: Option<&'a [f32]>,
}

/// A state of each sequence, or the gradient of one.
#[derive(Debug, Clone, Copy)]
pub struct State<'a> {
    /// `h[B, H]`
    pub h: &'a [f32],
    /// `c[B, H]`; empty for cells without a cell state.
    pub c: &'a [f32],
}

/// A [`State`] to be written.
#[derive(Debug)]
pub struct StateMut<'a> {
    /// `h[B, H]`
    pub h: &'a mut [f32],
    /// `c[B, H]`; empty for cells without a cell state.
    pub c: &'a mut [f32],
}

impl StateMut<'_> {
    /// Writes a state, or zeros.
    fn set(&mut self, state: Option<State<'_>>) {
        match state {
            Some(State { h, c }) => {
                self.h.copy_from_slice(h);
                self.c.copy_from_slice(c);
            }
            None => {
                self.h.fill(0.0);
                self.c.fill(0.0);
            }
        }
    }
}

/// Runs a layer over all tokens.
///
/// # Shapes
///
/// `xw[N, G H]`, what comes from the input; `h[N, H]`, the state after each token. `initial` are the
/// states before the first token, zeros if not given; `last` receives those after the last one,
/// of a sequence without tokens the initial one. `kept[N, K, H]` receives what the
/// [backward pass](recurrent_backward) needs, if that is to come.
///
/// # Numerics
///
/// The product of a step is summed in `f32` in the order of the units. Gates are exact to a few
/// units in the last place.
///
/// # Errors
///
/// [`KernelError::Length`] for a slice of the wrong length, [`KernelError::Bounds`] for bounds that do
/// not begin at 0 or decrease, [`KernelError::Zero`] if `hidden` is zero.
///
/// # Cost
///
/// `2 N G H^2` operations; allocates the panels, `G H^2` numbers.
pub fn recurrent_forward(
    shape: RecurrentShape<'_>,
    xw: &[f32],
    weights: Weights<'_>,
    initial: Option<State<'_>>,
    h: &mut [f32],
    mut last: StateMut<'_>,
    kept: Option<&mut [f32]>,
) -> Result<(), KernelError> {
    shape.check()?;
    let (tokens, units, gates) = (shape.tokens(), shape.hidden, shape.cell.gates());
    check_len("xw", xw, &[tokens, gates * units])?;
    check_len("w_hh", weights.w_hh, &[gates * units, units])?;
    if let Some(bias) = weights.b_hh {
        check_len("b_hh", bias, &[gates * units])?;
    }
    if let Some(State { h, c }) = initial {
        shape.check_state(["initial.h", "initial.c"], h, c)?;
    }
    check_len("h", h, &[tokens, units])?;
    shape.check_state(["last.h", "last.c"], last.h, last.c)?;
    if let Some(kept) = &kept {
        check_len("kept", kept, &[tokens, shape.cell.kept(), units])?;
    }
    last.set(initial);
    let h_first = initial.map(|state| state.h);
    forward::forward(shape, xw, weights, h_first, h, last, kept);
    Ok(())
}

/// What [`recurrent_backward`] reads: the gradients of the outputs and what the forward pass saw.
#[derive(Debug, Clone, Copy)]
pub struct RecurrentSaved<'a> {
    /// That of the forward pass.
    pub shape: RecurrentShape<'a>,
    /// Gradient of the states after each token, `[N, H]`.
    pub dh: &'a [f32],
    /// Gradient of the last states, zeros if not given.
    pub dlast: Option<State<'a>>,
    /// The states after each token, `[N, H]`.
    pub h: &'a [f32],
    /// `kept[N, K, H]` of the forward pass.
    pub kept: &'a [f32],
    /// `w_hh[G H, H]`
    pub w_hh: &'a [f32],
    /// The initial states of the forward pass.
    pub initial: Option<State<'a>>,
}

/// What [`recurrent_backward`] computes; what is `None` costs nothing.
#[derive(Debug)]
pub struct RecurrentGrads<'a> {
    /// Gradient of `xw[N, G H]`.
    pub dxw: &'a mut [f32],
    /// Gradient of the initial states, given or not.
    pub dinitial: StateMut<'a>,
    /// Gradient of `w_hh[G H, H]`.
    pub dw_hh: Option<&'a mut [f32]>,
    /// Gradient of `b_hh[G H]`.
    pub db_hh: Option<&'a mut [f32]>,
}

/// The gradients of [`recurrent_forward`], with `dh` that of the state after a token, its own and
/// what later tokens add, and `da` that of `a`:
///
/// ```text
/// dh of the token before = da W_hh  (+ dh z in a GRU)
/// dW_hh = sum over tokens of da' h,   db_hh = sum over tokens of da,   h the state before
///
/// Tanh:  da = dh (1 - h'^2)                   Relu:  da = dh where h' > 0
///
/// Lstm:  dc = dc + dh o (1 - tanh(c')^2)      dc of the token before = dc f
///        di = dc g i (1 - i)                  df = dc c f (1 - f)
///        dg = dc i (1 - g^2)                  do = dh tanh(c') o (1 - o)
///
/// Gru:   dn = dh (1 - z) (1 - n^2)            dz = dh (h - n) z (1 - z)
///        dr = dn a_n r (1 - r)                da_n = dn r
/// ```
///
/// `da` is the gradient of `x`, but for `da_n`. All outputs are overwritten.
///
/// # Errors
///
/// Those of [`recurrent_forward`].
///
/// # Cost
///
/// `2 N G H^2` operations, and as many for `dw_hh`, which is one product over all tokens. Allocates
/// the panels, `G H^2` numbers; for `dw_hh` the states before, `N H`; for a GRU `da_n`, `N H`.
pub fn recurrent_backward(
    saved: RecurrentSaved<'_>,
    grads: RecurrentGrads<'_>,
) -> Result<(), KernelError> {
    let shape = saved.shape;
    shape.check()?;
    let (tokens, units, gates) = (shape.tokens(), shape.hidden, shape.cell.gates());
    check_len("dh", saved.dh, &[tokens, units])?;
    check_len("h", saved.h, &[tokens, units])?;
    check_len("kept", saved.kept, &[tokens, shape.cell.kept(), units])?;
    check_len("w_hh", saved.w_hh, &[gates * units, units])?;
    if let Some(State { h, c }) = saved.dlast {
        shape.check_state(["dlast.h", "dlast.c"], h, c)?;
    }
    if let Some(State { h, c }) = saved.initial {
        shape.check_state(["initial.h", "initial.c"], h, c)?;
    }
    let RecurrentGrads {
        dxw,
        mut dinitial,
        dw_hh,
        db_hh,
    } = grads;
    check_len("dxw", dxw, &[tokens, gates * units])?;
    shape.check_state(["dinitial.h", "dinitial.c"], dinitial.h, dinitial.c)?;
    if let Some(dw_hh) = &dw_hh {
        check_len("dw_hh", dw_hh, &[gates * units, units])?;
    }
    if let Some(db_hh) = &db_hh {
        check_len("db_hh", db_hh, &[gates * units])?;
    }
    dinitial.set(saved.dlast);
    let last = backward::backward(saved, dxw, dinitial);
    if let Some(dw_hh) = dw_hh {
        backward::weight_gradient(&saved, dxw, last.as_deref(), dw_hh)?;
    }
    if let Some(db_hh) = db_hh {
        backward::bias_gradient(units, dxw, last.as_deref(), db_hh);
    }
    Ok(())
}
