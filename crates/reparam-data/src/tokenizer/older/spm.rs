//! Reading a model of SentencePiece.

use std::collections::HashMap;

use prost::Message;

/// What a `.model` file holds, as far as a tokenizer needs it: a part of SentencePiece's `sentencepiece_model.proto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SpmModel {
    #[prost(message, repeated, tag = "1")]
    pub(super) pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalizer>,
}

/// A token.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Piece {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Trainer {
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Normalizer {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
}

/// How a text is divided into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// The most probable division.
    Unigram,
    /// The best pair first.
    Bpe,
}

impl Algorithm {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unigram => "Unigram",
            Self::Bpe => "BPE",
        }
    }
}

impl Piece {
    const CONTROL: i32 = 3;
    const USER_DEFINED: i32 = 4;

    /// Whether it stands for something that no text has, such as the end of one.
    pub(super) fn is_control(&self) -> bool {
        self.kind == Some(Self::CONTROL)
    }

    /// Whether it is found in a text before the text is divided.
    pub(super) fn is_added(&self) -> bool {
        self.is_control() || self.kind == Some(Self::USER_DEFINED)
    }
}

impl SpmModel {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// Says why the bytes are none, or that the kind of the model is unknown.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, Algorithm), String> {
        let model = Self::decode(bytes)
            .map_err(|error| format!("it is no model of SentencePiece: {error}"))?;
        if model.pieces.is_empty() {
            return Err("it is no model of SentencePiece: it has no pieces".to_owned());
        }
        let kind = model
            .trainer
            .as_ref()
            .and_then(|trainer| trainer.model_type);
        let algorithm = match kind.unwrap_or(1) {
            1 => Algorithm::Unigram,
            2 => Algorithm::Bpe,
            3 => return Err("it has whole words as tokens, which is not supported".to_owned()),
            4 => return Err("it has characters as tokens, which is not supported".to_owned()),
            other => return Err(format!("its model_type is {other}, which is unknown")),
        };
        Ok((model, algorithm))
    }

    /// The table by which characters are normalized, if there is one.
    pub(super) fn charsmap(&self) -> Option<&[u8]> {
        let normalizer = self.normalizer.as_ref()?;
        let table = normalizer.precompiled_charsmap.as_deref()?;
        (!table.is_empty()).then_some(table)
    }

    /// The merges that make the pieces, which the file does not hold: each pair of pieces that is a piece together, by the scores of what
    /// they make from the largest down, as SentencePiece merges them and transformers 4 wrote them. (transformers 5 goes by the
    /// numbers of the pieces, which differs for Llama 2's runs of spaces.)
    ///
    /// # Cost
    ///
    /// A lookup for each place in each piece.
    pub(super) fn merges(&self) -> Vec<[&str; 2]> {
        let ids: HashMap<&str, usize> = self
            .pieces
            .iter()
            .enumerate()
            .map(|(id, piece)| (piece.piece(), id))
            .collect();
        let pairs = self.pieces.iter().enumerate().flat_map(|(id, piece)| {
            let text = piece.piece();
            // Of two pieces with one text the later one counts.
            let is_last = ids.get(text) == Some(&id);
            let places = text.char_indices().skip(1).filter(move |_| is_last);
            let score = piece.score();
            places.map(move |(at, _)| (score, <[&str; 2]>::from(text.split_at(at))))
        });
        let mut merges: Vec<(f32, [&str; 2])> = pairs
            .filter(|(_, [left, right])| ids.contains_key(left) && ids.contains_key(right))
            .collect();
        // Of equal scores the longer left part comes first.
        let length = |text: &str| text.chars().count();
        merges.sort_by(|(a, a_parts), (b, b_parts)| {
            let lengths = |parts: &[&str; 2]| parts.map(length);
            let by_length = lengths(b_parts).cmp(&lengths(a_parts));
            b.total_cmp(a).then(by_length)
        });
        merges.into_iter().map(|(_, parts)| parts).collect()
    }
}

#[cfg(test)]
impl SpmModel {
    /// Gives it a table of characters whose trie is longer than the table.
    pub(super) fn damage_charsmap(&mut self) {
        self.normalizer = Some(Normalizer {
            precompiled_charsmap: Some(vec![0xff; 8]),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(pieces: &[&str]) -> SpmModel {
        SpmModel {
            pieces: pieces
                .iter()
                .enumerate()
                .map(|(at, text)| Piece {
                    piece: Some((*text).to_owned()),
                    score: Some(-(at as f32)),
                    kind: None,
                })
                .collect(),
            trainer: Some(Trainer {
                model_type: Some(2),
            }),
            normalizer: None,
        }
    }

    #[test]
    fn merges_are_all_pairs_that_are_a_piece_by_its_score() {
        let mut model = model(&["<unk>", "a", "b", "é", "ab", "abé", "bé", "aa"]);
        let expected = [["a", "b"], ["ab", "é"], ["a", "bé"], ["b", "é"], ["a", "a"]];
        assert_eq!(model.merges(), expected);
        model.pieces[7].score = Some(0.0);
        assert_eq!(model.merges()[0], ["a", "a"]);
    }

    #[test]
    fn what_is_no_model_is_refused() {
        for (bytes, expected) in [
            (&b"{\"version\": 1}"[..], "no model of SentencePiece"),
            (b"", "no pieces"),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], "no model"),
        ] {
            let error = SpmModel::read(bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        for (kind, expected) in [(3, "words"), (4, "characters"), (9, "9")] {
            let mut model = model(&["a"]);
            model.trainer = Some(Trainer {
                model_type: Some(kind),
            });
            let error = SpmModel::read(&model.encode_to_vec()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
