//! The kernels at the shapes of SmolLM2-135M with 2048 tokens, beside a peer that computes the same.
//!
//! Each benchmark compares the answers of kernel and peer before any time is taken.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use rayon::prelude::*;
use reparam_kernels::attention::{
    AttentionSaved, AttentionShape, Segment, attention_backward, attention_forward,
};
use reparam_kernels::cross_entropy::linear_cross_entropy;
use reparam_kernels::linear::{
    LinearShape, LowRank, LowRankGrads, LowRankInputs, low_rank_backward, low_rank_forward,
};
use reparam_kernels::matmul::{MatMut, MatRef, matmul};
use reparam_kernels::rms_norm::{rms_norm_backward, rms_norm_forward};
use reparam_kernels::swiglu::{swiglu_backward, swiglu_forward};

mod support;
use support::{
    HEAD_DIM, HEADS, HIDDEN, INTERMEDIATE, KV_HEADS, N, RANK, VOCABULARY, check, flops, numbers,
};

fn main() {
    divan::main();
}

mod matrix_product {
    use super::*;

    fn naive(a: &[f32], w: &[f32], y: &mut [f32], k: usize, n: usize) {
        for (a, y) in a.chunks_exact(k).zip(y.chunks_exact_mut(n)) {
            for (w, y) in w.chunks_exact(k).zip(y) {
                *y = a.iter().zip(w).map(|(a, w)| a * w).sum();
            }
        }
    }

    fn kernel(x: &[f32], w: &[f32], y: &mut [f32], m: usize, k: usize, n: usize) {
        matmul(
            MatMut::new(y, m, n).expect("y"),
            MatRef::new(x, m, k).expect("x"),
            MatRef::new(w, n, k).expect("w").t(),
            1.0,
            0.0,
        )
        .expect("shapes fit");
    }

    fn bench(bencher: Bencher<'_, '_>, m: usize, k: usize, n: usize) {
        let (x, w) = (numbers(1, m * k), numbers(2, n * k));
        let mut y = vec![0.0; m * n];
        kernel(&x, &w, &mut y, m, k, n);
        let rows = m.min(16);
        let mut expected = vec![0.0; rows * n];
        naive(&x[..rows * k], &w, &mut expected, k, n);
        check("matmul", &y[..rows * n], &expected, 1e-5);
        bencher
            .counter(flops(2 * m * k * n))
            .bench_local(|| kernel(black_box(&x), black_box(&w), &mut y, m, k, n));
    }

    #[divan::bench]
    fn hidden_to_hidden(bencher: Bencher<'_, '_>) {
        bench(bencher, N, HIDDEN, HIDDEN);
    }

    #[divan::bench]
    fn hidden_to_intermediate(bencher: Bencher<'_, '_>) {
        bench(bencher, N, HIDDEN, INTERMEDIATE);
    }

    #[divan::bench]
    fn intermediate_to_hidden(bencher: Bencher<'_, '_>) {
        bench(bencher, N, INTERMEDIATE, HIDDEN);
    }

    /// Decoding: bound by reading the weight.
    #[divan::bench]
    fn one_row_to_vocabulary(bencher: Bencher<'_, '_>) {
        bench(bencher, 1, HIDDEN, VOCABULARY);
    }

    #[divan::bench(sample_count = 5)]
    fn peer_naive_hidden_to_hidden(bencher: Bencher<'_, '_>) {
        let (x, w) = (numbers(1, N * HIDDEN), numbers(2, HIDDEN * HIDDEN));
        let mut y = vec![0.0; N * HIDDEN];
        bencher
            .counter(flops(2 * N * HIDDEN * HIDDEN))
            .bench_local(|| naive(black_box(&x), black_box(&w), &mut y, HIDDEN, HIDDEN));
    }
}

mod low_rank {
    use super::*;

    const SHAPE: LinearShape = LinearShape {
        tokens: N,
        d_in: HIDDEN,
        d_out: INTERMEDIATE,
    };

    struct Data {
        x: Vec<f32>,
        w: Vec<f32>,
        a: Vec<f32>,
        b: Vec<f32>,
        dy: Vec<f32>,
        y: Vec<f32>,
        xa: Vec<f32>,
    }

