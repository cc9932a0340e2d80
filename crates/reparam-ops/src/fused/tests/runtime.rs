//! Runtimes: each computes as if it were alone.

use std::num::NonZeroUsize;
use std::thread;

use burn::tensor::Tensor;
use reparam_kernels::Isa;

use super::{
    CONFIG, D, INNER, Layer, Named, PLAIN, as_bf16, attention_of, hidden, layers, mlp, qkv_widths,
    rotary_table, run,
};
use crate::fused::attention_block;
use crate::fused::buffer::Buffer;
use crate::profile::Work;
use crate::runtime::{Runtime, RuntimeError, RuntimeOptions};
use crate::segments_from_bounds;

/// More than the rows that a thread takes at once.
const N: usize = 300;

/// Forward and backward of a decoder layer.
fn layer() -> Vec<Named> {
    let gate_up = layers([INNER, INNER], D, 10, PLAIN);
    let down = layers([D], INNER, 20, PLAIN);
    let qkv = layers(qkv_widths(), D, 30, PLAIN);
    let o = layers([D], CONFIG.n_heads * CONFIG.head_dim, 40, PLAIN);
    let all: Vec<&Layer> = qkv.iter().chain(&o).chain(&gate_up).chain(&down).collect();
    let segments = segments_from_bounds(&[0, 130, N]);
    let table = rotary_table(0..N as u32);
    run(N, &all, as_bf16, |h| {
        let h = attention_block(h, attention_of(&qkv, &o, &table, false), &segments);
        mlp(&gate_up, &down, false)(h)
    })
}

fn runtime(isa: Isa) -> Runtime {
    Runtime::new(RuntimeOptions {
        isa: Some(isa),
        ..RuntimeOptions::default()
    })
}

fn with_threads(threads: usize) -> Runtime {
    Runtime::new(RuntimeOptions {
        threads: NonZeroUsize::new(threads),
        ..RuntimeOptions::default()
    })
}

#[test]
fn each_computes_beside_others_what_it_computes_alone() {
    let alone: Vec<_> = [Isa::Portable, Isa::best()]
        .map(|isa| (isa, runtime(isa).run(layer).expect("available")))
        .into();
    if Isa::best() >= Isa::Avx2Fma {
        assert_ne!(alone[0].1, alone[1].1, "other roundings, so other kernels");
    }
    thread::scope(|scope| {
        for (isa, expected) in &alone {
            scope.spawn(move || {
                for _ in 0..3 {
                    let found = runtime(*isa).run(layer).expect("available");
                    assert!(&found == expected, "{isa} beside another");
                }
            });
        }
    });
}

#[test]
fn the_profile_counts_what_runs_in_it_and_its_backward() {
    let measuring = Runtime::new(RuntimeOptions {
        profile: true,
        ..RuntimeOptions::default()
    });
    let operations = || {
        let measured = measuring.take_measured();
        let linear = measured.iter().find(|(work, _)| *work == Work::Linear);
        linear.map_or(0.0, |(_, measured)| measured.operations)
    };
    let down = layers([D], INNER, 20, PLAIN);
    let gate_up = layers([INNER, INNER], D, 10, PLAIN);
    let forward = || mlp(&gate_up, &down, false)(as_bf16(hidden(N)).require_grad());
    let loss = |y: Tensor<2>| y.sum();
    let _ = forward();
    assert_eq!(operations(), 0.0, "what runs elsewhere");
    // Three products of frozen weights in each pass, and their low-rank terms.
    let least = 3.0 * 2.0 * (N * D * INNER) as f64;
    let y = measuring.run(forward).expect("any thread");
    let of_forward = operations();
    assert!(of_forward >= least, "{of_forward} {least}");
    measuring.run(|| loss(y).backward()).expect("any thread");
    let of_backward = operations();
    assert!(
        of_backward >= least,
        "Burn's backward is not on this thread: {of_backward}"
    );
    let both = measuring.run(|| loss(forward()).backward());
    both.expect("any thread");
    assert_eq!(operations(), of_forward + of_backward);
    assert_eq!(operations(), 0.0, "taken out");
}

#[test]
fn memory_goes_back_to_the_runtime_that_it_is_from() {
    let (own, other) = (Runtime::default(), Runtime::default());
    let buffer = own.run(|| Buffer::<f32>::zeros(100)).expect("any thread");
    thread::scope(|scope| {
        scope.spawn(|| other.run(|| drop(buffer)).expect("any thread"));
    });
    let again = own.run(|| Buffer::<f32>::dirty(100)).expect("any thread");
    let copy = other.run(|| again.clone()).expect("any thread");
    assert_eq!(own.floats().counts(), (0, 100, 100));
    assert_eq!(
        other.floats().counts(),
        (0, 100, 100),
        "made where it was asked for"
    );
    drop((again, copy));
    assert_eq!(own.floats().counts(), (100, 0, 100));

    // All that a layer took is there again, tensors of hidden states included, and taking a step twice takes no more.
    let step = || {
        own.run(layer).expect("any thread");
        let counts = (own.floats().counts(), own.halves().counts());
        (counts, own.states().len())
    };
    let first = step();
    assert_eq!((first.0.0.1, first.0.1.1), (0, 0), "nothing is in use");
    assert!(first.0.1.0 > 0 && first.1 > 0, "{first:?}");
    assert_eq!(step(), first);
    assert_eq!(other.halves().counts(), (0, 0, 0));
}

#[test]
fn a_thread_computes_with_the_threads_of_its_runtime() {
    let expected = layer();
    for threads in [1, 3] {
        thread::scope(|scope| {
            let expected = &expected;
            scope.spawn(move || {
                let runtime = with_threads(threads);
                for _ in 0..2 {
                    let (running, found) = runtime
                        .run(|| (rayon::current_num_threads(), layer()))
                        .expect("a thread of its own");
                    assert_eq!(running, threads);
                    assert!(&found == expected, "{threads} threads");
                }
                let refused = with_threads(threads + 1).run(|| unreachable!("not run"));
                let Err(RuntimeError::ThreadTaken { asked, running }) = refused else {
                    panic!("{:?}", refused.map(|(): ()| ()));
                };
                assert_eq!((asked, running), (threads + 1, threads));
            });
        });
    }
}

/// Whatever the pool's threads compute, they compute with the runtime of whoever asked, and its memory comes back.
#[test]
fn the_threads_of_a_pool_compute_with_the_runtime_in_force() {
    let on = |threads| {
        thread::scope(|scope| {
            let work = || {
                let runtime = Runtime::new(RuntimeOptions {
                    isa: Some(Isa::Portable),
                    threads: NonZeroUsize::new(threads),
                    profile: false,
                });
                let found = runtime.run(layer).expect("a thread of its own");
                let (_, n_used, most_used) = runtime.halves().counts();
                assert_eq!(n_used, 0, "{threads} threads");
                (found, most_used)
            };
            scope.spawn(work).join().expect("no panic")
        })
    };
    let (alone, _) = on(1);
    for threads in [2, 3] {
        assert!(on(threads).0 == alone, "{threads} threads");
    }
}

#[test]
fn calls_nest_and_end_with_a_panic() {
    let before = Runtime::current();
    let (outer, inner) = (runtime(Isa::Portable), runtime(Isa::best()));
    let seen = outer.run(|| {
        let caught = std::panic::catch_unwind(|| inner.run(|| panic!("on purpose")));
        (caught.is_err(), Runtime::current() == outer, Isa::current())
    });
    assert_eq!(seen.expect("available"), (true, true, Isa::Portable));
    assert!(Runtime::current() == before);
}
