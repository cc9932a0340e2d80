//! How far vectors agree with people.

use std::path::Path;

use reparam_formats::file::read_text;
use reparam_formats::word_vectors::WordVectors;

use super::error::WordPairError;
use super::evaluate::cosine;
use crate::rows::spearman;

/// Pairs of words with the similarity that people gave them, as WordSim353 and SimLex-999.
#[derive(Debug, Clone, PartialEq)]
pub struct WordSimilarity {
    pairs: Vec<(String, String, f64)>,
}

/// How far vectors agree with such a list.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Agreement {
    /// Spearman's rank correlation between the scores and the cosines of the pairs that have vectors; `None` where there are
    /// fewer than two, or all are alike.
    pub spearman: Option<f64>,
    /// Pairs whose words both have vectors.
    pub pairs: usize,
    /// The other pairs, which do not count.
    pub missing: usize,
}

impl WordSimilarity {
    /// Reads a file: a line a pair, two words and a score with tabs, commas or spaces between them; `#` begins a comment. A
    /// first line that names the columns is passed over.
    ///
    /// # Errors
    ///
    /// [`WordPairError::File`], [`WordPairError::Line`], [`WordPairError::NoPairs`].
    pub fn read(path: &Path) -> Result<Self, WordPairError> {
        let text = read_text(path)?;
        let mut pairs = Vec::new();
        let mut is_first = true;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let may_be_header = std::mem::take(&mut is_first);
            match pair(line) {
                Some(pair) => pairs.push(pair),
                None if may_be_header && !has_number(line) => {}
                None => {
                    return Err(WordPairError::Line {
                        path: path.to_path_buf(),
                        line: index + 1,
                        found: line.chars().take(200).collect(),
                    });
                }
            }
        }
        if pairs.is_empty() {
            return Err(WordPairError::NoPairs {
                path: path.to_path_buf(),
            });
        }
        Ok(Self { pairs })
    }

    /// The pairs and their scores.
    #[must_use]
    pub fn pairs(&self) -> &[(String, String, f64)] {
        &self.pairs
    }

    /// Compares vectors with the list. Words are looked up as they are written, else in lower case.
    #[must_use]
    pub fn evaluate(&self, vectors: &WordVectors) -> Agreement {
        let vector = |word: &str| {
            let exact = vectors.vector(word);
            exact.or_else(|| vectors.vector(&word.to_lowercase()))
        };
        let known = self.pairs.iter().filter_map(|(first, second, score)| {
            let first: Vec<f64> = vector(first)?.iter().map(|x| f64::from(*x)).collect();
            Some((*score, cosine(&first, vector(second)?)))
        });
        let (scores, cosines): (Vec<f64>, Vec<f64>) = known.unzip();
        Agreement {
            spearman: spearman(&scores, &cosines),
            pairs: scores.len(),
            missing: self.pairs.len() - scores.len(),
        }
    }
}

/// Whether a line is no heading. `Word 1` is one.
fn has_number(line: &str) -> bool {
    let mut fields = fields(line).into_iter();
    fields.any(|field| field.parse::<f64>().is_ok())
}

/// What stands between tabs, commas or semicolons, else between white space.
fn fields(line: &str) -> Vec<&str> {
    let delimiter = ['\t', ',', ';'].into_iter().find(|c| line.contains(*c));
    match delimiter {
        Some(delimiter) => line.split(delimiter).map(str::trim).collect(),
        None => line.split_whitespace().collect(),
    }
}

/// Two words, and the first finite number behind them.
fn pair(line: &str) -> Option<(String, String, f64)> {
    let [first, second, ref rest @ ..] = fields(line)[..] else {
        return None;
    };
    // SimLex-999 has the part of speech before it.
    let mut numbers = rest.iter().filter_map(|field| field.parse().ok());
    let score = numbers.find(|number: &f64| number.is_finite())?;
    let is_pair = !first.is_empty() && !second.is_empty();
    is_pair.then(|| (first.to_owned(), second.to_owned(), score))
}
