//! What word vectors are learned from: words and the words around them.
//!
//! [`WordPairs`] makes the examples of word2vec (T. Mikolov et al., "Distributed Representations of Words and Phrases and their
//! Compositionality", arXiv 1310.4546):
//!
//! - Frequent words are passed over at random. Of a word with the share `f` of all words, a share
//!   `min(1, (sqrt(f / t) + 1) t / f)` is kept, as the program of the authors does (the paper has `sqrt(t / f)`). Words that
//!   are passed over are gone before windows are laid, so that windows reach further.
//! - The window around a word has `b` words on each side, `b` uniform in `1..=window`, and never leaves its sentence.
//! - Beside each true word, `negatives` words are drawn with probabilities in proportion to `count^0.75`; one that is the
//!   true word is drawn again.
//!
//! With [`Objective::SkipGram`] each word predicts each word around it, one example a pair; with [`Objective::Cbow`] the words
//! around a word predict it together. Everything that is drawn is a function of the seed, the epoch and the position in the
//! corpus, so batches may be made in any order, by any number of threads, and again after a run was interrupted.
//!
//! [`nearest_words`], [`analogy`] and [`WordSimilarity`] say what vectors have learned.

use crate::order::below;

mod error;
mod evaluate;
mod sample;
mod similarity;
#[cfg(test)]
mod tests;

pub use error::WordPairError;
pub use evaluate::{Neighbour, analogy, nearest_words};
pub use similarity::{Agreement, WordSimilarity};

use sample::{Draws, Negatives};

/// Sentences as ids of words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WordCorpus {
    ids: Vec<u32>,
    /// Where sentences end.
    ends: Vec<usize>,
}

impl WordCorpus {
    /// Appends a sentence. Words that are not in the vocabulary are to be left out, as word2vec does.
    pub fn push(&mut self, sentence: impl IntoIterator<Item = u32>) {
        let before = self.ids.len();
        self.ids.extend(sentence);
        if self.ids.len() > before {
            self.ends.push(self.ids.len());
        }
    }

    /// The words of all sentences.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns whether there are no words.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// How often each of `n_words` words occurs.
    ///
    /// # Errors
    ///
    /// [`WordPairError::UnknownId`].
    pub fn counts(&self, n_words: usize) -> Result<Vec<u64>, WordPairError> {
        let mut counts = vec![0; n_words];
        for &id in &self.ids {
            let count = counts.get_mut(id as usize);
            *count.ok_or(WordPairError::UnknownId { id, n_words })? += 1;
        }
        Ok(counts)
    }

    /// The sentence that a position is in.
    fn sentence(&self, position: usize) -> std::ops::Range<usize> {
        let after = self.ends.partition_point(|&end| end <= position);
        let begin = match after {
            0 => 0,
            after => self.ends[after - 1],
        };
        begin..self.ends.get(after).copied().unwrap_or(begin)
    }
}

/// What predicts what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// A word predicts each word around it.
    SkipGram,
    /// The words around a word predict it together.
    Cbow,
}

/// How examples are made.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WordPairOptions {
    /// What predicts what.
    pub objective: Objective,
    /// The most words on each side of a word.
    pub window: usize,
    /// Words that are drawn for each true one.
    pub negatives: usize,
    /// The share `t` of all words above which a word is passed over at times, such as 1e-5 for large corpora; 0 keeps all.
    pub subsample: f64,
    /// Chooses what is random.
    pub seed: u64,
}

impl Default for WordPairOptions {
    /// Skip-gram, a window of 5, 5 negatives, every word kept.
    fn default() -> Self {
        Self {
            objective: Objective::SkipGram,
            window: 5,
            negatives: 5,
            subsample: 0.0,
            seed: 0,
        }
    }
}

/// Examples side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordBatch {
    /// The words that predict, of one example after the other.
    pub inputs: Vec<u32>,
    /// Where the inputs of each example begin, and where the last one's end: `[0, n1, n1 + n2, ...]`.
    pub bounds: Vec<usize>,
    /// The word to be predicted of each example.
    pub targets: Vec<u32>,
    /// Drawn words, `[examples, negatives]`; none is its target.
    pub negatives: Vec<u32>,
}

