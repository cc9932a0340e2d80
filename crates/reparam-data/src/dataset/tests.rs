use std::fs;
use std::path::Path;

use super::*;
use crate::order::BatchPlan;
use crate::pack::IGNORE_INDEX;
use crate::source::read_watched;
use crate::tokenizer::SpecialIds;

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets")
}

fn tokenizer() -> TextTokenizer {
    TextTokenizer::from_model_dir(&assets().join("stories260K"), &SpecialIds::default()).unwrap()
}

fn options(sequence_length: usize) -> DatasetOptions {
    DatasetOptions {
        read: ReadOptions::default(),
        train_on_prompt: false,
        sequence_length,
        packing: PackingStrategy::BestFitDecreasing,
        streams: None,
        too_long: TooLong::Cut,
        cache: None,
        weights: None,
    }
}

/// The tokens of the blocks.
fn ids(dataset: &Dataset) -> Vec<u32> {
    let all: Vec<usize> = (0..dataset.blocks.len()).collect();
    dataset.batch(&all).unwrap().input_ids
}

/// The sequences of the blocks with their labels, in some order.
fn sequences(dataset: &Dataset) -> Vec<(Vec<u32>, Vec<i32>)> {
    let all: Vec<usize> = (0..dataset.blocks.len()).collect();
    let batch = dataset.batch(&all).unwrap();
    let of = |bounds: &[usize]| {
        let range = bounds[0]..bounds[1];
        (
            batch.input_ids[range.clone()].to_vec(),
            batch.labels[range].to_vec(),
        )
    };
    let mut sequences: Vec<_> = batch.bounds.windows(2).map(of).collect();
    sequences.sort_unstable();
    sequences
}

fn split(paths: &[PathBuf], options: &DatasetOptions, fraction: f64) -> Result<Split> {
    let size = Size {
        fraction,
        max: u64::MAX,
    };
    Dataset::build_split(paths, &tokenizer(), options, (size, 7), Watch::never())
}

#[test]
fn the_built_in_example() {
    let paths = [assets().join("tinyshakespeare.txt")];
    let dataset = Dataset::build(&paths, &tokenizer(), &options(512), Watch::never()).unwrap();
    // The number of tokens is that of transformers 5.23.0 and the EOS.
    let expected = PackReport {
        documents: 1,
        tokens: 693_365,
        pieces: 1355,
        dropped_pieces: 0,
        dropped_tokens: 0,
        cut_examples: 0,
        dropped_examples: 0,
        truncated_examples: 0,
        blocks: 1355,
        labelled_tokens: 693_365 - 1355,
        fill: 693_365.0 / (1355.0 * 512.0),
    };
    assert_eq!(dataset.report, expected);
    assert_eq!(dataset.read.files.len(), 1);
    assert_eq!(dataset.read.files[0].bytes, 1_115_394);
    // FNV-1a over the ids that transformers 5.23.0 gives for the whole file, and the EOS.
    let ids = ids(&dataset).into_iter();
    let hash = ids.fold(1_469_598_103_934_665_603u64, |hash, id| {
        (hash ^ u64::from(id)).wrapping_mul(1_099_511_628_211)
    });
    assert_eq!(hash, 14_291_155_232_724_758_050);
}

#[test]
fn documents_do_not_see_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.jsonl");
    fs::write(
        &path,
        "{\"text\": \"Hello\"}\n{\"text\": \"\"}\n{\"text\": \"Hi\"}\n",
    )
    .unwrap();
    let sequential = DatasetOptions {
        packing: PackingStrategy::Sequential,
        ..options(16)
    };
    let dataset = Dataset::build(&[path], &tokenizer(), &sequential, Watch::never()).unwrap();
    const I: i32 = IGNORE_INDEX;
    let batch = dataset.batch(&[0]).unwrap();
    assert_eq!(batch.input_ids, [1, 346, 306, 414, 2, 1, 2, 1, 320, 417, 2]);
    assert_eq!(batch.labels, [346, 306, 414, 2, I, 2, I, 320, 417, 2, I]);
    assert_eq!(batch.bounds, [0, 5, 7, 11]);
    assert_eq!(batch.position_ids, [0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 3]);
    // One block is an epoch of any batch size.
    let plan = BatchPlan::new(dataset.blocks.len(), 2, 0, true).unwrap();
    assert_eq!(dataset.batch(&plan.batch(9)).unwrap().n_tokens(), 11);
}

