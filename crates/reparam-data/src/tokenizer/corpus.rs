//! Encoding documents into a corpus: in parallel, a part at a time, each text dropped as soon as it is encoded.

use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use super::parts::PART;
use super::{SpecialTokens, TextTokenizer};
use crate::dataset::origins::Position;
use crate::error::Result;
use crate::order::ContentHash;
use crate::pack::{Corpus, CorpusBuilder, EncodedDocument, Sink};
use crate::source::{Document, DocumentSource};
use crate::watch::{Phase, Watch};

/// The bytes of the documents that are encoded at once. What the library keeps of a text that it encodes is about a hundred
/// bytes a byte.
const AT_ONCE: usize = 1 << 21;

/// Documents as tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EncodedCorpus {
    /// The tokens.
    pub corpus: Corpus,
    /// What each document says, before it was encoded.
    pub hashes: Vec<ContentHash>,
    /// How often the texts themselves hold the tokens that begin and end a text, and where first.
    pub special: Option<(usize, DocumentSource)>,
}

impl TextTokenizer {
    /// Encodes documents and examples, in their order; see [`TextTokenizer::encode_document`].
    ///
    /// # Errors
    ///
    /// The error of the first document that has one; [`DataError::Interrupted`](crate::DataError::Interrupted).
    ///
    /// # Cost
    ///
    /// In memory 4 bytes a token, and the texts that are not encoded yet; a text of its own that is long is encoded in
    /// parts where the tokenizer allows it, else it takes about 100 bytes a byte while it is encoded.
    pub fn encode_documents(
        &self,
        documents: Vec<Document>,
        watch: Watch<'_>,
    ) -> Result<EncodedCorpus> {
        let total: usize = documents.iter().map(|document| document.text.len()).sum();
        let corpus = CorpusBuilder::in_memory();
        let mut encoder = Encoder::new(self, corpus, total as u64, watch);
        for document in documents {
            encoder.push(document)?;
        }
        let encoded = encoder.finish()?;
        Ok(EncodedCorpus {
            corpus: encoded.corpus.finish(),
            hashes: encoded.hashes,
            special: encoded.special,
        })
    }
}

impl TextTokenizer {
    /// Says that texts hold tokens that begin and end a text.
    pub(crate) fn describe_special(&self, count: usize, first: &DocumentSource) -> String {
        let SpecialTokens { bos, eos, .. } = self.special;
        let mut names: Vec<String> = [bos, eos]
            .into_iter()
            .flatten()
            .filter_map(|id| Some(format!("`{}`", self.token(id)?)))
            .collect();
        names.dedup();
        format!(
            "the texts themselves hold {} {count} times, first at {first}: each is read as that token, beside those that the \
             tokenizer adds",
            names.join(" and ")
        )
    }
}

/// What an [`Encoder`] has made.
pub(crate) struct Encoded<S> {
    pub(crate) corpus: CorpusBuilder<S>,
    pub(crate) hashes: Vec<ContentHash>,
    pub(crate) positions: Vec<Position>,
    pub(crate) special: Option<(usize, DocumentSource)>,
    /// The files of the documents, and how many documents each has, in their order.
    pub(crate) files: Vec<(Arc<Path>, usize)>,
}

/// Encodes documents as they come: some together, each text dropped as soon as its tokens are there.
pub(crate) struct Encoder<'a, S> {
    tokenizer: &'a TextTokenizer,
    watch: Watch<'a>,
    encoded: Encoded<S>,
    /// What is encoded next.
    waiting: Vec<Document>,
    waiting_bytes: usize,
    done: u64,
    total: u64,
}

impl<'a, S: Sink> Encoder<'a, S> {
    /// Begins to encode texts of about `total` bytes.
    pub(crate) fn new(
        tokenizer: &'a TextTokenizer,
        corpus: CorpusBuilder<S>,
        total: u64,
        watch: Watch<'a>,
    ) -> Self {
        watch.at(Phase::Tokenizing, 0, total);
        Self {
            tokenizer,
            watch,
            encoded: Encoded {
                corpus,
                hashes: Vec::new(),
                positions: Vec::new(),
                special: None,
                files: Vec::new(),
            },
            waiting: Vec::new(),
            waiting_bytes: 0,
            done: 0,
            total,
        }
    }

