use std::collections::HashSet;
use std::path::Path;

use super::*;
use crate::rows::LabelValue;
use crate::source::DocumentSource;

#[test]
fn rows_lie_one_behind_the_other() {
    let row = |ids: &[u32], type_ids: &[u32]| EncodedRow {
        ids: ids.to_vec(),
        type_ids: type_ids.to_vec(),
        truncated: false,
    };
    let batch = RowBatch::concat(&[
        row(&[2, 7, 3, 8, 3], &[0, 0, 0, 1, 1]),
        row(&[2, 3], &[0, 0]),
    ]);
    assert_eq!(batch.input_ids, [2, 7, 3, 8, 3, 2, 3]);
    assert_eq!(batch.token_type_ids, [0, 0, 0, 1, 1, 0, 0]);
    assert_eq!(batch.position_ids, [0, 1, 2, 3, 4, 0, 1]);
    assert_eq!(batch.bounds, [0, 5, 7]);
    assert_eq!((batch.n_tokens(), batch.n_rows()), (7, 2));
}

#[test]
fn what_a_row_says_is_its_texts_and_its_labels() {
    let row = |text: &str, pair: Option<&str>, labels: &[&str]| TextRow {
        text: text.to_owned(),
        text_pair: pair.map(str::to_owned),
        labels: Some(RowLabels::Several(
            labels.iter().map(|label| LabelValue::new(*label)).collect(),
        )),
        place: DocumentSource {
            path: Path::new("a.csv").into(),
            line: labels.len(),
            item: None,
        },
    };
    let rows = [
        row("ab", None, &["c"]),
        row("a", Some("b"), &["c"]),
        row("ab", Some(""), &["c"]),
        row("ab", None, &["d"]),
        row("ab", None, &["c", "d"]),
        row("ab", None, &["cd"]),
    ];
    let contents: HashSet<_> = rows.iter().map(TextRow::content).collect();
    assert_eq!(contents.len(), rows.len());
    // Where it stands does not count.
    let mut elsewhere = rows[0].clone();
    elsewhere.place.line = 9;
    assert_eq!(elsewhere.content(), rows[0].content());
}
