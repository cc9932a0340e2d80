//! Tables, templates, chosen fields, and rows that cannot be read.

use super::*;
use crate::preprocess::StopWords;

/// The documents of a file, each as its prompt and the rest, and the report.
fn read_as(
    name: &str,
    content: &str,
    options: &ReadOptions,
) -> Result<(Vec<(String, String)>, ReadReport)> {
    let (_directory, path) = file(name, content);
    let source = read_documents(&[path], options)?;
    let parts = source.documents.iter().map(|document| {
        let (prompt, rest) = document.text.split_at(document.prompt_len.unwrap_or(0));
        (prompt.to_owned(), rest.to_owned())
    });
    Ok((parts.collect(), source.report))
}

fn documents(name: &str, content: &str, options: &ReadOptions) -> Vec<(String, String)> {
    read_as(name, content, options).unwrap().0
}

fn pair(prompt: &str, rest: &str) -> (String, String) {
    (prompt.to_owned(), rest.to_owned())
}

fn fields(text: &str) -> ReadOptions {
    ReadOptions {
        fields: text.parse().unwrap(),
        ..ReadOptions::default()
    }
}

fn template(text: &str) -> ReadOptions {
    ReadOptions {
        template: Some(text.parse().unwrap()),
        ..ReadOptions::default()
    }
}

#[test]
fn the_same_examples_come_from_every_table() {
    let expected = [pair("a, \"b\"", "x"), pair("c;d", "y|z")];
    let plain = ReadOptions::default();
    let cases = [
        (
            "t.csv",
            "prompt,completion\n\"a, \"\"b\"\"\",x\n\nc;d,y|z\n",
            &plain,
        ),
        (
            "t.csv",
            "prompt;completion\r\n\"a, \"\"b\"\"\";x\r\n\"c;d\";y|z\r\n",
            &plain,
        ),
        (
            "t.csv",
            "prompt\tcompletion\n\"a, \"\"b\"\"\"\tx\nc;d\ty|z\n",
            &plain,
        ),
        (
            "t.csv",
            "completion|n|prompt\nx|1|\"a, \"\"b\"\"\"\n\"y|z\"|2|c;d\n",
            &plain,
        ),
        (
            "t.TSV",
            "\u{feff}prompt\tcompletion\na, \"b\"\tx\nc;d\ty|z\n",
            &plain,
        ),
        (
            "t.csv",
            "q,,a,a\n\"a, \"\"b\"\"\",1,x,2\nc;d,1,y|z,2\n",
            &fields("prompt=q,completion=b"),
        ),
    ];
    for (name, content, options) in &cases[..5] {
        assert_eq!(documents(name, content, options), expected, "{content}");
    }
    let (name, content, options) = &cases[5];
    let error = read_as(name, content, options).unwrap_err();
    assert!(
        matches!(
            error,
            DataError::UnknownFields { .. } | DataError::MissingField { .. }
        ),
        "{error}"
    );
    // Names that are missing or there twice matter where they are asked for.
    let unused = content.replace(",a,a\n", ",b,\n");
    assert_eq!(documents(name, &unused, options), expected);
    let twice = content.replace(",a,a\n", ",b,b\n");
    let error = read_as(name, &twice, options).unwrap_err();
    assert_eq!(
        message(&error),
        "t.csv:1: columns 3 and 4 are both named `b`"
    );
}

#[test]
fn a_table_without_a_header_has_numbered_columns() {
    let content = "x,0,a\ny,0,b\n";
    let expected = [pair("a", "x"), pair("b", "y")];
    for numbers in ["prompt=3,completion=1", "prompt=2,completion=0"] {
        assert_eq!(documents("t.csv", content, &fields(numbers)), expected);
    }
    let error = read_as("t.csv", content, &fields("text=4")).unwrap_err();
    assert_eq!(
        message(&error),
        "t.csv:1: no field `4`, found `1`, `2`, `3`"
    );
}

