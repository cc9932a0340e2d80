//! Buffers that go back to a pool when they are dropped and are taken out again by the next step.
//!
//! A training step needs the same few sizes every time. From the system, fresh memory would cost a page fault
//! every 4 KiB, and clearing it another pass over memory.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use reparam_kernels::Bf16;

/// A buffer whose first content is arbitrary: whoever takes one writes all of it.
#[derive(Debug)]
pub(crate) struct Buffer<T: Pooled> {
    /// May be longer than what was asked for.
    values: Vec<T>,
    len: usize,
}

/// A number that buffers are made of.
pub(crate) trait Pooled: Copy + Default + std::fmt::Debug + Send + 'static {
    fn pool() -> &'static Mutex<Pool<Self>>;
}

impl Pooled for f32 {
    fn pool() -> &'static Mutex<Pool<Self>> {
        static POOL: Mutex<Pool<f32>> = Mutex::new(Pool::new());
        &POOL
    }
}

impl Pooled for Bf16 {
    fn pool() -> &'static Mutex<Pool<Self>> {
        static POOL: Mutex<Pool<Bf16>> = Mutex::new(Pool::new());
        &POOL
    }
}

/// The buffers that nobody uses now, by their length.
#[derive(Debug)]
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
    const fn new() -> Self {
        Self {
            free: BTreeMap::new(),
            n_free: 0,
            n_used: 0,
            most_used: 0,
        }
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

fn lock<T: Pooled>() -> MutexGuard<'static, Pool<T>> {
    // The pool's numbers are right between any two of its statements that can panic.
    T::pool().lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Pooled> Buffer<T> {
    /// Takes a buffer of `len` numbers with any content.
    pub(crate) fn dirty(len: usize) -> Self {
        let taken = {
            let mut pool = lock::<T>();
            let taken = pool.take(len);
            pool.n_used += taken.as_ref().map_or(len, Vec::len);
            pool.most_used = pool.most_used.max(pool.n_used);
            if taken.is_none() {
                pool.shrink();
            }
            taken
        };
        let values = taken.unwrap_or_else(|| vec![T::default(); len]);
        Self { values, len }
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
        let mut pool = lock::<T>();
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

    /// A type of its own, so that other tests do not share the pool.
    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    struct Number(u32);

    impl Pooled for Number {
        fn pool() -> &'static Mutex<Pool<Self>> {
            static POOL: Mutex<Pool<Number>> = Mutex::new(Pool::new());
            &POOL
        }
    }

    #[test]
    fn buffers_come_back_and_never_outgrow_what_was_once_in_use() {
        let address = |buffer: &Buffer<Number>| buffer.as_ptr();
        let first = Buffer::<Number>::zeros(1000);
        let second = Buffer::<Number>::zeros(500);
        let (first_at, second_at) = (address(&first), address(&second));
        drop((first, second));
        // The same sizes in another order find the same memory, also for a little less.
        let second = Buffer::<Number>::dirty(400);
        let first = Buffer::<Number>::dirty(1000);
        assert_eq!((address(&first), address(&second)), (first_at, second_at));
        assert_eq!(second.len(), 400);
        drop((first, second));
        {
            let pool = lock::<Number>();
            assert_eq!((pool.n_free, pool.n_used, pool.most_used), (1500, 0, 1500));
        }
        // Nothing free fits: what is kept makes room.
        let long = Buffer::<Number>::dirty(1200);
        {
            let pool = lock::<Number>();
            assert_eq!((pool.n_used, pool.most_used), (1200, 1500));
            assert!(pool.n_free + pool.n_used <= pool.most_used, "{pool:?}");
        }
        // A buffer that is much too long is left for others.
        let short = Buffer::<Number>::dirty(10);
        assert_eq!(short.len(), 10);
        drop((long, short));
        let copy = Buffer::<Number>::zeros(8).clone();
        assert_eq!(*copy, [Number(0); 8]);
    }
}
