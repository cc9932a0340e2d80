mod features;

use std::fs;

use proptest::prelude::*;

use super::*;

/// Reads a file of the given bytes.
fn read(bytes: impl AsRef<[u8]>, selection: &Selection) -> Result<Table> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.csv");
    fs::write(&path, bytes).unwrap();
    read_csv(&path, selection)
}

fn predict_y() -> Selection {
    Selection {
        target: "y".to_owned(),
        features: None,
        missing: MissingPolicy::Error,
    }
}

fn from(features: &[&str]) -> Selection {
    Selection {
        features: Some(features.iter().map(|name| (*name).to_owned()).collect()),
        ..predict_y()
    }
}

fn dropping(selection: Selection) -> Selection {
    Selection {
        missing: MissingPolicy::DropRows,
        ..selection
    }
}

/// The message without the directory, and the hint.
fn error(bytes: impl AsRef<[u8]>, selection: &Selection) -> (String, String) {
    let error = read(bytes, selection).unwrap_err();
    let message = error.to_string();
    let message = match message.split_once("t.csv") {
        Some((_, rest)) => format!("t.csv{rest}"),
        None => message,
    };
    (message, error.hint().unwrap_or_default())
}

#[test]
fn every_other_column_is_a_feature() {
    let table = read("a,y,b\n1,2,3\n-4.5,+5e2,.25\n", &predict_y()).unwrap();
    assert_eq!(table.features, ["a", "b"]);
    assert_eq!(table.target, "y");
    assert_eq!(table.x, [1.0, 3.0, -4.5, 0.25]);
    assert_eq!(table.y, [2.0, 500.0]);
    assert_eq!((&table.rows[..], table.n_rows), (&[0, 1][..], 2));
    assert!(table.dropped.is_empty());
    let digest = table.digest.unwrap();
    assert_eq!(digest.bytes, 26);
    assert!(digest.path.ends_with("t.csv"));
    assert_eq!(digest.sha256.len(), 64);
}

#[test]
fn features_come_in_the_order_of_their_names() {
    let text = "a,y,name,b\n1,2,ford,3\n4,5,?,6\n";
    let table = read(text, &from(&["b", "a"])).unwrap();
    assert_eq!(table.features, ["b", "a"]);
    // The column of text is not selected; what it holds does not matter, nor that it lacks a value.
    assert_eq!(table.x, [3.0, 1.0, 6.0, 4.0]);
}

#[test]
fn marks_line_ends_quotes_blank_lines_and_white_space_are_no_values() {
    let plain = read("a,y\n1,2\n3,4\n", &predict_y()).unwrap();
    for text in [
        "\u{feff}a,y\n1,2\n3,4\n",
        "a,y\r\n1,2\r\n3,4\r\n",
        "a,y\n1,2\n3,4",
        "\"a\",\"y\"\n\"1\",2\n3,\"4\"\n",
        " a , y\t\n 1,2 \n3 , 4\n",
        "\n\na,y\n\n1,2\n   \n3,4\n\n\n",
        "a,y\r1,2\r3,4\r",
    ] {
        let table = read(text, &predict_y()).unwrap();
        let digest = plain.digest.clone();
        assert_eq!(Table { digest, ..table }, plain, "{text:?}");
    }
}

#[test]
fn a_quoted_cell_may_span_lines_and_the_lines_after_it_are_counted() {
    let text = "note,y,a\r\n\"one, \"\"two\"\"\r\nthree\",1,2\r\n\r\nx,3,?\r\n";
    assert_eq!(
        read(text, &dropping(from(&["a"]))).unwrap().dropped,
        [5],
        "the second record is on line 5"
    );
}

#[test]
fn missing_values_are_listed() {
    let text = "a,b,y\n1,2,3\n,2,3\n1,NA,3\n1,2,null\n7,8,9\n?,n/a,NaN\n";
    assert_eq!(
        error(text, &predict_y()),
        (
            "t.csv: missing values in 4 of 6 rows, columns `a`, `b`, `y`, lines 3, 4, 5, 7"
                .to_owned(),
            "fill them in, leave these columns out of the features, or drop the rows with \
             missing = \"drop_rows\" in [data], or --drop-rows with `predict`"
                .to_owned()
        )
    );
    assert_eq!(
        error(text, &from(&["b"])).0,
        "t.csv: missing values in 3 of 6 rows, columns `b`, `y`, lines 4, 5, 7"
    );
    let many = format!("a,y\n{}", "NULL,1\n".repeat(13));
    assert_eq!(
        error(many, &predict_y()).0,
        "t.csv: missing values in 13 of 13 rows, columns `a`, lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 \
         and 3 more"
    );
}

