//! Outputs of both number formats, with rows or with columns that follow one another.

use super::*;
use crate::number::Number;
use crate::packed::ValuesMut;

/// `old + s a b` into `out`, of which `turned` says whether it is the transpose of what is stored.
fn check<T: Number>(m: usize, k: usize, n: usize, turned: bool, accumulate: bool)
where
    for<'a> ValuesMut<'a>: From<&'a mut [T]>,
{
    let (a, b, old) = (bf16(1, m * k), bf16(2, k * n), narrow(&numbers(3, m * n)));
    let scaling = -0.5;
    let expected: Vec<f64> = reference_matmul(&wide_bf16(&a), &wide_bf16(&b), m, k, n)
        .iter()
        .zip(&old)
        .map(|(sum, old)| f64::from(scaling) * sum + if accumulate { f64::from(*old) } else { 0.0 })
        .collect();
    let rounding = if size_of::<T>() == 2 { BF16_UNIT } else { 0.0 };
    for token in tokens() {
        let what = format!("{} {m} x {k} x {n}, {turned} {accumulate}", token.isa());
        let stored = if turned {
            transpose_floats(&old, m, n)
        } else {
            old.clone()
        };
        let mut out: Vec<T> = stored.iter().map(|x| T::from_f32(*x)).collect();
        let to = if turned {
            MatrixMut::new(&mut out[..], n, m).unwrap().t()
        } else {
            MatrixMut::new(&mut out[..], m, n).unwrap()
        };
        product(view(&a, m, k), view(&b, k, n), scaling, accumulate, to).unwrap();
        let out: Vec<f32> = out.iter().map(|x| x.to_f32()).collect();
        let out = if turned {
            transpose_floats(&out, n, m)
        } else {
            out
        };
        assert_close(&what, &out, &expected, TOLERANCE + rounding);
    }
}

#[test]
fn products_into_either_order_and_format() {
    for (m, k, n) in [(1, 1, 1), (5, 9, 17), (33, 40, 15), (70, 21, 50)] {
        for turned in [false, true] {
            for accumulate in [false, true] {
                check::<f32>(m, k, n, turned, accumulate);
                check::<Bf16>(m, k, n, turned, accumulate);
            }
        }
    }
}
