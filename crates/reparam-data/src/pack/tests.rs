use proptest::prelude::*;

use super::*;

const STRATEGIES: [PackingStrategy; 3] = [
    PackingStrategy::BestFitDecreasing,
    PackingStrategy::Sequential,
    PackingStrategy::None,
];

/// Documents of these lengths; every token of the data set has an id of its own.
fn documents(lengths: &[usize]) -> Vec<EncodedDocument> {
    let mut next = 0u32;
    let mut document = |length: &usize| {
        let ids = next..next + *length as u32;
        next = ids.end;
        EncodedDocument::new(ids.collect())
    };
    lengths.iter().map(&mut document).collect()
}

/// The documents together, and their pieces.
fn pieces_of(documents: &[EncodedDocument], sequence_length: usize) -> Result<(Corpus, Cut)> {
    let corpus = Corpus::of(documents.iter().cloned())?;
    let cut = cut(&corpus, sequence_length, Learned::Masked)?;
    Ok((corpus, cut))
}

/// The tokens and the labels of a piece.
fn seen(corpus: &Corpus, piece: &Piece) -> (Vec<u32>, Vec<i32>) {
    let batch = Batch::concat(corpus, Learned::Masked, [&Block::of([*piece])]).unwrap();
    (batch.input_ids, batch.labels)
}

fn lengths(blocks: &[Block]) -> Vec<Vec<usize>> {
    let lengths = |block: &Block| {
        let pieces = block.pieces().iter();
        pieces.map(Piece::len).collect()
    };
    blocks.iter().map(lengths).collect()
}

fn packed(
    document_lengths: &[usize],
    sequence_length: usize,
    strategy: PackingStrategy,
) -> Vec<Vec<usize>> {
    let (_, cut) = pieces_of(&documents(document_lengths), sequence_length).unwrap();
    lengths(&pack(&cut.pieces, sequence_length, strategy).unwrap())
}

/// The sequences of blocks, as (ids, labels).
fn sequences(corpus: &Corpus, blocks: &[Block]) -> Vec<(Vec<u32>, Vec<i32>)> {
    let pieces = blocks.iter().flat_map(Block::pieces);
    pieces.map(|piece| seen(corpus, piece)).collect()
}

/// How many pieces are left out, and their tokens.
fn dropped(cut: &Cut) -> (usize, usize) {
    (cut.dropped.len(), cut.dropped.iter().map(Piece::len).sum())
}

#[test]
fn a_long_document_is_cut_into_pieces_of_the_length() {
    let (corpus, cut) = pieces_of(&documents(&[7, 3]), 3).unwrap();
    let ids = |piece: &Piece| seen(&corpus, piece).0;
    let pieces: Vec<_> = cut
        .pieces
        .iter()
        .map(|piece| (piece.document(), piece.start(), ids(piece)))
        .collect();
    assert_eq!(
        pieces,
        [
            (0, 0, vec![0, 1, 2]),
            (0, 3, vec![3, 4, 5]),
            (1, 0, vec![7, 8, 9])
        ]
    );
    // Token 6 is alone in its piece.
    assert_eq!(dropped(&cut), (1, 1));
    assert_eq!(seen(&corpus, &cut.pieces[1]).1, [4, 5, IGNORE_INDEX]);
}

#[test]
fn a_loss_mask_says_which_tokens_are_predicted() {
    let document = |mask: &[bool]| EncodedDocument {
        ids: (10..10 + mask.len() as u32).collect(),
        loss_mask: Some(mask.to_vec()),
    };
    const I: i32 = IGNORE_INDEX;
    // The mask is of the tokens, the label is at the position before.
    let masked = [document(&[true, false, true, true, false])];
    let (corpus, cut) = pieces_of(&masked, 5).unwrap();
    assert_eq!(seen(&corpus, &cut.pieces[0]).1, [I, 12, 13, I, I]);
    assert_eq!(cut.pieces[0].n_labelled(), 2);
    // The first token of a piece is not predicted, whatever the mask says; a piece without a label goes.
    let masked = [document(&[true, false, true, false, false, true])];
    let (corpus, cut) = pieces_of(&masked, 2).unwrap();
    assert_eq!(cut.pieces.len(), 1);
    assert_eq!(cut.pieces[0].start(), 4);
    assert_eq!(seen(&corpus, &cut.pieces[0]).1, [15, I]);
    assert_eq!(dropped(&cut), (2, 4));
    // Or all are predicted, whatever the mask says.
    let cut = super::cut(&corpus, 2, Learned::All).unwrap();
    assert_eq!(dropped(&cut), (0, 0));
    let blocks = pack(&cut.pieces, 2, PackingStrategy::None).unwrap();
    let batch = Batch::concat(&corpus, Learned::All, &blocks).unwrap();
    assert_eq!(batch.labels, [11, I, 13, I, 15, I]);
    assert_eq!(
        batch.n_labelled(),
        blocks.iter().map(Block::n_labelled).sum::<usize>()
    );
}

