//! Keeping memory that will be needed again.

/// Hands freed memory back to the system once, after work whose memory is of other sizes than what comes next.
///
/// Reading a text takes some fifty bytes for each of its own; what is kept of that after [`keep_freed_pages`] lies in pieces
/// that the buffers of a step do not fit into.
///
/// Affects glibc's allocator; does nothing elsewhere.
pub fn release_freed_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;

        #[expect(unsafe_code, reason = "a function of the C library")]
        // SAFETY: `malloc_trim` takes a size, may be called at any time from any thread, and has this signature in glibc.
        unsafe {
            unsafe extern "C" {
                fn malloc_trim(pad: usize) -> c_int;
            }
            malloc_trim(0);
        }
    }
}

/// Makes the allocator of this process keep freed memory instead of handing it back to the system.
///
/// A training step allocates and frees the same hundreds of megabytes every time. Handed back, each page costs a fault when it is
/// touched again, some 0.2 microseconds for 4 KiB. What was allocated in pieces of more than 32 MiB is still handed back.
///
/// Affects glibc's allocator; does nothing elsewhere. Meant to be called once, at the start of a program that trains.
pub fn keep_freed_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;

        // From `malloc.h`; they are part of the ABI.
        const M_TRIM_THRESHOLD: c_int = -1;
        const M_MMAP_THRESHOLD: c_int = -3;
        /// What glibc allows at most.
        const GREATEST_MMAP_THRESHOLD: c_int = 32 << 20;

        #[expect(unsafe_code, reason = "a function of the C library")]
        // SAFETY: `mallopt` takes two integers, may be called at any time from any thread, and has this signature in glibc.
        unsafe {
            unsafe extern "C" {
                fn mallopt(parameter: c_int, value: c_int) -> c_int;
            }
            mallopt(M_TRIM_THRESHOLD, c_int::MAX);
            mallopt(M_MMAP_THRESHOLD, GREATEST_MMAP_THRESHOLD);
        }
    }
}
