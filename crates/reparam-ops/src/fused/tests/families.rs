//! What the blocks of other families than Llama have, against the same composed of the operations in `f32`.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{
    CONFIG, D, EPS, Extras, INNER, INT8, Layer, Named, PLAIN, as_bf16, assert_all_close,
    assert_close, assert_within, before, fused_norm, hidden, layers, numbers, qkv_widths, round,
    values,
};
use crate::fused::*;
use crate::{
    Activation, AttentionConfig, LinearPlan, RotaryTable, activation, attention, gated, layer_norm,
    linear_cross_entropy, rms_norm, rotary, segments_from_bounds, soft_cap,
};

/// Of blocks with norms of heads and behind the layer, whose inputs and gradients are rounded once more each.
const NORM_TOLERANCE: f32 = 0.03;

/// A norm over `d` elements, trained or not, with a shift or without.
fn norm_of(d: usize, shifts: bool, is_trained: bool, seed: u64) -> FusedNorm {
    let vector = |offset: f32, seed| {
        let values = numbers(d, seed).into_iter().map(|x| offset + 0.3 * x);
        let data = TensorData::new(values.collect::<Vec<f32>>(), [d]);
        let vector = Tensor::<1>::from_data(data, &Device::flex().autodiff());
        if is_trained {
            vector.require_grad()
        } else {
            vector
        }
    };
    FusedNorm {
        weight: vector(1.0, seed),
        shift: shifts.then(|| vector(0.0, seed + 1)),
        eps: EPS,
    }
}

fn apply(norm: &Option<FusedNorm>, x: Tensor<2>) -> Tensor<2> {
    match norm.clone() {
        None => x,
        Some(FusedNorm {
            weight,
            shift: None,
            eps,
        }) => rms_norm(x, weight, eps),
        Some(FusedNorm {
            weight,
            shift: Some(shift),
            eps,
        }) => layer_norm(x, weight, shift, eps),
    }
}

fn apply_heads(norm: &Option<FusedNorm>, x: Tensor<2>) -> Tensor<2> {
    let [n, width] = x.dims();
    let d = norm.as_ref().map_or(width, |norm| norm.weight.dims()[0]);
    apply(norm, x.reshape([n * width / d, d])).reshape([n, width])
}

fn around(
    norms: &FusedNorms,
    h: Tensor<2>,
    sum: Option<Tensor<2>>,
    f: impl Fn(Tensor<2>) -> Tensor<2>,
) -> Tensor<2> {
    let out = apply(&norms.inside, f(apply(&norms.before, h.clone())));
    let out = out * norms.factor.unwrap_or(1.0);
    apply(&norms.after, sum.unwrap_or(h) + out)
}

/// The places of norms that families have, by name.
fn placements(is_trained: bool) -> Vec<(&'static str, FusedNorms)> {
    let rms = |seed| Some(norm_of(D, false, is_trained, seed));
    let layer = |seed| Some(norm_of(D, true, is_trained, seed));
    vec![
        (
            "layer norm before",
            FusedNorms {
                before: layer(81),
                ..FusedNorms::default()
            },
        ),
        (
            "norms before and inside",
            FusedNorms {
                before: rms(82),
                inside: rms(83),
                ..FusedNorms::default()
            },
        ),
        (
            "a factor",
            FusedNorms {
                before: rms(88),
                factor: Some(0.22),
                ..FusedNorms::default()
            },
        ),
        (
            "a factor behind a norm",
            FusedNorms {
                before: rms(89),
                inside: layer(90),
                factor: Some(0.22),
                ..FusedNorms::default()
            },
        ),
        (
            "layer norm after",
            FusedNorms {
                after: layer(84),
                ..FusedNorms::default()
            },
        ),
        (
            "norms everywhere",
            FusedNorms {
                before: layer(85),
                inside: layer(86),
                after: rms(87),
                factor: None,
            },
        ),
    ]
}