#[test]
fn encoded_documents_need_no_file() {
    let documents = [EncodedDocument::new(vec![1, 5, 2])];
    let dataset = Dataset::from_encoded(documents, 4, PackingStrategy::None).unwrap();
    assert_eq!((dataset.blocks.len(), dataset.read.files.len()), (1, 0));
    assert_eq!(dataset.report.fill, 0.75);
}

/// Two examples and a document; the prompts take 10 and 6 bytes.
fn examples_and_a_text() -> (tempfile::TempDir, [PathBuf; 2]) {
    let directory = tempfile::tempdir().unwrap();
    let examples = directory.path().join("a.json");
    let text = directory.path().join("b.txt");
    fs::write(
        &examples,
        r#"[{"prompt": "Once upon ", "completion": "a time"}, {"prompt": "Hello ", "completion": "Lily"}]"#,
    )
    .unwrap();
    fs::write(&text, "Hi").unwrap();
    (directory, [examples, text])
}

#[test]
fn prompts_are_given_and_not_predicted() {
    let (_directory, paths) = examples_and_a_text();
    let packing = PackingStrategy::None;
    let masked = DatasetOptions {
        packing,
        ..options(16)
    };
    let all = DatasetOptions {
        train_on_prompt: true,
        ..masked.clone()
    };
    let build = |options| Dataset::build(&paths, &tokenizer(), options, Watch::never()).unwrap();
    let (masked, all) = (build(&masked), build(&all));
    assert_eq!(masked.blocks.len(), 3);
    let encode = |text: &str| tokenizer().encode(text, true).unwrap();
    let texts = ["Once upon a time", "Hello Lily", "Hi"];
    // The tokens of the stems: in these texts a token begins at the border.
    let given = [encode("Once upon").len(), encode("Hello").len(), 1];
    for (block, text) in texts.iter().enumerate() {
        let ids = [encode(text), vec![2]].concat();
        let next = |index: usize| ids.get(index + 1).map_or(IGNORE_INDEX, |id| *id as i32);
        let labels: Vec<i32> = (0..ids.len()).map(next).collect();
        assert_eq!(all.batch(&[block]).unwrap().input_ids, ids);
        assert_eq!(all.batch(&[block]).unwrap().labels, labels);
        assert_eq!(masked.batch(&[block]).unwrap().input_ids, ids);
        // The space before the border begins the token that carries it on.
        let space = usize::from(block < 2);
        let predicted: Vec<i32> = labels
            .iter()
            .enumerate()
            .map(|(index, label)| {
                if index + 1 < given[block] + space {
                    IGNORE_INDEX
                } else {
                    *label
                }
            })
            .collect();
        assert_eq!(masked.batch(&[block]).unwrap().labels, predicted, "{text}");
    }
    assert!(masked.report.labelled_tokens < all.report.labelled_tokens);
    assert_eq!(masked.report.tokens, all.report.tokens);
}