#[test]
fn best_fit_fills_the_fullest_block_with_room() {
    let best = PackingStrategy::BestFitDecreasing;
    assert_eq!(
        packed(&[2, 6, 4, 8, 3], 8, best),
        [vec![2, 6], vec![4, 3], vec![8]]
    );
    // First fit would put the 2 beside the 4; the fuller block is the one with the 5.
    assert_eq!(packed(&[6, 5, 2, 3], 8, best), [vec![6, 2], vec![5, 3]]);
    assert_eq!(packed(&[4, 5, 3], 8, best), [vec![4], vec![5, 3]]);
}

#[test]
fn sequential_keeps_the_order() {
    let sequential = PackingStrategy::Sequential;
    assert_eq!(
        packed(&[2, 6, 4, 8, 3], 8, sequential),
        [vec![2, 6], vec![4], vec![8], vec![3]]
    );
}

#[test]
fn without_packing_a_piece_is_a_block() {
    assert_eq!(
        packed(&[2, 6, 10], 8, PackingStrategy::None),
        [[2], [6], [8], [2]]
    );
}

#[test]
fn a_batch_concatenates_blocks() {
    let (corpus, cut) = pieces_of(&documents(&[3, 2, 4]), 5).unwrap();
    let blocks = pack(&cut.pieces, 5, PackingStrategy::Sequential).unwrap();
    let batch = Batch::concat(&corpus, Learned::Masked, [&blocks[1], &blocks[0]]).unwrap();
    const I: i32 = IGNORE_INDEX;
    let expected = Batch {
        input_ids: vec![5, 6, 7, 8, 0, 1, 2, 3, 4],
        position_ids: vec![0, 1, 2, 3, 0, 1, 2, 0, 1],
        labels: vec![6, 7, 8, I, 1, 2, I, 4, I],
        bounds: vec![0, 4, 7, 9],
    };
    assert_eq!(batch, expected);
    assert_eq!(
        (batch.n_tokens(), batch.n_sequences(), batch.n_labelled()),
        (9, 3, 6)
    );
    let empty = Batch::concat(&corpus, Learned::Masked, []).unwrap();
    assert_eq!((empty.bounds, empty.input_ids.len()), (vec![0], 0));
}

#[test]
fn what_cannot_be_packed_is_an_error() {
    for sequence_length in [0, 1] {
        let error = pieces_of(&documents(&[3]), sequence_length).unwrap_err();
        assert!(matches!(error, DataError::SequenceTooShort { .. }));
        assert!(error.hint().is_some());
    }
    let masked = |ids: Vec<u32>, mask: Vec<bool>| EncodedDocument {
        ids,
        loss_mask: Some(mask),
    };
    let error = pieces_of(
        &[
            EncodedDocument::new(vec![1]),
            masked(vec![1, 2], vec![true]),
        ],
        4,
    )
    .unwrap_err();
    assert!(matches!(
        error,
        DataError::LossMaskLength {
            document: 1,
            tokens: 2,
            mask: 1
        }
    ));

    let large = i32::MAX as u32;
    pieces_of(&[EncodedDocument::new(vec![0, large])], 4).unwrap();
    let error = pieces_of(&[EncodedDocument::new(vec![0, large + 1])], 4).unwrap_err();
    assert!(matches!(error, DataError::TokenIdTooLarge { document: 0, id } if id == large + 1));

    let pieces = pieces_of(&documents(&[2, 4]), 4).unwrap().1.pieces;
    for strategy in STRATEGIES {
        let error = pack(&pieces, 3, strategy).unwrap_err();
        assert!(matches!(
            error,
            DataError::PieceTooLong {
                piece: 1,
                tokens: 4,
                sequence_length: 3
            }
        ));
        assert_eq!(pack(&[], 3, strategy).unwrap(), []);
    }
}

