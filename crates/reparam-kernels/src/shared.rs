//! An output of which every task writes its own part.
#![expect(
    unsafe_code,
    reason = "tasks write their own parts of one output through its address"
)]

use std::marker::PhantomData;

/// The address of a slice that is borrowed for `'a`.
#[derive(Debug)]
pub(crate) struct Shared<'a, T> {
    first: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: the address comes from a mutable borrow for `'a`. Whoever uses it, from whatever thread,
// promises in `part` and `read` that no one else uses the same elements against it. Several threads may
// read the same elements, hence `Sync`.
unsafe impl<T: Send + Sync> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(values: &'a mut [T]) -> Self {
        Self {
            first: values.as_mut_ptr(),
            len: values.len(),
            borrow: PhantomData,
        }
    }

    /// Elements `start..start + len`.
    ///
    /// # Safety
    ///
    /// As long as the result exists nobody else may use these elements.
    #[inline(always)]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: the elements lie inside of the slice that is borrowed for `'a`, and the caller
        // promises that nobody else uses them.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(start), len) }
    }

    /// Elements `start..start + len`, to be read.
    ///
    /// # Safety
    ///
    /// As long as the result exists nobody may write these elements.
    #[inline(always)]
    pub(crate) unsafe fn read(&self, start: usize, len: usize) -> &'a [T] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: the elements lie inside of the slice that is borrowed for `'a`, and the caller
        // promises that nobody writes them.
        unsafe { std::slice::from_raw_parts(self.first.add(start), len) }
    }
}
