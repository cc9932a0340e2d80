use super::*;
use crate::tokenizer::EncodedRow;

/// A piece of `n` tokens, `each` to a word, between those of a template.
fn piece(n: usize, each: usize) -> EncodedPiece {
    let words = (0..n).map(|place| Some((place / each) as u32));
    let words: Vec<_> = [None].into_iter().chain(words).chain([None]).collect();
    let ids: Vec<u32> = (0..words.len()).map(|place| 100 + place as u32).collect();
    EncodedPiece {
        row: EncodedRow {
            type_ids: vec![0; ids.len()],
            ids,
            truncated: false,
        },
        words,
    }
}

fn masking(probability: f64, whole_words: bool) -> Masking {
    Masking {
        probability,
        whole_words,
        mask: 1,
        vocabulary: (10..20).collect(),
    }
}

#[test]
fn shares_are_those_of_bert() {
    let piece = piece(50_000, 1);
    let masked = masking(0.15, false).mask(&piece, [7, 0, 0]);
    let share = |count: usize, of: usize| count as f64 / of as f64;
    let chosen = masked.places.len();
    // Four standard deviations of so many draws.
    assert!((share(chosen, 50_000) - 0.15).abs() < 0.0064);
    let count = |is: &dyn Fn(u32, u32) -> bool| {
        let places = masked.places.iter().zip(&masked.stood);
        places
            .filter(|(place, stood)| is(masked.ids[**place], **stood))
            .count()
    };
    let near = |found: f64, wanted: f64| assert!((found - wanted).abs() < 0.019, "{found}");
    near(share(count(&|id, _| id == 1), chosen), 0.8);
    near(share(count(&|id, _| (10..20).contains(&id)), chosen), 0.1);
    near(share(count(&|id, stood| id == stood), chosen), 0.1);
    // What is not chosen stays, and what stood there is remembered.
    for (place, (now, before)) in masked.ids.iter().zip(&piece.row.ids).enumerate() {
        assert!(now == before || masked.places.contains(&place));
    }
    let stood: Vec<u32> = masked
        .places
        .iter()
        .map(|place| piece.row.ids[*place])
        .collect();
    assert_eq!(masked.stood, stood);
    assert!(!masked.places.contains(&0) && !masked.places.contains(&50_001));
}

#[test]
fn words_are_chosen_whole() {
    let masked = masking(0.3, true).mask(&piece(90, 3), [1, 2, 3]);
    assert!(masked.places.len().is_multiple_of(3));
    for word in masked.places.chunks(3) {
        assert_eq!((word[0] - 1) % 3, 0);
        assert_eq!([word[1], word[2]], [word[0] + 1, word[0] + 2]);
    }
}

#[test]
fn a_draw_is_a_function_of_its_key_and_never_empty() {
    let piece = piece(40, 1);
    let draw = |key| masking(0.2, false).mask(&piece, key);
    assert_eq!(draw([1, 2, 3]), draw([1, 2, 3]));
    for key in [[2, 2, 3], [1, 3, 3], [1, 2, 4]] {
        assert_ne!(draw([1, 2, 3]), draw(key));
    }
    assert_eq!(masking(1e-9, false).mask(&piece, [0; 3]).places.len(), 1);
    let empty = super::super::tokenizer::EncodedPiece {
        words: vec![None; 42],
        ..piece
    };
    assert_eq!(masking(0.9, false).mask(&empty, [0; 3]).places, [0; 0]);
}
