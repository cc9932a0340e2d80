//! Native forms against the reference, and the reference against central differences in `f64`.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::*;

mod experts;
mod recurrent;
mod state_space;

/// Products of up to a few hundred terms in `f32`, in another order than Burn's.
const TOLERANCE: f64 = 2e-5;
/// The step of central differences in `f64`: its square is their error, its inverse the rounding.
const STEP: f64 = 1e-5;
const DIFFERENCE_TOLERANCE: f64 = 1e-7;

/// Numbers in `[-1, 1)` that look random and are the same everywhere.
pub(crate) fn numbers(len: usize, seed: u64) -> Vec<f64> {
    (0..len as u64)
        .map(|i| {
            let mut x =
                (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.wrapping_mul(0xd129_0d3f);
            x ^= x >> 31;
            x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x ^= x >> 27;
            (x >> 11) as f64 * 2f64.powi(-52) - 1.0
        })
        .collect()
}

fn tensor(values: &[f64], dims: [usize; 2], dtype: DType) -> Tensor<2> {
    let data = TensorData::new(values.to_vec(), dims).convert_dtype(dtype);
    Tensor::from_data(data, (&Device::flex().autodiff(), dtype))
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    let data = tensor.into_data().convert::<f64>();
    data.try_to_vec().expect("f64 data")
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (idx, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= tolerance * expected.abs().max(1.0),
            "{what}[{idx}]: {found} != {expected}"
        );
    }
}

/// One differentiable function of several matrices.
struct Case {
    inputs: Vec<(Vec<f64>, [usize; 2])>,
    native: Box<dyn Fn(Vec<Tensor<2>>) -> Tensor<2>>,
    reference: Box<dyn Fn(Vec<Tensor<2>>) -> Tensor<2>>,
}

impl Case {
    fn new<F, G>(dims: &[[usize; 2]], native: F, reference: G) -> Self
    where
        F: Fn(Vec<Tensor<2>>) -> Tensor<2> + 'static,
        G: Fn(Vec<Tensor<2>>) -> Tensor<2> + 'static,
    {
        let inputs = dims
            .iter()
            .enumerate()
            .map(|(seed, dims)| (numbers(dims[0] * dims[1], seed as u64 + 1), *dims))
            .collect();
        Self {
            inputs,
            native: Box::new(native),
            reference: Box::new(reference),
        }
    }

    /// The sum of the outputs, each weighted by a number of its own, so that no gradient is
    /// uniform by accident.
    fn objective(output: Tensor<2>) -> Tensor<1> {
        let dims = output.dims();
        let weights = tensor(&numbers(dims[0] * dims[1], 99), dims, output.dtype());
        (output * weights).sum()
    }

    fn gradients(
        &self,
        function: &dyn Fn(Vec<Tensor<2>>) -> Tensor<2>,
        dtype: DType,
    ) -> (Vec<f64>, Vec<Vec<f64>>) {
        let inputs: Vec<_> = self
            .inputs
            .iter()
            .map(|(values, dims)| tensor(values, *dims, dtype).require_grad())
            .collect();
        let output = function(inputs.clone());
        let grads = Self::objective(output.clone()).backward();
        let gradients = inputs
            .iter()
            .map(|input| input.grad(&grads).map_or_else(Vec::new, values))
            .collect();
        (values(output), gradients)
    }

    fn value(&self, inputs: &[(Vec<f64>, [usize; 2])]) -> f64 {
        let inputs = inputs
            .iter()
            .map(|(values, dims)| tensor(values, *dims, DType::F64))
            .collect();
        values(Self::objective((self.reference)(inputs)))[0]
    }

    fn check(&self) {
        let (expected, expected_gradients) = self.gradients(&self.reference, DType::F64);
        let (found, gradients) = self.gradients(&self.native, DType::F32);
        assert_close(&found, &expected, TOLERANCE, "output");
        for (idx, (found, expected)) in gradients.iter().zip(&expected_gradients).enumerate() {
            assert_close(found, expected, TOLERANCE, &format!("gradient {idx}"));
        }
        self.check_differences(&expected_gradients);
    }