#[test]
fn rows_with_missing_values_are_dropped_on_request() {
    let text = "a,b,y\n1,2,3\n,2,3\n1,NA,3\n1,2,null\n7,8,9\n?,n/a,NaN\n";
    let table = read(text, &dropping(predict_y())).unwrap();
    assert_eq!(table.dropped, [3, 4, 5, 7]);
    assert_eq!((&table.rows[..], table.n_rows), (&[0, 4][..], 2));
    assert_eq!(table.x, [1.0, 2.0, 7.0, 8.0]);
    assert_eq!(table.y, [3.0, 9.0]);
    assert_eq!(
        error("a,y\n,1\n2,\n", &dropping(predict_y())),
        (
            "t.csv has no rows left: all 2 have missing values".to_owned(),
            "name features that leave out the columns whose values are missing".to_owned()
        )
    );
}

#[test]
fn text_is_refused_where_a_number_is_expected() {
    let text = "a,name,y\n1,ford,2\n";
    let (message, hint) = error(text, &predict_y());
    assert_eq!(message, "t.csv:2: column `name` is not a number: \"ford\"");
    assert!(
        hint.contains("features = [\"a\", \"b\"]") && hint.contains("leave `name` out"),
        "{hint}"
    );
    assert_eq!(
        error(text, &from(&["name"])).1,
        "correct the value, or choose another column than `name`"
    );
    // Beside a missing value of the same row, and whatever the policy.
    assert_eq!(
        error("a,b,y\n,b,2\n", &dropping(predict_y())).0,
        "t.csv:2: column `b` is not a number: \"b\""
    );
    let long = "é".repeat(250);
    assert_eq!(
        error(format!("a,y\n1,1\n1,{long}\n"), &predict_y()).0,
        format!(
            "t.csv:3: column `y` is not a number: \"{}…\"",
            "é".repeat(200)
        )
    );
    // What can be a number in two ways, and what in none.
    let (message, hint) = error("a,y\n1,\"1,234\"\n2,\"5,678\"\n", &predict_y());
    assert_eq!(message, "t.csv: \"1,234\" may mean 1234 or 1.234");
    assert!(hint.starts_with("write decimals with a point"), "{hint}");
    let (message, hint) = error("a,y\n1,\"1,234.5\"\n2,\"1.234,5\"\n", &predict_y());
    assert_eq!(message, "t.csv:2: column `y` is not a number: \"1,234.5\"");
    assert!(hint.starts_with("write decimals with a point"), "{hint}");
    assert_eq!(
        error("a,y\n1,\"2\n\"\"3\"\n", &predict_y()).0,
        "t.csv:2: column `y` is not a number: \"2\\n\"3\""
    );
}

#[test]
fn numbers_are_finite() {
    for text in ["inf", "-Infinity", "1e999", "+nan"] {
        for selection in [predict_y(), dropping(predict_y())] {
            assert_eq!(
                error(format!("a,y\n1,2\n3,{text}\n"), &selection),
                (
                    format!("t.csv:3: column `y` is not finite: \"{text}\""),
                    "correct the value, or leave the cell empty if it is not known".to_owned()
                )
            );
        }
    }
}

#[test]
fn the_same_table_is_read_as_spreadsheets_write_it() {
    let plain = "a,b,y\n1234.5,2,-0.5\n7,0.25,1000\n";
    let expected = read(plain, &predict_y()).unwrap();
    let others = [
        "\u{feff}\"a\",\"b\",\"y\"\r\n\"1234.5\",\"2\",\"-0.5\"\r\n7,0.25,1000\r\n",
        "a;b;y\n1234.5;2;-0.5\n7;0.25;1000\n",
        "a;b;y\n1234,5;2;-0,5\n7;0,25;1000\n",
        "a;b;y\n1.234,5;2;-0,5\n7;0,25;1.000\n",
        "a\tb\ty\n1234,5\t2\t-0,5\n7\t0,25\t1 000\n",
        "a,b,y\n\"1,234.5\",2,-0.5\n7,0.25,\"1,000\"\n",
        "a,b,y\n\"1234,5\",2,\"-0,5\"\n7,\"0,25\",1000\n",
        "a|b|y\n1234.5|2|-0.5\n\n7|0.25|1000\n",
    ];
    for text in others {
        let table = read(text, &predict_y()).unwrap();
        assert_eq!((&table.x, &table.y), (&expected.x, &expected.y), "{text}");
        assert_eq!(table.features, expected.features);
    }
}