#[test]
fn what_is_held_out_does_not_depend_on_what_is_learned() {
    let (_directory, paths) = examples_and_a_text();
    // Pieces of the first example are cut, and without prompts those without a response are left out.
    for sequence_length in [16, 4, 2] {
        let masked = DatasetOptions {
            packing: PackingStrategy::None,
            ..options(sequence_length)
        };
        let all = DatasetOptions {
            train_on_prompt: true,
            ..masked.clone()
        };
        let pieces =
            |options| Dataset::build(&paths, &tokenizer(), options, Watch::never()).unwrap();
        let (responses, texts) = (pieces(&masked), pieces(&all));
        for fraction in [0.05, 0.2, 0.5, 0.9] {
            let parts = |options| {
                let parts = split(&paths, options, fraction).unwrap();
                (parts.train, parts.eval.unwrap())
            };
            let ((train, eval), (learned, measured)) = (parts(&masked), parts(&all));
            assert_eq!(sequences(&eval), sequences(&measured));
            let together = |a: &Dataset, b: &Dataset| {
                let mut both = [sequences(a), sequences(b)].concat();
                both.sort_unstable();
                both
            };
            assert_eq!(together(&train, &eval), sequences(&responses));
            // What is learned of the texts is all but the part held out, whose tokens are the same.
            let tokens = |sequences: Vec<(Vec<u32>, Vec<i32>)>| -> Vec<Vec<u32>> {
                sequences.into_iter().map(|(ids, _)| ids).collect()
            };
            let dropped = eval.report.dropped_pieces;
            let both = tokens(together(&learned, &measured));
            assert_eq!(both.len() + dropped, texts.report.pieces);
            let whole = tokens(sequences(&texts));
            assert!(both.iter().all(|ids| whole.contains(ids)));
        }
    }
}

/// Files of short documents, with a document that is there twice.
fn many_documents() -> (tempfile::TempDir, [PathBuf; 2]) {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, texts: &[String]| {
        let path = directory.path().join(name);
        let lines = texts
            .iter()
            .map(|text| serde_json::json!({"text": text}).to_string());
        fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
        path
    };
    let texts = |of: &str, n: usize| -> Vec<String> {
        (0..n)
            .map(|number| format!("{of} had {number} big dogs."))
            .collect()
    };
    let (lily, tim) = (texts("Lily", 60), texts("Tim", 40));
    let again = [&tim[..], &lily[..10]].concat();
    let paths = [file("a.jsonl", &lily), file("b.jsonl", &again)];
    (directory, paths)
}

#[test]
fn the_order_of_files_does_not_matter() {
    let (directory, [a, b]) = many_documents();
    let story = directory.path().join("c.txt");
    fs::write(
        &story,
        "Once upon a time there was a girl. She had a cat.\n".repeat(40),
    )
    .unwrap();
    let shakespeare = assets().join("tinyshakespeare.txt");
    for (paths, unit) in [
        ([a.clone(), b.clone()], Unit::Documents),
        ([story, shakespeare], Unit::Pieces),
    ] {
        let [first, second] = paths;
        let one = split(&[first.clone(), second.clone()], &options(64), 0.1).unwrap();
        let other = split(&[second, first], &options(64), 0.1).unwrap();
        let (eval, other_eval) = (one.eval.unwrap(), other.eval.unwrap());
        // To the order, so that sums are the same to the last bit.
        assert_eq!(ids(&eval), ids(&other_eval));
        assert_eq!(sequences(&one.train), sequences(&other.train));
        let share = eval.report.labelled_tokens as f64
            / (eval.report.labelled_tokens + one.train.report.labelled_tokens) as f64;
        assert!((share - 0.1).abs() < 0.02, "{share}");
        let mut shares = other.held_out;
        shares.reverse();
        assert_eq!(one.held_out, shares);
        assert!(
            shares
                .iter()
                .all(|share| share.unit == unit && share.held_out > 0)
        );
    }
    // Duplicates are on one side.
    let parts = split(&[a, b], &options(64), 0.3).unwrap();
    let eval = sequences(parts.eval.as_ref().unwrap());
    let train = sequences(&parts.train);
    assert!(eval.iter().all(|sequence| !train.contains(sequence)));
    let held_out: usize = parts.held_out.iter().map(|share| share.held_out).sum();
    assert_eq!(held_out, eval.len());
    assert_eq!(parts.held_out[0].of + parts.held_out[1].of, 110);
}

