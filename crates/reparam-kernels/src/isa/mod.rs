//! Instruction sets: what the machine has, which one is used, and how a kernel enters it.
//!
//! A kernel is an `#[inline(always)]` function generic over [`Simd`]. [`simd_entry!`] makes an
//! ordinary function of it that takes a [`Token`]; the token is the proof that the machine has the
//! instruction set, since tokens can only be made by asking the processor. A later instruction set
//! is one more variant here and one more entry function; the kernels do not change.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

use crate::KernelError;

/// An instruction set that the kernels of this crate are compiled for, slowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// What every machine of the target architecture has.
    Portable,
    /// x86-64 with AVX2 and fused multiply-add, 8 numbers at a time.
    Avx2Fma,
    /// x86-64-v4: AVX-512 F, BW, CD, DQ and VL, 16 numbers at a time.
    Avx512,
    /// The same with AVX-512 BF16: products of pairs of bf16 numbers, 32 at a time. Kernels over
    /// `f32` compute the same bits as with [`Isa::Avx512`].
    Avx512Bf16,
    /// The same with AMX: products of tiles of bf16 numbers, 512 at a time, where the system allows
    /// them (Linux). Everything but products of more than four rows computes the same bits as with
    /// [`Isa::Avx512Bf16`]. The instructions have not run on hardware yet; the products are tested
    /// with a model of them.
    AmxBf16,
}

impl Isa {
    const ALL: [Self; 5] = [
        Self::Portable,
        Self::Avx2Fma,
        Self::Avx512,
        Self::Avx512Bf16,
        Self::AmxBf16,
    ];

    /// Lists what this machine can run, slowest first. [`Isa::Portable`] is always there.
    pub fn available() -> Vec<Self> {
        Self::ALL
            .into_iter()
            .filter(|isa| isa.token().is_some())
            .collect()
    }

    /// The fastest instruction set of this machine.
    pub fn best() -> Self {
        Token::best().isa()
    }

    /// The instruction set that kernels called by this thread use now: that of [`with_isa`], else [`Isa::best`].
    pub fn current() -> Self {
        Token::current().isa()
    }

    /// Its name: `portable`, `avx2`, `avx512`, `avx512bf16` or `amx`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2Fma => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
            Self::AmxBf16 => "amx",
        }
    }

    /// Whether it has instructions for products of bf16 numbers, so that they are faster than those of `f32`.
    pub fn multiplies_bf16(self) -> bool {
        self >= Self::Avx512Bf16
    }

    /// The proof that the machine has it, if it does.
    pub(crate) fn token(self) -> Option<Token> {
        match self {
            Self::Portable => Some(Token::Portable(Portable)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Fma => Avx2Fma::detect().map(Token::Avx2Fma),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::detect().map(Token::Avx512),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => Avx512Bf16::detect().map(Token::Avx512Bf16),
            #[cfg(target_arch = "x86_64")]
            Self::AmxBf16 => AmxBf16::detect().map(Token::AmxBf16),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2Fma | Self::Avx512 | Self::Avx512Bf16 | Self::AmxBf16 => None,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = KernelError;

    /// Reads `portable`, `avx2`, `avx512`, `avx512bf16` or `amx`, in any case.
    fn from_str(name: &str) -> Result<Self, KernelError> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| KernelError::IsaUnknown {
                name: name.to_owned(),
                available: Self::available(),
            })
    }
}

thread_local! {
    /// What [`with_isa`] lets the kernels that this thread calls use.
    pub(crate) static IN_FORCE: Cell<Option<Token>> = const { Cell::new(None) };
}

/// Runs `work` with `isa` for the kernels that it calls, on this thread and on those of the pool that help it.
///
/// Calls nest; what was in force before is so again afterwards, also when `work` panics. Products of [`crate::packed`]
/// follow; those of [`crate::matmul`] do not, since the `gemm` crate chooses for itself. Instruction sets round sums
/// differently, so what shall be equal to the bit belongs into one call.
///
/// # Errors
///
/// [`KernelError::IsaUnavailable`] if the machine does not have it; `work` is not run.
///
/// ```
/// use reparam_kernels::{Isa, with_isa};
///
/// let chosen = with_isa("portable".parse()?, Isa::current)?;
/// assert_eq!(chosen, Isa::Portable);
/// assert_eq!(Isa::current(), Isa::best());
/// # Ok::<(), reparam_kernels::KernelError>(())
/// ```
pub fn with_isa<R>(isa: Isa, work: impl FnOnce() -> R) -> Result<R, KernelError> {
    let Some(token) = isa.token() else {
        return Err(KernelError::IsaUnavailable {
            isa,
            available: Isa::available(),
        });
    };
    let _before = Before(IN_FORCE.replace(Some(token)));
    Ok(work())
}

