//! Text to token ids and back, with the tokenizer of a model directory.
//!
//! [`TextTokenizer`] reads the `tokenizer.json` of the `tokenizers` library and the names of the special tokens
//! beside it, and does what transformers does with the same files: the template that adds special tokens is the one
//! in `tokenizer.json`. Settings of that file that belong to another use, truncation and padding, are turned off:
//! cutting is [`pack`](mod@crate::pack)'s work and nothing here is padded.
//!
//! # Examples
//!
//! Prompt and response are encoded as one text, so that the tokens are those of the text and no token ends at the
//! border because of it. A token that begins before the border belongs to the prompt. The tokens of the template in front of
//! the text are given like the prompt; the response, what the template puts behind it and the EOS are predicted.
//!
//! # Conversations
//!
//! A chat template has written the special tokens of a conversation into its text, so that nothing is added to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use reparam_formats::identify::{Kind, expect_kind_of_bytes};
use reparam_formats::tokenizer_files::{ADDED_TOKENS_FILE, OLDER_TOKENIZER_FILES};
use sha2::{Digest, Sha256};
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{
    AddedToken, DecoderWrapper, Encoding, ModelWrapper, Tokenizer, TruncationDirection,
};

use crate::error::{DataError, Result};
use crate::pack::EncodedDocument;
use crate::source::{Document, FileDigest, hex, read_file};

mod corpus;
mod guard;
mod new_tokens;
mod older;
mod parts;
mod pieces;
mod row;
mod sequence;
mod spans;
mod special;
mod stream;
#[cfg(test)]
mod tests;
mod turns;
mod windows;
mod words;

pub use corpus::EncodedCorpus;
pub(crate) use corpus::{Encoded, Encoder};
pub use guard::is_caught_panic;
pub use new_tokens::{AddedTokens, NewToken, with_new_tokens};
pub use older::tokenizer_json;
pub use pieces::EncodedPiece;
pub use row::EncodedRow;
pub use sequence::EncodedTarget;
pub use spans::{EncodedSpans, WordSpan};
pub use special::{SpecialIds, SpecialTokens};
pub use stream::StreamDecoder;
pub use windows::{Window, WindowOptions};
pub use words::EncodedWords;

use guard::guarded;
use parts::Pairs;
use special::TokenizerConfig;
use stream::StreamMode;

/// What is read of a model's directory; the first has to be there.
const FILES: [&str; 3] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
];

/// The longest run of white space, in characters, that a tokenizer with a pre-tokenizer is given.
///
/// Pre-tokenizers split with patterns like `\s+(?!\S)`, which take a step back for every character of a run. The
/// regular expression engine gives up after a million of them, and then the tokenizer leaves the whole rest of the text in
/// one piece without a word, so that it is encoded differently. A quarter of that is out of any doubt.
const MAX_WHITE_SPACE_RUN: usize = 1 << 18;

/// The tokenizer of a model.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
    directory: PathBuf,
    digest: FileDigest,
    special: SpecialTokens,
    stream_mode: StreamMode,
    truncation_side: TruncationDirection,
    max_id: u32,
    /// The rows of the model's embedding, as far as they are known.
    embedding_rows: usize,
    /// What says where a long text may be parted, of a model that is made of merges.
    pairs: Option<Pairs>,
    /// The characters of the longest added token.
    longest_added: usize,
}

