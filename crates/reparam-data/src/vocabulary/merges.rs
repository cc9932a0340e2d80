//! Merging the most frequent pairs: BPE, and WordPiece's parts.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};

use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::files::Model;
use super::options::{TokenizerKind, TokenizerOptions};
use super::symbols::alphabet;
use super::words::Counts;

/// What stands before a part that does not begin its word.
pub(super) const CONTINUES: &str = "##";

type Pair = (u32, u32);

/// A word as tokens.
struct Word {
    tokens: Vec<u32>,
    count: u64,
}

/// Where a pair stands.
#[derive(Default)]
struct Place {
    count: u64,
    /// Indices of words that have it, or had it.
    words: HashSet<u32>,
}

/// The state of a training.
struct Merging {
    /// Whether tokens are bytes, and none has [`CONTINUES`] before it.
    is_bytes: bool,
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
    words: Vec<Word>,
    pairs: HashMap<Pair, Place>,
    /// Every count that a pair has had; all but the last are passed over. Of equal counts the pair of the lower ids comes first.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

/// Merges pairs until there are `room` tokens, or no pair occurs often enough; gives also the number of characters without a
/// token.
pub(super) fn train(counts: &Counts, room: usize, options: &TokenizerOptions) -> (Model, usize) {
    let is_bytes = options.kind == TokenizerKind::Bpe;
    let (symbols, left_out) = match is_bytes {
        true => (bytes(), 0),
        false => {
            let (symbols, left_out) =
                alphabet(counts, room, |character, is_first| (!is_first, character));
            (
                symbols.into_iter().map(|(symbol, _)| symbol).collect(),
                left_out,
            )
        }
    };
    let mut merging = Merging::new(&symbols, counts, is_bytes);
    let merges = merging.run(room, options.min_count.max(1));
    let tokens = merging.tokens;
    let model = match is_bytes {
        true => Model::Merges { tokens, merges },
        false => Model::Parts(tokens),
    };
    (model, left_out)
}

/// All bytes, by the characters that stand for them.
fn bytes() -> Vec<(bool, char)> {
    let characters: BTreeSet<char> = ByteLevel::alphabet().into_iter().collect();
    characters.into_iter().map(|c| (false, c)).collect()
}

impl Merging {
    fn new(symbols: &[(bool, char)], counts: &Counts, is_bytes: bool) -> Self {
        let text = |&(continues, character): &(bool, char)| match continues {
            true => format!("{CONTINUES}{character}"),
            false => character.to_string(),
        };
        let tokens: Vec<String> = symbols.iter().map(text).collect();
        let numbered = symbols.iter().copied().zip(0..);
        let numbers: HashMap<(bool, char), u32> = numbered.collect();
        // A word with a character that has no token is `[UNK]` as a whole, so its pairs are not counted.
        let words = counts.iter().filter_map(|(word, count)| {
            let symbols = word.chars().enumerate();
            let ids = symbols.map(|(at, c)| numbers.get(&(at > 0 && !is_bytes, c)).copied());
            Some(Word {
                tokens: ids.collect::<Option<_>>()?,
                count: *count,
            })
        });
        let mut merging = Self {
            is_bytes,
            ids: tokens.iter().cloned().zip(0..).collect(),
            words: words.collect(),
            tokens,
            pairs: HashMap::new(),
            queue: BinaryHeap::new(),
        };
        for (index, word) in (0..).zip(&merging.words) {
            for pair in word.tokens.windows(2) {
                let place = merging.pairs.entry((pair[0], pair[1])).or_default();
                place.count += word.count;
                place.words.insert(index);
            }
        }
        let counted = merging.pairs.iter();
        merging.queue = counted
            .map(|(pair, place)| (place.count, Reverse(*pair)))
            .collect();
        merging
    }

    fn run(&mut self, room: usize, min_count: u64) -> Vec<Pair> {
        let mut merges = Vec::new();
        let mut done = HashSet::new();
        while self.tokens.len() < room {
            let Some((count, Reverse(pair))) = self.queue.pop() else {
                break;
            };
            if self
                .pairs
                .get(&pair)
                .is_none_or(|place| place.count != count)
            {
                continue;
            }
            if count < min_count {
                break;
            }
            let id = self.token(pair);
            // Two tokens that were merged stand beside each other again where another merge has made one of them.
            if done.insert(pair) {
                merges.push(pair);
            }
            self.merge(pair, id);
        }
        merges
    }

    /// The token of a pair, which other pairs may have made before.
    fn token(&mut self, (first, second): Pair) -> u32 {
        let mut second = self.tokens[second as usize].as_str();
        if !self.is_bytes {
            second = second.strip_prefix(CONTINUES).unwrap_or(second);
        }
        let text = format!("{}{second}", self.tokens[first as usize]);
        let next = self.tokens.len() as u32;
        *self.ids.entry(text).or_insert_with_key(|text| {
            self.tokens.push(text.clone());
            next
        })
    }

    fn merge(&mut self, pair: Pair, id: u32) {
        let Some(place) = self.pairs.remove(&pair) else {
            return;
        };
        let mut touched = HashSet::new();
        for index in place.words {
            let word = &mut self.words[index as usize];
            let merged = merged(&word.tokens, pair, id);
            if merged.len() == word.tokens.len() {
                continue;
            }
            let before = std::mem::replace(&mut word.tokens, merged);
            for old in before.windows(2).map(|two| (two[0], two[1])) {
                // The merged pair is gone as a whole.
                if let Some(place) = self.pairs.get_mut(&old) {
                    place.count -= word.count;
                    touched.insert(old);
                }
            }
            for new in word.tokens.windows(2).map(|two| (two[0], two[1])) {
                let place = self.pairs.entry(new).or_default();
                place.count += word.count;
                place.words.insert(index);
                touched.insert(new);
            }
        }
        for pair in touched {
            match self.pairs.get(&pair) {
                Some(place) if place.count > 0 => self.queue.push((place.count, Reverse(pair))),
                _ => {
                    self.pairs.remove(&pair);
                }
            }
        }
    }
}

/// Tokens with each occurrence of a pair, from the left, replaced by `id`.
fn merged(tokens: &[u32], pair: Pair, id: u32) -> Vec<u32> {
    let mut merged = Vec::with_capacity(tokens.len());
    let mut rest = tokens;
    while let [first, others @ ..] = rest {
        rest = others;
        if *first == pair.0 && others.first() == Some(&pair.1) {
            merged.push(id);
            rest = &others[1..];
        } else {
            merged.push(*first);
        }
    }
    merged
}
