//! The file of an entry: a header, the ids, and the tables of the documents.
//!
//! ```text
//! magic [16] | SHA-256 [32] | counts: 5 x u64 | ids: tokens x u32
//! | ends: documents x u64 | hashes: documents x u128 | places: documents x (u32, u32)
//! | masked: n x u32 | their ends: n x u32 | stretches: m x (u32, u32) | report: JSON
//! ```
//!
//! All numbers are little-endian. The digest is of the entry's name, all behind the counts, and the counts.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reparam_formats::file::{InputFile, is_there};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::dataset::origins::Position;
use crate::dataset::texts::Texts;
use crate::order::ContentHash;
use crate::pack::{Corpus, Documents, FileSink, Masks, WIDTH};
use crate::source::{DocumentSource, ReadReport};
use crate::tokenizer::Encoded;

const MAGIC: &[u8; 16] = b"reparam tokens\n\x01";
const DIGEST: u64 = MAGIC.len() as u64;
const COUNTS: u64 = DIGEST + 32;
const N_COUNTS: usize = 5;
/// Where the ids begin.
const IDS: u64 = COUNTS + 8 * N_COUNTS as u64;
/// How many bytes are read at once.
const PIECE: usize = 1 << 16;

/// What is told of the texts.
#[derive(Serialize, Deserialize)]
struct Told {
    report: ReadReport,
    /// How many documents the files have.
    files: Vec<(PathBuf, usize)>,
    special: Option<(usize, PathBuf, usize, Option<usize>)>,
}

/// Begins an entry, into which ids go.
pub(super) fn begin<'w, 'f>(
    path: &'w Path,
    writer: &'w mut BufWriter<&'f File>,
    key: &str,
) -> io::Result<FileSink<'w, 'f>> {
    writer.write_all(&[0; IDS as usize])?;
    Ok(FileSink::new(
        path,
        writer,
        IDS,
        Sha256::new_with_prefix(key),
    ))
}

/// Ends an entry.
pub(super) fn finish(encoded: Encoded<FileSink<'_, '_>>, report: ReadReport) -> io::Result<()> {
    let Encoded {
        corpus,
        hashes,
        positions,
        special,
        files,
    } = encoded;
    let (sink, documents) = corpus.into_parts();
    let (writer, mut digest) = sink.into_parts();
    let Documents { ends, masks } = &documents;
    let files = files.into_iter();
    let told = Told {
        report,
        files: files
            .map(|(path, count)| (path.to_path_buf(), count))
            .collect(),
        special: special.map(|(count, place)| {
            let DocumentSource { path, line, item } = place;
            (count, path.to_path_buf(), line, item)
        }),
    };
    let told = serde_json::to_vec(&told)?;
    let mut put = |bytes: &[u8]| {
        digest.update(bytes);
        writer.write_all(bytes)
    };
    ends.iter().try_for_each(|end| put(&end.to_le_bytes()))?;
    hashes.iter().try_for_each(|hash| put(&hash.to_bytes()))?;
    for place in &positions {
        put(&place.line.to_le_bytes())?;
        put(&place.item.to_le_bytes())?;
    }
    let of_masks = masks.documents.iter().chain(&masks.ends);
    of_masks
        .into_iter()
        .try_for_each(|number| put(&number.to_le_bytes()))?;
    for (begin, behind) in &masks.stretches {
        put(&begin.to_le_bytes())?;
        put(&behind.to_le_bytes())?;
    }
    put(&told)?;
    let counts = [
        documents.end(),
        ends.len(),
        masks.documents.len(),
        masks.stretches.len(),
        told.len(),
    ];
    let counts = counts.map(|count| (count as u64).to_le_bytes());
    digest.update(counts.as_flattened());
    writer.seek(SeekFrom::Start(0))?;
    writer.write_all(MAGIC)?;
    writer.write_all(&digest.finalize())?;
    writer.write_all(counts.as_flattened())
}

