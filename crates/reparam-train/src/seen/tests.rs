//! Counts against their definitions, and rows as text.

use std::path::Path;

use reparam_data::{ContentHash, SpecialIds, TextTokenizer};

use super::*;

fn model() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/stories260K")
}

fn tokenizer() -> TextTokenizer {
    TextTokenizer::from_model_dir(&model(), &SpecialIds::default()).expect("a tokenizer")
}

fn survey(rows: &[(usize, usize)]) -> Survey {
    let mut survey = Survey::new(&[]);
    for (at, (tokens, labelled)) in rows.iter().enumerate() {
        let content = at.to_string();
        let row = Surveyed {
            tokens: *tokens,
            labelled: *labelled,
            truncated: false,
            content: Some(ContentHash::of([content.as_bytes()])),
            path: Some(Path::new(if at < 2 { "a" } else { "b" })),
        };
        survey.add(row, || format!("row {at}"));
    }
    survey
}

/// The order statistics of a sorted list, by the definition: the least length that a share of the rows does not exceed.
#[test]
fn lengths_are_those_of_their_definitions() {
    for n in [1, 2, 3, 19, 20, 21, 100, 101] {
        // In no order, and some of them twice.
        let lengths: Vec<usize> = (0..n).map(|at| 3 + (at * 37) % 50).collect();
        let rows: Vec<(usize, usize)> = lengths.iter().map(|length| (*length, 1)).collect();
        let seen = survey(&rows).finish("rows", 64, true);
        let found = &seen.lengths;
        let least = |share: f64| {
            let mut sorted = lengths.clone();
            sorted.sort_unstable();
            let fits = |length: &usize| {
                let below = lengths.iter().filter(|other| *other <= length).count();
                below as f64 >= share * n as f64
            };
            sorted
                .into_iter()
                .find(|length| fits(length))
                .expect("a length") as u64
        };
        assert_eq!(found.min, *lengths.iter().min().unwrap() as u64);
        assert_eq!(found.max, *lengths.iter().max().unwrap() as u64);
        assert_eq!(found.median, least(0.5), "{n}");
        assert_eq!(found.p95, least(0.95), "{n}");
        let sum: usize = lengths.iter().sum();
        assert!((found.mean - sum as f64 / n as f64).abs() < 1e-9);
        assert_eq!(seen.tokens, sum as u64);
        // Every row is in the one bin that has its length, and the bins follow one another.
        let bins = &found.histogram;
        assert!((1..=10).contains(&bins.len()), "{bins:?}");
        assert_eq!(
            (bins[0].from, bins.last().unwrap().to),
            (found.min, found.max)
        );
        assert!(
            bins.windows(2).all(|two| two[0].to + 1 == two[1].from),
            "{bins:?}"
        );
        for bin in bins {
            let inside = |length: &&usize| (bin.from..=bin.to).contains(&(**length as u64));
            assert_eq!(bin.rows, lengths.iter().filter(inside).count() as u64);
        }
    }
}

#[test]
fn what_is_the_matter_with_rows_is_counted() {
    let mut survey = survey(&[(4, 3), (5, 0), (6, 0)]);
    let again = ContentHash::of([b"0" as &[u8]]);
    let row = Surveyed {
        tokens: 4,
        labelled: 3,
        truncated: true,
        content: Some(again),
        path: Some(Path::new("b")),
    };
    survey.add(row, || "again".to_owned());
    survey.held_out(again, || "held out".to_owned());
    survey.held_out(ContentHash::of([b"other" as &[u8]]), || "other".to_owned());
    let seen = survey.finish("rows", 8, true);
    let noticed = |count, first: &[&str]| Noticed {
        count,
        first: first.iter().map(|place| (*place).to_owned()).collect(),
    };
    assert_eq!(seen.masked, noticed(2, &["row 1", "row 2"]));
    assert_eq!(seen.duplicates, noticed(1, &["again"]));
    assert_eq!(seen.truncated, noticed(1, &["again"]));
    assert_eq!(seen.held_out_duplicates, noticed(1, &["held out"]));
    assert_eq!(
        (seen.rows, seen.tokens, seen.labelled_tokens),
        (4, 19, Some(6))
    );
    let files: Vec<_> = (seen.files.iter())
        .map(|file| (file.file.to_str().unwrap(), file.rows, file.tokens))
        .collect();
    assert_eq!(files, [("a", 2, 9), ("b", 2, 10)]);
}

