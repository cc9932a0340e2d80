use proptest::prelude::*;

use super::{assert_close, assert_refused, assert_threads_agree, cases, numbers, reference, wide};
use crate::KernelError;
use crate::linear::{
    LinearShape, LowRank, LowRankGrads, LowRankInputs, dense_backward_weight, low_rank_backward,
    low_rank_forward,
};

/// Three products in sequence, each a sum of up to some hundred terms of size one.
const TOLERANCE: f64 = 4e-6;

const SCALING: f32 = 1.5;

struct Case {
    shape: LinearShape,
    rank: usize,
    x: Vec<f32>,
    dropped: Option<Vec<f32>>,
    w: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    dy: Vec<f32>,
}

/// `y`, `xa`, `dx`, `dx_low_rank`, `da`, `db`; an output that was not asked for is empty.
type Outputs = [Vec<f32>; 6];

impl Case {
    fn new(tokens: usize, d_in: usize, d_out: usize, rank: usize, dropout: bool) -> Self {
        let x = numbers(1, tokens * d_in);
        let drop = |(i, x): (usize, &f32)| if i % 4 == 0 { 0.0 } else { x / 0.75 };
        Self {
            shape: LinearShape {
                tokens,
                d_in,
                d_out,
            },
            rank,
            dropped: dropout.then(|| x.iter().enumerate().map(drop).collect()),
            x,
            w: numbers(2, d_out * d_in),
            a: numbers(3, rank * d_in),
            b: numbers(4, d_out * rank),
            dy: numbers(5, tokens * d_out),
        }
    }

    fn low_rank(&self) -> LowRank<'_> {
        LowRank {
            a: &self.a,
            b: &self.b,
            rank: self.rank,
            scaling: SCALING,
        }
    }

    fn run(&self) -> Outputs {
        let LinearShape {
            tokens,
            d_in,
            d_out,
        } = self.shape;
        let nan = |len| vec![f32::NAN; len];
        let (mut y, mut xa) = (nan(tokens * d_out), nan(tokens * self.rank));
        let (low_rank, dropped) = (Some(self.low_rank()), self.dropped.as_deref());
        low_rank_forward(
            self.shape, &self.x, &self.w, low_rank, dropped, &mut y, &mut xa,
        )
        .unwrap();
        let mut dx = nan(tokens * d_in);
        let mut dx_low_rank = nan(if dropped.is_some() { tokens * d_in } else { 0 });
        let (mut da, mut db) = (nan(self.rank * d_in), nan(d_out * self.rank));
        let inputs = LowRankInputs {
            dy: &self.dy,
            x: &self.x,
            x_low_rank: dropped,
            w: &self.w,
            low_rank,
            xa: &xa,
        };
        let grads = LowRankGrads {
            dx: Some(&mut dx),
            dx_low_rank: dropped.is_some().then_some(&mut dx_low_rank),
            da: Some(&mut da),
            db: Some(&mut db),
        };
        low_rank_backward(self.shape, inputs, grads).unwrap();
        [y, xa, dx, dx_low_rank, da, db]
    }

    /// Through the effective weight of the branch, which the kernel never forms.
    fn expected(&self) -> [Vec<f64>; 6] {
        let LinearShape {
            tokens: n,
            d_in,
            d_out,
        } = self.shape;
        let r = self.rank;
        let [x, w, a, b, dy] = [&self.x, &self.w, &self.a, &self.b, &self.dy].map(|x| wide(x));
        let dropped = wide(self.dropped.as_ref().unwrap_or(&self.x));
        let t = reference::transpose;
        let scale = |x: Vec<f64>| x.iter().map(|x| x * f64::from(SCALING)).collect::<Vec<_>>();
        let add = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x + y).collect::<Vec<_>>();
        let ba = scale(reference::matmul(&b, &a, d_out, r, d_in));
        let y = add(
            &reference::matmul(&x, &t(&w, d_out, d_in), n, d_in, d_out),
            &reference::matmul(&dropped, &t(&ba, d_out, d_in), n, d_in, d_out),
        );
        let xa = reference::matmul(&dropped, &t(&a, r, d_in), n, d_in, r);
        let through_w = reference::matmul(&dy, &w, n, d_out, d_in);
        let through_ba = reference::matmul(&dy, &ba, n, d_out, d_in);
        // The gradient of the dense update, d_out x d_in.
        let dense = scale(reference::matmul(
            &t(&dy, n, d_out),
            &dropped,
            d_out,
            n,
            d_in,
        ));
        let da = reference::matmul(&t(&b, d_out, r), &dense, r, d_out, d_in);
        let db = reference::matmul(&dense, &t(&a, r, d_in), d_out, d_in, r);
        if self.dropped.is_some() {
            [y, xa, through_w, through_ba, da, db]
        } else {
            [y, xa, add(&through_w, &through_ba), vec![], da, db]
        }
    }

    #[track_caller]
    fn check(&self) {
        let names = ["y", "xa", "dx", "dx_low_rank", "da", "db"];
        for (name, (actual, expected)) in names.iter().zip(self.run().iter().zip(self.expected())) {
            assert_close(
                &format!("{:?} {} {name}", self.shape, self.rank),
                actual,
                &expected,
                TOLERANCE,
            );
        }
    }
}

