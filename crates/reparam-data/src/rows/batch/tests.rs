use super::*;
use crate::error::DataError;

#[test]
fn rows_lie_one_behind_the_other() {
    let row = |ids: &[u32], type_ids: &[u32]| EncodedRow {
        ids: ids.to_vec(),
        type_ids: type_ids.to_vec(),
        truncated: false,
    };
    let batch = RowBatch::concat(&[
        row(&[2, 7, 3, 8, 3], &[0, 0, 0, 1, 1]),
        row(&[2, 3], &[0, 0]),
    ]);
    assert_eq!(batch.input_ids, [2, 7, 3, 8, 3, 2, 3]);
    assert_eq!(batch.token_type_ids, [0, 0, 0, 1, 1, 0, 0]);
    assert_eq!(batch.position_ids, [0, 1, 2, 3, 4, 0, 1]);
    assert_eq!(batch.bounds, [0, 5, 7]);
    assert_eq!((batch.n_tokens(), batch.n_rows()), (7, 2));
}

#[test]
fn every_row_is_on_one_side_and_the_choice_is_the_seeds() {
    let (train, held_out) = hold_out(100, 0.2, 7).unwrap();
    assert_eq!((train.len(), held_out.len()), (80, 20));
    let mut all: Vec<usize> = train.iter().chain(&held_out).copied().collect();
    assert!(train.is_sorted() && held_out.is_sorted());
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
    assert_eq!(hold_out(100, 0.2, 7).unwrap(), (train, held_out.clone()));
    assert_ne!(hold_out(100, 0.2, 8).unwrap().1, held_out);
    // It is not a stretch of the file, which may be sorted by class.
    assert!(held_out[0] < 50 && held_out[19] >= 50, "{held_out:?}");
    assert_eq!(hold_out(3, 0.0, 7).unwrap(), (vec![0, 1, 2], vec![]));
    assert!(matches!(
        hold_out(1, 0.5, 7),
        Err(DataError::TooFewToSplit { pieces: 1 })
    ));
}
