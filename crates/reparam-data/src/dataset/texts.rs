//! Texts as tokens, read and encoded a part at a time.

use std::path::Path;
use std::sync::Arc;

use super::origins::{Origins, Position};
use crate::cache::{self, Cache};
use crate::error::{DataError, Result};
use crate::order::ContentHash;
use crate::pack::{Corpus, CorpusBuilder, Sink};
use crate::source::{self, DocumentSource, Files, ReadOptions, ReadReport};
use crate::tokenizer::{Encoded, Encoder, TextTokenizer};
use crate::watch::Watch;

/// Documents as tokens, and where they come from.
#[derive(Debug)]
pub(crate) struct Texts {
    pub(crate) corpus: Arc<Corpus>,
    pub(crate) origins: Arc<Origins>,
    pub(crate) report: ReadReport,
    /// Of each file of the report which path it was found by.
    pub(super) paths: Vec<usize>,
    /// How often the texts themselves hold the tokens that begin and end a text, and where first.
    pub(crate) special: Option<(usize, DocumentSource)>,
}

impl Texts {
    /// Reads and encodes the documents of paths.
    pub(crate) fn read(
        paths: &[std::path::PathBuf],
        tokenizer: &TextTokenizer,
        options: &ReadOptions,
        cache: Option<&Cache>,
        watch: Watch<'_>,
    ) -> Result<Self> {
        options.check()?;
        let files = source::find(paths)?;
        let total = files.bytes();
        let cached = cache.and_then(|cache| {
            Some((
                cache,
                cache.directory(files.expanded_bytes(Cache::EXPANSION))?,
            ))
        });
        if let Some((cache, directory)) = cached {
            match cache::read(directory, (&files, total), tokenizer, options, watch) {
                Err(DataError::Cache(error)) if cache.is_optional() => {
                    watch.note(&format!(
                        "tokens are held in memory, not in the cache: {error}"
                    ));
                }
                texts => return Ok(texts?.found(files)),
            }
        }
        let corpus = CorpusBuilder::in_memory();
        let (encoded, report) = encode(&files, total, tokenizer, options, corpus, watch)?;
        let Encoded {
            corpus,
            hashes,
            positions,
            special,
            files: counts,
        } = encoded;
        let counts = counts.iter().map(|(path, count)| (&**path, *count));
        let documents = (hashes, positions);
        let texts = Self::new(corpus.finish(), documents, report, counts, special);
        // Only what was read has been encoded.
        Ok(texts.ok_or(DataError::NoPaths)?.found(files))
    }

    fn found(self, files: Files) -> Self {
        let paths = files.paths;
        Self { paths, ..self }
    }

    /// Puts texts together; `files` have so many documents, in the order of the report. `None` if that cannot be.
    pub(crate) fn new<'a>(
        corpus: Corpus,
        (hashes, positions): (Vec<ContentHash>, Vec<Position>),
        report: ReadReport,
        files: impl Iterator<Item = (&'a Path, usize)>,
        special: Option<(usize, DocumentSource)>,
    ) -> Option<Self> {
        let origins = Origins::new(hashes, positions, &report, files)?;
        (origins.hashes.len() == corpus.n_documents()).then(|| Self {
            corpus: Arc::new(corpus),
            origins: Arc::new(origins),
            report,
            paths: Vec::new(),
            special,
        })
    }
}

/// Reads documents, and encodes them as they come.
pub(crate) fn encode<S: Sink>(
    files: &Files,
    total: u64,
    tokenizer: &TextTokenizer,
    options: &ReadOptions,
    corpus: CorpusBuilder<S>,
    watch: Watch<'_>,
) -> Result<(Encoded<S>, ReadReport)> {
    let mut encoder = Encoder::new(tokenizer, corpus, total, watch);
    let report = source::visit_files(files, options, watch, &mut |document| {
        encoder.push(document)
    })?;
    Ok((encoder.finish()?, report))
}
