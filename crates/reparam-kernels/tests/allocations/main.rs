//! Products with packed weights use their buffers again. The allocator that counts belongs to the
//! whole process, so this is the only test here.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use reparam_kernels::Bf16;
use reparam_kernels::packed::{
    Direction, Epilogue, LowRankTerm, Matrix, MatrixMut, PackedWeight, matmul, product,
};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counting.
struct Counting;

// SAFETY: every call is handed on to the system's allocator as it is.
#[expect(unsafe_code, reason = "an allocator is unsafe to implement")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the promises of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn view(x: &[Bf16], rows: usize, cols: usize) -> Matrix<'_> {
    Matrix::new(x, rows, cols).expect("shape")
}

const M: usize = 300;
const K: usize = 95;
const N: usize = 70;
const R: usize = 5;

#[test]
fn later_calls_allocate_nothing() {
    let numbers = |len: usize| -> Vec<Bf16> {
        (0..len)
            .map(|i| Bf16::from_f32((i as f32 * 0.37).sin()))
            .collect()
    };
    let (x, dy, t, a, b) = (
        numbers(M * K),
        numbers(M * N),
        numbers(M * R),
        numbers(R * K),
        numbers(N * R),
    );
    let x_floats: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
    let w = PackedWeight::new(view(&numbers(N * K)[..], N, K)).expect("fits");
    let (mut y, mut dx, mut da) = (vec![0.0; M * N], vec![Bf16::ZERO; M * K], vec![0.0; R * K]);

    // On the only thread of a pool, so that no queue between threads grows.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("a thread");
    let counts: Vec<usize> = pool.install(|| {
        (0..4)
            .map(|_| {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                let forward = Epilogue {
                    low_rank: Some(LowRankTerm {
                        left: view(&t[..], M, R),
                        right: view(&b[..], N, R).t(),
                        scaling: 2.0,
                    }),
                    ..Epilogue::default()
                };
                let x_view = Matrix::new(&x_floats[..], M, K).expect("shape");
                let out = MatrixMut::new(&mut y[..], M, N).expect("shape");
                matmul(x_view, &w, Direction::Forward, forward, out).expect("shapes fit");
                let backward = Epilogue {
                    low_rank: Some(LowRankTerm {
                        left: view(&t[..], M, R),
                        right: view(&a[..], R, K),
                        scaling: 2.0,
                    }),
                    accumulate: true,
                    ..Epilogue::default()
                };
                let out = MatrixMut::new(&mut dx[..], M, K).expect("shape");
                let dy_view = view(&dy[..], M, N);
                matmul(dy_view, &w, Direction::Backward, backward, out).expect("shapes fit");
                let out = MatrixMut::new(&mut da[..], R, K).expect("shape");
                let (g, x) = (view(&t[..], M, R), view(&x[..], M, K));
                product(g.t(), x, 2.0, true, out).expect("shapes fit");
                ALLOCATIONS.load(Ordering::Relaxed) - before
            })
            .collect()
    });
    assert!(counts[0] > 0, "the first call makes the buffers");
    assert_eq!(counts[1..], [0; 3]);
}