    impl Data {
        fn new() -> Self {
            let mut data = Self {
                x: numbers(1, N * HIDDEN),
                w: numbers(2, INTERMEDIATE * HIDDEN),
                a: numbers(3, RANK * HIDDEN),
                b: numbers(4, INTERMEDIATE * RANK),
                dy: numbers(5, N * INTERMEDIATE),
                y: vec![0.0; N * INTERMEDIATE],
                xa: vec![0.0; N * RANK],
            };
            data.forward();
            let effective = data.effective_weight();
            let mut expected = vec![0.0; N * INTERMEDIATE];
            matmul(
                MatMut::new(&mut expected, N, INTERMEDIATE).expect("y"),
                MatRef::new(&data.x, N, HIDDEN).expect("x"),
                MatRef::new(&effective, INTERMEDIATE, HIDDEN)
                    .expect("w")
                    .t(),
                1.0,
                0.0,
            )
            .expect("shapes fit");
            check("low rank", &data.y, &expected, 1e-5);
            data
        }

        fn low_rank(&self) -> LowRank<'_> {
            LowRank {
                a: &self.a,
                b: &self.b,
                rank: RANK,
                scaling: 2.0,
            }
        }

        fn effective_weight(&self) -> Vec<f32> {
            let mut w = self.w.clone();
            matmul(
                MatMut::new(&mut w, INTERMEDIATE, HIDDEN).expect("w"),
                MatRef::new(&self.b, INTERMEDIATE, RANK).expect("b"),
                MatRef::new(&self.a, RANK, HIDDEN).expect("a"),
                2.0,
                1.0,
            )
            .expect("shapes fit");
            w
        }

        fn forward(&mut self) {
            let (mut y, mut xa) = (std::mem::take(&mut self.y), std::mem::take(&mut self.xa));
            let low_rank = Some(self.low_rank());
            low_rank_forward(SHAPE, &self.x, &self.w, low_rank, None, &mut y, &mut xa)
                .expect("shapes fit");
            (self.y, self.xa) = (y, xa);
        }
    }

    #[divan::bench]
    fn forward(bencher: Bencher<'_, '_>) {
        let mut data = Data::new();
        let branch = 2 * N * RANK * (HIDDEN + INTERMEDIATE);
        bencher
            .counter(flops(2 * N * HIDDEN * INTERMEDIATE + branch))
            .bench_local(|| data.forward());
    }

    #[divan::bench]
    fn backward(bencher: Bencher<'_, '_>) {
        let data = Data::new();
        let mut dx = vec![0.0; N * HIDDEN];
        let (mut da, mut db) = (vec![0.0; RANK * HIDDEN], vec![0.0; INTERMEDIATE * RANK]);
        let mut run = || {
            let inputs = LowRankInputs {
                dy: &data.dy,
                x: &data.x,
                x_low_rank: None,
                w: &data.w,
                low_rank: Some(data.low_rank()),
                xa: &data.xa,
            };
            let grads = LowRankGrads {
                dx: Some(&mut dx),
                dx_low_rank: None,
                da: Some(&mut da),
                db: Some(&mut db),
            };
            low_rank_backward(SHAPE, inputs, grads).expect("shapes fit");
        };
        let branch = 4 * N * RANK * (HIDDEN + INTERMEDIATE);
        bencher
            .counter(flops(2 * N * HIDDEN * INTERMEDIATE + branch))
            .bench_local(&mut run);
        let effective = data.effective_weight();
        let mut expected = vec![0.0; N * HIDDEN];
        matmul(
            MatMut::new(&mut expected, N, HIDDEN).expect("dx"),
            MatRef::new(&data.dy, N, INTERMEDIATE).expect("dy"),
            MatRef::new(&effective, INTERMEDIATE, HIDDEN).expect("w"),
            1.0,
            0.0,
        )
        .expect("shapes fit");
        run();
        check("dx", &dx, &expected, 1e-5);
    }

    /// The branch merged into the weight at every step: what a method without a plan costs.
    #[divan::bench]
    fn peer_forward_through_the_effective_weight(bencher: Bencher<'_, '_>) {
        let mut data = Data::new();
        bencher
            .counter(flops(2 * N * HIDDEN * INTERMEDIATE))
            .bench_local(|| {
                let w = data.effective_weight();
                matmul(
                    MatMut::new(&mut data.y, N, INTERMEDIATE).expect("y"),
                    MatRef::new(&data.x, N, HIDDEN).expect("x"),
                    MatRef::new(&w, INTERMEDIATE, HIDDEN).expect("w").t(),
                    1.0,
                    0.0,
                )
                .expect("shapes fit");
            });
    }
}

