//! Attention over bf16 against the limit of the bf16 products in the same run.
//!
//! `cargo bench -p reparam-kernels --bench attention`. Items per second are FLOP/s, counting visible
//! pairs only: `4 head_dim` for each pair and query head forward, `10 head_dim` backward.

use divan::Bencher;
use divan::counter::BytesCount;
use reparam_kernels::Bf16;
use reparam_kernels::attention::{
    AttentionSaved, AttentionSavedBf16, AttentionShape, QkvGradient, Rows, Segment,
    attention_backward, attention_backward_bf16, attention_forward, attention_forward_bf16,
};
use reparam_kernels::packed::{Direction, Epilogue, Matrix, MatrixMut, PackedWeight, matmul};

mod support;
use support::{HEAD_DIM, HEADS, KV_HEADS, bf16, check, floats, flops, numbers};

const SHAPE: AttentionShape = AttentionShape {
    n_heads: HEADS,
    n_kv_heads: KV_HEADS,
    head_dim: HEAD_DIM,
    scale: 0.125,
    causal: true,
    window: None,
    soft_cap: None,
};
const Q_WIDTH: usize = HEADS * HEAD_DIM;
const KV_WIDTH: usize = KV_HEADS * HEAD_DIM;
const ROW_STRIDE: usize = Q_WIDTH + 2 * KV_WIDTH;
const COLUMNS: [usize; 3] = [0, Q_WIDTH, Q_WIDTH + KV_WIDTH];

fn main() {
    divan::main();
}

struct Data {
    shape: AttentionShape,
    segments: Vec<Segment>,
    qkv: Vec<Bf16>,
    dout: Vec<Bf16>,
    out: Vec<Bf16>,
    lse: Vec<f32>,
    gradient: Vec<Bf16>,
}

impl Data {
    fn new(shape: AttentionShape, documents: usize, len: usize) -> Self {
        let n = documents * len;
        let mut data = Self {
            shape,
            segments: (0..documents)
                .map(|i| Segment::document(i * len, len))
                .collect(),
            qkv: bf16(1, n * ROW_STRIDE),
            dout: bf16(2, n * Q_WIDTH),
            out: vec![Bf16::ZERO; n * Q_WIDTH],
            lse: vec![0.0; n * HEADS],
            gradient: vec![Bf16::ZERO; n * ROW_STRIDE],
        };
        data.forward();
        data.backward();
        data.check();
        data
    }

    fn forward(&mut self) {
        let [q, k, v] = COLUMNS.map(|at| Rows {
            values: &self.qkv[at..],
            row_stride: ROW_STRIDE,
        });
        let (out, lse) = (&mut self.out, &mut self.lse);
        attention_forward_bf16(q, k, v, self.shape, &self.segments, out, lse).expect("fits");
    }

    fn backward(&mut self) {
        let [q, k, v] = COLUMNS.map(|at| Rows {
            values: &self.qkv[at..],
            row_stride: ROW_STRIDE,
        });
        let saved = AttentionSavedBf16 {
            q,
            k,
            v,
            out: &self.out,
            lse: &self.lse,
            dout: &self.dout,
        };
        let gradient = QkvGradient {
            values: &mut self.gradient,
            row_stride: ROW_STRIDE,
            q_at: COLUMNS[0],
            k_at: COLUMNS[1],
            v_at: COLUMNS[2],
        };
        attention_backward_bf16(saved, self.shape, &self.segments, gradient).expect("fits");
    }

    /// Compares with the kernels over `f32`.
    fn check(&self) {
        let n = self.lse.len() / HEADS;
        let part = |from: &[Bf16], at: usize, width: usize| -> Vec<f32> {
            from.chunks_exact(ROW_STRIDE)
                .flat_map(|row| row[at..][..width].iter().map(|x| x.to_f32()))
                .collect()
        };
        let widths = [Q_WIDTH, KV_WIDTH, KV_WIDTH];
        let [q, k, v] = [0, 1, 2].map(|i| part(&self.qkv, COLUMNS[i], widths[i]));
        let (mut out, mut lse) = (vec![0.0; n * Q_WIDTH], vec![0.0; n * HEADS]);
        attention_forward(
            &q,
            &k,
            &v,
            self.shape,
            &self.segments,
            None,
            &mut out,
            &mut lse,
        )
        .expect("fits");
        check("out", &self.out, &out, 1e-2);
        let [mut dq, mut dk, mut dv] = widths.map(|width| vec![0.0; n * width]);
        let saved = AttentionSaved {
            q: &q,
            k: &k,
            v: &v,
            out: &out,
            lse: &lse,
            dout: &floats(&self.dout),
        };
        attention_backward(
            saved,
            self.shape,
            &self.segments,
            None,
            &mut dq,
            &mut dk,
            &mut dv,
        )
        .expect("fits");
        for (i, expected) in [dq, dk, dv].iter().enumerate() {
            let actual = part(&self.gradient, COLUMNS[i], widths[i]);
            check("gradient", &actual, expected, 2e-2);
        }
    }

