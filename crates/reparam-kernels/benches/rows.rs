//! Row kernels at the shapes of SmolLM2-135M with 2048 tokens, over `f32` and bf16, beside a plain
//! copy. Bytes are those that must be read and written; the copy says what the memory gives.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use rayon::prelude::*;
use reparam_kernels::activation::{Activation, activation_backward, activation_forward};
use reparam_kernels::embedding::embedding_packed;
use reparam_kernels::gated::{GatedRows, gated_backward_in_place, gated_forward};
use reparam_kernels::layer_norm::{layer_norm_backward_add, layer_norm_forward};
use reparam_kernels::number::add;
use reparam_kernels::packed::{Matrix, PackedWeight};
use reparam_kernels::rms_norm::{rms_norm_backward, rms_norm_backward_add, rms_norm_forward};
use reparam_kernels::rotary::{Heads, rotary_rows, rotary_tables};
use reparam_kernels::{Bf16, Number};

mod support;
use support::{HEAD_DIM, HEADS, HIDDEN, INTERMEDIATE, KV_HEADS, N, VOCABULARY, numbers_within};

const EPS: f32 = 1e-5;

fn main() {
    divan::main();
}

/// Numbers in -3..3.
fn numbers<T: Number>(seed: u32, len: usize) -> Vec<T> {
    numbers_within(3.0, seed, len)
}

/// Stops the benchmark if a number is off by more than its type's rounding and a little.
#[track_caller]
fn check<T: Number>(actual: &[T], expected: impl IntoIterator<Item = f64>) {
    check_within(1.0, actual, expected);
}

/// The same for so many times the error.
#[track_caller]
fn check_within<T: Number>(times: f64, actual: &[T], expected: impl IntoIterator<Item = f64>) {
    let unit = if size_of::<T>() == 2 {
        1.0 / 128.0
    } else {
        1e-5
    };
    for (i, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(actual.to_f32()) - expected).abs();
        assert!(
            error <= times * unit * expected.abs().max(1.0),
            "{i}: {actual:?} is not {expected}"
        );
    }
}

fn wide<T: Number>(x: &[T]) -> impl Iterator<Item = f64> + Clone {
    x.iter().map(|x| f64::from(x.to_f32()))
}

/// Bytes of `numbers` numbers of the type.
fn bytes<T>(numbers: usize) -> BytesCount {
    BytesCount::new(numbers * size_of::<T>())
}

/// What the memory gives: one number read and one written.
#[divan::bench(types = [f32, Bf16], args = [N * HIDDEN, N * INTERMEDIATE])]
fn copy<T: Number>(bencher: Bencher<'_, '_>, len: usize) {
    let (x, mut y) = (numbers::<T>(1, len), numbers::<T>(2, len));
    bencher.counter(bytes::<T>(2 * len)).bench_local(|| {
        y.par_chunks_mut(16 * 1024)
            .zip(black_box(&x).par_chunks(16 * 1024))
            .for_each(|(y, x)| y.copy_from_slice(x));
    });
}

#[divan::bench(types = [f32, Bf16])]
fn addition<T: Number>(bencher: Bencher<'_, '_>) {
    let (x, mut y) = (numbers::<T>(1, N * HIDDEN), numbers::<T>(2, N * HIDDEN));
    let expected: Vec<f64> = wide(&x).zip(wide(&y)).map(|(x, y)| x + y).collect();
    add(&x, &mut y).expect("shapes fit");
    check(&y, expected);
    // Adding zeros keeps the numbers finite.
    let x = vec![T::default(); N * HIDDEN];
    bencher
        .counter(bytes::<T>(3 * N * HIDDEN))
        .bench_local(|| add(black_box(&x), &mut y));
}

mod rms_norm {
    use super::*;

    /// `y`
    fn expected<T: Number>(x: &[T], weight: &[f32]) -> Vec<f64> {
        x.chunks_exact(HIDDEN)
            .flat_map(|x| {
                let squares: f64 = wide(x).map(|x| x * x).sum();
                let inv = 1.0 / (squares / HIDDEN as f64 + f64::from(EPS)).sqrt();
                let weighted = x.iter().zip(weight);
                weighted.map(move |(x, w)| f64::from(x.to_f32()) * inv * f64::from(*w))
            })
            .collect()
    }

