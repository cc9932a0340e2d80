//! JSON as Python's `json.dumps` writes it: what `tojson` is in templates.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// How deep values may be nested.
const MOST_DEPTH: usize = 128;

/// How wide a level may be indented.
const MOST_INDENT: usize = 64;

/// How it is written.
struct Style {
    indent: Option<String>,
    between_items: String,
    before_value: String,
    is_ascii: bool,
    sorts: bool,
}

/// The filter `tojson`, with the arguments that transformers gives it.
pub(super) fn tojson(
    state: &State<'_, '_>,
    value: &Value,
    options: Kwargs,
) -> Result<Value, Error> {
    let indent: Option<Value> = options.get("indent")?;
    let indent = indent.filter(|indent| !indent.is_none());
    let indent = indent.map(|indent| match indent.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(indent.as_usize().unwrap_or(0).min(MOST_INDENT)),
    });
    let separators: Option<Value> = options.get("separators")?;
    let separators = match separators.filter(|pair| !pair.is_none()) {
        None => None,
        Some(pair) => {
            let of = |at| pair.get_item_by_index(at).map(|part| part.to_string());
            Some((of(0)?, of(1)?))
        }
    };
    let (between_items, before_value) = separators.unwrap_or_else(|| {
        let between = if indent.is_some() { "," } else { ", " };
        (between.to_owned(), ": ".to_owned())
    });
    let style = Style {
        indent,
        between_items,
        before_value,
        is_ascii: options
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or(false),
        sorts: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    let mut text = String::new();
    style.write(value, 0, &mut text)?;
    state.consume_fuel(text.len() as u64 / 16)?;
    Ok(Value::from(text))
}

impl Style {
    fn write(&self, value: &Value, depth: usize, to: &mut String) -> Result<(), Error> {
        if depth > MOST_DEPTH {
            return Err(invalid("it is nested too deep"));
        }
        match value.kind() {
            ValueKind::None => to.push_str("null"),
            ValueKind::Bool => to.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => to.push_str(&value.to_string()),
            ValueKind::Number => to.push_str(&float(f64::try_from(value.clone())?)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), to),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?;
                self.list('[', ']', items, depth, to, |item, to| {
                    self.write(&item, depth + 1, to)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorts {
                    keys.sort();
                }
                self.list('{', '}', keys.into_iter(), depth, to, |key, to| {
                    let name = match key.kind() {
                        ValueKind::None => "null".to_owned(),
                        ValueKind::Bool => key.to_string().to_lowercase(),
                        _ => key.to_string(),
                    };
                    self.string(&name, to);
                    to.push_str(&self.before_value);
                    self.write(&value.get_item(&key)?, depth + 1, to)
                })?;
            }
            kind => return Err(invalid(format!("{kind} is no JSON"))),
        }
        Ok(())
    }

    fn list(
        &self,
        open: char,
        close: char,
        items: impl Iterator<Item = Value>,
        depth: usize,
        to: &mut String,
        mut write: impl FnMut(Value, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let break_line = |depth: usize, to: &mut String| {
            if let Some(indent) = &self.indent {
                to.push('\n');
                (0..depth).for_each(|_| to.push_str(indent));
            }
        };
        to.push(open);
        let mut is_empty = true;
        for item in items {
            if !is_empty {
                to.push_str(&self.between_items);
            }
            is_empty = false;
            break_line(depth + 1, to);
            write(item, to)?;
        }
        if !is_empty {
            break_line(depth, to);
        }
        to.push(close);
        Ok(())
    }

    fn string(&self, text: &str, to: &mut String) {
        to.push('"');
        for c in text.chars() {
            match c {
                '"' => to.push_str("\\\""),
                '\\' => to.push_str("\\\\"),
                '\n' => to.push_str("\\n"),
                '\r' => to.push_str("\\r"),
                '\t' => to.push_str("\\t"),
                '\u{8}' => to.push_str("\\b"),
                '\u{c}' => to.push_str("\\f"),
                c if c < ' ' || (self.is_ascii && !c.is_ascii()) => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        to.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => to.push(c),
            }
        }
        to.push('"');
    }
}

/// Writes a number as Python's `repr`: the exponent with a sign and at least two digits.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_owned();
    }
    // The shortest digits, with an exponent from the same sizes on.
    let text = format!("{number:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => {
            let digits = digits.strip_suffix(".0").unwrap_or(digits);
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("tojson: {}", message.into()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `repr` of Python 3.12.
    #[test]
    fn numbers_are_written_as_python_does() {
        for (number, text) in [
            (0.5, "0.5"),
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.25e-7, "1.25e-07"),
            (0.1 + 0.2, "0.30000000000000004"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(float(number), text);
        }
    }
}