#[test]
fn a_lone_document_gives_stretches_of_all_its_parts() {
    let paths = [assets().join("tinyshakespeare.txt")];
    let whole = Dataset::build(&paths, &tokenizer(), &options(512), Watch::never()).unwrap();
    let parts = split(&paths, &options(512), 0.05).unwrap();
    let eval = parts.eval.unwrap();
    let mut both = [sequences(&parts.train), sequences(&eval)].concat();
    both.sort_unstable();
    assert_eq!(both, sequences(&whole));
    assert_eq!(eval.report.pieces, 68);
    let share = FileShare {
        file: paths[0].clone(),
        held_out: 68,
        of: 1355,
        unit: Unit::Pieces,
    };
    assert_eq!(parts.held_out, [share]);
    // From each tenth of the text there is a stretch of six or seven pieces.
    let starts: Vec<usize> = eval
        .blocks
        .iter()
        .flat_map(|block| block.pieces().iter().map(|piece| piece.start() / 512))
        .collect();
    for tenth in 0..10 {
        let range = 1355 * tenth / 10..1355 * (tenth + 1) / 10;
        let inside: Vec<_> = starts
            .iter()
            .filter(|start| range.contains(*start))
            .collect();
        assert!((6..=7).contains(&inside.len()), "{tenth}: {inside:?}");
        assert_eq!(inside[inside.len() - 1] - inside[0] + 1, inside.len());
    }
    // Or no more than the most.
    let size = Size {
        fraction: 0.5,
        max: 5110,
    };
    let parts = Dataset::build_split(
        &paths,
        &tokenizer(),
        &options(512),
        (size, 7),
        Watch::never(),
    );
    assert_eq!(parts.unwrap().eval.unwrap().report.pieces, 10);
}

#[test]
fn nothing_is_measured_where_nothing_is_held_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.jsonl");
    // One token, which begins in the prompt, so that the response is the EOS alone, in a piece of its own.
    fs::write(&path, r#"{"prompt": "H", "completion": "e"}"#).unwrap();
    assert_eq!(tokenizer().encode("He", true).unwrap().len(), 2);
    let paths = [path];
    let masked = options(2);
    let error = split(&paths, &masked, 0.0).unwrap_err();
    assert!(matches!(error, DataError::NothingToLearn { .. }), "{error}");
    let all = DatasetOptions {
        train_on_prompt: true,
        ..masked
    };
    let parts = split(&paths, &all, 0.0).unwrap();
    assert_eq!((parts.train.report.pieces, parts.eval), (1, None));
    let error = split(&paths, &all, 0.5).unwrap_err();
    assert!(matches!(error, DataError::NothingToLearn { .. }), "{error}");
}

#[test]
fn prompts_must_be_there_to_be_learned() {
    let (_directory, paths) = examples_and_a_text();
    let all = DatasetOptions {
        train_on_prompt: true,
        ..options(16)
    };
    let error = Dataset::build(&paths[1..], &tokenizer(), &all, Watch::never()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "train_on_prompt has no effect: none of 1 documents has a prompt"
    );
    assert!(error.hint().unwrap().contains("remove it"));
    let error = split(&paths[1..], &all, 0.0).unwrap_err();
    assert!(matches!(error, DataError::NoPrompts { documents: 1 }));
}

