//! The parts that are missed least.

use rayon::prelude::*;

use super::lattice::Parts;
use super::{Scored, Word, is_character};

/// How many parts a pruning keeps.
const KEPT: f64 = 0.75;

/// Keeps three quarters of the parts, or as many as are wanted: characters, and those without which the likelihood of the
/// words falls most.
///
/// What is lost is estimated as SentencePiece does: without part `i`, which the most likely segmentations use `n_i` times of
/// `N`, its own second best segmentation `A` stands in its place, so that
///
/// ```text
/// loss_i = n_i / words * (ln(n_i / N) - sum over a in A of ln((n_a + n_i) / (N + n_i (|A| - 1))))
/// ```
pub(super) fn pruned(parts: Vec<Scored>, words: &[Word<'_>], wanted: usize) -> Vec<Scored> {
    let lookup = Parts::of(&parts);
    let used = lookup.used(words);
    let total: f64 = used.iter().sum();
    let n_words: f64 = words.iter().map(|(_, count)| count).sum();
    let losses: Vec<f64> = (0..parts.len() as u32)
        .into_par_iter()
        .map(|id| {
            let (part, n) = (&parts[id as usize].0, used[id as usize]);
            if is_character(part) {
                return f64::INFINITY;
            }
            // No best segmentation has it.
            if n == 0.0 {
                return f64::NEG_INFINITY;
            }
            let instead = lookup.best(part, Some(id));
            let ln_total = (total + n * (instead.len() as f64 - 1.0)).ln();
            let ln_instead = |id: u32| (used[id as usize] + n).ln() - ln_total;
            let sum: f64 = instead.into_iter().map(ln_instead).sum();
            n / n_words * (n.ln() - total.ln() - sum)
        })
        .collect();
    let keep = wanted.max((parts.len() as f64 * KEPT) as usize);
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.retain(|&index| losses[index] > f64::NEG_INFINITY);
    order.sort_by(|&a, &b| {
        let by_loss = losses[b].total_cmp(&losses[a]);
        by_loss.then_with(|| parts[a].0.cmp(&parts[b].0))
    });
    let n_characters = order
        .iter()
        .take_while(|&&index| losses[index].is_infinite())
        .count();
    order.truncate(keep.max(n_characters));
    // Their order stays: it is the order in which sums run.
    order.sort_unstable();
    let mut parts: Vec<Option<Scored>> = parts.into_iter().map(Some).collect();
    let kept = order.into_iter().filter_map(|index| parts[index].take());
    kept.collect()
}
