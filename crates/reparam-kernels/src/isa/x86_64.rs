//! The instruction sets of x86-64.
#![expect(
    unsafe_code,
    reason = "vector instructions; a value of the type that has them proves that they exist"
)]

use std::arch::x86_64::{
    __m256, __m512, _mm256_add_epi32, _mm256_add_ps, _mm256_blendv_ps, _mm256_castsi256_ps,
    _mm256_cvtps_epi32, _mm256_div_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps,
    _mm256_min_ps, _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_slli_epi32,
    _mm256_srai_epi32, _mm256_storeu_ps, _mm256_sub_epi32, _mm256_sub_ps, _mm512_add_ps,
    _mm512_castps_si512, _mm512_div_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_blend_ps,
    _mm512_max_ps, _mm512_min_ps, _mm512_movepi32_mask, _mm512_mul_ps, _mm512_scalef_ps,
    _mm512_set1_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::{Kernel, LANES, Simd};

mod amx;
mod pairs;

pub(crate) use amx::AmxBf16;

/// The proof that the machine has AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2Fma(());

impl Avx2Fma {
    /// Asks the processor; the standard library remembers its answer.
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

/// The proof that the machine has the AVX-512 features of x86-64-v4.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// Asks the processor; the standard library remembers its answer.
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl"))
        .then_some(Self(()))
    }
}

/// The proof that the machine has AVX-512 BF16 besides the features of x86-64-v4.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512Bf16(());

