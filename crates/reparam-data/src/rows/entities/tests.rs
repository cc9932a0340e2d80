use std::collections::BTreeSet;

use serde::Deserialize;

use super::*;
use crate::rows::LabelKind;
use crate::rows::testing::golden;

/// Both sides divide the same whole numbers; f1 is the same quotient written in two ways.
const TOLERANCE: f64 = 1e-15;

#[derive(Deserialize)]
struct Case {
    name: String,
    rows: Vec<Sentence>,
    precision: f64,
    recall: f64,
    f1: f64,
    accuracy: f64,
    types: BTreeMap<String, Counts>,
}

#[derive(Deserialize)]
struct Sentence {
    tags: String,
    predicted: String,
}

#[derive(Deserialize)]
struct Counts {
    actual: usize,
    predicted: usize,
    right: usize,
}

fn labels<'a>(names: impl IntoIterator<Item = &'a str>) -> Labels {
    let names: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
    Labels::new(names.into_iter().collect(), LabelKind::One).unwrap()
}

fn classes(labels: &Labels, tags: &str) -> Vec<usize> {
    let class = |tag: &str| labels.names().iter().position(|name| name == tag).unwrap();
    tags.split_whitespace().map(class).collect()
}

#[test]
fn entities_are_counted_as_by_seqeval() {
    let cases: Vec<Case> = golden("entities.json", "cases");
    assert_eq!(cases.len(), 14);
    for case in cases {
        let texts = case.rows.iter().flat_map(|row| [&row.tags, &row.predicted]);
        let labels = labels(
            texts
                .flat_map(|tags| tags.split_whitespace())
                .chain(["B", "E"]),
        );
        let mut scorer = EntityScorer::new(&labels);
        for row in &case.rows {
            let predicted = classes(&labels, &row.predicted).into_iter().map(Some);
            scorer.add(&classes(&labels, &row.tags), &predicted.collect::<Vec<_>>());
        }
        let found = scorer.finish().unwrap();
        for (key, found, expected) in [
            ("precision", found.precision, case.precision),
            ("recall", found.recall, case.recall),
            ("f1", found.f1, case.f1),
            ("accuracy", found.accuracy, case.accuracy),
        ] {
            let name = &case.name;
            assert!(
                (found - expected).abs() < TOLERANCE,
                "{name}: {key} {found} {expected}"
            );
        }
        let expected = case.types.into_iter().map(|(name, counts)| {
            let Counts {
                actual,
                predicted,
                right,
            } = counts;
            let counts = EntityCounts {
                actual,
                predicted,
                right,
            };
            (name, counts)
        });
        assert_eq!(found.types, expected.collect(), "{}", case.name);
    }
}

#[test]
fn entities_of_every_scheme() {
    for (tags, expected) in [
        ("B-X I-X O B-X", "0-1 X, 3-3 X"),
        ("I-X I-X I-Y B-Y", "0-1 X, 2-2 Y, 3-3 Y"),
        ("B-X I-X E-X S-Y O", "0-2 X, 3-3 Y"),
        ("B-X M-X M-X E-X S-X", "0-3 X, 4-4 X"),
        ("E-X E-X", "0-0 X, 1-1 X"),
        ("B M E S S B E", "0-2 _, 3-3 _, 4-4 _, 5-6 _"),
        ("B-a-b I-a-b I-b", "0-1 a-b, 2-2 b"),
        ("O O", ""),
    ] {
        let labels = labels(tags.split_whitespace());
        let scorer = EntityScorer::new(&labels);
        let classes: Vec<_> = classes(&labels, tags).into_iter().map(Some).collect();
        let found = scorer.entities(&classes);
        let found = found.iter().map(|entity| {
            let Entity { first, last, name } = entity;
            format!("{first}-{last} {name}")
        });
        assert_eq!(found.collect::<Vec<_>>().join(", "), expected, "{tags}");
    }
}

#[test]
fn a_token_without_a_prediction_is_wrong_and_outside() {
    let labels = labels(["B-X", "I-X", "O"]);
    let mut scorer = EntityScorer::new(&labels);
    assert_eq!(scorer.finish(), None);
    scorer.add(&[0, 1, 2], &[Some(0), None, None]);
    let found = scorer.finish().unwrap();
    assert_eq!((found.precision, found.recall, found.f1), (0.0, 0.0, 0.0));
    assert_eq!((found.accuracy, found.tokens), (1.0 / 3.0, 3));
    let x = found.types["X"];
    assert_eq!((x.actual, x.predicted, x.right), (1, 1, 0));
}