#[test]
fn names_matter_where_they_are_used() {
    let text = ",a,note,note,y\n0,1,x,x,2\n";
    let table = read(text, &from(&["a"])).unwrap();
    assert_eq!((&table.x[..], &table.y[..]), (&[1.0][..], &[2.0][..]));
    let (message, hint) = error(text, &from(&["note"]));
    assert_eq!(message, "t.csv: columns 3 and 4 are both named `note`");
    assert_eq!(hint, "rename one of the two columns");
}

#[test]
fn names_are_unique_and_not_empty() {
    assert_eq!(
        error("a,y, a \n1,2,3\n", &predict_y()).0,
        "t.csv: columns 1 and 3 are both named `a`"
    );
    let (message, hint) = error(",a,y\n0,1,2\n", &predict_y());
    assert_eq!(message, "t.csv: column 1 of the header has no name");
    assert!(hint.contains("index=False"), "{hint}");
}

#[test]
fn unknown_columns_have_a_nearest_match() {
    assert_eq!(
        error("weight,Y\n1,2\n", &predict_y()),
        (
            "t.csv: no column `y` for the target, found `weight`, `Y`".to_owned(),
            "did you mean `Y`?".to_owned()
        )
    );
    assert_eq!(
        error("weight,y\n1,2\n", &from(&["wieght"])),
        (
            "t.csv: no column `wieght` for the features, found `weight`, `y`".to_owned(),
            "did you mean `weight`?".to_owned()
        )
    );
    let header: Vec<String> = (0..14).map(|n| format!("c{n}")).collect();
    let (message, hint) = error(header.join(","), &predict_y());
    assert!(message.ends_with("`c8`, `c9` and 4 more"), "{message}");
    assert_eq!(hint, "");
    let headless = error("1.5,2\n3,4\n", &predict_y()).1;
    assert!(headless.starts_with("the first line looks like data"));
}

#[test]
fn features_are_chosen_once_and_without_the_target() {
    let text = "a,y\n1,2\n";
    assert_eq!(
        error(text, &from(&["a", "y"])),
        (
            "the target `y` is among the features".to_owned(),
            "take it out of the features".to_owned()
        )
    );
    assert_eq!(
        error(text, &from(&["a", "a"])).0,
        "the feature `a` is named twice"
    );
    for (text, selection) in [(text, from(&[])), ("y\n1\n", predict_y())] {
        assert_eq!(
            error(text, &selection).0,
            "there are no features to predict `y` from"
        );
    }
}

#[test]
fn records_are_as_long_as_the_header() {
    assert_eq!(
        error("a,y\n1,2\n\n3,4,5\n", &predict_y()),
        (
            "t.csv:4: expected 2 cells as in the header, found 3".to_owned(),
            "put a cell that has a comma in it into double quotes".to_owned()
        )
    );
    let (message, hint) = error("a,b,y\r\n1,2,3\r\n1,2\r\n", &predict_y());
    assert_eq!(
        message,
        "t.csv:3: expected 3 cells as in the header, found 2"
    );
    assert!(hint.contains("empty cell"));
}

#[test]
fn a_forgotten_quote_does_not_swallow_rows() {
    // The last column is not selected, and as many cells are there as in the header.
    for rest in ["oops\n3,4,fine\n", "", "\"\"\n", "a\"\""] {
        let text = format!("a,y,note\n1,2,ok\n1,2,\"{rest}");
        assert_eq!(
            error(&text, &from(&["a"])),
            (
                "t.csv:3: a quoted cell of this record is never closed".to_owned(),
                "close the cell with a double quote; a quote inside it is written twice".to_owned()
            ),
            "{text:?}"
        );
    }
    // Here the first quote of a later line closes the cell.
    for rest in ["oops\n3,4,\"fine\"\n5,6,\n", "a\"b\"", "a\" \"b"] {
        let text = format!("a,y,note\n1,2,ok\n1,2,\"{rest}");
        assert_eq!(
            error(&text, &from(&["a"])).0,
            "t.csv:3: text follows a closing quote in this record",
            "{text:?}"
        );
    }
    // These are closed, or are no quotes at all.
    for last in ["\"\"", "\"a\"\"\"", "6\" pipe", "\"a\" ", "\"a,\nb\"\n\n"] {
        let text = format!("a,y,note\n1,2,{last}");
        assert_eq!(read(&text, &from(&["a"])).unwrap().n_rows, 1, "{text:?}");
    }
}

