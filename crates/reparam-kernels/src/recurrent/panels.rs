//! The recurrent weight in the order in which its products read it, and those products.

use rayon::prelude::*;

use crate::isa::{LANES, PairSimd, Token, simd_entry};

/// The numbers of one group, a line of the cache.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Lanes(pub(super) [f32; LANES]);

impl Lanes {
    pub(super) const ZERO: Self = Self([0.0; LANES]);
}

/// Rows of a tile at most.
pub(super) const MAX_ROWS: usize = 8;

/// Sums of a tile at most, one for each row and group of columns.
pub(super) const MAX_SUMS: usize = 24;

/// How many registers an instruction set has for sums, as the shape of its tiles.
#[derive(Debug, Clone, Copy)]
struct Tiles {
    /// Whether a tile has several groups of columns.
    wide: bool,
    /// Rows of a tile of one group.
    narrow_rows: usize,
}

simd_entry!(fn tiles() -> Tiles = tiles_generic);

#[inline(always)]
fn tiles_generic<S: PairSimd>(_: S) -> Tiles {
    Tiles {
        wide: S::PANELS > 1,
        // Of AVX2 twelve registers of sixteen hold sums; the numbers of four fill those of SSE.
        narrow_rows: if S::ROWS > 2 { 6 } else { 2 },
    }
}

/// A right factor `[depth, gates x units]` in blocks. A block has the columns of all gates for some
/// groups of [`LANES`] units, so that whoever has its sums can compute these units; columns beyond
/// the last unit are zero.
///
/// A block is one panel or, where there are few registers, one for each gate. A panel has `width`
/// groups of columns: `[depth][width]` lines.
#[derive(Debug)]
pub(super) struct Panels {
    lines: Vec<Lanes>,
    depth: usize,
    width: usize,
    /// Panels of a block.
    panels: usize,
    /// Groups of units of a block.
    groups: usize,
    gates: usize,
    units: usize,
    /// Rows of a tile at most.
    pub(super) rows: usize,
}

impl Panels {
    /// The recurrent weight `w[gates x units, units]` as the right factor of `h W'`: `depth` is
    /// `units`.
    pub(super) fn transposed(token: Token, w: &[f32], gates: usize, units: usize) -> Self {
        let mut panels = Self::zero(token, units, gates, units);
        panels.fill(|column, to, width| {
            let Column { gate, first, len } = column;
            // The rows of a square of the weight stay in the first cache while it is turned.
            for start in (0..units).step_by(LANES) {
                let depth = LANES.min(units - start);
                for lane in 0..len {
                    let row = &w[(gate * units + first + lane) * units + start..][..depth];
                    for (k, x) in row.iter().enumerate() {
                        to[(start + k) * width].0[lane] = *x;
                    }
                }
            }
        });
        panels
    }

    /// The recurrent weight `w[depth, units]` as the right factor of `g W`.
    pub(super) fn plain(token: Token, w: &[f32], depth: usize, units: usize) -> Self {
        let mut panels = Self::zero(token, depth, 1, units);
        panels.fill(|column, to, width| {
            let Column { first, len, .. } = column;
            for (k, row) in w.chunks_exact(units).enumerate() {
                to[k * width].0[..len].copy_from_slice(&row[first..][..len]);
            }
        });
        panels
    }

    /// One row of the columns of [`Self::transposed`], such as a bias.
    pub(super) fn row(&self, row: &[f32], units: usize) -> Vec<Lanes> {
        let mut lines = vec![Lanes::ZERO; self.blocks() * self.gates * self.groups];
        for (i, line) in lines.iter_mut().enumerate() {
            let (gate, group) = (i / self.groups % self.gates, i % self.groups);
            let group = i / (self.gates * self.groups) * self.groups + group;
            let first = units.min(group * LANES);
            let len = LANES.min(units - first);
            line.0[..len].copy_from_slice(&row[gate * units + first..][..len]);
        }
        lines
    }

    fn zero(token: Token, depth: usize, gates: usize, units: usize) -> Self {
        let tiles = tiles(token);
        let (width, panels, groups, rows) = match (tiles.wide, gates) {
            (true, 1) => (4, 1, 4, 6),
            (true, 3) => (3, 1, 1, 8),
            (true, _) => (4, 1, 1, 6),
            (false, _) => (1, gates, 1, tiles.narrow_rows),
        };
        let blocks = units.div_ceil(groups * LANES);
        Self {
            lines: vec![Lanes::ZERO; blocks * panels * depth * width],
            depth,
            width,
            panels,
            groups,
            gates,
            units,
            rows,
        }
    }

