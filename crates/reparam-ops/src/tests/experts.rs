//! Linear layers of experts: native against the reference, and packed against native.

use super::*;
use crate::fused::{PackedDType, PackedWeight, packed_expert_linear};

/// Three experts, of which the second has no row, and one row more than a kernel's block of the last.
fn rows() -> ExpertRows {
    ExpertRows::new(&[4, 0, 17])
}

const N: usize = 21;
const D_IN: usize = 5;
const D_OUT: usize = 6;
const RANK: usize = 2;

fn term(a: Tensor<2>, b: Tensor<2>) -> LowRank {
    LowRank {
        a,
        b,
        scaling: 1.5,
        dropout: None,
    }
}

#[test]
fn expert_layers() {
    let dims = [[N, D_IN], [3 * D_OUT, D_IN]];
    Case::new(
        &dims,
        |inputs| {
            let [x, weight] = inputs.try_into().expect("two inputs");
            expert_linear(x, weight, None, &rows())
        },
        |inputs| {
            let [x, weight] = inputs.try_into().expect("two inputs");
            reference::expert_linear(x, weight, None, &rows())
        },
    )
    .check();
}

#[test]
fn expert_layers_with_factors() {
    type Function = fn(Tensor<2>, Tensor<2>, Option<LowRank>, &ExpertRows) -> Tensor<2>;
    let dims = [
        [N, D_IN],
        [3 * D_OUT, D_IN],
        [3 * RANK, D_IN],
        [D_OUT, RANK * 3],
    ];
    let run = |function: Function| {
        move |inputs: Vec<Tensor<2>>| {
            let [x, weight, a, b] = inputs.try_into().expect("four inputs");
            function(x, weight, Some(term(a, b)), &rows())
        }
    };
    Case::new(&dims, run(expert_linear), run(reference::expert_linear)).check();
}

/// By the definition: each row through the layer of its expert, with the factors where PEFT has them.
#[test]
fn each_row_goes_through_its_expert() {
    let x = numbers(N * D_IN, 1);
    let weight = numbers(3 * D_OUT * D_IN, 2);
    let (a, b) = (numbers(3 * RANK * D_IN, 3), numbers(D_OUT * RANK * 3, 4));
    let of_row = |row: usize| if row < 4 { 0 } else { 2 };
    let mut expected = Vec::new();
    for row in 0..N {
        let expert = of_row(row);
        for out in 0..D_OUT {
            let effective = |i: usize| {
                let change: f64 = (0..RANK)
                    .map(|j| b[(out * RANK + j) * 3 + expert] * a[(expert * RANK + j) * D_IN + i])
                    .sum();
                weight[(expert * D_OUT + out) * D_IN + i] + 1.5 * change
            };
            expected.push((0..D_IN).map(|i| effective(i) * x[row * D_IN + i]).sum());
        }
    }
    let make = |values: &[f64], dims| tensor(values, dims, DType::F32);
    let y = expert_linear(
        make(&x, [N, D_IN]),
        make(&weight, [3 * D_OUT, D_IN]),
        Some(term(
            make(&a, [3 * RANK, D_IN]),
            make(&b, [D_OUT, RANK * 3]),
        )),
        &rows(),
    );
    assert_close(&values(y), &expected, TOLERANCE, "output");
}

/// An expert without rows has no gradient, and that of the others is not smaller for it.
#[test]
fn an_expert_without_rows_has_a_gradient_of_zero() {
    let make = |seed, dims: [usize; 2]| {
        tensor(&numbers(dims[0] * dims[1], seed), dims, DType::F32).require_grad()
    };
    let (a, b) = (make(3, [3 * RANK, D_IN]), make(4, [D_OUT, RANK * 3]));
    let weight = make(2, [3 * D_OUT, D_IN]);
    let y = expert_linear(
        make(1, [N, D_IN]),
        weight.clone(),
        Some(term(a.clone(), b.clone())),
        &rows(),
    );
    let gradients = y.sum().backward();
    let of = |tensor: &Tensor<2>| values(tensor.grad(&gradients).expect("a gradient"));
    let zero = |x: &f64| *x == 0.0;
    let expert = |values: Vec<f64>, each: usize, which: usize| {
        let part = &values[which * each..(which + 1) * each];
        part.iter().all(zero)
    };
    for (tensor, each) in [(&weight, D_OUT * D_IN), (&a, RANK * D_IN)] {
        let zeros = [0, 1, 2].map(|which| expert(of(tensor), each, which));
        assert_eq!(zeros, [false, true, false]);
    }
    let db = of(&b);
    let column = |which: usize| db.iter().skip(which).step_by(3).all(zero);
    assert_eq!([0, 1, 2].map(column), [false, true, false]);
}

/// Rounding `x` and the gradient of the output to bf16, 2^-9 each, in sums of a few terms.
const PACKED_TOLERANCE: f64 = 0.02;

