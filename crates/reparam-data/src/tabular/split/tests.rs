use proptest::prelude::*;

use super::*;

#[test]
fn the_test_rows_are_the_first_of_the_permutation() {
    // `permutation(10, 0, 0)` is 4, 2, 9, 0, 8, ...
    let split = split_rows(10, 0.25, 0).unwrap();
    assert_eq!(split.test, [2, 4, 9]);
    assert_eq!(split.train, [0, 1, 3, 5, 6, 7, 8]);
    assert_ne!(split, split_rows(10, 0.25, 1).unwrap());
}

#[test]
fn small_tables_split_as_long_as_both_parts_have_a_row() {
    assert_eq!(split_rows(2, 0.5, 0).unwrap().test.len(), 1);
    assert_eq!(split_rows(2, 1e-9, 0).unwrap().test.len(), 1);
    for (rows, fraction) in [(0, 0.5), (1, 0.5), (2, 0.6), (10, 0.95)] {
        let error = split_rows(rows, fraction, 0).unwrap_err();
        let part = if rows == 0 { "the test" } else { "training" };
        assert_eq!(
            error.to_string(),
            format!("a test fraction of {fraction} of {rows} rows leaves no row for {part}")
        );
        assert!(error.hint().is_some());
    }
}

#[test]
fn the_fraction_is_between_0_and_1() {
    for fraction in [0.0, 1.0, -0.5, 2.0, f64::NAN, f64::INFINITY] {
        let error = split_rows(10, fraction, 0).unwrap_err();
        let message = format!("the test fraction is {fraction}, outside 0 < fraction < 1");
        assert_eq!(error.to_string(), message);
        assert_eq!(error.hint().unwrap(), "use 0.2 to hold out a fifth");
    }
}

proptest! {
    #[test]
    fn a_split_is_a_partition(n in 2usize..300, fraction in 0.001f64..0.999, seed: u64) {
        let expected = (n as f64 * fraction).ceil() as usize;
        match split_rows(n, fraction, seed) {
            Ok(Split { train, test }) => {
                prop_assert_eq!(test.len(), expected);
                prop_assert!(train.is_sorted() && test.is_sorted());
                prop_assert!(!train.is_empty());
                let mut all = [train, test].concat();
                all.sort_unstable();
                prop_assert_eq!(all, (0..n).collect::<Vec<_>>());
            }
            Err(_) => prop_assert_eq!(expected, n),
        }
    }
}
