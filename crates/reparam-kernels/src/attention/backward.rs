//! The backward pass of attention.
//!
//! A task is a segment, a key head and a range of keys. It owns the gradients of its keys and
//! values and a partial gradient of the queries; the partial ones are added in the order of the
//! ranges. How many ranges there are follows from the shapes alone.

use std::ops::Range;

use rayon::prelude::*;

use super::bias::{self, BiasBlock};
use super::dropout::{Block, Dropout};
use super::positions::PositionGradients;
use super::transposed::Transposed;
use super::{
    AttentionDropout, AttentionSaved, AttentionShape, BLOCK_KEYS, Mask, Segment, TermGradients,
    Terms, block_queries, gather_heads,
};
use crate::KernelError;
use crate::exp::exp_one;
use crate::isa::{Simd, Token, simd_entry};
use crate::matmul::{MatMut, MatRef, matmul_serial};
use crate::par;
use crate::vector::{self, dot};

/// With at least so many segments times key heads, keys are not split further.
const ENOUGH_TASKS: usize = 16;

/// The greatest number of key ranges of a segment and head. Each range has its own partial gradient of
/// the queries, so this bounds the memory.
const MAX_RANGES: usize = 4;

struct Task {
    segment: Segment,
    /// Position of the segment in the sorted list.
    index: usize,
    head: usize,
    /// Keys of the task, counted from the start of the segment.
    keys: Range<usize>,
    /// Queries that see any of them, counted in the same way.
    queries: Range<usize>,
}

/// The gradients of one task, each with the heads of its group only.
struct Gradients {
    /// `[queries, n_rep * head_dim]`
    dq: Vec<f32>,
    /// `[keys, head_dim]`
    dk: Vec<f32>,
    /// `[keys, head_dim]`
    dv: Vec<f32>,
    /// `[n_rep, 2 k_len - 1]`; empty without a bias.
    dbias: Vec<f32>,
    positions: PositionGradients,
}

/// `segments` are checked, not empty, and in the order of their queries.
pub(super) fn backward(
    saved: AttentionSaved<'_>,
    shape: AttentionShape,
    segments: &[Segment],
    (terms, dterms): (&Terms<'_>, TermGradients<'_>),
    dropout: Option<AttentionDropout<'_>>,
    [dq, dk, dv]: [&mut [f32]; 3],
) -> Result<(), KernelError> {
    let token = Token::current();
    let dropout = dropout.map(|dropout| Dropout::new(dropout, &shape, segments));
    let context = Context {
        token,
        saved: &saved,
        shape: &shape,
        delta: &delta(token, &saved, &shape),
        terms,
        wanted: [&dterms.keys, &dterms.queries].map(|of| of.is_some()),
        dropout: dropout.transpose()?,
        keys: Transposed::new(saved.k, &shape, segments, |_| true),
        values: Transposed::new(saved.v, &shape, segments, |_| true),
    };
    let tasks = plan(&shape, segments);
    let gradients = tasks
        .par_iter()
        .with_max_len(1)
        .map(|task| task_gradients(&context, task))
        .collect::<Result<Vec<_>, _>>()?;

    let group = shape.n_rep() * shape.head_dim;
    scatter(
        dq,
        shape.q_width(),
        group,
        tasks.iter().zip(&gradients).map(|(task, gradients)| {
            (
                task.segment.q_start + task.queries.start,
                task.head,
                gradients.dq.as_slice(),
            )
        }),
    );
    for (target, pick) in [
        (
            dk,
            (|gradients| &gradients.dk) as fn(&Gradients) -> &Vec<f32>,
        ),
        (dv, |gradients| &gradients.dv),
    ] {
        let parts = tasks.iter().zip(&gradients).map(|(task, gradients)| {
            (
                task.segment.k_start + task.keys.start,
                task.head,
                pick(gradients).as_slice(),
            )
        });
        scatter(target, shape.kv_width(), shape.head_dim, parts);
    }
    if let Some((bias, dbias)) = terms.bias.zip(dterms.bias) {
        dbias.fill(0.0);
        for (task, gradients) in tasks.iter().zip(&gradients) {
            let of = (&task.segment, task.head);
            bias::scatter(&shape, of, &gradients.dbias, (bias.reach, &mut *dbias));
        }
    }
    let picks = [
        (|gradients| &gradients.positions.keys) as fn(&Gradients) -> &Vec<f32>,
        |gradients| &gradients.positions.queries,
    ];
    for (target, pick) in [dterms.keys, dterms.queries].into_iter().zip(picks) {
        let Some((target, positions)) = target.zip(terms.positions.as_ref()) else {
            continue;
        };
        let parts = tasks.iter().zip(&gradients).map(|(task, gradients)| {
            let first = positions.reach() + 1 - task.segment.k_len;
            (first, task.head, pick(gradients).as_slice())
        });
        scatter(target, shape.kv_width(), shape.head_dim, parts);
    }
    Ok(())
}