/// The parts of a row are its text, whatever is learned of it.
#[test]
fn parts_are_the_text() {
    let tokenizer = tokenizer();
    for text in ["Once upon a time, Tom saw a dog.", "Zoë <b> 狗\n\ttab", ""] {
        let ids = tokenizer.encode(text, true).expect("tokens");
        for step in 1..4 {
            let token = |(at, id): (usize, &u32)| Token {
                learned: (at / step) % 2 == 1,
                ..Token::given(*id)
            };
            let tokens: Vec<Token> = ids.iter().enumerate().map(token).collect();
            let row = SeenRow::decode(&tokenizer, &tokens).expect("a row");
            let joined: Vec<u32> = row.parts.iter().flat_map(|part| part.ids.clone()).collect();
            assert_eq!(joined, ids);
            for part in &row.parts {
                let learned = |id: &u32| {
                    tokens
                        .iter()
                        .any(|t| t.id == *id && t.learned == part.learned)
                };
                assert!(part.ids.iter().all(learned), "{part:?}");
                assert_eq!(
                    part.special,
                    part.ids.iter().all(|id| tokenizer.is_special(*id))
                );
            }
            if text.is_ascii() {
                let shown: String = row.parts.iter().map(|part| part.text.as_str()).collect();
                assert_eq!(shown, tokenizer.decode(&ids, false).expect("a text"));
            }
        }
    }
}

/// A character whose bytes are tokens of which some are learned is shown as what each part is by itself.
#[test]
fn a_parted_character_is_no_reason_to_fail() {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode("狗", false).expect("tokens");
    assert!(ids.len() > 2, "{ids:?}");
    let token = |(at, id): (usize, &u32)| Token {
        learned: at > 1,
        ..Token::given(*id)
    };
    let tokens: Vec<Token> = ids.iter().enumerate().map(token).collect();
    let row = SeenRow::decode(&tokenizer, &tokens).expect("a row");
    assert_eq!(row.parts.len(), 2, "{row:?}");
}

/// Nothing of a text or a label becomes markup.
#[test]
fn a_page_escapes_what_comes_from_outside() {
    const EVIL: &str = "</p><script>alert('x')</script>&\u{1b}[31m";
    let mut seen = survey(&[(4, 3)]).finish("rows", 8, false);
    seen.labels = vec![LabelCount {
        label: EVIL.to_owned(),
        count: 1,
    }];
    seen.files[0].file = EVIL.into();
    seen.truncated.first = vec![EVIL.to_owned()];
    seen.examples = vec![SeenRow {
        place: Some(EVIL.to_owned()),
        label: Some(EVIL.to_owned()),
        tokens: 4,
        parts: vec![SeenPart {
            text: EVIL.to_owned(),
            learned: true,
            special: true,
            label: Some(EVIL.to_owned()),
            ids: vec![1],
        }],
    }];
    let finding = Finding::warning("a", EVIL, EVIL);
    let page = page(EVIL, &seen, &[finding]);
    assert!(
        !page.contains("<script") && !page.contains('\u{1b}'),
        "{page}"
    );
    assert_eq!(page.matches("&lt;script&gt;").count(), 11, "{page}");
    // Nothing is loaded from elsewhere.
    assert!(!page.contains("http") && !page.contains("src="), "{page}");
    assert!(page.contains("class=\"learned special\""), "{page}");
}
