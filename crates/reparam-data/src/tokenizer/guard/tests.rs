//! Tests of files that the library cannot be given.

use serde_json::json;

use super::*;

/// A table that turns `a` into `b`, as SentencePiece writes it: blocks of 256 units.
fn charsmap(change: impl FnOnce(&mut Vec<u32>, &mut Vec<u8>)) -> String {
    let mut units = vec![0_u32; 512];
    // The root; the unit of `a`, which has a leaf in the second block; and the leaf.
    let (label, leaf) = (u32::from(b'a'), 1 << 8);
    units[0] = 0;
    units[label as usize] = label | leaf | ((0x100 ^ label) << 10);
    units[0x100] = 1 << 31;
    let mut texts = b"b\0".to_vec();
    change(&mut units, &mut texts);
    let trie = units.iter().flat_map(|unit| unit.to_le_bytes());
    let mut bytes = (4 * units.len() as u32).to_le_bytes().to_vec();
    bytes.extend(trie);
    bytes.extend(texts);
    STANDARD.encode(bytes)
}

fn file(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
    });
    change(&mut json);
    json.to_string().into_bytes()
}

fn with_charsmap(table: &str) -> Vec<u8> {
    let table = json!({"type": "Precompiled", CHARSMAP: table});
    file(|json| json["normalizer"] = json!({"type": "Sequence", "normalizers": [table]}))
}

#[test]
fn a_good_file_is_used() {
    let made = tokenizer(&file(|_| {})).unwrap();
    assert_eq!(made.encode("ab", true).unwrap().get_ids(), [2]);
    let made = tokenizer(&with_charsmap(&charsmap(|_, _| {}))).unwrap();
    assert_eq!(made.encode("ab", true).unwrap().get_ids(), [1, 1]);
}

#[test]
fn tables_of_characters_are_checked() {
    let cases = [
        ("AAAA".to_owned(), "no trie"),
        // Sizes that the file does not have, up to four gigabytes of units of eight bytes.
        ("/////w==".to_owned(), "does not fit"),
        ("CAAAAAAAAAABAgMEBQYHCA==".to_owned(), "units"),
        ("AAAAAAAAAAA=".to_owned(), "cannot have 0 bytes"),
        ("AwAAAAAAAAA=".to_owned(), "cannot have 3 bytes"),
        ("a".to_owned(), "precompiled_charsmap"),
        (
            charsmap(|units, _| units.truncate(257)),
            "leads to 511 of 257 units",
        ),
        (
            charsmap(|units, _| units[0] = 7 << 18),
            "leads to 2047 of 512 units",
        ),
        (charsmap(|units, _| units[0x100] = 3), "no text at 3"),
        (charsmap(|_, texts| *texts = "é\0".into()), ""),
        (
            charsmap(|units, texts| {
                *texts = "é\0".into();
                units[0x100] = 1;
            }),
            "no text at 1",
        ),
    ];
    for (table, expected) in cases {
        match tokenizer(&with_charsmap(&table)) {
            Ok(_) => assert_eq!(expected, "", "{table:.40} is used"),
            Err(problem) => {
                assert!(
                    !expected.is_empty() && problem.contains(expected),
                    "{problem}"
                );
            }
        }
    }
}

/// A trie that leads back to itself is walked once.
#[test]
fn a_trie_in_a_circle_ends() {
    let table = charsmap(|units, _| {
        let label = u32::from(b'a');
        units[label as usize] = label | (label << 10);
    });
    assert!(tokenizer(&with_charsmap(&table)).is_ok());
}

#[test]
fn what_the_library_panics_on_is_an_error() {
    let alone = json!([{"Sequence": {"id": "B", "type_id": 0}}]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "a template of the second text alone",
            file(|json| {
                json["post_processor"] = json!({"type": "TemplateProcessing", "single": alone,
                    "pair": alone, "special_tokens": {}});
            }),
        ),
        (
            "a length of 0",
            file(|json| json["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0})),
        ),
        (
            "a prefix longer than a token",
            file(|json| json["model"]["continuing_subword_prefix"] = json!("##")),
        ),
        (
            "a merge of what is not there",
            file(|json| json["model"]["merges"] = json!(["a c"])),
        ),
        ("not JSON", b"{".to_vec()),
        (
            "a lone surrogate",
            br#"{"decoder": {"x": "\ud800"}}"#.to_vec(),
        ),
    ];
    for (what, bytes) in cases {
        let problem = tokenizer(&bytes).map(|_| ()).unwrap_err();
        assert!(!problem.is_empty(), "{what}");
    }
    let failed = guarded::<()>(|| panic!("at a text"));
    assert!(failed.unwrap_err().contains("at a text"));
}

/// Ids and lengths of any size cost nothing.
#[test]
fn huge_numbers_are_only_numbers() {
    let bytes = file(|json| {
        json["model"]["vocab"]["a"] = json!(u32::MAX);
        json["added_tokens"] = json!([{"id": u32::MAX - 1, "content": "<x>", "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}]);
        json["truncation"] = json!({"direction": "Right", "max_length": u64::MAX,
            "strategy": "LongestFirst", "stride": 0});
    });
    let made = tokenizer(&bytes).unwrap();
    assert_eq!(made.token_to_id("a"), Some(u32::MAX));
}
