//! What computes, and where: threads, instruction set, memory that is used again, and the profile of the work.

use std::cell::RefCell;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};
use reparam_kernels::{Bf16, Isa, KernelError, with_isa};
use thiserror::Error;

use crate::fused::{Pool, States};
use crate::profile::{Measured, Sums, Work};

/// What a [`Runtime`] is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RuntimeOptions {
    /// The instruction set of the kernels; the fastest of the machine if absent.
    pub isa: Option<Isa>,
    /// Threads that compute, the one that calls included; those of rayon's pool that the calling thread is in if absent,
    /// which has one a core if nobody said otherwise.
    pub threads: Option<NonZeroUsize>,
    /// Whether the work is measured; see [`Runtime::take_measured`].
    pub profile: bool,
}

/// What operations compute with, as one value, so that several models in a process can each have their own.
///
/// A runtime is handed to whoever loads, trains or asks a model. [`run`](Self::run) puts it in force on the calling thread;
/// operations and their backward passes find it there. A thread for which nobody did has one of its own, with the options'
/// defaults.
///
/// Clones are the same runtime. Its memory goes back to the system when the last clone and the last buffer that was taken
/// from it are gone.
///
/// ```
/// use reparam_kernels::Isa;
/// use reparam_ops::runtime::{Runtime, RuntimeOptions};
///
/// let runtime = Runtime::new(RuntimeOptions { isa: Some(Isa::Portable), ..RuntimeOptions::default() });
/// assert_eq!(runtime.run(Isa::current)?, Isa::Portable);
/// # Ok::<(), reparam_ops::runtime::RuntimeError>(())
/// ```
#[derive(Clone, Default)]
pub struct Runtime(Arc<Inner>);

/// Why a runtime cannot compute on a thread.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The machine lacks the instruction set.
    #[error(transparent)]
    Isa(#[from] KernelError),
    /// A thread is in one pool for as long as it lives.
    #[error(
        "the calling thread is in a pool of {running} threads, so it cannot compute with {asked}"
    )]
    ThreadTaken {
        /// The threads that were asked for.
        asked: usize,
        /// Those of the pool that the thread is in.
        running: usize,
    },
    /// The system gives no more threads.
    #[error("cannot start {asked} threads")]
    Threads {
        /// The threads that were asked for.
        asked: usize,
        /// What the system said.
        source: rayon::ThreadPoolBuildError,
    },
}

impl RuntimeError {
    /// Returns what to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Isa(error) => error.hint(),
            Self::ThreadTaken { running, .. } => Some(format!(
                "use the runtime on another thread, or give it {running} threads"
            )),
            Self::Threads { .. } => Some("use fewer threads".to_owned()),
        }
    }
}

impl Runtime {
    /// Makes one; nothing is started yet.
    #[must_use]
    pub fn new(options: RuntimeOptions) -> Self {
        Self(Arc::new(Inner {
            options,
            ..Inner::default()
        }))
    }

    /// Runs `work` with this runtime in force on the calling thread.
    ///
    /// Calls nest; what was in force before is so again afterwards, also when `work` panics.
    ///
    /// With a number of threads, the calling thread becomes one of a pool of that size and stays so until it ends. (Kernels
    /// are called some thousand times a step. Were the caller none of those that compute, each call would put it to sleep
    /// and wake it up.) So a server gives each model a thread and its runtime the number of threads.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::Isa`] if the machine lacks the instruction set, [`RuntimeError::ThreadTaken`] if the calling thread
    /// is in a pool of another size, [`RuntimeError::Threads`] if the system gives no threads. `work` is not run then.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> Result<R, RuntimeError> {
        let in_force = || {
            if let Some(threads) = self.0.options.threads {
                join_pool(threads.get())?;
            }
            let _before = Before(Some(CURRENT.replace(self.clone())));
            Ok(work())
        };
        with_isa(self.isa(), in_force)?
    }

    /// Runs a part of the work that is in force on another thread, of a pool that shares it out: what it calls finds this
    /// runtime there, too.
    pub(crate) fn share<R>(&self, part: impl FnOnce() -> R) -> R {
        let _before = Before(Some(CURRENT.replace(self.clone())));
        with_isa(self.isa(), part).unwrap_or_else(|error| panic!("it is in force already: {error}"))
    }

    /// Returns another runtime that differs in the number of threads alone.
    #[must_use]
    pub fn with_threads(&self, threads: NonZeroUsize) -> Self {
        Self::new(RuntimeOptions {
            threads: Some(threads),
            ..self.0.options
        })
    }

    /// Returns the instruction set of its kernels.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.0.options.isa.unwrap_or_else(Isa::best)
    }

    /// Returns how many threads compute what the calling thread asks for now.
    #[must_use]
    pub fn running_threads() -> usize {
        rayon::current_num_threads()
    }

    /// Returns the runtime in force on this thread.
    #[must_use]
    pub fn current() -> Self {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Takes out what was measured since it was last asked, in the order of [`Work::ALL`]; zeros if it does not measure.
    #[must_use]
    pub fn take_measured(&self) -> [(Work, Measured); Work::ALL.len()] {
        let sums = std::mem::take(&mut *self.sums());
        Work::ALL.map(|work| (work, sums[work as usize]))
    }

    pub(crate) fn floats(&self) -> MutexGuard<'_, Pool<f32>> {
        lock(&self.0.floats)
    }

    pub(crate) fn halves(&self) -> MutexGuard<'_, Pool<Bf16>> {
        lock(&self.0.halves)
    }

    pub(crate) fn states(&self) -> MutexGuard<'_, States> {
        lock(&self.0.states)
    }

    pub(crate) fn sums(&self) -> MutexGuard<'_, Sums> {
        lock(&self.0.sums)
    }

    /// Returns the runtime in force on this thread if it measures.
    pub(crate) fn measuring() -> Option<Self> {
        CURRENT.with_borrow(|current| current.0.options.profile.then(|| current.clone()))
    }
}

/// What is kept is right between any two statements that can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the calling thread one of a pool of that size.
fn join_pool(asked: usize) -> Result<(), RuntimeError> {
    if rayon::current_thread_index().is_some() {
        let running = rayon::current_num_threads();
        return if running == asked {
            Ok(())
        } else {
            Err(RuntimeError::ThreadTaken { asked, running })
        };
    }
    let pool = ThreadPoolBuilder::new()
        .num_threads(asked)
        .use_current_thread()
        .build()
        .map_err(|source| RuntimeError::Threads { asked, source })?;
    POOL.set(Some(pool));
    Ok(())
}

/// Runtimes are equal if they are the same one.
impl PartialEq for Runtime {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Inner {
    options: RuntimeOptions,
    floats: Mutex<Pool<f32>>,
    halves: Mutex<Pool<Bf16>>,
    states: Mutex<States>,
    sums: Mutex<Sums>,
}

thread_local! {
    static CURRENT: RefCell<Runtime> = RefCell::default();
    /// The pool that this thread was made a part of; its other threads end with this one.
    static POOL: RefCell<Option<ThreadPool>> = const { RefCell::new(None) };
}

/// Puts back what was in force.
struct Before(Option<Runtime>);

impl Drop for Before {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            drop(CURRENT.replace(before));
        }
    }
}