    /// Writes each group of columns; `fill` is given its lines from the first on, `width` apart.
    fn fill(&mut self, fill: impl Fn(Column, &mut [Lanes], usize) + Send + Sync) {
        let (width, units, groups) = (self.width, self.units, self.groups);
        let panel = self.depth * width;
        if panel == 0 {
            return;
        }
        let blocks = self.lines.par_chunks_mut(self.panels * panel).enumerate();
        blocks.for_each(|(block, lines)| {
            for (at, lines) in lines.chunks_exact_mut(panel).enumerate() {
                for i in 0..width {
                    let (gate, group) = ((at * width + i) / groups, (at * width + i) % groups);
                    let first = units.min((block * groups + group) * LANES);
                    let len = LANES.min(units - first);
                    fill(Column { gate, first, len }, &mut lines[i..], width);
                }
            }
        });
    }

    pub(super) fn blocks(&self) -> usize {
        self.units.div_ceil(self.groups * LANES)
    }

    /// Groups of units of a block.
    pub(super) fn groups(&self) -> usize {
        self.groups
    }

    /// Bytes that all blocks take.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.lines[..])
    }

    /// Where the sums of one of `rows` rows lie, for a gate and a group of units of the block.
    #[inline(always)]
    pub(super) fn sum(&self, rows: usize, row: usize, gate: usize, group: usize) -> usize {
        let column = gate * self.groups + group;
        let (panel, column) = (column / self.width, column % self.width);
        (panel * rows + row) * self.width + column
    }

    /// Adds the products of some rows with a block to their sums, from row `depth` of the block on.
    pub(super) fn add(
        &self,
        token: Token,
        block: usize,
        depth: usize,
        rows: &[&[f32]],
        sums: &mut [Lanes],
    ) {
        let panel = self.depth * self.width;
        let lines = &self.lines[block * self.panels * panel..][..self.panels * panel];
        let sums = sums.chunks_exact_mut(rows.len() * self.width);
        for (panel, sums) in lines.chunks_exact(panel.max(1)).zip(sums) {
            let panel = &panel[depth * self.width..][..rows[0].len() * self.width];
            add_products(token, self.width, panel, rows, sums);
        }
    }
}

/// A group of columns: those of some units of a gate.
#[derive(Debug, Clone, Copy)]
struct Column {
    gate: usize,
    first: usize,
    len: usize,
}

simd_entry!(fn add_products<'a>(
    width: usize, panel: &'a [Lanes], rows: &'a [&'a [f32]], sums: &'a mut [Lanes]
) = add_products_generic);

#[inline(always)]
fn add_products_generic<S: PairSimd>(
    simd: S,
    width: usize,
    panel: &[Lanes],
    rows: &[&[f32]],
    sums: &mut [Lanes],
) {
    macro_rules! tile {
        ($($rows:literal)+ by $width:literal) => {
            match rows.len() {
                $($rows => add_tile::<S, $rows, $width>(simd, panel, rows, sums),)+
                more => unreachable!("a tile of {more} rows"),
            }
        };
    }
    if S::PANELS == 1 {
        tile!(1 2 3 4 5 6 by 1);
    } else if width == 3 {
        tile!(1 2 3 4 5 6 7 8 by 3);
    } else {
        tile!(1 2 3 4 5 6 by 4);
    }
}

/// The sums are in registers meanwhile. Each is added up in the order of the depth, so that it does
/// not matter which rows share a tile.
#[inline(always)]
fn add_tile<S: PairSimd, const R: usize, const W: usize>(
    simd: S,
    panel: &[Lanes],
    rows: &[&[f32]],
    sums: &mut [Lanes],
) {
    let lines = panel.as_chunks::<W>().0;
    let depth = lines.len();
    let mut numbers: [&[f32]; R] = [&[]; R];
    for (numbers, row) in numbers.iter_mut().zip(rows) {
        *numbers = &row[..depth];
    }
    let sums = sums.as_chunks_mut::<W>().0;
    let mut acc = [[simd.splat(0.0); W]; R];
    for (acc, sums) in acc.iter_mut().zip(&*sums) {
        for (acc, sum) in acc.iter_mut().zip(sums) {
            *acc = simd.load(&sum.0);
        }
    }
    for (k, line) in lines.iter().enumerate() {
        let mut columns = [simd.splat(0.0); W];
        for (column, lanes) in columns.iter_mut().zip(line) {
            *column = simd.load(&lanes.0);
        }
        for (acc, numbers) in acc.iter_mut().zip(&numbers) {
            let number = simd.splat(numbers[k]);
            for (acc, column) in acc.iter_mut().zip(&columns) {
                *acc = simd.mul_add_lanes(number, *column, *acc);
            }
        }
    }
    for (acc, sums) in acc.iter().zip(sums) {
        for (acc, sum) in acc.iter().zip(sums) {
            simd.store(*acc, &mut sum.0);
        }
    }
}