    /// Takes a document.
    ///
    /// # Errors
    ///
    /// That of this document, or of one before.
    pub(crate) fn push(&mut self, document: Document) -> Result<()> {
        let is_whole = document.prompt_len.is_none() && document.turns.is_none();
        let is_long = is_whole && document.text.len() > AT_ONCE;
        if is_long || self.waiting_bytes > AT_ONCE {
            self.encode_waiting()?;
        }
        if is_long {
            return self.long(document);
        }
        self.waiting_bytes += document.text.len();
        self.waiting.push(document);
        Ok(())
    }

    /// Encodes what is left.
    ///
    /// # Errors
    ///
    /// That of the first document that has one.
    pub(crate) fn finish(mut self) -> Result<Encoded<S>> {
        self.encode_waiting()?;
        // The last word, also of texts that are empty.
        self.watch.at(Phase::Tokenizing, self.total, self.total);
        Ok(self.encoded)
    }

    fn encode_waiting(&mut self) -> Result<()> {
        self.waiting_bytes = 0;
        let documents = std::mem::take(&mut self.waiting);
        self.several(documents)
    }

    fn several(&mut self, documents: Vec<Document>) -> Result<()> {
        let (tokenizer, watch) = (self.tokenizer, self.watch);
        let encode = |document: &Document| -> Result<(EncodedDocument, usize)> {
            watch.check()?;
            tokenizer.encode_and_count(document)
        };
        // Collected before it is searched, so that which error is reported does not depend on the threads.
        let encoded: Vec<_> = documents.par_iter().map(encode).collect();
        for (document, encoded) in documents.iter().zip(encoded) {
            let (tokens, n_special) = encoded?;
            self.encoded.corpus.push(&tokens)?;
            self.ended(document, n_special);
        }
        self.advance(documents.iter().map(|document| document.text.len()).sum());
        Ok(())
    }

    /// Encodes a long document in parts, or as a whole if the tokenizer allows no parts.
    fn long(&mut self, document: Document) -> Result<()> {
        let (tokenizer, text) = (self.tokenizer, &document.text);
        let eos = tokenizer.eos()?;
        let located = |error| document.located(error);
        tokenizer.check_white_space(text).map_err(located)?;
        let template = tokenizer.template()?;
        let check = |ids: &[u32]| tokenizer.check_rows(ids).map_err(located);
        check(&template.before)?;
        self.encoded.corpus.extend(&template.before)?;
        let mut n_special = 0;
        let mut at = 0;
        while let Some(end) = tokenizer.round(text, at) {
            self.watch.check()?;
            let Some(parts) = tokenizer
                .encode_parts(text, at..end, PART)
                .map_err(located)?
            else {
                // What is there of it already is taken back.
                self.encoded.corpus.take_back()?;
                self.done -= at as u64;
                return self.several(vec![document]);
            };
            if at == 0 {
                let tokens: usize = parts.iter().map(Vec::len).sum();
                let expected = tokens as f64 * (text.len() as f64 / end as f64) * 1.02;
                self.encoded
                    .corpus
                    .reserve(expected as usize + template.len() + 1);
            }
            for ids in parts {
                check(&ids)?;
                n_special += tokenizer.count_special(&ids);
                self.encoded.corpus.extend(&ids)?;
            }
            self.advance(end - at);
            at = end;
        }
        let mut after = template.after;
        if after.last() != Some(&eos) {
            after.push(eos);
        }
        check(&after)?;
        self.encoded.corpus.extend(&after)?;
        self.encoded.corpus.end(None)?;
        self.ended(&document, n_special);
        Ok(())
    }

    fn ended(&mut self, document: &Document, n_special: usize) {
        let prompt_len = document.prompt_len.map_or(u64::MAX, |len| len as u64);
        let parts = [document.text.as_bytes(), &prompt_len.to_le_bytes()];
        self.encoded.hashes.push(ContentHash::of(parts));
        self.encoded.positions.push(Position::of(&document.source));
        match self.encoded.files.last_mut() {
            // A file that is named twice is read twice, each time under a path of its own.
            Some((path, count)) if Arc::ptr_eq(path, &document.source.path) => *count += 1,
            _ => {
                let path = Arc::clone(&document.source.path);
                self.encoded.files.push((path, 1));
            }
        }
        if n_special > 0 {
            let first = || (0, document.source.clone());
            self.encoded.special.get_or_insert_with(first).0 += n_special;
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.done += bytes as u64;
        // What is said of the total is the size of files, which may be compressed.
        let done = self.done.min(self.total);
        self.watch.at(Phase::Tokenizing, done, self.total);
    }
}
