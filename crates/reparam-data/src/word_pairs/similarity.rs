//! How far vectors agree with people.

use std::path::Path;

use reparam_formats::file::read_text;
use reparam_formats::word_vectors::WordVectors;

use super::error::WordPairError;
use super::evaluate::cosine;

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
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match pair(line) {
                Some(pair) => pairs.push(pair),
                None if index == 0 => {}
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

/// Two words and a finite number.
fn pair(line: &str) -> Option<(String, String, f64)> {
    let delimiter = ['\t', ',', ';'].into_iter().find(|c| line.contains(*c));
    let fields: Vec<&str> = match delimiter {
        Some(delimiter) => line.split(delimiter).map(str::trim).collect(),
        None => line.split_whitespace().collect(),
    };
    let [first, second, score, ..] = fields[..] else {
        return None;
    };
    let score: f64 = score.parse().ok()?;
    let is_pair = !first.is_empty() && !second.is_empty() && score.is_finite();
    is_pair.then(|| (first.to_owned(), second.to_owned(), score))
}

/// Spearman's rank correlation: Pearson's of the ranks, equals having the mean of theirs. `None` if there are fewer than two
/// numbers, not as many of both, or all of one are alike.
#[must_use]
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() || x.len() < 2 {
        return None;
    }
    let (x, y) = (ranks(x), ranks(y));
    // The mean of the ranks, whichever are equal.
    let mean = (x.len() as f64 + 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum()
    };
    let lengths = (product(&x, &x) * product(&y, &y)).sqrt();
    (lengths > 0.0).then(|| product(&x, &y) / lengths)
}

/// Ranks from 1.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut begin = 0;
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        // The mean of begin + 1 ..= begin + len.
        let rank = begin as f64 + (group.len() as f64 + 1.0) / 2.0;
        group.iter().for_each(|&index| ranks[index] = rank);
        begin += group.len();
    }
    ranks
}
