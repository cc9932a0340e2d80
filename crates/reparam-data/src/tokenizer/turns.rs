//! Encoding what a chat template has written.

use super::{TextTokenizer, encode_error, guarded};
use crate::error::Result;
use crate::pack::EncodedDocument;
use crate::source::LearnedTurns;

impl TextTokenizer {
    /// Encodes the text of a conversation, and masks all but the turns that are learned.
    ///
    /// As in transformers, a turn has the tokens from that of its first byte to that of its last. Where the template does not
    /// mark turns, the white space between the token that ends a turn and the next message is not learned.
    pub(super) fn encode_turns(&self, text: &str, turns: &LearnedTurns) -> Result<EncodedDocument> {
        self.check_white_space(text)?;
        // The other way to encode keeps no offsets.
        let encoding = guarded(|| self.inner.encode(text, false)).map_err(encode_error)?;
        let (ids, offsets) = (encoding.get_ids(), encoding.get_offsets());
        self.check_rows(ids)?;
        let mut mask = vec![false; ids.len()];
        for part in &turns.parts {
            let first = offsets.partition_point(|(_, end)| *end <= part.start);
            let mut behind = offsets.partition_point(|(begin, _)| *begin < part.end);
            if !turns.marked {
                let is_blank = |token: usize| {
                    let (begin, end) = offsets[token];
                    text.get(begin..end)
                        .is_some_and(|text| text.trim().is_empty())
                };
                let mut end = behind;
                while end > first + 1 && is_blank(end - 1) {
                    end -= 1;
                }
                if end > first && self.is_special(ids[end - 1]) {
                    behind = end;
                }
            }
            mask[first.min(behind)..behind].fill(true);
        }
        Ok(EncodedDocument {
            ids: ids.to_vec(),
            loss_mask: Some(mask),
        })
    }

    /// Returns whether a token stands for no text.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        let added = self.inner.get_added_vocabulary();
        let token = added.simple_id_to_token(id);
        token.is_some_and(|token| added.is_special_token(&token))
    }
}
