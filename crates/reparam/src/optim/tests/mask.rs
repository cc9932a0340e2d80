//! Gradient re-parameterization: branches with constant scales against one weight under a mask.

use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::super::*;
use super::values;
use crate::parameters::{NamedTensor, ParameterList, flatten};

const STEPS: usize = 50;
const LEARNING_RATE: f64 = 0.05;

fn numbers(len: usize, seed: usize) -> Vec<f64> {
    (0..len)
        .map(|i| ((i * 37 + seed * 101 + i * i * 7) % 64) as f64 / 32.0 - 1.0)
        .collect()
}

fn named(name: &str, shape: &[usize], values: Vec<f64>) -> NamedTensor {
    let data = TensorData::new(values, [shape.iter().product::<usize>()]);
    NamedTensor {
        name: name.to_owned(),
        shape: shape.to_vec(),
        values: Tensor::from_data(data, (&Device::flex(), DType::F64)),
    }
}

fn constant<const D: usize>(shape: [usize; D], seed: usize) -> Tensor<D> {
    let tensor = named("", &shape, numbers(shape.iter().product(), seed));
    Tensor::from_inner(tensor.values.reshape(shape))
}

/// A model whose one effective weight is a function of its parameters.
trait Model {
    fn weight(&self, parameters: &[Tensor<1>]) -> Tensor<1>;
    fn loss(&self, weight: Tensor<1>) -> Tensor<1>;

    fn gradient(&self, at: &ParameterList) -> ParameterList {
        let leaves: Vec<Tensor<1>> = at
            .iter()
            .map(|tensor| Tensor::from_inner(tensor.values.clone()).require_grad())
            .collect();
        let gradients = self.loss(self.weight(&leaves)).backward();
        at.iter()
            .zip(leaves)
            .map(|(tensor, leaf)| {
                let gradient = leaf.grad(&gradients).expect("every branch counts");
                tensor.clone().with_values(gradient)
            })
            .collect()
    }

    fn effective(&self, at: &ParameterList) -> Vec<f64> {
        let leaves: Vec<Tensor<1>> = at.iter().map(|tensor| tensor.values.clone()).collect();
        values(&vec![
            named("w", &[1], vec![0.0]).with_values(self.weight(&leaves)),
        ])
    }
}

/// `y = x W'` with `W = sum_k s_k W_k`.
struct Linear {
    scales: Vec<f64>,
}

impl Model for Linear {
    fn weight(&self, branches: &[Tensor<1>]) -> Tensor<1> {
        let scaled = branches.iter().zip(&self.scales);
        let terms: Vec<Tensor<1>> = scaled.map(|(w, s)| w.clone() * *s).collect();
        terms
            .into_iter()
            .reduce(|sum, term| sum + term)
            .expect("a branch")
    }

    fn loss(&self, weight: Tensor<1>) -> Tensor<1> {
        let y = constant([6, 4], 5).matmul(weight.reshape([3, 4]).transpose());
        let difference = y.tanh() - constant([6, 3], 6);
        (difference.clone() * difference).mean()
    }
}

/// A 3x3 convolution, a 1x1 convolution and a channel-wise identity, each output channel with its own
/// constant scales `s`, `t` and 1.
struct Convolution;

const S: [f64; 2] = [0.7, 1.3];
const T: [f64; 2] = [0.5, 0.2];

impl Convolution {
    const SHAPE: [usize; 4] = [2, 2, 3, 3];

    fn per_channel(values: [f64; 2]) -> Tensor<4> {
        Tensor::from_inner(
            named("", &[2], values.to_vec())
                .values
                .reshape([2, 1, 1, 1]),
        )
    }

    /// One at the centre of the kernels; on the diagonal of channels only, if asked for.
    fn centre(diagonal: bool) -> Tensor<4> {
        let mut values = vec![0.0; 36];
        for out in 0..2 {
            for input in 0..2 {
                if !diagonal || out == input {
                    values[(out * 2 + input) * 9 + 4] = 1.0;
                }
            }
        }
        Tensor::from_inner(named("", &[36], values).values.reshape(Self::SHAPE))
    }
}

