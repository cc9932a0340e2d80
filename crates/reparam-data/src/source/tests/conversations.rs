use reparam_formats::chat_templates::{ChatTemplates, TemplateText};

use super::*;
use crate::chat::Turns;

/// A template that writes down what it is given.
const SHOWING: &str = "{% for m in messages %}[{{ m.role }}:\
{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}{% endgeneration %}\
{% else %}{{ m.content }}{% endif %}]{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}\
{{ thinking if thinking is defined }}";

fn chat(text: &str) -> ReadOptions {
    let template = TemplateText {
        text: text.to_owned(),
        from: "t.jinja".into(),
    };
    ReadOptions {
        chat: Some(ChatOptions {
            templates: ChatTemplates::default().with(template),
            turns: Turns::All,
        }),
        ..ReadOptions::default()
    }
}

fn read(name: &str, text: &str, options: &ReadOptions) -> Result<Source> {
    let (_directory, path) = file(name, text);
    read_documents(&[path], options)
}

#[test]
fn rows_become_messages() {
    let tools = r#"[{"type": "function", "function": {"name": "f"}}]"#;
    let shown = tools;
    for (row, format, text, learned) in [
        (
            r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "id": 1}"#.to_owned(),
            Format::Messages,
            "[user:a][assistant:b]".to_owned(),
            &["b"][..],
        ),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "c"}]}, {"role": "assistant", "content": "b"}]}"#.to_owned(),
            Format::Messages,
            "[user:ac][assistant:b]".to_owned(),
            &["b"],
        ),
        (
            format!(r#"{{"messages": [{{"role": "user", "content": "a"}}, {{"role": "assistant", "content": null, "tool_calls": [{{"id": 1}}]}}, {{"role": "tool", "content": "4"}}, {{"role": "assistant", "content": "b"}}], "tools": {tools}, "chat_template_kwargs": {{"thinking": "T"}}}}"#),
            Format::Messages,
            format!(r#"[user:a][assistant:[{{"id": 1}}]][tool:4][assistant:b]{shown}T"#),
            &[r#"[{"id": 1}]"#, "b"],
        ),
        (
            r#"{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"}, {"role": "user", "content": "c"}], "completion": [{"role": "assistant", "content": "b"}]}"#.to_owned(),
            Format::Messages,
            "[user:a][assistant:x][user:c][assistant:b]".to_owned(),
            &["b"],
        ),
        (
            r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s", "tools": ""}"#.to_owned(),
            Format::Sharegpt,
            "[system:s][user:a][assistant:b]".to_owned(),
            &["b"],
        ),
        (
            format!(r#"{{"conversations": [{{"from": "human", "value": "a"}}, {{"from": "function_call", "value": "{{\"name\": \"f\", \"arguments\": {{\"x\": 1}}}}"}}, {{"from": "observation", "value": "4"}}, {{"from": "gpt", "value": "b"}}], "tools": {}}}"#, Value::from(tools)),
            Format::Sharegpt,
            format!(r#"[user:a][assistant:[{{"type": "function", "function": {{"name": "f", "arguments": {{"x": 1}}}}}}]][tool:4][assistant:b]{shown}"#),
            &[r#"[{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]"#, "b"],
        ),
        (
            r#"{"messages": [{"role": "tool", "content": {"x": 1}}, {"role": "assistant", "content": "b"}], "chat_template_kwargs": "{\"thinking\": \"T\"}"}"#.to_owned(),
            Format::Messages,
            "[tool:{'x': 1}][assistant:b]T".to_owned(),
            &["b"],
        ),
        (
            r#"{"conversation": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#.to_owned(),
            Format::Sharegpt,
            "[user:a][assistant:b]".to_owned(),
            &["b"],
        ),
        (
            r#"{"instruction": "a", "input": "i", "output": "b", "system": "s", "history": [["x", "y"]]}"#.to_owned(),
            Format::AlpacaChat,
            "[system:s][user:x][assistant:y][user:a\ni][assistant:b]".to_owned(),
            &["y", "b"],
        ),
    ] {
        for name in ["a.jsonl", "a.json"] {
            let source = read(name, &format!("{row}\n"), &chat(SHOWING)).expect(&row);
            let [document] = &source.documents[..] else {
                panic!("{:?}", source.documents);
            };
            assert_eq!(document.text, text, "{row}");
            assert_eq!(source.report.formats, [format], "{row}");
            let turns = document.turns.as_ref().expect("turns");
            let parts = turns.parts.iter();
            let found: Vec<&str> = parts.map(|part| &document.text[part.clone()]).collect();
            assert_eq!(found, learned, "{row}");
            let count = source.report.turns;
            assert_eq!((count.conversations, count.learned, count.not_located), (1, learned.len(), 0));
        }
    }
}

#[test]
fn options_say_which_field_has_the_messages_and_what_rows_are() {
    let chosen = r#"{"dialog": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "chosen": 1}"#;
    let options = ReadOptions {
        fields: "messages=dialog".parse().expect("fields"),
        ..chat(SHOWING)
    };
    let source = read("a.jsonl", chosen, &options).expect("a row");
    assert_eq!(source.documents[0].text, "[user:a][assistant:b]");

    let plain = r#"{"instruction": "a", "input": "", "output": "b"}"#;
    let options = ReadOptions {
        format: Some(Format::AlpacaChat),
        ..chat(SHOWING)
    };
    let source = read("a.jsonl", plain, &options).expect("a row");
    assert_eq!(source.documents[0].text, "[user:a][assistant:b]");
    // Without a word of it, it is an example, as it is where there are fields of a conversation and the format says so.
    let source = read("a.jsonl", plain, &chat(SHOWING)).expect("a row");
    assert_eq!(source.report.formats, [Format::Alpaca]);
    let options = ReadOptions {
        format: Some(Format::Alpaca),
        ..chat(SHOWING)
    };
    let with_history = r#"{"instruction": "a", "output": "b", "history": []}"#;
    let source = read("a.jsonl", with_history, &options).expect("a row");
    assert_eq!(source.report.formats, [Format::Alpaca]);

    let both = r#"{"text": "t", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    let error = read("a.jsonl", both, &chat(SHOWING)).expect_err("two ways");
    assert!(
        error.to_string().contains("`text` as well as `messages`"),
        "{error}"
    );
    assert_eq!(
        error.hint().as_deref(),
        Some("set format to `jsonl` or `messages`")
    );
    for (format, text) in [
        (Format::Jsonl, "t"),
        (Format::Messages, "[user:a][assistant:b]"),
    ] {
        let options = ReadOptions {
            format: Some(format),
            ..chat(SHOWING)
        };
        let source = read("a.jsonl", both, &options).expect("a row");
        assert_eq!(source.documents[0].text, text);
    }
}

#[test]
fn what_is_wrong_with_a_conversation_is_said_with_its_place() {
    let alternating = "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}\
        {{ raise_exception('Conversation roles must alternate') }}{% endif %}{{ m.content }}{% endfor %}";
    let user = r#"{"role": "user", "content": "a"}"#;
    let assistant = r#"{"role": "assistant", "content": "b"}"#;
    for (row, template, message, hint) in [
        (
            r#"{"messages": []}"#.to_owned(),
            SHOWING,
            "the conversation has no messages",
            "write messages as",
        ),
        (
            r#"{"messages": "hello"}"#.to_owned(),
            SHOWING,
            "the field `messages` is a string, not a list of messages",
            "write messages as",
        ),
        (
            r#"{"messages": ["a"]}"#.to_owned(),
            SHOWING,
            "message 1 is a string, not an object",
            "write messages as",
        ),
        (
            format!(r#"{{"messages": [{user}, {{"text": "b"}}]}}"#),
            SHOWING,
            "message 2 is an object with `text`",
            "write messages as",
        ),
        (
            format!(r#"{{"messages": [{user}]}}"#),
            SHOWING,
            "no answer of the assistant",
            "role assistant",
        ),
        (
            format!(r#"{{"messages": [{user}, {{"role": "assistant", "content": " "}}]}}"#),
            SHOWING,
            "message 2 is the assistant's and says nothing",
            "write the answer",
        ),
        (
            format!(r#"{{"messages": [{user}, {user}, {assistant}]}}"#),
            alternating,
            "refuses the conversation: Conversation roles must alternate",
            "in turn",
        ),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#.to_owned(),
            SHOWING,
            "message 1 has a part that is no text: image_url",
            "skip",
        ),
        (
            r#"{"conversations": [{"from": "martian", "value": "a"}]}"#.to_owned(),
            SHOWING,
            "message 1 is from `martian`",
            "the roles are",
        ),
        (
            format!(r#"{{"messages": [{user}, {assistant}], "tools": 3}}"#),
            SHOWING,
            "the field `tools` is no list of tools",
            "JSON schemas",
        ),
        (
            r#"{"instruction": "a", "output": "b", "history": [["x"]]}"#.to_owned(),
            SHOWING,
            "the field `history` is a list of other than pairs",
            "write messages as",
        ),
        (
            format!(r#"{{"messages": [{user}, {assistant}], "system": 3}}"#),
            SHOWING,
            "the field `system` is a number, not a string",
            "make `system` a string",
        ),
        (
            format!(r#"{{"messages": [{user}, {assistant}], "chat_template_kwargs": ["a"]}}"#),
            SHOWING,
            "the field `chat_template_kwargs` is an array, not an object",
            "make `chat_template_kwargs` an object",
        ),
        (
            format!(r#"{{"messages": [{user}, {assistant}], "chat_template_kwargs": "a"}}"#),
            SHOWING,
            "the field `chat_template_kwargs` is a string, not an object",
            "make `chat_template_kwargs` an object",
        ),
        (
            r#"{"instruction": ["a"], "output": "b", "history": []}"#.to_owned(),
            SHOWING,
            "the field `instruction` is an array, not a string",
            "make `instruction` a string",
        ),
        (
            format!(r#"{{"messages": [{{"role": "user", "content": 4}}, {assistant}]}}"#),
            SHOWING,
            "`content` of message 1 is a number, not a string",
            "in quotes",
        ),
        (
            format!(r#"{{"messages": [{user}, {{"role": "assistant", "content": {{"a": 1}}}}]}}"#),
            SHOWING,
            "`content` of message 2 is an object, not a string",
            "in quotes",
        ),
        (
            format!(r#"{{"messages": [{user}, {assistant}]}}"#),
            "\n{{ x.y }}",
            "t.jinja:2: the chat template fails",
            "another template",
        ),
        (
            format!(r#"{{"messages": [{user}, {assistant}]}}"#),
            "{{ ",
            "t.jinja:1: the chat template cannot be read",
            "another template",
        ),
    ] {
        let error = read("a.jsonl", &format!("\n{row}\n"), &chat(template)).expect_err(&row);
        let text = super::message(&error);
        assert!(text.starts_with("a.jsonl:2: "), "{text}");
        assert!(text.contains(message), "{text}");
        let found = error.hint().expect("a hint");
        assert!(found.contains(hint), "{found}");
    }
}

#[test]
fn conversations_that_cannot_be_read_may_be_left_out() {
    let rows = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
{"messages": []}
{"messages": [{"role": "user", "content": "a"}]}
"#;
    let options = ReadOptions {
        on_error: OnError::Skip,
        ..chat(SHOWING)
    };
    let source = read("a.jsonl", rows, &options).expect("rows");
    assert_eq!(
        (source.documents.len(), source.report.skipped.count),
        (1, 2)
    );
}

#[test]
fn without_a_template_or_a_use_conversations_are_refused() {
    let row = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    let no_template = ReadOptions {
        chat: Some(ChatOptions::default()),
        on_error: OnError::Skip,
        ..ReadOptions::default()
    };
    let error = read("a.jsonl", row, &no_template).expect_err("no template");
    assert!(
        error.to_string().contains("the model has no chat template"),
        "{error}"
    );
    assert!(
        error
            .hint()
            .expect("a hint")
            .contains("--chat-template chatml")
    );

    let error = read("a.jsonl", row, &ReadOptions::default()).expect_err("no use");
    assert!(
        error.to_string().contains("cannot be learned from yet"),
        "{error}"
    );
    let error = ReadOptions::of(Format::Messages)
        .check()
        .expect_err("no use");
    assert!(
        error
            .to_string()
            .contains("`messages` is one of conversations"),
        "{error}"
    );

    let mut options = chat(SHOWING);
    options.text.lowercase = true;
    let error = read("a.jsonl", row, &options).expect_err("no effect");
    assert!(
        error
            .to_string()
            .contains("`text` has no effect on a conversation"),
        "{error}"
    );
}

#[test]
fn pairs_are_read_where_it_is_said_what_is_learned_of_them() {
    let pairs = |chat: bool| ReadOptions {
        format: Some(Format::Preference),
        learn: Some(Learn::Chosen),
        ..match chat {
            true => self::chat(SHOWING),
            false => ReadOptions::default(),
        }
    };
    let said = |role: &str, text: &str| format!(r#"{{"role": "{role}", "content": "{text}"}}"#);
    let (asked, good, bad) = (
        said("user", "a"),
        said("assistant", "b"),
        said("assistant", "c"),
    );
    for (row, text, learned) in [
        (
            r#"{"prompt": "p ", "chosen": "good", "rejected": "bad"}"#.to_owned(),
            "p good",
            "good",
        ),
        (
            r#"{"chosen": "Human: a Assistant: good", "rejected": "Human: a Assistant: bad"}"#
                .to_owned(),
            "Human: a Assistant: good",
            " good",
        ),
        (
            format!(r#"{{"prompt": [{asked}], "chosen": [{good}], "rejected": [{bad}]}}"#),
            "[user:a][assistant:b]",
            "b",
        ),
        (
            format!(r#"{{"chosen": [{asked}, {good}], "rejected": [{asked}, {bad}]}}"#),
            "[user:a][assistant:b]",
            "b",
        ),
        // The question is there twice, and is asked once.
        (
            format!(
                r#"{{"prompt": "a", "chosen": [{asked}, {good}], "rejected": [{asked}, {bad}]}}"#
            ),
            "[user:a][assistant:b]",
            "b",
        ),
        (
            format!(
                r#"{{"system": "s", "tools": [{{"name": "t"}}], "chat_template_kwargs": {{"thinking": "m"}}, "chosen": [{asked}, {good}], "rejected": [{asked}, {bad}]}}"#
            ),
            "[system:s][user:a][assistant:b][{\"name\": \"t\"}]m",
            "b",
        ),
    ] {
        for name in ["a.jsonl", "a.json"] {
            let source = read(name, &format!("{row}\n"), &pairs(true)).expect(&row);
            let document = &source.documents[0];
            assert_eq!(document.text, text);
            assert_eq!(source.report.formats, [Format::Preference]);
            let found = match (&document.turns, document.prompt_len) {
                (Some(turns), None) => &document.text[turns.parts[0].clone()],
                (None, Some(prompt)) => &document.text[prompt..],
                other => panic!("{other:?}"),
            };
            assert_eq!(found, learned, "{row}");
        }
    }
    // Columns have other names, and a table has pairs of texts.
    let options = ReadOptions {
        fields: "prompt=q,chosen=yes,rejected=no".parse().expect("fields"),
        ..pairs(false)
    };
    let source = read("a.csv", "q,yes,no\np,good,bad\n", &options).expect("a table");
    assert_eq!(source.documents[0].text, "pgood");

    let alone = r#"{"chosen": "good", "rejected": "bad"}"#;
    for (row, message, hint) in [
        (alone.to_owned(), "begin with nothing alike", "`prompt`"),
        (
            r#"{"prompt": "p", "chosen": "a"}"#.to_owned(),
            "no field `rejected`",
            "",
        ),
        (
            r#"{"prompt": "p", "chosen": 3, "rejected": "b"}"#.to_owned(),
            "the field `chosen` is a number",
            "",
        ),
        (
            r#"{"prompt": "p", "chosen": " ", "rejected": "b"}"#.to_owned(),
            "the response in `chosen` is empty",
            "",
        ),
        (
            format!(r#"{{"prompt": "p", "chosen": [{good}], "rejected": [{bad}]}}"#),
            "the field `prompt` is a string, not a list of messages",
            "write messages as",
        ),
        (
            format!(r#"{{"chosen": [{asked}], "rejected": [{asked}, {bad}]}}"#),
            "no answer of the assistant",
            "role assistant",
        ),
        (
            format!(
                r#"{{"chosen": [{asked}, {}], "rejected": [{asked}, {bad}]}}"#,
                said("assistant", " ")
            ),
            "message 2 is the assistant's and says nothing",
            "write the answer",
        ),
        (
            format!(r#"{{"tools": 3, "chosen": [{asked}, {good}], "rejected": [{asked}, {bad}]}}"#),
            "the field `tools` is no list of tools",
            "write tools as a list",
        ),
    ] {
        let error = read("a.jsonl", &format!("{row}\n"), &pairs(true)).expect_err(&row);
        let text = super::message(&error);
        assert!(
            text.starts_with("a.jsonl:1: ") && text.contains(message),
            "{text}"
        );
        assert!(error.hint().unwrap_or_default().contains(hint), "{error:?}");
    }
    for (options, message) in [
        (
            ReadOptions::of(Format::Preference),
            "nothing says what is to be learned",
        ),
        (
            ReadOptions {
                learn: Some(Learn::Chosen),
                ..ReadOptions::default()
            },
            "`learn` has no effect",
        ),
    ] {
        let error = options.check().expect_err("refused");
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint().is_some());
    }
    // Nobody says it for the user.
    let row = r#"{"prompt": "p", "chosen": "good", "rejected": "bad"}"#;
    let error = read("a.jsonl", row, &chat(SHOWING)).expect_err("pairs");
    let hint = error.hint().expect("a hint");
    assert!(
        hint.contains("format = \"preference\" and learn = \"chosen\""),
        "{hint}"
    );
}