#[test]
fn nothing_to_learn_is_an_error() {
    let error = pieces_of(&documents(&[1, 0, 1]), 4).unwrap_err();
    assert!(matches!(
        error,
        DataError::NothingToLearn {
            documents: 3,
            tokens: 2,
            masked: false
        }
    ));
    assert!(error.hint().unwrap().contains("two tokens"));
    let masked = EncodedDocument {
        ids: vec![1, 2, 3],
        loss_mask: Some(vec![true, false, false]),
    };
    let error = pieces_of(&[masked], 4).unwrap_err();
    assert!(matches!(
        error,
        DataError::NothingToLearn {
            documents: 1,
            tokens: 3,
            masked: true
        }
    ));
    assert!(error.hint().unwrap().contains("loss masks"));
    assert!(matches!(
        pieces_of(&[], 4),
        Err(DataError::NothingToLearn { documents: 0, .. })
    ));
}

#[test]
fn the_report_counts() {
    let (_, cut) = pieces_of(&documents(&[5, 1, 2, 8]), 4).unwrap();
    let blocks = pack(&cut.pieces, 4, PackingStrategy::BestFitDecreasing).unwrap();
    let report = PackReport::count(&cut, &blocks, 4);
    let expected = PackReport {
        documents: 3,
        tokens: 14,
        pieces: 4,
        dropped_pieces: 2,
        dropped_tokens: 2,
        cut_examples: 0,
        dropped_examples: 0,
        truncated_examples: 0,
        blocks: 4,
        labelled_tokens: 10,
        fill: 14.0 / 16.0,
    };
    assert_eq!(report, expected);
    let none = Cut {
        pieces: Vec::new(),
        dropped: Vec::new(),
    };
    let empty = PackReport::count(&none, &[], 4);
    assert_eq!((empty.fill, empty.documents), (0.0, 0));
}

#[test]
fn the_report_counts_examples_that_are_cut() {
    let example = |prompt: usize, response: usize| EncodedDocument {
        ids: (0..prompt as u32 + response as u32).collect(),
        loss_mask: Some([vec![false; prompt], vec![true; response]].concat()),
    };
    let cut_examples = |documents: &[EncodedDocument]| {
        let (_, cut) = pieces_of(documents, 4).unwrap();
        PackReport::count(&cut, &[], 4).cut_examples
    };
    let fits = example(2, 2);
    assert_eq!(cut_examples(std::slice::from_ref(&fits)), 0);
    // A text has no prompt to lose.
    assert_eq!(cut_examples(&documents(&[20])), 0);
    // What is left out is not learned: here the last token, alone in its piece.
    assert_eq!(cut_examples(&[example(3, 2)]), 0);
    // Counted once, with two such pieces or with the prompt in a piece that is left out.
    assert_eq!(cut_examples(&[example(2, 12), fits, example(5, 3)]), 2);
}

#[test]
fn strategies_have_names() {
    let names = STRATEGIES.map(|strategy| serde_json::to_value(strategy).unwrap());
    assert_eq!(names, ["best_fit_decreasing", "sequential", "none"]);
    assert_eq!(
        PackingStrategy::default(),
        PackingStrategy::BestFitDecreasing
    );
}

/// Documents with ids unique over the data set, some with loss masks.
fn any_documents() -> impl Strategy<Value = Vec<EncodedDocument>> {
    let document = (
        0usize..40,
        prop::option::of(prop::collection::vec(any::<bool>(), 40)),
    );
    prop::collection::vec(document, 1..30).prop_map(|shapes| {
        let lengths: Vec<_> = shapes.iter().map(|(length, _)| *length).collect();
        let mut documents = documents(&lengths);
        for (document, (length, mask)) in documents.iter_mut().zip(shapes) {
            document.loss_mask = mask.map(|mask| mask[..length].to_vec());
        }
        documents
    })
}