impl Model for Convolution {
    fn weight(&self, branches: &[Tensor<1>]) -> Tensor<1> {
        let kernel = match branches {
            [folded] => folded.clone().reshape(Self::SHAPE),
            [three, one, identity] => {
                let three = three.clone().reshape(Self::SHAPE) * Self::per_channel(S);
                let one = one.clone().reshape([2, 2, 1, 1]) * Self::per_channel(T);
                let identity = identity.clone().reshape([2, 1, 1, 1]);
                three + one * Self::centre(false) + identity * Self::centre(true)
            }
            _ => unreachable!("one weight or three branches"),
        };
        flatten(kernel)
    }

    fn loss(&self, weight: Tensor<1>) -> Tensor<1> {
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let kernel = weight.reshape(Self::SHAPE);
        let y = conv2d(constant([3, 2, 5, 5], 8), kernel, None, options);
        let difference = y.tanh() - constant([3, 2, 5, 5], 9);
        (difference.clone() * difference).mean()
    }
}

fn optimizer(parts: Vec<Box<dyn GradientTransform>>) -> Optimizer {
    Optimizer::new(parts, LEARNING_RATE, Schedule::Constant, STEPS as u64).expect("lawful")
}

/// Trains both, each by itself, and returns how far their effective weights end from each other and
/// from the start.
fn drift(
    model: &dyn Model,
    branches: ParameterList,
    mut of_branches: Optimizer,
    mut of_folded: Optimizer,
) -> (f64, f64) {
    let start = model.effective(&branches);
    let mut folded = vec![named("w", &[start.len()], start.clone())];
    let one = |folded: &ParameterList| match model_is_linear(&branches) {
        true => Linear { scales: vec![1.0] }.gradient(folded),
        false => Convolution.gradient(folded),
    };
    let mut split = branches.clone();
    for _ in 0..STEPS {
        let gradient = model.gradient(&split);
        (split, _) = of_branches.step_list(split, gradient).expect("a step");
        let gradient = one(&folded);
        (folded, _) = of_folded.step_list(folded, gradient).expect("a step");
    }
    let distance = |a: &[f64], b: &[f64]| {
        let pairs = a.iter().zip(b);
        pairs.fold(0.0_f64, |worst, (a, b)| worst.max((a - b).abs()))
    };
    let found = values(&folded);
    (
        distance(&found, &model.effective(&split)),
        distance(&found, &start),
    )
}

fn model_is_linear(branches: &ParameterList) -> bool {
    branches.iter().all(|tensor| tensor.shape == [3, 4])
}

fn linear() -> (Linear, ParameterList) {
    let branches = (0..2)
        .map(|k| named(&format!("branch.{k}"), &[3, 4], numbers(12, k + 1)))
        .collect();
    let scales = vec![0.6, 1.1];
    (Linear { scales }, branches)
}

fn convolution() -> ParameterList {
    vec![
        named("three", &[2, 2, 3, 3], numbers(36, 1)),
        named("one", &[2, 2, 1, 1], numbers(4, 2)),
        named("identity", &[2], vec![1.0, 1.0]),
    ]
}

fn convolution_mask(rule: MaskRule) -> GradientMask {
    let mut mask = vec![0.0; 36];
    for (place, value) in mask.iter_mut().enumerate() {
        let (out, input, tap) = (place / 18, place / 9 % 2, place % 9);
        let mut scales = vec![S[out]];
        if tap == 4 {
            scales.push(T[out]);
            if out == input {
                scales.push(1.0);
            }
        }
        *value = rule.factor(&scales);
    }
    let mask = named("w", &[36], mask).values;
    GradientMask::of_tensors(vec![("w".into(), mask)], rule).expect("a mask")
}

fn sgd() -> Vec<Box<dyn GradientTransform>> {
    vec![
        Box::new(WeightDecay::new(0.01).unwrap()),
        Box::new(Momentum::new(0.9, true).unwrap()),
    ]
}

fn with_mask(
    mask: GradientMask,
    mut parts: Vec<Box<dyn GradientTransform>>,
) -> Vec<Box<dyn GradientTransform>> {
    parts.insert(0, Box::new(mask));
    parts
}

