//! Fused operations against the same layers composed of the operations in `f32`.

mod families;
mod runtime;

use burn::tensor::{DType, Device, Tensor, TensorData, bf16};

use super::*;
use crate::tests;
use crate::{
    Activation, AttentionConfig, DropoutKey, LinearPlan, LowRank, RotaryTable, Segments, attention,
    linear, linear_cross_entropy, rms_norm, rotary, segments_from_bounds, swiglu,
};

/// What the roundings of activations to bf16 (relative error at most 2^-8 each) amount to after half a layer, relative to
/// the greatest element. The gradients of scores are differences of numbers that are nearly equal, so those of attention
/// lose most.
const TOLERANCE: f32 = 0.02;

const EPS: f32 = 1e-5;

/// Sizes of which none is a multiple of a panel.
const D: usize = 20;
const INNER: usize = 27;
const RANK: usize = 3;
const CONFIG: AttentionConfig = AttentionConfig {
    n_heads: 4,
    n_kv_heads: 2,
    head_dim: 6,
    scale: 0.4,
    causal: true,
    window: None,
    soft_cap: None,
};

fn numbers(len: usize, seed: u64) -> Vec<f32> {
    tests::numbers(len, seed)
        .into_iter()
        .map(|x| x as f32)
        .collect()
}

fn round(values: Vec<f32>) -> Vec<f32> {
    values
        .into_iter()
        .map(|x| bf16::from_f32(x).to_f32())
        .collect()
}

/// A linear layer in both forms.
struct Layer {
    fused: FusedLinear,
    weight: Tensor<2>,
}

/// What the layers of a test have besides their weights.
#[derive(Clone, Copy)]
struct Extras {
    /// Which layers of a stack have factors.
    adapted: fn(usize) -> bool,
    bias: bool,
    dropout: f32,
    /// Whether layers have scales, and train them and their biases.
    scales: bool,
    numbers: PackedDType,
}

const PLAIN: Extras = Extras {
    adapted: |_| true,
    bias: false,
    dropout: 0.0,
    scales: false,
    numbers: PackedDType::Bf16,
};

fn layers<const N: usize>(d_out: [usize; N], d_in: usize, seed: u64, extras: Extras) -> [Layer; N] {
    let device = Device::flex().autodiff();
    // Numbers that bf16 holds, so that both forms have the same weights.
    let values: Vec<Vec<f32>> = (0..N)
        .map(|i| {
            let scale = 1.5 / (d_in as f32).sqrt();
            let numbers = numbers(d_out[i] * d_in, seed + i as u64);
            let numbers = numbers.into_iter().map(|x| x * scale);
            if extras.numbers == PackedDType::Bf16 {
                return round(numbers.collect());
            }
            // Integers times a scale of two's power, the first of each row the greatest, are what they are rounded to.
            numbers
                .enumerate()
                .map(|(i, x)| {
                    let greatest = i % d_in == 0;
                    (if greatest { 127.0 } else { (x * 100.0).round() }) / 128.0
                })
                .collect()
        })
        .collect();
    let shapes = d_out.map(|d_out| [d_out, d_in]);
    let packed = PackedWeight::pack(&shapes, extras.numbers, |part, range, to| {
        to.copy_from_slice(&values[part][range]);
    });
    let mut packed = packed.into_iter();
    std::array::from_fn(|i| {
        let seed = seed + 100 * (i as u64 + 1);
        let tensor = |n: usize, dims: [usize; 2], seed| {
            // Small, so that scores are of size one: the softmax of great ones would magnify their roundings.
            let values = numbers(n, seed).into_iter().map(|x| 0.4 * x).collect();
            Tensor::<2>::from_data(TensorData::new(round(values), dims), &device)
        };
        let weight = Tensor::from_data(
            TensorData::new(values[i].clone(), [d_out[i], d_in]),
            &device,
        );
        let bias = extras.bias.then(|| {
            Tensor::<1>::from_data(
                TensorData::new(numbers(d_out[i], seed), [d_out[i]]),
                &device,
            )
        });
        let factors = (extras.adapted)(i).then(|| {
            let a = tensor(RANK * d_in, [RANK, d_in], seed + 1).require_grad();
            let b = tensor(d_out[i] * RANK, [d_out[i], RANK], seed + 2).require_grad();
            (a, b)
        });
        let key = DropoutKey {
            seed: 1,
            step: 2,
            tensor: seed,
        };
        let dropout = (extras.dropout > 0.0).then_some((extras.dropout, key));
        let scale = |n: usize, seed| {
            let values = numbers(n, seed)
                .into_iter()
                .map(|x| 1.0 + 0.3 * x)
                .collect();
            let data = TensorData::new(round(values), [n]);
            let scale = Tensor::<1>::from_data(data, &device).require_grad();
            extras.scales.then_some(scale)
        };
        let bias = bias.map(|bias| {
            if extras.scales {
                bias.require_grad()
            } else {
                bias
            }
        });
        let plan = LinearPlan {
            input_scale: scale(d_in, seed + 3).filter(|_| i != 1),
            output_scale: scale(d_out[i], seed + 4).filter(|_| i != 2),
            low_rank: factors
                .into_iter()
                .map(|(a, b)| LowRank {
                    a,
                    b,
                    scaling: 0.3 + i as f64,
                    dropout,
                })
                .collect(),
        };
        Layer {
            fused: FusedLinear {
                weight: packed.next().expect("one a layer"),
                bias,
                plan,
            },
            weight,
        }
    })
}

