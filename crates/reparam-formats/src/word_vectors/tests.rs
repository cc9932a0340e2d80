use std::fs;

use proptest::prelude::*;

use super::*;

const LAYOUTS: [Layout; 3] = [Layout::Glove, Layout::Word2vecText, Layout::Word2vecBinary];

fn read(bytes: &[u8], layout: Option<Layout>) -> Result<WordVectors, WordVectorError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("v");
    fs::write(&path, bytes).unwrap();
    WordVectors::read(&path, layout)
}

/// The message without the path.
fn message(bytes: &[u8], layout: Option<Layout>) -> String {
    let error = read(bytes, layout).unwrap_err();
    assert!(error.hint().is_some(), "{error}");
    let text = error.to_string();
    let from = text.find("/v").map_or(0, |at| at + 2);
    text[from..].trim_start_matches([':', ' ']).to_owned()
}

#[test]
fn the_layout_is_told_by_the_content() {
    let numbers = [1.0_f32, -0.5, 3e-5, 7.0].map(f32::to_le_bytes);
    let binary = |end: &[u8]| {
        let mut bytes = b"2 2\nthe ".to_vec();
        bytes.extend(numbers[..2].concat());
        bytes.extend(end);
        bytes.extend("é ".as_bytes());
        bytes.extend(numbers[2..].concat());
        bytes.extend(end);
        bytes
    };
    let text = "the 1 -0.5\né 3e-5 7.0\n";
    for bytes in [
        text.as_bytes().to_vec(),
        text.replace('\n', "\r\n").into_bytes(),
        text.replace('\n', " \n").into_bytes(),
        text.trim_end().as_bytes().to_vec(),
        format!("2 2\n{text}").into_bytes(),
        format!("2 2\n{text}\n\n").into_bytes(),
        binary(b""),
        binary(b"\n"),
    ] {
        let vectors = read(&bytes, None).unwrap();
        assert_eq!(vectors.words(), ["the", "é"]);
        assert_eq!(vectors.table(), [1.0, -0.5, 3e-5, 7.0]);
        assert_eq!((vectors.dim(), vectors.duplicates()), (2, 0));
        assert_eq!(vectors.id("é"), Some(1));
        assert_eq!(vectors.row(7), [0.0; 0]);
    }
}

#[test]
fn words_may_have_spaces_and_come_twice() {
    let vectors = read(b"a 1 2\n. . . 3 4\na 5 6\n\xe2\x80\x8b 7 8\n", None).unwrap();
    assert_eq!(vectors.words(), ["a", ". . .", "\u{200b}"]);
    assert_eq!(vectors.vector("a"), Some(&[1.0, 2.0][..]));
    assert_eq!(vectors.duplicates(), 1);
}

