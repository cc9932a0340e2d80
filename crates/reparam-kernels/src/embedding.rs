//! Rows of a table, looked up by token id.

use rayon::prelude::*;

use crate::error::check_len;
use crate::number::Number;
use crate::packed::PackedWeight;
use crate::par::{self, block_rows};
use crate::vector;
use crate::{Bf16, KernelError};

/// `out_n = table_{ids_n}`
///
/// # Shapes
///
/// `ids[N]`, `table[V, d]`, `out[N, d]`.
///
/// # Errors
///
/// [`KernelError::TokenId`] for an id that is not below `V`, before anything is written;
/// [`KernelError::Length`]; [`KernelError::Zero`] if `d` is zero.
pub fn embedding_forward(
    ids: &[u32],
    table: &[f32],
    d: usize,
    out: &mut [f32],
) -> Result<(), KernelError> {
    check_table(ids, table, d)?;
    check_len("out", out, &[ids.len(), d])?;
    let rows = block_rows(d);
    out.par_chunks_mut(rows * d)
        .zip(ids.par_chunks(rows))
        .for_each(|(out, ids)| {
            for (out, &id) in out.chunks_exact_mut(d).zip(ids) {
                out.copy_from_slice(&table[id as usize * d..][..d]);
            }
        });
    Ok(())
}

/// `out_n = table_{ids_n}`, exactly, for a table that is packed for products because it is also the
/// output layer.
///
/// # Shapes
///
/// `ids[N]`, `table[V, d]`, `out[N, d]`.
///
/// # Errors
///
/// Those of [`embedding_forward`].
///
/// # Cost
///
/// The pairs of a row lie in different lines of the cache, so `32 d` bytes are read for a token, and
/// one row of `d` bf16 numbers is allocated for each block of about `16384 / d` tokens.
pub fn embedding_packed<T: Number>(
    ids: &[u32],
    table: &PackedWeight,
    out: &mut [T],
) -> Result<(), KernelError> {
    let d = table.cols();
    if d == 0 {
        return Err(KernelError::Zero { name: "d" });
    }
    check_ids(ids, table.rows())?;
    check_len("out", out, &[ids.len(), d])?;
    let rows = block_rows(d);
    out.par_chunks_mut(rows * d)
        .zip(ids.par_chunks(rows))
        .try_for_each(|(out, ids)| {
            let mut row = vec![Bf16::ZERO; d];
            for (out, &id) in out.chunks_exact_mut(d).zip(ids) {
                table.read_row(id as usize, &mut row)?;
                for (out, &x) in out.iter_mut().zip(&row) {
                    *out = T::from_bf16(x);
                }
            }
            Ok(())
        })
}

/// The gradient of [`embedding_forward`]: adds `dout_n` to row `ids_n` of `dtable`, for all `n`.
///
/// It adds, so that a table that is also the output layer can collect both gradients.
///
/// # Shapes
///
/// `dout[N, d]`, `ids[N]`, `dtable[V, d]`.
///
/// # Numerics
///
/// The gradients of one row are added in the order of the tokens.
///
/// # Errors
///
/// Those of [`embedding_forward`].
///
/// # Cost
///
/// Sorts the `N` positions by id; touches only the rows that occur.
pub fn embedding_backward(
    dout: &[f32],
    ids: &[u32],
    d: usize,
    dtable: &mut [f32],
) -> Result<(), KernelError> {
    check_table(ids, dtable, d)?;
    check_len("dout", dout, &[ids.len(), d])?;
    let mut positions: Vec<usize> = (0..ids.len()).collect();
    positions.sort_by_key(|&position| ids[position]);

    // Each task owns the rows of its tokens: the table is cut before the first of them.
    let mut tasks = Vec::new();
    let (mut rest, mut rest_start) = (dtable, 0);
    let mut remaining = positions.as_slice();
    let task_tokens = block_rows(d);
    while !remaining.is_empty() {
        let mut len = task_tokens.min(remaining.len());
        // A row must not be cut between two tasks.
        let last = ids[remaining[len - 1]];
        len += remaining[len..]
            .iter()
            .take_while(|&&position| ids[position] == last)
            .count();
        let (task, later) = remaining.split_at(len);
        remaining = later;
        let first = ids[task[0]] as usize;
        let (_, from_first) = rest.split_at_mut((first - rest_start) * d);
        let (rows, later) = from_first.split_at_mut((last as usize + 1 - first) * d);
        (rest, rest_start) = (later, last as usize + 1);
        tasks.push((rows, first, task));
    }
    par::for_each(tasks, |(rows, first, task)| {
        for &position in task {
            let row = ids[position] as usize - first;
            vector::add(&dout[position * d..][..d], &mut rows[row * d..][..d]);
        }
    });
    Ok(())
}

fn check_table(ids: &[u32], table: &[f32], d: usize) -> Result<(), KernelError> {
    if d == 0 {
        return Err(KernelError::Zero { name: "d" });
    }
    let vocabulary = table.len() / d;
    check_len("table", table, &[vocabulary, d])?;
    check_ids(ids, vocabulary)
}

fn check_ids(ids: &[u32], vocabulary: usize) -> Result<(), KernelError> {
    match ids.iter().position(|&id| id as usize >= vocabulary) {
        None => Ok(()),
        Some(position) => Err(KernelError::TokenId {
            position,
            id: ids[position],
            vocabulary,
        }),
    }
}