const INT8: Extras = Extras {
    numbers: PackedDType::Int8,
    bias: true,
    ..PLAIN
};

impl Layer {
    /// The layer composed of operations in `f32`.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = linear(x, self.weight.clone(), self.fused.plan.clone());
        match &self.fused.bias {
            Some(bias) => y + bias.clone().unsqueeze::<2>(),
            None => y,
        }
    }

    /// The gradients of all that is trained.
    fn gradients(&self, gradients: &burn::tensor::Gradients) -> Vec<(&'static str, Vec<f32>)> {
        let plan = &self.fused.plan;
        let mut found = Vec::new();
        for term in &plan.low_rank {
            for (name, factor) in [("dA", &term.a), ("dB", &term.b)] {
                found.push((name, values(factor.grad(gradients).expect("tracked"))));
            }
        }
        let vectors = [
            ("dc_in", &plan.input_scale),
            ("dc_out", &plan.output_scale),
            ("db", &self.fused.bias),
        ];
        for (name, vector) in vectors {
            if let Some(vector) = vector.as_ref().filter(|vector| vector.is_tracked()) {
                found.push((name, values(vector.grad(gradients).expect("tracked"))));
            }
        }
        found
    }
}

fn norm_weight() -> Tensor<1> {
    let values: Vec<f32> = numbers(D, 5).into_iter().map(|x| 1.0 + 0.3 * x).collect();
    Tensor::from_data(TensorData::new(values, [D]), &Device::flex().autodiff())
}

fn fused_norm() -> FusedNorm {
    FusedNorm {
        weight: norm_weight(),
        shift: None,
        eps: EPS,
    }
}

fn before() -> FusedNorms {
    FusedNorms {
        before: Some(fused_norm()),
        ..FusedNorms::default()
    }
}

/// Hidden states in `f32`, of numbers that bf16 holds.
fn hidden(n: usize) -> Tensor<2> {
    let data = TensorData::new(round(numbers(n * D, 7)), [n, D]);
    Tensor::from_data(data, &Device::flex().autodiff())
}

fn as_bf16(x: Tensor<2>) -> Tensor<2> {
    x.cast(DType::BF16)
}

fn values<const K: usize>(x: Tensor<K>) -> Vec<f32> {
    x.into_data().convert::<f32>().try_to_vec().expect("floats")
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_within(TOLERANCE, found, expected, what);
}

#[track_caller]
fn assert_within(tolerance: f32, found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let greatest = expected.iter().fold(1e-3_f32, |max, x| max.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(
            error <= tolerance * greatest,
            "{what}[{i}]: {found} is not {expected} of {greatest}"
        );
    }
}

