//! The selective scan of Mamba: a recurrence for each channel, whose coefficients are made of the
//! tokens.
//!
//! With `s_t = softplus(dt_t) = ln(1 + exp(dt_t))`, for each channel `c` and each of its states `j`,
//! and `h = 0` or an initial state before the first token of a sequence:
//!
//! ```text
//! h_tcj = exp(s_tc A_cj) h_(t-1)cj + s_tc B_tj u_tc
//! y_tc  = sum_j C_tj h_tcj + D_c u_tc
//! ```
//!
//! Source: Gu and Dao, *Mamba: Linear-Time Sequence Modeling with Selective State Spaces* (arXiv
//! 2312.00752), algorithm 2, with the simplified discretization of `B` that its authors' code has.
//!
//! Channels lie in the lanes of vectors, so that a step is a few operations for sixteen of them.
//! The tasks are the sequences, each in blocks of `BLOCK` channels.

mod backward;
mod forward;

use crate::KernelError;
use crate::error::{check_len, elements};
use crate::isa::LANES;

/// Channels of a task. Four groups share the coefficients of a token, and the sums of their
/// gradients over channels are made once for the four.
const BLOCK: usize = 4 * LANES;

/// Tokens between two states that are kept: all states between them take `32 n` vectors, which stay in
/// the second-level cache for the usual `n = 16`.
const CHUNK: usize = 32;

/// A scan and the sequences that it runs over.
#[derive(Debug, Clone, Copy)]
pub struct ScanShape<'a> {
    /// Channels, `d`.
    pub channels: usize,
    /// States of a channel, `n`.
    pub states: usize,
    /// Where the `B` sequences lie among the `N` tokens: `[0, n1, n1 + n2, ..., N]`.
    pub bounds: &'a [usize],
}

impl ScanShape<'_> {
    /// `N`
    pub fn tokens(&self) -> usize {
        self.bounds.last().copied().unwrap_or(0)
    }

    /// `B`
    pub fn sequences(&self) -> usize {
        self.bounds.len().saturating_sub(1)
    }

    /// Numbers that the backward pass needs beside the inputs: the states before every 32nd token of a sequence.
    pub fn kept(&self) -> usize {
        self.chunks_before(self.sequences())
            .saturating_mul(self.states)
            .saturating_mul(self.channels)
    }

    /// Chunks of the first `sequences` sequences.
    fn chunks_before(&self, sequences: usize) -> usize {
        let pairs = self.bounds.windows(2).take(sequences);
        // Asked of bounds that were not checked, too.
        pairs
            .map(|pair| pair[1].saturating_sub(pair[0]).div_ceil(CHUNK))
            .fold(0, usize::saturating_add)
    }

    fn blocks(&self) -> usize {
        self.channels.div_ceil(BLOCK)
    }

    fn check(&self) -> Result<(), KernelError> {
        if self.channels == 0 {
            return Err(KernelError::Zero { name: "channels" });
        }
        if self.states == 0 {
            return Err(KernelError::Zero { name: "states" });
        }
        // So that no product of dimensions overflows later; the last block is filled up.
        let widest = self.channels.saturating_add(BLOCK);
        let rows = self.tokens().max(self.sequences()).max(1);
        elements("tokens", &[rows, widest, self.states.saturating_add(2), 2])?;
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

    /// `[d, n]` as `[n, d]`.
    fn turned(&self, a: &[f32]) -> Vec<f32> {
        let (d, n) = (self.channels, self.states);
        let mut turned = vec![0.0; d * n];
        for (channel, row) in a.chunks_exact(n).enumerate() {
            for (state, x) in row.iter().enumerate() {
                turned[state * d + channel] = *x;
            }
        }
        turned
    }
}

/// What a scan reads.
#[derive(Debug, Clone, Copy)]
pub struct ScanInputs<'a> {
    /// `u[N, d]`
    pub u: &'a [f32],
    /// `dt[N, d]`, before the softplus.
    pub dt: &'a [f32],
    /// `A[d, n]`
    pub a: &'a [f32],
    /// `B[N, n]`
    pub b: &'a [f32],
    /// `C[N, n]`
    pub c: &'a [f32],
    /// `D[d]`
    pub d: &'a [f32],
}

impl ScanInputs<'_> {
    fn check(&self, shape: &ScanShape<'_>) -> Result<(), KernelError> {
        let (tokens, d, n) = (shape.tokens(), shape.channels, shape.states);
        check_len("u", self.u, &[tokens, d])?;
        check_len("dt", self.dt, &[tokens, d])?;
        check_len("a", self.a, &[d, n])?;
        check_len("b", self.b, &[tokens, n])?;
        check_len("c", self.c, &[tokens, n])?;
        check_len("d", self.d, &[d])
    }
}

