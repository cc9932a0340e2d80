//! Products over bf16 at the shapes of SmolLM2-135M with 2048 tokens, beside the same in `f32`, on all
//! threads.
//!
//! Each benchmark compares the answers of kernel and peer before any time is taken. Items per second
//! are FLOP/s.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use rayon::prelude::*;
use reparam_kernels::capabilities::{measure_mul_add_limit_gflops, measure_pair_limit_gflops};
use reparam_kernels::matmul::{MatMut, MatRef, matmul as f32_matmul};
use reparam_kernels::packed::{
    Direction, Epilogue, LowRankTerm, Matrix, MatrixMut, PackedWeight, linear_cross_entropy,
    matmul, product,
};
use reparam_kernels::{Bf16, Isa, cross_entropy, with_isa};

mod support;
use support::{
    HEAD_DIM, HIDDEN, INTERMEDIATE, KV_HEADS, N, RANK, VOCABULARY, bf16, check, floats, flops,
    numbers,
};

const KEYS: usize = KV_HEADS * HEAD_DIM;

#[expect(clippy::print_stderr, reason = "what the figures are compared with")]
fn main() {
    // No benchmark: they take their time by themselves.
    let limits = [measure_pair_limit_gflops(), measure_mul_add_limit_gflops()];
    if let [Ok(pairs), Ok(mul_adds)] = limits {
        eprintln!("limits of the registers: bf16 pairs {pairs:.0}, f32 {mul_adds:.0} GFLOP/s");
    }
    divan::main();
}

/// `d_in` and `d_out` of the linear layers.
const SHAPES: [(usize, usize); 4] = [
    (HIDDEN, INTERMEDIATE),
    (INTERMEDIATE, HIDDEN),
    (HIDDEN, HIDDEN),
    (HIDDEN, KEYS),
];

fn view(x: &[Bf16], rows: usize, cols: usize) -> Matrix<'_> {
    Matrix::new(x, rows, cols).expect("shape")
}

/// `y = x W'` or `dx = dy W` in `f32`.
fn gemm(x: &[f32], w: &[f32], y: &mut [f32], m: usize, (k, n): (usize, usize), dir: Direction) {
    let w = MatRef::new(w, n, k).expect("w");
    let (w, k, n) = match dir {
        Direction::Forward => (w.t(), k, n),
        Direction::Backward => (w, n, k),
    };
    f32_matmul(
        MatMut::new(y, m, n).expect("y"),
        MatRef::new(x, m, k).expect("x"),
        w,
        1.0,
        0.0,
    )
    .expect("shapes fit");
}

struct Layer {
    m: usize,
    shape: (usize, usize),
    dir: Direction,
    sums: usize,
    cols: usize,
    x: Vec<Bf16>,
    w: Vec<Bf16>,
    packed: PackedWeight,
    t: Vec<Bf16>,
    small: Vec<Bf16>,
    y: Vec<Bf16>,
}

impl Layer {
    fn new(m: usize, shape: (usize, usize), dir: Direction) -> Self {
        let (k, n) = shape;
        let (sums, cols) = match dir {
            Direction::Forward => (k, n),
            Direction::Backward => (n, k),
        };
        let w = bf16(2, n * k);
        let mut layer = Self {
            m,
            shape,
            dir,
            sums,
            cols,
            x: bf16(1, m * sums),
            packed: PackedWeight::new(view(&w, n, k)).expect("shape"),
            w,
            t: bf16(3, m * RANK),
            small: bf16(4, RANK * cols),
            y: vec![Bf16::ZERO; m * cols],
        };
        layer.run(false);
        let mut expected = vec![0.0; m * cols];
        gemm(
            &floats(&layer.x),
            &floats(&layer.w),
            &mut expected,
            m,
            shape,
            dir,
        );
        check("packed", &layer.y, &expected, 1.0 / 256.0);
        layer
    }

