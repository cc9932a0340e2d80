use std::fs;

use proptest::prelude::*;
use reparam_formats::word_vectors::WordVectors;

use super::*;

fn corpus() -> WordCorpus {
    let mut corpus = WordCorpus::default();
    for length in [3_u32, 0, 7, 1, 20, 9] {
        corpus.push((0..length).map(|i| (i * i + length) % 6));
    }
    corpus
}

fn options(objective: Objective) -> WordPairOptions {
    WordPairOptions {
        objective,
        window: 3,
        negatives: 4,
        subsample: 0.05,
        seed: 11,
    }
}

#[test]
fn batches_do_not_depend_on_how_positions_are_parted() {
    let corpus = corpus();
    for objective in [Objective::SkipGram, Objective::Cbow] {
        let pairs = WordPairs::new(corpus.clone(), 6, &options(objective)).unwrap();
        let whole = pairs.batch(2, 0..pairs.positions());
        let mut parts = WordBatch {
            inputs: vec![],
            bounds: vec![0],
            targets: vec![],
            negatives: vec![],
        };
        for position in 0..pairs.positions() {
            let one = pairs.batch(2, [position]);
            let shift = parts.inputs.len();
            parts.inputs.extend(one.inputs);
            parts
                .bounds
                .extend(one.bounds[1..].iter().map(|bound| bound + shift));
            parts.targets.extend(one.targets);
            parts.negatives.extend(one.negatives);
        }
        assert_eq!(parts, whole);
        assert_eq!(whole.bounds.len(), whole.targets.len() + 1);
        assert_ne!(whole, pairs.batch(3, 0..pairs.positions()));
        assert_eq!(pairs.batch(0, [usize::MAX]).targets, [0; 0]);
    }
}

#[test]
fn windows_stay_in_their_sentence_and_are_seen_from_both_sides() {
    let mut corpus = WordCorpus::default();
    corpus.push([0, 1, 2]);
    corpus.push([3]);
    corpus.push([4, 5]);
    let mut options = WordPairOptions {
        window: 1,
        negatives: 0,
        ..WordPairOptions::default()
    };
    let all = |options: &WordPairOptions| {
        let pairs = WordPairs::new(corpus.clone(), 6, options).unwrap();
        pairs.batch(0, 0..pairs.positions())
    };
    let batch = all(&options);
    assert_eq!(batch.inputs, [0, 1, 1, 2, 4, 5]);
    assert_eq!(batch.targets, [1, 0, 2, 1, 5, 4]);
    options.objective = Objective::Cbow;
    let batch = all(&options);
    assert_eq!(batch.inputs, [1, 0, 2, 1, 5, 4]);
    assert_eq!(batch.bounds, [0, 1, 3, 4, 5, 6]);
    assert_eq!(batch.targets, [0, 1, 2, 4, 5]);
}

#[test]
fn what_is_drawn_has_its_distribution() {
    // Word i occurs 4^i times, in one sentence.
    let mut corpus = WordCorpus::default();
    corpus.push((0..5_u32).flat_map(|word| vec![word; 4 << (2 * word + 2)]));
    let options = WordPairOptions {
        window: 4,
        negatives: 8,
        subsample: 0.01,
        ..WordPairOptions::default()
    };
    let pairs = WordPairs::new(corpus.clone(), 5, &options).unwrap();
    let mut drawn = [0.0; 5];
    let (mut targets, mut words) = (0.0, [0.0; 5]);
    let (mut batch_sizes, epochs) = (0.0, 8);
    for epoch in 0..epochs {
        let batch = pairs.batch(epoch, 0..pairs.positions());
        for (target, negatives) in batch.targets.iter().zip(batch.negatives.chunks(8)) {
            assert!(!negatives.contains(target));
            // Of what is drawn for the last word, so that the condition is the same.
            if *target == 4 {
                targets += 8.0;
                negatives
                    .iter()
                    .for_each(|word| drawn[*word as usize] += 1.0);
            }
        }
        batch_sizes += batch.targets.len() as f64;
        let mut draws = Draws::new(options.seed, epoch);
        for position in 0..corpus.len() {
            words[corpus.ids[position] as usize] +=
                f64::from(u8::from(pairs.is_kept(&mut draws, position)));
        }
    }
    let weight = |word: usize| ((4 << (2 * word + 2)) as f64).powf(0.75);
    let total: f64 = (0..4).map(weight).sum();
    for (word, drawn) in drawn.iter().enumerate().take(4) {
        let (found, expected) = (drawn / targets, weight(word) / total);
        assert!(
            (found - expected).abs() < 0.03,
            "{word}: {found} against {expected}"
        );
    }
    let n = corpus.len() as f64;
    for (word, found) in words.iter().enumerate() {
        let count = f64::from(4 << (2 * word + 2));
        let f = count / n;
        let expected = (((f / 0.01).sqrt() + 1.0) * 0.01 / f).min(1.0);
        let found = found / (count * epochs as f64);
        assert!(
            (found - expected).abs() < 0.05,
            "{word}: {found} against {expected}"
        );
    }
    // The mean of the window is 2.5 on each side.
    let mean = batch_sizes / words.iter().sum::<f64>();
    assert!((mean - 5.0).abs() < 0.2, "{mean}");
}