impl TextTokenizer {
    /// Loads the tokenizer of a directory in Hugging Face layout.
    ///
    /// Reads `tokenizer.json`, or makes it of [older files](tokenizer_json), and if they are there `tokenizer_config.json` and `special_tokens_map.json`, which name
    /// the special tokens (the first of the two wins). `config_ids` come from the model's configuration and fill in what
    /// neither names. Tokens that `tokenizer_config.json` adds to the vocabulary (`added_tokens_decoder`) are added.
    ///
    /// # Errors
    ///
    /// [`DataError::NoTokenizer`]; [`DataError::InvalidTokenizer`], [`DataError::InvalidTokenizerConfig`];
    /// [`DataError::UnknownSpecialToken`] and [`DataError::UnknownSpecialId`] if the BOS or EOS token is not in the vocabulary
    /// (a padding or unknown token that is not is left out, for nothing here needs it); [`DataError::AddedTokenId`];
    /// [`DataError::Dropout`]; [`DataError::UnsupportedDecoder`].
    pub fn from_model_dir(directory: &Path, config_ids: &SpecialIds) -> Result<Self> {
        let mut read = BTreeMap::new();
        let older = OLDER_TOKENIZER_FILES.into_iter().chain([ADDED_TOKENS_FILE]);
        for name in FILES.into_iter().chain(older) {
            match read_file(&directory.join(name)) {
                Err(DataError::NotFound { .. }) => {}
                bytes => {
                    read.insert(name, bytes?);
                }
            }
        }
        if !read.contains_key(FILES[0]) {
            let made = tokenizer_json(directory, None, |name| read.get(name).map(Vec::as_slice))?;
            if let Some(made) = made {
                read.insert(FILES[0], made);
            }
        }
        Self::from_bytes(directory, config_ids, |name| {
            read.get(name).map(Vec::as_slice)
        })
    }

    /// [`from_model_dir`](Self::from_model_dir) of files that were read before: `bytes` gives those of a name, if it is there.
    ///
    /// # Errors
    ///
    /// As that.
    pub fn from_bytes<'a>(
        directory: &Path,
        config_ids: &SpecialIds,
        bytes: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<Self> {
        let [name, config, map] = FILES;
        let path = directory.join(name);
        let config = (directory.join(config), bytes(config));
        let map = (directory.join(map), bytes(map));
        let bytes = bytes(name).ok_or_else(|| no_tokenizer(directory))?;
        let invalid = |message: String| DataError::InvalidTokenizer {
            path: path.clone(),
            message,
        };
        expect_kind_of_bytes(&path, bytes, &Kind::Json)?;
        let mut inner = guard::tokenizer(bytes).map_err(invalid)?;
        inner
            .with_truncation(None)
            .map_err(|error| invalid(error.to_string()))?;
        inner.with_padding(None);
        let mut post_processor = inner.get_post_processor().cloned();
        if let Some(step) = &mut post_processor {
            keep_spaces_in_offsets(step);
        }
        inner.with_post_processor(post_processor);
        if let ModelWrapper::BPE(bpe) = inner.get_model()
            && let Some(dropout) = bpe.dropout.filter(|dropout| *dropout > 0.0)
        {
            return Err(DataError::Dropout { path, dropout });
        }
        if let Some(step) = inner.get_decoder().and_then(unsupported_step) {
            return Err(DataError::UnsupportedDecoder { path, step });
        }
        let config = TokenizerConfig::read(config, map)?;
        add_tokens(&mut inner, &config)?;
        let special = config.resolve(&inner, config_ids)?;
        let stream_mode = StreamMode::of(inner.get_decoder());
        // The template may name an id that no token has, so it is asked as well.
        let template = guarded(|| inner.encode_fast("", true)).map_err(encode_error)?;
        let vocabulary = inner.get_vocab(true);
        let ids = vocabulary.values().chain(template.get_ids());
        let max_id = ids
            .copied()
            .max()
            .ok_or_else(|| invalid("it has no tokens".to_owned()))?;
        let digest = FileDigest::of(&path, bytes);
        let directory = directory.to_owned();
        let added = inner.get_added_vocabulary().get_added_tokens_decoder();
        let lengths = added.values().map(|token| token.content.chars().count());
        let longest_added = lengths.max().unwrap_or(0);
        let pairs = Pairs::of(inner.get_model());
        Ok(Self {
            inner,
            directory,
            digest,
            special,
            stream_mode,
            truncation_side: config.truncation_side,
            max_id,
            embedding_rows: usize::MAX,
            pairs,
            longest_added,
        })
    }

    /// Refuses from now on to encode a text with a token that an embedding of `rows` rows has no row for.
    ///
    /// A tokenizer may have such tokens, as Llama 2's with the `<pad>` that its users added: only who needs one is in the way.
    #[must_use]
    pub fn with_embedding_rows(self, rows: usize) -> Self {
        Self {
            embedding_rows: rows,
            ..self
        }
    }

