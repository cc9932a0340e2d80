//! The arithmetic of the cells, for a group of units of one row.
//!
//! `x` are the parts of the gates that come from the input, `a` those from the state before.

use crate::activation::sigmoid;
use crate::exp::tanh_lanes;
use crate::isa::PairSimd;

/// Gates of a cell at most.
pub(super) const MAX_GATES: usize = 4;

/// Numbers that a cell keeps of a unit at most.
pub(super) const MAX_KEPT: usize = 5;

/// What a step begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inputs<V> {
    pub(super) x: [V; MAX_GATES],
    pub(super) a: [V; MAX_GATES],
    /// The state before, for cells that [use](CellCode::USES_H) it beside its product.
    pub(super) h: V,
    pub(super) c: V,
}

/// What a step gives; of the kept numbers as many as the cell keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outputs<V> {
    pub(super) h: V,
    /// The new cell state; it is the last of the kept numbers, too.
    pub(super) c: V,
    pub(super) kept: [V; MAX_KEPT],
}

/// What the backward pass of a step begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Saved<V> {
    /// Gradients of the new state.
    pub(super) dh: V,
    pub(super) dc: V,
    /// The new state, for cells that keep nothing.
    pub(super) h: V,
    pub(super) h_before: V,
    pub(super) c_before: V,
    pub(super) kept: [V; MAX_KEPT],
}

/// The gradients of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gradients<V> {
    pub(super) x: [V; MAX_GATES],
    /// That of the last of `a`, for cells in which it is [not](CellCode::SPLITS) that of `x`.
    pub(super) last: V,
    /// Of the state before, without what comes through `a`.
    pub(super) h: V,
    pub(super) c: V,
}

/// A cell as code.
pub(super) trait CellCode: Copy + Send + Sync {
    const GATES: usize;
    const KEPT: usize;
    /// Whether there is a cell state.
    const HAS_C: bool = false;
    /// Whether the state before is used beside its product, and so has a gradient beside it.
    const USES_H: bool = false;
    /// Whether the gradient of the last of `a` is another one than that of `x`.
    const SPLITS: bool = false;

    fn forward<S: PairSimd>(self, simd: S, inputs: Inputs<S::V>) -> Outputs<S::V>;

    fn backward<S: PairSimd>(self, simd: S, saved: Saved<S::V>) -> Gradients<S::V>;
}

/// `s (1 - s)`, the slope of a sigmoid.
#[inline(always)]
fn slope<S: PairSimd>(simd: S, s: S::V) -> S::V {
    simd.sub(s, simd.mul(s, s))
}

/// `1 - t^2`, the slope of a tangent.
#[inline(always)]
fn tanh_slope<S: PairSimd>(simd: S, t: S::V) -> S::V {
    simd.sub(simd.splat(1.0), simd.mul(t, t))
}

/// [`Cell::Tanh`](super::Cell::Tanh)
#[derive(Debug, Clone, Copy)]
pub(super) struct Tanh;

/// [`Cell::Relu`](super::Cell::Relu)
#[derive(Debug, Clone, Copy)]
pub(super) struct Relu;

/// [`Cell::Lstm`](super::Cell::Lstm)
#[derive(Debug, Clone, Copy)]
pub(super) struct Lstm;

/// [`Cell::Gru`](super::Cell::Gru)
#[derive(Debug, Clone, Copy)]
pub(super) struct Gru;

/// The outputs of a cell whose only gate is its new state.
#[inline(always)]
fn only_h<S: PairSimd>(simd: S, h: S::V) -> Outputs<S::V> {
    let zero = simd.splat(0.0);
    Outputs {
        h,
        c: zero,
        kept: [zero; MAX_KEPT],
    }
}

/// The gradients of such a cell.
#[inline(always)]
fn only_x<S: PairSimd>(simd: S, x: S::V) -> Gradients<S::V> {
    let zero = simd.splat(0.0);
    Gradients {
        x: [x, zero, zero, zero],
        last: zero,
        h: zero,
        c: zero,
    }
}

impl CellCode for Tanh {
    const GATES: usize = 1;
    const KEPT: usize = 0;

    #[inline(always)]
    fn forward<S: PairSimd>(self, simd: S, inputs: Inputs<S::V>) -> Outputs<S::V> {
        only_h(simd, tanh_lanes(simd, simd.add(inputs.x[0], inputs.a[0])))
    }

    #[inline(always)]
    fn backward<S: PairSimd>(self, simd: S, saved: Saved<S::V>) -> Gradients<S::V> {
        only_x(simd, simd.mul(saved.dh, tanh_slope(simd, saved.h)))
    }
}

impl CellCode for Relu {
    const GATES: usize = 1;
    const KEPT: usize = 0;

