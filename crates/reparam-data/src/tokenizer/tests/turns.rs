use reparam_formats::chat_templates::TemplateText;
use serde_json::Value;

use super::*;
use crate::chat::{ChatTemplate, Clock, Conversation, Rendered, Turns};
use crate::source::LearnedTurns;

fn encoded(tokenizer: &TextTokenizer, rendered: Rendered) -> EncodedDocument {
    let document = Document {
        text: rendered.text,
        turns: Some(LearnedTurns {
            parts: rendered.learned,
            marked: rendered.marked,
        }),
        ..document("")
    };
    tokenizer.encode_document(&document).expect("tokens")
}

/// Ids and masks of `apply_chat_template(return_assistant_tokens_mask=True)`.
#[test]
fn conversations_are_encoded_and_masked_as_transformers_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/chat.json");
    let golden: Value =
        serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON");
    let tokenizer = stories();
    let tokens = [
        ("bos_token", "<s>"),
        ("eos_token", "</s>"),
        ("unk_token", "<unk>"),
    ];
    let tokens = tokens
        .map(|(name, token)| (name.to_owned(), token.to_owned()))
        .into();
    for (name, golden) in golden["named"].as_object().expect("templates") {
        let template = |key: &str| {
            let text = TemplateText {
                text: golden[key].as_str().expect("a text").to_owned(),
                from: name.into(),
            };
            ChatTemplate::new(&text, &tokens, Clock::Fixed(0)).expect(name)
        };
        let (marked, unmarked) = (template("template"), template("unmarked"));
        for case in golden["cases"].as_array().expect("cases") {
            let messages: Vec<_> = case["messages"]
                .as_array()
                .expect("a list")
                .iter()
                .collect();
            let messages = messages
                .iter()
                .map(|message| message.as_object().expect("one").clone());
            let conversation = Conversation::new(messages.collect());
            let rendered = marked
                .render_learned(&conversation, Turns::All)
                .expect(name);
            let found = encoded(&tokenizer, rendered);
            let mask: Vec<u64> = found
                .loss_mask
                .as_deref()
                .expect("a mask")
                .iter()
                .map(|is| u64::from(*is))
                .collect();
            assert_eq!(Value::from(found.ids.clone()), case["ids"], "{name}");
            assert_eq!(Value::from(mask), case["mask"], "{name}");
            // Where a token ends a turn, what separates it from the next one is not learned without marks either.
            let rendered = unmarked
                .render_learned(&conversation, Turns::All)
                .expect(name);
            if !["chatml", "llama3"].contains(&name.as_str()) {
                assert_eq!(encoded(&tokenizer, rendered), found, "{name}");
            }
        }
    }
}

#[test]
fn a_turn_ends_with_the_token_that_ends_it() {
    let tokenizer = stories();
    let text = "<s>Who?</s>\n Tim</s>\n  Who?";
    let begin = text.find(" Tim").expect("it");
    for (end, marked, last) in [
        (begin + 4, false, "im"),
        (begin + 8, false, "</s>"),
        (begin + 9, false, "</s>"),
        (begin + 9, true, "<0x0A>"),
        (begin + 11, false, "</s>"),
    ] {
        let rendered = Rendered {
            text: text.to_owned(),
            learned: std::iter::once(begin..end).collect(),
            marked,
            not_located: 0,
        };
        let found = encoded(&tokenizer, rendered);
        let mask = found.loss_mask.expect("a mask");
        let tokens = found.ids.iter().zip(&mask);
        let learned: Vec<String> = tokens
            .filter(|(_, learned)| **learned)
            .map(|(id, _)| tokenizer.token(*id).expect("a token"))
            .collect();
        assert!(learned[0].starts_with('▁'), "{learned:?}");
        assert!(
            learned.last().expect("one").ends_with(last),
            "{end} {learned:?}"
        );
    }
}
