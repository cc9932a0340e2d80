//! Which rows and units are computed when, and by whom.

use std::ops::Range;

use crate::isa::LANES;
use crate::{par, team};

/// A sequence of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sequence {
    /// Position in the batch, the row of its states.
    pub(super) index: usize,
    /// Its first token.
    pub(super) start: usize,
    /// Its tokens.
    pub(super) len: usize,
    /// Whether it is run through from its end.
    pub(super) reverse: bool,
}

impl Sequence {
    /// The sequences of a batch, the longest first, so that those that still go on at some step are
    /// the first ones.
    pub(super) fn sorted(bounds: &[usize], reverse: bool) -> Vec<Self> {
        let mut all: Vec<_> = bounds
            .windows(2)
            .enumerate()
            .map(|(index, pair)| Self {
                index,
                start: pair[0],
                len: pair[1] - pair[0],
                reverse,
            })
            .collect();
        all.sort_by_key(|sequence| std::cmp::Reverse(sequence.len));
        all
    }

    /// The token of step `step`, which counts from 1 to the length.
    #[inline(always)]
    pub(super) fn token(&self, step: usize) -> usize {
        if self.reverse {
            self.start + self.len - step
        } else {
            self.start + step - 1
        }
    }
}

/// Rows, a step and a block that belong to one task alone.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) rows: &'a [Sequence],
    pub(super) step: usize,
    pub(super) block: usize,
    /// Nobody but [`Part::new`] can make one.
    _promised: (),
}

impl<'a> Part<'a> {
    /// # Safety
    ///
    /// As long as the value exists nobody else may use what these rows write of this block at this
    /// step: what belongs to their tokens, and to their states so far.
    #[expect(unsafe_code, reason = "a promise of whoever splits the work")]
    pub(super) unsafe fn new(rows: &'a [Sequence], step: usize, block: usize) -> Self {
        Self {
            rows,
            step,
            block,
            _promised: (),
        }
    }
}

/// The units of a group of [`LANES`], of which there may be none.
pub(super) fn units_of(group: usize, units: usize) -> Range<usize> {
    units.min(group * LANES)..units.min((group + 1) * LANES)
}

/// The direction in which steps follow one another.
#[derive(Debug, Clone, Copy)]
pub(super) enum Direction {
    /// From 1 to the length of the longest sequence.
    Forward,
    /// The same from the end, and at last step 0, which all sequences with a token have.
    Backward,
}

impl Direction {
    fn steps(self, longest: usize) -> impl Iterator<Item = usize> {
        let count = match self {
            Self::Forward => longest,
            Self::Backward => longest + 1,
        };
        (0..count).map(move |i| match self {
            Self::Forward => i + 1,
            Self::Backward => longest - i,
        })
    }
}

/// The sequences that take part in a step, of `sequences` from the longest on.
fn alive(sequences: &[Sequence], step: usize) -> &[Sequence] {
    &sequences[..sequences.partition_point(|sequence| sequence.len >= step.max(1))]
}

/// A thread that has sequences of its own should have at least so many: each step reads the whole
/// weight for them.
const ROWS_OF_A_THREAD: usize = 8;

/// Bytes of a weight that a thread can read again at each step: they fit into the second cache of
/// a core.
const WEIGHT_BYTES: usize = 3 << 19;

/// Products of two numbers of a step from which on it pays to share it, some twenty microseconds.
const SHARED_PRODUCTS: usize = 1 << 20;

/// What a step costs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Blocks of units.
    pub(super) blocks: usize,
    /// Bytes of the weight.
    pub(super) bytes: usize,
    /// Rows of a tile.
    pub(super) tile_rows: usize,
}

/// Calls `run(rows, step, blocks)` for all steps in their order, for each step for all rows and
/// blocks. What one step writes the next one of the same rows may read.
///
/// With many sequences each thread has some of its own and never waits for another. With few, or
/// a weight that no core can keep, the threads share each step. The result of an element depends on
/// neither.
pub(super) fn run(
    sequences: &[Sequence],
    direction: Direction,
    cost: Cost,
    run: impl Fn(&[Sequence], usize, Range<usize>) + Send + Sync,
) {
    let threads = rayon::current_num_threads();
    let longest = sequences.first().map_or(0, |sequence| sequence.len);
    let steps = || direction.steps(longest);
    let products = sequences.len() * (cost.bytes / size_of::<f32>());
    let apart = sequences.len() >= threads * ROWS_OF_A_THREAD && cost.bytes <= WEIGHT_BYTES;
    if threads > 1 && !apart && products >= SHARED_PRODUCTS {
        team::with_team(|| {
            for step in steps() {
                let rows = alive(sequences, step);
                if rows.is_empty() {
                    continue;
                }
                // The longest sequences are left alone at last.
                if rows.len() * (cost.bytes / size_of::<f32>()) < SHARED_PRODUCTS {
                    run(rows, step, 0..cost.blocks);
                    continue;
                }
                share(rows, threads, cost, |rows, blocks| run(rows, step, blocks));
            }
        });
        return;
    }
    let groups = threads.min(sequences.len() / ROWS_OF_A_THREAD).max(1);
    par::for_each(deal(sequences, groups), |sequences| {
        for step in steps() {
            let rows = alive(&sequences, step);
            if !rows.is_empty() {
                run(rows, step, 0..cost.blocks);
            }
        }
    });
}

/// Deals sequences like cards, there and back, so that all groups get as many tokens.
fn deal(sequences: &[Sequence], groups: usize) -> Vec<Vec<Sequence>> {
    let mut dealt = vec![Vec::new(); groups];
    for (i, sequence) in sequences.iter().enumerate() {
        let (round, at) = (i / groups, i % groups);
        let group = if round % 2 == 0 { at } else { groups - 1 - at };
        dealt[group].push(*sequence);
    }
    dealt
}

/// One step as tasks of some blocks and, if there are few blocks, some of the rows.
fn share(
    rows: &[Sequence],
    threads: usize,
    cost: Cost,
    run: impl Fn(&[Sequence], Range<usize>) + Send + Sync,
) {
    let tiles = rows.len().div_ceil(cost.tile_rows);
    let parts = (2 * threads).div_ceil(cost.blocks.max(1)).min(tiles);
    let parts: Vec<_> = even(rows.len(), parts).collect();
    par::for_each_index(parts.len() * cost.blocks, |task| {
        let (block, part) = (task / parts.len(), task % parts.len());
        run(&rows[parts[part].clone()], block..block + 1);
    });
}

/// Divides `len` into `parts` ranges whose lengths differ by one at most.
pub(super) fn even(len: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    (0..parts).map(move |i| i * len / parts..(i + 1) * len / parts)
}