    /// Encodes a text; with `add_special_tokens` as the tokenizer's template says, else the text alone.
    ///
    /// # Errors
    ///
    /// [`DataError::Encode`] if the tokenizer has no token for a part of the text,
    /// [`DataError::WhiteSpaceRun`] if the text has more white space in a row than the tokenizer can split, and
    /// [`DataError::TokenOutsideEmbedding`], see [`with_embedding_rows`](Self::with_embedding_rows).
    ///
    /// # Cost
    ///
    /// Linear in the text up to a logarithm, also for one long document: about 0.7 s a megabyte with a
    /// byte pair tokenizer that has no pre-tokenizer, the slowest kind.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let ids = self.encoding(text, add_special_tokens)?.get_ids().to_vec();
        self.check_rows(&ids)?;
        Ok(ids)
    }

    /// Encodes a document or an example: as the tokenizer's template says (its BOS if it has one), then the EOS token,
    /// unless the template has put it there. An example gets a loss mask, see the [module](self).
    ///
    /// # Errors
    ///
    /// [`DataError::NoEos`], and those of [`TextTokenizer::encode`] in a [`DataError::Document`], which says where.
    pub fn encode_document(&self, document: &Document) -> Result<EncodedDocument> {
        Ok(self.encode_and_count(document)?.0)
    }

    /// Encodes a document or an example, and counts the tokens that begin or end a text in its text.
    fn encode_and_count(&self, document: &Document) -> Result<(EncodedDocument, usize)> {
        if let Some(turns) = &document.turns {
            let encoded = self.encode_turns(&document.text, turns);
            return Ok((encoded.map_err(|error| document.located(error))?, 0));
        }
        let eos = self.eos()?;
        let encoding = match document.prompt_len {
            None => self.encoding(&document.text, true),
            Some(_) => self.check_white_space(&document.text).and_then(|()| {
                // The other way to encode keeps no offsets.
                let encoding = guarded(|| self.inner.encode(document.text.as_str(), true));
                encoding.map_err(encode_error)
            }),
        };
        let encoding = encoding.map_err(|error| document.located(error))?;
        let mut ids = encoding.get_ids().to_vec();
        let of_text = ids.iter().zip(encoding.get_special_tokens_mask());
        let of_text = of_text.filter_map(|(id, of_template)| (*of_template == 0).then_some(id));
        let n_special = of_text.filter(|id| self.is_end_or_begin(**id)).count();
        if !self.template_appended(&encoding, eos)? {
            ids.push(eos);
        }
        self.check_rows(&ids).map_err(|error| DataError::Document {
            place: document.source.clone(),
            error: Box::new(error),
        })?;
        let loss_mask = document.prompt_len.map(|prompt_len| {
            let begins = response_begins(&encoding, prompt_len);
            (0..ids.len()).map(|index| index >= begins).collect()
        });
        Ok((EncodedDocument { ids, loss_mask }, n_special))
    }

    /// The token that ends a document, which there must be.
    fn eos(&self) -> Result<u32> {
        self.special.eos.ok_or_else(|| DataError::NoEos {
            directory: self.directory.clone(),
        })
    }

    /// Counts the tokens that begin or end a text.
    fn count_special(&self, ids: &[u32]) -> usize {
        ids.iter().filter(|id| self.is_end_or_begin(**id)).count()
    }

    fn is_end_or_begin(&self, id: u32) -> bool {
        let SpecialTokens { bos, eos, .. } = self.special;
        bos == Some(id) || eos == Some(id)
    }

    /// Decodes ids to text. Ids that no token has are left out, as are special tokens with `skip_special`.
    ///
    /// # Errors
    ///
    /// [`DataError::Decode`] if the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        // Some decoders cannot be given an empty list.
        if !ids.iter().any(|&id| self.is_visible(id, skip_special)) {
            return Ok(String::new());
        }
        let decoded = guarded(|| self.inner.decode(ids, skip_special));
        decoded.map_err(|message| DataError::Decode { message })
    }

    /// Starts decoding ids one by one; see [`StreamDecoder`].
    #[must_use]
    pub fn stream_decoder(&self, skip_special: bool) -> StreamDecoder<'_> {
        StreamDecoder::new(self, skip_special)
    }

    /// The special tokens.
    #[must_use]
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// The token that ends a document.
    #[must_use]
    pub fn eos_id(&self) -> Option<u32> {
        self.special.eos
    }

    /// The token with this id, as it is written in the vocabulary.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token that is written like this in the vocabulary.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The largest id that encoding can give, added tokens included.
    #[must_use]
    pub fn max_id(&self) -> u32 {
        self.max_id
    }

    /// Returns the greatest id that may be in a text: one of the tokenizer, which the model has a row for.
    pub(crate) fn max_usable_id(&self) -> u32 {
        let last_row = u32::try_from(self.embedding_rows.saturating_sub(1));
        self.max_id().min(last_row.unwrap_or(u32::MAX))
    }

    /// How many tokens there are, added tokens included. Ids need not be contiguous: see [`TextTokenizer::max_id`].
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The ids of the tokens that stand for text, ascending: all but the special ones.
    #[must_use]
    pub fn ordinary_ids(&self) -> Vec<u32> {
        let added = self.inner.get_added_vocabulary();
        let tokens = self.inner.get_vocab(true).into_iter();
        let is_special = |token: &String| added.is_special_token(token);
        let mut ids: Vec<u32> = tokens
            .filter_map(|(token, id)| (!is_special(&token)).then_some(id))
            .collect();
        ids.sort_unstable();
        ids
    }

    /// The digest of `tokenizer.json`.
    #[must_use]
    pub fn digest(&self) -> &FileDigest {
        &self.digest
    }

    /// A digest of all that the ids of a text follow from.
    pub(crate) fn fingerprint(&self) -> Result<String> {
        let json = self.inner.to_string(false);
        let json = json.map_err(|error| encode_error(error.to_string()))?;
        let rest = format!("{:?} {}", self.special, self.embedding_rows);
        let digest = Sha256::new_with_prefix(json).chain_update(rest).finalize();
        Ok(hex(&digest))
    }

    /// Checks that the model has a row for each of these ids.
    fn check_rows(&self, ids: &[u32]) -> Result<()> {
        let rows = self.embedding_rows;
        match ids.iter().find(|&&id| id as usize >= rows) {
            None => Ok(()),
            Some(&id) => Err(DataError::TokenOutsideEmbedding {
                token: self.token(id).unwrap_or_default(),
                id,
                rows,
            }),
        }
    }

    fn encoding(&self, text: &str, add_special_tokens: bool) -> Result<Encoding> {
        self.check_white_space(text)?;
        guarded(|| self.inner.encode_fast(text, add_special_tokens)).map_err(encode_error)
    }

    fn check_white_space(&self, text: &str) -> Result<()> {
        match self.inner.get_pre_tokenizer() {
            None => Ok(()),
            Some(_) => check_white_space(text),
        }
    }

    /// Whether decoding shows the token at all.
    fn is_visible(&self, id: u32, skip_special: bool) -> bool {
        let added = self.inner.get_added_vocabulary();
        // The form that decoding uses, not the one of the vocabulary, because this is what it compares.
        let token = added
            .simple_id_to_token(id)
            .or_else(|| self.inner.id_to_token(id));
        token.is_some_and(|token| !skip_special || !added.is_special_token(&token))
    }

    /// Whether the last token of `encoding` is `id` and the template has put it behind the text.
    fn template_appended(&self, encoding: &Encoding, id: u32) -> Result<bool> {
        // The mask tells the template's tokens from the text's, for a text can end with the token itself.
        let mask = encoding.get_special_tokens_mask();
        if encoding.get_ids().last() != Some(&id) || mask.last() != Some(&1) {
            return Ok(false);
        }
        if mask.contains(&0) {
            return Ok(true);
        }
        // Without a text between them, a token before it and one behind it look the same.
        let probe = guarded(|| self.inner.encode_fast("a", true)).map_err(encode_error)?;
        let mask = probe.get_special_tokens_mask();
        Ok(!mask.contains(&0) || (probe.get_ids().last() == Some(&id) && mask.last() == Some(&1)))
    }
}