#[test]
fn requests_that_cannot_be_met_are_refused() {
    let corpus = corpus();
    let of = |change: fn(&mut WordPairOptions)| {
        let mut options = WordPairOptions::default();
        change(&mut options);
        WordPairs::new(corpus.clone(), 6, &options)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        of(|o| o.window = 0),
        "a window of 0 words has nothing to predict"
    );
    assert_eq!(of(|o| o.subsample = -1.0), "subsample is -1, outside 0..=1");
    assert_eq!(
        of(|o| o.subsample = f64::NAN),
        "subsample is NaN, outside 0..=1"
    );
    let options = WordPairOptions::default();
    let error = WordPairs::new(corpus.clone(), 3, &options).unwrap_err();
    assert!(
        error.to_string().ends_with("the vocabulary has 3 words"),
        "{error}"
    );
    let empty = WordCorpus::default();
    assert!(matches!(
        WordPairs::new(empty.clone(), 3, &options),
        Err(WordPairError::Empty)
    ));
    let mut one = WordCorpus::default();
    one.push([0, 0, 0]);
    assert!(matches!(
        WordPairs::new(one.clone(), 3, &options),
        Err(WordPairError::OneWord)
    ));
}

fn vectors() -> WordVectors {
    let words = ["man", "king", "woman", "queen", "apple", "zero"].map(str::to_owned);
    let rows = [
        [1.0, 0.0, 0.1],
        [1.0, 1.0, 0.1],
        [0.0, 0.0, 1.0],
        [0.0, 1.0, 1.0],
        [-1.0, 0.0, 0.3],
        [0.0; 3],
    ];
    WordVectors::new(words.to_vec(), 3, rows.concat()).unwrap()
}

#[test]
fn words_are_near_by_their_angle() {
    let vectors = vectors();
    let names = |found: Option<Vec<Neighbour>>| -> Vec<String> {
        found.unwrap().into_iter().map(|n| n.word).collect()
    };
    assert_eq!(
        names(analogy(&vectors, "man", "king", "woman", 1)),
        ["queen"]
    );
    assert_eq!(names(nearest_words(&vectors, "king", 2)), ["man", "queen"]);
    let all = nearest_words(&vectors, "king", 100).unwrap();
    assert_eq!(all.len(), 5);
    assert!((all[0].cosine - 1.01 / (1.01_f64 * 2.01).sqrt()).abs() < 1e-7);
    assert!(all.iter().any(|n| n.word == "zero" && n.cosine == 0.0));
    assert!(nearest_words(&vectors, "prince", 2).is_none());
    assert!(analogy(&vectors, "man", "king", "girl", 1).is_none());
}

#[test]
fn lists_of_similarity_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pairs");
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        WordSimilarity::read(&path)
    };
    for text in [
        "# comment\nMan\tKing\t7.5\nwoman\tapple\t1\nman\tgirl\t2\nqueen\tking\t6\n",
        "Word 1,Word 2,Human (mean)\r\nMan,King,7.5\r\nwoman,apple,1\r\nman,girl,2\r\nqueen,king,6\r\n",
        "Man King 7.5\nwoman apple 1\n\nman girl 2\nqueen king 6",
    ] {
        let list = read(text).unwrap();
        assert_eq!(list.pairs().len(), 4);
        let agreement = list.evaluate(&vectors());
        assert_eq!((agreement.pairs, agreement.missing), (3, 1));
        assert_eq!(agreement.spearman, Some(1.0));
    }
    for (text, expected) in [
        ("", "has no pairs of words"),
        (
            "a b 1\nc d\n",
            ":2: expected two words and a number, found \"c d\"",
        ),
        (
            "a\tb\t1\nc\td\tnan\n",
            ":2: expected two words and a number, found \"c\\td\\tnan\"",
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.to_string().ends_with(expected), "{error}");
        assert!(error.hint().is_some());
    }
}

proptest! {
    #[test]
    fn any_corpus_gives_examples_of_its_words(
        sentences in prop::collection::vec(prop::collection::vec(0_u32..9, 0..12), 0..6),
        window in 1_usize..5, subsample in 0.0..0.3, seed: u64,
    ) {
        let mut corpus = WordCorpus::default();
        sentences.into_iter().for_each(|sentence| corpus.push(sentence));
        for objective in [Objective::SkipGram, Objective::Cbow] {
            let options = WordPairOptions { objective, window, negatives: 2, subsample, seed };
            let Ok(pairs) = WordPairs::new(corpus.clone(), 9, &options) else { continue };
            let batch = pairs.batch(seed, 0..pairs.positions());
            prop_assert_eq!(batch.negatives.len(), 2 * batch.targets.len());
            prop_assert!(batch.bounds.windows(2).all(|two| (1..=2 * window).contains(&(two[1] - two[0]))));
            for word in batch.inputs.iter().chain(&batch.targets).chain(&batch.negatives) {
                prop_assert!(corpus.ids.contains(word));
            }
        }
    }
}