    /// Compares a spread of elements of every gradient with central differences.
    fn check_differences(&self, gradients: &[Vec<f64>]) {
        for (input_idx, gradient) in gradients.iter().enumerate() {
            for element in (0..gradient.len()).step_by(gradient.len().div_ceil(9).max(1)) {
                let shifted = |by: f64| {
                    let mut inputs = self.inputs.clone();
                    inputs[input_idx].0[element] += by;
                    self.value(&inputs)
                };
                let difference = (shifted(STEP) - shifted(-STEP)) / (2.0 * STEP);
                assert!(
                    (difference - gradient[element]).abs() < DIFFERENCE_TOLERANCE,
                    "input {input_idx}, element {element}: {difference} != {}",
                    gradient[element]
                );
            }
        }
    }
}

/// The plan of one term, with a dropout that leaves some of its input.
fn low_rank(inputs: &mut std::vec::IntoIter<Tensor<2>>, p: f32) -> LowRank {
    LowRank {
        a: inputs.next().expect("A"),
        b: inputs.next().expect("B"),
        scaling: 1.5,
        dropout: Some((
            p,
            DropoutKey {
                seed: 1,
                step: 2,
                tensor: 3,
            },
        )),
    }
}

#[test]
fn dense_linear() {
    fn run(
        inputs: Vec<Tensor<2>>,
        f: fn(Tensor<2>, Tensor<2>, LinearPlan) -> Tensor<2>,
    ) -> Tensor<2> {
        let [x, w] = inputs.try_into().expect("two inputs");
        f(x, w, LinearPlan::default())
    }
    for [n, d_in, d_out] in [[1, 1, 1], [7, 5, 3], [33, 20, 17]] {
        Case::new(
            &[[n, d_in], [d_out, d_in]],
            |inputs| run(inputs, linear),
            |inputs| run(inputs, reference::linear),
        )
        .check();
    }
}

#[test]
fn low_rank_linear() {
    fn run(
        inputs: Vec<Tensor<2>>,
        f: fn(Tensor<2>, Tensor<2>, LinearPlan) -> Tensor<2>,
    ) -> Tensor<2> {
        let mut inputs = inputs.into_iter();
        let x = inputs.next().expect("x");
        // Taken as frozen: a gradient of the weight is not part of the plan.
        let w = inputs.next().expect("W").detach();
        let plan = LinearPlan {
            low_rank: vec![low_rank(&mut inputs, 0.0)],
            ..LinearPlan::default()
        };
        f(x, w, plan)
    }
    for [n, d_in, d_out, rank] in [[1, 1, 1, 1], [9, 8, 6, 2], [40, 12, 31, 5]] {
        let case = Case::new(
            &[[n, d_in], [d_out, d_in], [rank, d_in], [d_out, rank]],
            |inputs| run(inputs, linear),
            |inputs| run(inputs, reference::linear),
        );
        let (expected, expected_gradients) = case.gradients(&case.reference, DType::F64);
        let (found, gradients) = case.gradients(&case.native, DType::F32);
        assert_close(&found, &expected, TOLERANCE, "output");
        for (found, expected) in gradients.iter().zip(&expected_gradients) {
            assert_close(found, expected, TOLERANCE, "gradient");
        }
        assert!(gradients[1].is_empty(), "the frozen weight has no gradient");
    }
}

#[test]
fn a_plan_of_scales_and_terms() {
    fn run(
        inputs: Vec<Tensor<2>>,
        f: fn(Tensor<2>, Tensor<2>, LinearPlan) -> Tensor<2>,
    ) -> Tensor<2> {
        let mut inputs = inputs.into_iter();
        let x = inputs.next().expect("x");
        let mut scale = || inputs.next().map(|row| row.squeeze_dim::<1>(0));
        let (input_scale, output_scale) = (scale(), scale());
        let plan = LinearPlan {
            input_scale,
            output_scale,
            low_rank: vec![low_rank(&mut inputs, 0.3), low_rank(&mut inputs, 0.0)],
        };
        let w = tensor(&numbers(6 * 8, 50), [6, 8], x.dtype());
        f(x, w, plan)
    }
    Case::new(
        &[[9, 8], [1, 8], [1, 6], [2, 8], [6, 2], [3, 8], [6, 3]],
        |inputs| run(inputs, linear),
        |inputs| run(inputs, reference::linear),
    )
    .check();
}