/// Cuts the work into tasks, those of one head in the order of their keys.
fn plan(shape: &AttentionShape, segments: &[Segment]) -> Vec<Task> {
    let ranges = if segments.len() * shape.n_kv_heads >= ENOUGH_TASKS {
        1
    } else {
        MAX_RANGES
    };
    let mut tasks = Vec::new();
    for (index, &segment) in segments.iter().enumerate() {
        let len = segment
            .k_len
            .div_ceil(ranges)
            .next_multiple_of(BLOCK_KEYS)
            .max(2 * BLOCK_KEYS);
        for head in 0..shape.n_kv_heads {
            for start in (0..segment.k_len).step_by(len) {
                let keys = start..(start + len).min(segment.k_len);
                tasks.push(Task {
                    segment,
                    index,
                    head,
                    queries: shape.seeing(&segment, &keys),
                    keys,
                });
            }
        }
    }
    tasks
}

/// `sum(dout * out)` of each query and head.
fn delta(token: Token, saved: &AttentionSaved<'_>, shape: &AttentionShape) -> Vec<f32> {
    let d = shape.head_dim;
    let mut delta = vec![0.0; saved.lse.len()];
    let heads = par::block_rows(d);
    delta
        .par_chunks_mut(heads)
        .zip(saved.out.par_chunks(heads * d))
        .zip(saved.dout.par_chunks(heads * d))
        .for_each(|((delta, out), dout)| delta_block(token, out, dout, d, delta));
    delta
}

simd_entry!(fn delta_block<'a>(
    out: &'a [f32], dout: &'a [f32], d: usize, delta: &'a mut [f32]
) = delta_rows);

#[inline(always)]
fn delta_rows<S: Simd>(simd: S, out: &[f32], dout: &[f32], d: usize, delta: &mut [f32]) {
    for ((delta, out), dout) in delta
        .iter_mut()
        .zip(out.chunks_exact(d))
        .zip(dout.chunks_exact(d))
    {
        *delta = dot(simd, out, dout);
    }
}

/// What all tasks read.
struct Context<'a> {
    token: Token,
    saved: &'a AttentionSaved<'a>,
    shape: &'a AttentionShape,
    delta: &'a [f32],
    terms: &'a Terms<'a>,
    /// Which gradients of positions are wanted.
    wanted: [bool; 2],
    dropout: Option<Dropout<'a>>,
    keys: Transposed,
    values: Transposed,
}

fn task_gradients(context: &Context<'_>, task: &Task) -> Result<Gradients, KernelError> {
    let Context {
        saved,
        shape,
        terms,
        ..
    } = *context;
    let (d, n_rep) = (shape.head_dim, shape.n_rep());
    let (segment, head) = (&task.segment, task.head);
    let (group, block) = (n_rep * d, block_queries(shape));
    let mut gradients = Gradients {
        dq: vec![0.0; task.queries.len() * group],
        dk: vec![0.0; task.keys.len() * d],
        dv: vec![0.0; task.keys.len() * d],
        dbias: match terms.bias {
            Some(_) => vec![0.0; n_rep * (2 * segment.k_len - 1)],
            None => Vec::new(),
        },
        positions: PositionGradients::new(segment, d, context.wanted),
    };
    let rows = block.min(task.queries.len()) * n_rep;
    let mut queries = vec![0.0; rows * d];
    let mut douts = vec![0.0; rows * d];
    let mut lse_delta = vec![[0.0; 2]; rows];
    let mut probabilities = vec![0.0; rows * BLOCK_KEYS];
    let mut dscores = vec![0.0; rows * BLOCK_KEYS];
    let mut scratch = vec![0.0; terms.scratch(rows)];

    for first in task.queries.clone().step_by(block) {
        let tokens = block.min(task.queries.end - first);
        let rows = tokens * n_rep;
        let at = segment.q_start + first;
        let (queries, douts) = (&mut queries[..rows * d], &mut douts[..rows * d]);
        gather_heads(
            context.token,
            saved.q,
            shape,
            at..at + tokens,
            head,
            shape.scale,
            queries,
        );
        gather_heads(
            context.token,
            saved.dout,
            shape,
            at..at + tokens,
            head,
            1.0,
            douts,
        );
        let lse_delta = &mut lse_delta[..rows];
        for (row, lse_delta) in lse_delta.iter_mut().enumerate() {
            let index = (at + row / n_rep) * shape.n_heads + head * n_rep + row % n_rep;
            *lse_delta = [saved.lse[index], context.delta[index]];
        }
        let (queries, douts) = (
            MatRef::new(&*queries, rows, d)?,
            MatRef::new(&*douts, rows, d)?,
        );
        let k_start = shape.visible(segment, first).start / BLOCK_KEYS * BLOCK_KEYS;
        let k_end = shape.visible(segment, first + tokens - 1).end;
        let (k_start, k_end) = (k_start.max(task.keys.start), k_end.min(task.keys.end));
        for k_block in (k_start..k_end).step_by(BLOCK_KEYS) {
            let keys = BLOCK_KEYS.min(k_end - k_block);
            let at = (segment.k_start + k_block) * shape.kv_width() + head * d;
            let k = MatRef::with_strides(&saved.k[at..], keys, d, shape.kv_width(), 1)?;
            let (index, k_len) = (task.index, segment.k_len);
            let k_turned = context.keys.block(index, k_len, k_block, keys, head)?;
            let v_turned = context.values.block(index, k_len, k_block, keys, head)?;
            let p = &mut probabilities[..rows * keys];
            let ds = &mut dscores[..rows * keys];
            matmul_serial(MatMut::new(p, rows, keys)?, queries, k_turned, 1.0, 0.0)?;
            matmul_serial(MatMut::new(ds, rows, keys)?, douts, v_turned, 1.0, 0.0)?;
            let biased = BiasBlock {
                segment,
                head,
                query: first,
                key: k_block,
                keys,
            };
            if let Some(bias) = terms.bias {
                biased.apply(bias, shape, p);
            }
            if let Some(positions) = &terms.positions {
                positions.apply(&biased, shape, [queries, k_turned], &mut scratch, p)?;
            }
            let mask = Mask {
                shape: *shape,
                segment: *segment,
                first_query: first,
                k_block,
            };
            let masked = |values: &mut [f32]| {
                if let Some(dropout) = &context.dropout {
                    let block = Block {
                        segment,
                        index,
                        head,
                        query: first,
                        key: k_block,
                        keys,
                    };
                    dropout.apply(shape, block, values);
                }
            };
            masked(ds);
            probabilities_block(context.token, p, ds, lse_delta, mask);
            if terms.bias.is_some() {
                biased.collect(shape, ds, &mut gradients.dbias);
            }
            masked(p);
            let p = MatRef::new(&*p, rows, keys)?;
            let dscores = &*ds;
            let ds = MatRef::new(dscores, rows, keys)?;

            let own = (k_block - task.keys.start) * d..(k_block - task.keys.start + keys) * d;
            let dv = MatMut::new(&mut gradients.dv[own.clone()], keys, d)?;
            matmul_serial(dv, p.t(), douts, 1.0, 1.0)?;
            let dk = &mut gradients.dk[own];
            matmul_serial(MatMut::new(dk, keys, d)?, ds.t(), queries, 1.0, 1.0)?;
            let own = (first - task.queries.start) * group;
            let dq = &mut gradients.dq[own..][..tokens * group];
            matmul_serial(MatMut::new(dq, rows, d)?, ds, k, shape.scale, 1.0)?;
            if let Some(positions) = &terms.positions {
                let to = ([dq, dk], &mut gradients.positions);
                positions.collect(&biased, shape, [queries, k], &mut scratch, dscores, to)?;
            }
        }
    }
    Ok(gradients)
}