/// Weights and factors are bf16 numbers, so that only activations are rounded.
#[test]
fn packed_experts_equal_those_in_f32() {
    let round = |values: Vec<f64>| -> Vec<f64> {
        let rounded = values.into_iter().map(burn::tensor::bf16::from_f64);
        rounded.map(f64::from).collect()
    };
    let weight = round(numbers(3 * D_OUT * D_IN, 2));
    let packed =
        PackedWeight::pack_experts(3, [D_OUT, D_IN], PackedDType::Bf16, |expert, range, to| {
            let first = expert * D_OUT * D_IN;
            for (to, at) in to.iter_mut().zip(range) {
                *to = weight[first + at] as f32;
            }
        });
    assert_eq!((packed.dims(), packed.n_experts()), ([3 * D_OUT, D_IN], 3));
    let decoded: Vec<f64> = packed
        .rows_f32(4..3 * D_OUT)
        .into_iter()
        .map(f64::from)
        .collect();
    assert_eq!(decoded, weight[4 * D_IN..]);
    let run = |is_packed: bool, with_factors: bool| {
        let make = |seed, dims: [usize; 2]| {
            let values = round(numbers(dims[0] * dims[1], seed));
            tensor(&values, dims, DType::F32).require_grad()
        };
        let inputs = [
            make(1, [N, D_IN]),
            make(3, [3 * RANK, D_IN]),
            make(4, [D_OUT, RANK * 3]),
        ];
        let [x, a, b] = inputs.clone();
        let factors = with_factors.then(|| term(a, b));
        let y = match is_packed {
            true => packed_expert_linear(x, &packed, factors, &rows()),
            false => {
                let weight = tensor(&weight, [3 * D_OUT, D_IN], DType::F32);
                expert_linear(x, weight, factors, &rows())
            }
        };
        let gradients = Case::objective(y.clone()).backward();
        let gradients = inputs.map(|input| input.grad(&gradients).map_or_else(Vec::new, values));
        (values(y), gradients)
    };
    for with_factors in [false, true] {
        let (found, gradients) = run(true, with_factors);
        let (expected, expected_gradients) = run(false, with_factors);
        assert_close(&found, &expected, PACKED_TOLERANCE, "output");
        for (index, (found, expected)) in gradients.iter().zip(&expected_gradients).enumerate() {
            let largest = expected.iter().fold(1.0_f64, |most, x| most.max(x.abs()));
            let scaled = |values: &[f64]| values.iter().map(|x| x / largest).collect::<Vec<_>>();
            let what = format!("gradient {index}");
            assert_close(&scaled(found), &scaled(expected), PACKED_TOLERANCE, &what);
        }
    }
}

/// What is not trained is not asked for, and nothing of it is kept.
#[test]
fn packed_experts_run_outside_of_a_graph() {
    let packed = PackedWeight::pack_experts(2, [3, 4], PackedDType::Int8, |_, _, to| to.fill(0.5));
    let x = Tensor::<2>::ones([3, 4], &Device::flex());
    let y = packed_expert_linear(x, &packed, None, &ExpertRows::new(&[1, 2]));
    assert_close(&values(y), &[2.0; 9], 1e-2, "output");
}

#[test]
fn experts_have_the_same_bits_on_any_number_of_threads() {
    let (n, d_in, d_out, n_experts, rank) = (200, 48, 40, 5, 3);
    let rows = ExpertRows::new(&[70, 0, 5, 100, 25]);
    let weight = numbers(n_experts * d_out * d_in, 2);
    let packed = PackedWeight::pack_experts(
        n_experts,
        [d_out, d_in],
        PackedDType::Bf16,
        |expert, range, to| {
            let first = expert * d_out * d_in;
            for (to, at) in to.iter_mut().zip(range) {
                *to = weight[first + at] as f32;
            }
        },
    );
    let run = |is_packed: bool| {
        let make = |seed, dims: [usize; 2]| {
            tensor(&numbers(dims[0] * dims[1], seed), dims, DType::F32).require_grad()
        };
        let inputs = [
            make(1, [n, d_in]),
            make(3, [n_experts * rank, d_in]),
            make(4, [d_out, rank * n_experts]),
        ];
        let [x, a, b] = inputs.clone();
        let factors = Some(term(a, b));
        let y = match is_packed {
            true => packed_expert_linear(x, &packed, factors, &rows),
            false => {
                let weight = tensor(&weight, [n_experts * d_out, d_in], DType::F32);
                expert_linear(x, weight, factors, &rows)
            }
        };
        let gradients = Case::objective(y.clone()).backward();
        let gradients = inputs.map(|input| values(input.grad(&gradients).expect("trained")));
        (values(y), gradients)
    };
    for is_packed in [false, true] {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("a small pool").install(|| run(is_packed))
        };
        let one = on(1);
        assert!(one == on(2) && one == on(3), "{is_packed}");
    }
}
