//! Attention over bf16 uses its buffers again. The allocator that counts belongs to the whole
//! process, so this is the only test here.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use reparam_kernels::Bf16;
use reparam_kernels::attention::{
    AttentionSavedBf16, AttentionShape, QkvGradient, Rows, Segment, attention_backward_bf16,
    attention_forward_bf16,
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

const SHAPE: AttentionShape = AttentionShape {
    n_heads: 6,
    n_kv_heads: 2,
    head_dim: 20,
    scale: 0.2,
    causal: true,
    window: None,
    soft_cap: None,
};
const Q_WIDTH: usize = 120;
const STRIDE: usize = 200;
const N: usize = 700;

#[test]
fn later_calls_allocate_nothing() {
    let numbers = |len: usize| -> Vec<Bf16> {
        (0..len)
            .map(|i| Bf16::from_f32((i as f32 * 0.37).sin()))
            .collect()
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

    // On the only thread of a pool, so that no queue between threads grows.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("a thread");
    let counts: Vec<usize> = pool.install(|| {
        (0..4)
            .map(|_| {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                attention_forward_bf16(q, k, v, SHAPE, &decode, &mut out, &mut lse).expect("fits");
                attention_forward_bf16(q, k, v, SHAPE, &segments, &mut out, &mut lse)
                    .expect("fits");
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
                attention_backward_bf16(saved, SHAPE, &segments, gradient).expect("fits");
                ALLOCATIONS.load(Ordering::Relaxed) - before
            })
            .collect()
    });
    assert!(counts[0] > 0, "the first call makes the buffers");
    assert_eq!(counts[1..], [0; 3]);
}
