//! Decoding token by token.

use tokenizers::DecoderWrapper;

use super::TextTokenizer;
use crate::error::Result;

/// Decodes ids one by one to pieces of text, as they are shown while a text is generated.
///
/// The pieces are valid UTF-8, and joined, with what [`StreamDecoder::finish`] gives, they are exactly what
/// [`TextTokenizer::decode`] gives for all the ids. A token by itself has no text: the decoder of a
/// SentencePiece model strips the space before the *first* one, and a character may be spread over several tokens.
/// So a piece is held back until no later token can change it:
///
/// - an incomplete character at the end, until it is complete or cannot be completed;
/// - with byte fallback, a run of byte tokens until another token follows, because one bad byte makes the
///   whole run unreadable;
/// - with a decoder whose text can change at the end for any other reason (CTC, word suffixes, replacements
///   in the joined text), everything until the end.
///
/// # Cost
///
/// Each step decodes the few tokens since the last complete character, not the whole text.
#[derive(Debug, Clone)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a TextTokenizer,
    skip_special: bool,
    /// The ids since, and with, the piece before the last one.
    window: Vec<u32>,
    /// Where in `window` the ids begin whose text is not given out in full.
    pending: usize,
    /// How many bytes of the text of `window` are given out.
    given: usize,
}

/// How much a decoder lets one say before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamMode {
    /// The text grows at the end only. `byte_runs` says whether tokens like `<0xE2>` are joined to bytes.
    Appending {
        /// Whether there is byte fallback.
        byte_runs: bool,
    },
    /// Nothing is certain before the end.
    Buffered,
}

impl StreamMode {
    /// Tells the mode from the decoder's steps.
    pub(super) fn of(decoder: Option<&DecoderWrapper>) -> Self {
        let steps = match decoder {
            None => return Self::Appending { byte_runs: false },
            Some(DecoderWrapper::Sequence(steps)) => steps.get_decoders(),
            Some(step) => std::slice::from_ref(step),
        };
        let mut byte_runs = false;
        // Whether the tokens are joined to one text. A step before sees a token at a time, which is safe.
        let mut joined = false;
        for step in steps {
            match step {
                DecoderWrapper::Replace(_)
                | DecoderWrapper::WordPiece(_)
                | DecoderWrapper::Metaspace(_)
                    if !joined => {}
                DecoderWrapper::ByteFallback(_) if !joined => byte_runs = true,
                DecoderWrapper::ByteLevel(_) if !joined => joined = true,
                DecoderWrapper::Fuse(_) => joined = true,
                // At the start of the joined text or of every token; never at an end, as loading has checked.
                DecoderWrapper::Strip(_) => {}
                _ => return Self::Buffered,
            }
        }
        Self::Appending { byte_runs }
    }
}

impl<'a> StreamDecoder<'a> {
    pub(super) fn new(tokenizer: &'a TextTokenizer, skip_special: bool) -> Self {
        Self {
            tokenizer,
            skip_special,
            window: Vec::new(),
            pending: 0,
            given: 0,
        }
    }

    /// Takes the next id; returns the text that is certain now, if there is any.
    ///
    /// # Errors
    ///
    /// [`DataError::Decode`](crate::DataError::Decode) if the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        // What is not shown must not end a run of bytes either, as it does not when all is decoded at once.
        if !self.tokenizer.is_visible(id, self.skip_special) {
            return Ok(None);
        }
        self.window.push(id);
        match self.tokenizer.stream_mode {
            StreamMode::Buffered => return Ok(None),
            StreamMode::Appending { byte_runs: true } if self.is_byte(id) => return Ok(None),
            StreamMode::Appending { .. } => {}
        }
        let text = self.tokenizer.decode(&self.window, self.skip_special)?;
        // An incomplete character shows as one replacement character, and a later token may turn it into another.
        let certain = text
            .strip_suffix(char::REPLACEMENT_CHARACTER)
            .unwrap_or(&text);
        let piece = after(certain, self.given).to_owned();
        self.given = self.given.max(certain.len());
        if certain.len() == text.len() {
            self.slide()?;
        }
        Ok(if piece.is_empty() { None } else { Some(piece) })
    }

    /// Takes ids that stand before the text to be given out, such as a prompt, and drops their text: what
    /// [`TextTokenizer::decode`] gives for them alone.
    ///
    /// # Errors
    ///
    /// As [`StreamDecoder::push`].
    pub fn skip(&mut self, ids: &[u32]) -> Result<()> {
        for &id in ids {
            self.push(id)?;
        }
        // What is held back at their end is theirs, too: the next id may complete it, but does not make it new.
        let text = self.tokenizer.decode(&self.window, self.skip_special)?;
        self.given = self.given.max(text.len());
        Ok(())
    }

    /// Ends the stream; returns the text that was held back, if there is any.
    ///
    /// # Errors
    ///
    /// As [`StreamDecoder::push`].
    pub fn finish(self) -> Result<Option<String>> {
        let text = self.tokenizer.decode(&self.window, self.skip_special)?;
        let rest = after(&text, self.given);
        Ok(if rest.is_empty() {
            None
        } else {
            Some(rest.to_owned())
        })
    }

    /// Forgets the ids before the last piece, once all text is given out.
    ///
    /// The ids of the last piece stay as context, so that a decoder that treats the first token or the first space
    /// unlike the others does so there. That only holds if the context has a text: without one, the next token
    /// would be the first.
    fn slide(&mut self) -> Result<()> {
        let last = &self.window[self.pending..];
        let text = self.tokenizer.decode(last, self.skip_special)?;
        if !text.is_empty() {
            self.window.drain(..self.pending);
            self.given = text.len();
            self.pending = self.window.len();
        }
        Ok(())
    }

    /// Whether the byte fallback decoder takes this token for a byte.
    fn is_byte(&self, id: u32) -> bool {
        let token = self.tokenizer.token(id).unwrap_or_default();
        let digits = token
            .strip_prefix("<0x")
            .and_then(|rest| rest.strip_suffix('>'));
        digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
    }
}

/// What a text has after this many bytes, or after the character that they end in.
fn after(text: &str, bytes: usize) -> &str {
    &text[text.ceil_char_boundary(bytes)..]
}