#[test]
fn agrees_with_the_effective_weight() {
    for dropout in [false, true] {
        for rank in [1, 2, 8, 16] {
            for (tokens, d_in, d_out) in [
                (0, 4, 3),
                (1, 8, 5),
                (1, 70, 300),
                (33, 17, 20),
                (65, 64, 48),
            ] {
                Case::new(tokens, d_in, d_out, rank, dropout).check();
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(64))]
    #[test]
    fn agrees_with_the_effective_weight_at_any_size(
        tokens in 0_usize..40, d_in in 1_usize..40, d_out in 1_usize..40, rank in 0_usize..10,
        dropout: bool,
    ) {
        Case::new(tokens, d_in, d_out, rank, dropout).check();
    }
}

#[test]
fn works_without_a_branch_and_computes_only_what_is_asked() {
    let case = Case::new(9, 6, 7, 0, false);
    let LinearShape {
        tokens,
        d_in,
        d_out,
    } = case.shape;
    let [y, _, dx, ..] = case.run();
    let mut plain = vec![f32::NAN; tokens * d_out];
    low_rank_forward(
        case.shape,
        &case.x,
        &case.w,
        None,
        None,
        &mut plain,
        &mut [],
    )
    .unwrap();
    assert_eq!(plain, y);
    let inputs = LowRankInputs {
        dy: &case.dy,
        x: &case.x,
        x_low_rank: None,
        w: &case.w,
        low_rank: None,
        xa: &[],
    };
    let mut plain = vec![f32::NAN; tokens * d_in];
    let grads = LowRankGrads {
        dx: Some(&mut plain),
        ..LowRankGrads::default()
    };
    low_rank_backward(case.shape, inputs, grads).unwrap();
    assert_eq!(plain, dx);

    let mut dw = vec![f32::NAN; d_out * d_in];
    dense_backward_weight(case.shape, &case.dy, &case.x, &mut dw).unwrap();
    let dy = reference::transpose(&wide(&case.dy), tokens, d_out);
    let expected = reference::matmul(&dy, &wide(&case.x), d_out, tokens, d_in);
    assert_close("dw", &dw, &expected, TOLERANCE);
    // No token, no gradient.
    let none = LinearShape {
        tokens: 0,
        ..case.shape
    };
    dense_backward_weight(none, &[], &[], &mut dw).unwrap();
    assert!(dw.iter().all(|x| *x == 0.0));

    let case = Case::new(9, 6, 7, 3, false);
    let [_, xa, _, _, da, _] = case.run();
    let mut alone = vec![f32::NAN; 3 * d_in];
    let inputs = LowRankInputs {
        dy: &case.dy,
        low_rank: Some(case.low_rank()),
        xa: &xa,
        ..inputs
    };
    let grads = LowRankGrads {
        da: Some(&mut alone),
        ..LowRankGrads::default()
    };
    low_rank_backward(case.shape, inputs, grads).unwrap();
    assert_eq!(alone, da);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for tokens in [1, 300] {
        let case = Case::new(tokens, 200, 260, 8, true);
        assert_threads_agree("low rank", || case.run().to_vec());
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let case = Case::new(2, 3, 4, 2, false);
    let forward = |low_rank, dropped: Option<&[f32]>, y: usize, xa: usize| {
        let (mut y, mut xa) = (vec![0.0; y], vec![0.0; xa]);
        low_rank_forward(
            case.shape, &case.x, &case.w, low_rank, dropped, &mut y, &mut xa,
        )
    };
    let low_rank = case.low_rank();
    assert_eq!(forward(Some(low_rank), None, 8, 4), Ok(()));
    assert_refused("xa", forward(Some(low_rank), None, 8, 3));
    assert_refused("y", forward(Some(low_rank), None, 7, 4));
    assert_refused("xa", forward(None, None, 8, 4));
    let wrong = LowRank {
        rank: 3,
        ..low_rank
    };
    assert_refused("low_rank.a", forward(Some(wrong), None, 8, 6));
    assert!(matches!(
        forward(None, Some(&case.x), 8, 0),
        Err(KernelError::Unpaired {
            given: "x_low_rank",
            missing: "low_rank"
        })
    ));
    // The gradients of two different inputs must not be mixed.
    let dropped = Case::new(2, 3, 4, 2, true);
    let [_, xa, ..] = dropped.run();
    let inputs = LowRankInputs {
        dy: &dropped.dy,
        x: &dropped.x,
        x_low_rank: dropped.dropped.as_deref(),
        w: &dropped.w,
        low_rank: Some(dropped.low_rank()),
        xa: &xa,
    };
    let mut dx = [0.0; 6];
    let grads = LowRankGrads {
        dx: Some(&mut dx),
        ..LowRankGrads::default()
    };
    assert!(matches!(
        low_rank_backward(dropped.shape, inputs, grads),
        Err(KernelError::Unpaired {
            given: "dx",
            missing: "dx_low_rank"
        })
    ));
    let inputs = LowRankInputs {
        x_low_rank: None,
        low_rank: None,
        xa: &[],
        ..inputs
    };
    let grads = LowRankGrads {
        da: Some(&mut dx),
        ..LowRankGrads::default()
    };
    assert!(matches!(
        low_rank_backward(dropped.shape, inputs, grads),
        Err(KernelError::Unpaired {
            given: "da",
            missing: "low_rank"
        })
    ));
}
