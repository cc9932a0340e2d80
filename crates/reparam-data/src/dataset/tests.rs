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

#[test]
fn the_built_in_example() {
    let paths = [assets().join("tinyshakespeare.txt")];
    let dataset = Dataset::build(
        &paths,
        None,
        &tokenizer(),
        512,
        PackingStrategy::BestFitDecreasing,
    )
    .unwrap();
    // The number of tokens is that of transformers 5.23.0 and the EOS.
    let expected = PackReport {
        documents: 1,
        tokens: 693_365,
        pieces: 1355,
        dropped_pieces: 0,
        dropped_tokens: 0,
        blocks: 1355,
        labelled_tokens: 693_365 - 1355,
        fill: 693_365.0 / (1355.0 * 512.0),
    };
    assert_eq!(dataset.report, expected);
    assert_eq!(dataset.digests.len(), 1);
    assert_eq!(dataset.digests[0].bytes, 1_115_394);
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
    let dataset =
        Dataset::build(&[path], None, &tokenizer(), 16, PackingStrategy::Sequential).unwrap();
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
    let build = |fraction| {
        let packing = PackingStrategy::BestFitDecreasing;
        Dataset::build_split(&paths, None, &tokenizer(), 32, packing, fraction).unwrap()
    };
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
    assert_eq!(eval.digests, train.digests);
}

#[test]
fn encoded_documents_need_no_file() {
    let documents = [EncodedDocument::new(vec![1, 5, 2])];
    let dataset = Dataset::from_encoded(&documents, 4, PackingStrategy::None).unwrap();
    assert_eq!((dataset.blocks.len(), dataset.digests.len()), (1, 0));
    assert_eq!(dataset.report.fill, 0.75);
}
