//! How well anchors find what is like them.

use std::collections::HashMap;

use super::pairs::{Pair, PairRow};

#[cfg(test)]
mod tests;

/// The depths at which recall is measured.
pub const RECALL_AT: [usize; 3] = [1, 5, 10];

/// What [`RetrievalScorer`] measures, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetrievalMetrics {
    /// For each of [`RECALL_AT`], the share of an anchor's positives that are among so many first candidates, in the mean over
    /// anchors.
    pub recall: [f64; RECALL_AT.len()],
    /// The mean over anchors of one divided by the rank of the first positive.
    pub mrr: f64,
    /// Anchors.
    pub anchors: usize,
}

/// The texts of anchors and candidates, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retrieval<'a> {
    /// The anchors, in the order in which they first occur.
    pub anchors: Vec<&'a str>,
    /// The positives of all rows, in the order in which they first occur. Every anchor is compared with all of them.
    pub candidates: Vec<&'a str>,
    /// Which candidates are an anchor's positives, ascending.
    pub positives: Vec<Vec<usize>>,
}

impl<'a> Retrieval<'a> {
    /// Collects anchors and candidates of rows. The same anchor in several rows has all of their positives, for to find one of
    /// them is no mistake. Rows with a score are left out.
    #[must_use]
    pub fn of(rows: impl IntoIterator<Item = &'a PairRow>) -> Self {
        let (mut anchors, mut candidates) = (Texts::default(), Texts::default());
        let mut positives: Vec<Vec<usize>> = Vec::new();
        for row in rows {
            let Pair::Ranked {
                anchor, positive, ..
            } = &row.pair
            else {
                continue;
            };
            let (anchor, positive) = (anchors.index(anchor), candidates.index(positive));
            if anchor == positives.len() {
                positives.push(Vec::new());
            }
            let of_anchor = &mut positives[anchor];
            if let Err(at) = of_anchor.binary_search(&positive) {
                of_anchor.insert(at, positive);
            }
        }
        Self {
            anchors: anchors.texts,
            candidates: candidates.texts,
            positives,
        }
    }
}

/// Different texts in the order in which they first occur.
#[derive(Default)]
struct Texts<'a> {
    texts: Vec<&'a str>,
    indices: HashMap<&'a str, usize>,
}

impl<'a> Texts<'a> {
    fn index(&mut self, text: &'a str) -> usize {
        *self.indices.entry(text).or_insert_with(|| {
            self.texts.push(text);
            self.texts.len() - 1
        })
    }
}

/// How an anchor finds what is like it, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnchorScore {
    /// For each of [`RECALL_AT`], the share of its positives that are among so many first candidates.
    pub recall: [f64; RECALL_AT.len()],
    /// One divided by the rank of the first positive.
    pub reciprocal: f64,
}

/// Ranks candidates anchor by anchor.
#[derive(Debug, Clone, Default)]
pub struct RetrievalScorer {
    recall: [f64; RECALL_AT.len()],
    reciprocal: f64,
    anchors: usize,
}

impl RetrievalScorer {
    /// Starts with no anchors.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an anchor: how like it each candidate is, and which of them are its positives. Candidates are ranked by similarity,
    /// the largest first; of equals, positives are the last, so that one number for all finds nothing.
    ///
    /// # Panics
    ///
    /// If there are no positives, or one is outside.
    pub fn add(&mut self, similarities: &[f64], positives: &[usize]) {
        self.count(&Self::measure(similarities, positives));
    }

    /// Adds an anchor by what [`measure`](Self::measure) says of it.
    pub fn count(&mut self, score: &AnchorScore) {
        for (sum, recall) in self.recall.iter_mut().zip(score.recall) {
            *sum += recall;
        }
        self.reciprocal += score.reciprocal;
        self.anchors += 1;
    }

    /// Returns how an anchor finds what is like it: see [`add`](Self::add).
    ///
    /// # Panics
    ///
    /// As there.
    #[must_use]
    pub fn measure(similarities: &[f64], positives: &[usize]) -> AnchorScore {
        assert!(!positives.is_empty(), "an anchor has a positive");
        let mut found: Vec<f64> = positives.iter().map(|at| similarities[*at]).collect();
        found.sort_by(|a, b| b.total_cmp(a));
        let others = similarities.iter().enumerate();
        let others = others.filter(|(at, _)| !positives.contains(at));
        let others: Vec<f64> = others.map(|(_, similarity)| *similarity).collect();
        let ranks: Vec<usize> = (1..)
            .zip(&found)
            .map(|(rank, positive)| {
                // Written so that what is not a number is in front of everything.
                let behind = others.iter().filter(|other| **other < *positive).count();
                rank + others.len() - behind
            })
            .collect();
        let within = |depth| ranks.iter().filter(|rank| **rank <= depth).count();
        AnchorScore {
            recall: RECALL_AT.map(|depth| within(depth) as f64 / ranks.len() as f64),
            reciprocal: 1.0 / ranks[0] as f64,
        }
    }

    /// Returns the measures, or `None` without anchors.
    #[must_use]
    pub fn finish(&self) -> Option<RetrievalMetrics> {
        let anchors = self.anchors as f64;
        (self.anchors > 0).then(|| RetrievalMetrics {
            recall: self.recall.map(|recall| recall / anchors),
            mrr: self.reciprocal / anchors,
            anchors: self.anchors,
        })
    }
}
