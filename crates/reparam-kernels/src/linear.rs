//! The linear layer, plain and with a low-rank update.

use crate::KernelError;
use crate::error::check_len;
use crate::matmul::{MatMut, MatRef, matmul};

/// The shape of a linear layer applied to tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearShape {
    /// Rows of the input, `N`; may be zero.
    pub tokens: usize,
    /// Width of the input.
    pub d_in: usize,
    /// Width of the output.
    pub d_out: usize,
}

/// A low-rank update `scaling B A` of a weight.
#[derive(Debug, Clone, Copy)]
pub struct LowRank<'a> {
    /// `A[r, d_in]`
    pub a: &'a [f32],
    /// `B[d_out, r]`
    pub b: &'a [f32],
    /// `r`
    pub rank: usize,
    /// The effective multiplier, for LoRA `alpha / r`.
    pub scaling: f32,
}

impl LowRank<'_> {
    fn check(&self, shape: LinearShape) -> Result<(), KernelError> {
        check_len("low_rank.a", self.a, &[self.rank, shape.d_in])?;
        check_len("low_rank.b", self.b, &[shape.d_out, self.rank])
    }
}

/// `y = x W' + s (x~ A') B'`
///
/// # Shapes
///
/// `x[N, d_in]`, `w[d_out, d_in]`, `y[N, d_out]`. With `low_rank`, `xa[N, r]` receives `x~ A'`, which
/// the backward pass needs; without, `xa` is empty.
///
/// # Arguments
///
/// `x_low_rank[N, d_in]` is `x~`, the input of the low-rank branch where it differs from `x`, as
/// under dropout; `None` means `x`.
///
/// # Errors
///
/// [`KernelError::Length`] for a slice of the wrong length, [`KernelError::Unpaired`] for
/// `x_low_rank` without `low_rank`.
///
/// # Cost
///
/// `2 N (d_in d_out + r (d_in + d_out))` operations; the effective weight is never formed.
pub fn low_rank_forward(
    shape: LinearShape,
    x: &[f32],
    w: &[f32],
    low_rank: Option<LowRank<'_>>,
    x_low_rank: Option<&[f32]>,
    y: &mut [f32],
    xa: &mut [f32],
) -> Result<(), KernelError> {
    let LinearShape {
        tokens,
        d_in,
        d_out,
    } = shape;
    check_len("x", x, &[tokens, d_in])?;
    check_len("w", w, &[d_out, d_in])?;
    check_len("y", y, &[tokens, d_out])?;
    let rank = check_branch(shape, low_rank.as_ref(), x_low_rank)?;
    check_len("xa", xa, &[tokens, rank])?;

    let x_view = MatRef::new(x, tokens, d_in)?;
    let w = MatRef::new(w, d_out, d_in)?;
    matmul(MatMut::new(y, tokens, d_out)?, x_view, w.t(), 1.0, 0.0)?;

    let Some(low_rank) = low_rank else {
        return Ok(());
    };
    let x_low_rank = MatRef::new(x_low_rank.unwrap_or(x), tokens, d_in)?;
    let a = MatRef::new(low_rank.a, rank, d_in)?;
    let b = MatRef::new(low_rank.b, d_out, rank)?;
    matmul(MatMut::new(xa, tokens, rank)?, x_low_rank, a.t(), 1.0, 0.0)?;
    let y = MatMut::new(y, tokens, d_out)?;
    matmul(
        y,
        MatRef::new(xa, tokens, rank)?,
        b.t(),
        low_rank.scaling,
        1.0,
    )
}

/// What [`low_rank_backward`] reads: the gradient of the output and what the forward pass saw.
#[derive(Debug, Clone, Copy)]
pub struct LowRankInputs<'a> {
    /// Gradient of the output, `dy[N, d_out]`.
    pub dy: &'a [f32],
    /// `x[N, d_in]`
    pub x: &'a [f32],
    /// The input of the low-rank branch where it differed from `x`.
    pub x_low_rank: Option<&'a [f32]>,
    /// `w[d_out, d_in]`
    pub w: &'a [f32],
    /// The low-rank update, if there was one.
    pub low_rank: Option<LowRank<'a>>,
    /// `xa[N, r]` of the forward pass; empty without a low-rank update.
    pub xa: &'a [f32],
}

/// What [`low_rank_backward`] computes; what is `None` costs nothing.
#[derive(Debug, Default)]
pub struct LowRankGrads<'a> {
    /// Gradient of `x[N, d_in]`; holds also the part of the low-rank branch unless `dx_low_rank` is
    /// there to take it.
    pub dx: Option<&'a mut [f32]>,
    /// Gradient of `x_low_rank[N, d_in]` through the low-rank branch alone.
    pub dx_low_rank: Option<&'a mut [f32]>,
    /// Gradient of `A[r, d_in]`.
    pub da: Option<&'a mut [f32]>,
    /// Gradient of `B[d_out, r]`.
    pub db: Option<&'a mut [f32]>,
}

