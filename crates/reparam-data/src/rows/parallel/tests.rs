use std::fs;

use tempfile::TempDir;

use super::*;
use crate::rows::testing::{read, short};
use crate::rows::{
    OnError, RowFormat, RowsOptions, SOURCE, SOURCE_AND_TARGET, SequenceRow, TEXT, read_rows,
    sequence_rows,
};

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}

fn parallel(directory: &TempDir, names: &[&str], schema: &Schema) -> Result<Rows<SequenceRow>> {
    let paths = names.iter().map(|name| directory.path().join(name));
    let paths: Vec<_> = paths.collect();
    let options = RowsOptions {
        format: Some(RowFormat::Parallel),
        ..RowsOptions::default()
    };
    Ok(sequence_rows(read_rows(&paths, schema, &options)?))
}

/// What rows say, with the name of the file and the line.
fn told(rows: Rows<SequenceRow>, directory: &TempDir) -> Vec<String> {
    let prefix = format!("{}/", directory.path().display());
    let tell = |row: Result<SequenceRow>| match row {
        Ok(row) => format!(
            "{} {}>{}",
            row.place,
            row.source,
            row.target.unwrap_or_default()
        ),
        Err(error) => error.to_string(),
    };
    let rows = rows.rows.into_iter();
    rows.map(|row| tell(row).replace(&prefix, "")).collect()
}

#[test]
fn lines_of_two_files_belong_together() {
    let files = directory(&[
        ("a.en", "\u{feff}one\ntwo\u{2028}2 \n"),
        ("a.de", "eins\r\nzwei"),
        ("b.en", "three\n"),
        ("b.de", "drei\n"),
    ]);
    let expected = [
        "a.en:1 one>eins",
        "a.en:2 two\u{2028}2 >zwei",
        "b.en:1 three>drei",
    ];
    for names in [&["a.en", "a.de", "b.en", "b.de"][..], &["*.en", "*.de"]] {
        let rows = parallel(&files, names, &SOURCE_AND_TARGET).unwrap();
        let digests = rows.files.iter();
        let mut digests: Vec<_> = digests.map(|file| file.path.file_name().unwrap()).collect();
        digests.sort();
        assert_eq!(digests, ["a.de", "a.en", "b.de", "b.en"]);
        assert_eq!(told(rows, &files), expected, "{names:?}");
    }
    let rows = parallel(&files, &["b.en", "b.de"], &SOURCE).unwrap();
    assert_eq!(told(rows, &files), ["b.en:1 three>"]);
}

#[test]
fn an_empty_side_is_an_error_where_it_stands() {
    let files = directory(&[("a.en", "one\n \nthree\n\n"), ("a.de", "eins\nzwei\n\n\n")]);
    let rows = || parallel(&files, &["a.en", "a.de"], &SOURCE_AND_TARGET).unwrap();
    let expected = [
        "a.en:1 one>eins",
        "a.en:2: the field `source` is blank",
        "a.de:3: the field `target` is blank",
        "a.en:4: the field `source` is blank",
    ];
    assert_eq!(told(rows(), &files), expected);
    let (kept, skipped) = rows().settle(OnError::Skip).unwrap();
    assert_eq!((kept.len(), skipped.count), (1, 3));
    assert!(rows().settle(OnError::Stop).is_err());
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let files = directory(&[
        ("a.en", "one\ntwo\n"),
        ("a.de", "eins\n"),
        ("b.en", "one"),
        ("c.txt", ""),
    ]);
    for (names, expected) in [
        (&["a.en", "a.de"][..], "a.en has 2 lines, a.de has 1"),
        (
            &["a.en"],
            "parallel files come in pairs, found 1 of sources and 0 of targets",
        ),
        (
            &["*.en", "a.de"],
            "parallel files come in pairs, found 2 of sources and 1 of targets",
        ),
        (&["b.en", "c.txt"], "c.txt is empty"),
        (&["b.en", "b.de"], "no such file: b.de"),
        (&[], "no data file is given"),
    ] {
        let error = parallel(&files, names, &SOURCE_AND_TARGET).unwrap_err();
        let prefix = format!("{}/", files.path().display());
        assert_eq!(error.to_string().replace(&prefix, ""), expected);
    }
    let error = parallel(&files, &["b.en", "a.de"], &TEXT).unwrap_err();
    assert_eq!(
        short(&error),
        "rows in the format `parallel` have no field `text`"
    );
}

#[test]
fn cells_between_bars() {
    let bars = Some(RowFormat::Bars);
    let content = "name : A | food : b||So it is . \n\na||b||c\n||x\n a | b || c|d \n";
    let rows = read("t.txt", content, &SOURCE_AND_TARGET, bars, "").unwrap();
    let rows = crate::rows::testing::told(sequence_rows(rows), |row| {
        format!("{}>{}", row.source, row.target.unwrap_or_default())
    });
    assert_eq!(rows[0].as_deref(), Ok("name : A | food : b>So it is ."));
    assert!(
        rows[1]
            .as_ref()
            .is_err_and(|error| error.starts_with("t.txt:3")),
        "{rows:?}"
    );
    assert_eq!(
        rows[2],
        Err("t.txt:4: the field `source` is blank".to_owned())
    );
    assert_eq!(rows[3].as_deref(), Ok("a | b>c|d"));
    for (content, fields, expected) in [
        (
            "a\n",
            "",
            "t.txt:1: no `target` for the field `target`, found `1 columns without names`",
        ),
        (
            "a||b\n",
            "source=1,target=3",
            "t.txt:1: no `3` for the field `target`, found `2 columns without names`",
        ),
        (
            "a||b\n",
            "source=x,target=y",
            "t.txt:1: no `x` for the field `source`, found `2 columns without names`",
        ),
        (
            " \n",
            "",
            "t.txt holds no document: every one of its 1 lines is blank",
        ),
    ] {
        let error = read("t.txt", content, &SOURCE_AND_TARGET, bars, fields).unwrap_err();
        assert_eq!(short(&error), expected);
    }
}
