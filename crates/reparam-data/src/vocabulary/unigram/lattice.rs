//! All segmentations of a word.

use std::collections::HashMap;

use rayon::prelude::*;

use super::{LONGEST, Scored, Word};

/// Words whose segmentations are in memory at once.
const AT_ONCE: usize = 1 << 12;

/// Parts by what they say.
pub(super) struct Parts<'a> {
    ids: HashMap<&'a str, u32>,
    scores: Vec<f64>,
}

/// A part at a place of a word; places are counted in characters.
struct Edge {
    begin: usize,
    end: usize,
    id: u32,
}

impl<'a> Parts<'a> {
    pub(super) fn of(parts: &'a [Scored]) -> Self {
        Self {
            ids: parts
                .iter()
                .map(|(part, _)| part.as_str())
                .zip(0..)
                .collect(),
            scores: parts.iter().map(|(_, score)| *score).collect(),
        }
    }

    /// How often each part is expected in the words.
    pub(super) fn expected(&self, words: &[Word<'_>]) -> Vec<f64> {
        self.summed(words, |word, count| self.marginals(word, count))
    }

    /// How often each part is in the most likely segmentations of the words.
    pub(super) fn used(&self, words: &[Word<'_>]) -> Vec<f64> {
        self.summed(words, |word, count| {
            let best = self.best(word, None);
            best.into_iter().map(|id| (id, count)).collect()
        })
    }

    /// Sums what words give to parts. Words are looked at in parallel and added up in their order, so that rounding does not
    /// depend on the threads.
    fn summed(
        &self,
        words: &[Word<'_>],
        of_word: impl Fn(&str, f64) -> Vec<(u32, f64)> + Sync,
    ) -> Vec<f64> {
        let mut sums = vec![0.0; self.scores.len()];
        for words in words.chunks(AT_ONCE) {
            let lists: Vec<Vec<(u32, f64)>> = words
                .par_iter()
                .map(|(word, count)| of_word(word, *count))
                .collect();
            for (id, value) in lists.into_iter().flatten() {
                sums[id as usize] += value;
            }
        }
        sums
    }

    /// The most likely segmentation; `without` one part.
    pub(super) fn best(&self, word: &str, without: Option<u32>) -> Vec<u32> {
        let (edges, length) = self.edges(word);
        // The score of the best way to each place, and its last edge.
        let mut best: Vec<(f64, Option<usize>)> = vec![(f64::NEG_INFINITY, None); length + 1];
        best[0].0 = 0.0;
        for (index, edge) in edges.iter().enumerate() {
            if without == Some(edge.id) {
                continue;
            }
            let score = best[edge.begin].0 + self.scores[edge.id as usize];
            if score > best[edge.end].0 {
                best[edge.end] = (score, Some(index));
            }
        }
        let mut ids = Vec::new();
        let mut at = length;
        while let (_, Some(index)) = best[at] {
            ids.push(edges[index].id);
            at = edges[index].begin;
        }
        ids.reverse();
        ids
    }

    /// How often each part of a word is expected in it, times `count`: forward and backward sums over all segmentations.
    fn marginals(&self, word: &str, count: f64) -> Vec<(u32, f64)> {
        let (edges, length) = self.edges(word);
        let mut forward = vec![f64::NEG_INFINITY; length + 1];
        let mut backward = forward.clone();
        forward[0] = 0.0;
        backward[length] = 0.0;
        // Edges are in the order of where they begin, so each place is complete before it is gone on from.
        for edge in &edges {
            let way = forward[edge.begin] + self.scores[edge.id as usize];
            forward[edge.end] = log_add(forward[edge.end], way);
        }
        for edge in edges.iter().rev() {
            let way = backward[edge.end] + self.scores[edge.id as usize];
            backward[edge.begin] = log_add(backward[edge.begin], way);
        }
        let total = forward[length];
        let share = |edge: &Edge| {
            let score = self.scores[edge.id as usize];
            (forward[edge.begin] + score + backward[edge.end] - total).exp()
        };
        let shares = edges.iter().map(|edge| (edge.id, share(edge) * count));
        shares.collect()
    }

    /// Every part at every place, in the order of where they begin; and the number of characters.
    fn edges(&self, word: &str) -> (Vec<Edge>, usize) {
        let mut places: Vec<usize> = word.char_indices().map(|(at, _)| at).collect();
        let length = places.len();
        places.push(word.len());
        let mut edges = Vec::with_capacity(2 * length);
        for begin in 0..length {
            for end in begin + 1..=length.min(begin + LONGEST) {
                if let Some(&id) = self.ids.get(&word[places[begin]..places[end]]) {
                    edges.push(Edge { begin, end, id });
                }
            }
        }
        (edges, length)
    }
}

/// `ln(exp(a) + exp(b))`.
fn log_add(a: f64, b: f64) -> f64 {
    let (most, least) = if a > b { (a, b) } else { (b, a) };
    match least {
        f64::NEG_INFINITY => most,
        least => most + (least - most).exp().ln_1p(),
    }
}