#[test]
fn fields_say_which_column_is_which() {
    let jsonl = "{\"review\": \"a\", \"frage\": \"p\", \"antwort\": \"c\", \"text\": 5}\n";
    let cases = [
        ("text=review", pair("", "a")),
        ("prompt=frage,completion=antwort", pair("p", "c")),
        ("question=frage,answer=review", pair("p", "a")),
    ];
    for (text, expected) in cases {
        assert_eq!(
            documents("t.jsonl", jsonl, &fields(text)),
            [expected],
            "{text}"
        );
    }
    let alpaca = ReadOptions {
        format: Some(Format::Alpaca),
        ..fields("instruction=frage,output=antwort,input=review")
    };
    let (documents, report) = read_as("t.jsonl", jsonl, &alpaca).unwrap();
    assert!(
        documents[0]
            .0
            .contains("### Instruction:\np\n\n### Input:\na\n\n"),
        "{documents:?}"
    );
    assert_eq!(report.formats, [Format::Alpaca]);

    let refused = [
        (
            fields("texts=review"),
            "no field `texts`, the fields are `answer`, `completion`,",
        ),
        (
            fields("text=a,prompt=b"),
            "no form of a row has all fields of `prompt=b,text=a`",
        ),
        (
            ReadOptions {
                format: Some(Format::Alpaca),
                ..fields("prompt=a")
            },
            "no field `prompt`, the fields are `input`, `instruction`, `output`",
        ),
        (
            ReadOptions {
                format: Some(Format::Alpaca),
                ..template("{a}")
            },
            "the format `alpaca` and a template both say what becomes of a row",
        ),
        (
            ReadOptions {
                fields: "b=c".parse().unwrap(),
                ..template("{a}")
            },
            "no field `b`, the fields are `a`",
        ),
    ];
    for (options, expected) in refused {
        let error = read_as("t.jsonl", jsonl, &options).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
        assert!(error.hint().is_some(), "{error}");
    }
}

#[test]
fn a_template_makes_texts_of_rows() {
    let jsonl = "{\"question\": \"2 + 2?\", \"answer\": \"It is 4.\", \"n\": 4, \"ok\": true}\n";
    let cases = [
        (
            "Question: {question}\nAnswer: {answer}",
            pair("Question: 2 + 2?\nAnswer: ", "It is 4."),
        ),
        (
            "Q: {question}\nA: {answer}\n",
            pair("", "Q: 2 + 2?\nA: It is 4.\n"),
        ),
        ("A: {answer}", pair("", "A: It is 4.")),
        ("{{{ok}}} {n}", pair("{true} ", "4")),
        ("{n}", pair("", "4")),
    ];
    for (text, expected) in cases {
        assert_eq!(
            documents("t.jsonl", jsonl, &template(text)),
            [expected],
            "{text}"
        );
    }
    let named = ReadOptions {
        fields: "q=question,a=answer".parse().unwrap(),
        ..template("{q} {a}")
    };
    assert_eq!(
        documents("t.jsonl", jsonl, &named),
        [pair("2 + 2? ", "It is 4.")]
    );
    let csv = "question,answer\na,b\n";
    assert_eq!(
        documents("t.csv", csv, &template("{question}: {answer}")),
        [pair("a: ", "b")]
    );
    let lines = ReadOptions {
        format: Some(Format::Lines),
        ..template("- {text}\n")
    };
    assert_eq!(
        documents("t.txt", "a\n\nb\n", &lines),
        [pair("", "- a\n"), pair("", "- b\n")]
    );

    let error = read_as("t.jsonl", jsonl, &template("{questoin}")).unwrap_err();
    assert!(
        message(&error).starts_with("t.jsonl:1: no field `questoin`"),
        "{error}"
    );
    for text in ["", "no field", "{a", "a}", "{}", "{ }", "{a{b}}"] {
        assert!(
            matches!(text.parse::<Template>(), Err(DataError::Template { .. })),
            "{text}"
        );
    }
}

#[test]
fn every_line_may_be_a_document() {
    let lines = ReadOptions::of(Format::Lines);
    let (documents, report) = read_as("t.txt", "\u{feff}one\r\n\n  two \nthree", &lines).unwrap();
    assert_eq!(
        documents,
        [pair("", "one"), pair("", "  two "), pair("", "three")]
    );
    assert_eq!(
        (report.formats, report.files[0].bytes),
        (vec![Format::Lines], 21)
    );
    let error = read_as("t.txt", "\n \n", &lines).unwrap_err();
    assert!(
        matches!(error, DataError::NoDocuments { lines: 2, .. }),
        "{error}"
    );
}

const FAULTY: &str = "{\"instruction\": \"a\", \"output\": \"1\"}\n{\"instruction\": \"b\", \"output\": \"\"}\n{\"instruction\": \"c\", \
    \"output\": 5}\n{\"instruction\": \"d\", \"output\": \" \"}\nnothing\n{\"instruction\": \"e\", \"output\": \"2\"}\n\
    {\"instruction\": \"f\", \"output\": \"\\n\"}\n";

