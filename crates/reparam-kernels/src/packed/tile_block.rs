//! One task with tile registers: two by two tiles of 16 rows and 16 columns.

use super::block::{Job, Part};
use super::left::{Left, TILE_ROWS, gather_padded, numbers};
use super::right::Panels;
use super::tile::Sums;
use crate::isa::tiles::Tiles;
use crate::isa::{Kernel, LANES, Line, PairSimd, Token};

/// Pairs of the summed index that one instruction multiplies.
const STEP: usize = 16;

/// Rows and panels at a time; each of the four sums is one register, as are both factors of each.
const ROW_TILES: usize = 2;
const PANELS: usize = 2;

/// Computes `part` of the output of `job`, with buffers for the left factors.
pub(super) fn run_tile_block<T: Tiles>(
    token: Token,
    tiles: T,
    job: &Job<'_>,
    part: &Part,
    buffer: &mut [Line],
    low_rank_buffer: &mut [Line],
) {
    token.dispatch(Call {
        tiles,
        job,
        part,
        buffer,
        low_rank_buffer,
    });
}

struct Call<'a, T> {
    tiles: T,
    job: &'a Job<'a>,
    part: &'a Part,
    buffer: &'a mut [Line],
    low_rank_buffer: &'a mut [Line],
}

impl<T: Tiles> Kernel for Call<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: PairSimd>(self, simd: S) {
        let Self { job, part, .. } = self;
        let rows = part.rows();
        let main = Factors {
            left: gather_padded(&job.left, rows.clone(), numbers(self.buffer)),
            right: job.right,
        };
        let low_rank = job.low_rank.as_ref().map(|low_rank| {
            let buffer = numbers(self.low_rank_buffer);
            let factors = Factors {
                left: gather_padded(&low_rank.left, rows.clone(), buffer),
                right: low_rank.right,
            };
            (factors, low_rank.scaling)
        });
        let row_tiles = rows.len().div_ceil(TILE_ROWS);
        let mut block = Block {
            tiles: self.tiles,
            job,
            part,
            main,
            low_rank,
            sums: [Sums::ZERO; TILE_ROWS * ROW_TILES * PANELS],
        };
        let panels = part.panels();
        for panel in panels.clone().step_by(PANELS) {
            for tile in (0..row_tiles).step_by(ROW_TILES) {
                match (row_tiles - tile, panels.end - panel) {
                    (1, 1) => block.run::<S, 1, 1>(simd, tile, panel),
                    (1, _) => block.run::<S, 1, 2>(simd, tile, panel),
                    (_, 1) => block.run::<S, 2, 1>(simd, tile, panel),
                    (_, _) => block.run::<S, 2, 2>(simd, tile, panel),
                }
            }
        }
    }
}

/// The factors of a product.
struct Factors<'a> {
    left: Left<'a>,
    right: Panels<'a>,
}

struct Block<'a, T> {
    tiles: T,
    job: &'a Job<'a>,
    part: &'a Part,
    main: Factors<'a>,
    low_rank: Option<(Factors<'a>, f32)>,
    /// Of each row and panel, [`PANELS`] of a row next to one another.
    sums: [Sums; TILE_ROWS * ROW_TILES * PANELS],
}

impl<T: Tiles> Block<'_, T> {
    /// `R` tiles of rows and `P` panels of the output.
    #[inline(always)]
    fn run<S: PairSimd, const R: usize, const P: usize>(
        &mut self,
        simd: S,
        tile: usize,
        panel: usize,
    ) {
        let first_row = self.part.rows().start + tile * TILE_ROWS;
        let rows = first_row..self.part.rows().end.min(first_row + R * TILE_ROWS);
        let first_col = self.job.first_col + panel * LANES;
        for row in rows.clone() {
            self.job.finish.ask(simd, row, first_col, P);
        }
        self.tiles.zero::<0>();
        self.tiles.zero::<1>();
        self.tiles.zero::<2>();
        self.tiles.zero::<3>();
        if let Some((factors, scaling)) = &self.low_rank {
            add::<T, R, P>(&mut self.tiles, factors, tile, panel);
            store(&mut self.tiles, &mut self.sums);
            let scaling = simd.splat(*scaling);
            for sums in &mut self.sums {
                let scaled = simd.mul(simd.load(&sums.0), scaling);
                simd.store(scaled, &mut sums.0);
            }
            load(&mut self.tiles, &self.sums);
        }
        add::<T, R, P>(&mut self.tiles, &self.main, tile, panel);
        store(&mut self.tiles, &mut self.sums);
        for (row, sums) in rows.zip(self.sums.chunks_exact(PANELS)) {
            for (j, sums) in sums[..P].iter().enumerate() {
                // SAFETY: `part` is the promise that nobody else uses these rows and panels.
                #[expect(unsafe_code, reason = "writing a part of a shared output")]
                unsafe {
                    self.job
                        .finish
                        .write(simd, row, first_col + j * LANES, &sums.0);
                }
            }
        }
    }
}

