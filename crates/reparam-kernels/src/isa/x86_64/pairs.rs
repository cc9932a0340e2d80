//! Pairs of bf16 numbers: one instruction with AVX-512 BF16, else two multiply-adds of numbers made
//! wide by a shift and a mask.

use std::arch::x86_64::{
    __m256, __m256bh, __m256i, __m512, __m512bh, __m512i, _CMP_UNORD_Q, _MM_HINT_T1,
    _mm_loadu_si128, _mm_prefetch, _mm_storeu_si128, _mm256_add_epi32, _mm256_and_si256,
    _mm256_blendv_epi8, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_castsi256_si128,
    _mm256_cmp_ps, _mm256_cvtepu16_epi32, _mm256_fmadd_ps, _mm256_load_si256, _mm256_loadu_si256,
    _mm256_or_si256, _mm256_packus_epi32, _mm256_permute4x64_epi64, _mm256_set1_epi32,
    _mm256_slli_epi32, _mm256_srli_epi32, _mm256_store_si256, _mm256_storeu_si256,
    _mm512_add_epi32, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_cmp_ps_mask, _mm512_cvtepi32_epi16, _mm512_cvtepu16_epi32, _mm512_cvtneps_pbh,
    _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_fpclass_ps_mask, _mm512_load_si512,
    _mm512_loadu_si512, _mm512_mask_mov_epi32, _mm512_or_si512, _mm512_set1_epi32,
    _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_slli_epi32, _mm512_srli_epi32,
    _mm512_store_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
    _mm512_unpacklo_epi64,
};

use super::super::{LANES, Line, PairSimd, Simd};
use super::{Avx2Fma, Avx512, Avx512Bf16};
use crate::Bf16;

/// Both numbers, the first in the lower half.
#[inline(always)]
fn bits(x: [Bf16; 2]) -> i32 {
    (u32::from(x[0].to_bits()) | (u32::from(x[1].to_bits()) << 16)).cast_signed()
}

/// The upper half of every 32 bits.
const UPPER: i32 = 0xffff_0000_u32.cast_signed();

/// The nearest bf16 numbers by the arithmetic of integers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn narrow_avx512(x: __m512) -> __m256i {
    let bits = _mm512_castps_si512(x);
    let upper = _mm512_srli_epi32::<16>(bits);
    let odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
    let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, half));
    let quiet = _mm512_or_si512(upper, _mm512_set1_epi32(0x40));
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
    _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, nan, quiet))
}

/// Numbers made wide with AVX-512, for both types that prove it.
macro_rules! conversions {
    () => {
        #[inline(always)]
        fn interleave(self, first: &[Bf16; LANES], second: &[Bf16; LANES]) -> Line {
            let mut line = Line::ZERO;
            // SAFETY: `self` proves that the machine has the instructions; `first` and `second` have
            // 32 bytes and their loads need no alignment; a line has 64 bytes and is aligned.
            unsafe {
                let first = _mm512_cvtepu16_epi32(_mm256_loadu_si256(first.as_ptr().cast()));
                let second = _mm512_cvtepu16_epi32(_mm256_loadu_si256(second.as_ptr().cast()));
                let both = _mm512_or_si512(first, _mm512_slli_epi32::<16>(second));
                _mm512_store_si512(std::ptr::from_mut(&mut line).cast(), both);
            }
            line
        }

        #[inline(always)]
        fn turn(self, rows: [&[Bf16; 2 * LANES]; LANES], lines: &mut [Line; LANES]) {
            // SAFETY: `self` proves that the machine has the instructions; a row has 64 bytes and its
            // load needs no alignment; a line has 64 bytes and is aligned.
            unsafe {
                let mut x = [_mm512_setzero_si512(); LANES];
                for (x, row) in x.iter_mut().zip(rows) {
                    *x = _mm512_loadu_si512(row.as_ptr().cast());
                }
                // Pairs of two rows, then of four, next to one another.
                for i in 0..LANES / 2 {
                    let (a, b) = (x[2 * i], x[2 * i + 1]);
                    x[2 * i] = _mm512_unpacklo_epi32(a, b);
                    x[2 * i + 1] = _mm512_unpackhi_epi32(a, b);
                }
                for i in 0..LANES / 4 {
                    let [a, b, c, d] = [x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]];
                    x[4 * i] = _mm512_unpacklo_epi64(a, c);
                    x[4 * i + 1] = _mm512_unpackhi_epi64(a, c);
                    x[4 * i + 2] = _mm512_unpacklo_epi64(b, d);
                    x[4 * i + 3] = _mm512_unpackhi_epi64(b, d);
                }
                // Quarter `l` of register `4 i + c` now holds pair `4 l + c` of rows `4 i..4 i + 4`.
                for c in 0..LANES / 4 {
                    let [a, b, d, e] = [x[c], x[4 + c], x[8 + c], x[12 + c]];
                    let (even, odd) = (
                        _mm512_shuffle_i32x4::<0x88>(a, b),
                        _mm512_shuffle_i32x4::<0xdd>(a, b),
                    );
                    let (even_2, odd_2) = (
                        _mm512_shuffle_i32x4::<0x88>(d, e),
                        _mm512_shuffle_i32x4::<0xdd>(d, e),
                    );
                    let quarters = [
                        _mm512_shuffle_i32x4::<0x88>(even, even_2),
                        _mm512_shuffle_i32x4::<0x88>(odd, odd_2),
                        _mm512_shuffle_i32x4::<0xdd>(even, even_2),
                        _mm512_shuffle_i32x4::<0xdd>(odd, odd_2),
                    ];
                    for l in 0..4 {
                        let line = std::ptr::from_mut(&mut lines[4 * l + c]);
                        _mm512_store_si512(line.cast(), quarters[l]);
                    }
                }
            }
        }

        #[inline(always)]
        fn prefetch(self, at: *const Line) {
            // SAFETY: `self` proves that the machine has the instruction, which reads nothing that
            // the program could see and does nothing if there is nothing at the address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        }

        #[inline(always)]
        fn widen(self, x: &[Bf16; LANES]) -> Self::V {
            // SAFETY: `self` proves that the machine has the instructions; `x` has 32 bytes, and the
            // load needs no alignment.
            unsafe {
                let x = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
                [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(x))]
            }
        }
    };
}

