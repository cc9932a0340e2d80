//! Reading only what is predicted from, and only the names.

use super::*;

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

/// Writes a file and hands it over.
fn with_file<T>(bytes: impl AsRef<[u8]>, read: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.csv");
    fs::write(&path, bytes).unwrap();
    read(&path)
}

fn features(
    bytes: impl AsRef<[u8]>,
    list: &[&str],
    missing: MissingPolicy,
) -> std::result::Result<Table, (String, String)> {
    let read = with_file(bytes, |path| {
        read_features(path, &names(list), "y", missing, Notation::Plain)
    });
    read.map_err(|error| {
        let message = error.to_string();
        let message = match message.split_once("t.csv") {
            Some((_, rest)) => format!("t.csv{rest}"),
            None => message,
        };
        (message, error.hint().unwrap_or_default())
    })
}

#[test]
fn features_are_read_without_a_target() {
    let text = "name,b,y,a\nx,2,?,1\ny,4,7,3\n";
    let table = features(text, &["a", "b"], MissingPolicy::Error).unwrap();
    assert_eq!(table.features, ["a", "b"]);
    assert_eq!(table.x, [1.0, 2.0, 3.0, 4.0]);
    assert_eq!((table.target.as_str(), &table.y[..]), ("y", &[][..]));
    assert_eq!((&table.rows[..], table.n_rows), (&[0, 1][..], 2));
    assert_eq!(table.digest.unwrap().bytes, text.len() as u64);
}

#[test]
fn rows_without_a_feature_are_refused_or_dropped() {
    let text = "a,b,y\n1,2,3\n,2,3\n\n4,NA,\n7,8,\n";
    let (message, hint) = features(text, &["b", "a"], MissingPolicy::Error).unwrap_err();
    assert_eq!(
        message,
        "t.csv: missing values in 2 of 4 rows, columns `b`, `a`, lines 3, 5"
    );
    assert!(!hint.is_empty());
    let table = features(text, &["b", "a"], MissingPolicy::DropRows).unwrap();
    assert_eq!(table.x, [2.0, 1.0, 8.0, 7.0]);
    // Rows are counted from 0 without the header and blank lines, lines as an editor does.
    assert_eq!((table.rows, table.dropped), (vec![0, 3], vec![3, 5]));
    // What is not a feature may be missing.
    let table = features(text, &["b"], MissingPolicy::DropRows).unwrap();
    assert_eq!(table.x, [2.0, 2.0, 8.0]);
}

#[test]
fn features_that_cannot_be_read_are_named() {
    let read = |text: &str, list: &[&str]| features(text, list, MissingPolicy::Error).unwrap_err();
    let cases: [(&str, &[&str], &str, &str); 8] = [
        (
            "weight,y\n1,2\n",
            &["wieght"],
            "t.csv: no column `wieght` for the features",
            "did you mean `weight`?",
        ),
        (
            "a,y\n1,2\n",
            &["a", "a"],
            "the feature `a` is named twice",
            "once",
        ),
        ("a,y\n1,2\n", &[], "there are no features", "at least one"),
        (
            "a,y\nx,2\n",
            &["a"],
            "t.csv:2: column `a` is not a number: \"x\"",
            "another column than `a`",
        ),
        (
            "a,y\ninf,2\n",
            &["a"],
            "t.csv:2: column `a` is not finite: \"inf\"",
            "correct",
        ),
        (
            "a,y\n1\n",
            &["a"],
            "t.csv:2: expected 2 cells",
            "empty cell",
        ),
        ("a,y\n", &["a"], "t.csv has no rows", "further line"),
        ("", &["a"], "t.csv is empty", "first line"),
    ];
    for (text, list, message, hint) in cases {
        let (found, found_hint) = read(text, list);
        assert!(found.starts_with(message), "{found}");
        assert!(found_hint.contains(hint), "{found_hint}");
    }
}

/// The names of a file's columns.
fn read_header(path: &Path) -> Result<Vec<String>> {
    let bytes = read_data(path)?.0;
    header(
        path,
        &mut Records::new(path, utf8(path, &bytes)?, Dialect::CSV),
    )
}

#[test]
fn names_are_those_of_the_first_line_that_is_not_blank() {
    let header = |bytes: &[u8]| with_file(bytes, read_header);
    assert_eq!(
        header(b"a, b ,\"c, d\"\n1,2,3\n").unwrap(),
        ["a", "b", "c, d"]
    );
    assert_eq!(header(b"\xef\xbb\xbf\r\n\r\na\r\n").unwrap(), ["a"]);
    // The rows are not looked at.
    assert_eq!(header(b"a,b\nx\n\"\n").unwrap(), ["a", "b"]);
    for (bytes, message) in [
        (&b""[..], "is empty"),
        (b" \n\n", "is empty"),
        (b"\"a,b\n", "never closed"),
        (b"\xff,b\n", "invalid UTF-8"),
    ] {
        let error = header(bytes).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
    let error = read_header(Path::new("no-such-file.csv")).unwrap_err();
    assert!(error.to_string().contains("no-such-file.csv"), "{error}");
}

proptest! {
    /// Both ways of reading see the same features.
    #[test]
    fn a_target_changes_no_feature(
        rows in prop::collection::vec(prop::array::uniform3(prop::option::of(-1e6..1e6_f64)), 1..20),
        drop: bool,
    ) {
        let mut text = "a,y,b\n".to_owned();
        for [a, y, b] in &rows {
            let cell = |value: &Option<f64>| value.map_or_else(String::new, |value| value.to_string());
            // The target is there, so that the same rows are complete.
            text += &format!("{},{},{}\n", cell(a), y.unwrap_or(0.0), cell(b));
        }
        let missing = if drop { MissingPolicy::DropRows } else { MissingPolicy::Error };
        let selection = Selection { missing, ..from(&["b", "a"]) };
        match (features(&text, &["b", "a"], missing), read(&text, &selection)) {
            (Ok(alone), Ok(with_target)) => {
                prop_assert_eq!(alone.x, with_target.x);
                prop_assert_eq!(alone.rows, with_target.rows);
                prop_assert_eq!(alone.dropped, with_target.dropped);
            }
            (Err(_), Err(_)) => {}
            (alone, with_target) => prop_assert!(false, "{alone:?} {with_target:?}"),
        }
    }
}
