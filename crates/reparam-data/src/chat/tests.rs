use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use reparam_formats::chat_templates::{ChatTemplates, TemplateText};
use serde_json::{Value, json};

use super::*;

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

fn template(text: &str) -> Result<ChatTemplate, ChatError> {
    let text = TemplateText {
        text: text.to_owned(),
        from: PathBuf::from("t.jinja"),
    };
    ChatTemplate::new(&text, &BTreeMap::new(), Clock::Fixed(0))
}

fn conversation(value: &Value) -> Conversation {
    let messages = value.as_array().expect("a list").iter();
    let messages = messages.map(|message| message.as_object().expect("a message").clone());
    Conversation::new(messages.collect())
}

/// The messages of a list of roles and contents.
fn said(turns: &[(&str, &str)]) -> Conversation {
    let messages = turns.iter().map(|(role, content)| message(role, *content));
    Conversation::new(messages.collect())
}

/// Renders the input of a case of the corpus.
fn rendered(models: &Path, case: &Value) -> Result<String, String> {
    let directory = models.join(case["model"].as_str().expect("a model"));
    let names = [
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    ];
    let files: Vec<_> = names
        .into_iter()
        .filter_map(|name| Some((name, std::fs::read(directory.join(name)).ok()?)))
        .collect();
    let files = files.iter().map(|(name, bytes)| (*name, bytes.as_slice()));
    let templates =
        ChatTemplates::of_files(&directory, files).map_err(|error| error.to_string())?;
    let input = case["input"].as_object().expect("an input");
    let mut conversation = conversation(&input["messages"]);
    conversation.tools = input.get("tools").filter(|tools| !tools.is_null()).cloned();
    let others = input.iter().filter(|(name, _)| {
        !["messages", "tools", "add_generation_prompt"].contains(&name.as_str())
    });
    conversation.variables = others
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let clock = case["clock_unix_secs"]
        .as_i64()
        .map_or(Clock::System, Clock::Fixed);
    let text = match case["template_name"].as_str() {
        Some(name) => templates.named(name),
        None => templates.template(false),
    };
    let text = text.ok_or("no such template")?;
    let template = ChatTemplate::new(text, templates.tokens(), clock);
    let add = input["add_generation_prompt"].as_bool().unwrap_or(false);
    let text = template.and_then(|template| template.render(&conversation, add));
    text.map_err(|error| error.to_string())
}