simd_entry!(fn probabilities_block<'a>(
    scores: &'a mut [f32], dscores: &'a mut [f32], lse_delta: &'a [[f32; 2]], mask: Mask
) = probabilities_block_generic);

/// Turns scores into probabilities, and gradients of probabilities into gradients of scores.
/// Masked columns become 0.
#[inline(always)]
fn probabilities_block_generic<S: Simd>(
    _: S,
    scores: &mut [f32],
    dscores: &mut [f32],
    lse_delta: &[[f32; 2]],
    mask: Mask,
) {
    let keys = scores.len() / lse_delta.len();
    let cap = mask.soft_cap();
    for (row, ((scores, dscores), &[lse, delta])) in scores
        .chunks_exact_mut(keys)
        .zip(dscores.chunks_exact_mut(keys))
        .zip(lse_delta)
        .enumerate()
    {
        let visible = mask.visible(row, keys);
        for x in [&mut *scores, &mut *dscores] {
            x[..visible.start].fill(0.0);
            x[visible.end..].fill(0.0);
        }
        let seen = scores[visible.clone()]
            .iter_mut()
            .zip(&mut dscores[visible]);
        if let Some(cap) = cap {
            for (score, dscore) in seen {
                let (value, slope) = cap.value_and_slope::<S>(*score);
                *score = exp_one::<S>(value - lse);
                *dscore = *score * slope * (*dscore - delta);
            }
        } else {
            for (score, dscore) in seen {
                *score = exp_one::<S>(*score - lse);
                *dscore = *score * (*dscore - delta);
            }
        }
    }
}

/// Overwrites a matrix of rows of `width` with sums of parts. A part is its first row, its group
/// of `group` columns, and its rows of that width; parts of the same rows are added in their order.
fn scatter<'a>(
    target: &mut [f32],
    width: usize,
    group: usize,
    parts: impl Iterator<Item = (usize, usize, &'a [f32])>,
) {
    let parts: Vec<_> = parts.collect();
    let rows = par::block_rows(width);
    target
        .par_chunks_mut(rows * width)
        .enumerate()
        .for_each(|(block, target)| {
            target.fill(0.0);
            let (start, end) = (block * rows, block * rows + target.len() / width);
            for &(first, column, part) in &parts {
                let from = start.max(first);
                let to = end.min(first + part.len() / group);
                for row in from..to {
                    let target = &mut target[(row - start) * width + column * group..][..group];
                    vector::add(&part[(row - first) * group..][..group], target);
                }
            }
        });
}