    fn run(&mut self, low_rank: bool) {
        let low_rank = low_rank.then(|| LowRankTerm {
            left: view(&self.t, self.m, RANK),
            right: view(&self.small, RANK, self.cols),
            scaling: 2.0,
        });
        let epilogue = Epilogue {
            low_rank,
            ..Epilogue::default()
        };
        matmul(
            view(black_box(&self.x), self.m, self.sums),
            &self.packed,
            self.dir,
            epilogue,
            MatrixMut::new(&mut self.y[..], self.m, self.cols).expect("shape"),
        )
        .expect("shapes fit");
    }
}

fn bench(bencher: Bencher<'_, '_>, m: usize, shape: (usize, usize), dir: Direction) {
    let mut layer = Layer::new(m, shape, dir);
    bencher
        .counter(flops(2 * m * shape.0 * shape.1))
        .bench_local(|| layer.run(false));
}

fn bench_gemm(bencher: Bencher<'_, '_>, m: usize, shape: (usize, usize), dir: Direction) {
    let layer = Layer::new(m, shape, dir);
    let (x, w) = (floats(&layer.x), floats(&layer.w));
    let mut y = vec![0.0; m * layer.cols];
    bencher
        .counter(flops(2 * m * shape.0 * shape.1))
        .bench_local(|| gemm(black_box(&x), &w, &mut y, m, layer.shape, dir));
}

#[divan::bench(args = SHAPES)]
fn forward(bencher: Bencher<'_, '_>, shape: (usize, usize)) {
    bench(bencher, N, shape, Direction::Forward);
}

#[divan::bench(args = SHAPES)]
fn forward_peer_gemm(bencher: Bencher<'_, '_>, shape: (usize, usize)) {
    bench_gemm(bencher, N, shape, Direction::Forward);
}

#[divan::bench(args = SHAPES)]
fn backward(bencher: Bencher<'_, '_>, shape: (usize, usize)) {
    bench(bencher, N, shape, Direction::Backward);
}

#[divan::bench(args = SHAPES)]
fn backward_peer_gemm(bencher: Bencher<'_, '_>, shape: (usize, usize)) {
    bench_gemm(bencher, N, shape, Direction::Backward);
}

/// With the low-rank term; the operations of the term count.
#[divan::bench(args = SHAPES)]
fn forward_low_rank(bencher: Bencher<'_, '_>, shape: (usize, usize)) {
    let mut layer = Layer::new(N, shape, Direction::Forward);
    bencher
        .counter(flops(2 * N * (shape.0 + RANK) * shape.1))
        .bench_local(|| layer.run(true));
}

/// What the processors of others can expect.
#[divan::bench(args = Isa::available())]
fn forward_with(bencher: Bencher<'_, '_>, isa: &Isa) {
    with_isa(*isa, || {
        bench(bencher, N, (HIDDEN, INTERMEDIATE), Direction::Forward);
    })
    .expect("available");
}

/// Decoding: bytes of the weight a second.
#[divan::bench(args = [1, 2, 4])]
fn decode_to_vocabulary(bencher: Bencher<'_, '_>, m: usize) {
    let mut layer = Layer::new(m, (HIDDEN, VOCABULARY), Direction::Forward);
    bencher
        .counter(BytesCount::new(layer.packed.bytes()))
        .bench_local(|| layer.run(false));
}

/// The same in `f32`: twice the bytes.
#[divan::bench(args = [1, 2, 4])]
fn decode_to_vocabulary_peer_gemm(bencher: Bencher<'_, '_>, m: usize) {
    let layer = Layer::new(m, (HIDDEN, VOCABULARY), Direction::Forward);
    let (x, w) = (floats(&layer.x), floats(&layer.w));
    let mut y = vec![0.0; m * VOCABULARY];
    bencher
        .counter(BytesCount::of_slice(&w))
        .bench_local(|| gemm(black_box(&x), &w, &mut y, m, layer.shape, layer.dir));
}

