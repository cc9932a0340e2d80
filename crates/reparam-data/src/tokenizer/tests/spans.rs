use super::*;

/// What each word of the first text and of the second one is in it.
fn words<'a>(spans: &EncodedSpans, texts: [&'a str; 2]) -> Vec<&'a str> {
    let text = |word: &WordSpan| &texts[usize::from(word.in_pair)][word.bytes.clone()];
    spans.spans.iter().map(|word| text(word).trim()).collect()
}

#[test]
fn tokens_know_their_words_and_are_those_of_a_row() {
    for name in ["bert", "byte_level"] {
        let tokenizer = golden_tokenizer(name, "right");
        let texts = ["see you at home", "win a prize"];
        for (pair, most) in [(None, 64), (Some(texts[1]), 64), (Some(texts[1]), 6)] {
            let row = tokenizer.encode_row(texts[0], pair, most).unwrap();
            let spans = tokenizer.encode_spans(texts[0], pair, most).unwrap();
            assert_eq!(spans.row, row, "{name}");
            assert_eq!(spans.words.len(), row.ids.len());
            let last = spans.words.iter().flatten().max().copied();
            assert_eq!(last.map(|last| last + 1), Some(spans.spans.len()));
            // Ascending, and none of the template.
            let numbers: Vec<usize> = spans.words.iter().flatten().copied().collect();
            assert!(numbers.is_sorted(), "{name}: {numbers:?}");
            if most == 64 {
                let both = pair.map_or(texts[0].to_owned(), |pair| format!("{} {pair}", texts[0]));
                let expected: Vec<&str> = both.split(' ').collect();
                assert_eq!(words(&spans, texts), expected, "{name}");
            }
        }
    }
}