/// Puts back what was in force.
struct Before(Option<Token>);

impl Drop for Before {
    fn drop(&mut self) {
        IN_FORCE.set(self.0);
    }
}

/// Numbers in one group: one AVX-512 register, two of AVX2, four of SSE or NEON.
pub(crate) const LANES: usize = 16;

/// The arithmetic of one instruction set.
///
/// Loops without a reduction are written with ordinary numbers and become vectors by themselves.
/// Reductions need the groups `V`: given arrays, the compiler forms vectors from the end of a
/// computation backwards, and from the pairs that are added last it makes a whole loop of pairs.
/// A group always has [`LANES`] numbers, so that the order of sums is the same everywhere.
///
/// Whatever touches a group takes the value that proves the instruction set.
pub(crate) trait Simd: Copy + Send + Sync {
    /// [`LANES`] numbers.
    type V: Copy;

    /// `a * b + c`, rounded once where the instruction set has a fused multiply-add.
    fn mul_add(a: f32, b: f32, c: f32) -> f32;

    fn splat(self, x: f32) -> Self::V;
    fn load(self, x: &[f32; LANES]) -> Self::V;
    fn store(self, x: Self::V, to: &mut [f32; LANES]);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a * b + c`, lane by lane.
    fn mul_add_lanes(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;

    /// The greater of two lanes; `b` if `a` is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;

    /// The lesser of two lanes; `b` if either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;

    /// `x 2^n`, rounded once, for lanes of `n` that are integers in -252..=254.
    fn times_power_of_two(self, x: Self::V, n: Self::V) -> Self::V;

    /// `a` where the sign of `x` is minus, else `b`.
    fn by_sign(self, x: Self::V, a: Self::V, b: Self::V) -> Self::V;

    /// The sum of all lanes, as a tree: halves, quarters, eighths, sixteenths.
    #[inline(always)]
    fn sum(self, x: Self::V) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(x, &mut lanes);
        let mut quarter = [0.0; 4];
        for (i, quarter) in quarter.iter_mut().enumerate() {
            *quarter = (lanes[i] + lanes[i + 8]) + (lanes[i + 4] + lanes[i + 12]);
        }
        (quarter[0] + quarter[2]) + (quarter[1] + quarter[3])
    }

    /// The greatest lane; NaN is passed over.
    #[inline(always)]
    fn greatest(self, x: Self::V) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(x, &mut lanes);
        lanes
            .into_iter()
            .fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
    }
}

mod pairs;
pub(crate) use pairs::{Line, PairSimd};
mod portable;
pub(crate) use portable::Portable;
pub(crate) mod tiles;
#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64::{
    AmxBf16, Avx2Fma, Avx512, Avx512Bf16, enter_avx2_fma, enter_avx512, enter_avx512_bf16,
};

/// A detected instruction set.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Token {
    /// See [`Portable`].
    Portable(Portable),
    /// See [`Avx2Fma`].
    #[cfg(target_arch = "x86_64")]
    Avx2Fma(Avx2Fma),
    /// See [`Avx512`].
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// See [`Avx512Bf16`].
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512Bf16),
    /// See [`AmxBf16`].
    #[cfg(target_arch = "x86_64")]
    AmxBf16(AmxBf16),
    /// The products of [`AmxBf16`] with a model of its registers, all else as the best set.
    #[cfg(test)]
    EmulatedAmx,
}

impl Token {
    /// The fastest that the machine has.
    pub(crate) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(token) = AmxBf16::detect() {
                return Self::AmxBf16(token);
            }
            if let Some(token) = Avx512Bf16::detect() {
                return Self::Avx512Bf16(token);
            }
            if let Some(token) = Avx512::detect() {
                return Self::Avx512(token);
            }
            if let Some(token) = Avx2Fma::detect() {
                return Self::Avx2Fma(token);
            }
        }
        Self::Portable(Portable)
    }

    /// That of [`with_isa`], else the best. Kernels ask once, on the thread that calls them: the pool's threads do not know.
    pub(crate) fn current() -> Self {
        IN_FORCE.get().unwrap_or_else(Self::best)
    }

    pub(crate) fn isa(self) -> Isa {
        match self {
            Self::Portable(_) => Isa::Portable,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Fma(_) => Isa::Avx2Fma,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Isa::Avx512,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(_) => Isa::Avx512Bf16,
            #[cfg(target_arch = "x86_64")]
            Self::AmxBf16(_) => Isa::AmxBf16,
            #[cfg(test)]
            Self::EmulatedAmx => Isa::AmxBf16,
        }
    }

    /// Whether products can use tile registers.
    pub(crate) fn has_tiles(self) -> bool {
        self.isa() == Isa::AmxBf16
    }

    /// Runs the version of `kernel` that was compiled for this instruction set.
    #[inline]
    #[cfg_attr(
        target_arch = "x86_64",
        expect(
            unsafe_code,
            reason = "entering a function compiled for a detected feature"
        )
    )]
    pub(crate) fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Portable(simd) => kernel.run(simd),
            // SAFETY: a value of `Avx2Fma` exists only if the processor said that it has every
            // feature of `enter_avx2_fma`.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Fma(simd) => unsafe { enter_avx2_fma(simd, kernel) },
            // SAFETY: a value of `Avx512` exists only if the processor said that it has every
            // feature of `enter_avx512`.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => unsafe { enter_avx512(simd, kernel) },
            // SAFETY: a value of `Avx512Bf16` exists only if the processor said that it has every
            // feature of `enter_avx512_bf16`.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(simd) => unsafe { enter_avx512_bf16(simd, kernel) },
            // SAFETY: a value of `AmxBf16` holds a value of `Avx512Bf16`.
            #[cfg(target_arch = "x86_64")]
            Self::AmxBf16(amx) => unsafe { enter_avx512_bf16(amx.rows(), kernel) },
            #[cfg(test)]
            Self::EmulatedAmx => Self::best().dispatch(kernel),
        }
    }
}

/// A kernel with its arguments; [`simd_entry!`] writes the implementations.
pub(crate) trait Kernel {
    type Output;

    /// Must be `#[inline(always)]`, so that it is compiled with the features of its caller.
    fn run<S: PairSimd>(self, simd: S) -> Self::Output;
}