#[test]
fn what_is_malformed_is_said_with_its_line() {
    for (bytes, layout, expected) in [
        (&b""[..], None, "has no word vectors"),
        (b"\n\n", None, "has no word vectors"),
        (b"0 5\n", None, "has no word vectors"),
        (
            b"the\n",
            None,
            "1: expected a word and 1 numbers, found 0 numbers",
        ),
        (
            b"a 1 2\nb 1\n",
            None,
            "2: expected a word and 2 numbers, found 1 numbers",
        ),
        (
            b"a 1 2\nb\n",
            None,
            "2: expected a word and 2 numbers, found 0 numbers",
        ),
        (b"a 1 2\n\nb 1 x\n", None, "3: \"x\" is no number"),
        (b"a 1 2\nb 1  2\n", None, "2: \"\" is no number"),
        (b"a 1 nan\n", None, "1: number 2 is not finite"),
        (b"a 1e39 1\n", None, "1: number 1 is not finite"),
        (
            b"a 1 2\n 1 2\n",
            None,
            "2: there is no word before the numbers",
        ),
        (b"a 1 2\n\xff 1 2\n", None, "2: the word is not UTF-8"),
        (
            b"a 1 2\n",
            Some(Layout::Word2vecText),
            "1: expected the numbers of words and of dimensions, found \"a 1 2\"",
        ),
        (
            b"3 2\na 1 2\nbb 1 22222\n",
            None,
            "the header says 3 words, the file has 2",
        ),
        (
            b"1 2\na 1 2\nb 1 2\n",
            None,
            "the header says 1 words, the file has 2",
        ),
        // Nothing of what a header promises is allocated unless the file can hold it.
        (
            b"1000000000000 300\na 1\n",
            None,
            "1000000000000 words of 300 dimensions need at least 601000000000018 bytes, the file has 22",
        ),
        (
            b"18446744073709551615 18446744073709551615\na",
            None,
            "18446744073709551615 words of 18446744073709551615 dimensions need at least 18446744073709551615 bytes, the file has 43",
        ),
        (
            b"1 2\na \0\0",
            Some(Layout::Word2vecBinary),
            "1 words of 2 dimensions need at least 13 bytes, the file has 8",
        ),
        (
            b"1 1\nab \0\0\0",
            Some(Layout::Word2vecBinary),
            "2: the file ends in the middle of it",
        ),
        (
            b"1 1\n \0\0\0\0",
            Some(Layout::Word2vecBinary),
            "2: there is no word before the numbers",
        ),
        (
            b"1 1\na \0\0\x80\x7f",
            Some(Layout::Word2vecBinary),
            "2: number 1 is not finite",
        ),
        (
            b"1 1\na \0\0\0\0b",
            Some(Layout::Word2vecBinary),
            "the header says 1 words, the file has 2",
        ),
        (
            b"1 1\nabcdefghi",
            Some(Layout::Word2vecBinary),
            "2: the file ends in the middle of it",
        ),
    ] {
        assert_eq!(
            message(bytes, layout),
            expected,
            "{}",
            String::from_utf8_lossy(bytes)
        );
    }
    let long = vec![b'a'; 5 << 20];
    assert_eq!(message(&long, None), "1: it is longer than 4194304 bytes");
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(
        WordVectors::read(directory.path(), None),
        Err(WordVectorError::File(_))
    ));
}

#[test]
fn a_vocabulary_is_told_which_words_were_found() {
    let vectors = read(b"a 1 2\nb 3 4\n", None).unwrap();
    let selected = vectors.select(&["b", "B", "a"]);
    assert_eq!(selected.table, [3.0, 4.0, 0.0, 0.0, 1.0, 2.0]);
    assert_eq!(selected.found, [true, false, true]);
}

#[test]
fn what_would_be_read_otherwise_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("v");
    for (word, layout) in [
        ("", Layout::Glove),
        ("a b", Layout::Word2vecText),
        ("a\n", Layout::Word2vecBinary),
        ("12", Layout::Glove),
    ] {
        let vectors = WordVectors::new(vec![word.to_owned()], 1, vec![1.0]).unwrap();
        let error = vectors.write(&path, layout).unwrap_err();
        assert!(
            matches!(error, WordVectorError::Unwritable { .. }),
            "{word:?}"
        );
        assert!(error.hint().is_some() && !path.exists());
    }
    for (words, dim, values) in [(1, 2, 1), (0, 1, 0), (1, 0, 0), (2, 1, 3)] {
        let words = vec!["a".to_owned(); words];
        let made = WordVectors::new(words, dim, vec![0.0; values]);
        assert!(matches!(made, Err(WordVectorError::Shape { .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_written_is_read_to_the_same_bits(
        rows in prop::collection::vec(("[^\\s\\pC]{1,8}", prop::array::uniform3(any::<f32>().prop_filter("finite", |x| x.is_finite()))), 1..20)
    ) {
        let (words, values): (Vec<String>, Vec<[f32; 3]>) = rows.into_iter().unzip();
        let vectors = WordVectors::new(words, 3, values.concat()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        for layout in LAYOUTS {
            let path = directory.path().join("v");
            vectors.write(&path, layout).unwrap();
            let read = WordVectors::read(&path, Some(layout)).unwrap();
            prop_assert_eq!(read.words(), vectors.words(), "{}", layout.name());
            let bits = |vectors: &WordVectors| vectors.table().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&read), bits(&vectors));
        }
    }

    #[test]
    fn no_file_makes_it_fail_otherwise_than_by_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), header in "[0-9]{1,3} [0-9]{1,2}\n|") {
        let bytes = [header.as_bytes(), &bytes].concat();
        for layout in LAYOUTS.map(Some).into_iter().chain([None]) {
            let _ = read(&bytes, layout);
        }
    }
}
