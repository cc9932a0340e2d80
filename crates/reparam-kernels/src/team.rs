//! Threads that stay awake between the products of a decoded token.
//!
//! A token is some hundred products of ten to fifty microseconds, one after the other. A thread that
//! finds nothing to do in between goes to sleep, and to wake it takes as long as such a product. In a
//! team the threads of the pool wait for the next product without sleeping, so they are for short
//! stretches of work only: while a team is together, its threads do nothing else.
#![expect(
    unsafe_code,
    reason = "a team runs a closure that its leader lends it until all tasks have ended"
)]

use std::any::Any;
use std::cell::{RefCell, UnsafeCell};
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::yield_now;

/// Looks for work before a thread lets others run, some tens of microseconds: longer than what lies
/// between two products.
const SPINS: u32 = 1 << 12;

thread_local! {
    /// The team that this thread leads.
    static TEAM: RefCell<Option<Arc<Team>>> = const { RefCell::new(None) };
}

/// Runs `work` with the threads of the current rayon pool waiting for the tasks of its kernels.
///
/// Only kernels that read each weight once for a few rows share their tasks with a team: products of
/// up to four rows, attention of one query, and the steps of a recurrent layer with few sequences or a large
/// weight, which hold the team from the first step to the last. What else `work` gives to the pool waits until a thread
/// has time, and is done by the calling thread meanwhile. Results are the same bits as without.
///
/// # Panics
///
/// Panics if `work` does.
pub fn with_team<R>(work: impl FnOnce() -> R) -> R {
    let helpers = rayon::current_num_threads() - 1;
    if helpers == 0 || TEAM.with_borrow(Option::is_some) {
        return work();
    }
    let team = Arc::new(Team::default());
    for _ in 0..helpers {
        let team = Arc::clone(&team);
        rayon::spawn(move || team.help());
    }
    TEAM.set(Some(Arc::clone(&team)));
    // Also when `work` panics, the threads get back to the pool.
    let result = catch_unwind(AssertUnwindSafe(work));
    TEAM.set(None);
    team.closed.store(true, Ordering::Release);
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Runs `task` for each number below `tasks` on the team that this thread leads, if it does.
pub(crate) fn run(tasks: usize, task: &(dyn Fn(usize) + Sync)) -> bool {
    let Some(team) = TEAM.with_borrow(Clone::clone) else {
        return false;
    };
    team.run(tasks, task);
    true
}

type Task<'a> = &'a (dyn Fn(usize) + Sync);

#[derive(Default)]
struct Team {
    /// The number of tasks in the upper half, the next one in the lower. A task belongs to who has
    /// counted it up.
    ticket: AtomicU64,
    ended: AtomicUsize,
    closed: AtomicBool,
    /// What the tasks are; only who has one of them reads it.
    task: UnsafeCell<Option<Task<'static>>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: all fields but `task` are. The leader writes `task` when all tasks of the ticket have been
// taken and have ended, and then publishes a new ticket; others read it after they have taken a task
// from that ticket and before they count it as ended.
unsafe impl Sync for Team {}
// SAFETY: as above; what `task` points to can be shared.
unsafe impl Send for Team {}

impl Team {
    fn run(&self, tasks: usize, task: Task<'_>) {
        debug_assert!(tasks <= u32::MAX as usize);
        // SAFETY: this only changes the lifetime. Nobody takes a task of this call after `ended` has
        // reached their number, and this function does not return before.
        let task = unsafe { std::mem::transmute::<Task<'_>, Task<'static>>(task) };
        // SAFETY: the tasks before have ended, so nobody reads; only the leader writes.
        unsafe { *self.task.get() = Some(task) };
        self.ended.store(0, Ordering::Relaxed);
        self.ticket.store((tasks as u64) << 32, Ordering::Release);
        while self.run_one() {}
        let mut spins = 0;
        while self.ended.load(Ordering::Acquire) < tasks {
            wait(&mut spins);
        }
        let panic = self
            .panic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Takes one task and runs it; returns whether there was one.
    fn run_one(&self) -> bool {
        let mut ticket = self.ticket.load(Ordering::Acquire);
        loop {
            let (tasks, next) = (ticket >> 32, ticket & u64::from(u32::MAX));
            if next >= tasks {
                return false;
            }
            let taken = self.ticket.compare_exchange_weak(
                ticket,
                ticket + 1,
                Ordering::Acquire,
                Ordering::Acquire,
            );
            match taken {
                Err(current) => ticket = current,
                Ok(_) => {
                    // SAFETY: this thread has one of the tasks, which has not ended.
                    let task = unsafe { *self.task.get() };
                    let run = || task.map(|task| task(next as usize));
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                        *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
                    }
                    self.ended.fetch_add(1, Ordering::Release);
                    return true;
                }
            }
        }
    }

    /// Runs tasks until the team is closed.
    fn help(&self) {
        // A leader that waits for other work of the pool may be given this by it, and would wait for
        // itself.
        if TEAM.with_borrow(Option::is_some) {
            return;
        }
        let mut spins = 0;
        while !self.closed.load(Ordering::Acquire) {
            if self.run_one() {
                spins = 0;
            } else {
                wait(&mut spins);
            }
        }
    }
}

fn wait(spins: &mut u32) {
    if *spins < SPINS {
        *spins += 1;
        spin_loop();
    } else {
        // Somebody else may need the processor, perhaps the thread that is waited for.
        yield_now();
    }
}
