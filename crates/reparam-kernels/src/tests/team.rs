//! Teams of threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::par;
use crate::team::with_team;

fn pool(threads: usize) -> rayon::ThreadPool {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
    builder.build().expect("a small pool")
}

/// Every task runs once, whatever the number of threads, in many short calls one after the other.
#[test]
fn every_task_runs_once() {
    for threads in [1, 2, 3, 5] {
        pool(threads).install(|| {
            with_team(|| {
                for call in 0..2000 {
                    let tasks = call % 19;
                    let counts: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    par::for_each_index(tasks, |task| {
                        counts[task].fetch_add(1 + call, Ordering::Relaxed);
                    });
                    // All have ended when the call returns.
                    for count in &counts {
                        assert_eq!(count.load(Ordering::Relaxed), 1 + call);
                    }
                }
            });
        });
    }
}

/// A thread that is busy elsewhere is not waited for, and comes too late without harm.
#[test]
fn a_busy_pool_does_not_keep_a_team_waiting() {
    pool(2).install(|| {
        let done = AtomicUsize::new(0);
        rayon::scope(|scope| {
            scope.spawn(|_| {
                while done.load(Ordering::Acquire) == 0 {
                    std::thread::yield_now();
                }
            });
            let sum = AtomicUsize::new(0);
            with_team(|| {
                par::for_each_index(10, |task| {
                    sum.fetch_add(task, Ordering::Relaxed);
                });
            });
            assert_eq!(sum.load(Ordering::Relaxed), 45);
            done.store(1, Ordering::Release);
        });
    });
}

#[test]
fn teams_nest_and_leave_the_pool_as_it_was() {
    use rayon::prelude::*;
    pool(3).install(|| {
        let sum = AtomicUsize::new(0);
        let add = |task: usize| {
            sum.fetch_add(task, Ordering::Relaxed);
        };
        with_team(|| {
            with_team(|| par::for_each_index(4, add));
            par::for_each_index(4, add);
            // Work of the pool itself is done, too.
            (0..4_usize).into_par_iter().for_each(add);
        });
        (0..4_usize).into_par_iter().for_each(add);
        assert_eq!(sum.load(Ordering::Relaxed), 24);
    });
}

#[test]
fn a_panic_reaches_the_caller_after_all_tasks() {
    pool(3).install(|| {
        let ended = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            with_team(|| {
                par::for_each_index(8, |task| {
                    assert_ne!(task, 5, "the fifth");
                    ended.fetch_add(1, Ordering::Relaxed);
                });
            });
        }));
        assert!(result.is_err());
        assert_eq!(ended.load(Ordering::Relaxed), 7);
        // The next team works as if nothing had been.
        with_team(|| {
            par::for_each_index(8, |_| {
                ended.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(ended.load(Ordering::Relaxed), 15);
    });
}
