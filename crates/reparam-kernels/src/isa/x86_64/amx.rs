//! AMX: eight registers of 16 rows of 64 bytes and one instruction that multiplies them.
//!
//! Stable Rust has no functions for these instructions, so they are written as assembly. They have not
//! run on hardware yet: the products are tested with [`EmulatedTiles`](crate::isa::tiles), and with
//! the instructions wherever the tests find a machine that has them.

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::marker::PhantomData;
use std::sync::OnceLock;

use super::Avx512Bf16;
use crate::isa::tiles::Tiles;

/// The proof that the machine has AMX with BF16, that the system lets this process use it, and that
/// the machine has AVX-512 BF16.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AmxBf16(Avx512Bf16);

impl AmxBf16 {
    /// Asks the processor and the system, once.
    pub(in crate::isa) fn detect() -> Option<Self> {
        static ALLOWED: OnceLock<bool> = OnceLock::new();
        let rows = Avx512Bf16::detect()?;
        ALLOWED
            .get_or_init(|| has_tiles() && ask_permission())
            .then_some(Self(rows))
    }

    /// What computes everything but products of tiles.
    pub(in crate::isa) fn rows(self) -> Avx512Bf16 {
        self.0
    }

    /// Makes the tile registers of this thread usable until the value is dropped.
    pub(crate) fn tiles(self) -> AmxTiles {
        #[repr(C, align(64))]
        struct Config([u8; 64]);

        // Palette 1; from byte 16 on the bytes of a row of each tile, two bytes each; from byte 48 on
        // the rows of each tile.
        const CONFIG: Config = {
            let mut config = [0; 64];
            config[0] = 1;
            let mut tile = 0;
            while tile < 8 {
                config[16 + 2 * tile] = 64;
                config[48 + tile] = 16;
                tile += 1;
            }
            Config(config)
        };
        static CONFIGURATION: Config = CONFIG;
        // SAFETY: `self` proves that the machine has the instruction and that the system allows it;
        // palette 1 was found to have eight tiles of that size. It reads 64 bytes and writes tile
        // registers, which the compiler does not use.
        unsafe {
            asm!(
                "ldtilecfg [{}]",
                in(reg) &raw const CONFIGURATION,
                options(readonly, nostack, preserves_flags)
            );
        }
        AmxTiles(PhantomData)
    }
}

/// Whether the processor has AMX with BF16 and eight tiles of 16 rows of 64 bytes, and the system
/// keeps the tiles of each thread.
fn has_tiles() -> bool {
    /// Bits of leaf 7.
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    /// Configuration and data of tiles.
    const TILE_STATE: u64 = 0b11 << 17;

    #[target_feature(enable = "xsave")]
    fn states() -> u64 {
        // SAFETY: the caller has detected the feature, and there is always a register 0.
        unsafe { _xgetbv(0) }
    }

    if !is_x86_feature_detected!("xsave") {
        return false;
    }
    // The greatest leaf, then those that exist.
    if __cpuid_count(0, 0).eax < 0x1d {
        return false;
    }
    let wanted = AMX_BF16 | AMX_TILE;
    if __cpuid_count(7, 0).edx & wanted != wanted {
        return false;
    }
    let palette = __cpuid_count(0x1d, 1);
    let (row_bytes, tiles, rows) = (
        palette.ebx & 0xffff,
        palette.ebx >> 16,
        palette.ecx & 0xffff,
    );
    // SAFETY: `xsave` was detected.
    let states = unsafe { states() };
    row_bytes == 64 && tiles == 8 && rows == 16 && states & TILE_STATE == TILE_STATE
}

/// Linux gives a process the 8 KiB of tile data for each thread only if it asks. The permission is
/// for all threads, also for those that exist; it is refused if one of them has too small a stack for
/// signals.
#[cfg(target_os = "linux")]
fn ask_permission() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let result: i64;
    // SAFETY: a call of the system that touches no memory of this process; it overwrites `rcx` and
    // `r11`.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result == 0
}

/// Other systems have other ways to ask, which are not known here.
#[cfg(not(target_os = "linux"))]
fn ask_permission() -> bool {
    false
}

/// The tile registers of the thread that made the value, which cannot leave it.
#[derive(Debug)]
pub(crate) struct AmxTiles(PhantomData<*mut ()>);

impl Drop for AmxTiles {
    fn drop(&mut self) {
        // SAFETY: whoever made the value had the proof that the instruction exists; it makes the
        // tile registers zero, which the compiler does not use.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }
}

impl Tiles for AmxTiles {
    #[inline(always)]
    fn zero<const TILE: usize>(&mut self) {
        // SAFETY: the value exists only while the registers are configured; the compiler does not use
        // them.
        unsafe { asm!("tilezero tmm{}", const TILE, options(nomem, nostack, preserves_flags)) }
    }

    #[inline(always)]
    unsafe fn load<const TILE: usize>(&mut self, at: *const u8, stride: usize) {
        // SAFETY: the value exists only while the registers are configured; the caller promises that
        // the memory can be read.
        unsafe {
            asm!(
                "tileloadd tmm{}, [{} + {}*1]",
                const TILE,
                in(reg) at,
                in(reg) stride,
                options(readonly, nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const TILE: usize>(&mut self, at: *mut u8, stride: usize) {
        // SAFETY: the value exists only while the registers are configured; the caller promises that
        // the memory can be written.
        unsafe {
            asm!(
                "tilestored [{} + {}*1], tmm{}",
                in(reg) at,
                in(reg) stride,
                const TILE,
                options(nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    fn dot<const SUMS: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        // SAFETY: the value exists only while the registers are configured; the compiler does not use
        // them.
        unsafe {
            asm!(
                "tdpbf16ps tmm{}, tmm{}, tmm{}",
                const SUMS,
                const LEFT,
                const RIGHT,
                options(nomem, nostack, preserves_flags)
            );
        }
    }
}