proptest! {
    /// Cutting and packing move tokens, and neither make, lose, split nor mix them.
    #[test]
    fn packing_is_a_partition(documents in any_documents(), sequence_length in 2usize..50) {
        let Ok((corpus, cut)) = pieces_of(&documents, sequence_length) else {
            // By the definition: no token but the first of a piece is to be predicted.
            let learned = documents.iter().flat_map(|document| {
                (0..document.ids.len()).filter(move |at| {
                    at % sequence_length != 0
                        && document.loss_mask.as_ref().is_none_or(|mask| mask[*at])
                })
            });
            prop_assert_eq!(learned.count(), 0);
            return Ok(());
        };
        // Each piece is the stretch of its document that it says it is, and labelled by the definition.
        for piece in &cut.pieces {
            let document = &documents[piece.document()];
            let range = piece.start()..piece.start() + piece.len();
            prop_assert_eq!(piece.start() % sequence_length, 0);
            let (ids, labels) = seen(&corpus, piece);
            prop_assert_eq!(&ids, &document.ids[range.clone()]);
            prop_assert!(piece.len() == sequence_length || range.end == document.ids.len());
            prop_assert_eq!(labels.len(), piece.len());
            for (at, label) in labels.into_iter().enumerate() {
                let next = piece.start() + at + 1;
                let learned = next < range.end
                    && document.loss_mask.as_ref().is_none_or(|mask| mask[next]);
                let expected = if learned { document.ids[next] as i32 } else { IGNORE_INDEX };
                prop_assert_eq!(label, expected);
            }
            prop_assert!(piece.n_labelled() > 0);
        }
        let total: usize = documents.iter().map(|document| document.ids.len()).sum();
        let kept: usize = cut.pieces.iter().map(Piece::len).sum();
        prop_assert_eq!(kept + dropped(&cut).1, total);

        let mut expected: Vec<_> =
            cut.pieces.iter().map(|piece| seen(&corpus, piece)).collect();
        // Ids are unique, so this puts the pieces in the order of the documents.
        expected.sort_unstable();
        for strategy in STRATEGIES {
            let blocks = pack(&cut.pieces, sequence_length, strategy).unwrap();
            for block in &blocks {
                prop_assert!(block.n_tokens() <= sequence_length);
                prop_assert!(block.n_labelled() > 0);
            }
            let mut packed = sequences(&corpus, &blocks);
            if strategy != PackingStrategy::BestFitDecreasing {
                prop_assert_eq!(&packed, &expected);
            }
            packed.sort_unstable();
            prop_assert_eq!(&packed, &expected);

            let batch = Batch::concat(&corpus, Learned::Masked, &blocks).unwrap();
            prop_assert_eq!(batch.n_tokens(), kept);
            prop_assert_eq!(batch.n_sequences(), cut.pieces.len());
            prop_assert_eq!(batch.bounds.last(), Some(&batch.n_tokens()));
            prop_assert_eq!(batch.n_labelled(), blocks.iter().map(Block::n_labelled).sum::<usize>());
            for bound in batch.bounds.windows(2) {
                let positions = &batch.position_ids[bound[0]..bound[1]];
                prop_assert!(positions.iter().copied().eq(0..positions.len() as u32));
                prop_assert_eq!(batch.labels[bound[1] - 1], IGNORE_INDEX);
                for at in bound[0]..bound[1] - 1 {
                    let label = batch.labels[at];
                    prop_assert!(label == IGNORE_INDEX || label == batch.input_ids[at + 1] as i32);
                }
            }
        }
    }

    /// No two blocks of best fit fit into one, so on the whole they are more than half full.
    #[test]
    fn best_fit_is_tight(lengths in prop::collection::vec(2usize..=64, 1..200)) {
        let blocks = packed(&lengths, 64, PackingStrategy::BestFitDecreasing);
        let fewest = lengths.iter().sum::<usize>().div_ceil(64);
        prop_assert!(blocks.len() <= 2 * fewest);
        let fill: Vec<usize> = blocks.iter().map(|block| block.iter().sum()).collect();
        for (index, a) in fill.iter().enumerate() {
            for b in &fill[index + 1..] {
                prop_assert!(a + b > 64);
            }
        }
    }
}

