use super::*;
use crate::rows::testing::read;
use crate::rows::{EMBEDDING, pair_rows};

#[test]
fn anchors_are_compared_with_every_positive_once() {
    let content = [
        r#"{"anchor":"a","positive":"x","negative":"n"}"#,
        r#"{"anchor":"b","positive":"y"}"#,
        r#"{"text":"t","text_pair":"u","score":1}"#,
        r#"{"anchor":"c","positive":"x"}"#,
        r#"{"anchor":"b","positive":"x"}"#,
        r#"{"anchor":"b","positive":"y"}"#,
    ];
    let rows = read("t.jsonl", &content.join("\n"), &EMBEDDING, None, "").unwrap();
    let rows: Vec<_> = pair_rows(rows)
        .rows
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let found = Retrieval::of(&rows);
    assert_eq!(found.anchors, ["a", "b", "c"]);
    assert_eq!(found.candidates, ["x", "y"]);
    assert_eq!(found.positives, [vec![0], vec![0, 1], vec![0]]);
}

fn measures(anchors: &[(&[f64], &[usize])]) -> RetrievalMetrics {
    let mut scorer = RetrievalScorer::new();
    for (similarities, positives) in anchors {
        scorer.add(similarities, positives);
    }
    scorer.finish().unwrap()
}

#[test]
fn recall_and_reciprocal_rank() {
    let falling: Vec<f64> = (0..12).map(|at| -f64::from(at)).collect();
    for (positives, recall, mrr) in [
        (&[0][..], [1.0, 1.0, 1.0], 1.0),
        (&[4], [0.0, 1.0, 1.0], 0.2),
        (&[9], [0.0, 0.0, 1.0], 0.1),
        (&[10], [0.0, 0.0, 0.0], 1.0 / 11.0),
        (&[1, 5, 11], [0.0, 1.0 / 3.0, 2.0 / 3.0], 0.5),
    ] {
        let found = measures(&[(&falling, positives)]);
        assert_eq!((found.recall, found.mrr), (recall, mrr), "{positives:?}");
    }
    let found = measures(&[(&falling, &[0]), (&falling, &[3])]);
    assert_eq!(
        (found.recall, found.mrr, found.anchors),
        ([0.5, 1.0, 1.0], 0.625, 2)
    );
    assert_eq!(RetrievalScorer::new().finish(), None);
}

#[test]
fn the_same_similarity_for_all_finds_nothing() {
    let found = measures(&[(&[1.0; 20], &[0])]);
    assert_eq!((found.recall, found.mrr), ([0.0; 3], 0.05));
    for similarities in [[f64::NAN; 20], [f64::NEG_INFINITY; 20]] {
        assert_eq!(measures(&[(&similarities, &[3])]).mrr, 0.05);
    }
    // Other positives are not in the way.
    assert_eq!(measures(&[(&[1.0, 1.0], &[0, 1])]).mrr, 1.0);
}