#[test]
fn all_rows_with_the_same_fault_are_named_at_once() {
    let error = read_as("t.jsonl", FAULTY, &ReadOptions::default()).unwrap_err();
    assert_eq!(
        message(&error),
        "t.jsonl:2: the response in `output` is empty (3 such rows: also line 4, line 7)"
    );
    assert_eq!(
        error.hint().unwrap(),
        "there is nothing to learn from it; write the response; or leave such rows out with on_error = \"skip\" \
         (--on-error skip)"
    );
    let many = "{\"text\": null}\n".repeat(30);
    let error = read_as(
        "t.jsonl",
        &format!("{{\"text\": \"a\"}}\n{many}"),
        &ReadOptions::default(),
    );
    let message = error.unwrap_err().to_string();
    assert!(message.ends_with("(30 such rows: also line 3, line 4, line 5, line 6, line 7, line 8, line 9, line 10, line 11 \
        and 20 more)"), "{message}");
    let array = "[{\"text\": \"a\"}, {\"text\": 1}, {\"text\": 2}]";
    let error = read_as("t.json", array, &ReadOptions::default()).unwrap_err();
    assert!(
        error.to_string().ends_with("(2 such rows: also item 3)"),
        "{error}"
    );
}

#[test]
fn rows_that_cannot_be_read_are_left_out_and_counted() {
    let skip = ReadOptions {
        on_error: OnError::Skip,
        ..ReadOptions::default()
    };
    let (documents, report) = read_as("t.jsonl", FAULTY, &skip).unwrap();
    assert_eq!(documents.len(), 2);
    assert_eq!((report.skipped.count, report.skipped.first.len()), (5, 3));
    assert!(report.skipped.first[1].ends_with(":3: the field `output` is a number, not a string"));
    // The first row that can be read says what the rows are.
    let (documents, report) =
        read_as("t.jsonl", &format!("{{\"x\": 1}}\n{FAULTY}"), &skip).unwrap();
    assert_eq!(
        (documents.len(), report.skipped.count, report.formats),
        (2, 6, vec![Format::Alpaca])
    );
    let (documents, report) = read_as("t.csv", "text,n\na,1\nb\nc,1,2\n", &skip).unwrap();
    assert_eq!((documents, report.skipped.count), (vec![pair("", "a")], 2));

    let error = read_as("t.jsonl", "{\"text\": 1}\n\n{\"text\": 2}\n", &skip).unwrap_err();
    assert!(
        error.to_string().starts_with("none of the 2 rows of "),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("t.jsonl:1: the field `text` is a number"),
        "{error}"
    );
    // Behind a fault in an array nothing can be found.
    let error = read_as("t.json", "[{\"text\": \"a\"}, {\"text\": }]", &skip).unwrap_err();
    assert!(matches!(error, DataError::InvalidJson { .. }), "{error}");
}

#[test]
fn numbers_that_are_none_are_missing_values() {
    let content =
        "{\"instruction\": \"a\", \"input\": NaN, \"output\": \"NaN\", \"score\": -Infinity}\n";
    let lines = documents("t.jsonl", content, &ReadOptions::default());
    assert!(lines[0].0.ends_with("### Instruction:\na\n\n### Response:"));
    assert_eq!(lines[0].1, "NaN");
    let array = format!("[{content}]");
    assert_eq!(documents("t.json", &array, &ReadOptions::default()), lines);
    let error = error("t.jsonl", "{\"text\": \"a\"}\n{\"text\": NaN}\n");
    assert_eq!(
        message(&error),
        "t.jsonl:2: the field `text` is null, not a string"
    );
}

#[test]
fn data_for_later_is_refused_by_name() {
    let messages = "[{\"role\": \"user\", \"content\": \"Hi\"}]";
    let cases = [
        (
            format!("{{\"messages\": {messages}}}"),
            "the messages of a conversation (`messages`)",
            "\"completion\"",
        ),
        (
            "{\"id\": 1, \"conversations\": [{\"from\": \"human\", \"value\": \"Hi\"}]}".to_owned(),
            "the messages of a conversation (`conversations`)",
            "\"completion\"",
        ),
        (
            format!("{{\"prompt\": {messages}, \"completion\": {messages}}}"),
            "the messages of a conversation (`prompt`)",
            "\"completion\"",
        ),
        (
            "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}".to_owned(),
            "a pair of `chosen` and `rejected` responses",
            "completion=chosen",
        ),
    ];
    for (object, what, hint) in &cases {
        for (name, content) in [
            ("t.jsonl", object.clone()),
            ("t.json", format!("[\n{object}]")),
        ] {
            let error = error(name, content);
            assert!(
                error
                    .to_string()
                    .ends_with(&format!("{what} cannot be learned from yet")),
                "{error}"
            );
            assert!(error.hint().unwrap().contains(hint), "{:?}", error.hint());
        }
    }
    assert_eq!(
        documents("t.jsonl", &cases[3].0, &fields("completion=chosen")),
        [pair("p", "a")]
    );
}

