//! JSON as Python's `json.dumps(value, indent=2, sort_keys=True)` prints it.
//!
//! PEFT writes its configurations that way, without a newline at the end. Printing the same bytes
//! keeps adapters comparable with `diff` and `sha256sum` whoever wrote them.

use serde_json::{Number, Value};

/// Renders a value.
pub(super) fn dumps(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value, 0);
    text
}

fn write_value(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => text.push_str(&render_number(number)),
        Value::String(string) => write_string(text, string),
        Value::Array(items) => {
            write_items(text, ('[', ']'), items.iter(), depth, |text, item| {
                write_value(text, item, depth + 1);
            });
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            // Python compares strings by code points, which is the order of their UTF-8 bytes.
            entries.sort_by_key(|(key, _)| *key);
            write_items(
                text,
                ('{', '}'),
                entries.into_iter(),
                depth,
                |text, (key, item)| {
                    write_string(text, key);
                    text.push_str(": ");
                    write_value(text, item, depth + 1);
                },
            );
        }
    }
}

fn write_items<T, F>(
    text: &mut String,
    (open, close): (char, char),
    items: impl ExactSizeIterator<Item = T>,
    depth: usize,
    mut write: F,
) where
    F: FnMut(&mut String, T),
{
    let is_empty = items.len() == 0;
    text.push(open);
    for (position, item) in items.enumerate() {
        text.push_str(if position == 0 { "\n" } else { ",\n" });
        text.push_str(&"  ".repeat(depth + 1));
        write(text, item);
    }
    if !is_empty {
        text.push('\n');
        text.push_str(&"  ".repeat(depth));
    }
    text.push(close);
}

/// Writes a string with everything but printable ASCII escaped.
fn write_string(text: &mut String, string: &str) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            ' '..='~' => text.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    text.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    text.push('"');
}

fn render_number(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() => render_float(value),
        _ => number.to_string(),
    }
}

/// Renders a float as Python's `repr` does: the fewest digits that read back as the same number,
/// as `1e-05` if its exponent is below -4 or above 15.
pub(super) fn render_float(value: f64) -> String {
    // Rust finds the same shortest digits; only the layout differs.
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        if plain.contains('.') {
            plain
        } else {
            format!("{plain}.0")
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn floats_look_like_pythons() {
        // The right side is what CPython 3.11 prints.
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (0.05, "0.05"),
            (16.0, "16.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (3.5e-6, "3.5e-06"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (5e-324, "5e-324"),
            (123456.789, "123456.789"),
        ];
        for (value, expected) in cases {
            assert_eq!(render_float(value), expected);
        }
    }

    #[test]
    fn layout_and_escapes_are_pythons() {
        let value =
            json!({"b": [], "a": {}, "c": [1, "x\"\\\n\u{7f}é😀"], "d": {"y": 1, "x": null}});
        let expected = "{\n  \"a\": {},\n  \"b\": [],\n  \"c\": [\n    1,\n    \
                        \"x\\\"\\\\\\n\\u007f\\u00e9\\ud83d\\ude00\"\n  ],\n  \"d\": {\n    \
                        \"x\": null,\n    \"y\": 1\n  }\n}";
        assert_eq!(dumps(&value), expected);
    }
}