mod attention {
    use super::*;

    const SHAPE: AttentionShape = AttentionShape {
        n_heads: HEADS,
        n_kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        scale: 0.125,
        causal: true,
        window: None,
        soft_cap: None,
    };

    struct Data {
        q: Vec<f32>,
        k: Vec<f32>,
        v: Vec<f32>,
        dout: Vec<f32>,
        out: Vec<f32>,
        lse: Vec<f32>,
    }

    impl Data {
        fn new(n_queries: usize, n_keys: usize) -> Self {
            Self {
                q: numbers(1, n_queries * HEADS * HEAD_DIM),
                k: numbers(2, n_keys * KV_HEADS * HEAD_DIM),
                v: numbers(3, n_keys * KV_HEADS * HEAD_DIM),
                dout: numbers(4, n_queries * HEADS * HEAD_DIM),
                out: vec![0.0; n_queries * HEADS * HEAD_DIM],
                lse: vec![0.0; n_queries * HEADS],
            }
        }

        fn forward(&mut self, segments: &[Segment]) {
            let Self {
                q, k, v, out, lse, ..
            } = self;
            attention_forward(q, k, v, SHAPE, segments, None, out, lse).expect("shapes fit");
        }

        fn backward(&self, segments: &[Segment], [dq, dk, dv]: &mut [Vec<f32>; 3]) {
            let Self {
                q,
                k,
                v,
                dout,
                out,
                lse,
            } = self;
            let saved = AttentionSaved {
                q,
                k,
                v,
                out,
                lse,
                dout,
            };
            attention_backward(saved, SHAPE, segments, None, dq, dk, dv).expect("shapes fit");
        }

        fn gradients(&self) -> [Vec<f32>; 3] {
            [&self.q, &self.k, &self.v].map(|x| vec![0.0; x.len()])
        }
    }

    /// One matrix of tokens by tokens for each head, and two plain products: `out` and, with
    /// `grads`, the gradients.
    fn composition(data: &Data, out: &mut [f32], mut grads: Option<&mut [Vec<f32>; 3]>) {
        let t = data.q.len() / (HEADS * HEAD_DIM);
        let head_of = |x: &[f32], width: usize, head: usize| -> Vec<f32> {
            x.chunks_exact(width)
                .flat_map(|x| x[head * HEAD_DIM..][..HEAD_DIM].to_vec())
                .collect()
        };
        let (q_width, kv_width) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
        let product = |dst: &mut [f32], a: MatRef<'_, f32>, b: MatRef<'_, f32>| {
            let dst = MatMut::new(dst, a.rows(), b.cols()).expect("dst");
            matmul(dst, a, b, 1.0, 0.0).expect("shapes fit");
        };
        let add_head = |x: &mut [f32], part: &[f32], width: usize, head: usize, factor: f32| {
            for (x, part) in x.chunks_exact_mut(width).zip(part.chunks_exact(HEAD_DIM)) {
                for (x, part) in x[head * HEAD_DIM..][..HEAD_DIM].iter_mut().zip(part) {
                    *x += factor * part;
                }
            }
        };
        out.fill(0.0);
        if let Some(grads) = grads.as_deref_mut() {
            grads.iter_mut().for_each(|grad| grad.fill(0.0));
        }
        let mut p = vec![0.0; t * t];
        let mut head_out = vec![0.0; t * HEAD_DIM];
        for head in 0..HEADS {
            let kv_head = head / (HEADS / KV_HEADS);
            let q = head_of(&data.q, q_width, head);
            let k = head_of(&data.k, kv_width, kv_head);
            let v = head_of(&data.v, kv_width, kv_head);
            let view = |x| MatRef::new(x, t, HEAD_DIM).expect("head");
            product(&mut p, view(&q), view(&k).t());
            p.par_chunks_exact_mut(t).enumerate().for_each(|(i, p)| {
                let max = p[..=i].iter().fold(f32::MIN, |max, p| max.max(*p));
                p[..=i]
                    .iter_mut()
                    .for_each(|p| *p = ((*p - max) * SHAPE.scale).exp());
                let sum: f32 = p[..=i].iter().sum();
                p[..=i].iter_mut().for_each(|p| *p /= sum);
                p[i + 1..].fill(0.0);
            });
            let p_view = MatRef::new(&p, t, t).expect("p");
            product(&mut head_out, p_view, view(&v));
            add_head(out, &head_out, q_width, head, 1.0);
            let Some([dq, dk, dv]) = grads.as_deref_mut() else {
                continue;
            };
            let dout = head_of(&data.dout, q_width, head);
            let mut ds = vec![0.0; t * t];
            product(&mut ds, view(&dout), view(&v).t());
            ds.par_chunks_exact_mut(t)
                .zip(p.par_chunks_exact(t))
                .for_each(|(ds, p)| {
                    let delta: f32 = ds.iter().zip(p).map(|(ds, p)| ds * p).sum();
                    ds.iter_mut()
                        .zip(p)
                        .for_each(|(ds, p)| *ds = p * (*ds - delta));
                });
            let ds = MatRef::new(&ds, t, t).expect("ds");
            let mut part = vec![0.0; t * HEAD_DIM];
            product(&mut part, p_view.t(), view(&dout));
            add_head(dv, &part, kv_width, kv_head, 1.0);
            product(&mut part, ds.t(), view(&q));
            add_head(dk, &part, kv_width, kv_head, SHAPE.scale);
            product(&mut part, ds, view(&k));
            add_head(dq, &part, q_width, head, SHAPE.scale);
        }
    }