    #[divan::bench(types = [f32, Bf16])]
    fn forward<T: Number>(bencher: Bencher<'_, '_>) {
        let (x, weight) = (numbers::<T>(1, N * HIDDEN), numbers::<f32>(2, HIDDEN));
        let (mut y, mut inv) = (x.clone(), vec![0.0; N]);
        let mut run = |y: &mut [T]| rms_norm_forward(black_box(&x), &weight, EPS, y, &mut inv);
        run(&mut y).expect("shapes fit");
        check(&y, expected(&x, &weight));
        bencher
            .counter(bytes::<T>(2 * N * HIDDEN))
            .bench_local(|| run(&mut y));
    }

    #[divan::bench(types = [f32, Bf16], args = [false, true])]
    fn backward<T: Number>(bencher: Bencher<'_, '_>, adds: bool) {
        let [x, dy] = [1, 3].map(|seed| numbers::<T>(seed, N * HIDDEN));
        let weight = numbers::<f32>(2, HIDDEN);
        let (mut dx, mut inv) = (vec![T::default(); x.len()], vec![0.0; N]);
        rms_norm_forward(&x, &weight, EPS, &mut dx, &mut inv).expect("shapes fit");
        dx.fill(T::default());
        let run = |dx: &mut [T]| {
            if adds {
                rms_norm_backward_add(black_box(&dy), &x, &weight, &inv, dx)
            } else {
                rms_norm_backward(black_box(&dy), &x, &weight, &inv, dx, None)
            }
        };
        run(&mut dx).expect("shapes fit");
        // A longer row has the same y, so the gradient has no part along x.
        let along = wide(&dx[..HIDDEN]).zip(wide(&x[..HIDDEN]));
        let along: f64 = along.map(|(dx, x)| dx * x).sum();
        let size: f64 = wide(&dx[..HIDDEN]).map(f64::abs).sum();
        assert!(size > 1.0 && along.abs() < 1e-2 * size, "{along} of {size}");
        bencher
            .counter(bytes::<T>((3 + usize::from(adds)) * N * HIDDEN))
            .bench_local(|| run(&mut dx));
    }
}

mod layer_norm {
    use super::*;

    #[divan::bench(types = [f32, Bf16])]
    fn forward<T: Number>(bencher: Bencher<'_, '_>) {
        let x = numbers::<T>(1, N * HIDDEN);
        let [weight, bias] = [2, 3].map(|seed| numbers::<f32>(seed, HIDDEN));
        let (mut y, mut mean, mut inv) = (x.clone(), vec![0.0; N], vec![0.0; N]);
        let mut run = |y: &mut [T]| {
            let x = black_box(&x);
            layer_norm_forward(x, &weight, Some(&bias), EPS, y, &mut mean, &mut inv)
        };
        run(&mut y).expect("shapes fit");
        let row = &x[..HIDDEN];
        let center = wide(row).sum::<f64>() / HIDDEN as f64;
        let squares: f64 = wide(row).map(|x| (x - center).powi(2)).sum();
        let scale = 1.0 / (squares / HIDDEN as f64 + f64::from(EPS)).sqrt();
        let affine = weight.iter().zip(&bias);
        let expected = wide(row).zip(affine).map(|(x, (weight, bias))| {
            (x - center) * scale * f64::from(*weight) + f64::from(*bias)
        });
        check(&y, expected);
        bencher
            .counter(bytes::<T>(2 * N * HIDDEN))
            .bench_local(|| run(&mut y));
    }

    #[divan::bench(types = [f32, Bf16])]
    fn backward_add<T: Number>(bencher: Bencher<'_, '_>) {
        let [x, dy] = [1, 3].map(|seed| numbers::<T>(seed, N * HIDDEN));
        let weight = numbers::<f32>(2, HIDDEN);
        let (mut dx, mut mean, mut inv) = (vec![T::default(); x.len()], vec![0.0; N], vec![0.0; N]);
        layer_norm_forward(&x, &weight, None, EPS, &mut dx, &mut mean, &mut inv)
            .expect("shapes fit");
        dx.fill(T::default());
        let run =
            |dx: &mut [T]| layer_norm_backward_add(black_box(&dy), &x, &weight, &mean, &inv, dx);
        run(&mut dx).expect("shapes fit");
        let total: f64 = wide(&dx[..HIDDEN]).sum();
        let size: f64 = wide(&dx[..HIDDEN]).map(f64::abs).sum();
        assert!(size > 1.0 && total.abs() < 1e-2 * size, "{total} of {size}");
        bencher
            .counter(bytes::<T>(4 * N * HIDDEN))
            .bench_local(|| run(&mut dx));
    }
}

