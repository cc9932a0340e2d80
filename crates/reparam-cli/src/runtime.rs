//! What the environment gives every command: the hub, threads, an instruction set.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rayon::ThreadPoolBuilder;
use reparam_formats::hub::HubOptions;
use reparam_kernels::memory::keep_freed_pages;
use reparam_kernels::{Isa, set_isa};
use reparam_train::Tasks;

use crate::env_vars::Environment;
use crate::error::CliError;
use crate::interrupt;

/// What commands work with.
pub(crate) struct Runtime {
    /// Where models come from.
    pub(crate) hub: HubOptions,
    /// The table of tasks.
    pub(crate) tasks: Tasks,
    /// Set by the first Ctrl-C.
    pub(crate) stop: Arc<AtomicBool>,
    /// Threads to compute with where the run file leaves it open; all cores if `None`.
    threads: Option<NonZeroUsize>,
}

impl Runtime {
    /// Reads the environment, and lets a forced instruction set take effect.
    pub(crate) fn new(environment: &Environment) -> Result<Self, CliError> {
        let settings = environment.settings()?;
        keep_freed_pages();
        if let Some(isa) = settings.isa {
            set_isa(isa.parse::<Isa>()?)?;
        }
        Ok(Self {
            hub: settings.hub,
            tasks: Tasks::builtin(),
            stop: Arc::new(AtomicBool::new(false)),
            threads: settings.threads,
        })
    }

    /// Starts the threads that compute: those of the run file, else of the environment, else one
    /// a core.
    pub(crate) fn start_threads(&self, asked: usize) -> Result<(), CliError> {
        let threads = match asked {
            0 => self.threads.map_or(0, NonZeroUsize::get),
            asked => asked,
        };
        // Kernels are called from this thread some thousand times a step; were it none of those that compute, each call would put
        // it to sleep and wake it up.
        Ok(ThreadPoolBuilder::new()
            .num_threads(threads)
            .use_current_thread()
            .build_global()?)
    }

    /// Makes the first Ctrl-C ask the work to stop, and the second one end the process.
    pub(crate) fn watch_interrupts(&self, said: &'static str) -> Result<(), CliError> {
        interrupt::watch(Arc::clone(&self.stop), said)
    }
}