/// Output and gradients: of `h`, of what is trained of the layers, and of the norms.
fn run(
    n: usize,
    layers: &[&Layer],
    norms: &[&Option<FusedNorm>],
    to_input: fn(Tensor<2>) -> Tensor<2>,
    block: impl Fn(Tensor<2>) -> Tensor<2>,
) -> Vec<Named> {
    let h = to_input(hidden(n)).require_grad();
    let y = block(h.clone());
    let output = values(y.clone());
    let weights = TensorData::new(round(numbers(n * D, 9)), [n, D]);
    let weights = Tensor::<2>::from_data(weights, &Device::flex().autodiff());
    let gradients = (y.cast(DType::F32) * weights).sum().backward();
    let dh = values(h.grad(&gradients).expect("h is tracked"));
    let mut results = vec![("output", output), ("dh", dh)];
    for layer in layers {
        results.extend(layer.gradients(&gradients));
    }
    for norm in norms.iter().filter_map(|norm| norm.as_ref()) {
        for (name, vector) in [
            ("dweight", Some(&norm.weight)),
            ("dshift", norm.shift.as_ref()),
        ] {
            if let Some(vector) = vector.filter(|vector| vector.is_tracked()) {
                results.push((
                    name,
                    values(vector.grad(&gradients).expect("it is tracked")),
                ));
            }
        }
    }
    results
}

/// The input layers of a feed-forward block: gate and up, both in one, or up alone.
fn inputs(gated: bool, joined: bool, extras: Extras) -> Vec<Layer> {
    match (gated, joined) {
        (true, false) => layers([INNER, INNER], D, 10, extras).into(),
        (true, true) => layers([2 * INNER], D, 10, extras).into(),
        (false, _) => layers([INNER], D, 10, extras).into(),
    }
}

fn check_mlp(
    norms: &FusedNorms,
    (gated_block, joined): (bool, bool),
    function: Activation,
    extras: Extras,
    what: &str,
) {
    check_mlp_added(norms, (gated_block, joined), function, extras, false, what);
    // A norm after the sum has no place in parallel halves.
    if norms.after.is_none() {
        let what = format!("{what}, apart");
        check_mlp_added(norms, (gated_block, joined), function, extras, true, &what);
    }
}

/// `is_apart` has the block added to something else than its input.
fn check_mlp_added(
    norms: &FusedNorms,
    (gated_block, joined): (bool, bool),
    function: Activation,
    extras: Extras,
    is_apart: bool,
    what: &str,
) {
    // Exact in bf16, and another part of the gradient of `h` than that of the block.
    let sum = |h: &Tensor<2>| is_apart.then(|| h.clone() * -0.5);
    let inputs = inputs(gated_block, joined, extras);
    let down = layers([D], INNER, 20, extras);
    let all: Vec<&Layer> = inputs.iter().chain(&down).collect();
    let all_norms = [&norms.before, &norms.inside, &norms.after];
    let inner = |x: Tensor<2>| match (&inputs[..], gated_block) {
        ([gate, up], _) => gated(gate.forward(x.clone()), up.forward(x), function),
        ([joined], true) => {
            let y = joined.forward(x);
            let gate = y.clone().narrow(1, 0, INNER);
            gated(gate, y.narrow(1, INNER, INNER), function)
        }
        ([up], false) => activation(up.forward(x), function),
        _ => unreachable!("one or two"),
    };
    let composed = |h: Tensor<2>| {
        let sum = sum(&h);
        around(norms, h, sum, |x| down[0].forward(inner(x)))
    };
    let expected = run(37, &all, &all_norms, |h| h, composed);
    let fused = |recompute| {
        let block = MlpBlock {
            norms: norms.clone(),
            inputs: inputs.iter().map(|layer| layer.fused.clone()).collect(),
            gated: gated_block,
            down: down[0].fused.clone(),
            activation: function,
            recompute,
        };
        run(37, &all, &all_norms, as_bf16, |h: Tensor<2>| {
            let sum = sum(&h);
            mlp_block(h, sum, block.clone())
        })
    };
    let kept = fused(false);
    assert_all_close(&kept, &expected, what);
    assert!(kept == fused(true), "{what}: recomputing changes nothing");
}

#[test]
fn feed_forward_blocks_equal_their_composition() {
    let bias = Extras {
        bias: true,
        ..PLAIN
    };
    for shape in [(true, false), (true, true), (false, true)] {
        for function in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
            check_mlp(
                &before(),
                shape,
                function,
                bias,
                &format!("{shape:?} {function:?}"),
            );
        }
        check_mlp(&before(), shape, Activation::GeluTanh, INT8, "int8");
    }
    for is_trained in [false, true] {
        for (what, norms) in placements(is_trained) {
            check_mlp(&norms, (true, false), Activation::GeluTanh, PLAIN, what);
            check_mlp(&norms, (false, true), Activation::Gelu, bias, what);
        }
    }
}