#[test]
fn root_mean_square_norm() {
    fn run(inputs: Vec<Tensor<2>>, f: fn(Tensor<2>, Tensor<1>, f32) -> Tensor<2>) -> Tensor<2> {
        let [x, w] = inputs.try_into().expect("two inputs");
        let [_, d] = w.dims();
        f(x, w.reshape([d]), 1e-5)
    }
    for [n, d] in [[1, 1], [5, 7], [70, 64]] {
        Case::new(
            &[[n, d], [1, d]],
            |inputs| run(inputs, rms_norm),
            |inputs| run(inputs, reference::rms_norm),
        )
        .check();
    }
}

#[test]
fn layer_normalization() {
    type LayerNorm = fn(Tensor<2>, Tensor<1>, Tensor<1>, f32) -> Tensor<2>;
    fn run(inputs: Vec<Tensor<2>>, f: LayerNorm) -> Tensor<2> {
        let [x, weight, bias] = inputs.try_into().expect("three inputs");
        let [_, d] = weight.dims();
        f(x, weight.reshape([d]), bias.reshape([d]), 1e-2)
    }
    for [n, d] in [[1, 2], [5, 7], [70, 64]] {
        Case::new(
            &[[n, d], [1, d], [1, d]],
            |inputs| run(inputs, layer_norm),
            |inputs| run(inputs, reference::layer_norm),
        )
        .check();
    }
}

const ACTIVATIONS: [Activation; 4] = [
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Relu,
];

#[test]
fn activations() {
    fn run(
        inputs: Vec<Tensor<2>>,
        function: Activation,
        f: fn(Tensor<2>, Activation) -> Tensor<2>,
    ) -> Tensor<2> {
        let [x] = inputs.try_into().expect("one input");
        f(x * 4.0, function)
    }
    for function in ACTIVATIONS {
        Case::new(
            &[[11, 19]],
            move |inputs| run(inputs, function, activation),
            move |inputs| run(inputs, function, reference::activation),
        )
        .check();
    }
}

#[test]
fn gated_activations() {
    fn run(inputs: Vec<Tensor<2>>, f: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<2>) -> Tensor<2> {
        let [gate, up] = inputs.try_into().expect("two inputs");
        f(gate * 4.0, up)
    }
    for function in ACTIVATIONS {
        Case::new(
            &[[11, 19], [11, 19]],
            move |inputs| run(inputs, |gate, up| gated(gate, up, function)),
            move |inputs| {
                run(inputs, |gate, up| {
                    reference::activation(gate, function) * up
                })
            },
        )
        .check();
    }
}

#[test]
fn rotary_positions() {
    fn run(
        inputs: Vec<Tensor<2>>,
        (head_dim, interleaved): (usize, bool),
        f: fn(Tensor<2>, &RotaryTable) -> Tensor<2>,
    ) -> Tensor<2> {
        let [x] = inputs.try_into().expect("one input");
        let table = RotaryTable::new(&[0, 1, 2, 0, 1, 900], &[1.0, 0.3, 0.01], 1.0, head_dim);
        assert_eq!((table.len(), table.is_empty()), (6, false));
        let table = match interleaved {
            true => table.interleaved(),
            false => table,
        };
        // A sum in front makes `x` shared, so that rotating in place would be noticed.
        f(x.clone(), &table) + x
    }
    // Of the larger heads a part is rotated.
    let cases = [6, 9, 18].map(|head_dim| [false, true].map(|pairs| (head_dim, pairs)));
    for heads in cases.into_iter().flatten() {
        Case::new(
            &[[6, 18]],
            move |inputs| run(inputs, heads, rotary),
            move |inputs| run(inputs, heads, reference::rotary),
        )
        .check();
    }
}

