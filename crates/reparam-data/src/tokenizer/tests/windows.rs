use std::sync::LazyLock;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::tokenizer::{Window, WindowOptions};

/// A tokenizer that cuts on the right, and one that does on the left.
static BERT: LazyLock<[TextTokenizer; 2]> =
    LazyLock::new(|| ["right", "left"].map(|side| golden_tokenizer("bert", side)));

#[derive(Deserialize)]
struct Row {
    tokenizer: String,
    question: String,
    context: String,
    max_length: usize,
    stride: usize,
    side: String,
    windows: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    first: Option<usize>,
    offsets: Vec<usize>,
}

#[test]
fn contexts_are_cut_into_windows_as_by_transformers() {
    let rows: Vec<Row> = rows_of("windows.json");
    assert_eq!(rows.len(), 32);
    for row in rows {
        let tokenizer = golden_tokenizer(&row.tokenizer, &row.side);
        let Row {
            max_length, stride, ..
        } = row;
        let options = WindowOptions { max_length, stride };
        let found = tokenizer
            .encode_windows(&row.question, &row.context, options)
            .unwrap();
        assert_eq!(found.len(), row.windows.len());
        let white: Vec<bool> = row.context.chars().map(char::is_whitespace).collect();
        for (found, expected) in found.iter().zip(&row.windows) {
            assert_eq!(found.row.ids, expected.ids);
            assert_eq!(found.context.len(), expected.offsets.len() / 2);
            if let Some(first) = expected.first {
                assert_eq!(found.context.start, first);
            }
            assert_eq!(found.row.type_ids, expected.type_ids);
            for (found, expected) in found.characters.iter().zip(expected.offsets.chunks(2)) {
                // Of a token of white space transformers leaves nothing, and the first token of a later window keeps
                // its space, for the library takes it for the one that was put before the text.
                let space = (expected[0]..expected[1])
                    .take_while(|at| white[*at])
                    .count();
                if !white[found.clone()].iter().all(|white| *white) {
                    let expected = expected[0] + space..expected[1];
                    assert_eq!(*found, expected, "{}", row.context);
                }
            }
        }
    }
}

#[test]
fn a_window_has_to_be_longer_than_what_it_shares() {
    let tokenizer = golden_tokenizer("bert", "right");
    let encode = |max_length, stride| {
        tokenizer.encode_windows(
            "is it",
            "see you at five",
            WindowOptions { max_length, stride },
        )
    };
    // Nine tokens in all: nothing is shared where one window is enough.
    assert_eq!(encode(9, 128).unwrap().len(), 1);
    assert_eq!(encode(8, 2).unwrap().len(), 2);
    let error = encode(8, 3).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a window of 8 tokens has no room for more than the 3 that it shares with the next one: \
         the question and the template have 5"
    );
    let hint = "shorten the question, or set sequence_length to 9 or more";
    assert_eq!(error.hint().unwrap(), hint);
    assert!(matches!(
        encode(4, 0),
        Err(DataError::NoWindow { before: 5, .. })
    ));
}

proptest! {
    #[test]
    fn windows_cover_the_context(
        words in prop::collection::vec("see|you|unsure|prizes 15|!|北", 0..40),
        room in 1usize..20,
        stride in 0usize..19,
        left in any::<bool>(),
    ) {
        let stride = stride % room;
        let tokenizer = &BERT[usize::from(left)];
        let context = words.join(" ");
        let options = WindowOptions { max_length: 4 + room, stride };
        let mut windows = tokenizer.encode_windows("ok", &context, options).unwrap();
        let whole = WindowOptions { max_length: 512, stride: 0 };
        let whole = tokenizer.encode_windows("ok", &context, whole).unwrap();
        let [Window { row, context: of_row, characters, .. }] = &whole[..] else { panic!("{whole:?}") };
        let ids = &row.ids[of_row.clone()];
        if left { windows.reverse(); }
        prop_assert_eq!(windows[0].part.start, 0);
        prop_assert_eq!(windows[windows.len() - 1].part.end, ids.len());
        for pair in windows.windows(2) {
            let shared = pair[0].part.end - pair[1].part.start;
            prop_assert_eq!(shared, stride);
        }
        for window in &windows {
            prop_assert!(window.row.ids.len() <= options.max_length);
            prop_assert_eq!(&window.row.ids[window.context.clone()], &ids[window.part.clone()]);
            prop_assert_eq!(&window.characters, &characters[window.part.clone()]);
        }
    }
}
