//! What the trainers of the `tokenizers` library make of the same words.

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{AddedToken, Trainer as _};

use super::*;

/// Where no token is made by two merges, the trainer of the library finds the same merges.
#[test]
fn merges_are_those_of_the_library() {
    let texts: Vec<&str> = TEXTS[..11].to_vec();
    let trained = train(TokenizerKind::Bpe, 330, &texts);
    let special = ["<pad>", "<unk>"].map(|token| AddedToken::from(token, true));
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(330)
        .special_tokens(special.to_vec())
        .initial_alphabet(
            tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet()
                .into_iter()
                .collect(),
        )
        .build();
    let options = TokenizerOptions::new(TokenizerKind::Bpe);
    let counts = words::count(&texts, &options, &Special::of(&options)).unwrap();
    let words: Vec<&String> = counts
        .iter()
        .flat_map(|(word, n)| vec![word; *n as usize])
        .collect();
    trainer
        .feed(words.into_iter(), |word| Ok(vec![word.to_owned()]))
        .unwrap();
    let mut model = BPE::default();
    trainer.train(&mut model).unwrap();
    let ours: Value = serde_json::from_slice(&trained.tokenizer).unwrap();
    let theirs = serde_json::to_value(&model).unwrap();
    assert_eq!(ours["model"]["merges"], theirs["merges"]);
    assert_eq!(ours["model"]["vocab"], theirs["vocab"]);
}

/// Of a text as long as a chapter, the trainer of the library needs about as many tokens.
#[test]
fn unigram_is_as_good_as_that_of_the_library() {
    let text = include_str!("../mod.rs").to_owned()
        + include_str!("../files.rs")
        + include_str!("../merges.rs");
    let lines: Vec<&str> = text.lines().collect();
    let trained = train(TokenizerKind::Unigram, 400, &lines);
    let options = TokenizerOptions::new(TokenizerKind::Unigram);
    let special = Special::of(&options);
    let counts = words::count(&lines, &options, &special).unwrap();
    let mut sorted: Vec<(String, u32)> = counts
        .into_iter()
        .map(|(word, n)| (word, n as u32))
        .collect();
    sorted.sort();
    let trainer = tokenizers::models::unigram::UnigramTrainer::builder()
        .show_progress(false)
        .vocab_size(400)
        .unk_token(Some("<unk>".to_owned()))
        .special_tokens(
            special
                .tokens
                .iter()
                .map(|token| AddedToken::from(*token, true))
                .collect(),
        )
        .build()
        .unwrap();
    let mut model = tokenizers::models::unigram::Unigram::default();
    trainer.do_train(sorted, &mut model).unwrap();
    let mut theirs = tokenizers::Tokenizer::from_bytes(&trained.tokenizer).unwrap();
    let ours = theirs.encode_fast(text.as_str(), false).unwrap().len();
    theirs.with_model(model);
    let theirs = theirs.encode_fast(text.as_str(), false).unwrap().len();
    let ratio = ours as f64 / theirs as f64;
    assert!(ratio < 1.03, "{ours} tokens against {theirs}");
}
