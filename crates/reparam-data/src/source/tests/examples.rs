//! JSON in lines and arrays, and examples with a prompt and a response.

use serde_json::json;

use super::*;

/// The prompts and responses in a file, and where they stand.
fn examples(name: &str, content: &str) -> Vec<(String, String, (usize, Option<usize>))> {
    let (_directory, path) = file(name, content);
    let source = read_documents(&[path], &ReadOptions::default()).unwrap();
    let parts = |document: Document| {
        let (prompt, response) = document.text.split_at(document.prompt_len.unwrap());
        let place = (document.source.line, document.source.item);
        (prompt.to_owned(), response.to_owned(), place)
    };
    source.documents.into_iter().map(parts).collect()
}

fn example(
    prompt: &str,
    response: &str,
    line: usize,
    item: Option<usize>,
) -> (String, String, (usize, Option<usize>)) {
    (prompt.to_owned(), response.to_owned(), (line, item))
}

#[test]
fn a_prompt_and_its_completion_are_joined_as_they_are() {
    let lines = "{\"prompt\": \"Q: \", \"completion\": \" A\\n\", \"id\": 1}\n\n{\"completion\": \"b\", \"prompt\": \"\"}\n";
    let expected = [example("Q: ", " A\n", 1, None), example("", "b", 3, None)];
    assert_eq!(examples("a.jsonl", lines), expected);
    for (prompt, response) in [("prompt", "response"), ("question", "answer")] {
        let line = format!("{{\"{prompt}\": \"é\", \"{response}\": \"x\"}}");
        assert_eq!(examples("a.jsonl", &line), [example("é", "x", 1, None)]);
    }
}

#[test]
fn alpaca_has_the_prompt_that_stanford_published() {
    let array = r#"[{"instruction": "Add.", "input": "1, 2", "output": "3"},
        {"instruction": "Greet.", "input": "", "output": "Hi\n"},
        {"instruction": "Greet.", "output": "Hi"}, {"instruction": "Greet.", "input": null, "output": "Hi"}]"#;
    let with_input = "Below is an instruction that describes a task, paired with an input that provides further context. \
        Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:";
    let without = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\
        \n\n### Instruction:\nGreet.\n\n### Response:";
    let expected = [
        example(with_input, "3", 1, Some(1)),
        example(without, "Hi\n", 2, Some(2)),
        example(without, "Hi", 3, Some(3)),
        example(without, "Hi", 3, Some(4)),
    ];
    assert_eq!(examples("a.json", array), expected);
}

#[test]
fn an_array_may_hold_documents() {
    let array = "\u{feff}\n [\n{\"text\": \"a\"},\r\n\n {\"text\": \"b\"}\n]\n";
    let expected = [("a".to_owned(), 3), ("b".to_owned(), 5)];
    assert_eq!(read("a.json", array).unwrap(), expected);
}

#[test]
fn a_json_file_may_have_an_object_a_line() {
    let lines = "\u{feff}\n{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n";
    let expected = [("a".to_owned(), 2), ("b".to_owned(), 4)];
    assert_eq!(read("a.json", lines).unwrap(), expected);
    let (_directory, path) = file("a.json", lines);
    let source = read_documents(&[path], &ReadOptions::of(Format::Jsonl)).unwrap();
    assert_eq!(source.documents[1].source.item, None);
}