/// Queries and keys of rows that also hold values.
#[divan::bench(types = [f32, Bf16])]
fn rotary<T: Number>(bencher: Bencher<'_, '_>) {
    let (n_heads, stride) = (HEADS + KV_HEADS, (HEADS + 2 * KV_HEADS) * HEAD_DIM);
    let positions: Vec<u32> = (0..N as u32).collect();
    let inv_freq: Vec<f32> = (0..HEAD_DIM / 2)
        .map(|i| 1e4_f32.powf(-2.0 * i as f32 / HEAD_DIM as f32))
        .collect();
    let (cos, sin) = rotary_tables(&positions, &inv_freq, 1.0).expect("shapes fit");
    let x = numbers::<T>(1, N * stride);
    let mut turned = x.clone();
    let heads = Heads {
        row_stride: stride,
        n_heads,
        head_dim: HEAD_DIM,
        turned: HEAD_DIM,
        interleaved: false,
    };
    let run = |x: &mut [T], inverse| rotary_rows(x, heads, &cos, &sin, inverse);
    run(&mut turned, false).expect("shapes fit");
    assert!(turned != x);
    run(&mut turned, true).expect("shapes fit");
    // Two roundings of numbers up to 4.3.
    check_within(8.0, &turned, wide(&x));
    // There and back, so that the numbers keep their size.
    let mut inverse = false;
    bencher
        .counter(bytes::<T>(2 * N * n_heads * HEAD_DIM))
        .counter(ItemsCount::new(N * n_heads * HEAD_DIM))
        .bench_local(|| {
            inverse = !inverse;
            run(&mut turned, inverse)
        });
}

mod gated {
    use super::*;

    const ROWS: GatedRows = GatedRows {
        inner: INTERMEDIATE,
        row_stride: 2 * INTERMEDIATE,
        up_at: INTERMEDIATE,
    };

    const KINDS: [Activation; 3] = [Activation::Silu, Activation::Gelu, Activation::GeluTanh];