#[test]
fn long_examples_are_cut_or_left_out_as_a_whole_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.jsonl");
    let row = |words: usize| {
        let completion = "a time ".repeat(words);
        serde_json::json!({"prompt": "Once upon ", "completion": completion}).to_string()
    };
    let lengths = [2, 40, 3, 50, 4, 1, 2, 3, 2, 4];
    fs::write(&path, lengths.map(row).join("\n")).unwrap();
    let text = directory.path().join("b.txt");
    fs::write(&text, "a long text ".repeat(40)).unwrap();
    let paths = [text.clone(), path.clone()];
    let of = |too_long| DatasetOptions {
        too_long,
        packing: PackingStrategy::None,
        ..options(32)
    };
    let build = |options: &DatasetOptions, paths: &[PathBuf]| {
        Dataset::build(paths, &tokenizer(), options, Watch::never())
    };
    let cut = build(&of(TooLong::Cut), &paths).unwrap();
    assert_eq!(
        (cut.report.cut_examples, cut.report.dropped_examples),
        (2, 0)
    );
    for learned in [false, true] {
        let options = DatasetOptions {
            train_on_prompt: learned,
            ..of(TooLong::Drop)
        };
        let dropped = build(&options, &paths).unwrap();
        assert_eq!(
            (dropped.report.cut_examples, dropped.report.dropped_examples),
            (0, 2)
        );
        // The text is in pieces as before, and every example that is left is whole.
        let of_text = |dataset: &Dataset| {
            let pieces = dataset.blocks.iter().flat_map(Block::pieces);
            pieces.filter(|piece| piece.document() == 0).count()
        };
        assert!(of_text(&cut) > 2);
        assert_eq!(of_text(&dropped), of_text(&cut));
        let examples = dropped.blocks.iter().flat_map(Block::pieces);
        let examples = examples.filter(|piece| piece.document() > 0);
        let examples: Vec<_> = examples
            .map(|piece| (piece.document(), piece.start()))
            .collect();
        let expected = [1, 3, 5, 6, 7, 8, 9, 10].map(|document| (document, 0));
        assert_eq!(examples, expected);
        // Of both parts of a split, counted once.
        let both = split(&paths, &options, 0.2).unwrap();
        assert_eq!(both.train.report.dropped_examples, 2);
        let eval = both.eval.unwrap();
        let pieces = both.train.report.pieces + eval.report.pieces;
        assert_eq!(pieces, of_text(&cut) + expected.len());
    }
    // The first piece of each is kept, as it is cut.
    let truncated = build(&of(TooLong::Truncate), &paths).unwrap();
    let report = &truncated.report;
    assert_eq!(
        (
            report.cut_examples,
            report.dropped_examples,
            report.truncated_examples
        ),
        (0, 0, 2)
    );
    assert_eq!(truncated.too_long(), [2, 4]);
    let is_first = |piece: &&Piece| piece.document() == 0 || piece.start() == 0;
    let expected = cut.blocks.iter().flat_map(Block::pieces).filter(is_first);
    let found = truncated.blocks.iter().flat_map(Block::pieces);
    assert!(found.eq(expected));
    let error = build(&of(TooLong::Refuse), &paths).unwrap_err();
    let DataError::ExamplesTooLong {
        count: 2,
        sequence_length: 32,
        tokens,
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert!(tokens > 32);
    assert!(error.to_string().contains(":2"), "{error}");
    assert!(error.hint().unwrap().contains("too_long"));
    // A text is cut whatever is said of examples.
    assert!(build(&of(TooLong::Refuse), &[text]).is_ok());
    // Nothing is left.
    let short = DatasetOptions {
        sequence_length: 4,
        ..of(TooLong::Drop)
    };
    let error = build(&short, &[path]).unwrap_err();
    assert!(
        matches!(error, DataError::ExamplesTooLong { count: 10, .. }),
        "{error:?}"
    );
}