#[test]
fn objects_may_be_pretty_or_wrapped() {
    let pretty = "{\n  \"text\": \"a\"\n}\n{\n  \"text\": \"b\"\n}\n";
    let expected = [("a".to_owned(), 1), ("b".to_owned(), 4)];
    assert_eq!(read("a.json", pretty).unwrap(), expected);
    let wrapped = "{\n \"version\": [1, {}],\n \"data\": [ {\"text\": \"a\"},\n {\"text\": \"b\"}\n],\n\"n\": NaN}\n";
    let expected = [("a".to_owned(), 3), ("b".to_owned(), 4)];
    assert_eq!(read("a.json", wrapped).unwrap(), expected);
    let line = wrapped.replace('\n', "");
    let expected = [("a".to_owned(), 1), ("b".to_owned(), 1)];
    for end in ["", "\n", "\r\n\n"] {
        assert_eq!(read("a.json", format!("\n{line}{end}")).unwrap()[0].0, "a");
        assert_eq!(read("a.json", format!("{line}{end}")).unwrap(), expected);
    }
    // A row may have an array of objects beside its fields.
    let row = "{\"text\": \"a\", \"of\": [{\"text\": \"k\"}]}";
    assert_eq!(read("a.json", row).unwrap(), [("a".to_owned(), 1)]);
    // One line may be a row as well, and several are.
    let row = "{\"text\": \"a\", \"of\": [1]}";
    assert_eq!(read("a.json", row).unwrap(), [("a".to_owned(), 1)]);
    let rows = format!("{row}\n{row}\n");
    assert_eq!(read("a.json", rows).unwrap().len(), 2);
    // Two arrays could both be meant.
    let two = wrapped.replace("\"n\": NaN", "\"m\": [{\"text\": \"c\"}]");
    assert!(matches!(
        error("a.json", two),
        DataError::UnknownFields { .. }
    ));
    // An array is one under any name.
    let array = "[{\"text\": \"a\"}]";
    assert_eq!(read("a.jsonl", array).unwrap(), [("a".to_owned(), 1)]);
    let error = error("a.json", "{\n  \"text\": \"a\"\n");
    assert_eq!(
        message(&error),
        "a.json:3:0: invalid JSON: EOF while parsing an object (field `text`)"
    );
}

#[test]
fn a_format_that_is_given_decides_between_fields() {
    let object = "{\"text\": \"t\", \"instruction\": \"i\", \"output\": \"o\", \"prompt\": \"p\", \"completion\": \"c\"}";
    // Of a name that says nothing, the first character tells an array from lines.
    for content in [object.to_owned(), format!(" [{object}]")] {
        let (_directory, path) = file("a.data", &content);
        let paths = [path];
        let read = |format| {
            read_documents(&paths, &ReadOptions::of(format))
                .unwrap()
                .documents
                .remove(0)
        };
        assert_eq!(
            (
                read(Format::Jsonl).text.as_str(),
                read(Format::Jsonl).prompt_len
            ),
            ("t", None)
        );
        assert_eq!(
            (
                read(Format::PromptCompletion).text.as_str(),
                read(Format::PromptCompletion).prompt_len
            ),
            ("pc", Some(1))
        );
        assert!(read(Format::Alpaca).text.ends_with("\ni\n\n### Response:o"));
        assert_eq!(read(Format::Text).text, content);
    }
    let error = error("a.jsonl", object);
    assert_eq!(
        message(&error),
        "a.jsonl:1: it has `text` as well as `prompt` and `completion` as well as `instruction` and `output`, \
         and either could be meant"
    );
    assert_eq!(
        error.hint().unwrap(),
        "set format to `jsonl` or `prompt_completion`"
    );
    let table = self::error("a.csv", "text,prompt,completion\nt,p,c\n");
    assert_eq!(
        table.hint().unwrap(),
        "set format to `csv` or `prompt_completion`"
    );
    let same = self::error(
        "a.jsonl",
        "{\"prompt\": \"p\", \"completion\": \"c\", \"response\": \"c\"}",
    );
    assert!(matches!(same, DataError::AmbiguousFields { .. }));
    assert_eq!(same.hint().unwrap(), "remove the field that is not meant");
}