    fn act(kind: Activation, x: f64) -> f64 {
        let argument = match kind {
            Activation::Silu => x,
            // Good to 3e-4, which a wrong kernel is not.
            Activation::Gelu | Activation::GeluTanh => {
                2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))
            }
            Activation::Relu => return x.max(0.0),
        };
        x / (1.0 + (-argument).exp())
    }

    fn check_gated<T: Number>(kind: Activation, gate_up: &[T], out: &[T]) {
        let rows = gate_up
            .chunks_exact(2 * INTERMEDIATE)
            .zip(out.chunks_exact(INTERMEDIATE));
        for (row, out) in rows.step_by(97) {
            let (gate, up) = row.split_at(INTERMEDIATE);
            for ((gate, up), out) in wide(gate).zip(wide(up)).zip(wide(out)) {
                let expected = act(kind, gate) * up;
                let error = (out - expected).abs();
                assert!(
                    error < 5e-3 * expected.abs().max(1.0),
                    "{kind:?}({gate}) * {up} is not {out}"
                );
            }
        }
    }

    /// The gradients of some rows, by central differences.
    fn check_grads<T: Number>(kind: Activation, gate_up: &[T], dout: &[T], grads: &[T]) {
        let rows = gate_up
            .chunks_exact(2 * INTERMEDIATE)
            .zip(grads.chunks_exact(2 * INTERMEDIATE))
            .zip(dout.chunks_exact(INTERMEDIATE));
        for ((row, grads), dout) in rows.step_by(97) {
            let ((gate, up), (dgate, dup)) =
                (row.split_at(INTERMEDIATE), grads.split_at(INTERMEDIATE));
            let values = wide(gate).zip(wide(up)).zip(wide(dout));
            for (((gate, up), dout), (dgate, dup)) in values.zip(wide(dgate).zip(wide(dup))) {
                let slope = (act(kind, gate + 1e-3) - act(kind, gate - 1e-3)) / 2e-3;
                let expected = [dout * up * slope, dout * act(kind, gate)];
                for (actual, expected) in [dgate, dup].into_iter().zip(expected) {
                    let error = (actual - expected).abs();
                    assert!(
                        error < 2e-2 * expected.abs().max(1.0),
                        "{kind:?} at {gate}: {actual} is not {expected}"
                    );
                }
            }
        }
    }

    #[divan::bench(types = [f32, Bf16], args = KINDS)]
    fn forward<T: Number>(bencher: Bencher<'_, '_>, kind: Activation) {
        let gate_up = numbers::<T>(1, 2 * N * INTERMEDIATE);
        let mut out = vec![T::default(); N * INTERMEDIATE];
        let run = |out: &mut [T]| gated_forward(kind, black_box(&gate_up), ROWS, out);
        run(&mut out).expect("shapes fit");
        check_gated(kind, &gate_up, &out);
        bencher
            .counter(bytes::<T>(3 * N * INTERMEDIATE))
            .counter(ItemsCount::new(N * INTERMEDIATE))
            .bench_local(|| run(&mut out));
    }

    /// With the output again, as a training step calls it.
    #[divan::bench(types = [f32, Bf16], args = KINDS)]
    fn backward_in_place<T: Number>(bencher: Bencher<'_, '_>, kind: Activation) {
        let (gate_up, dout) = (
            numbers::<T>(1, 2 * N * INTERMEDIATE),
            numbers::<T>(2, N * INTERMEDIATE),
        );
        let mut out = dout.clone();
        let run = |in_place: &mut [T], out: &mut [T]| {
            gated_backward_in_place(kind, in_place, ROWS, &dout, Some(out))
        };
        let mut grads = gate_up.clone();
        run(&mut grads, &mut out).expect("shapes fit");
        check_gated(kind, &gate_up, &out);
        check_grads(kind, &gate_up, &dout, &grads);
        bencher
            .counter(bytes::<T>(6 * N * INTERMEDIATE))
            .counter(ItemsCount::new(N * INTERMEDIATE))
            .with_inputs(|| gate_up.clone())
            .bench_local_refs(|in_place| run(in_place, &mut out));
    }

    #[divan::bench(types = [f32, Bf16], args = KINDS)]
    fn alone_forward<T: Number>(bencher: Bencher<'_, '_>, kind: Activation) {
        let x = numbers::<T>(1, N * INTERMEDIATE);
        let mut y = x.clone();
        activation_forward(kind, &x, &mut y).expect("shapes fit");
        for (x, y) in wide(&x).zip(wide(&y)).step_by(97) {
            assert!((y - act(kind, x)).abs() < 0.01, "act({x}) is not {y}");
        }
        bencher
            .counter(bytes::<T>(2 * N * INTERMEDIATE))
            .counter(ItemsCount::new(N * INTERMEDIATE))
            .bench_local(|| activation_forward(kind, black_box(&x), &mut y));
    }

    #[divan::bench(types = [f32, Bf16], args = KINDS)]
    fn alone_backward<T: Number>(bencher: Bencher<'_, '_>, kind: Activation) {
        let (x, dy) = (
            numbers::<T>(1, N * INTERMEDIATE),
            vec![T::from_f32(1.0); N * INTERMEDIATE],
        );
        let mut dx = x.clone();
        activation_backward(kind, &dy, &x, &mut dx).expect("shapes fit");
        for (x, dx) in wide(&x).zip(wide(&dx)).step_by(97) {
            let slope = (act(kind, x + 1e-3) - act(kind, x - 1e-3)) / 2e-3;
            assert!((dx - slope).abs() < 0.01, "act'({x}) is not {dx}");
        }
        bencher
            .counter(bytes::<T>(3 * N * INTERMEDIATE))
            .counter(ItemsCount::new(N * INTERMEDIATE))
            .bench_local(|| activation_backward(kind, black_box(&dy), &x, &mut dx));
    }
}

/// Rows of the table of SmolLM2, packed for the output layer.
#[divan::bench(types = [f32, Bf16])]
fn embedding<T: Number>(bencher: Bencher<'_, '_>) {
    let table = numbers::<Bf16>(1, VOCABULARY * HIDDEN);
    let view = Matrix::new(&table[..], VOCABULARY, HIDDEN).expect("shapes fit");
    let packed = PackedWeight::new(view).expect("fits");
    let ids: Vec<u32> = (0..N as u32)
        .map(|i| i * 7919 % VOCABULARY as u32)
        .collect();
    let mut out = vec![T::default(); N * HIDDEN];
    embedding_packed(&ids, &packed, &mut out).expect("ids fit");
    for (out, &id) in out.chunks_exact(HIDDEN).zip(&ids) {
        check(out, wide(&table[id as usize * HIDDEN..][..HIDDEN]));
    }
    bencher
        .counter(bytes::<T>(2 * N * HIDDEN))
        .bench_local(|| embedding_packed(black_box(&ids), &packed, &mut out));
}