/// Opens an entry; `None` if there is none. With `check`, its digest is compared, and no id may be above `max_id`.
///
/// # Errors
///
/// What is wrong with it, in words.
pub(super) fn open(
    path: &Path,
    key: &str,
    max_id: u32,
    check: bool,
) -> Result<Option<Texts>, String> {
    let said = |error: reparam_formats::FormatError| error.to_string();
    if !is_there(path).map_err(said)? {
        return Ok(None);
    }
    let file = InputFile::open(path).map_err(said)?;
    let mut header = [0; IDS as usize];
    if file.len() < IDS {
        return Err("it is cut short".to_owned());
    }
    file.read_at(&mut header, 0).map_err(said)?;
    let (magic, rest) = header.split_at(MAGIC.len());
    let (expected, counts) = rest.split_at(32);
    if magic != MAGIC {
        return Err("it is no file of tokens".to_owned());
    }
    let (words, _) = counts.as_chunks();
    let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let [tokens, documents, masked, stretches, told] = words[..] else {
        return Err("it has no counts".to_owned());
    };
    // What is allocated follows from these.
    let size = [
        (tokens, 4),
        (documents, 32),
        (masked, 8),
        (stretches, 8),
        (told, 1),
    ];
    let size = size
        .into_iter()
        .try_fold(IDS, |sum, (count, width): (u64, u64)| {
            sum.checked_add(count.checked_mul(width)?)
        });
    if size != Some(file.len()) {
        return Err("its length is not what it says".to_owned());
    }
    let mut reader = Reader {
        file: &file,
        at: IDS,
        digest: check.then(|| Sha256::new_with_prefix(key)),
    };
    if check {
        let mut most = 0;
        reader.each(tokens, |id: [u8; WIDTH]| {
            most = most.max(u32::from_le_bytes(id))
        })?;
        if most > max_id {
            return Err(format!(
                "it has the token {most}, and the tokenizer none above {max_id}"
            ));
        }
    } else {
        reader.at += tokens * WIDTH as u64;
    }
    let ends = reader.all(documents, u64::from_le_bytes)?;
    let hashes = reader.all(documents, ContentHash::of_bytes)?;
    let positions = reader.all(documents, |bytes| {
        let (line, item) = two(bytes);
        Position { line, item }
    })?;
    let masks = Masks {
        documents: reader.all(masked, u32::from_le_bytes)?,
        ends: reader.all(masked, u32::from_le_bytes)?,
        stretches: reader.all(stretches, two)?,
    };
    let told = reader.all(told, |[byte]: [u8; 1]| byte)?;
    if let Some(digest) = reader.digest
        && digest.chain_update(counts).finalize()[..] != *expected
    {
        return Err("its digest is not what it says".to_owned());
    }
    let documents = Documents { ends, masks };
    if !documents.is_valid(tokens) {
        return Err("its documents contradict one another".to_owned());
    }
    let told: Told = serde_json::from_slice(&told).map_err(|error| error.to_string())?;
    let special = told.special.map(|(count, path, line, item)| {
        let path = Arc::from(path);
        (count, DocumentSource { path, line, item })
    });
    let corpus = Corpus::stored(Arc::new(file), IDS, documents);
    let files = told.files.iter().map(|(path, count)| (&**path, *count));
    let documents = (hashes, positions);
    let texts = Texts::new(corpus, documents, told.report, files, special);
    texts
        .map(Some)
        .ok_or_else(|| "its files have other documents".to_owned())
}

fn two([a, b, c, d, e, f, g, h]: [u8; 8]) -> (u32, u32) {
    let (first, second) = ([a, b, c, d], [e, f, g, h]);
    (u32::from_le_bytes(first), u32::from_le_bytes(second))
}

/// Reads what stands one behind the other.
struct Reader<'a> {
    file: &'a InputFile,
    at: u64,
    digest: Option<Sha256>,
}

impl Reader<'_> {
    fn each<const N: usize>(
        &mut self,
        count: u64,
        mut take: impl FnMut([u8; N]),
    ) -> Result<(), String> {
        let end = self.at + count * N as u64;
        let mut buffer = vec![0; PIECE / N * N];
        while self.at < end {
            let piece = &mut buffer[..(end - self.at).min((PIECE / N * N) as u64) as usize];
            let read = self.file.read_at(piece, self.at);
            read.map_err(|error| error.to_string())?;
            if let Some(digest) = &mut self.digest {
                digest.update(&*piece);
            }
            piece.as_chunks().0.iter().for_each(|chunk| take(*chunk));
            self.at += piece.len() as u64;
        }
        Ok(())
    }

    fn all<const N: usize, T>(
        &mut self,
        count: u64,
        of: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, String> {
        // The length of the file has been compared.
        let mut all = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
        self.each(count, |bytes| all.push(of(bytes)))?;
        Ok(all)
    }
}
