//! What the kernels can do on this machine, for a report to the user.

use std::time::Instant;

use crate::isa::{Kernel, LANES, Line, PairSimd, Token};
use crate::matmul::{MatMut, MatRef, matmul};
use crate::packed::{self, Direction, Epilogue, Matrix, MatrixMut, PackedWeight};
use crate::{Bf16, Isa, KernelError};

/// What this machine offers and what the kernels make of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The architecture that the program was compiled for, as `x86_64`.
    pub architecture: &'static str,
    /// Features of the processor that matter to kernels, whether or not one uses them.
    pub features: Vec<&'static str>,
    /// Instruction sets that kernels are compiled for and the machine has, slowest first.
    pub available: Vec<Isa>,
    /// The one in use.
    pub chosen: Isa,
    /// Name of the element-wise and row kernels in use, as `x86_64-f32-avx512`.
    pub row_kernels: String,
    /// Name of the matrix kernels, which `gemm` chooses by itself, as `x86_64-f32-gemm-avx512`.
    pub matrix_kernels: String,
    /// Name of the matrix kernels over bf16 in use (see [`crate::packed`]), as
    /// `x86_64-bf16-avx512bf16`.
    pub packed_kernels: String,
    /// Threads of the current rayon pool.
    pub threads: usize,
}

/// Asks the processor.
pub fn capabilities() -> Capabilities {
    let architecture = std::env::consts::ARCH;
    let chosen = Isa::current();
    Capabilities {
        architecture,
        features: features(),
        available: Isa::available(),
        chosen,
        row_kernels: format!("{architecture}-f32-{chosen}"),
        matrix_kernels: format!("{architecture}-f32-gemm-{}", gemm_kernel()),
        packed_kernels: format!("{architecture}-bf16-{chosen}"),
        threads: rayon::current_num_threads(),
    }
}

/// Measures `f32` matrix products of 1024 x 1024 on all threads of the current rayon pool.
///
/// Returns the best of five runs in GFLOP/s (10^9 additions and multiplications a second), after
/// one that is not counted. Takes well under a second and 12 MiB.
///
/// # Errors
///
/// None that a caller can cause.
pub fn measure_matmul_gflops() -> Result<f64, KernelError> {
    const N: usize = 1024;
    let a: Vec<f32> = (0..N * N).map(|i| (i % 7) as f32 - 3.0).collect();
    let b: Vec<f32> = (0..N * N).map(|i| (i % 5) as f32 - 2.0).collect();
    let mut c = vec![0.0; N * N];
    let seconds = best_seconds(|| {
        matmul(
            MatMut::new(&mut c, N, N)?,
            MatRef::new(&a, N, N)?,
            MatRef::new(&b, N, N)?,
            1.0,
            0.0,
        )?;
        std::hint::black_box(&c);
        Ok(())
    })?;
    Ok(2.0 * (N * N * N) as f64 / seconds / 1e9)
}

/// Measures bf16 products of 2048 rows with a packed weight of 1536 x 576 (see [`crate::packed`]), as
/// a step of training has them, on all threads of the current rayon pool.
///
/// Returns the best of five runs in GFLOP/s, after one that is not counted. Takes well under a second
/// and 10 MiB.
///
/// # Errors
///
/// None that a caller can cause.
pub fn measure_packed_gflops() -> Result<f64, KernelError> {
    const M: usize = 2048;
    const K: usize = 576;
    const N: usize = 1536;
    let numbers = |len: usize, period: usize| -> Vec<Bf16> {
        (0..len)
            .map(|i| Bf16::from_f32((i % period) as f32 - 3.0))
            .collect()
    };
    let (x, w) = (numbers(M * K, 7), numbers(N * K, 5));
    let w = PackedWeight::new(Matrix::new(&w[..], N, K)?)?;
    let mut y = vec![Bf16::ZERO; M * N];
    let seconds = best_seconds(|| {
        let x = Matrix::new(&x[..], M, K)?;
        let out = MatrixMut::new(&mut y[..], M, N)?;
        packed::matmul(x, &w, Direction::Forward, Epilogue::default(), out)?;
        std::hint::black_box(&y);
        Ok(())
    })?;
    Ok(2.0 * (M * K * N) as f64 / seconds / 1e9)
}

/// Measures what no product over bf16 can exceed: independent sums of pairs that never leave the
/// registers, on all threads of the current rayon pool, with the instruction set in use.
///
/// Returns the best of five runs in GFLOP/s, after one that is not counted. Takes well under a second.
///
/// # Errors
///
/// None that a caller can cause.
pub fn measure_pair_limit_gflops() -> Result<f64, KernelError> {
    let token = Token::current();
    #[cfg(target_arch = "x86_64")]
    if let Token::AmxBf16(amx) = token {
        return limit(TILE_FLOPS * CHAIN_STEPS, || {
            let mut tiles = amx.tiles();
            tile_chains(&mut tiles);
        });
    }
    limit(pair_chains_flops(token), || {
        std::hint::black_box(token.dispatch(PairChains));
    })
}

/// The same for multiply-adds of `f32` numbers, which products of `f32` matrices consist of, with the fastest instruction set
/// of the machine: `gemm` takes it whatever was chosen with [`with_isa`](crate::with_isa).
///
/// # Errors
///
/// None that a caller can cause.
pub fn measure_mul_add_limit_gflops() -> Result<f64, KernelError> {
    let token = Token::best();
    limit(pair_chains_flops(token) / 2, || {
        std::hint::black_box(token.dispatch(MulAddChains));
    })
}

