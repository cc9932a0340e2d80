//! The operations as their formulas read, in `f64`.

/// `a[m, k] b[k, n]`
pub(super) fn matmul(a: &[f64], b: &[f64], m: usize, k: usize, n: usize) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for l in 0..k {
            for j in 0..n {
                c[i * n + j] += a[i * k + l] * b[l * n + j];
            }
        }
    }
    c
}

pub(super) fn transpose(a: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    (0..rows * cols)
        .map(|i| a[(i % rows) * cols + i / rows])
        .collect()
}

/// `y`, the means, which are 0 if they are not taken off, and `1 / sqrt(mean square + eps)` of what
/// is left.
pub(super) fn norm(
    x: &[f64],
    weight: &[f64],
    bias: Option<&[f64]>,
    eps: f64,
    is_centered: bool,
) -> [Vec<f64>; 3] {
    let d = weight.len();
    let (mut y, mut means, mut invs) = (Vec::new(), Vec::new(), Vec::new());
    for x in x.chunks_exact(d) {
        let sum: f64 = x.iter().sum();
        let mean = if is_centered { sum / d as f64 } else { 0.0 };
        let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d as f64;
        let inv = 1.0 / (square + eps).sqrt();
        let bias = |i: usize| bias.map_or(0.0, |bias| bias[i]);
        y.extend((0..d).map(|i| (x[i] - mean) * inv * weight[i] + bias(i)));
        means.push(mean);
        invs.push(inv);
    }
    [y, means, invs]
}

/// The distribution function of the normal distribution, to about 13 digits.
pub(super) fn normal(x: f64) -> f64 {
    let t = x.abs();
    let density = (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt();
    let tail = if t < 3.0 {
        // 1/2 - density (t + t^3 / 3 + t^5 / (3 5) + ...)
        let (mut term, mut sum, mut odd) = (t, t, 1.0);
        while term > 1e-20 * sum {
            odd += 2.0;
            term *= t * t / odd;
            sum += term;
        }
        0.5 - density * sum
    } else {
        // density / (t + 1 / (t + 2 / (t + 3 / ...)))
        density / (1..120).rev().fold(t, |rest, k| t + f64::from(k) / rest)
    };
    if x < 0.0 { tail } else { 1.0 - tail }
}

pub(super) fn swiglu(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter()
        .zip(up)
        .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
        .collect()
}

/// Sum of the negative log-likelihoods of the labelled rows.
pub(super) fn cross_entropy(h: &[f64], w: &[f64], d: usize, labels: &[i32]) -> f64 {
    labels
        .iter()
        .enumerate()
        .filter(|(_, label)| **label >= 0)
        .map(|(n, &label)| {
            let logits: Vec<f64> = w
                .chunks_exact(d)
                .map(|w| w.iter().zip(&h[n * d..]).map(|(w, h)| w * h).sum())
                .collect();
            let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logits.iter().map(|z| (z - max).exp()).sum();
            max + sum.ln() - logits[label as usize]
        })
        .sum()
}

/// The gradient of `f` by central differences. With a step of 1e-5 the error is about 1e-10 from
/// the third derivative and 1e-11 from cancellation, for functions and derivatives of size one.
pub(super) fn gradient(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let center = x[i];
            x[i] = center + STEP;
            let above = f(&x);
            x[i] = center - STEP;
            let below = f(&x);
            x[i] = center;
            (above - below) / (2.0 * STEP)
        })
        .collect()
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