#[test]
fn files_without_rows_or_text_are_refused() {
    for text in ["", "\u{feff}", "\n \r\n"] {
        assert_eq!(
            error(text, &predict_y()),
            (
                "t.csv is empty".to_owned(),
                "the first line names the columns, every further line is a row".to_owned()
            )
        );
    }
    assert_eq!(error("a,y\n\n", &predict_y()).0, "t.csv has no rows");
    assert_eq!(
        error(b"a,y\n1,2\n\xe9,2\n", &predict_y())
            .0
            .split(';')
            .next(),
        Some("t.csv:3: invalid UTF-8 at byte 8 of the file")
    );
    let utf16 = error(b"\xff\xfea\0,\0y\0", &predict_y()).1;
    assert!(utf16.contains("UTF-16"), "{utf16}");
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("cars.csv"), "a,y\n1,2\n").unwrap();
    let error = read_csv(&directory.path().join("car.csv"), &predict_y()).unwrap_err();
    assert!(error.to_string().starts_with("no such file: "));
    assert_eq!(error.hint().unwrap(), "did you mean `cars.csv`?");
    let error = read_csv(directory.path(), &predict_y()).unwrap_err();
    assert_eq!(error.hint().unwrap(), "name the .csv file in it");
}

#[test]
fn the_policy_has_a_name_in_files() {
    let json = serde_json::to_string(&[MissingPolicy::default(), MissingPolicy::DropRows]).unwrap();
    assert_eq!(json, r#"["error","drop_rows"]"#);
}

proptest! {
    #[test]
    fn finite_numbers_survive_writing_and_reading(
        rows in prop::collection::vec(
            prop::array::uniform3(any::<f64>().prop_filter("finite", |v| v.is_finite())), 1..20),
        quoted: bool,
        crlf: bool,
    ) {
        let (quote, end) = (if quoted { "\"" } else { "" }, if crlf { "\r\n" } else { "\n" });
        let mut text = format!("a,b,y{end}");
        for row in &rows {
            let cells = row.map(|value| format!("{quote}{value:e}{quote}"));
            text += &cells.join(",");
            text += end;
        }
        let table = read(&text, &predict_y()).unwrap();
        let x: Vec<f64> = rows.iter().flat_map(|row| row[..2].to_vec()).collect();
        prop_assert_eq!(table.x, x);
        prop_assert_eq!(table.y, rows.iter().map(|row| row[2]).collect::<Vec<_>>());
    }

    #[test]
    fn the_line_of_a_record_is_right_whatever_is_before_it(
        before in prop::collection::vec(
            prop::sample::select(vec!["1,2,n", "1,2,\"a\nb\"", "1,2,\"a\r\n\r\nb\"", "", "  ", "1,2,\"\"\"\""]),
            0..12),
        end in prop::sample::select(vec!["\n", "\r\n"]),
    ) {
        let head = format!("a,y,note{end}{}", before.iter().map(|r| format!("{r}{end}")).collect::<String>());
        let text = format!("{head}1,wrong,n{end}");
        let line = 1 + head.matches('\n').count();
        let found = error(text, &from(&["a"])).0;
        prop_assert_eq!(found, format!("t.csv:{line}: column `y` is not a number: \"wrong\""));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(
        prop::sample::select(b"ay1,,\"\"\n\r -?.\xc3\xef\xbb\xbf".to_vec()), 0..60), drop: bool,
    ) {
        let selection = if drop { dropping(predict_y()) } else { predict_y() };
        let mut text = b"a,y\n".to_vec();
        text.extend(&bytes);
        for bytes in [&bytes, &text] {
            match read(bytes, &selection) {
                Ok(table) => {
                    prop_assert_eq!(table.x.len(), table.n_rows * table.n_features());
                    prop_assert_eq!(table.y.len(), table.n_rows);
                    prop_assert_eq!(table.rows.len(), table.n_rows);
                    prop_assert!(table.x.iter().chain(&table.y).all(|value| value.is_finite()));
                }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
