//! The methods against their definitions, on scores that are known.

use burn::tensor::{Device, TensorData};
use reparam_data::SpecialTokens;

use super::attribute::Found;
use super::*;
use crate::Stop;

use burn::tensor::Tensor;

/// The width of a token vector.
const WIDTH: usize = 3;

/// `tanh(sum_i w_i . v_i) + (sum_i v_i[0])^2`, where `w_i` depends on the place of the token in its input.
struct Toy;

fn weight(place: usize, column: usize) -> f32 {
    ((place * WIDTH + column) as f32 * 0.7).sin()
}

fn device() -> Device {
    Device::flex().autodiff()
}

fn tensor(values: Vec<f32>, shape: [usize; 2]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), &device())
}

impl Subject for Toy {
    fn vectors(&self, ids: &[u32]) -> Option<Tensor<2>> {
        let values = ids
            .iter()
            .flat_map(|id| (0..WIDTH).map(move |column| (*id as f32 * 1.3 + column as f32).cos()));
        Some(tensor(values.collect(), [ids.len(), WIDTH]))
    }

    fn scores(&self, vectors: Tensor<2>, inputs: &[&Input]) -> Tensor<1> {
        let mut start = 0;
        let scores = inputs.iter().map(|input| {
            let n = input.ids.len();
            let own = vectors.clone().narrow(0, start, n);
            start += n;
            let weights = (0..n).flat_map(|p| (0..WIDTH).map(move |c| weight(p, c)));
            let weights = tensor(weights.collect(), [n, WIDTH]);
            let linear = (own.clone() * weights).sum();
            linear.tanh() + own.narrow(1, 0, 1).sum().powi_scalar(2)
        });
        Tensor::cat(scores.collect(), 0)
    }

    fn attention(&self, input: &Input) -> Option<Vec<Tensor<3>>> {
        let n = input.ids.len();
        let layer = |seed: usize| {
            let of_head = |head: usize| {
                (0..n).flat_map(move |query| {
                    let raw: Vec<f32> = (0..n)
                        .map(|key| 1.0 + ((seed + head * 5 + query * 3 + key) as f32).sin())
                        .collect();
                    let sum: f32 = raw.iter().sum();
                    raw.into_iter().map(move |value| value / sum)
                })
            };
            let values: Vec<f32> = (0..2).flat_map(of_head).collect();
            Tensor::<3>::from_data(TensorData::new(values, [2, n, n]), &device())
        };
        Some(vec![layer(1), layer(20), layer(300)])
    }

    fn readout(&self, input: &Input) -> Vec<f64> {
        (0..input.ids.len())
            .map(|token| f64::from(u8::from(token == 1)))
            .collect()
    }
}

fn input() -> Input {
    Input {
        ids: vec![1, 5, 9, 2, 7],
        types: vec![0; 5],
        place: None,
    }
}

/// The first and the last token are of the template, and a word has two tokens.
const WORDS: [Option<usize>; 5] = [None, Some(0), Some(1), Some(1), None];

fn special() -> SpecialTokens {
    SpecialTokens {
        mask: Some(3),
        ..SpecialTokens::default()
    }
}

fn found(
    method: Attribution,
    baseline: Option<Baseline>,
    steps: usize,
    special: &SpecialTokens,
) -> Found {
    let asked = Asked {
        method,
        steps,
        baseline,
        special,
        words: &WORDS,
    };
    attribute(&Toy, &input(), asked, Stop::never()).expect("an explanation")
}

fn score(ids: &[u32]) -> f64 {
    let input = Input {
        ids: ids.to_vec(),
        types: vec![0; ids.len()],
        place: None,
    };
    let vectors = Toy.vectors(ids).expect("vectors");
    let scores = Toy.scores(vectors, &[&input]).into_data();
    scores.iter::<f64>().next().expect("a score")
}

/// What is left falls with the square of the steps, as it does for the middles of intervals, down to the digits of `f32`.
#[test]
fn integrated_gradients_are_complete() {
    for baseline in [None, Some(Baseline::Mask), Some(Baseline::Zero)] {
        let error = |steps: usize| {
            let found = found(
                Attribution::IntegratedGradients,
                baseline,
                steps,
                &special(),
            );
            let sum: f64 = found.attributions.iter().sum();
            let base = found.baseline_score.expect("a baseline");
            let error = (sum - (found.score - base)).abs();
            assert_eq!(found.completeness_error, Some(error));
            assert!((found.attributions[0], found.attributions[4]) == (0.0, 0.0));
            error
        };
        let (few, more, many) = (error(4), error(16), error(128));
        assert!(
            more < few / 6.0 || more < 1e-5,
            "{baseline:?} {few:e} {more:e}"
        );
        assert!(many < 1e-5, "{baseline:?} {many:e}");
    }
}

#[test]
fn the_baseline_keeps_the_template_and_masks_the_rest() {
    let by_mask = found(Attribution::IntegratedGradients, None, 8, &special());
    assert_eq!(by_mask.baseline, Some("mask"));
    let expected = score(&[1, 3, 3, 3, 7]);
    assert!((by_mask.baseline_score.expect("a score") - expected).abs() < 1e-6);
    let without = SpecialTokens::default();
    let by_zero = found(Attribution::IntegratedGradients, None, 8, &without);
    assert_eq!(by_zero.baseline, Some("zero"));
    let asked = Asked {
        method: Attribution::IntegratedGradients,
        steps: 8,
        baseline: Some(Baseline::Pad),
        special: &without,
        words: &WORDS,
    };
    let error = attribute(&Toy, &input(), asked, Stop::never()).expect_err("no such token");
    assert_eq!(error.to_string(), "the tokenizer has no pad token");
}

