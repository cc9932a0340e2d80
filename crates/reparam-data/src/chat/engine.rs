//! Jinja as transformers runs it for chat templates.
//!
//! The settings are those of `_compile_jinja_template` in transformers' `chat_template_utils.py`: blocks take the line end behind
//! them and the space before them on their line; `tojson` is `json.dumps`; `raise_exception` and `strftime_now` are there, and
//! loops may be left. Of Python, the methods of texts, lists and dictionaries are there.

use std::fmt;
use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::clock::Clock;
use super::json::tojson;

/// The name of the one template of an environment.
pub(super) const NAME: &str = "chat template";

/// How deep macros and the like may be nested.
const MOST_RECURSION: usize = 200;

/// What a template says of a conversation that it refuses.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// Compiles a template; returns with it the parts of its text that are marked as generated.
pub(super) fn compile(
    source: &str,
    clock: Clock,
) -> Result<(Environment<'static>, Vec<Range<usize>>), Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?;
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_recursion_limit(MOST_RECURSION);
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_filter("tojson", tojson);
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<Value, Error> {
            let error = Error::new(ErrorKind::InvalidOperation, "raised by the template");
            Err(error.with_source(Raised(message)))
        },
    );
    environment.add_function("strftime_now", move |format: String| {
        clock.strftime(&format)
    });
    let (source, generated) = without_marks(source);
    environment.add_template_owned(NAME, source)?;
    Ok((environment, generated))
}

/// Makes blocks that are always done of those that mark what is generated, in as many bytes, so that places stay what they are.
/// Returns the parts between the marks.
fn without_marks(source: &str) -> (String, Vec<Range<usize>>) {
    const MARKS: [(&str, &str); 2] = [
        ("generation", "if true   "),
        ("endgeneration", "endif        "),
    ];
    let mut text = source.to_owned();
    let (mut open, mut parts) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(found) = source[at..].find("{%").map(|found| at + found) {
        // What is in a comment marks nothing.
        if let Some(comment) = source[at..found].find("{#").map(|comment| at + comment) {
            let Some(end) = source[comment + 2..].find("#}") else {
                break;
            };
            at = comment + 2 + end + 2;
            continue;
        }
        let inner = found + 2;
        let Some(length) = source[inner..].find("%}") else {
            break;
        };
        let end = inner + length + 2;
        let block = source[inner..inner + length].trim_matches(['-', '+']);
        let word = block.trim();
        if let Some((_, instead)) = MARKS.iter().find(|(mark, _)| *mark == word)
            && let Some(offset) = source[inner..end].find(word)
        {
            let word_at = inner + offset;
            text.replace_range(word_at..word_at + word.len(), instead);
            match word == MARKS[0].0 {
                true => open.push(end),
                false => parts.extend(open.pop().map(|begin| begin..found)),
            }
        }
        at = end;
    }
    (text, parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_blocks_of_the_same_length() {
        for (source, text, parts) in [
            ("a", "a", &[][..]),
            (
                "{% if add_generation_prompt %}x{% endif %}",
                "{% if add_generation_prompt %}x{% endif %}",
                &[],
            ),
            (
                "é{% generation %}b{% endgeneration %}c",
                "é{% if true    %}b{% endif         %}c",
                &[(18, 19)],
            ),
            (
                "{%- generation -%}b{%+endgeneration+%}",
                "{%- if true    -%}b{%+endif        +%}",
                &[(18, 19)],
            ),
            (
                "{# {% generation %} #}a{%generation%}b{%endgeneration%}",
                "{# {% generation %} #}a{%if true   %}b{%endif        %}",
                &[(37, 38)],
            ),
            ("{% generation %", "{% generation %", &[]),
            ("{# {% generation %}", "{# {% generation %}", &[]),
            ("{% endgeneration %}", "{% endif         %}", &[]),
        ] {
            let (found, found_parts) = without_marks(source);
            assert_eq!(found, text);
            assert_eq!(found.len(), source.len());
            let found_parts: Vec<_> = found_parts
                .iter()
                .map(|part| (part.start, part.end))
                .collect();
            assert_eq!(found_parts, parts, "{source}");
        }
    }
}