/// Output and gradients of a block: those of `h` first, then of all factors.
fn run(
    n: usize,
    layers: &[&Layer],
    to_input: fn(Tensor<2>) -> Tensor<2>,
    block: impl Fn(Tensor<2>) -> Tensor<2>,
) -> Vec<Named> {
    let h = to_input(hidden(n)).require_grad();
    let y = block(h.clone());
    let output = values(y.clone());
    // Burn's own cast has a backward pass of its own; the weights make all gradients different.
    let weights = TensorData::new(round(numbers(n * D, 9)), [n, D]);
    let weights = Tensor::<2>::from_data(weights, &Device::flex().autodiff());
    let loss = (y.cast(DType::F32) * weights).sum();
    let gradients = loss.backward();
    let dh = values(h.grad(&gradients).expect("h is tracked"));
    let mut results = vec![("output", output), ("dh", dh)];
    for layer in layers {
        results.extend(layer.gradients(&gradients));
    }
    results
}

type Named = (&'static str, Vec<f32>);

#[track_caller]
fn assert_all_close(found: &[Named], expected: &[Named], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, ((name, found), (_, expected))) in found.iter().zip(expected).enumerate() {
        assert_close(found, expected, &format!("{what}: {name} {i}"));
    }
}

fn mlp(
    gate_up: &[Layer; 2],
    down: &[Layer; 1],
    recompute: bool,
) -> impl Fn(Tensor<2>) -> Tensor<2> {
    move |h| {
        let block = MlpBlock {
            norms: before(),
            inputs: gate_up.iter().map(|layer| layer.fused.clone()).collect(),
            gated: true,
            down: down[0].fused.clone(),
            activation: Activation::Silu,
            recompute,
        };
        mlp_block(h, None, block)
    }
}

fn mlp_composed(gate_up: &[Layer; 2], down: &[Layer; 1]) -> impl Fn(Tensor<2>) -> Tensor<2> {
    move |h| {
        let x = rms_norm(h.clone(), norm_weight(), EPS);
        let act = swiglu(gate_up[0].forward(x.clone()), gate_up[1].forward(x));
        h + down[0].forward(act)
    }
}

/// Cases of what a layer may have.
fn extras() -> [(&'static str, Extras); 8] {
    let frozen = Extras {
        adapted: |_| false,
        ..PLAIN
    };
    let some = |i: usize| i == 1;
    let bias = Extras {
        bias: true,
        ..PLAIN
    };
    let sparse = Extras {
        adapted: some,
        ..bias
    };
    let dropped = Extras {
        dropout: 0.4,
        ..PLAIN
    };
    let scaled = Extras {
        scales: true,
        ..bias
    };
    [
        ("plain", PLAIN),
        ("bias", bias),
        ("some adapted", sparse),
        ("dropout", dropped),
        ("frozen", frozen),
        ("int8", INT8),
        ("scales", scaled),
        (
            "scales and dropout",
            Extras {
                dropout: 0.4,
                ..scaled
            },
        ),
    ]
}

#[test]
fn mlp_blocks_equal_their_composition() {
    for (what, extras) in extras() {
        let gate_up = layers([INNER, INNER], D, 10, extras);
        let down = layers([D], INNER, 20, extras);
        let all: Vec<&Layer> = gate_up.iter().chain(&down).collect();
        let expected = run(37, &all, |h| h, mlp_composed(&gate_up, &down));
        let kept = run(37, &all, as_bf16, mlp(&gate_up, &down, false));
        assert_all_close(&kept, &expected, what);
        let recomputed = run(37, &all, as_bf16, mlp(&gate_up, &down, true));
        assert!(kept == recomputed, "{what}: recomputing changes nothing");
    }
}

/// One layer after the other, of a stack and alone, between activations in `f32`.
#[test]
fn single_layers_equal_their_composition() {
    for (what, extras) in extras() {
        let parts = layers([INNER, D, D], D, 10, extras);
        let back = layers([D], INNER, 20, extras);
        let all: Vec<&Layer> = parts.iter().chain(&back).collect();
        let of = |forward: fn(&Layer, Tensor<2>) -> Tensor<2>| {
            let [inner, left, right] = &parts;
            let last = &back[0];
            run(
                37,
                &all,
                |h| h,
                move |h| {
                    let inner = forward(inner, h.clone());
                    forward(last, inner) + forward(left, h.clone()) * forward(right, h)
                },
            )
        };
        let expected = of(Layer::forward);
        let found = of(|layer, x| packed_linear(x, layer.fused.clone()));
        assert_all_close(&found, &expected, what);
    }
}

/// The widths of queries, keys and values.
fn qkv_widths() -> [usize; 3] {
    let kv = CONFIG.n_kv_heads * CONFIG.head_dim;
    [CONFIG.n_heads * CONFIG.head_dim, kv, kv]
}

fn rotary_table(positions: std::ops::Range<u32>) -> RotaryTable {
    let positions: Vec<u32> = positions.collect();
    RotaryTable::new(&positions, &[1.0, 0.3, 0.1], 1.0, 6)
}

fn attention_of<'a>(
    qkv: &[Layer; 3],
    o: &[Layer; 1],
    rotary: &'a RotaryTable,
    recompute: bool,
) -> AttentionBlock<'a> {
    AttentionBlock {
        grouped: false,
        norms: before(),
        inputs: qkv.iter().map(|layer| layer.fused.clone()).collect(),
        output: o[0].fused.clone(),
        q_norm: None,
        k_norm: None,
        config: CONFIG,
        rotary: Some(rotary),
        recompute,
    }
}