/// Each case of a corpus is rendered to the text of transformers; returns how many there are.
fn check_cases(cases: &Path, models: &Path) -> usize {
    let text = std::fs::read_to_string(cases).expect("cases");
    let mut wrong = Vec::new();
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).expect("JSON");
        let expected = case["expected"].as_str().expect("a text");
        let found = rendered(models, &case);
        if found.as_deref() != Ok(expected) {
            let (model, name) = (&case["model"], &case["case"]);
            wrong.push(format!("{model} {name}:\n{found:?}\n{expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    text.lines().count()
}

#[test]
fn templates_of_models_write_what_transformers_writes() {
    let directory = testdata().join("chat-templates");
    assert_eq!(check_cases(&directory.join("cases.jsonl"), &directory), 42);
}

/// The same of models whose templates may not be kept here: set the variable to a folder with `cases.jsonl` and `models`.
#[test]
fn templates_elsewhere_write_what_transformers_writes() {
    let Some(directory) = std::env::var_os("REPARAM_CHAT_TEMPLATES").map(PathBuf::from) else {
        return;
    };
    let count = check_cases(&directory.join("cases.jsonl"), &directory.join("models"));
    assert!(count > 0);
    println!("{count} cases");
}

fn golden() -> Value {
    let text = std::fs::read_to_string(testdata().join("golden/chat.json")).expect("a file");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn expressions_print_what_they_print_in_transformers() {
    let mut wrong = Vec::new();
    for case in golden()["filters"].as_array().expect("cases") {
        let expression = case["expression"].as_str().expect("a text");
        let mut conversation = said(&[("user", "a")]);
        let value = case["value"].clone();
        conversation.variables.insert("value".to_owned(), value);
        let text = format!("{{{{ {expression} }}}}");
        let found = template(&text).and_then(|template| template.render(&conversation, false));
        if found.as_deref().ok() != case["printed"].as_str() {
            wrong.push(format!("{expression}: {found:?}, not {}", case["printed"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn named_templates_write_and_mark_what_transformers_does() {
    let golden = golden();
    let named = golden["named"].as_object().expect("templates");
    assert_eq!(named.len(), NAMED_TEMPLATES.len());
    let tokens = [
        ("bos_token", "<s>"),
        ("eos_token", "</s>"),
        ("unk_token", "<unk>"),
    ];
    let tokens: BTreeMap<_, _> = tokens
        .map(|(name, token)| (name.to_owned(), token.to_owned()))
        .into();
    for (name, golden) in named {
        let text = named_template(name).expect("a template");
        assert_eq!(
            Some(text.text.as_str()),
            golden["template"].as_str(),
            "{name}"
        );
        let unmarked = TemplateText {
            text: golden["unmarked"].as_str().expect("a text").to_owned(),
            ..text.clone()
        };
        let template = ChatTemplate::new(&text, &tokens, Clock::Fixed(0)).expect(name);
        let unmarked = ChatTemplate::new(&unmarked, &tokens, Clock::Fixed(0)).expect(name);
        assert!(template.marks_generated() && !unmarked.marks_generated());
        for case in golden["cases"].as_array().expect("cases") {
            let all = conversation(&case["messages"]);
            let rendered = template.render_learned(&all, Turns::All).expect(name);
            assert_eq!(
                Some(rendered.text.as_str()),
                case["text"].as_str(),
                "{name}"
            );
            let mut before = all.clone();
            before.messages.pop();
            let prompt = template.render(&before, true).expect(name);
            assert_eq!(
                Some(prompt.as_str()),
                case["with_prompt"].as_str(),
                "{name}"
            );
            // What is found without marks is what is marked, but for what separates turns.
            let found = unmarked.render_learned(&all, Turns::All).expect(name);
            assert_eq!(
                (&found.text, found.not_located),
                (&rendered.text, 0),
                "{name}"
            );
            let said = |rendered: &Rendered| -> Vec<String> {
                let parts = rendered.learned.iter();
                parts
                    .map(|part| rendered.text[part.clone()].trim_end().to_owned())
                    .collect()
            };
            assert_eq!(said(&found), said(&rendered), "{name}");
            for (template, count) in [
                (&template, said(&rendered).len()),
                (&unmarked, said(&found).len()),
            ] {
                let last = template.render_learned(&all, Turns::Last).expect(name);
                assert_eq!(said(&last), said(&rendered)[count - 1..], "{name}");
            }
        }
    }
}

/// What of each conversation is learned, by templates of models; texts are those of transformers.
#[test]
fn the_turns_of_the_assistant_are_located_or_left_out() {
    let two = &[
        ("user", "A"),
        ("assistant", "one"),
        ("user", "B"),
        ("assistant", "two"),
    ][..];
    for (model, turns, learned, not_located) in [
        (
            "smollm2-1.7b-instruct",
            two,
            &["one<|im_end|>\n", "two<|im_end|>\n"][..],
            0,
        ),
        (
            "qwen2.5-0.5b-instruct",
            two,
            &["one<|im_end|>\n", "two<|im_end|>\n"],
            0,
        ),
        ("zephyr-7b-beta", two, &["one</s>\n", "two</s>\n"], 0),
        (
            "phi-3-mini-4k-instruct",
            two,
            &["one<|end|>\n", "two<|end|>\n<|endoftext|>"],
            0,
        ),
        ("yi-1.5-9b-chat", &two[..2], &["one<|im_end|>\n"], 0),
        // The reasoning of an earlier turn is left out once another follows.
        (
            "qwen3-0.6b",
            two,
            &["<think>\n\n</think>\n\ntwo<|im_end|>\n"],
            1,
        ),
        // Tools stand before the last question alone.
        (
            "mistral-7b-instruct-v0.3",
            two,
            &[" one</s>", " two</s>"],
            0,
        ),
        // What is asked for begins with a thought, which no text has.
        ("deepseek-r1-distill-qwen-7b", two, &[], 2),
        (
            "smollm3-3b",
            &two[..2],
            &["<|im_start|>assistant\n<think>\n\n</think>\none<|im_end|>\n"],
            0,
        ),
    ] {
        let directory = testdata().join("chat-templates").join(model);
        let names = ["tokenizer_config.json", "chat_template.jinja"];
        let files = names.map(|name| {
            (
                name,
                std::fs::read(directory.join(name)).unwrap_or_default(),
            )
        });
        let files = files.iter().filter(|(_, bytes)| !bytes.is_empty());
        let files = files.map(|(name, bytes)| (*name, bytes.as_slice()));
        let templates = ChatTemplates::of_files(&directory, files).expect(model);
        let template = ChatTemplate::of(&templates, false, Clock::Fixed(0)).expect(model);
        let mut conversation = said(turns);
        if model == "smollm3-3b" {
            conversation
                .variables
                .insert("enable_thinking".to_owned(), json!(false));
        }
        match template.render_learned(&conversation, Turns::All) {
            Ok(rendered) => {
                let parts = rendered.learned.iter();
                let found: Vec<&str> = parts.map(|part| &rendered.text[part.clone()]).collect();
                assert_eq!(
                    (&found[..], rendered.not_located),
                    (learned, not_located),
                    "{model}"
                );
            }
            Err(error) => {
                assert!(learned.is_empty(), "{model}: {error}");
                assert!(
                    matches!(error, ChatError::NotLocated { .. }),
                    "{model}: {error}"
                );
                assert!(error.hint().expect("a hint").contains("generation"));
            }
        }
    }
}

#[test]
fn only_what_is_not_given_is_learned() {
    let text = named_template("chatml").expect("a template").text;
    let template = template(&text).expect("a template");
    let mut conversation = said(&[
        ("assistant", "0"),
        ("user", "A"),
        ("assistant", "1"),
        ("user", "B"),
        ("assistant", "2"),
    ]);
    for (given, turns, learned) in [
        (0, Turns::All, &["0", "1", "2"][..]),
        (2, Turns::All, &["1", "2"]),
        (3, Turns::All, &["2"]),
        (2, Turns::Last, &["2"]),
        (5, Turns::All, &[]),
        (5, Turns::Last, &[]),
    ] {
        conversation.given = given;
        match template.render_learned(&conversation, turns) {
            Ok(rendered) => {
                let parts = rendered.learned.iter();
                let found = parts.map(|part| &rendered.text[part.clone()]);
                let found: Vec<_> = found.map(|text| text.strip_suffix("<|im_end|>")).collect();
                let learned: Vec<_> = learned.iter().copied().map(Some).collect();
                assert_eq!(found, learned, "{given} {turns:?}");
            }
            Err(error) => assert_eq!((error, learned), (ChatError::NoAnswer, &[][..])),
        }
    }
    assert_eq!(
        template.render(&Conversation::default(), false),
        Err(ChatError::Empty)
    );
}

#[test]
fn messages_are_handed_over_as_transformers_does() {
    let template = template("{{ messages[0] | tojson }}{{ tools is none }}").expect("a template");
    for (message, text) in [
        (
            json!({"role": "user", "content": null, "b": 1}),
            r#"{"role": "user", "b": 1}"#,
        ),
        (
            json!({"role": "user", "thinking": "x"}),
            r#"{"role": "user", "thinking": "x", "reasoning_content": "x"}"#,
        ),
        (
            json!({"role": "user", "reasoning_content": "x", "thinking": "y"}),
            r#"{"role": "user", "reasoning_content": "x", "thinking": "y"}"#,
        ),
    ] {
        let found = template.render(&conversation(&json!([message])), false);
        assert_eq!(found, Ok(format!("{text}True")));
    }
}

/// What a template is allowed is bounded, and whatever it does becomes an error.
#[test]
fn hostile_templates_end_in_errors() {
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let doubling = "{% set ns = namespace(x='aaaaaaaa') %}{% for a in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
    let nested = "{% set ns = namespace(x=[]) %}{% for a in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}";
    let deep = format!(
        "{}{}",
        "{% if true %}".repeat(5000),
        "{% endif %}".repeat(5000)
    );
    let parentheses = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    let written = format!("{nested}{{{{ ns.x }}}}");
    let dumped = format!("{nested}{{{{ ns.x | tojson }}}}");
    let long = "x".repeat((1 << 20) + 1);
    for (text, expected) in [
        (endless, "t.jinja:1: the chat template takes more"),
        (doubling, "t.jinja:1: the chat template takes more"),
        (
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "t.jinja:1: the chat template fails",
        ),
        (&written, ""),
        (&dumped, ""),
        (nested, ""),
        (&deep, "t.jinja:1: the chat template cannot be read"),
        (&parentheses, "t.jinja:1: the chat template cannot be read"),
        (&long, "the chat template t.jinja has 1048577 bytes"),
        ("a\n{{ 'x' * 99999999999 }}", "t.jinja:2: the chat template"),
        (
            "{% include '/etc/passwd' %}",
            "t.jinja:1: the chat template cannot be read",
        ),
        (
            "{% import 'a' as b %}",
            "t.jinja:1: the chat template cannot be read",
        ),
        (
            "a\n\n{% if %}",
            "t.jinja:3: the chat template cannot be read",
        ),
        (
            "{% generation %}",
            "t.jinja:1: the chat template cannot be read",
        ),
        (
            "a\n{{ messages[0].x.y }}",
            "t.jinja:2: the chat template fails: undefined value",
        ),
        (
            "{{ messages.__class__.__mro__ }}",
            "t.jinja:1: the chat template fails",
        ),
        (
            "{{ nothing() }}",
            "t.jinja:1: the chat template fails: unknown function",
        ),
        ("{{ messages | nothing }}", "t.jinja:1: the chat template"),
        (
            "{{ raise_exception('no \u{1b}[1m way') }}",
            "the chat template refuses the conversation: no \\u{1b}[1m way",
        ),
        (
            "{{ missing | tojson }}",
            "t.jinja:1: the chat template fails: invalid operation: tojson: undefined is no JSON",
        ),
    ] {
        let found = template(text).and_then(|template| {
            template.render(&said(&[("user", "a"), ("assistant", "b")]), false)
        });
        match found {
            Err(error) => {
                let message = error.to_string();
                assert!(message.starts_with(expected), "{message}");
                assert!(matches!(error, ChatError::Thread { .. }) || error.hint().is_some());
                assert!(!matches!(error, ChatError::Thread { .. }), "{message}");
            }
            Ok(_) => assert_eq!(expected, "", "{:.80}", text),
        }
    }
}

#[test]
fn hints_fit_what_templates_say() {
    let refused = |message: &str| ChatError::Refused {
        message: message.to_owned(),
    };
    for (error, hint) in [
        (
            refused("Conversation roles must alternate user/assistant"),
            "in turn",
        ),
        (
            refused("System role not supported"),
            "first message of the user",
        ),
        (refused("something else"), "another template"),
        (ChatError::NoTemplate, "\"chatml\", \"llama3\""),
        (ChatError::NoAnswer, "role assistant"),
    ] {
        let found = error.hint().expect("a hint");
        assert!(found.contains(hint), "{found}");
    }
}