#[test]
fn attention_within_segments() {
    type Attention = fn(Tensor<2>, Tensor<2>, Tensor<2>, AttentionConfig, &Segments) -> Tensor<2>;
    fn run(
        inputs: Vec<Tensor<2>>,
        (causal, window, soft_cap): (bool, Option<usize>, Option<f32>),
        f: Attention,
    ) -> Tensor<2> {
        let [q, k, v] = inputs.try_into().expect("three inputs");
        let config = AttentionConfig {
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 6,
            scale: 0.4,
            causal,
            window,
            soft_cap,
        };
        f(q, k, v, config, &segments_from_bounds(&[0, 1, 8, 30]))
    }
    for mask in [
        (true, None, None),
        (false, None, None),
        (true, Some(3), None),
        (false, Some(4), Some(0.7)),
        (true, None, Some(0.5)),
    ] {
        Case::new(
            &[[30, 24], [30, 12], [30, 12]],
            move |inputs| run(inputs, mask, attention),
            move |inputs| run(inputs, mask, reference::attention),
        )
        .check();
    }
}

#[test]
fn attention_with_some_weights_dropped() {
    type Attention = fn(
        Tensor<2>,
        Tensor<2>,
        Tensor<2>,
        AttentionConfig,
        &Segments,
        Option<(f32, DropoutKey)>,
    ) -> Tensor<2>;
    fn run(inputs: Vec<Tensor<2>>, p: f32, f: Attention) -> Tensor<2> {
        let [q, k, v] = inputs.try_into().expect("three inputs");
        let config = AttentionConfig {
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 6,
            scale: 0.4,
            causal: false,
            window: None,
            soft_cap: None,
        };
        let key = DropoutKey {
            seed: 3,
            step: 5,
            tensor: 7,
        };
        let segments = segments_from_bounds(&[0, 1, 8, 30]);
        f(q, k, v, config, &segments, Some((p, key)))
    }
    for p in [0.0, 0.3] {
        Case::new(
            &[[30, 24], [30, 12], [30, 12]],
            move |inputs| run(inputs, p, attention_with_dropout),
            move |inputs| run(inputs, p, reference::attention_with_dropout),
        )
        .check();
    }
    let dropped = |p| {
        let [q, kv] =
            [24, 12].map(|width| tensor(&numbers(30 * width, 1), [30, width], DType::F32));
        values(run(vec![q, kv.clone(), kv], p, attention_with_dropout))
    };
    assert_ne!(dropped(0.0), dropped(0.3));
}

#[test]
fn attention_of_new_tokens_over_a_cache() {
    let config = AttentionConfig {
        n_heads: 2,
        n_kv_heads: 1,
        head_dim: 8,
        scale: 0.3,
        causal: true,
        window: None,
        soft_cap: None,
    };
    let q = tensor(&numbers(3 * 16, 1), [3, 16], DType::F32);
    // The buffers are longer than what is in use.
    let k = tensor(&numbers(12 * 8, 2), [12, 8], DType::F32);
    let v = tensor(&numbers(12 * 8, 3), [12, 8], DType::F32);
    let segment = Segment {
        q_start: 0,
        q_len: 3,
        k_start: 0,
        k_len: 9,
    };
    let segments = Segments::from([segment]);
    let found = attention(q.clone(), k.clone(), v.clone(), config, &segments);
    let expected = reference::attention(q, k, v, config, &segments);
    assert_close(&values(found), &values(expected), TOLERANCE, "output");
}

/// Attention with terms.
type WithTerms = fn(
    [Tensor<2>; 3],
    ScoreTerms,
    AttentionConfig,
    &Segments,
    Option<(f32, DropoutKey)>,
) -> Tensor<2>;