fn attention_composed(
    qkv: &[Layer; 3],
    o: &[Layer; 1],
    table: &RotaryTable,
    segments: &Segments,
) -> impl Fn(Tensor<2>) -> Tensor<2> {
    move |h| {
        let x = rms_norm(h.clone(), norm_weight(), EPS);
        let q = rotary(qkv[0].forward(x.clone()), table);
        let k = rotary(qkv[1].forward(x.clone()), table);
        let out = attention(q, k, qkv[2].forward(x), CONFIG, segments);
        h + o[0].forward(out)
    }
}

#[test]
fn attention_blocks_equal_their_composition() {
    let segments = segments_from_bounds(&[0, 1, 18, 40]);
    let table = rotary_table(0..40);
    for (what, extras) in extras() {
        let qkv = layers(qkv_widths(), D, 30, extras);
        let o = layers([D], CONFIG.n_heads * CONFIG.head_dim, 40, extras);
        let all: Vec<&Layer> = qkv.iter().chain(&o).collect();
        let composed = attention_composed(&qkv, &o, &table, &segments);
        let expected = run(40, &all, |h| h, composed);
        let fused = |recompute| {
            let block = attention_of(&qkv, &o, &table, recompute);
            let segments = &segments;
            run(40, &all, as_bf16, move |h| {
                attention_block(h, block.clone(), segments)
            })
        };
        let kept = fused(false);
        assert_all_close(&kept, &expected, what);
        assert!(kept == fused(true), "{what}: recomputing changes nothing");
    }
}

#[test]
fn the_first_layer_makes_no_gradient_of_its_input() {
    let gate_up = layers([INNER, INNER], D, 10, PLAIN);
    let down = layers([D], INNER, 20, PLAIN);
    let y = mlp(&gate_up, &down, false)(as_bf16(hidden(9)));
    let gradients = y.cast(DType::F32).sum().backward();
    for layer in gate_up.iter().chain(&down) {
        for (name, gradient) in layer.gradients(&gradients) {
            assert!(gradient.iter().any(|x| *x != 0.0), "{name}");
        }
    }
}

#[test]
fn a_cached_block_continues_where_it_stopped() {
    for extras in [PLAIN, INT8] {
        check_a_cached_block(extras);
    }
}