    /// Operations of the visible pairs in the forward pass.
    fn pairs_flops(documents: &[usize]) -> usize {
        documents.iter().map(|t| t * (t + 1) / 2).sum::<usize>() * HEADS * HEAD_DIM * 4
    }

    #[divan::bench]
    fn forward(bencher: Bencher<'_, '_>) {
        let mut data = Data::new(N, N);
        let segments = [Segment::document(0, N)];
        data.forward(&segments);
        let mut expected = vec![0.0; data.out.len()];
        composition(&data, &mut expected, None);
        check("attention", &data.out, &expected, 1e-5);
        bencher
            .counter(flops(pairs_flops(&[N])))
            .bench_local(|| data.forward(&segments));
    }

    #[divan::bench]
    fn forward_of_four_documents(bencher: Bencher<'_, '_>) {
        let mut data = Data::new(N, N);
        let segments = [0, 1, 2, 3].map(|i| Segment::document(i * N / 4, N / 4));
        bencher
            .counter(flops(pairs_flops(&[N / 4; 4])))
            .bench_local(|| data.forward(&segments));
    }

    #[divan::bench]
    fn backward(bencher: Bencher<'_, '_>) {
        let mut data = Data::new(N, N);
        let segments = [Segment::document(0, N)];
        data.forward(&segments);
        let mut grads = data.gradients();
        data.backward(&segments, &mut grads);
        let mut expected = data.gradients();
        composition(&data, &mut vec![0.0; data.out.len()], Some(&mut expected));
        for (name, (actual, expected)) in ["dq", "dk", "dv"].iter().zip(grads.iter().zip(&expected))
        {
            check(name, actual, expected, 5e-5);
        }
        bencher
            .counter(flops(pairs_flops(&[N]) * 5 / 2))
            .bench_local(|| data.backward(&segments, &mut grads));
    }

    #[divan::bench]
    fn backward_of_four_documents(bencher: Bencher<'_, '_>) {
        let mut data = Data::new(N, N);
        let segments = [0, 1, 2, 3].map(|i| Segment::document(i * N / 4, N / 4));
        data.forward(&segments);
        let mut grads = data.gradients();
        bencher
            .counter(flops(pairs_flops(&[N / 4; 4]) * 5 / 2))
            .bench_local(|| data.backward(&segments, &mut grads));
    }

    /// One query over all keys; bytes are those of keys and values.
    #[divan::bench]
    fn decode(bencher: Bencher<'_, '_>) {
        let mut data = Data::new(1, N);
        let segments = [Segment {
            q_start: 0,
            q_len: 1,
            k_start: 0,
            k_len: N,
        }];
        bencher
            .counter(BytesCount::new(4 * (data.k.len() + data.v.len())))
            .bench_local(|| data.forward(&segments));
    }

    #[divan::bench]
    fn peer_composition_forward(bencher: Bencher<'_, '_>) {
        let data = Data::new(N, N);
        let mut out = vec![0.0; data.out.len()];
        bencher
            .counter(flops(pairs_flops(&[N])))
            .bench_local(|| composition(&data, &mut out, None));
    }

