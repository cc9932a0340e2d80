//! What a language model will see of its texts.

use std::collections::HashSet;

use reparam_data::{Dataset, Piece, TextTokenizer};

use crate::Result;
use crate::preflight::Finding;
use crate::seen::{Look, Noticed, Seen, SeenRow, Survey, Surveyed, Token};

/// How many documents and pieces are read to find what their beginnings and ends say: each is a read of its own where tokens
/// are in a file, and a mistake of a template or a tokenizer is in all of them.
const LOOKED_AT: usize = 10_000;

/// A document, as far as it is a part of a data set. There may be millions, so it is small.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    /// None if it is no part.
    tokens: u32,
    labelled: u32,
    /// Whether a piece of it begins behind its start.
    is_cut: bool,
}

/// Counts the documents of a data set, and shows its first pieces.
pub(super) fn seen(
    (train, eval): (&Dataset, Option<&Dataset>),
    (tokenizer, ends): (&TextTokenizer, &[u32]),
    length: usize,
    look: &Look<'_>,
) -> Result<Seen> {
    let mut parts = vec![Part::default(); train.n_documents()];
    let pieces = || train.blocks.iter().flat_map(|block| block.pieces());
    // With weights, a piece may be there several times.
    let mut counted = train.is_weighted().then(HashSet::new);
    for piece in pieces().chain(train.dropped()) {
        let place = (piece.document(), piece.start());
        if counted
            .as_mut()
            .is_some_and(|counted| !counted.insert(place))
        {
            continue;
        }
        let part = &mut parts[piece.document()];
        // A document has no more tokens than 32 bits count.
        part.tokens += piece.len() as u32;
        part.labelled += piece.n_labelled() as u32;
        part.is_cut |= piece.of_example() && piece.start() > 0;
    }
    drop(counted);
    // Then what is missing of an example has been cut off, for each is whole or in one piece.
    let truncates = train.report.truncated_examples > 0;
    let files = &train.read.files;
    let mut survey = Survey::new(files);
    for (document, part) in parts.iter().enumerate() {
        if part.tokens == 0 {
            continue;
        }
        let is_short = || (part.tokens as usize) < train.n_tokens_of(document);
        let is_truncated = truncates && train.is_example(document) && is_short();
        let file = train.file_of(document).and_then(|file| files.get(file));
        let row = Surveyed {
            tokens: part.tokens as usize,
            labelled: part.labelled as usize,
            truncated: part.is_cut || is_truncated,
            content: train.content(document),
            path: file.map(|file| &*file.path),
        };
        survey.add(row, || place(train, document));
    }
    // What is held out of the same texts is apart from them by what it says.
    let others = eval.filter(|eval| !eval.shares_corpus(train));
    for document in others.iter().flat_map(|eval| 0..eval.n_documents()) {
        if let Some((eval, content)) = others.and_then(|eval| Some((eval, eval.content(document)?)))
        {
            survey.held_out(content, || place(eval, document));
        }
    }
    let mut seen = survey.finish("documents", length, true);
    seen.dropped = dropped(train);
    seen.held_out_dropped = others.map(dropped).unwrap_or_default();
    if train.streams().is_none() {
        seen.fill = Some(train.report.fill);
    }
    seen.findings = findings(train, (tokenizer, ends), &parts)?;
    if let Some(tokenizer) = look.tokenizer {
        let mut first: Vec<&Piece> = pieces().chain(train.dropped()).collect();
        first.sort_by_key(|piece| (piece.document(), piece.start()));
        first.dedup();
        let rows = first.into_iter().take(look.rows);
        seen.examples = rows
            .map(|piece| row(train, tokenizer, piece))
            .collect::<Result<_>>()?;
    }
    Ok(seen)
}

/// The documents that are left out as too long.
fn dropped(dataset: &Dataset) -> Noticed {
    match dataset.report.dropped_examples {
        0 => Noticed::default(),
        count => Noticed {
            count: count as u64,
            first: (dataset.too_long().iter())
                .map(|document| place(dataset, *document))
                .collect(),
        },
    }
}

fn place(dataset: &Dataset, document: usize) -> String {
    let source = dataset.source(document);
    source.map_or_else(
        || format!("document {}", document + 1),
        |source| source.to_string(),
    )
}

fn row(train: &Dataset, tokenizer: &TextTokenizer, piece: &Piece) -> Result<SeenRow> {
    let tokens = train.tokens(piece)?.into_iter();
    let tokens = tokens.map(|(id, learned)| Token {
        learned,
        ..Token::given(id)
    });
    let tokens: Vec<Token> = tokens.collect();
    let row = SeenRow::decode(tokenizer, &tokens)?.at(place(train, piece.document()));
    Ok(match piece.start() {
        0 => row,
        start => row.labelled(format!("from token {start} on")),
    })
}

/// Finds what the beginnings and the ends of texts say.
fn findings(
    train: &Dataset,
    (tokenizer, ends): (&TextTokenizer, &[u32]),
    parts: &[Part],
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let documents = || {
        let there = parts.iter().enumerate().filter(|(_, part)| part.tokens > 0);
        there.map(|(document, _)| document).take(LOOKED_AT)
    };
    if let Some(bos) = tokenizer.special_tokens().bos {
        let mut twice = Vec::new();
        for document in documents() {
            if train.start_of(document, 2)? == [bos, bos] {
                twice.push(document);
            }
        }
        if let Some(first) = twice.first() {
            let name = tokenizer.token(bos).unwrap_or_default();
            findings.push(Finding::warning(
                "two_bos",
                format!(
                    "{} of {} documents that were looked at begin with `{name}` twice, first at {}: the texts hold it, and the tokenizer adds one",
                    twice.len(),
                    documents().count(),
                    place(train, *first)
                ),
                format!("take `{name}` out of the texts, or out of the template that writes it"),
            ));
        }
    }
    // A document that is read as it is ends with the token that is put behind it.
    let pieces = train.blocks.iter().flat_map(|block| block.pieces());
    let of_examples = pieces.filter(|piece| piece.of_example()).take(LOOKED_AT);
    let mut of_examples = of_examples.peekable();
    if of_examples.peek().is_some() {
        let is_end = |(id, learned): (u32, bool)| learned && ends.contains(&id);
        let mut ends_learned = false;
        for piece in of_examples {
            ends_learned = train.tokens(piece)?.into_iter().any(is_end);
            if ends_learned {
                break;
            }
        }
        if !ends_learned {
            findings.push(Finding::warning(
                "no_end_learned",
                "no response that was looked at has a learned token that ends a text, so the model does not learn to stop",
                "use a chat template that ends turns with the model's eos_token, or name the token that it writes as \
                 `eos_token_id` in generation_config.json",
            ));
        }
    }
    Ok(findings)
}