#[test]
fn attention_with_a_bias_by_distance() {
    fn run(
        inputs: Vec<Tensor<2>>,
        (causal, soft_cap): (bool, Option<f32>),
        dropout: bool,
        f: WithTerms,
    ) -> Tensor<2> {
        let [q, k, v, bias] = inputs.try_into().expect("four inputs");
        let config = AttentionConfig {
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 6,
            scale: 0.4,
            causal,
            window: None,
            soft_cap,
        };
        let key = DropoutKey {
            seed: 3,
            step: 5,
            tensor: 7,
        };
        let dropout = dropout.then_some((0.3, key));
        // A query alone, and one whose segment has keys of the past.
        let segment = |q_start, q_len, k_start, k_len| Segment {
            q_start,
            q_len,
            k_start,
            k_len,
        };
        let segments = [
            segment(0, 1, 0, 1),
            segment(1, 9, 1, 9),
            segment(11, 3, 12, 8),
        ];
        let terms = ScoreTerms {
            bias: Some(bias * 3.0),
            ..ScoreTerms::default()
        };
        f([q, k, v], terms, config, &Segments::from(segments), dropout)
    }
    for of in [(true, None), (false, None), (true, Some(0.7))] {
        for dropout in [false, true] {
            Case::new(
                // The bias reaches further than it has to.
                &[[14, 24], [20, 12], [20, 12], [4, 21]],
                move |inputs| run(inputs, of, dropout, attention_with),
                move |inputs| run(inputs, of, dropout, reference::attention_with),
            )
            .check();
        }
    }
}

/// Scores of content and position, with each kind of positions and both.
#[test]
fn attention_with_positions() {
    fn run(
        inputs: Vec<Tensor<2>>,
        kinds: [bool; 2],
        (soft_cap, dropout): (Option<f32>, bool),
        f: WithTerms,
    ) -> Tensor<2> {
        let mut inputs = inputs.into_iter();
        let mut next = || inputs.next().expect("an input for each place");
        let [q, k, v] = [next(), next(), next()];
        let [keys, queries] = kinds.map(|is_there| is_there.then(&mut next));
        let config = AttentionConfig {
            n_heads: 3,
            n_kv_heads: 3,
            head_dim: 4,
            scale: 0.4,
            causal: false,
            window: None,
            soft_cap,
        };
        let key = DropoutKey {
            seed: 3,
            step: 5,
            tensor: 7,
        };
        let terms = ScoreTerms {
            bias: None,
            keys,
            queries,
        };
        let dropout = dropout.then_some((0.3, key));
        let segments = segments_from_bounds(&[0, 1, 10, 14]);
        f([q, k, v], terms, config, &segments, dropout)
    }
    for kinds in [[true, true], [true, false], [false, true]] {
        for of in [(None, false), (Some(0.7), true)] {
            let mut dims = vec![[14, 12]; 3];
            // They reach further than they have to.
            dims.resize(
                3 + kinds.iter().filter(|is_there| **is_there).count(),
                [21, 12],
            );
            Case::new(
                &dims,
                move |inputs| run(inputs, kinds, of, attention_with),
                move |inputs| run(inputs, kinds, of, reference::attention_with),
            )
            .check();
        }
    }
}

/// As a decoder reads a source: more or fewer queries than keys, and no mask.
#[test]
fn attention_over_another_sequence() {
    type Attention = fn(Tensor<2>, Tensor<2>, Tensor<2>, AttentionConfig, &Segments) -> Tensor<2>;
    fn run(inputs: Vec<Tensor<2>>, f: Attention) -> Tensor<2> {
        let [q, k, v] = inputs.try_into().expect("three inputs");
        let config = AttentionConfig {
            n_heads: 2,
            n_kv_heads: 2,
            head_dim: 6,
            scale: 0.4,
            causal: false,
            window: None,
            soft_cap: None,
        };
        let segments = [(0, 5, 0, 2), (5, 1, 2, 9), (6, 4, 11, 7)];
        let segments = segments.map(|(q_start, q_len, k_start, k_len)| Segment {
            q_start,
            q_len,
            k_start,
            k_len,
        });
        f(q, k, v, config, &Segments::from(segments))
    }
    Case::new(
        &[[10, 12], [18, 12], [18, 12]],
        |inputs| run(inputs, attention),
        |inputs| run(inputs, reference::attention),
    )
    .check();
}

