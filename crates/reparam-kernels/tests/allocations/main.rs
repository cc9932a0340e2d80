//! Kernels use their buffers again. The allocator that counts belongs to the whole process, so these
//! tests have one of their own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use reparam_kernels::Bf16;
use reparam_kernels::attention::{
    AttentionSavedBf16, AttentionShape, QkvGradient, Rows, Segment, attention_backward_bf16,
    attention_forward_bf16,
};
use reparam_kernels::packed::{
    Direction, Epilogue, LowRankTerm, Matrix, MatrixMut, PackedWeight, matmul, product,
};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting for each thread.
struct Counting;

// SAFETY: every call is handed on to the system's allocator as it is; the counter needs no memory.
#[expect(unsafe_code, reason = "an allocator is unsafe to implement")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
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

/// Asserts that `kernels` allocate in their first call only, on the only thread of a pool.
#[track_caller]
fn assert_later_calls_allocate_nothing(mut kernels: impl FnMut() + Send) {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("a thread");
    let counts = pool.install(|| {
        [(); 4].map(|()| {
            let before = ALLOCATIONS.get();
            kernels();
            ALLOCATIONS.get() - before
        })
    });
    assert!(counts[0] > 0, "the first call makes the buffers");
    assert_eq!(counts[1..], [0; 3]);
}

fn numbers(len: usize) -> Vec<Bf16> {
    (0..len)
        .map(|i| Bf16::from_f32((i as f32 * 0.37).sin()))
        .collect()
}

fn view(x: &[Bf16], rows: usize, cols: usize) -> Matrix<'_> {
    Matrix::new(x, rows, cols).expect("shape")
}

#[test]
fn products_with_packed_weights() {
    const M: usize = 300;
    const K: usize = 95;
    const N: usize = 70;
    const R: usize = 5;
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
    assert_later_calls_allocate_nothing(|| {
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
    });
}

#[test]
fn attention_over_bf16() {
    const Q_WIDTH: usize = 120;
    const STRIDE: usize = 200;
    const N: usize = 700;
    let shape = AttentionShape {
        n_heads: 6,
        n_kv_heads: 2,
        head_dim: 20,
        scale: 0.2,
        causal: true,
        window: None,
        soft_cap: None,
    };
    let (qkv, dout) = (numbers(N * STRIDE), numbers(N * Q_WIDTH));
    let (mut out, mut lse) = (vec![Bf16::ZERO; N * Q_WIDTH], vec![0.0; N * 6]);
    let mut values = vec![Bf16::ZERO; N * STRIDE];
    let segments = [Segment::document(100, 600), Segment::document(0, 90)];
    let decode = [Segment {
        q_start: 3,
        q_len: 1,
        k_start: 0,
        k_len: N,
    }];
    let [q, k, v] = [0, 120, 160].map(|at| Rows {
        values: &qkv[at..],
        row_stride: STRIDE,
    });
    assert_later_calls_allocate_nothing(|| {
        attention_forward_bf16(q, k, v, shape, &decode, &mut out, &mut lse).expect("fits");
        attention_forward_bf16(q, k, v, shape, &segments, &mut out, &mut lse).expect("fits");
        let saved = AttentionSavedBf16 {
            q,
            k,
            v,
            out: &out,
            lse: &lse,
            dout: &dout,
        };
        let gradient = QkvGradient {
            values: &mut values,
            row_stride: STRIDE,
            q_at: 0,
            k_at: 120,
            v_at: 160,
        };
        attention_backward_bf16(saved, shape, &segments, gradient).expect("fits");
    });
}