#[test]
fn paths_that_do_not_exist_are_answered_with_what_to_do() {
    let hint = |path: &str| {
        let error = read_documents(&[PathBuf::from(path)], &ReadOptions::default()).unwrap_err();
        error.hint().unwrap_or_default()
    };
    assert!(hint("openai/gsm8k").contains("hf://datasets/openai/gsm8k"));
    assert!(hint("~/data.txt").contains("whole path"));
    assert!(hint("surely/not/here.txt").contains("the directory surely does not exist"));
}

#[test]
fn a_directory_is_read_in_order_and_what_is_left_out_is_named() {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("b.txt", "B"),
        ("a.jsonl", "{\"text\": \"A\"}"),
        ("README", "no"),
    ] {
        fs::write(directory.path().join(name), content).unwrap();
    }
    let paths = [directory.path().to_owned()];
    let source = read_documents(&paths, &ReadOptions::default()).unwrap();
    let texts: Vec<_> = source
        .documents
        .iter()
        .map(|document| &*document.text)
        .collect();
    assert_eq!(texts, ["A", "B"]);
    assert_eq!(source.report.formats, [Format::Jsonl, Format::Text]);
    assert_eq!(source.report.left_out, [directory.path().join("README")]);
    assert_eq!(source.report.files.len(), 2);
}

#[test]
fn the_digest_of_lines_is_that_of_the_file() {
    let (_directory, path) = file(
        "t.jsonl",
        "\u{feff}{\"text\": \"a\"}\r\n\n{\"text\": \"b\"}",
    );
    let source = read_documents(std::slice::from_ref(&path), &ReadOptions::default()).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(source.report.files, [FileDigest::of(&path, &bytes)]);
}

#[test]
fn texts_are_prepared() {
    let with = |text: TextOptions| ReadOptions {
        text,
        ..ReadOptions::default()
    };
    let lower = with(TextOptions {
        lowercase: true,
        min_length: 3,
        ..TextOptions::default()
    });
    let content = "{\"text\": \"One\"}\n{\"text\": \" No \"}\n{\"text\": \"three\"}\n";
    let (found, report) = read_as("a.jsonl", content, &lower).unwrap();
    assert_eq!(found, [pair("", "one"), pair("", "three")]);
    let said = report.text.expect("a report");
    assert_eq!(
        (said.texts, said.texts_changed, said.dropped_short),
        (3, 2, 1)
    );
    // What is measured stays, however short.
    let found = documents("a.jsonl", content, &lower.clone().measured());
    assert_eq!(
        found,
        [pair("", "one"), pair("", " no "), pair("", "three")]
    );
    assert_eq!(
        read_as("a.jsonl", content, &with(TextOptions::default()))
            .unwrap()
            .1
            .text,
        None
    );
    // A prompt and its response are two texts, whose words stay apart.
    let segmented = with(TextOptions {
        lowercase: true,
        strip_html: true,
        segment: Segment::Words,
        ..TextOptions::default()
    });
    let content = "{\"prompt\": \"What's <i>2+2</i>? \", \"completion\": \" Four.\"}\n";
    let found = documents("a.jsonl", content, &segmented);
    assert_eq!(found, [pair("what's 2 + 2 ?", " four .")]);
    // What nothing is left of is a fault of its row.
    let rows = format!("{content}{{\"prompt\": \"x\", \"completion\": \"<br>\"}}\n");
    let error = read_as("a.jsonl", &rows, &segmented).unwrap_err();
    assert!(error.to_string().contains(":2: nothing is left"), "{error}");
    let skip = ReadOptions {
        on_error: OnError::Skip,
        ..segmented
    };
    let (found, report) = read_as("a.jsonl", &rows, &skip).unwrap();
    assert_eq!((found.len(), report.skipped.count), (1, 1));
    let unsegmented = with(TextOptions {
        stop_words: StopWords::En,
        ..TextOptions::default()
    });
    let error = read_as("a.txt", "x", &unsegmented).unwrap_err();
    assert!(matches!(error, DataError::Text(_)) && error.hint().is_some());
}