#[test]
fn what_is_wrong_is_located() {
    let first = "{\"prompt\": \"p\", \"completion\": \"c\"}";
    let cases = [
        (
            "{\"prompt\": \"p\"}",
            "no field `completion`, found `prompt`",
            "the same form",
        ),
        (
            "{\"prompt\": \"p\", \"Completions\": \"c\"}",
            "no field `completion`, found `prompt`, `Completions`",
            "rename the field `Completions` to `completion`",
        ),
        (
            "{\"text\": \"t\"}",
            "no field `prompt`, found `text`",
            "`prompt`",
        ),
        (
            "{\"prompt\": 1, \"completion\": \"c\"}",
            "the field `prompt` is a number, not a string",
            "`prompt`",
        ),
        (
            "{\"prompt\": \"p\", \"completion\": null}",
            "the field `completion` is null, not a string",
            "`completion`",
        ),
        (
            "{\"prompt\": \"p\", \"completion\": \" \\n\"}",
            "the response in `completion` is empty",
            "write the response",
        ),
        (
            "3",
            "expected a JSON object, found a number",
            "\"completion\"",
        ),
    ];
    for (object, expected, hint) in cases {
        let lines = error("a.jsonl", format!("{first}\n\n{object}\n"));
        assert_eq!(message(&lines), format!("a.jsonl:3: {expected}"));
        let array = error("a.json", format!("[{first},\n{first}, {object}]"));
        assert_eq!(message(&array), format!("a.json:2 (item 3): {expected}"));
        for error in [lines, array] {
            assert!(
                error.hint().unwrap().contains(hint),
                "{error}: {:?}",
                error.hint()
            );
        }
    }
}

#[test]
fn the_first_object_says_what_the_file_is() {
    let cases = [
        (
            "{\"prompt\": \"p\", \"completoin\": \"c\"}",
            "found `prompt`, `completoin`",
            "rename the field `completoin` to `completion`",
        ),
        (
            "{\"instruction\": \"i\", \"input\": \"\"}",
            "found `instruction`, `input`",
            "`instruction` and `output`",
        ),
        (
            "{\"review\": \"r\", \"stars\": 5}",
            "found `review`, `stars`",
            "`text`; `prompt` and `completion`; `prompt` and `response`;",
        ),
        ("{\"review\": \"r\"}", "found `review`", "as in text=review"),
        ("{}", "found none", "`question` and `answer`"),
    ];
    for (object, expected, hint) in cases {
        let error = error("a.jsonl", object);
        assert_eq!(
            message(&error),
            format!("a.jsonl:1: neither a document nor an example, {expected}")
        );
        assert!(error.hint().unwrap().contains(hint), "{:?}", error.hint());
    }
    // Where the format is given, only its fields are known.
    let (_directory, path) = file("a.jsonl", "{\"text\": \"Hi\"}");
    let error = read_documents(&[path], &ReadOptions::of(Format::PromptCompletion)).unwrap_err();
    assert_eq!(
        message(&error),
        "a.jsonl:1: not of the format `prompt_completion`, found `text`"
    );
    assert_eq!(
        error.hint().unwrap(),
        "a row has one of these: `prompt` and `completion`; `prompt` and `response`; `question` and `answer`; \
         say which column is which with fields (or --fields), as in text=text"
    );
    // One that has a single form names what is missing.
    let (_directory, path) = file("a.jsonl", "{\"instruction\": \"i\", \"otuput\": \"o\"}");
    let error = read_documents(&[path], &ReadOptions::of(Format::Alpaca)).unwrap_err();
    assert_eq!(
        message(&error),
        "a.jsonl:1: no field `output`, found `instruction`, `otuput`"
    );
    assert_eq!(
        error.hint().unwrap(),
        "rename the field `otuput` to `output`"
    );
}

#[test]
fn arrays_that_are_none() {
    let cases = [
        (
            "[ ]",
            "a.json holds no document: its array is empty",
            "put some text into it",
        ),
        (
            "[{\"text\": \"a\"},\n {\"text\": }]",
            "a.json:2:11: invalid JSON: expected value (field `text`)",
            "one array",
        ),
        (
            "[{\"text\": \"a\"}\n",
            "a.json:2:1: invalid JSON: EOF while parsing a list",
            "one array",
        ),
        (
            "[{\"text\": \"a\"}]\n[]",
            "a.json:2:1: invalid JSON: trailing characters",
            "one array",
        ),
        (
            "[\n {\"text\": \"a\"}, {\"text\": \"\\ud800\"}]",
            "a.json:2:33: invalid JSON: unexpected end of hex escape (field `text`)",
            "one array",
        ),
        (
            "[{\"text\": \"a\"}, {\n\"text\": \"\\ud800\"}]",
            "a.json:2:16: invalid JSON: unexpected end of hex escape (field `text`)",
            "one array",
        ),
    ];
    for (content, expected, hint) in cases {
        let error = error("a.json", content);
        assert_eq!(message(&error), expected);
        assert!(error.hint().unwrap().contains(hint), "{:?}", error.hint());
    }
    for deep in [
        "[".repeat(100_000),
        format!(
            "[{{\"text\": {}{}}}]",
            "[".repeat(100_000),
            "]".repeat(100_000)
        ),
    ] {
        assert!(matches!(
            error("a.json", &deep),
            DataError::InvalidJson { line: 1, .. }
        ));
    }
}