/// Adds the products of all pairs to the sums in tiles 0 to 3.
#[inline(always)]
fn add<T: Tiles, const R: usize, const P: usize>(
    tiles: &mut T,
    factors: &Factors<'_>,
    tile: usize,
    panel: usize,
) {
    let pairs = factors.right.pairs;
    if pairs == 0 {
        return;
    }
    let lines = factors.right.range(panel, panel + P);
    let left: [_; R] = std::array::from_fn(|i| factors.left.tile(tile + i));
    let (whole, rest) = (pairs / STEP, pairs % STEP);
    // The columns of the left factor are completed with zeros.
    let steps = pairs.div_ceil(STEP);
    for left in &left {
        assert!((TILE_ROWS - 1) * left.row_stride + 2 * STEP * steps <= left.numbers.len());
    }
    let left_at = |i: usize, step: usize| {
        let at = left[i].numbers.as_ptr().wrapping_add(2 * STEP * step);
        (at.cast::<u8>(), 2 * left[i].row_stride)
    };
    for step in 0..whole {
        let right = |j: usize| lines[j * pairs + STEP * step..][..STEP].as_ptr();
        // SAFETY: the rows of the left tile end below the length that was asserted for all steps; the
        // lines of the right tile were just cut out of the panel.
        #[expect(unsafe_code, reason = "tiles are loaded from an address")]
        unsafe {
            step_tiles::<T, R, P>(tiles, |i| left_at(i, step), |j| right(j).cast());
        }
    }
    if rest > 0 {
        // What follows in memory are other columns, whose infinity times zero would not be zero.
        let mut last = [[Line::ZERO; STEP]; P];
        for (j, last) in last.iter_mut().enumerate() {
            last[..rest].copy_from_slice(&lines[j * pairs + STEP * whole..][..rest]);
        }
        // SAFETY: as above; `last` holds whole tiles.
        #[expect(unsafe_code, reason = "tiles are loaded from an address")]
        unsafe {
            step_tiles::<T, R, P>(tiles, |i| left_at(i, whole), |j| last[j].as_ptr().cast());
        }
    }
}

/// Adds one product of each pair of tiles; `left` gives the address and the stride of a tile, `right`
/// that of a tile whose rows are lines.
///
/// # Safety
///
/// All rows of the tiles can be read.
#[inline(always)]
#[expect(unsafe_code, reason = "tiles are loaded from an address")]
unsafe fn step_tiles<T: Tiles, const R: usize, const P: usize>(
    tiles: &mut T,
    left: impl Fn(usize) -> (*const u8, usize),
    right: impl Fn(usize) -> *const u8,
) {
    // SAFETY: the promise of the caller.
    unsafe {
        let (at, stride) = left(0);
        tiles.load::<4>(at, stride);
        tiles.load::<6>(right(0), size_of::<Line>());
        tiles.dot::<0, 4, 6>();
        if P > 1 {
            tiles.load::<7>(right(1), size_of::<Line>());
            tiles.dot::<1, 4, 7>();
        }
        if R > 1 {
            let (at, stride) = left(1);
            tiles.load::<5>(at, stride);
            tiles.dot::<2, 5, 6>();
            if P > 1 {
                tiles.dot::<3, 5, 7>();
            }
        }
    }
}

/// Bytes between the sums of two rows.
const SUMS_STRIDE: usize = PANELS * size_of::<Sums>();

/// The first sums of each tile.
const FIRST_SUMS: [usize; 4] = [0, 1, PANELS * TILE_ROWS, PANELS * TILE_ROWS + 1];

#[inline(always)]
#[expect(unsafe_code, reason = "tiles are stored to an address")]
fn store<T: Tiles>(tiles: &mut T, sums: &mut [Sums; TILE_ROWS * ROW_TILES * PANELS]) {
    let at = |tile: usize, sums: &mut [Sums]| sums[FIRST_SUMS[tile]..].as_mut_ptr().cast::<u8>();
    // SAFETY: the array holds the rows of all four tiles.
    unsafe {
        tiles.store::<0>(at(0, sums), SUMS_STRIDE);
        tiles.store::<1>(at(1, sums), SUMS_STRIDE);
        tiles.store::<2>(at(2, sums), SUMS_STRIDE);
        tiles.store::<3>(at(3, sums), SUMS_STRIDE);
    }
}

#[inline(always)]
#[expect(unsafe_code, reason = "tiles are loaded from an address")]
fn load<T: Tiles>(tiles: &mut T, sums: &[Sums; TILE_ROWS * ROW_TILES * PANELS]) {
    let at = |tile: usize| sums[FIRST_SUMS[tile]..].as_ptr().cast::<u8>();
    // SAFETY: the array holds the rows of all four tiles.
    unsafe {
        tiles.load::<0>(at(0), SUMS_STRIDE);
        tiles.load::<1>(at(1), SUMS_STRIDE);
        tiles.load::<2>(at(2), SUMS_STRIDE);
        tiles.load::<3>(at(3), SUMS_STRIDE);
    }
}