impl PairSimd for Avx512Bf16 {
    conversions!();

    #[inline(always)]
    fn narrow(self, [x]: Self::V) -> [Bf16; LANES] {
        const SUBNORMAL: i32 = 0x20;
        let mut narrow = [Bf16::ZERO; LANES];
        // SAFETY: `self` proves that the machine has the instructions; `narrow` has 32 bytes, and the
        // store needs no alignment; both types are 32 bytes of which every value is valid.
        unsafe {
            // `vcvtneps2bf16` makes subnormal numbers zero; they are rare.
            let x = if _mm512_fpclass_ps_mask::<SUBNORMAL>(x) == 0 {
                std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x))
            } else {
                narrow_avx512(x)
            };
            _mm256_storeu_si256(narrow.as_mut_ptr().cast(), x);
        }
        narrow
    }

    type Pairs = __m512i;

    // 24 chains of sums; 12 hide the latency of Zen 5 (6 cycles, two an instruction).
    const ROWS: usize = 8;
    const PANELS: usize = 3;

    #[inline(always)]
    fn load_pairs(self, x: &Line) -> __m512i {
        // SAFETY: `self` proves that the machine has the instruction; a line has 64 bytes and is
        // aligned to 64 bytes.
        unsafe { _mm512_load_si512(std::ptr::from_ref(x).cast()) }
    }

    #[inline(always)]
    fn splat_pair(self, x: [Bf16; 2]) -> __m512i {
        // SAFETY: `self` proves that the machine has the instruction.
        unsafe { _mm512_set1_epi32(bits(x)) }
    }

    #[inline(always)]
    fn dot_pairs(self, a: __m512i, b: __m512i, [sum]: Self::V) -> Self::V {
        // SAFETY: `self` proves that the machine has the instruction; both types are 64 bytes of
        // which every value is valid.
        unsafe {
            let a = std::mem::transmute::<__m512i, __m512bh>(a);
            let b = std::mem::transmute::<__m512i, __m512bh>(b);
            [_mm512_dpbf16_ps(sum, a, b)]
        }
    }
}

impl PairSimd for Avx512 {
    conversions!();

    #[inline(always)]
    fn narrow(self, [x]: Self::V) -> [Bf16; LANES] {
        let mut narrow = [Bf16::ZERO; LANES];
        // SAFETY: `self` proves that the machine has the instructions; `narrow` has 32 bytes, and the
        // store needs no alignment.
        unsafe { _mm256_storeu_si256(narrow.as_mut_ptr().cast(), narrow_avx512(x)) }
        narrow
    }

    type Pairs = [__m512; 2];

    const ROWS: usize = 8;
    const PANELS: usize = 3;

