//! What the environment gives every command: the hub, threads, an instruction set.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::available_parallelism;

use reparam_formats::hub::HubOptions;
use reparam_kernels::memory::keep_freed_pages;
use reparam_kernels::with_isa;
use reparam_train::{Runtime, RuntimeOptions, Tasks};

use crate::env_vars::Environment;
use crate::error::Result;
use crate::interrupt;

/// What commands work with.
pub(crate) struct Context {
    /// Where models come from.
    pub(crate) hub: HubOptions,
    /// What a `~` at the beginning of a path stands for.
    pub(crate) home: Option<PathBuf>,
    /// The table of tasks.
    pub(crate) tasks: Tasks,
    /// Set by the first Ctrl-C.
    pub(crate) stop: Arc<AtomicBool>,
    /// Set once there is something that an interrupt must not lose.
    pub(crate) keeps: Arc<AtomicBool>,
    /// What is computed with where the run file leaves it open.
    pub(crate) runtime: RuntimeOptions,
}

impl Context {
    /// Reads the environment, and refuses an instruction set that the machine does not have.
    pub(crate) fn new(environment: &Environment) -> Result<Self> {
        let settings = environment.settings()?;
        let stop = Arc::new(AtomicBool::new(false));
        let hub = HubOptions {
            stop: Arc::clone(&stop),
            ..settings.hub
        };
        keep_freed_pages();
        let isa = settings.isa.map(|isa| isa.parse()).transpose()?;
        if let Some(isa) = isa {
            with_isa(isa, || ())?;
        }
        Ok(Self {
            tasks: Tasks::builtin()
                .with_hub(hub.clone())
                .with_home(settings.home.clone()),
            hub,
            home: settings.home,
            stop,
            keeps: Arc::default(),
            runtime: RuntimeOptions {
                isa,
                // One a core, this one included.
                threads: settings.threads.or_else(|| available_parallelism().ok()),
                profile: false,
            },
        })
    }

    /// Puts the home directory in the place of a `~` that begins a path: shells do so with words alone, not behind `--data=`
    /// and not in quotes.
    pub(crate) fn expand(&self, path: PathBuf) -> PathBuf {
        match (path.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path,
        }
    }

    /// Makes the runtime of a command, with the threads that a run file asks for if it does.
    pub(crate) fn runtime(&self, threads: usize) -> Runtime {
        Runtime::new(RuntimeOptions {
            threads: NonZeroUsize::new(threads).or(self.runtime.threads),
            ..self.runtime
        })
    }

    /// Makes Ctrl-C end an answer while there is one, which `keeps` says, and else the process.
    pub(crate) fn watch_answers(&self) -> Result<()> {
        interrupt::watch_answers(Arc::clone(&self.stop), Arc::clone(&self.keeps))
    }

    /// Makes the first Ctrl-C ask the work to stop, and the second one end the process.
    pub(crate) fn watch_interrupts(&self, said: Option<&'static str>) -> Result<()> {
        interrupt::watch(Arc::clone(&self.stop), Arc::clone(&self.keeps), said)
    }
}