/// Makes a function that takes a [`Token`] of an `#[inline(always)]` function generic over
/// [`Simd`]: `simd_entry!(fn scale<'a>(x: &'a mut [f32], by: f32) = scale_generic)`. Types follow the
/// lifetimes: `fn scale<'a; T: Number>(x: &'a mut [T], by: f32)`.
macro_rules! simd_entry {
    ($(#[$meta:meta])* $vis:vis fn $name:ident
        $(<$($lt:lifetime),+ $(; $($kind:ident: $bound:path),+)?>)?
        ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $generic:ident) => {
        $(#[$meta])*
        #[inline]
        #[allow(clippy::too_many_arguments, reason = "as many as the kernel has")]
        $vis fn $name $(<$($lt),+ $(, $($kind: $bound),+)?>)? (
            token: $crate::isa::Token, $($arg: $ty),*
        ) $(-> $ret)? {
            struct Call $(<$($lt),+ $(, $($kind: $bound),+)?>)? { $($arg: $ty),* }
            impl $(<$($lt),+ $(, $($kind: $bound),+)?>)? $crate::isa::Kernel
                for Call $(<$($lt),+ $(, $($kind),+)?>)?
            {
                type Output = simd_entry!(@output $($ret)?);
                #[inline(always)]
                fn run<S: $crate::isa::PairSimd>(self, simd: S) -> Self::Output {
                    $generic(simd, $(self.$arg),*)
                }
            }
            token.dispatch(Call { $($arg),* })
        }
    };
    (@output) => { () };
    (@output $ret:ty) => { $ret };
}
pub(crate) use simd_entry;