/// An attention block that is not Llama's.
struct Attention {
    norms: FusedNorms,
    head_norms: [Option<FusedNorm>; 2],
    joined: bool,
    /// Whether the output of one layer holds, for each key head, its queries, its key and its value.
    grouped: bool,
    /// Whether neighbours are turned.
    interleaved: bool,
    /// How many of the six elements of a head are turned.
    turned: usize,
    config: AttentionConfig,
}

fn plain() -> Attention {
    Attention {
        norms: before(),
        head_norms: [None, None],
        joined: false,
        grouped: false,
        interleaved: false,
        turned: 6,
        config: CONFIG,
    }
}

fn check_attention(case: &Attention, extras: Extras, what: &str) {
    let Attention {
        norms,
        head_norms,
        joined,
        grouped,
        interleaved,
        turned,
        config,
    } = case;
    let (n, widths) = (40, qkv_widths());
    let inputs: Vec<Layer> = match joined {
        true => layers([widths.iter().sum()], D, 30, extras).into(),
        false => layers(widths, D, 30, extras).into(),
    };
    let output = layers([D], widths[0], 40, extras);
    let all: Vec<&Layer> = inputs.iter().chain(&output).collect();
    let [q_norm, k_norm] = head_norms;
    let all_norms = [&norms.before, &norms.inside, &norms.after, q_norm, k_norm];
    let positions: Vec<u32> = (0..n as u32).collect();
    let frequencies = [1.0, 0.3, 0.1];
    let table_of = |positions: &[u32]| {
        let frequencies = &frequencies[..turned / 2];
        let table = RotaryTable::new(positions, frequencies, 1.0, config.head_dim);
        match interleaved {
            true => table.interleaved(),
            false => table,
        }
    };
    let table = (*turned > 0).then(|| table_of(&positions));
    let segments = segments_from_bounds(&[0, 1, 18, n]);
    let turn = |x: Tensor<2>| match &table {
        Some(table) => rotary(x, table),
        None => x,
    };
    let attend = |x: Tensor<2>| {
        let [q, k, v] = match &inputs[..] {
            [q, k, v] => [q, k, v].map(|layer| layer.forward(x.clone())),
            [joined] => {
                let y = joined.forward(x);
                let [q, k, v] = widths;
                match grouped {
                    false => [(0, q), (q, k), (q + k, v)]
                        .map(|(at, width)| y.clone().narrow(1, at, width)),
                    true => {
                        let (groups, d) = (config.n_kv_heads, config.head_dim);
                        let queries = config.n_heads / groups;
                        let y = y.reshape([n, groups, queries + 2, d]);
                        [(0, queries), (queries, 1), (queries + 1, 1)].map(|(at, heads)| {
                            let part = y.clone().narrow(2, at, heads);
                            part.reshape([n, groups * heads * d])
                        })
                    }
                }
            }
            _ => unreachable!("one or three"),
        };
        let q = turn(apply_heads(q_norm, q));
        let k = turn(apply_heads(k_norm, k));
        output[0].forward(attention(q, k, v, *config, &segments))
    };
    let expected = run(
        n,
        &all,
        &all_norms,
        |h| h,
        |h| around(norms, h, None, attend),
    );
    let block = |recompute| AttentionBlock {
        norms: norms.clone(),
        inputs: inputs.iter().map(|layer| layer.fused.clone()).collect(),
        grouped: *grouped,
        output: output[0].fused.clone(),
        q_norm: q_norm.clone(),
        k_norm: k_norm.clone(),
        config: *config,
        rotary: table.as_ref(),
        recompute,
    };
    let fused = |recompute| {
        let (block, segments) = (block(recompute), &segments);
        run(n, &all, &all_norms, as_bf16, move |h| {
            attention_block(h, block.clone(), segments)
        })
    };
    let kept = fused(false);
    for ((name, found), (_, expected)) in kept.iter().zip(&expected) {
        assert_within(NORM_TOLERANCE, found, expected, &format!("{what}: {name}"));
    }
    assert_eq!(kept.len(), expected.len(), "{what}");
    assert!(kept == fused(true), "{what}: recomputing changes nothing");

    if !config.causal {
        return;
    }
    // The same tokens with a cache.
    let h = as_bf16(hidden(n)).inner();
    let whole = attention_block(h.clone(), block(false), &segments_from_bounds(&[0, n]));
    let mut cache = BlockCache::default();
    let mut found = Vec::new();
    for (first, last) in [(0, 4), (4, 5), (5, 21), (21, n)] {
        let table = table.as_ref().map(|_| {
            let positions: Vec<u32> = (first as u32..last as u32).collect();
            table_of(&positions)
        });
        let block = AttentionBlock {
            rotary: table.as_ref(),
            ..block(false)
        };
        let h = h.clone().narrow(0, first, last - first);
        found.extend(values(attention_block_cached(h, block, &mut cache)));
    }
    assert_close(&found, &values(whole), &format!("{what}: cached"));
}