/// The gradients of [`low_rank_forward`]:
///
/// ```text
/// g   = s dy B                  [N, r]
/// dx  = dy W + g A              [N, d_in]    (g A goes to dx_low_rank if that is given)
/// dA  = g' x~                   [r, d_in]
/// dB  = s dy' (x~ A')           [d_out, r]
/// ```
///
/// All outputs are overwritten. The gradient of `W`, a `d_out` by `d_in` matrix, is never formed.
///
/// # Errors
///
/// [`KernelError::Length`] for a slice of the wrong length. [`KernelError::Unpaired`] for an
/// output of the low-rank branch without one, and for `dx` without `dx_low_rank` if the branch
/// had its own input: their gradients must not be mixed.
///
/// # Cost
///
/// `2 N d_in d_out` operations for `dx` and up to `4 N r (d_in + d_out)` for the branch;
/// allocates `N r` numbers.
pub fn low_rank_backward(
    shape: LinearShape,
    inputs: LowRankInputs<'_>,
    grads: LowRankGrads<'_>,
) -> Result<(), KernelError> {
    let LinearShape {
        tokens,
        d_in,
        d_out,
    } = shape;
    let rank = check_branch(shape, inputs.low_rank.as_ref(), inputs.x_low_rank)?;
    check_len("dy", inputs.dy, &[tokens, d_out])?;
    check_len("x", inputs.x, &[tokens, d_in])?;
    check_len("w", inputs.w, &[d_out, d_in])?;
    check_len("xa", inputs.xa, &[tokens, rank])?;
    check_grads(shape, rank, &inputs, &grads)?;

    let LowRankGrads {
        mut dx,
        dx_low_rank,
        da,
        db,
    } = grads;
    let dy = MatRef::new(inputs.dy, tokens, d_out)?;
    if let Some(dx) = dx.as_deref_mut() {
        let w = MatRef::new(inputs.w, d_out, d_in)?;
        matmul(MatMut::new(dx, tokens, d_in)?, dy, w, 1.0, 0.0)?;
    }
    let Some(low_rank) = inputs.low_rank else {
        return Ok(());
    };
    let a = MatRef::new(low_rank.a, rank, d_in)?;
    let b = MatRef::new(low_rank.b, d_out, rank)?;
    if let Some(db) = db {
        let xa = MatRef::new(inputs.xa, tokens, rank)?;
        matmul(
            MatMut::new(db, d_out, rank)?,
            dy.t(),
            xa,
            low_rank.scaling,
            0.0,
        )?;
    }
    if dx.is_none() && dx_low_rank.is_none() && da.is_none() {
        return Ok(());
    }
    let mut g = vec![0.0; crate::error::elements("xa", &[tokens, rank])?];
    matmul(
        MatMut::new(&mut g, tokens, rank)?,
        dy,
        b,
        low_rank.scaling,
        0.0,
    )?;
    let g = MatRef::new(&g, tokens, rank)?;
    if let Some(da) = da {
        let x = MatRef::new(inputs.x_low_rank.unwrap_or(inputs.x), tokens, d_in)?;
        matmul(MatMut::new(da, rank, d_in)?, g.t(), x, 1.0, 0.0)?;
    }
    match (dx_low_rank, dx) {
        (Some(own), _) => matmul(MatMut::new(own, tokens, d_in)?, g, a, 1.0, 0.0),
        (None, Some(dx)) => matmul(MatMut::new(dx, tokens, d_in)?, g, a, 1.0, 1.0),
        (None, None) => Ok(()),
    }
}

/// The gradient of a weight that is trained itself: `dW = dy' x`.
///
/// # Shapes
///
/// `dy[N, d_out]`, `x[N, d_in]`, `dw[d_out, d_in]`, overwritten.
///
/// # Errors
///
/// [`KernelError::Length`] for a slice of the wrong length.
///
/// # Cost
///
/// `2 N d_in d_out` operations.
pub fn dense_backward_weight(
    shape: LinearShape,
    dy: &[f32],
    x: &[f32],
    dw: &mut [f32],
) -> Result<(), KernelError> {
    let LinearShape {
        tokens,
        d_in,
        d_out,
    } = shape;
    let dy = MatRef::new(dy, tokens, d_out)?;
    let x = MatRef::new(x, tokens, d_in)?;
    matmul(MatMut::new(dw, d_out, d_in)?, dy.t(), x, 1.0, 0.0)
}

/// Checks the low-rank branch and returns its rank, zero if there is none.
fn check_branch(
    shape: LinearShape,
    low_rank: Option<&LowRank<'_>>,
    x_low_rank: Option<&[f32]>,
) -> Result<usize, KernelError> {
    if let Some(x) = x_low_rank {
        check_len("x_low_rank", x, &[shape.tokens, shape.d_in])?;
        if low_rank.is_none() {
            return Err(KernelError::Unpaired {
                given: "x_low_rank",
                missing: "low_rank",
            });
        }
    }
    match low_rank {
        Some(low_rank) => low_rank.check(shape).map(|()| low_rank.rank),
        None => Ok(0),
    }
}

fn check_grads(
    shape: LinearShape,
    rank: usize,
    inputs: &LowRankInputs<'_>,
    grads: &LowRankGrads<'_>,
) -> Result<(), KernelError> {
    let outputs = [
        ("dx", &grads.dx, [shape.tokens, shape.d_in], false),
        (
            "dx_low_rank",
            &grads.dx_low_rank,
            [shape.tokens, shape.d_in],
            true,
        ),
        ("da", &grads.da, [rank, shape.d_in], true),
        ("db", &grads.db, [shape.d_out, rank], true),
    ];
    for (name, output, dims, of_branch) in outputs {
        let Some(output) = output else { continue };
        if of_branch && inputs.low_rank.is_none() {
            return Err(KernelError::Unpaired {
                given: name,
                missing: "low_rank",
            });
        }
        check_len(name, output, &dims)?;
    }
    if inputs.x_low_rank.is_some() && grads.dx.is_some() && grads.dx_low_rank.is_none() {
        return Err(KernelError::Unpaired {
            given: "dx",
            missing: "dx_low_rank",
        });
    }
    Ok(())
}