#[test]
fn embedding_rows() {
    fn run(inputs: Vec<Tensor<2>>, f: fn(Tensor<2>, &[u32]) -> Tensor<2>) -> Tensor<2> {
        let [table] = inputs.try_into().expect("one input");
        f(table, &[3, 0, 3, 6])
    }
    Case::new(
        &[[7, 5]],
        |inputs| run(inputs, embedding),
        |inputs| run(inputs, reference::embedding),
    )
    .check();
}

#[test]
fn cross_entropy_of_labelled_rows() {
    type Loss = fn(Tensor<2>, Tensor<2>, Option<f32>, &[i32], f32) -> Tensor<1>;
    fn plain(h: Tensor<2>, w: Tensor<2>, cap: Option<f32>, labels: &[i32], s: f32) -> Tensor<1> {
        linear_cross_entropy(h, (w, None), LinearPlan::default(), cap, labels, s)
    }
    fn run(inputs: Vec<Tensor<2>>, cap: Option<f32>, f: Loss) -> Tensor<2> {
        let [h, w] = inputs.try_into().expect("two inputs");
        let labels = [4, IGNORE_INDEX, 0, 12, IGNORE_INDEX, 4];
        // The factor stands for whatever comes after the loss.
        (f(h, w, cap, &labels, 0.25) * 3.0).reshape([1, 1])
    }
    for cap in [None, Some(0.8)] {
        Case::new(
            &[[6, 5], [13, 5]],
            move |inputs| run(inputs, cap, plain),
            move |inputs| run(inputs, cap, reference::linear_cross_entropy),
        )
        .check();
    }
}

#[test]
fn cross_entropy_of_a_head_with_a_plan() {
    /// A head with all that a plan can have, dropout, and a bias.
    fn parts(inputs: Vec<Tensor<2>>) -> (Tensor<2>, Tensor<2>, LinearPlan, Tensor<1>) {
        let [h, w, a, b, c_in, c_out, bias] = inputs.try_into().expect("seven inputs");
        let key = DropoutKey {
            seed: 3,
            step: 5,
            tensor: 7,
        };
        let plan = LinearPlan {
            input_scale: Some(c_in.reshape([5])),
            low_rank: vec![LowRank {
                a,
                b,
                scaling: 1.5,
                dropout: Some((0.4, key)),
            }],
            output_scale: Some(c_out.reshape([13])),
        };
        (h, w, plan, bias.reshape([13]))
    }
    let labels = [4, IGNORE_INDEX, 0, 12, IGNORE_INDEX, 4];
    for cap in [None, Some(0.8)] {
        Case::new(
            &[[6, 5], [13, 5], [2, 5], [13, 2], [1, 5], [1, 13], [1, 13]],
            move |inputs| {
                let (h, w, plan, bias) = parts(inputs);
                let weight = (w, Some(bias));
                linear_cross_entropy(h, weight, plan, cap, &labels, 0.25).reshape([1, 1])
            },
            move |inputs| {
                let (h, w, plan, bias) = parts(inputs);
                // The loss of an identity head on the plan's own outputs.
                let y = reference::linear(h, w, plan) + bias.unsqueeze::<2>();
                let same = Tensor::<2>::eye(13, &y.device()).cast(y.dtype());
                reference::linear_cross_entropy(y, same, cap, &labels, 0.25).reshape([1, 1])
            },
        )
        .check();
    }
}