#[test]
fn gradients_are_those_of_central_differences() {
    let found = found(Attribution::GradientTimesInput, None, 1, &special());
    let input = input();
    let vectors = Toy.vectors(&input.ids).expect("vectors").into_data();
    let vectors: Vec<f32> = vectors.iter::<f32>().collect();
    let at = |values: Vec<f32>| {
        let n = input.ids.len();
        let scores = Toy
            .scores(tensor(values, [n, WIDTH]), &[&input])
            .into_data();
        scores.iter::<f64>().next().expect("a score")
    };
    const STEP: f32 = 1.0 / 256.0;
    for (token, attribution) in found.attributions.iter().enumerate() {
        let mut expected = 0.0;
        for column in 0..WIDTH {
            let place = token * WIDTH + column;
            let moved = |by: f32| {
                let mut values = vectors.clone();
                values[place] += by;
                at(values)
            };
            let gradient = (moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP);
            expected += gradient * f64::from(vectors[place]);
        }
        // The digits of f32 over the step, and its square.
        assert!(
            (attribution - expected).abs() < 1e-3,
            "{token}: {attribution} {expected}"
        );
    }
}

#[test]
fn occlusion_is_what_the_score_loses_without_a_word() {
    let masked = found(Attribution::Occlusion, None, 1, &special());
    let all = score(&[1, 5, 9, 2, 7]);
    let without = |ids: &[u32]| all - score(ids);
    let expected = |first: f64, second: f64| [0.0, first, second / 2.0, second / 2.0, 0.0];
    let near = |found: &Found, expected: [f64; 5]| {
        let pairs = found.attributions.iter().zip(expected);
        pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{found:?} {expected:?}"));
    };
    near(
        &masked,
        expected(without(&[1, 3, 9, 2, 7]), without(&[1, 5, 3, 3, 7])),
    );
    assert_eq!(masked.baseline, Some("mask"));
    let left_out = found(Attribution::Occlusion, None, 1, &SpecialTokens::default());
    near(
        &left_out,
        expected(without(&[1, 9, 2, 7]), without(&[1, 5, 7])),
    );
    assert_eq!(left_out.baseline, Some("drop"));
}

/// Whole matrices, multiplied as in the paper.
#[test]
fn rollout_is_the_product_of_the_layers() {
    let input = input();
    let n = input.ids.len();
    let mut product: Vec<Vec<f64>> = (0..n)
        .map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect())
        .collect();
    for layer in Toy.attention(&input).expect("layers") {
        let weights: Vec<f64> = layer.into_data().iter::<f64>().collect();
        let mixed = |i: usize, j: usize| {
            let mean = (weights[i * n + j] + weights[(n + i) * n + j]) / 2.0;
            (mean + f64::from(u8::from(i == j))) / 2.0
        };
        product = (0..n)
            .map(|i| {
                (0..n)
                    .map(|j| (0..n).map(|k| mixed(i, k) * product[k][j]).sum())
                    .collect()
            })
            .collect();
    }
    let found = found(Attribution::Rollout, None, 1, &special());
    for (a, b) in found.attributions.iter().zip(&product[1]) {
        assert!((a - b).abs() < 1e-6, "{found:?} {product:?}");
    }
    assert!((found.attributions.iter().sum::<f64>() - 1.0).abs() < 1e-6);
}

#[test]
fn options_that_a_method_does_not_look_at_are_refused() {
    let request = ExplainRequest::new(ModelRequest::new("m"), "a text");
    request.check().expect("nothing is asked for");
    let refused = |request: ExplainRequest| request.check().expect_err("an error").to_string();
    let steps = ExplainRequest {
        method: Attribution::Occlusion,
        steps: Some(8),
        ..request.clone()
    };
    assert_eq!(
        refused(steps),
        "--steps has no effect with --method occlusion"
    );
    let baseline = ExplainRequest {
        method: Attribution::Rollout,
        baseline: Some(Baseline::Pad),
        ..request
    };
    assert_eq!(
        refused(baseline),
        "--baseline has no effect with --method rollout"
    );
}

#[test]
fn the_page_escapes_its_texts_and_loads_nothing() {
    let explanation = Explanation {
        method: "occlusion",
        target: "<b>spam</b>".to_owned(),
        score: 1.0,
        probability: 0.5,
        baseline: Some("mask"),
        baseline_score: None,
        completeness_error: None,
        steps: None,
        tokens: Vec::new(),
        attributions: Vec::new(),
        words: Vec::new(),
        pieces: vec![
            ("<script>".to_owned(), Some(-2.0)),
            (" \n".to_owned(), None),
            ("you".to_owned(), Some(1.0)),
        ],
    };
    let page = page(&[explanation]);
    assert!(
        !page.contains("<script") && !page.contains("<b>") && !page.contains("http"),
        "{page}"
    );
    assert!(
        page.contains("rgba(var(--against),0.750)\" title=\"-2.0000\">&lt;script&gt;</span>"),
        "{page}"
    );
    assert!(page.contains("rgba(var(--for),0.375)"), "{page}");
}