    #[divan::bench]
    fn peer_composition_forward_and_backward(bencher: Bencher<'_, '_>) {
        let data = Data::new(N, N);
        let mut out = vec![0.0; data.out.len()];
        let mut grads = data.gradients();
        bencher
            .counter(flops(pairs_flops(&[N]) * 7 / 2))
            .bench_local(|| composition(&data, &mut out, Some(&mut grads)));
    }
}

mod cross_entropy {
    use super::*;

    fn data() -> (Vec<f32>, Vec<f32>, Vec<i32>) {
        let w = numbers(2, VOCABULARY * HIDDEN)
            .iter()
            .map(|w| 0.1 * w)
            .collect();
        let labels = (0..N as i32)
            .map(|i| i * 7919 % VOCABULARY as i32)
            .collect();
        (numbers(1, N * HIDDEN), w, labels)
    }

    /// A matrix of all logits, then one of all probabilities in its place.
    fn composition(h: &[f32], w: &[f32], labels: &[i32], dh: &mut [f32]) -> f64 {
        let n = labels.len();
        let mut z = vec![0.0; n * VOCABULARY];
        let (h, w) = (
            MatRef::new(h, n, HIDDEN).expect("h"),
            MatRef::new(w, VOCABULARY, HIDDEN).expect("w"),
        );
        let dst = MatMut::new(&mut z, n, VOCABULARY).expect("z");
        matmul(dst, h, w.t(), 1.0, 0.0).expect("shapes fit");
        let losses: Vec<f64> = z
            .par_chunks_exact_mut(VOCABULARY)
            .zip(labels)
            .map(|(z, &label)| {
                let max = z.iter().fold(f32::MIN, |max, z| max.max(*z));
                let label_z = f64::from(z[label as usize] - max);
                z.iter_mut().for_each(|z| *z = (*z - max).exp());
                let sum: f64 = z.iter().map(|z| f64::from(*z)).sum();
                z.iter_mut().for_each(|z| *z /= sum as f32);
                z[label as usize] -= 1.0;
                sum.ln() - label_z
            })
            .collect();
        let z = MatRef::new(&z, n, VOCABULARY).expect("z");
        let dh = MatMut::new(dh, n, HIDDEN).expect("dh");
        matmul(dh, z, w, 1.0, 0.0).expect("shapes fit");
        losses.iter().sum()
    }

    const LOGITS_FLOPS: usize = 2 * N * HIDDEN * VOCABULARY;

    #[divan::bench(sample_count = 5)]
    fn loss(bencher: Bencher<'_, '_>) {
        let (h, w, labels) = data();
        bencher.counter(flops(LOGITS_FLOPS)).bench_local(|| {
            linear_cross_entropy(&h, &w, HIDDEN, &labels, 1.0, None, None).expect("shapes fit")
        });
    }

    #[divan::bench(sample_count = 5)]
    fn loss_and_dh(bencher: Bencher<'_, '_>) {
        let (h, w, labels) = data();
        let mut dh = vec![0.0; h.len()];
        let run = |labels: &[i32], dh: &mut [f32]| {
            let h = &h[..labels.len() * HIDDEN];
            linear_cross_entropy(h, &w, HIDDEN, labels, 1.0, Some(dh), None).expect("shapes fit")
        };
        let mut expected = vec![0.0; 256 * HIDDEN];
        let sum = composition(&h[..256 * HIDDEN], &w, &labels[..256], &mut expected);
        let actual = run(&labels[..256], &mut dh[..256 * HIDDEN]);
        assert!((actual.sum - sum).abs() <= 1e-6 * sum);
        check("dh", &dh[..256 * HIDDEN], &expected, 1e-4);
        bencher
            .counter(flops(2 * LOGITS_FLOPS))
            .bench_local(|| run(&labels, &mut dh));
    }

    #[divan::bench(sample_count = 3)]
    fn loss_dh_and_dw(bencher: Bencher<'_, '_>) {
        let (h, w, labels) = data();
        let (mut dh, mut dw) = (vec![0.0; h.len()], vec![0.0; w.len()]);
        bencher.counter(flops(3 * LOGITS_FLOPS)).bench_local(|| {
            linear_cross_entropy(&h, &w, HIDDEN, &labels, 1.0, Some(&mut dh), Some(&mut dw))
                .expect("shapes fit")
        });
    }