/// With the low-rank term, what the output held, and rows that are not neighbours.
#[divan::bench(args = SHAPES)]
fn forward_with_everything(bencher: Bencher<'_, '_>, shape: (usize, usize)) {
    let layer = Layer::new(N, shape, Direction::Forward);
    let mut y = vec![Bf16::ZERO; N * 2 * layer.cols];
    bencher
        .counter(flops(2 * N * (shape.0 + RANK) * shape.1))
        .bench_local(|| {
            let epilogue = Epilogue {
                low_rank: Some(LowRankTerm {
                    left: view(&layer.t, N, RANK),
                    right: view(&layer.small, RANK, layer.cols),
                    scaling: 2.0,
                }),
                bias: None,
                accumulate: true,
            };
            let out = MatrixMut::with_row_stride(&mut y[..], N, layer.cols, 2 * layer.cols);
            let x = view(black_box(&layer.x), N, layer.sums);
            matmul(x, &layer.packed, layer.dir, epilogue, out.expect("shape")).expect("shapes fit");
        });
}

/// The backward product of queries, keys and values in one.
#[divan::bench]
fn backward_of_a_stack(bencher: Bencher<'_, '_>) {
    bench(bencher, N, (HIDDEN, HIDDEN + 2 * KEYS), Direction::Backward);
}

/// Width and rank of the small factors, stacked ones too.
const SMALL: [(usize, usize); 6] = [
    (KEYS, RANK),
    (HIDDEN, RANK),
    (HIDDEN, 3 * RANK),
    (INTERMEDIATE, RANK),
    (2 * INTERMEDIATE, RANK),
    (2 * INTERMEDIATE, 3 * RANK),
];

/// What the small products cannot be faster than, where the caches do not hold `x`.
#[divan::bench(args = [KEYS, HIDDEN, INTERMEDIATE, 2 * INTERMEDIATE])]
fn small_plain_read(bencher: Bencher<'_, '_>, width: usize) {
    let x = bf16(1, N * width);
    bencher.counter(BytesCount::of_slice(&x)).bench_local(|| {
        black_box(&x)
            .par_chunks(1 << 15)
            .map(|x| x.iter().map(|x| u64::from(x.to_bits())).sum::<u64>())
            .sum::<u64>()
    });
}

/// `t = x A'`
#[divan::bench(args = SMALL)]
fn small_to_rank(bencher: Bencher<'_, '_>, (width, rank): (usize, usize)) {
    let (x, a) = (bf16(1, N * width), numbers(2, rank * width));
    let mut t = vec![Bf16::ZERO; N * rank];
    let mut run = || {
        let out = MatrixMut::new(&mut t[..], N, rank).expect("shape");
        let a = Matrix::new(&a[..], rank, width).expect("shape").t();
        product(view(black_box(&x), N, width), a, 1.0, false, out).expect("shapes fit");
    };
    run();
    bencher
        .counter(flops(2 * N * width * rank))
        .bench_local(run);
    let mut expected = vec![0.0; N * rank];
    let (shape, a) = ((width, rank), floats(&bf16(2, rank * width)));
    gemm(&floats(&x), &a, &mut expected, N, shape, Direction::Forward);
    check("to rank", &t, &expected, 1.0 / 256.0);
}

/// `g = dy B`
#[divan::bench(args = SMALL)]
fn small_from_gradient(bencher: Bencher<'_, '_>, (width, rank): (usize, usize)) {
    let (dy, b) = (bf16(1, N * width), numbers(2, width * rank));
    let mut g = vec![Bf16::ZERO; N * rank];
    let mut run = || {
        let out = MatrixMut::new(&mut g[..], N, rank).expect("shape");
        let b = Matrix::new(&b[..], width, rank).expect("shape");
        product(view(black_box(&dy), N, width), b, 1.0, false, out).expect("shapes fit");
    };
    run();
    bencher
        .counter(flops(2 * N * width * rank))
        .bench_local(run);
    let mut expected = vec![0.0; N * rank];
    let (shape, b) = ((rank, width), floats(&bf16(2, width * rank)));
    gemm(
        &floats(&dy),
        &b,
        &mut expected,
        N,
        shape,
        Direction::Backward,
    );
    check("from gradient", &g, &expected, 1.0 / 256.0);
}

