use proptest::prelude::*;

use super::*;

fn hash(row: usize) -> ContentHash {
    ContentHash::of([&row.to_le_bytes()[..]])
}

fn size(fraction: f64) -> Size {
    Size {
        fraction,
        max: u64::MAX,
    }
}

fn count(held_out: &[bool]) -> usize {
    held_out.iter().filter(|held_out| **held_out).count()
}

#[test]
fn the_choice_is_frozen() {
    // Of a run that is repeated with a later version the same rows are held out. SHA-256 of the parts' lengths and bytes,
    // then of seed and half of that digest; from an implementation in another language.
    let rows: Vec<_> = [b"a", b"b", b"c", b"d"]
        .map(|text| ContentHash::of([&text[..]]))
        .to_vec();
    let order = |seed| {
        let mut order: Vec<usize> = (0..4).collect();
        order.sort_by_key(|row| rows[*row].place(seed));
        order
    };
    assert_eq!([order(0), order(7)], [[2, 1, 0, 3], [1, 3, 0, 2]]);
}

#[test]
fn the_fraction_is_met() {
    for (n, fraction, expected) in [
        (10, 0.2, 2),
        (10, 0.26, 3),
        (10, 0.001, 1),
        (10, 0.999, 9),
        (2, 0.5, 1),
        (2, 0.05, 1),
        (1000, 0.05, 50),
    ] {
        let rows: Vec<_> = (0..n).map(hash).collect();
        let held_out = hold_out(&rows, size(fraction), 7).unwrap();
        assert_eq!(count(&held_out), expected.min(n - 1), "{n} {fraction}");
    }
    let rows: Vec<_> = (0..1000).map(hash).collect();
    let at_most = Size {
        fraction: 0.5,
        max: 20,
    };
    let held_out = hold_out(&rows, at_most, 7).unwrap();
    assert_eq!(count(&held_out), 20);
    // They are drawn from all over the rows, and by the seed.
    assert!(held_out[..500].contains(&true) && held_out[500..].contains(&true));
    assert_ne!(hold_out(&rows, at_most, 8).unwrap(), held_out);
}

#[test]
fn the_maximum_is_kept_where_what_is_smaller_can_be_chosen() {
    let size = |max| Size { fraction: 0.5, max };
    for seed in 0..20 {
        // Groups of three, and rows of their own.
        let rows: Vec<_> = (0..60)
            .map(|row| hash(if row < 30 { row / 3 } else { row }))
            .collect();
        for max in 1..12 {
            let held_out = hold_out(&rows, size(max), seed).unwrap();
            assert_eq!(count(&held_out), max as usize, "{seed} {max}");
        }
        // The least that can be held out.
        let held_out = hold_out(&rows[..30], size(2), seed).unwrap();
        assert_eq!(count(&held_out), 3);
        // No document fits, though one would be nearer than nothing.
        let documents: Vec<_> = (0..20).map(|content| document(content, 150, 15)).collect();
        let HeldOut::Pieces(stretches) = hold_out_documents(&documents, size(100), seed).unwrap()
        else {
            panic!("a whole document is more");
        };
        let pieces: usize = stretches
            .iter()
            .flatten()
            .map(|stretch| stretch.len())
            .sum();
        assert_eq!(pieces, 10);
    }
}

#[test]
fn what_cannot_be_parted_is_an_error() {
    for n in [0, 1] {
        let rows: Vec<_> = (0..n).map(hash).collect();
        let error = hold_out(&rows, size(0.1), 0).unwrap_err();
        assert!(matches!(error, DataError::TooFewToSplit { pieces } if pieces == n));
        assert!(error.hint().is_some());
    }
    for fraction in [-0.1, 1.0, 2.0, f64::NAN, f64::INFINITY] {
        let error = hold_out(&[hash(0), hash(1)], size(fraction), 0).unwrap_err();
        assert!(
            matches!(error, DataError::EvalFraction { .. }),
            "{fraction}"
        );
        assert!(error.hint().is_some());
    }
}