    #[divan::bench(sample_count = 3)]
    fn peer_composition_loss_and_dh(bencher: Bencher<'_, '_>) {
        let (h, w, labels) = data();
        let mut dh = vec![0.0; h.len()];
        bencher
            .counter(flops(2 * LOGITS_FLOPS))
            .bench_local(|| composition(&h, &w, &labels, &mut dh));
    }
}

mod rms_norm {
    use super::*;

    fn naive(x: &[f32], weight: &[f32], y: &mut [f32]) {
        for (x, y) in x.chunks_exact(HIDDEN).zip(y.chunks_exact_mut(HIDDEN)) {
            let mean = x.iter().map(|x| x * x).sum::<f32>() / HIDDEN as f32;
            let inv = 1.0 / (mean + 1e-5).sqrt();
            for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
                *y = x * inv * weight;
            }
        }
    }

    fn data() -> (Vec<f32>, Vec<f32>, Vec<f32>, Vec<f32>) {
        let (x, weight) = (numbers(1, N * HIDDEN), numbers(2, HIDDEN));
        (x, weight, vec![0.0; N * HIDDEN], vec![0.0; N])
    }

    #[divan::bench]
    fn forward(bencher: Bencher<'_, '_>) {
        let (x, weight, mut y, mut inv) = data();
        rms_norm_forward(&x, &weight, 1e-5, &mut y, &mut inv).expect("shapes fit");
        let mut expected = vec![0.0; y.len()];
        naive(&x, &weight, &mut expected);
        check("rms_norm", &y, &expected, 1e-5);
        bencher
            .counter(BytesCount::new(4 * (x.len() + y.len())))
            .bench_local(|| rms_norm_forward(&x, &weight, 1e-5, &mut y, &mut inv));
    }

    #[divan::bench]
    fn backward(bencher: Bencher<'_, '_>) {
        let (x, weight, mut dx, mut inv) = data();
        let dy = numbers(3, x.len());
        rms_norm_forward(&x, &weight, 1e-5, &mut dx, &mut inv).expect("shapes fit");
        let mut dweight = vec![0.0; HIDDEN];
        bencher
            .counter(BytesCount::new(12 * x.len()))
            .bench_local(|| rms_norm_backward(&dy, &x, &weight, &inv, &mut dx, Some(&mut dweight)));
    }

    #[divan::bench]
    fn peer_naive_forward(bencher: Bencher<'_, '_>) {
        let (x, weight, mut y, _) = data();
        bencher
            .counter(BytesCount::new(4 * (x.len() + y.len())))
            .bench_local(|| naive(black_box(&x), &weight, &mut y));
    }
}

mod swiglu {
    use super::*;

    const LEN: usize = N * INTERMEDIATE;

    fn naive(gate: &[f32], up: &[f32], y: &mut [f32]) {
        for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
            *y = gate / (1.0 + (-gate).exp()) * up;
        }
    }

    #[divan::bench]
    fn forward(bencher: Bencher<'_, '_>) {
        let (gate, up, mut y) = (numbers(1, LEN), numbers(2, LEN), vec![0.0; LEN]);
        swiglu_forward(&gate, &up, &mut y).expect("shapes fit");
        let mut expected = vec![0.0; LEN];
        naive(&gate, &up, &mut expected);
        check("swiglu", &y, &expected, 1e-6);
        bencher
            .counter(BytesCount::new(12 * LEN))
            .bench_local(|| swiglu_forward(&gate, &up, &mut y));
    }

    #[divan::bench]
    fn backward(bencher: Bencher<'_, '_>) {
        let (dy, gate, up) = (numbers(1, LEN), numbers(2, LEN), numbers(3, LEN));
        let (mut dgate, mut dup) = (vec![0.0; LEN], vec![0.0; LEN]);
        bencher
            .counter(BytesCount::new(20 * LEN))
            .bench_local(|| swiglu_backward(&dy, &gate, &up, &mut dgate, &mut dup));
    }

    #[divan::bench]
    fn peer_naive_forward(bencher: Bencher<'_, '_>) {
        let (gate, up, mut y) = (numbers(1, LEN), numbers(2, LEN), vec![0.0; LEN]);
        bencher
            .counter(BytesCount::new(12 * LEN))
            .bench_local(|| naive(black_box(&gate), black_box(&up), &mut y));
    }
}