    #[inline(always)]
    fn load_pairs(self, x: &Line) -> [__m512; 2] {
        // SAFETY: `self` proves that the machine has the instructions; a line has 64 bytes and is
        // aligned to 64 bytes.
        unsafe {
            let both = _mm512_load_si512(std::ptr::from_ref(x).cast());
            [
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(both)),
                _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(UPPER))),
            ]
        }
    }

    #[inline(always)]
    fn splat_pair(self, x: [Bf16; 2]) -> [__m512; 2] {
        let [[first], [second]] = [self.splat(x[0].to_f32()), self.splat(x[1].to_f32())];
        [first, second]
    }

    #[inline(always)]
    fn dot_pairs(self, a: [__m512; 2], b: [__m512; 2], [sum]: Self::V) -> Self::V {
        // SAFETY: `self` proves that the machine has the instruction.
        unsafe {
            [_mm512_fmadd_ps(
                a[1],
                b[1],
                _mm512_fmadd_ps(a[0], b[0], sum),
            )]
        }
    }
}

impl PairSimd for Avx2Fma {
    type Pairs = [[__m256; 2]; 2];

    // Eight of sixteen registers hold the sums, four a line made wide.
    const ROWS: usize = 4;
    const PANELS: usize = 1;

    #[inline(always)]
    fn load_pairs(self, x: &Line) -> Self::Pairs {
        let (mut first, mut second) = (self.splat(0.0), self.splat(0.0));
        for half in 0..2 {
            // SAFETY: `self` proves that the machine has the instructions; both halves of a line
            // have 32 bytes and are aligned to 32 bytes.
            unsafe {
                let at = x.0[16 * half..][..16].as_ptr().cast();
                let both = _mm256_load_si256(at);
                first[half] = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(both));
                let upper = _mm256_and_si256(both, _mm256_set1_epi32(UPPER));
                second[half] = _mm256_castsi256_ps(upper);
            }
        }
        [first, second]
    }

    #[inline(always)]
    fn splat_pair(self, x: [Bf16; 2]) -> Self::Pairs {
        [self.splat(x[0].to_f32()), self.splat(x[1].to_f32())]
    }

    #[inline(always)]
    fn dot_pairs(self, a: Self::Pairs, b: Self::Pairs, mut sum: [__m256; 2]) -> [__m256; 2] {
        for number in 0..2 {
            for half in 0..2 {
                let (a, b) = (a[number][half], b[number][half]);
                // SAFETY: `self` proves that the machine has the instruction.
                sum[half] = unsafe { _mm256_fmadd_ps(a, b, sum[half]) };
            }
        }
        sum
    }
    #[inline(always)]
    fn interleave(self, first: &[Bf16; LANES], second: &[Bf16; LANES]) -> Line {
        let mut line = Line::ZERO;
        for half in 0..2 {
            let first = first[8 * half..][..8].as_ptr().cast();
            let second = second[8 * half..][..8].as_ptr().cast();
            let to = line.0[16 * half..][..16].as_mut_ptr().cast();
            // SAFETY: `self` proves that the machine has the instructions; `first` and `second` point
            // to 16 bytes and their loads need no alignment; half a line has 32 bytes and is aligned.
            unsafe {
                let first = _mm256_cvtepu16_epi32(_mm_loadu_si128(first));
                let second = _mm256_cvtepu16_epi32(_mm_loadu_si128(second));
                let both = _mm256_or_si256(first, _mm256_slli_epi32::<16>(second));
                _mm256_store_si256(to, both);
            }
        }
        line
    }

    #[inline(always)]
    fn widen(self, x: &[Bf16; LANES]) -> Self::V {
        let mut wide = self.splat(0.0);
        for (wide, x) in wide.iter_mut().zip(x.as_chunks::<8>().0) {
            // SAFETY: `self` proves that the machine has the instructions; `x` has 16 bytes, and the
            // load needs no alignment.
            *wide = unsafe {
                let x = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x))
            };
        }
        wide
    }

    #[inline(always)]
    fn narrow(self, x: Self::V) -> [Bf16; LANES] {
        let mut narrow = [Bf16::ZERO; LANES];
        for (to, x) in narrow.as_chunks_mut::<8>().0.iter_mut().zip(x) {
            // SAFETY: `self` proves that the machine has the instructions; `to` has 16 bytes, and the
            // store needs no alignment.
            unsafe {
                let bits = _mm256_castps_si256(x);
                let upper = _mm256_srli_epi32::<16>(bits);
                let odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
                let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
                let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, half));
                let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
                let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
                let x = _mm256_blendv_epi8(rounded, quiet, nan);
                // Packs within both halves, which are then put together.
                let x = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(x, x));
                _mm_storeu_si128(to.as_mut_ptr().cast(), _mm256_castsi256_si128(x));
            }
        }
        narrow
    }
}
