//! The loss as its definition says, computed from logits by hand.

use reparam::ForwardContext;
use reparam_data::ReadOptions;
use reparam_models::TokenBatch;
use reparam_train::config::Precision;
use reparam_train::{Session, Stop, evaluate_file};

use crate::stories;

/// Both are `f32` forward passes; the sums here are `f64`.
const TOLERANCE: f64 = 1e-5;

const TEXTS: [&str; 4] = [
    "Once upon a time, there was a little girl named Lily.",
    "The dog ran to the big tree because he was very scared. He wanted to see what was inside. \
     He wanted to play with his toys and run around the house.",
    "Hi",
    "",
];

/// Encodes documents, cuts them, and returns the summed loss and how many tokens were predicted.
fn by_hand(session: &Session, texts: &[&str], sequence_length: usize) -> (f64, u64) {
    let (mut sum, mut count) = (0.0, 0);
    for text in texts {
        let mut ids = session.tokenizer.encode(text, true).expect("encodes");
        assert_eq!(ids[0], 1, "the template begins with BOS");
        ids.push(2);
        for piece in ids.chunks(sequence_length) {
            let position_ids: Vec<u32> = (0..piece.len() as u32).collect();
            let batch = TokenBatch {
                input_ids: piece,
                position_ids: &position_ids,
                bounds: &[0, piece.len()],
            };
            let logits = session.model.logits(batch, &ForwardContext::inference());
            let vocab = session.model.vocab_size();
            let logits: Vec<f32> = logits.into_data().try_to_vec().expect("f32");
            for (row, next) in logits.chunks(vocab).zip(&piece[1..]) {
                let total: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
                sum += total.ln() - f64::from(row[*next as usize]);
                count += 1;
            }
        }
    }
    (sum, count)
}

#[test]
fn evaluation_is_the_definition() {
    let session = stories();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("texts.jsonl");
    let lines: Vec<String> = TEXTS
        .iter()
        .map(|text| serde_json::json!({ "text": text }).to_string())
        .collect();
    std::fs::write(&path, lines.join("\n")).expect("writes");
    // Longer than every document; one that cuts; the shortest.
    for sequence_length in [512, 16, 7, 2] {
        let found = evaluate_file(
            &session,
            path.clone(),
            &ReadOptions::default(),
            sequence_length,
            Stop::never(),
        )
        .expect("evaluates");
        let (sum, count) = by_hand(&session, &TEXTS, sequence_length);
        assert_eq!(found.get("tokens"), Some(count as f64), "{sequence_length}");
        let expected = sum / count as f64;
        assert!(
            (found.primary() - expected).abs() <= TOLERANCE,
            "{} {expected}",
            found.primary()
        );
        assert_eq!(found.get("perplexity"), Some(found.primary().exp()));
    }
}

#[test]
fn a_text_file_is_one_document() {
    let session = stories();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("text.txt");
    // Long enough for several groups of blocks.
    let text = format!("{}\n", TEXTS[1]).repeat(80);
    std::fs::write(&path, &text).expect("writes");
    let found = evaluate_file(&session, path, &ReadOptions::default(), 64, Stop::never())
        .expect("evaluates");
    let (sum, count) = by_hand(&session, &[&text], 64);
    assert_eq!(found.get("tokens"), Some(count as f64));
    assert!(count > 4096, "{count}");
    let expected = sum / count as f64;
    assert!(
        (found.primary() - expected).abs() <= TOLERANCE,
        "{} {expected}",
        found.primary()
    );
}

#[test]
fn a_session_names_what_is_missing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("nothing");
    let error = Session::open(
        path.to_str().expect("UTF-8"),
        &crate::offline(),
        Precision::F32,
    )
    .expect_err("there is no model");
    assert!(error.to_string().contains("nothing"), "{error}");
    let missing = directory.path().join("missing.txt");
    let error = evaluate_file(
        &stories(),
        missing,
        &ReadOptions::default(),
        16,
        Stop::never(),
    )
    .expect_err("there is no file");
    assert!(error.to_string().contains("missing.txt"), "{error}");
}