fn check_a_cached_block(extras: Extras) {
    let qkv = layers(qkv_widths(), D, 30, extras);
    let o = layers([D], CONFIG.n_heads * CONFIG.head_dim, 40, extras);
    let h = as_bf16(hidden(11)).inner();
    let table = rotary_table(0..11);
    let whole = attention_block(
        h.clone(),
        attention_of(&qkv, &o, &table, false),
        &segments_from_bounds(&[0, 11]),
    );
    let mut cache = BlockCache::default();
    let mut found = Vec::new();
    for (first, last) in [(0, 4), (4, 5), (5, 11)] {
        let table = rotary_table(first..last);
        let h = h.clone().narrow(0, first as usize, (last - first) as usize);
        let y = attention_block_cached(h, attention_of(&qkv, &o, &table, false), &mut cache);
        assert_eq!(cache.len(), last as usize);
        found.extend(values(y));
    }
    assert_close(&found, &values(whole), "a cached sequence");
}

#[test]
fn the_head_equals_its_composition() {
    for extras in [PLAIN, INT8] {
        check_the_head(extras);
    }
}

fn check_the_head(extras: Extras) {
    const V: usize = 50;
    let [head] = layers([V], D, 60, extras);
    let labels: Vec<i32> = (0..13)
        .map(|i| if i % 4 == 0 { -100 } else { i * 3 })
        .collect();
    let h = hidden(13).require_grad();
    let x = rms_norm(h.clone(), norm_weight(), EPS);
    let loss = linear_cross_entropy(
        x.clone(),
        (head.weight.clone(), None),
        LinearPlan::default(),
        None,
        &labels,
        0.1,
    );
    let mut gradients = (loss.clone() * 3.0).backward();
    let expected = values(h.grad_remove(&mut gradients).expect("h is tracked"));

    let half = as_bf16(hidden(13)).require_grad();
    let plain = || FusedLinear {
        weight: head.fused.weight.clone(),
        bias: None,
        plan: LinearPlan::default(),
    };
    let fused = norm_linear_cross_entropy(
        half.clone(),
        Some(fused_norm()),
        plain(),
        None,
        &labels,
        0.1,
    );
    assert_close(&values(fused.clone()), &values(loss), "loss");
    let mut gradients = (fused * 3.0).backward();
    let found = values(half.grad_remove(&mut gradients).expect("h is tracked"));
    assert_close(&found, &expected, "dh");

    let logits = norm_logits(half, Some(fused_norm()), plain());
    let expected = linear(x, head.weight.clone(), LinearPlan::default());
    assert_close(&values(logits), &values(expected), "logits");
}

#[test]
fn embedding_rows_are_those_of_the_table() {
    for extras in [PLAIN, INT8] {
        check_embedding_rows(extras);
    }
}

fn check_embedding_rows(extras: Extras) {
    let [table] = layers([33], D, 70, extras);
    let device = Device::flex();
    let rows = frozen_embedding(&[(&table.fused.weight, &[32, 0, 7], None)], &device);
    assert_eq!(rows.dtype(), DType::BF16);
    let all = values(table.weight);
    let expected: Vec<f32> = [32, 0, 7]
        .iter()
        .flat_map(|row| all[row * D..(row + 1) * D].to_vec())
        .collect();
    assert_eq!(values(rows), expected);
}

#[test]
fn blocks_have_the_same_bits_on_any_number_of_threads() {
    let gate_up = layers([INNER, INNER], D, 10, PLAIN);
    let down = layers([D], INNER, 20, PLAIN);
    let qkv = layers(qkv_widths(), D, 30, PLAIN);
    let o = layers([D], CONFIG.n_heads * CONFIG.head_dim, 40, PLAIN);
    let all: Vec<&Layer> = qkv.iter().chain(&o).chain(&gate_up).chain(&down).collect();
    let n = 300;
    let segments = segments_from_bounds(&[0, 130, n]);
    let table = rotary_table(0..n as u32);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("a small pool").install(|| {
            run(n, &all, as_bf16, |h| {
                let h = attention_block(h, attention_of(&qkv, &o, &table, false), &segments);
                mlp(&gate_up, &down, false)(h)
            })
        })
    };
    let one = on(1);
    assert!(one == on(2) && one == on(3));
}
