//! Which tokens of an example are predicted.

use super::*;

fn example(prompt: &str, response: &str) -> Document {
    Document {
        prompt_len: Some(prompt.len()),
        turns: None,
        ..document(&format!("{prompt}{response}"))
    }
}

/// Encodes an example, checks that its ids are those of the text as a document, and returns the tokens that are predicted and
/// those that are given.
fn split<'a>(
    tokenizer: &TextTokenizer,
    encoded: &'a EncodedDocument,
    document: &Document,
) -> (&'a [u32], &'a [u32]) {
    assert_eq!(encoded.ids, document_ids(tokenizer, &document.text));
    let mask = encoded.loss_mask.as_deref().unwrap();
    assert_eq!(mask.len(), encoded.ids.len());
    assert!(
        mask.is_sorted(),
        "a response is behind its prompt: {mask:?}"
    );
    encoded
        .ids
        .split_at(mask.iter().filter(|predicted| !**predicted).count())
}

fn given_and_predicted(
    tokenizer: &TextTokenizer,
    prompt: &str,
    response: &str,
) -> (Vec<u32>, Vec<u32>) {
    let document = example(prompt, response);
    let encoded = tokenizer.encode_document(&document).unwrap();
    let (given, predicted) = split(tokenizer, &encoded, &document);
    (given.to_vec(), predicted.to_vec())
}

/// The tokens as they are written in the vocabulary.
fn tokens(tokenizer: &TextTokenizer, ids: &[u32]) -> Vec<String> {
    ids.iter().map(|&id| tokenizer.token(id).unwrap()).collect()
}

/// Checks a mask against its definition without any offsets: a token begins where the tokens before it end, and
/// `bytes` says how many bytes of the text a token is.
fn check_by_lengths(
    tokenizer: &TextTokenizer,
    prompt: &str,
    response: &str,
    bytes: impl Fn(usize, u32) -> usize,
) {
    let (given, predicted) = given_and_predicted(tokenizer, prompt, response);
    let ids = [given.clone(), predicted.clone()].concat();
    let lengths: Vec<usize> = ids
        .iter()
        .enumerate()
        .map(|(index, &id)| bytes(index, id))
        .collect();
    assert_eq!(
        lengths.iter().sum::<usize>(),
        prompt.len() + response.len(),
        "{prompt:?} {response:?}"
    );
    let begin = |index: usize| lengths[..index].iter().sum::<usize>();
    // In front of the text there is nothing, or BOS; behind it EOS.
    let before = usize::from(tokenizer.special_tokens().bos == Some(ids[0]));
    for index in 0..ids.len() {
        let is_given = index < given.len();
        let is_text = index >= before && index + 1 < ids.len();
        let expected = if is_text {
            begin(index) < prompt.len()
        } else {
            index < before
        };
        assert_eq!(
            is_given,
            expected,
            "token {index} of {:?} for {prompt:?} {response:?}",
            tokens(tokenizer, &ids)
        );
    }
}

/// The bytes of the text that a token of stories260K is: BOS and EOS none, the first `▁` of a text is made up.
fn stories_bytes(tokenizer: &TextTokenizer, index: usize, id: u32) -> usize {
    if id <= 2 {
        return 0;
    }
    let token = tokenizer.token(id).unwrap();
    if token.starts_with("<0x") {
        return 1;
    }
    token.replace('▁', " ").len() - usize::from(index == 1)
}

/// A byte-level tokenizer with ` a` and `ab` beside the bytes, which takes white space out of its offsets.
fn trimming(post_processor: Value) -> TextTokenizer {
    let mut json = byte_level(post_processor);
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    for (token, id) in [("<|end|>", 256), ("Ġa", 257), ("ab", 258)] {
        vocab.insert(token.to_owned(), json!(id));
    }
    json["model"]["merges"] = json!(["Ġ a", "a b"]);
    load(&json, &json!({"eos_token": "<|end|>"})).unwrap()
}

#[test]
fn a_token_that_begins_before_the_border_is_given() {
    let trims = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let roberta = json!({"type": "RobertaProcessing", "sep": ["<|end|>", 256], "cls": ["<|end|>", 256],
        "trim_offsets": true, "add_prefix_space": false});
    let sequence = json!({"type": "Sequence", "processors": [trims, end_template(true, false)]});
    for (post_processor, before) in [(trims, false), (roberta, true), (sequence, true)] {
        let tokenizer = trimming(post_processor);
        for (prompt, response, given, predicted) in [
            ("b:", " a!", &["b", ":"][..], &["Ġa", "!"][..]),
            // The space is the prompt's, so the token is.
            ("b: ", "a!", &["b", ":", "Ġa"], &["!"]),
            ("b: ", "b!", &["b", ":", "Ġ"], &["b", "!"]),
            // A token across the border.
            ("b:a", "b!", &["b", ":", "ab"], &["!"]),
            ("!a", "b", &["!", "ab"], &[]),
            ("", "b", &[], &["b"]),
            ("", " a", &[], &["Ġa"]),
            ("é", "ü", &["Ã", "©"], &["Ã", "¼"]),
        ] {
            let (found, rest) = given_and_predicted(&tokenizer, prompt, response);
            assert_eq!(
                tokens(&tokenizer, &found[usize::from(before)..]),
                given,
                "{prompt:?} {response:?}"
            );
            assert_eq!(rest.last(), Some(&256));
            assert_eq!(
                tokens(&tokenizer, &rest[..rest.len() - 1]),
                predicted,
                "{prompt:?} {response:?}"
            );
        }
    }
}