#[test]
fn weights_take_documents_of_a_path_as_often_as_they_say() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("folder");
    fs::create_dir(&folder).unwrap();
    // Twelve documents of a path that is a file, and eight of one that is a folder of two.
    let lines = |name: &str, count: usize| {
        let rows = (0..count).map(|row| format!("{{\"text\": \"{name} tells story {row}\"}}\n"));
        rows.collect::<String>()
    };
    let single = directory.path().join("single.jsonl");
    fs::write(&single, lines("Ann", 12)).unwrap();
    fs::write(folder.join("a.jsonl"), lines("Ben", 5)).unwrap();
    fs::write(folder.join("b.jsonl"), lines("Cleo", 3)).unwrap();
    let paths = [single, folder];
    let of = |weights: &[f64], cache: Option<Cache>| DatasetOptions {
        weights: Some(Weights {
            of: weights.to_vec(),
            seed: 3,
        }),
        cache,
        ..options(64)
    };
    let copies = |dataset: &Dataset| {
        let mut copies = vec![0; 20];
        for piece in dataset.blocks.iter().flat_map(Block::pieces) {
            copies[piece.document()] += 1;
        }
        copies
    };
    let build = |options: &DatasetOptions| {
        Dataset::build(&paths, &tokenizer(), options, Watch::never()).unwrap()
    };
    let cases: [(&[f64], [usize; 2], [usize; 2]); 4] = [
        (&[1.0, 1.0], [12, 8], [1, 1]),
        (&[2.0, 1.0], [24, 8], [2, 1]),
        (&[0.25, 3.0], [3, 24], [1, 3]),
        (&[1.5, 0.5], [18, 4], [2, 1]),
    ];
    for (weights, expected, most) in cases {
        let found = copies(&build(&of(weights, None)));
        let (single, folder) = found.split_at(12);
        let sums = [single, folder].map(|part| part.iter().sum::<usize>());
        // Documents of digits more or fewer have a token more or fewer.
        let near =
            |at: usize| sums[at].abs_diff(expected[at]) <= usize::from(weights[at] % 1.0 > 0.0);
        assert!(near(0) && near(1), "{weights:?}: {sums:?}");
        assert_eq!(
            [single, folder].map(|part| *part.iter().max().unwrap()),
            most
        );
        // The same ones again, from the cache, too.
        let cache = Cache::All(directory.path().join("cache"));
        for _ in 0..2 {
            assert_eq!(copies(&build(&of(weights, Some(cache.clone())))), found);
        }
    }
    // Other seeds draw others; what is held out is there once, and is not learned.
    let other = DatasetOptions {
        weights: Some(Weights {
            of: vec![0.5, 0.5],
            seed: 4,
        }),
        ..options(64)
    };
    assert_ne!(
        copies(&build(&of(&[0.5, 0.5], None))),
        copies(&build(&other))
    );
    let parts = split(&paths, &of(&[3.0, 2.0], None), 0.3).unwrap();
    let (train, eval) = (copies(&parts.train), copies(&parts.eval.unwrap()));
    for (document, copied) in train.into_iter().zip(eval).enumerate() {
        let weight = if document < 12 { 3 } else { 2 };
        assert!(
            [(weight, 0), (0, 1)].contains(&copied),
            "{document}: {copied:?}"
        );
    }
    // There is one for each path, and none is 0.
    let error = |weights: &[f64]| {
        let options = of(weights, None);
        Dataset::build(&paths, &tokenizer(), &options, Watch::never()).unwrap_err()
    };
    let wrong = error(&[1.0]);
    assert!(
        matches!(
            wrong,
            DataError::Weights {
                weights: 1,
                paths: 2
            }
        ),
        "{wrong:?}"
    );
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY, 1001.0] {
        let wrong = error(&[1.0, weight]);
        assert!(matches!(wrong, DataError::Weight { .. }), "{wrong:?}");
    }
    // Streams have none, and say so before a file is read.
    let streams = DatasetOptions {
        streams: Some(2),
        ..of(&[1.0, 2.0], None)
    };
    let missing = [PathBuf::from("no-such-a"), PathBuf::from("no-such-b")];
    let wrong = Dataset::build(&missing, &tokenizer(), &streams, Watch::never()).unwrap_err();
    assert!(matches!(wrong, DataError::WeightsOfStreams), "{wrong:?}");
    // Documents are counted once, however often they are there.
    let report = build(&of(&[3.0, 2.0], None)).report;
    assert_eq!((report.documents, report.pieces), (20, 52));
}