/// The best of five runs, after one that is not counted.
fn best_seconds(mut run: impl FnMut() -> Result<(), KernelError>) -> Result<f64, KernelError> {
    let mut best = f64::INFINITY;
    for i in 0..6 {
        let start = Instant::now();
        run()?;
        if i > 0 {
            best = best.min(start.elapsed().as_secs_f64());
        }
    }
    Ok(best)
}

/// GFLOP/s of `work`, which takes `flops` operations, on every thread at the same time.
fn limit(flops: usize, work: impl Fn() + Sync) -> Result<f64, KernelError> {
    let seconds = best_seconds(|| {
        rayon::broadcast(|_| work());
        Ok(())
    })?;
    Ok((rayon::current_num_threads() * flops) as f64 / seconds / 1e9)
}

/// Steps of each chain of sums: some ten milliseconds for all of them, so that the system has spread the threads over the
/// cores before most of the time has passed.
const CHAIN_STEPS: usize = 4_000_000;

/// Chains of an instruction set: enough to hide the latency, as many as its registers hold.
const fn chains(rows: usize) -> usize {
    match rows {
        8 => 16,
        4 => 4,
        _ => 2,
    }
}

/// Operations of [`PairChains`]; those of [`MulAddChains`] are half as many.
fn pair_chains_flops(token: Token) -> usize {
    struct Chains;
    impl Kernel for Chains {
        type Output = usize;
        #[inline(always)]
        fn run<S: PairSimd>(self, _: S) -> usize {
            chains(S::ROWS)
        }
    }
    token.dispatch(Chains) * CHAIN_STEPS * LANES * 4
}

/// Replaces independent sums, which stay in registers, and returns what they come to. Not a function
/// that takes a closure: that would be without the features of its caller. Each sum is a variable of its own, since an
/// array of so many would be kept in memory, and begins with another number, since equal chains would become one.
macro_rules! run_chains {
    ($simd:ident, $sum:ident => $next:expr) => {
        match chains(S::ROWS) {
            16 => run_chains!(@ $simd, [a b c d e f g h i j k l m n o p], $sum => $next),
            4 => run_chains!(@ $simd, [a b c d], $sum => $next),
            _ => run_chains!(@ $simd, [a b], $sum => $next),
        }
    };
    (@ $simd:ident, [$($chain:ident)*], $sum:ident => $next:expr) => {{
        $(let mut $chain = $simd.splat(std::hint::black_box(0.0));)*
        for _ in 0..CHAIN_STEPS {
            $(
                let $sum = $chain;
                $chain = $next;
            )*
        }
        let mut total = $simd.splat(0.0);
        $(total = $simd.add(total, $chain);)*
        $simd.sum(total)
    }};
}

struct PairChains;

impl Kernel for PairChains {
    type Output = f32;

    #[inline(always)]
    fn run<S: PairSimd>(self, simd: S) -> f32 {
        let one = std::hint::black_box(Bf16::ONE);
        let (left, right) = (simd.splat_pair([one; 2]), simd.load_pairs(&Line([one; 32])));
        run_chains!(simd, sum => simd.dot_pairs(left, right, sum))
    }
}

struct MulAddChains;

impl Kernel for MulAddChains {
    type Output = f32;

    #[inline(always)]
    fn run<S: PairSimd>(self, simd: S) -> f32 {
        let one = simd.splat(std::hint::black_box(1.0));
        run_chains!(simd, sum => simd.mul_add_lanes(one, one, sum))
    }
}

/// Operations of a step of [`tile_chains`]: four products of 16 rows, 16 columns and 32 terms.
#[cfg(target_arch = "x86_64")]
const TILE_FLOPS: usize = 4 * 2 * 16 * 16 * 32;

/// Products of tiles with four independent sums, of zeros: these take as long as others.
#[cfg(target_arch = "x86_64")]
fn tile_chains(tiles: &mut impl crate::isa::tiles::Tiles) {
    for _ in 0..CHAIN_STEPS {
        tiles.dot::<0, 4, 6>();
        tiles.dot::<1, 4, 7>();
        tiles.dot::<2, 5, 6>();
        tiles.dot::<3, 5, 7>();
    }
}

/// Repeats the choice of `gemm` 0.19, which does not tell it.
fn gemm_kernel() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return "avx512";
        }
        if is_x86_feature_detected!("fma") {
            return "fma";
        }
    }
    if cfg!(target_arch = "aarch64") {
        "neon"
    } else {
        "scalar"
    }
}

fn features() -> Vec<&'static str> {
    let mut features = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! detect {
            ($($feature:tt),*) => {
                $(if is_x86_feature_detected!($feature) { features.push($feature); })*
            };
        }
        detect!(
            "sse4.2",
            "avx",
            "avx2",
            "fma",
            "f16c",
            "avx512f",
            "avx512bw",
            "avx512cd",
            "avx512dq",
            "avx512vl",
            "avx512vnni",
            "avx512bf16"
        );
        if Isa::AmxBf16.token().is_some() {
            features.extend(["amx-tile", "amx-bf16"]);
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        features.push("neon");
    }
    features
}