/// Checks that a pre-tokenizer can split a text.
///
/// # Errors
///
/// [`DataError::WhiteSpaceRun`].
pub(crate) fn check_white_space(text: &str) -> Result<()> {
    if text.len() <= MAX_WHITE_SPACE_RUN {
        return Ok(());
    }
    let runs = text.split(|character: char| !character.is_whitespace());
    // Bytes are at least characters, so counting the characters is only needed for long runs.
    let runs = runs.filter(|run| run.len() > MAX_WHITE_SPACE_RUN);
    let mut lengths = runs.map(|run| run.chars().count());
    match lengths.find(|length| *length > MAX_WHITE_SPACE_RUN) {
        None => Ok(()),
        Some(characters) => Err(DataError::WhiteSpaceRun {
            characters,
            limit: MAX_WHITE_SPACE_RUN,
        }),
    }
}

/// The index of the first token that begins at byte `prompt_len` of the text or behind it, else of the first one behind
/// the text.
fn response_begins(encoding: &Encoding, prompt_len: usize) -> usize {
    let of_template = encoding.get_special_tokens_mask();
    let offsets = encoding.get_offsets();
    let is_response = |&index: &usize| of_template[index] == 0 && offsets[index].0 >= prompt_len;
    let behind = || {
        of_template
            .iter()
            .rposition(|of_template| *of_template == 0)
            .map(|last| last + 1)
    };
    let first = (0..encoding.len()).find(is_response);
    first.or_else(behind).unwrap_or(encoding.len())
}