#[test]
fn attention_blocks_of_every_family_equal_their_composition() {
    let bias = Extras {
        bias: true,
        ..PLAIN
    };
    let head_norms =
        |is_trained| [91, 93].map(|seed| Some(norm_of(CONFIG.head_dim, false, is_trained, seed)));
    let window = AttentionConfig {
        window: Some(5),
        ..CONFIG
    };
    let capped = AttentionConfig {
        soft_cap: Some(0.7),
        ..CONFIG
    };
    let bidirectional = AttentionConfig {
        causal: false,
        ..CONFIG
    };
    let cases = [
        (
            "a window",
            Attention {
                config: window,
                ..plain()
            },
        ),
        (
            "a cap",
            Attention {
                config: capped,
                ..plain()
            },
        ),
        (
            "both sides",
            Attention {
                config: bidirectional,
                ..plain()
            },
        ),
        (
            "one layer",
            Attention {
                joined: true,
                ..plain()
            },
        ),
        (
            "one layer of groups",
            Attention {
                joined: true,
                grouped: true,
                head_norms: head_norms(false),
                ..plain()
            },
        ),
        (
            "neighbours",
            Attention {
                interleaved: true,
                turned: 4,
                ..plain()
            },
        ),
        (
            "a part of each head",
            Attention {
                turned: 4,
                ..plain()
            },
        ),
        (
            "no rotary positions",
            Attention {
                turned: 0,
                joined: true,
                ..plain()
            },
        ),
        (
            "norms of heads",
            Attention {
                head_norms: head_norms(false),
                ..plain()
            },
        ),
    ];
    for (what, case) in cases {
        for extras in [PLAIN, bias, INT8] {
            check_attention(&case, extras, what);
        }
    }
    for is_trained in [false, true] {
        for (what, norms) in placements(is_trained) {
            let case = Attention {
                norms,
                head_norms: head_norms(is_trained),
                config: window,
                ..plain()
            };
            check_attention(&case, bias, what);
        }
    }
}

#[test]
fn heads_with_more_than_a_weight_equal_their_composition() {
    const V: usize = 50;
    let labels: Vec<i32> = (0..13)
        .map(|i| if i % 4 == 0 { -100 } else { i * 3 })
        .collect();
    let bias = Extras {
        bias: true,
        ..PLAIN
    };
    let scaled = Extras {
        scales: true,
        ..bias
    };
    let frozen = Extras {
        adapted: |_| false,
        ..PLAIN
    };
    let layer = Some(norm_of(D, true, true, 88));
    let cases = [
        ("factors", PLAIN, Some(fused_norm()), None),
        ("factors and scales", scaled, layer.clone(), None),
        ("a cap", frozen, Some(fused_norm()), Some(0.8)),
        ("all of it", bias, layer, Some(1.5)),
        ("no norm", PLAIN, None, None),
    ];
    for (what, extras, norm, cap) in cases {
        let [head] = layers([V], D, 60, extras);
        let gradients_of = |h: &Tensor<2>, loss: Tensor<1>| {
            let gradients = (loss * 3.0).backward();
            let mut found = vec![("dh", values(h.grad(&gradients).expect("h is tracked")))];
            found.extend(head.gradients(&gradients));
            let vectors = norm
                .iter()
                .flat_map(|norm| [Some(&norm.weight), norm.shift.as_ref()]);
            for vector in vectors.flatten().filter(|vector| vector.is_tracked()) {
                found.push(("norm", values(vector.grad(&gradients).expect("tracked"))));
            }
            found
        };
        let h = hidden(13).require_grad();
        // Logits as the input of a head that changes nothing: the loss has no other way to a bias.
        let mut logits = head.forward(apply(&norm, h.clone()));
        let data = TensorData::new(
            (0..V * V)
                .map(|i| if i % (V + 1) == 0 { 1.0 } else { 0.0 })
                .collect::<Vec<f32>>(),
            [V, V],
        );
        let same = Tensor::<2>::from_data(data, &Device::flex().autodiff());
        let loss = linear_cross_entropy(
            logits.clone(),
            (same, None),
            LinearPlan::default(),
            cap,
            &labels,
            0.1,
        );
        let expected_loss = values(loss.clone());
        let expected = gradients_of(&h, loss);

        let half = as_bf16(hidden(13)).require_grad();
        let fused = norm_linear_cross_entropy(
            half.clone(),
            norm.clone(),
            head.fused.clone(),
            cap,
            &labels,
            0.1,
        );
        assert_close(&values(fused.clone()), &expected_loss, what);
        assert_all_close(&gradients_of(&half, fused), &expected, what);

        let found = norm_logits(half, norm.clone(), head.fused.clone());
        let found = match cap {
            Some(cap) => soft_cap(found, cap),
            None => found,
        };
        if let Some(cap) = cap {
            logits = soft_cap(logits, cap);
        }
        assert_close(&values(found), &values(logits), &format!("{what}: logits"));
    }
}