/// Writes objects as lines and as an array of the given layout, and reads both.
fn both(objects: &[serde_json::Value], pretty: bool) -> [Vec<Document>; 2] {
    let lines: Vec<String> = objects.iter().map(ToString::to_string).collect();
    let array = if pretty {
        serde_json::to_string_pretty(objects).unwrap()
    } else {
        serde_json::to_string(objects).unwrap()
    };
    [("x.jsonl", lines.join("\n")), ("x.json", array)].map(|(name, content)| {
        let (_directory, path) = file(name, content);
        read_documents(&[path], &ReadOptions::default())
            .unwrap()
            .documents
    })
}

/// A text that is not blank.
fn response() -> impl Strategy<Value = String> {
    any::<String>().prop_map(|text| format!("{text}r"))
}

proptest! {
    /// Every text survives both forms of a file, with its place.
    #[test]
    fn documents_are_read_as_written(mut texts in prop::collection::vec(any::<String>(), 1..8), pretty: bool) {
        // A file of nothing but blank texts is refused.
        texts.push("x".to_owned());
        let objects: Vec<_> = texts.iter().map(|text| json!({"text": text})).collect();
        for (documents, is_array) in both(&objects, pretty).into_iter().zip([false, true]) {
            let read: Vec<_> = documents.iter().map(|document| document.text.clone()).collect();
            prop_assert_eq!(&read, &texts);
            for (document, index) in documents.iter().zip(1..) {
                // Pretty, an object takes three lines below the bracket's.
                let line = if !is_array { index } else if pretty { 3 * index - 1 } else { 1 };
                prop_assert_eq!((document.prompt_len, document.source.line), (None, line));
                prop_assert_eq!(document.source.item, is_array.then_some(index));
            }
        }
    }

    /// A prompt and its completion are the text in both forms of a file, to the byte.
    #[test]
    fn examples_are_read_as_written(
        pairs in prop::collection::vec((any::<String>(), response()), 1..8),
        fields in prop::sample::select(vec![("prompt", "completion"), ("prompt", "response"), ("question", "answer")]),
        pretty: bool,
    ) {
        let objects: Vec<_> =
            pairs.iter().map(|(prompt, response)| json!({fields.0: prompt, fields.1: response})).collect();
        for documents in both(&objects, pretty) {
            let read: Vec<_> = documents
                .iter()
                .map(|document| document.text.split_at(document.prompt_len.unwrap()))
                .map(|(prompt, response)| (prompt.to_owned(), response.to_owned()))
                .collect();
            prop_assert_eq!(&read, &pairs);
        }
    }

    /// Instruction and input are in the prompt between its headings, and the response is the output.
    #[test]
    fn alpaca_is_read_as_written(
        triples in prop::collection::vec((any::<String>(), any::<String>(), response()), 1..8), pretty: bool,
    ) {
        let objects: Vec<_> = triples
            .iter()
            .map(|(instruction, input, output)| json!({"instruction": instruction, "input": input, "output": output}))
            .collect();
        for documents in both(&objects, pretty) {
            prop_assert_eq!(documents.len(), triples.len());
            for (document, (instruction, input, output)) in documents.iter().zip(&triples) {
                let (prompt, response) = document.text.split_at(document.prompt_len.unwrap());
                prop_assert_eq!(response, output);
                let input = if input.is_empty() { String::new() } else { format!("### Input:\n{input}\n\n") };
                let end = format!("the request.\n\n### Instruction:\n{instruction}\n\n{input}### Response:");
                prop_assert!(prompt.ends_with(&end), "{}", prompt);
            }
        }
    }
}