    /// Visible pairs times query heads.
    fn pairs(&self) -> usize {
        let window = self.shape.window.unwrap_or(usize::MAX);
        let of_document = |len: usize| (1..=len).map(|seen| seen.min(window)).sum::<usize>();
        HEADS
            * self
                .segments
                .iter()
                .map(|segment| of_document(segment.k_len))
                .sum::<usize>()
    }
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("threads")
}

fn shape_with(window: Option<usize>, soft_cap: Option<f32>) -> AttentionShape {
    AttentionShape {
        window,
        soft_cap,
        ..SHAPE
    }
}

/// What the products reach with the same instructions.
#[divan::bench(args = [1, 2])]
fn limit(bencher: Bencher<'_, '_>, threads: usize) {
    let (m, k, n) = (1024, 1024, 768);
    let x = bf16(1, m * k);
    let w = numbers(2, n * k);
    let w = PackedWeight::new(Matrix::new(&w[..], n, k).expect("w")).expect("w");
    let mut y = vec![Bf16::ZERO; m * n];
    let mut run = || {
        let x = Matrix::new(&x[..], m, k).expect("x");
        let y = MatrixMut::new(&mut y[..], m, n).expect("y");
        matmul(x, &w, Direction::Forward, Epilogue::default(), y).expect("fits");
    };
    let pool = pool(threads);
    bencher
        .counter(flops(2 * m * k * n))
        .bench_local(|| pool.install(&mut run));
}

/// A case: what it is called, documents, their length, window, soft cap, threads.
struct Case(
    &'static str,
    usize,
    usize,
    Option<usize>,
    Option<f32>,
    usize,
);

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {} threads", self.0, self.5)
    }
}

const CASES: [Case; 8] = [
    Case("4 x 512", 4, 512, None, None, 1),
    Case("4 x 512", 4, 512, None, None, 2),
    Case("1 x 4096", 1, 4096, None, None, 1),
    Case("1 x 4096", 1, 4096, None, None, 2),
    Case("1 x 512", 1, 512, None, None, 2),
    Case("32 x 64", 32, 64, None, None, 1),
    Case("1 x 4096, window of 512", 1, 4096, Some(512), None, 1),
    Case("4 x 512, soft cap", 4, 512, None, Some(50.0), 1),
];

#[divan::bench(args = CASES)]
fn forward(bencher: Bencher<'_, '_>, case: &Case) {
    let &Case(_, documents, len, window, cap, threads) = case;
    let mut data = Data::new(shape_with(window, cap), documents, len);
    let pool = pool(threads);
    bencher
        .counter(flops(data.pairs() * 4 * HEAD_DIM))
        .bench_local(|| pool.install(|| data.forward()));
}

#[divan::bench(args = CASES)]
fn backward(bencher: Bencher<'_, '_>, case: &Case) {
    let &Case(_, documents, len, window, cap, threads) = case;
    let mut data = Data::new(shape_with(window, cap), documents, len);
    let pool = pool(threads);
    bencher
        .counter(flops(data.pairs() * 10 * HEAD_DIM))
        .bench_local(|| pool.install(|| data.backward()));
}

/// One query over all keys; bytes are those of keys and values.
#[divan::bench(args = [512, 4096, 32768], consts = [1, 2])]
fn decode<const THREADS: usize>(bencher: Bencher<'_, '_>, n_keys: usize) {
    let q = bf16(1, Q_WIDTH);
    let [k, v] = [2, 3].map(|seed| bf16(seed, n_keys * KV_WIDTH));
    let segments = [Segment {
        q_start: 0,
        q_len: 1,
        k_start: 0,
        k_len: n_keys,
    }];
    let (mut out, mut lse) = (vec![Bf16::ZERO; Q_WIDTH], vec![0.0; HEADS]);
    let mut run = || {
        let [q, k, v] = [(&q, Q_WIDTH), (&k, KV_WIDTH), (&v, KV_WIDTH)]
            .map(|(values, row_stride)| Rows { values, row_stride });
        attention_forward_bf16(q, k, v, SHAPE, &segments, &mut out, &mut lse).expect("fits");
    };
    let pool = pool(THREADS);
    bencher
        .counter(BytesCount::new(2 * (k.len() + v.len())))
        .bench_local(|| pool.install(&mut run));
}