/// What streams are: all tokens with their next ones, in order, in parts of which none is more than a token longer. Every piece
/// that `holes` says is left out, and no token goes on over it.
fn check_streams(lengths: &[usize], n_streams: usize, length: usize, holes: &[bool]) {
    let corpus = Corpus::of(documents(lengths)).unwrap();
    let whole = cut(&corpus, length, Learned::Masked).unwrap();
    let mut holes = holes.iter().cycle();
    let (out, kept): (Vec<Piece>, Vec<Piece>) =
        (whole.pieces.into_iter()).partition(|_| *holes.next().unwrap());
    // Tokens are numbers that count up.
    let left_out: BTreeSet<u32> = (out.iter())
        .flat_map(|piece| {
            corpus.ids(piece.document()).unwrap()[piece.start()..][..piece.len()].to_vec()
        })
        .collect();
    let stretches = joined(Cut {
        pieces: kept,
        ..whole
    });
    let pairs: Vec<(u32, i32)> = (0..corpus.n_documents())
        .flat_map(|document| {
            let ids = corpus.ids(document).unwrap();
            let pairs = ids.windows(2).map(|pair| [pair[0], pair[1]]);
            pairs.collect::<Vec<_>>()
        })
        .filter(|pair| pair.iter().all(|token| !left_out.contains(token)))
        .map(|pair| (pair[0], pair[1] as i32))
        .collect();
    let found = streams(&stretches, n_streams, length);
    if pairs.len() < n_streams {
        assert!(matches!(found, Err(DataError::TooFewForStreams { .. })));
        return;
    }
    let (_, blocks) = found.unwrap();
    let steps = blocks.len().div_ceil(n_streams);
    let mut all = Vec::new();
    let (mut shortest, mut longest) = (usize::MAX, 0);
    for stream in 0..n_streams {
        let before = all.len();
        let mut end = None;
        for step in 0..steps {
            let Some(block) = blocks.get(step * n_streams + stream) else {
                assert_eq!(step + 1, steps);
                continue;
            };
            let is_last = all.len() + length > before + pairs.len() / n_streams;
            assert!(block.n_tokens() == length || is_last);
            for (at, piece) in block.pieces().iter().enumerate() {
                let (ids, labels) = seen(&corpus, piece);
                let goes_on = end == Some((piece.document(), piece.start()));
                assert_eq!(piece.continues(), at == 0 && goes_on);
                assert_eq!(piece.n_labelled(), labels.len());
                end = Some((piece.document(), piece.start() + piece.len()));
                all.extend(ids.into_iter().zip(labels));
            }
        }
        shortest = shortest.min(all.len() - before);
        longest = longest.max(all.len() - before);
    }
    assert_eq!(all, pairs);
    assert!(longest - shortest <= 1);
}

proptest! {
    #[test]
    fn streams_have_every_token_once(
        lengths in prop::collection::vec(1usize..30, 1..8),
        n_streams in 1usize..9,
        length in 2usize..12,
        holes in prop::collection::vec(prop::bool::weighted(0.2), 1..6),
    ) {
        prop_assume!(lengths.iter().any(|length| *length > 1));
        check_streams(&lengths, n_streams, length, &holes);
    }
}

#[test]
fn streams_are_of_documents() {
    let masked = EncodedDocument {
        ids: vec![1, 2, 3],
        loss_mask: Some(vec![false, true, true]),
    };
    let (_, cut) = pieces_of(&[masked], 3).unwrap();
    let stretches = joined(cut);
    let error = streams(&stretches, 1, 3).unwrap_err();
    assert!(matches!(
        error,
        DataError::StreamsOfExamples { examples: 1 }
    ));
    let (_, cut) = pieces_of(&documents(&[3]), 3).unwrap();
    let error = streams(&joined(cut), 0, 3).unwrap_err();
    assert!(matches!(error, DataError::ZeroBatchSize));
}