#[test]
fn branches_under_sgd_equal_one_weight_under_the_mask() {
    let (model, branches) = linear();
    let mask = GradientMask::of_branches("w", &model.scales, MaskRule::Sgd).unwrap();
    let masked = optimizer(with_mask(mask, sgd()));
    let (apart, moved) = drift(&model, branches.clone(), optimizer(sgd()), masked);
    assert!(apart < 1e-10 && moved > 0.1, "linear: {apart:e} of {moved}");
    // Without the mask the two are different trainings.
    let (apart, _) = drift(&model, branches, optimizer(sgd()), optimizer(sgd()));
    assert!(apart > 1e-3, "the mask does nothing: {apart:e}");

    let masked = optimizer(with_mask(convolution_mask(MaskRule::Sgd), sgd()));
    let (apart, moved) = drift(&Convolution, convolution(), optimizer(sgd()), masked);
    assert!(apart < 1e-10 && moved > 0.1, "conv: {apart:e} of {moved}");
}

fn adamw(eps: f64) -> Vec<Box<dyn GradientTransform>> {
    vec![
        Box::new(AdamW::new(0.9, 0.999, eps, 0.0).unwrap()),
        Box::new(WeightDecay::new(0.01).unwrap()),
    ]
}

fn masked_adamw(mask: &GradientMask, eps: f64) -> Vec<Box<dyn GradientTransform>> {
    vec![
        Box::new(mask.clone()),
        Box::new(AdamW::new(0.9, 0.999, eps, 0.0).unwrap()),
        Box::new(mask.clone()),
        Box::new(WeightDecay::new(0.01).unwrap()),
    ]
}

/// Both trained freely, with an `eps` that is next to nothing.
#[test]
fn branches_under_adamw_equal_one_weight_under_the_mask() {
    let eps = 1e-14;
    let (model, branches) = linear();
    let mask = GradientMask::of_branches("w", &model.scales, MaskRule::Adam).unwrap();
    let masked = optimizer(masked_adamw(&mask, eps));
    let (apart, moved) = drift(&model, branches, optimizer(adamw(eps)), masked);
    assert!(apart < 1e-9 && moved > 0.1, "linear: {apart:e} of {moved}");

    let mask = convolution_mask(MaskRule::Adam);
    let masked = optimizer(masked_adamw(&mask, eps));
    let (apart, moved) = drift(&Convolution, convolution(), optimizer(adamw(eps)), masked);
    assert!(apart < 1e-9 && moved > 0.1, "conv: {apart:e} of {moved}");
}

/// With an `eps` that matters, and the same gradients for both, the moves differ by no more than the
/// documented bound, and by something.
#[test]
fn the_bound_of_eps_holds() {
    let scales = [0.6, 1.1];
    let whole = MaskRule::Adam.factor(&scales);
    for eps in [1e-8, 1e-3, 0.1] {
        let gradients: Vec<f64> = numbers(STEPS, 3);
        let one = |x: f64| vec![named("w", &[1], vec![x])];
        let mut adams: Vec<AdamW> = (0..3)
            .map(|_| AdamW::new(0.9, 0.999, eps, 0.0).unwrap())
            .collect();
        let (mut mean, mut square) = (0.0, 0.0);
        let mut largest = 0.0_f64;
        for (place, g) in gradients.iter().enumerate() {
            let step = place as u64 + 1;
            let parameters = one(0.0);
            let context = StepContext {
                step,
                horizon: STEPS as u64,
                learning_rate: LEARNING_RATE,
                parameters: &parameters,
            };
            let direction = |adam: &mut AdamW, scale: f64| {
                let u = adam.transform(one(scale * g), &context).unwrap();
                scale * values(&u)[0]
            };
            let (a, rest) = adams.split_at_mut(1);
            let (b, c) = rest.split_at_mut(1);
            let split = direction(&mut a[0], scales[0]) + direction(&mut b[0], scales[1]);
            let folded = direction(&mut c[0], whole);
            mean = 0.9 * mean + 0.1 * g;
            square = 0.999 * square + 0.001 * g * g;
            let m: f64 = mean / (1.0 - 0.9_f64.powi(step as i32));
            let root = (square / (1.0 - 0.999_f64.powi(step as i32))).sqrt();
            let share = |s: f64| s * eps / (s * root + eps);
            let bound = m.abs() / root * (share(scales[0]) + share(scales[1]) + share(whole));
            let apart = (split - folded).abs();
            assert!(
                apart <= bound + 1e-14,
                "eps {eps} step {step}: {apart:e} > {bound:e}"
            );
            largest = largest.max(apart);
        }
        assert!(
            largest > eps * 1e-3,
            "eps {eps} does not matter: {largest:e}"
        );
    }
}
