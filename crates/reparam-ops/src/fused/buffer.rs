//! Buffers that go back to a pool when they are dropped and are taken out again by the next step.
//!
//! A training step needs the same few sizes every time. From the system, fresh memory would cost a page fault
//! every 4 KiB, and clearing it another pass over memory.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;

use reparam_kernels::Bf16;

use crate::runtime::Runtime;

/// A buffer whose first content is arbitrary: whoever takes one writes all of it.
#[derive(Debug)]
pub(crate) struct Buffer<T: Pooled> {
    /// Where it goes back to, also from another thread or after its runtime's work.
    home: Runtime,
    /// May be longer than what was asked for.
    values: Vec<T>,
    len: usize,
}

/// A number that buffers are made of.
pub(crate) trait Pooled: Copy + Default + std::fmt::Debug + Send + 'static {
    fn pool(runtime: &Runtime) -> MutexGuard<'_, Pool<Self>>;
}

impl Pooled for f32 {
    fn pool(runtime: &Runtime) -> MutexGuard<'_, Pool<Self>> {
        runtime.floats()
    }
}

impl Pooled for Bf16 {
    fn pool(runtime: &Runtime) -> MutexGuard<'_, Pool<Self>> {
        runtime.halves()
    }
}

/// The buffers that nobody uses now, by their length.
#[derive(Debug, Default)]
pub(crate) struct Pool<T> {
    free: BTreeMap<usize, Vec<Vec<T>>>,
    /// Numbers in `free`.
    n_free: usize,
    /// Numbers that were taken and not given back.
    n_used: usize,
    /// The greatest `n_used` so far.
    most_used: usize,
}

impl<T: Pooled> Pool<T> {
    /// The numbers that are free, in use, and the most that ever were in use.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.n_free, self.n_used, self.most_used)
    }

    /// Takes out the shortest buffer that is long enough, and not more than half too long.
    fn take(&mut self, len: usize) -> Option<Vec<T>> {
        let (&found, _) = self.free.range(len..=len + len / 2).next()?;
        let buffers = self.free.get_mut(&found)?;
        let buffer = buffers.pop()?;
        if buffers.is_empty() {
            self.free.remove(&found);
        }
        self.n_free -= found;
        Some(buffer)
    }

    /// Frees buffers until those that are kept and those in use are no more than were once in use.
    ///
    /// Batches of other lengths would else leave behind buffers that fit nothing any more.
    fn shrink(&mut self) {
        while self.n_free > 0 && self.n_free + self.n_used > self.most_used {
            let Some(mut shortest) = self.free.first_entry() else {
                return;
            };
            self.n_free -= shortest.key();
            shortest.get_mut().pop();
            if shortest.get().is_empty() {
                shortest.remove();
            }
        }
    }
}

impl<T: Pooled> Buffer<T> {
    /// Takes a buffer of `len` numbers with any content.
    pub(crate) fn dirty(len: usize) -> Self {
        let home = Runtime::current();
        let taken = {
            let mut pool = T::pool(&home);
            let taken = pool.take(len);
            pool.n_used += taken.as_ref().map_or(len, Vec::len);
            pool.most_used = pool.most_used.max(pool.n_used);
            if taken.is_none() {
                pool.shrink();
            }
            taken
        };
        let values = taken.unwrap_or_else(|| vec![T::default(); len]);
        Self { home, values, len }
    }

    /// Takes a buffer that holds the same as `values`.
    pub(crate) fn copy_of(values: &[T]) -> Self {
        let mut copy = Self::dirty(values.len());
        copy.copy_from_slice(values);
        copy
    }

    /// Takes a buffer of zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut buffer = Self::dirty(len);
        buffer.fill(T::default());
        buffer
    }
}

impl<T: Pooled> Drop for Buffer<T> {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        let mut pool = T::pool(&self.home);
        pool.n_used -= values.len();
        pool.n_free += values.len();
        pool.free.entry(values.len()).or_default().push(values);
        pool.shrink();
    }
}

impl<T: Pooled> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[..self.len]
    }
}

impl<T: Pooled> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[..self.len]
    }
}

impl<T: Pooled> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        Self::copy_of(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_never_outgrow_what_was_once_in_use() {
        let runtime = Runtime::default();
        runtime.run(|| use_buffers(&runtime)).expect("any thread");
    }

    fn use_buffers(runtime: &Runtime) {
        let address = |buffer: &Buffer<f32>| buffer.as_ptr();
        let first = Buffer::<f32>::zeros(1000);
        let second = Buffer::<f32>::zeros(500);
        let (first_at, second_at) = (address(&first), address(&second));
        drop((first, second));
        // The same sizes in another order find the same memory, also for a little less.
        let second = Buffer::<f32>::dirty(400);
        let first = Buffer::<f32>::dirty(1000);
        assert_eq!((address(&first), address(&second)), (first_at, second_at));
        assert_eq!(second.len(), 400);
        drop((first, second));
        assert_eq!(runtime.floats().counts(), (1500, 0, 1500));
        // Nothing free fits: what is kept makes room.
        let long = Buffer::<f32>::dirty(1200);
        {
            let pool = runtime.floats();
            assert_eq!((pool.n_used, pool.most_used), (1200, 1500));
            assert!(pool.n_free + pool.n_used <= pool.most_used, "{pool:?}");
        }
        // A buffer that is much too long is left for others.
        let short = Buffer::<f32>::dirty(10);
        assert_eq!(short.len(), 10);
        drop((long, short));
        let copy = Buffer::<f32>::zeros(8).clone();
        assert_eq!(*copy, [0.0; 8]);
    }
}