#[test]
fn rows_that_are_all_the_same_are_parted_all_the_same() {
    let held_out = hold_out(&[hash(0); 10], size(0.2), 0).unwrap();
    assert_eq!(count(&held_out), 2);
    // Of two contents, the one that is there more often is learned.
    let rows = [hash(0), hash(0), hash(0), hash(1)];
    assert_eq!(
        hold_out(&rows, size(0.01), 0).unwrap(),
        [false, false, false, true]
    );
}

fn document(content: usize, weight: u64, pieces: usize) -> Candidate {
    Candidate {
        hash: hash(content),
        weight,
        pieces,
    }
}

/// The pieces that are held out of each document.
fn held_out(documents: &[Candidate], fraction: f64) -> (bool, Vec<usize>) {
    match hold_out_documents(documents, size(fraction), 3).unwrap() {
        HeldOut::Documents(held_out) => {
            let pieces = documents.iter().zip(held_out);
            let pieces = pieces.map(|(document, held_out)| usize::from(held_out) * document.pieces);
            (true, pieces.collect())
        }
        HeldOut::Pieces(stretches) => {
            let pieces = stretches
                .iter()
                .map(|stretches| stretches.iter().map(ExactSizeIterator::len).sum());
            (false, pieces.collect())
        }
    }
}

#[test]
fn documents_stay_whole_where_that_comes_near() {
    // Two books: no whole one is a twentieth.
    let books = [document(0, 100_000, 200), document(1, 300_000, 600)];
    assert_eq!(held_out(&books, 0.05), (false, vec![10, 30]));
    // A giant among small ones is not held out where it would be far too much.
    let mut documents: Vec<_> = (1..200).map(|content| document(content, 50, 1)).collect();
    documents.insert(0, document(0, 40_000, 80));
    let (are_whole, pieces) = held_out(&documents, 0.1);
    assert!(are_whole && pieces[0] == 0);
    assert_eq!(pieces.iter().sum::<usize>(), 100);
    // Few short ones: the least there is.
    let few: Vec<_> = (0..3).map(|content| document(content, 10, 1)).collect();
    assert_eq!(held_out(&few, 0.05).1.iter().sum::<usize>(), 1);
    // A lone one, and one that is there several times.
    assert_eq!(held_out(&[document(0, 1000, 2)], 0.05), (false, vec![1]));
    let same = [document(0, 1000, 10); 3];
    assert_eq!(held_out(&same, 0.2).1.iter().sum::<usize>(), 6);
}

proptest! {
    /// Whatever the documents: a part is held out and a part is not, duplicates are on one side, the order does not
    /// matter, and stretches lie in their documents without overlap.
    #[test]
    fn parts_of_any_documents(
        shapes in prop::collection::vec((0usize..12, 1usize..30), 2..40),
        fraction in 0.01f64..0.9,
        rotated in 0usize..40,
    ) {
        // The same content has the same shape.
        let shape = |content: usize| shapes.iter().find(|shape| shape.0 == content).map_or(1, |shape| shape.1);
        let documents: Vec<_> = shapes
            .iter()
            .map(|(content, _)| document(*content, 10 * shape(*content) as u64, shape(*content)))
            .collect();
        let are_several = documents.iter().any(|document| document.hash != documents[0].hash);
        prop_assume!(are_several);
        let (_, pieces) = held_out(&documents, fraction);
        let total: usize = documents.iter().map(|document| document.pieces).sum();
        let sum: usize = pieces.iter().sum();
        prop_assert!(0 < sum && sum < total, "{} of {}", sum, total);
        for (document, held) in documents.iter().zip(&pieces) {
            prop_assert!(*held <= document.pieces);
            let same = documents.iter().zip(&pieces).filter(|(other, _)| other.hash == document.hash);
            for (_, other) in same {
                prop_assert_eq!(held, other);
            }
        }
        let mut other = documents.clone();
        other.rotate_left(rotated % documents.len());
        let (_, mut again) = held_out(&other, fraction);
        again.rotate_right(rotated % documents.len());
        prop_assert_eq!(pieces, again);
        if let HeldOut::Pieces(stretches) = hold_out_documents(&documents, size(fraction), 3).unwrap() {
            for (document, stretches) in documents.iter().zip(stretches) {
                prop_assert!(stretches.iter().all(|stretch| stretch.end <= document.pieces));
                prop_assert!(stretches.is_sorted_by(|a, b| a.end <= b.start));
            }
        }
    }
}
