//! What word vectors have learned.

use std::path::Path;

pub use reparam_data::word_pairs::Neighbour;
use reparam_data::word_pairs::{analogy, nearest_words};
use reparam_formats::word_vectors::WordVectors;

use crate::model_files::VECTORS;
use crate::run_dir::model_of;
use crate::{Result, TrainError};

/// What is asked of word vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WordQuestion {
    /// Which words have the least angle to this one.
    Nearest(String),
    /// What is to the third as the second is to the first.
    Analogy([String; 3]),
}

/// Answers a question from word vectors: those of a model or run of the task `word-embedding`, or a file of GloVe or word2vec, text
/// or binary. At most `k` words, the nearest first.
///
/// # Errors
///
/// Files that cannot be read; [`TrainError::NoVector`] for a word without a vector.
pub fn ask_words(path: &Path, question: &WordQuestion, k: usize) -> Result<Vec<Neighbour>> {
    let file = match path.is_dir() {
        true => model_of(path.to_owned())?.join(VECTORS),
        false => path.to_owned(),
    };
    let vectors = WordVectors::read(&file, None)?;
    let words = match question {
        WordQuestion::Nearest(word) => std::slice::from_ref(word),
        WordQuestion::Analogy(words) => words,
    };
    if let Some(word) = words.iter().find(|word| vectors.id(word).is_none()) {
        return Err(TrainError::NoVector {
            word: word.clone(),
            path: file,
        });
    }
    let found = match question {
        WordQuestion::Nearest(word) => nearest_words(&vectors, word, k),
        WordQuestion::Analogy([a, b, c]) => analogy(&vectors, a, b, c, k),
    };
    Ok(found.unwrap_or_default())
}