/// Runs a scan over all tokens.
///
/// # Shapes
///
/// `y[N, d]`. `initial[B, n, d]` are the states before the first token, zeros if not given;
/// `last[B, n, d]` receives those after the last one, of a sequence without tokens the initial ones.
/// `kept`, of [`ScanShape::kept`] numbers, receives what the [backward pass](selective_scan_backward)
/// needs, if that is to come.
///
/// # Numerics
///
/// The softplus and the exponential are exact to a few units in the last place. `y` is summed in the
/// order of the states.
///
/// # Errors
///
/// [`KernelError::Length`] for a slice of the wrong length, [`KernelError::Bounds`] for bounds that do
/// not begin at 0 or decrease, [`KernelError::Zero`] if there are no channels or no states.
///
/// # Cost
///
/// About `N d n` exponentials; allocates `A` once more.
pub fn selective_scan_forward(
    shape: ScanShape<'_>,
    inputs: ScanInputs<'_>,
    initial: Option<&[f32]>,
    y: &mut [f32],
    last: &mut [f32],
    kept: Option<&mut [f32]>,
) -> Result<(), KernelError> {
    shape.check()?;
    inputs.check(&shape)?;
    let state = [shape.sequences(), shape.states, shape.channels];
    if let Some(initial) = initial {
        check_len("initial", initial, &state)?;
    }
    check_len("y", y, &[shape.tokens(), shape.channels])?;
    check_len("last", last, &state)?;
    if let Some(kept) = &kept {
        check_len("kept", kept, &[shape.kept()])?;
    }
    forward::forward(shape, inputs, initial, y, last, kept);
    Ok(())
}

/// What [`selective_scan_backward`] computes.
#[derive(Debug)]
pub struct ScanGrads<'a> {
    /// Gradient of `u[N, d]`.
    pub du: &'a mut [f32],
    /// Gradient of `dt[N, d]`.
    pub ddt: &'a mut [f32],
    /// Gradient of `A[d, n]`.
    pub da: &'a mut [f32],
    /// Gradient of `B[N, n]`.
    pub db: &'a mut [f32],
    /// Gradient of `C[N, n]`.
    pub dc: &'a mut [f32],
    /// Gradient of `D[d]`.
    pub dd: &'a mut [f32],
}

/// The gradients of [`selective_scan_forward`], of `y` alone: none flows from the last states, nor to
/// the initial ones. With `s = softplus(dt)`, `e = exp(s A)`, and `g` the gradient of `h`:
///
/// ```text
/// g_tcj  = dy_tc C_tj + e_(t+1)cj g_(t+1)cj
/// dC_tj  = sum_c dy_tc h_tcj            dB_tj = sum_c g_tcj s_tc u_tc
/// dA_cj  = sum_t g_tcj e_tcj h_(t-1)cj s_tc
/// ds_tc  = sum_j g_tcj (e_tcj h_(t-1)cj A_cj + B_tj u_tc)
/// ddt_tc = ds_tc / (1 + exp(-dt_tc))
/// du_tc  = dy_tc D_c + sum_j g_tcj s_tc B_tj
/// dD_c   = sum_t dy_tc u_tc
/// ```
///
/// `kept` is that of the forward pass; the states between are computed again, 32 tokens at a time.
/// All outputs are overwritten.
///
/// # Errors
///
/// Those of [`selective_scan_forward`].
///
/// # Cost
///
/// About `N d n` exponentials. Allocates `2 N n` numbers for each 64 channels, `(n + 1) d` for each
/// sequence, and 4 times `32 n` vectors for each task.
pub fn selective_scan_backward(
    shape: ScanShape<'_>,
    inputs: ScanInputs<'_>,
    dy: &[f32],
    kept: &[f32],
    grads: ScanGrads<'_>,
) -> Result<(), KernelError> {
    shape.check()?;
    inputs.check(&shape)?;
    let (tokens, d, n) = (shape.tokens(), shape.channels, shape.states);
    check_len("dy", dy, &[tokens, d])?;
    check_len("kept", kept, &[shape.kept()])?;
    check_len("du", grads.du, &[tokens, d])?;
    check_len("ddt", grads.ddt, &[tokens, d])?;
    check_len("da", grads.da, &[d, n])?;
    check_len("db", grads.db, &[tokens, n])?;
    check_len("dc", grads.dc, &[tokens, n])?;
    check_len("dd", grads.dd, &[d])?;
    backward::backward(shape, inputs, dy, kept, grads);
    Ok(())
}
