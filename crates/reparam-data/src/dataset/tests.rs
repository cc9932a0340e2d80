use std::fs;
use std::path::Path;

use super::*;
use crate::order::BatchPlan;
use crate::pack::IGNORE_INDEX;
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
    }
}

#[test]
fn the_built_in_example() {
    let paths = [assets().join("tinyshakespeare.txt")];
    let dataset = Dataset::build(&paths, &tokenizer(), &options(512)).unwrap();
    // The number of tokens is that of transformers 5.23.0 and the EOS.
    let expected = PackReport {
        documents: 1,
        tokens: 693_365,
        pieces: 1355,
        dropped_pieces: 0,
        dropped_tokens: 0,
        cut_examples: 0,
        blocks: 1355,
        labelled_tokens: 693_365 - 1355,
        fill: 693_365.0 / (1355.0 * 512.0),
    };
    assert_eq!(dataset.report, expected);
    assert_eq!(dataset.read.files.len(), 1);
    assert_eq!(dataset.read.files[0].bytes, 1_115_394);
    // FNV-1a over the ids that transformers 5.23.0 gives for the whole file, and the EOS.
    let ids = dataset.blocks.iter().flat_map(|block| block.input_ids());
    let hash = ids.fold(1_469_598_103_934_665_603u64, |hash, id| {
        (hash ^ u64::from(*id)).wrapping_mul(1_099_511_628_211)
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
    let dataset = Dataset::build(&[path], &tokenizer(), &sequential).unwrap();
    const I: i32 = IGNORE_INDEX;
    let batch = dataset.batch(&[0]);
    assert_eq!(batch.input_ids, [1, 346, 306, 414, 2, 1, 2, 1, 320, 417, 2]);
    assert_eq!(batch.labels, [346, 306, 414, 2, I, 2, I, 320, 417, 2, I]);
    assert_eq!(batch.bounds, [0, 5, 7, 11]);
    assert_eq!(batch.position_ids, [0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 3]);
    // One block is a batch of any size.
    let plan = BatchPlan::new(dataset.blocks.len(), 2, 0, true).unwrap();
    assert_eq!(dataset.batch(&plan.batch(9)).n_tokens(), 22);
}

#[test]
fn the_tail_is_a_data_set_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.txt");
    fs::write(&path, "Once upon a time there was a girl. ".repeat(20)).unwrap();
    let paths = [path];
    let build =
        |fraction| Dataset::build_split(&paths, &tokenizer(), &options(32), fraction).unwrap();
    let (all, none) = build(0.0);
    assert_eq!(none, None);
    let (train, eval) = build(0.25);
    let eval = eval.unwrap();
    let ids = |dataset: &Dataset| -> Vec<u32> {
        dataset
            .blocks
            .iter()
            .flat_map(|block| block.input_ids().to_vec())
            .collect()
    };
    assert_eq!([ids(&train), ids(&eval)].concat(), ids(&all));
    assert_eq!(train.report.pieces + eval.report.pieces, all.report.pieces);
    let held_out = (all.report.pieces as f64 * 0.25).round() as usize;
    assert_eq!(eval.report.pieces, held_out);
    assert_eq!(eval.read, train.read);
}

#[test]
fn encoded_documents_need_no_file() {
    let documents = [EncodedDocument::new(vec![1, 5, 2])];
    let dataset = Dataset::from_encoded(&documents, 4, PackingStrategy::None).unwrap();
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
    let build = |options| Dataset::build(&paths, &tokenizer(), options).unwrap();
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
        assert_eq!(all.blocks[block].input_ids(), ids);
        assert_eq!(all.blocks[block].labels(), labels);
        assert_eq!(masked.blocks[block].input_ids(), ids);
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
        assert_eq!(masked.blocks[block].labels(), predicted, "{text}");
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
        let pieces = |options| Dataset::build(&paths, &tokenizer(), options).unwrap();
        let (responses, texts) = (pieces(&masked), pieces(&all));
        for fraction in [0.05, 0.2, 0.5, 0.9] {
            let split = |options| {
                let parts = Dataset::build_split(&paths, &tokenizer(), options, fraction).unwrap();
                (parts.0, parts.1.unwrap())
            };
            let ((train, eval), (learned, measured)) = (split(&masked), split(&all));
            assert_eq!(eval, measured);
            assert_eq!([&train.blocks[..], &eval.blocks].concat(), responses.blocks);
            // What is learned of the texts is all that stands before the part held out.
            assert_eq!(learned.blocks, texts.blocks[..learned.blocks.len()]);
            let next = texts.blocks[learned.blocks.len()].input_ids();
            assert_eq!(next, eval.blocks[0].input_ids());
            // Nothing is lost: what is left out of a part is counted in it.
            let report = |dataset: &Dataset| {
                let report = &dataset.report;
                [
                    report.pieces + report.dropped_pieces,
                    report.tokens + report.dropped_tokens,
                    report.dropped_pieces,
                ]
            };
            let sum = |a: &Dataset, b: &Dataset| {
                let (a, b) = (report(a), report(b));
                [0, 1, 2].map(|index| a[index] + b[index])
            };
            assert_eq!(sum(&train, &eval), report(&responses));
            assert_eq!(sum(&learned, &eval)[..2], report(&texts)[..2]);
        }
    }
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
    let error = Dataset::build_split(&paths, &tokenizer(), &masked, 0.0).unwrap_err();
    assert!(matches!(error, DataError::NothingToLearn { .. }), "{error}");
    let all = DatasetOptions {
        train_on_prompt: true,
        ..masked
    };
    let (train, none) = Dataset::build_split(&paths, &tokenizer(), &all, 0.0).unwrap();
    assert_eq!((train.report.pieces, none), (1, None));
    let error = Dataset::build_split(&paths, &tokenizer(), &all, 0.5).unwrap_err();
    assert!(matches!(error, DataError::NothingToLearn { .. }), "{error}");
}

#[test]
fn prompts_must_be_there_to_be_learned() {
    let (_directory, paths) = examples_and_a_text();
    let all = DatasetOptions {
        train_on_prompt: true,
        ..options(16)
    };
    let error = Dataset::build(&paths[1..], &tokenizer(), &all).unwrap_err();
    assert_eq!(
        error.to_string(),
        "train_on_prompt has no effect: none of 1 documents has a prompt"
    );
    assert!(error.hint().unwrap().contains("remove it"));
    let error = Dataset::build_split(&paths[1..], &tokenizer(), &all, 0.0).unwrap_err();
    assert!(matches!(error, DataError::NoPrompts { documents: 1 }));
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
    let whole = Dataset::build(&paths, &tokenizer(), &all).unwrap().report;
    assert_eq!((whole.dropped_pieces, whole.cut_examples), (0, 1));
    let dataset = Dataset::build(&paths, &tokenizer(), &options(32)).unwrap();
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
