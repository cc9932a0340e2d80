//! The choice of the instruction set by callers of the crate.

use std::panic::catch_unwind;

use reparam_kernels::attention::{AttentionShape, Segment, attention_forward};
use reparam_kernels::capabilities::capabilities;
use reparam_kernels::packed::{Direction, Epilogue, Matrix, MatrixMut, PackedWeight, matmul};
use reparam_kernels::rms_norm::rms_norm_forward;
use reparam_kernels::swiglu::swiglu_forward;
use reparam_kernels::{Isa, with_isa};

/// Outputs of size one from a few dozen operations, each rounded to 6e-8, once or twice.
const TOLERANCE: f32 = 5e-6;

fn outputs() -> Vec<f32> {
    let x: Vec<f32> = (0..40 * 32).map(|i| (i as f32 * 0.7).sin()).collect();
    let (mut y, mut inv_rms) = (vec![0.0; x.len()], vec![0.0; 40]);
    rms_norm_forward(&x, &[0.5; 32], 1e-6, &mut y, &mut inv_rms).expect("shapes fit");
    let mut gated = vec![0.0; x.len()];
    swiglu_forward(&x, &y, &mut gated).expect("shapes fit");
    let shape = AttentionShape {
        n_heads: 4,
        n_kv_heads: 4,
        head_dim: 8,
        scale: 0.35,
        causal: true,
        window: None,
        soft_cap: None,
    };
    let (mut out, mut lse) = (vec![0.0; x.len()], vec![0.0; 160]);
    let segments = [Segment::document(0, 40)];
    attention_forward(&x, &y, &gated, shape, &segments, None, &mut out, &mut lse)
        .expect("shapes fit");
    [y, inv_rms, gated, out, lse, product(&x)].concat()
}

/// `x W' / 32` over bf16.
fn product(x: &[f32]) -> Vec<f32> {
    let w: Vec<f32> = (0..50 * 32)
        .map(|i| (i as f32 * 0.3).cos() / 32.0)
        .collect();
    let w = PackedWeight::new(Matrix::new(&w[..], 50, 32).expect("w")).expect("fits");
    let mut y = vec![0.0; 40 * 50];
    let x = Matrix::new(x, 40, 32).expect("x");
    let out = MatrixMut::new(&mut y[..], 40, 50).expect("y");
    matmul(x, &w, Direction::Forward, Epilogue::default(), out).expect("shapes fit");
    y
}

#[test]
fn the_chosen_instruction_set_is_used_and_all_agree() {
    assert_eq!(Isa::current(), Isa::best(), "nobody chose");
    let expected = outputs();
    for isa in Isa::available() {
        let actual = with_isa(isa, || {
            assert_eq!(Isa::current(), isa);
            assert_eq!(capabilities().chosen, isa);
            assert!(capabilities().row_kernels.ends_with(isa.name()));
            assert!(capabilities().packed_kernels.ends_with(isa.name()));
            outputs()
        })
        .expect("available");
        assert_eq!(Isa::current(), Isa::best());
        for (actual, expected) in actual.iter().zip(&expected) {
            assert!(
                (actual - expected).abs() <= TOLERANCE,
                "{isa}: {actual} {expected}"
            );
        }
        if isa == Isa::best() {
            assert_eq!(actual, expected, "the same kernels as without a choice");
        } else if isa == Isa::Portable && cfg!(target_arch = "x86_64") {
            // Without a fused multiply-add some roundings differ: another kernel did run.
            assert_ne!(actual, expected, "{isa}");
        }
    }
}

#[test]
fn a_choice_is_that_of_a_thread_and_ends_with_its_call() {
    let alone: Vec<_> = Isa::available()
        .into_iter()
        .map(|isa| (isa, with_isa(isa, outputs).expect("available")))
        .collect();
    std::thread::scope(|scope| {
        for (isa, expected) in &alone {
            scope.spawn(move || {
                for _ in 0..20 {
                    let actual = with_isa(*isa, outputs).expect("available");
                    assert_eq!(&actual, expected, "{isa} beside others");
                }
            });
        }
    });
    let nested = with_isa(Isa::Portable, || {
        let panicked = catch_unwind(|| with_isa(Isa::best(), || panic!("on purpose")));
        (panicked.is_err(), Isa::current())
    });
    assert_eq!(nested, Ok((true, Isa::Portable)));
    assert_eq!(Isa::current(), Isa::best());
}
