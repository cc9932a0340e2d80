use proptest::prelude::*;

use super::{assert_refused, assert_threads_agree, cases, floats, halves, numbers};
use crate::embedding::{embedding_backward, embedding_forward, embedding_packed};
use crate::packed::{Matrix, PackedWeight};
use crate::{Bf16, KernelError};

/// Token by token; the order of the sums is the same, so the bits are.
fn backward_expected(dout: &[f32], ids: &[u32], d: usize, dtable: &mut [f32]) {
    for (n, &id) in ids.iter().enumerate() {
        for i in 0..d {
            dtable[id as usize * d + i] += dout[n * d + i];
        }
    }
}

fn check(ids: &[u32], vocabulary: usize, d: usize) {
    let table = numbers(1, vocabulary * d);
    let mut out = vec![f32::NAN; ids.len() * d];
    embedding_forward(ids, &table, d, &mut out).unwrap();
    for (out, &id) in out.chunks_exact(d).zip(ids) {
        assert_eq!(out, &table[id as usize * d..][..d]);
    }
    let packed = PackedWeight::new(Matrix::new(&table[..], vocabulary, d).unwrap()).unwrap();
    let rounded = halves(&out);
    let mut narrow = vec![Bf16::ONE; out.len()];
    embedding_packed(ids, &packed, &mut narrow).unwrap();
    assert_eq!(narrow, rounded);
    let mut wide = vec![f32::NAN; out.len()];
    embedding_packed(ids, &packed, &mut wide).unwrap();
    assert_eq!(wide, floats(&rounded));
    // On top of what is there already.
    let (mut actual, mut expected) = (table.clone(), table);
    embedding_backward(&out, ids, d, &mut actual).unwrap();
    backward_expected(&out, ids, d, &mut expected);
    assert_eq!(actual, expected);
}

#[test]
fn looks_up_rows_and_adds_their_gradients() {
    check(&[], 5, 3);
    check(&[4, 0, 4, 4, 1], 5, 3);
    // Rows so wide that each token is a task of its own, and one token many times.
    check(&[2, 2, 0, 2, 1, 0], 3, 20_000);
    check(&vec![7; 1000], 9, 40);
}

proptest! {
    #![proptest_config(cases(64))]
    #[test]
    fn agrees_with_the_definition(
        ids in prop::collection::vec(0_u32..50, 0..300), d in prop_oneof![1_usize..20, Just(5000_usize)],
    ) {
        check(&ids, 50, d);
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let ids: Vec<u32> = numbers(1, 3000)
        .iter()
        .map(|x| (x * x * 99.0) as u32)
        .collect();
    let dout = numbers(2, 3000 * 64);
    assert_threads_agree("embedding", || {
        let mut dtable = vec![0.0; 100 * 64];
        embedding_backward(&dout, &ids, 64, &mut dtable).unwrap();
        vec![dtable]
    });
}

#[test]
fn refuses_ids_beyond_the_table_and_writes_nothing() {
    let expected = Err(KernelError::TokenId {
        position: 1,
        id: 5,
        vocabulary: 5,
    });
    let mut out = [7.0; 6];
    assert_eq!(
        embedding_forward(&[0, 5], &[0.0; 15], 3, &mut out),
        expected
    );
    assert_eq!(out, [7.0; 6]);
    let mut dtable = [7.0; 15];
    assert_eq!(
        embedding_backward(&[1.0; 6], &[0, 5], 3, &mut dtable),
        expected
    );
    assert_eq!(dtable, [7.0; 15]);
    let packed = PackedWeight::new(Matrix::new(&[0.0; 15][..], 5, 3).unwrap()).unwrap();
    assert_eq!(embedding_packed(&[0, 5], &packed, &mut out), expected);
    assert_eq!(out, [7.0; 6]);
    let short = embedding_packed(&[0, 4], &packed, &mut out[..5]);
    assert_refused("out", short);
    let packed = PackedWeight::new(Matrix::new(&[0.0; 0][..], 5, 0).unwrap()).unwrap();
    let none = embedding_packed::<f32>(&[], &packed, &mut []);
    assert_eq!(none, Err(KernelError::Zero { name: "d" }));
    let none = embedding_forward(&[], &[], 0, &mut []);
    assert_eq!(none, Err(KernelError::Zero { name: "d" }));
    let ragged = embedding_forward(&[0], &[0.0; 14], 3, &mut [0.0; 3]);
    assert_refused("table", ragged);
}
