//! Texts as tokens, read and encoded a part at a time.

use std::path::Path;

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
    pub(crate) corpus: Corpus,
    /// What each document says.
    pub(crate) hashes: Vec<ContentHash>,
    pub(crate) report: ReadReport,
    /// How often the texts themselves hold the tokens that begin and end a text, and where first.
    pub(crate) special: Option<(usize, DocumentSource)>,
    /// The number of documents up to the end of each file of the report.
    ends: Vec<usize>,
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
        let cached = cache.and_then(|cache| Some((cache, cache.directory(total)?)));
        if let Some((cache, directory)) = cached {
            match cache::read(directory, (&files, total), tokenizer, options, watch) {
                Err(DataError::Cache(error)) if cache.is_optional() => {
                    watch.note(&format!(
                        "tokens are held in memory, not in the cache: {error}"
                    ));
                }
                texts => return texts,
            }
        }
        let corpus = CorpusBuilder::in_memory();
        let (encoded, report) = encode(&files, total, tokenizer, options, corpus, watch)?;
        let Encoded {
            corpus,
            hashes,
            special,
            files,
        } = encoded;
        let files = files.iter().map(|(path, count)| (&**path, *count));
        let texts = Self::new(corpus.finish(), hashes, report, files, special);
        // Only what was read has been encoded.
        texts.ok_or(DataError::NoPaths)
    }

    /// Puts together what is known of texts; `files` have so many documents, in the order of the report. `None` if that cannot
    /// be.
    pub(crate) fn new<'a>(
        corpus: Corpus,
        hashes: Vec<ContentHash>,
        report: ReadReport,
        files: impl Iterator<Item = (&'a Path, usize)>,
        special: Option<(usize, DocumentSource)>,
    ) -> Option<Self> {
        let mut counts = vec![0; report.files.len()];
        let mut file = 0;
        for (path, count) in files {
            // A file may have no document that is long enough.
            while *report.files.get(file)?.path != *path {
                file += 1;
            }
            counts[file] = count;
        }
        let mut end = 0;
        let ends = counts.into_iter().map(|count: usize| {
            end += count;
            end
        });
        let ends: Vec<usize> = ends.collect();
        let n = corpus.n_documents();
        (hashes.len() == n && ends.last().copied().unwrap_or(0) == n).then_some(Self {
            corpus,
            hashes,
            report,
            special,
            ends,
        })
    }

    /// The file of a document, and which one of the file it is, from 0.
    pub(crate) fn place(&self, document: usize) -> (&Path, usize) {
        let file = self.file(document);
        let before = file.checked_sub(1).map_or(0, |before| self.ends[before]);
        (&self.report.files[file].path, document - before)
    }

    /// The file of a document, by its place in the report.
    pub(crate) fn file(&self, document: usize) -> usize {
        self.ends.partition_point(|end| *end <= document)
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