impl Avx512Bf16 {
    /// Asks the processor; the standard library remembers its answer.
    pub(super) fn detect() -> Option<Self> {
        (Avx512::detect().is_some() && is_x86_feature_detected!("avx512bf16")).then_some(Self(()))
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn enter_avx2_fma<K: Kernel>(simd: Avx2Fma, kernel: K) -> K::Output {
    kernel.run(simd)
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")]
pub(super) fn enter_avx512<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
    kernel.run(simd)
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16")]
pub(super) fn enter_avx512_bf16<K: Kernel>(simd: Avx512Bf16, kernel: K) -> K::Output {
    kernel.run(simd)
}

/// Implements [`Simd`] for a type whose values exist only where its instructions do, with a group of
/// `$n` registers `$register` of `$width` numbers.
///
/// Loops instead of the functions of arrays that take closures: a closure is a function of its own,
/// without the features of its caller, and keeps the instructions from being inlined.
macro_rules! implement {
    (
        $isa:ident, $register:ident x $n:literal, $width:literal,
        $splat:ident, $load:ident, $store:ident, $add:ident, $mul:ident, $fma:ident, $max:ident,
        $min:ident, $sub:ident, $div:ident, $power:ident, $by_sign:ident
    ) => {
        impl Simd for $isa {
            type V = [$register; $n];

            #[inline(always)]
            fn mul_add(a: f32, b: f32, c: f32) -> f32 {
                a.mul_add(b, c)
            }

            #[inline(always)]
            fn splat(self, x: f32) -> Self::V {
                // SAFETY: `self` proves that the machine has the instruction.
                [unsafe { $splat(x) }; $n]
            }

            #[inline(always)]
            fn load(self, x: &[f32; LANES]) -> Self::V {
                let mut loaded = self.splat(0.0);
                for i in 0..$n {
                    let part = &x[i * $width..][..$width];
                    // SAFETY: `self` proves that the machine has the instruction, and `part` holds
                    // the numbers of one register; the instruction needs no alignment.
                    loaded[i] = unsafe { $load(part.as_ptr()) };
                }
                loaded
            }

            #[inline(always)]
            fn store(self, x: Self::V, to: &mut [f32; LANES]) {
                for i in 0..$n {
                    let part = &mut to[i * $width..][..$width];
                    // SAFETY: `self` proves that the machine has the instruction, and `part` takes
                    // the numbers of one register; the instruction needs no alignment.
                    unsafe { $store(part.as_mut_ptr(), x[i]) }
                }
            }

            #[inline(always)]
            fn add(self, mut a: Self::V, b: Self::V) -> Self::V {
                for i in 0..$n {
                    // SAFETY: `self` proves that the machine has the instruction.
                    a[i] = unsafe { $add(a[i], b[i]) };
                }
                a
            }

            #[inline(always)]
            fn mul(self, mut a: Self::V, b: Self::V) -> Self::V {
                for i in 0..$n {
                    // SAFETY: `self` proves that the machine has the instruction.
                    a[i] = unsafe { $mul(a[i], b[i]) };
                }
                a
            }

            #[inline(always)]
            fn mul_add_lanes(self, a: Self::V, b: Self::V, mut c: Self::V) -> Self::V {
                for i in 0..$n {
                    // SAFETY: `self` proves that the machine has the instruction.
                    c[i] = unsafe { $fma(a[i], b[i], c[i]) };
                }
                c
            }

            #[inline(always)]
            fn max(self, mut a: Self::V, b: Self::V) -> Self::V {
                for i in 0..$n {
                    // The instruction gives its second operand if either is NaN.
                    // SAFETY: `self` proves that the machine has the instruction.
                    a[i] = unsafe { $max(a[i], b[i]) };
                }
                a
            }

            #[inline(always)]
            fn min(self, mut a: Self::V, b: Self::V) -> Self::V {
                for i in 0..$n {
                    // The instruction gives its second operand if either is NaN.
                    // SAFETY: `self` proves that the machine has the instruction.
                    a[i] = unsafe { $min(a[i], b[i]) };
                }
                a
            }

            #[inline(always)]
            fn sub(self, mut a: Self::V, b: Self::V) -> Self::V {
                for i in 0..$n {
                    // SAFETY: `self` proves that the machine has the instruction.
                    a[i] = unsafe { $sub(a[i], b[i]) };
                }
                a
            }

            #[inline(always)]
            fn div(self, mut a: Self::V, b: Self::V) -> Self::V {
                for i in 0..$n {
                    // SAFETY: `self` proves that the machine has the instruction.
                    a[i] = unsafe { $div(a[i], b[i]) };
                }
                a
            }

            #[inline(always)]
            fn times_power_of_two(self, mut x: Self::V, n: Self::V) -> Self::V {
                for i in 0..$n {
                    // SAFETY: `self` proves that the machine has the instructions.
                    x[i] = unsafe { $power(x[i], n[i]) };
                }
                x
            }

            #[inline(always)]
            fn by_sign(self, x: Self::V, mut a: Self::V, b: Self::V) -> Self::V {
                for i in 0..$n {
                    // SAFETY: `self` proves that the machine has the instructions.
                    a[i] = unsafe { $by_sign(x[i], a[i], b[i]) };
                }
                a
            }
        }
    };
}

/// `x 2^n` in two halves.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn power_avx2(x: __m256, n: __m256) -> __m256 {
    let n = _mm256_cvtps_epi32(n);
    let half = _mm256_srai_epi32::<1>(n);
    let rest = _mm256_sub_epi32(n, half);
    let one = _mm256_set1_epi32(127);
    let half = _mm256_slli_epi32::<23>(_mm256_add_epi32(half, one));
    let rest = _mm256_slli_epi32::<23>(_mm256_add_epi32(rest, one));
    let x = _mm256_mul_ps(x, _mm256_castsi256_ps(half));
    _mm256_mul_ps(x, _mm256_castsi256_ps(rest))
}

/// `a` where the sign of `x` is minus, else `b`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn by_sign_avx2(x: __m256, a: __m256, b: __m256) -> __m256 {
    _mm256_blendv_ps(b, a, x)
}

/// `a` where the sign of `x` is minus, else `b`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn by_sign_avx512(x: __m512, a: __m512, b: __m512) -> __m512 {
    _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(x)), b, a)
}

implement!(
    Avx2Fma, __m256 x 2, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps,
    _mm256_mul_ps, _mm256_fmadd_ps, _mm256_max_ps, _mm256_min_ps, _mm256_sub_ps, _mm256_div_ps,
    power_avx2, by_sign_avx2
);
implement!(
    Avx512, __m512 x 1, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps,
    _mm512_mul_ps, _mm512_fmadd_ps, _mm512_max_ps, _mm512_min_ps, _mm512_sub_ps, _mm512_div_ps,
    _mm512_scalef_ps, by_sign_avx512
);
implement!(
    Avx512Bf16, __m512 x 1, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps,
    _mm512_mul_ps, _mm512_fmadd_ps, _mm512_max_ps, _mm512_min_ps, _mm512_sub_ps, _mm512_div_ps,
    _mm512_scalef_ps, by_sign_avx512
);