/// `dA = s g' x`; with `of_columns` `dB = s dy' t`, the same numbers in the other order.
fn bench_gradient(bencher: Bencher<'_, '_>, (width, rank): (usize, usize), of_columns: bool) {
    let (x, g) = (bf16(1, N * width), bf16(2, N * rank));
    let mut da = vec![0.0; rank * width];
    let mut run = || {
        let (x, g) = (view(black_box(&x), N, width), view(&g, N, rank));
        if of_columns {
            let out = MatrixMut::new(&mut da[..], width, rank).expect("shape");
            product(x.t(), g, 1.0, false, out).expect("shapes fit");
        } else {
            let out = MatrixMut::new(&mut da[..], rank, width).expect("shape");
            product(g.t(), x, 1.0, false, out).expect("shapes fit");
        }
    };
    run();
    bencher
        .counter(flops(2 * N * width * rank))
        .bench_local(run);
    let mut expected = vec![0.0; rank * width];
    let out = if of_columns {
        MatMut::new(&mut expected, width, rank).expect("dB").t()
    } else {
        MatMut::new(&mut expected, rank, width).expect("dA")
    };
    let (x, g) = (floats(&x), floats(&g));
    let (g, x) = (MatRef::new(&g, N, rank), MatRef::new(&x, N, width));
    f32_matmul(out, g.expect("g").t(), x.expect("x"), 1.0, 0.0).expect("shapes fit");
    check("small gradient", &da, &expected, 1e-4);
}

#[divan::bench(args = SMALL)]
fn small_gradient_a(bencher: Bencher<'_, '_>, shape: (usize, usize)) {
    bench_gradient(bencher, shape, false);
}

#[divan::bench(args = SMALL)]
fn small_gradient_b(bencher: Bencher<'_, '_>, shape: (usize, usize)) {
    bench_gradient(bencher, shape, true);
}

const LOGITS_FLOPS: usize = 2 * N * HIDDEN * VOCABULARY;

fn labelled() -> (Vec<Bf16>, Vec<Bf16>, Vec<i32>) {
    let labels = (0..N).map(|i| (i * 7919 % VOCABULARY) as i32).collect();
    (bf16(1, N * HIDDEN), bf16(2, VOCABULARY * HIDDEN), labels)
}

#[divan::bench(sample_count = 5)]
fn loss(bencher: Bencher<'_, '_>) {
    let (h, w, labels) = labelled();
    let w = PackedWeight::new(view(&w, VOCABULARY, HIDDEN)).expect("shape");
    bencher.counter(flops(LOGITS_FLOPS)).bench_local(|| {
        linear_cross_entropy(view(&h, N, HIDDEN), &w, &labels, 1.0, None).expect("shapes fit")
    });
}

#[divan::bench(sample_count = 5)]
fn loss_and_gradient(bencher: Bencher<'_, '_>) {
    let (h, w, labels) = labelled();
    let packed = PackedWeight::new(view(&w, VOCABULARY, HIDDEN)).expect("shape");
    let mut dh = vec![Bf16::ZERO; h.len()];
    let mut run = |rows: usize| {
        let (h, labels) = (view(&h[..rows * HIDDEN], rows, HIDDEN), &labels[..rows]);
        let dh = &mut dh[..rows * HIDDEN];
        linear_cross_entropy(h, &packed, labels, 1.0, Some(dh)).expect("shapes fit")
    };
    let actual = run(256).sum;
    bencher
        .counter(flops(2 * LOGITS_FLOPS))
        .bench_local(|| run(N));
    let (h, w) = (floats(&h[..256 * HIDDEN]), floats(&w));
    let mut expected = vec![0.0; h.len()];
    let labels = &labels[..256];
    let out = Some(&mut expected[..]);
    let sum = cross_entropy::linear_cross_entropy(&h, &w, HIDDEN, labels, 1.0, out, None)
        .expect("shapes fit")
        .sum;
    assert!((actual - sum).abs() <= 1e-6 * sum);
    check("dh", &dh[..256 * HIDDEN], &expected, 1.0 / 128.0);
}