/// Turns off what takes white space out of offsets: a token `" a"` begins at its space.
fn keep_spaces_in_offsets(step: &mut PostProcessorWrapper) {
    match step {
        PostProcessorWrapper::ByteLevel(step) => step.trim_offsets = false,
        PostProcessorWrapper::Roberta(step) => step.trim_offsets = false,
        PostProcessorWrapper::Sequence(steps) => {
            steps.as_mut().iter_mut().for_each(keep_spaces_in_offsets);
        }
        PostProcessorWrapper::Bert(_) | PostProcessorWrapper::Template(_) => {}
    }
}

fn encode_error(message: String) -> DataError {
    DataError::Encode { message }
}

fn no_tokenizer(directory: &Path) -> DataError {
    const OTHERS: [&str; 2] = ["tiktoken.model", "tekken.json"];
    let others = OTHERS.iter().filter(|name| directory.join(name).exists());
    let others = others.map(|name| (*name).to_owned()).collect();
    DataError::NoTokenizer {
        directory: directory.to_owned(),
        others,
    }
}

/// Returns the first step of the decoder that the library runs out of bounds with.
fn unsupported_step(decoder: &DecoderWrapper) -> Option<String> {
    match decoder {
        // It indexes before the start of a token that is shorter than what it strips.
        DecoderWrapper::Strip(strip) if strip.stop > 0 => {
            Some(format!("Strip with stop = {}", strip.stop))
        }
        DecoderWrapper::Sequence(steps) => steps.get_decoders().iter().find_map(unsupported_step),
        _ => None,
    }
}

/// Adds the tokens that only `tokenizer_config.json` knows.
fn add_tokens(inner: &mut Tokenizer, config: &TokenizerConfig) -> Result<()> {
    for (&expected, added) in &config.added {
        let token = added.content.clone();
        if inner.token_to_id(&token).is_none() {
            let options = AddedToken::from(token.clone(), added.special)
                .single_word(added.single_word)
                .lstrip(added.lstrip)
                .rstrip(added.rstrip)
                .normalized(added.normalized.unwrap_or(!added.special));
            inner
                .add_tokens([options])
                .map_err(|error| config.invalid(format!("cannot add `{token}`: {error}")))?;
        }
        let found = inner.token_to_id(&token);
        if found != Some(expected) {
            let path = config.path.clone();
            return Err(DataError::AddedTokenId {
                path,
                token,
                expected,
                found,
            });
        }
    }
    Ok(())
}