#[test]
fn what_the_template_puts_behind_the_text_is_predicted() {
    let template = json!({"type": "TemplateProcessing", "single": [
        {"SpecialToken": {"id": "<|end|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "!", "type_id": 0}}, {"SpecialToken": {"id": "<|end|>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [256], "tokens": ["<|end|>"]},
            "!": {"id": "!", "ids": [0], "tokens": ["!"]}}});
    let tokenizer = trimming(template);
    let [a, b] = [u32::from(b'a'), 258];
    assert_eq!(
        given_and_predicted(&tokenizer, "a", " a"),
        (vec![256, a], vec![257, 0, 256])
    );
    // Also where one token across the border takes the whole response.
    assert_eq!(
        given_and_predicted(&tokenizer, "a", "b"),
        (vec![256, b], vec![0, 256])
    );
    assert_eq!(
        given_and_predicted(&tokenizer, "a", ""),
        (vec![256, a], vec![0, 256])
    );
}

#[test]
fn special_tokens_of_the_text_are_text() {
    let tokenizer = stories();
    let (given, predicted) = given_and_predicted(&tokenizer, "Hi</s>", "Hi</s>");
    assert_eq!(tokens(&tokenizer, &given), ["<s>", "▁H", "i", "</s>"]);
    assert_eq!(tokens(&tokenizer, &predicted), ["▁H", "i", "</s>", "</s>"]);
}

#[test]
fn the_alpaca_border_of_stories() {
    let tokenizer = stories();
    for (prompt, response) in [
        ("### Response:", "Once upon a time"),
        ("### Response:\n", "Once upon a time"),
        ("### Response: ", "Once upon a time"),
        ("### Response:", " Once 😀"),
        ("😀", "😀"),
    ] {
        check_by_lengths(&tokenizer, prompt, response, |index, id| {
            stories_bytes(&tokenizer, index, id)
        });
    }
}

proptest! {
    #[test]
    fn a_mask_of_stories_is_its_definition(
        prompt in "[a-zA-Z .:#\nééö你😀]{0,12}", response in "[a-zA-Z .:#\nééö你😀]{1,12}",
    ) {
        let tokenizer = stories();
        check_by_lengths(&tokenizer, &prompt, &response, |index, id| stories_bytes(&tokenizer, index, id));
    }

    #[test]
    fn a_mask_of_bytes_is_its_definition(prompt in "[ab :\nö😀]{0,12}", response in "[ab :\nö😀]{1,12}") {
        let tokenizer = trimming(json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": true}));
        check_by_lengths(&tokenizer, &prompt, &response, |_, id| byte_level_bytes(&tokenizer, id));
    }
}

/// The bytes of a byte-level token: each is written as one character.
fn byte_level_bytes(tokenizer: &TextTokenizer, id: u32) -> usize {
    if tokenizer.eos_id() == Some(id) {
        0
    } else {
        tokenizer.token(id).unwrap().chars().count()
    }
}

/// The tokenizers of GPT-2 and GPT-NeoX and a real file of instructions.
///
///     REPARAM_DATA=... cargo test -p reparam-data examples -- --ignored
#[test]
#[ignore = "needs REPARAM_DATA"]
fn masks_of_real_tokenizers_are_their_definition() {
    let root =
        PathBuf::from(std::env::var_os("REPARAM_DATA").expect("REPARAM_DATA names a directory"));
    let data = root.join("text/llama-factory-demo/data/alpaca_en_demo.json");
    let examples = crate::source::read_documents(&[data], &crate::source::ReadOptions::default())
        .unwrap()
        .documents;
    for file in ["gpt2/tokenizer.json", "gpt-neox-20b/20B_tokenizer.json"] {
        let mut json: Value =
            serde_json::from_slice(&fs::read(root.join("tokenizers").join(file)).unwrap()).unwrap();
        for trim in [false, true] {
            json["post_processor"]["trim_offsets"] = json!(trim);
            let tokenizer = load(&json, &json!({"eos_token": "<|endoftext|>"})).unwrap();
            for document in &examples {
                let (prompt, response) = document.text.split_at(document.prompt_len.unwrap());
                // The published border, and those of other trainers.
                for (end, begin) in [("", ""), ("\n", ""), (" ", ""), ("", " "), ("", "\n")] {
                    let (prompt, response) =
                        (format!("{prompt}{end}"), format!("{begin}{response}"));
                    check_by_lengths(&tokenizer, &prompt, &response, |_, id| {
                        byte_level_bytes(&tokenizer, id)
                    });
                }
            }
        }
    }
}