    #[inline(always)]
    fn forward<S: PairSimd>(self, simd: S, inputs: Inputs<S::V>) -> Outputs<S::V> {
        // In this order NaN passes through.
        let sum = simd.add(inputs.x[0], inputs.a[0]);
        only_h(simd, simd.max(simd.splat(0.0), sum))
    }

    #[inline(always)]
    fn backward<S: PairSimd>(self, simd: S, saved: Saved<S::V>) -> Gradients<S::V> {
        let zero = simd.splat(0.0);
        // Zero less zero has the sign plus, whichever zero it is.
        let minus = simd.sub(zero, saved.h);
        only_x(simd, simd.by_sign(minus, saved.dh, zero))
    }
}

impl CellCode for Lstm {
    const GATES: usize = 4;
    const KEPT: usize = 5;
    const HAS_C: bool = true;

    #[inline(always)]
    fn forward<S: PairSimd>(self, simd: S, inputs: Inputs<S::V>) -> Outputs<S::V> {
        let Inputs { x, a, c, .. } = inputs;
        let i = sigmoid(simd, simd.add(x[0], a[0]));
        let f = sigmoid(simd, simd.add(x[1], a[1]));
        let g = tanh_lanes(simd, simd.add(x[2], a[2]));
        let o = sigmoid(simd, simd.add(x[3], a[3]));
        let c = simd.mul_add_lanes(f, c, simd.mul(i, g));
        let h = simd.mul(o, tanh_lanes(simd, c));
        Outputs {
            h,
            c,
            kept: [i, f, g, o, c],
        }
    }

    #[inline(always)]
    fn backward<S: PairSimd>(self, simd: S, saved: Saved<S::V>) -> Gradients<S::V> {
        let [i, f, g, o, c] = saved.kept;
        let tanh = tanh_lanes(simd, c);
        let through_h = simd.mul(simd.mul(saved.dh, o), tanh_slope(simd, tanh));
        let dc = simd.add(saved.dc, through_h);
        let di = simd.mul(simd.mul(dc, g), slope(simd, i));
        let df = simd.mul(simd.mul(dc, saved.c_before), slope(simd, f));
        let dg = simd.mul(simd.mul(dc, i), tanh_slope(simd, g));
        let d_o = simd.mul(simd.mul(saved.dh, tanh), slope(simd, o));
        let zero = simd.splat(0.0);
        Gradients {
            x: [di, df, dg, d_o],
            last: zero,
            h: zero,
            c: simd.mul(dc, f),
        }
    }
}

impl CellCode for Gru {
    const GATES: usize = 3;
    const KEPT: usize = 4;
    const USES_H: bool = true;
    const SPLITS: bool = true;

    #[inline(always)]
    fn forward<S: PairSimd>(self, simd: S, inputs: Inputs<S::V>) -> Outputs<S::V> {
        let Inputs { x, a, h, .. } = inputs;
        let r = sigmoid(simd, simd.add(x[0], a[0]));
        let z = sigmoid(simd, simd.add(x[1], a[1]));
        let n = tanh_lanes(simd, simd.mul_add_lanes(r, a[2], x[2]));
        let zero = simd.splat(0.0);
        Outputs {
            h: simd.mul_add_lanes(z, simd.sub(h, n), n),
            c: zero,
            kept: [r, z, n, a[2], zero],
        }
    }

    #[inline(always)]
    fn backward<S: PairSimd>(self, simd: S, saved: Saved<S::V>) -> Gradients<S::V> {
        let [r, z, n, a, _] = saved.kept;
        let through_z = simd.mul(saved.dh, simd.sub(saved.h_before, n));
        let dz = simd.mul(through_z, slope(simd, z));
        let through_n = simd.mul(saved.dh, simd.sub(simd.splat(1.0), z));
        let dn = simd.mul(through_n, tanh_slope(simd, n));
        let dr = simd.mul(simd.mul(dn, a), slope(simd, r));
        let zero = simd.splat(0.0);
        Gradients {
            x: [dr, dz, dn, zero],
            last: simd.mul(dn, r),
            h: simd.mul(saved.dh, z),
            c: zero,
        }
    }
}

/// Calls a generic function with the [`CellCode`] of a [`Cell`](super::Cell).
macro_rules! with_cell {
    ($cell:expr, |$code:ident| $call:expr) => {
        match $cell {
            $crate::recurrent::Cell::Tanh => {
                let $code = $crate::recurrent::cell::Tanh;
                $call
            }
            $crate::recurrent::Cell::Relu => {
                let $code = $crate::recurrent::cell::Relu;
                $call
            }
            $crate::recurrent::Cell::Lstm => {
                let $code = $crate::recurrent::cell::Lstm;
                $call
            }
            $crate::recurrent::Cell::Gru => {
                let $code = $crate::recurrent::cell::Gru;
                $call
            }
        }
    };
}
pub(super) use with_cell;