#[test]
fn smoothed_labels() {
    fn parts(inputs: Vec<Tensor<2>>) -> (Tensor<2>, Tensor<2>, LinearPlan, Tensor<1>) {
        let [h, w, a, b, bias] = inputs.try_into().expect("five inputs");
        let plan = LinearPlan {
            low_rank: vec![LowRank {
                a,
                b,
                scaling: 1.5,
                dropout: None,
            }],
            ..LinearPlan::default()
        };
        (h, w, plan, bias.reshape([13]))
    }
    const LABELS: [i32; 6] = [4, IGNORE_INDEX, 0, 12, IGNORE_INDEX, 4];
    for eps in [0.0, 0.1, 0.7] {
        Case::new(
            &[[6, 5], [13, 5], [2, 5], [13, 2], [1, 13]],
            move |inputs| {
                let (h, w, plan, bias) = parts(inputs);
                let loss =
                    smoothed_linear_cross_entropy(h, (w, Some(bias)), plan, &LABELS, (0.25, eps));
                loss.reshape([1, 1])
            },
            move |inputs| {
                let (h, w, plan, bias) = parts(inputs);
                let y = reference::linear(h, w, plan) + bias.unsqueeze::<2>();
                let y = burn::tensor::activation::log_softmax(y, 1);
                let wanted = LABELS.iter().flat_map(|label| {
                    (0..13).map(move |token| match *label {
                        IGNORE_INDEX => 0.0,
                        label => {
                            f64::from(eps) / 13.0
                                + f64::from(u8::from(token == label)) * (1.0 - f64::from(eps))
                        }
                    })
                });
                let wanted: Vec<f64> = wanted.collect();
                let wanted = tensor(&wanted, [6, 13], y.dtype());
                ((y * wanted).sum() * -0.25).reshape([1, 1])
            },
        )
        .check();
    }
    let of_nothing = |eps| {
        let [h, w] = [1, 2].map(|seed| tensor(&numbers(10, seed), [2, 5], DType::F32));
        let labels = [IGNORE_INDEX; 2];
        let plan = LinearPlan::default();
        values(smoothed_linear_cross_entropy(
            h,
            (w, None),
            plan,
            &labels,
            (1.0, eps),
        ))
    };
    assert_eq!(of_nothing(0.1), [0.0]);
}

#[test]
fn untracked_inputs_give_untracked_outputs() {
    let plain = Tensor::<2>::ones([3, 4], &Device::flex());
    let weight = Tensor::<2>::ones([2, 4], &Device::flex());
    let y = linear(plain, weight.clone(), LinearPlan::default());
    assert!(!y.is_autodiff());
    let constant = Tensor::<2>::ones([3, 4], &Device::flex().autodiff());
    let y = linear(constant, weight, LinearPlan::default());
    assert!(y.is_autodiff() && !y.is_tracked());
}

#[test]
fn dropout_is_a_function_of_its_key() {
    let key = DropoutKey {
        seed: 1,
        step: 2,
        tensor: 3,
    };
    let x = || Tensor::<2>::ones([300, 400], &Device::flex());
    let first = values(dropout(x(), 0.25, key));
    assert_eq!(first, values(dropout(x(), 0.25, key)));
    for other in [
        DropoutKey { seed: 9, ..key },
        DropoutKey { step: 9, ..key },
        DropoutKey { tensor: 9, ..key },
    ] {
        assert_ne!(first, values(dropout(x(), 0.25, other)));
    }
    let dropped = first.iter().filter(|&&value| value == 0.0).count() as f64;
    let n = first.len() as f64;
    // Five standard deviations.
    assert!((dropped - 0.25 * n).abs() < 5.0 * (n * 0.25 * 0.75).sqrt());
    let kept = first
        .iter()
        .find(|&&value| value != 0.0)
        .expect("some are kept");
    assert!((kept - 1.0 / 0.75).abs() < 1e-6);
    assert_eq!(values(dropout(x(), 0.0, key)), vec![1.0; 120_000]);
}

#[test]
fn dropout_does_not_depend_on_the_number_of_threads() {
    let key = DropoutKey {
        seed: 1,
        step: 2,
        tensor: 3,
    };
    let with_threads = |n_threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(n_threads)
            .build();
        let x = Tensor::<2>::ones([300, 400], &Device::flex());
        pool.expect("a thread pool")
            .install(|| values(dropout(x, 0.5, key)))
    };
    assert_eq!(with_threads(1), with_threads(3));
}