/// Dropout in a head: what is left is that of the labelled tokens, and the same in both passes.
#[test]
fn dropout_in_a_head_is_that_of_its_rows() {
    let dropped = Extras {
        dropout: 0.4,
        ..PLAIN
    };
    let [head] = layers([50], D, 60, dropped);
    let labels: Vec<i32> = (0..13).collect();
    let h = hidden(13).require_grad();
    let data = TensorData::new(
        (0..2500)
            .map(|i| if i % 51 == 0 { 1.0 } else { 0.0 })
            .collect::<Vec<f32>>(),
        [50, 50],
    );
    let same = Tensor::<2>::from_data(data, &Device::flex().autodiff());
    let loss = linear_cross_entropy(
        head.forward(h.clone()),
        (same, None),
        LinearPlan::default(),
        None,
        &labels,
        0.1,
    );
    let gradients = loss.backward();
    let half = as_bf16(hidden(13)).require_grad();
    let fused =
        norm_linear_cross_entropy(half.clone(), None, head.fused.clone(), None, &labels, 0.1);
    let fused_gradients = fused.backward();
    let of = |h: &Tensor<2>, gradients| values(h.grad(gradients).expect("h is tracked"));
    assert_close(&of(&half, &fused_gradients), &of(&h, &gradients), "dh");
    let (found, expected) = (head.gradients(&fused_gradients), head.gradients(&gradients));
    assert_all_close(&found, &expected, "factors");
}

#[test]
fn norms_alone_equal_those_in_f32() {
    for (shifts, is_trained) in [(false, false), (true, false), (false, true), (true, true)] {
        let one = Some(norm_of(D, shifts, is_trained, 70));
        let expected = run(19, &[], &[&one], |h| h, |h| apply(&one, h));
        let found = run(19, &[], &[&one], as_bf16, |h| {
            norm(h, one.clone().expect("a norm"))
        });
        assert_all_close(&found, &expected, "norm");
    }
}

#[test]
fn tables_are_added_and_multiplied() {
    let [first] = layers([33], D, 70, PLAIN);
    let [second] = layers([9], D, 71, PLAIN);
    let device = Device::flex();
    let (ids, positions) = ([32, 0, 7], [0, 1, 8]);
    let tables: [(&PackedWeight, &[u32], Option<f32>); 2] = [
        (&first.fused.weight, &ids, Some(4.5)),
        (&second.fused.weight, &positions, None),
    ];
    let found = values(frozen_embedding(&tables, &device));
    let rows = |layer: &Layer, ids: [u32; 3]| {
        let all = values(layer.weight.clone());
        let row = |id: u32| all[id as usize * D..][..D].to_vec();
        ids.into_iter().flat_map(row).collect::<Vec<f32>>()
    };
    let product = round(rows(&first, ids).into_iter().map(|x| 4.5 * x).collect());
    let sum = product
        .iter()
        .zip(rows(&second, positions))
        .map(|(a, b)| a + b);
    assert_eq!(found, round(sum.collect()));
}
