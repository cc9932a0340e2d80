//! Tile registers: the model against the definition, and the instructions against the model.

use super::*;
use crate::isa::Token;
use crate::isa::tiles::{EmulatedTiles, Tiles};

/// 16 rows of 32 numbers, and the same with strides.
struct Operands {
    sums: [[f32; 16]; 16],
    left: [[Bf16; 40]; 16],
    right: [[Bf16; 32]; 16],
}

impl Operands {
    fn new(seed: u64) -> Self {
        let mut operands = Self {
            sums: [[0.0; 16]; 16],
            left: [[Bf16::from_f32(f32::NAN); 40]; 16],
            right: [[Bf16::ZERO; 32]; 16],
        };
        for i in 0..16 {
            let at = seed + 3 * i as u64;
            operands.sums[i].copy_from_slice(&numbers(at, 16));
            operands.left[i][..32].copy_from_slice(&bf16(at + 1, 32));
            operands.right[i].copy_from_slice(&bf16(at + 2, 32));
        }
        operands
    }

    /// `sums += left right` with registers 2, 4 and 7.
    #[expect(unsafe_code, reason = "tiles are loaded from addresses")]
    fn run(&self, mut tiles: impl Tiles) -> [[f32; 16]; 16] {
        let mut sums = self.sums;
        // SAFETY: the arrays hold 16 rows of at least 64 bytes with these strides.
        unsafe {
            tiles.load::<2>(sums.as_ptr().cast(), 64);
            tiles.load::<4>(self.left.as_ptr().cast(), 80);
            tiles.load::<7>(self.right.as_ptr().cast(), 64);
            tiles.dot::<2, 4, 7>();
            tiles.store::<2>(sums.as_mut_ptr().cast(), 64);
        }
        sums
    }

    fn expected(&self, row: usize, col: usize) -> f64 {
        let terms = (0..32).map(|k| {
            let right = self.right[k / 2][2 * col + k % 2];
            f64::from(self.left[row][k].to_f32()) * f64::from(right.to_f32())
        });
        f64::from(self.sums[row][col]) + terms.sum::<f64>()
    }
}

#[test]
fn a_product_of_tiles_is_that_of_matrices_of_pairs() {
    for seed in 0..20 {
        let operands = Operands::new(100 * seed);
        let sums = operands.run(EmulatedTiles::new());
        for (row, sums) in sums.iter().enumerate() {
            for (col, sum) in sums.iter().enumerate() {
                let error = (f64::from(*sum) - operands.expected(row, col)).abs();
                assert!(error <= 16.0 * f64::from(f32::EPSILON), "{error:e}");
            }
        }
    }
}

/// Products of the first and of the second numbers are summed apart.
#[test]
fn the_order_of_the_sums_is_that_of_the_manual() {
    let mut operands = Operands::new(1);
    operands.left[0] = [Bf16::ZERO; 40];
    operands.right = [[Bf16::ONE; 32]; 16];
    operands.sums[0] = [0.0; 16];
    let great = 2.0_f32.powi(25);
    // First numbers 2^25 and 1, second numbers -2^25 and 1: each 1 is lost beside 2^24. In order the
    // second 1 would be left.
    for (at, x) in [great, -great, 1.0, 1.0].into_iter().enumerate() {
        operands.left[0][at] = Bf16::from_f32(x);
    }
    assert_eq!(operands.run(EmulatedTiles::new())[0], [0.0; 16]);
    // The old sum comes last: small terms are added up before they meet it.
    operands.left[0] = [Bf16::ONE; 40];
    operands.sums[0] = [great; 16];
    assert_eq!(operands.run(EmulatedTiles::new())[0], [great + 32.0; 16]);
}

#[test]
fn subnormal_numbers_are_zero() {
    let tiny = f32::MIN_POSITIVE / 4.0;
    let mut operands = Operands::new(1);
    operands.left[0] = [Bf16::from_f32(tiny); 40];
    operands.right = [[Bf16::from_f32(2.0_f32.powi(20)); 32]; 16];
    operands.sums[0] = [tiny; 16];
    assert_eq!(operands.run(EmulatedTiles::new())[0], [0.0; 16]);
    // A product that becomes subnormal.
    operands.left[0] = [Bf16::from_f32(f32::MIN_POSITIVE); 40];
    operands.right = [[Bf16::from_f32(1.0 / 1024.0); 32]; 16];
    assert_eq!(operands.run(EmulatedTiles::new())[0], [0.0; 16]);
}

#[test]
fn zeroing_a_tile_leaves_the_others() {
    let operands = Operands::new(5);
    let mut tiles = EmulatedTiles::new();
    let mut out = [[7.0_f32; 16]; 16];
    #[expect(unsafe_code, reason = "tiles are loaded from addresses")]
    // SAFETY: the arrays hold 16 rows of 64 bytes.
    unsafe {
        tiles.load::<0>(operands.sums.as_ptr().cast(), 64);
        tiles.load::<1>(operands.sums.as_ptr().cast(), 64);
        tiles.zero::<1>();
        tiles.store::<0>(out.as_mut_ptr().cast(), 64);
        assert_eq!(out, operands.sums);
        tiles.store::<1>(out.as_mut_ptr().cast(), 64);
    }
    assert_eq!(out, [[0.0; 16]; 16]);
}

/// Bit by bit, where the machine has them.
#[test]
fn the_instructions_compute_what_the_model_does() {
    #[cfg(target_arch = "x86_64")]
    if let Some(Token::AmxBf16(amx)) = Isa::AmxBf16.token() {
        for seed in 0..50 {
            let mut operands = Operands::new(100 * seed);
            if seed % 2 == 1 {
                // Among them numbers near the least normal one.
                for row in &mut operands.left {
                    for x in &mut row[..32] {
                        *x = Bf16::from_f32(x.to_f32() * 4.0 * f32::MIN_POSITIVE);
                    }
                }
                operands.sums = [[f32::MIN_POSITIVE / 2.0; 16]; 16];
            }
            let bits = |sums: [[f32; 16]; 16]| sums.map(|row| row.map(f32::to_bits));
            let model = bits(operands.run(EmulatedTiles::new()));
            assert_eq!(bits(operands.run(amx.tiles())), model, "{seed}");
        }
    }
}