/// The examples of a corpus.
#[derive(Debug, Clone)]
pub struct WordPairs {
    corpus: WordCorpus,
    options: WordPairOptions,
    /// Of each word, the probability of being kept.
    kept: Vec<f64>,
    negatives: Negatives,
}

impl WordPairs {
    /// Prepares the examples of a corpus over `n_words` words.
    ///
    /// # Errors
    ///
    /// [`WordPairError`]: the corpus is empty or has an id that is none, or an option is out of its range.
    pub fn new(
        corpus: WordCorpus,
        n_words: usize,
        options: &WordPairOptions,
    ) -> Result<Self, WordPairError> {
        let WordPairOptions {
            window,
            negatives,
            subsample,
            ..
        } = *options;
        if window == 0 {
            return Err(WordPairError::Window);
        }
        if !(0.0..=1.0).contains(&subsample) {
            return Err(WordPairError::Subsample { found: subsample });
        }
        let counts = corpus.counts(n_words)?;
        if corpus.is_empty() {
            return Err(WordPairError::Empty);
        }
        // Of one word that occurs, no other could be drawn.
        if negatives > 0 && counts.iter().filter(|count| **count > 0).count() < 2 {
            return Err(WordPairError::OneWord);
        }
        let total = corpus.len() as f64;
        let kept = counts.iter().map(|&count| match (subsample, count) {
            (0.0, _) | (_, 0) => 1.0,
            (t, count) => {
                let ratio = t * total / count as f64;
                ratio.sqrt() + ratio
            }
        });
        Ok(Self {
            kept: kept.collect(),
            corpus,
            negatives: Negatives::new(&counts),
            options: options.clone(),
        })
    }

    /// The positions of an epoch: the words of the corpus, those that will be passed over included.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.corpus.len()
    }

    /// The examples of some positions in an epoch, in their order. A position whose word is passed over, that is alone in its
    /// sentence or lies behind the corpus has none.
    #[must_use]
    pub fn batch(&self, epoch: u64, positions: impl IntoIterator<Item = usize>) -> WordBatch {
        let mut batch = WordBatch {
            inputs: Vec::new(),
            bounds: vec![0],
            targets: Vec::new(),
            negatives: Vec::new(),
        };
        let mut draws = Draws::new(self.options.seed, epoch);
        for position in positions {
            self.examples(&mut draws, position, &mut batch);
        }
        batch
    }

    fn examples(&self, draws: &mut Draws, position: usize, batch: &mut WordBatch) {
        if position >= self.corpus.len() || !self.is_kept(draws, position) {
            return;
        }
        let word = self.corpus.ids[position];
        let reach = 1 + below(draws.window(position), self.options.window as u64) as usize;
        let around = self.around(draws, position, reach);
        // Behind the draw of the window.
        draws.negatives(position);
        match self.options.objective {
            Objective::SkipGram => {
                for other in around {
                    self.example(draws, &[word], other, batch);
                }
            }
            Objective::Cbow if around.is_empty() => {}
            Objective::Cbow => self.example(draws, &around, word, batch),
        }
    }

    fn example(&self, draws: &mut Draws, inputs: &[u32], target: u32, batch: &mut WordBatch) {
        batch.inputs.extend_from_slice(inputs);
        batch.bounds.push(batch.inputs.len());
        batch.targets.push(target);
        for _ in 0..self.options.negatives {
            let drawn = self.negatives.draw(draws.next(), target);
            batch.negatives.push(drawn);
        }
    }

    /// The words that are kept within reach on both sides, from the left to the right.
    fn around(&self, draws: &mut Draws, position: usize, reach: usize) -> Vec<u32> {
        let sentence = self.corpus.sentence(position);
        let mut kept = |positions: &mut dyn Iterator<Item = usize>| -> Vec<u32> {
            let mut words = Vec::with_capacity(reach.min(sentence.len()));
            for other in positions {
                if self.is_kept(draws, other) {
                    words.push(self.corpus.ids[other]);
                    if words.len() == reach {
                        break;
                    }
                }
            }
            words
        };
        let mut words = kept(&mut (sentence.start..position).rev());
        words.reverse();
        words.extend(kept(&mut (position + 1..sentence.end)));
        words
    }

    fn is_kept(&self, draws: &mut Draws, position: usize) -> bool {
        let probability = self.kept[self.corpus.ids[position] as usize];
        probability >= 1.0 || draws.uniform(position) < probability
    }
}