#[test]
fn a_small_weight_leaves_a_document_of_each_path() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let one = file("one.txt", "Ann has a dog.");
    let several = file(
        "several.jsonl",
        "{\"text\": \"Ben\"}\n{\"text\": \"Cleo\"}\n",
    );
    // The same file twice is two paths, each with its weight.
    for (paths, weights, expected) in [
        (vec![one.clone(), several.clone()], vec![0.5, 0.01], 2),
        (vec![one.clone()], vec![1e-9], 1),
        (vec![one.clone(), one.clone()], vec![0.1, 3.0], 4),
        (vec![several.clone(), several], vec![2.0, 0.01], 5),
    ] {
        let options = DatasetOptions {
            weights: Some(Weights {
                of: weights.clone(),
                seed: 3,
            }),
            ..options(64)
        };
        let dataset = Dataset::build(&paths, &tokenizer(), &options, Watch::never()).unwrap();
        assert_eq!(dataset.report.pieces, expected, "{weights:?}");
    }
}

#[test]
fn pieces_of_a_prompt_alone_are_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.jsonl");
    let prompt = "Once upon a time there was a girl. ".repeat(10);
    let line = serde_json::json!({"prompt": prompt, "completion": "The end."});
    fs::write(&path, line.to_string()).unwrap();
    let ids = [
        tokenizer()
            .encode(&format!("{prompt}The end."), true)
            .unwrap(),
        vec![2],
    ]
    .concat();
    let paths = [path];
    let all = DatasetOptions {
        train_on_prompt: true,
        ..options(32)
    };
    let whole = Dataset::build(&paths, &tokenizer(), &all, Watch::never())
        .unwrap()
        .report;
    assert_eq!((whole.dropped_pieces, whole.cut_examples), (0, 1));
    let dataset = Dataset::build(&paths, &tokenizer(), &options(32), Watch::never()).unwrap();
    let report = &dataset.report;
    assert_eq!(
        report.dropped_pieces + report.pieces,
        ids.len().div_ceil(32)
    );
    assert_eq!(report.dropped_tokens + report.tokens, ids.len());
    assert_eq!(report.cut_examples, 1);
    assert!(
        report.dropped_pieces > 1 && report.labelled_tokens < 32,
        "{report:?}"
    );
}

/// Is told how many files are read, and asks for the end after some.
struct Reading {
    seen: std::sync::Mutex<Vec<(u64, u64)>>,
    stop: std::sync::atomic::AtomicBool,
    most: usize,
}

impl crate::watch::Progress for Reading {
    fn at(&self, phase: crate::watch::Phase, done: u64, total: u64) {
        assert_eq!(phase, crate::watch::Phase::Reading);
        let mut seen = self.seen.lock().unwrap();
        seen.push((done, total));
        if seen.len() == self.most {
            self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn note(&self, text: &str) {
        panic!("{text}");
    }
}

#[test]
fn reading_tells_of_each_file_and_can_be_stopped() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a.txt", "b.txt", "c.txt"] {
        std::fs::write(directory.path().join(name), "Once").unwrap();
    }
    let paths = [directory.path().to_owned()];
    let read = |most| {
        let reading = Reading {
            seen: std::sync::Mutex::default(),
            stop: std::sync::atomic::AtomicBool::new(false),
            most,
        };
        let watch = Watch::new(&reading.stop).with_progress(&reading);
        let read = read_watched(&paths, &ReadOptions::default(), watch);
        (read, reading.seen.into_inner().unwrap())
    };
    let (source, seen) = read(usize::MAX);
    assert_eq!(source.unwrap().documents.len(), 3);
    assert_eq!(seen, [(0, 3), (1, 3), (2, 3), (3, 3)]);
    let (source, seen) = read(2);
    assert!(matches!(source, Err(DataError::Interrupted(_))));
    assert_eq!(seen, [(0, 3), (1, 3)]);
}
