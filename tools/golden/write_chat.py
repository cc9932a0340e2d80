"""Writes `testdata/golden/chat.json`: conversations as transformers renders, encodes and masks them.

`named` has, for each chat template that the program knows by name (their texts are read from the program's source), and for one
that is written without marks, some conversations with the `text` that `apply_chat_template` makes of them, its `ids` with the
tokenizer of stories260K, the `mask` of the assistant's tokens, and the text `with_prompt` where an answer is to begin. `filters`
has what expressions that chat templates use give: each an expression over `value`, the value, and what is printed.
"""

import re

from golden_common import BASE, GOLDEN, ROOT, load_tokenizer, setup, versions, write_json

import transformers

SOURCE = "crates/reparam-data/src/chat/named.rs"
CONVERSATIONS = [
    [("user", "Who made the boat?"), ("assistant", "Tim made it.")],
    [("system", "Be short."), ("user", "Hi"), ("assistant", "Hello \u00e9t\u00e9!"), ("user", "  Why? "), ("assistant", "So.\n\nYes")],
]
# With the marks left out, the same has to be found by what stands before and behind a turn.
UNMARKED = re.compile(r"\{%-? (end)?generation -?%\}")
FILTERS = [
    ("value | tojson", {"b": [1, 2.5, None, True], "a": "\u00e9<&'\"\n"}),
    ("value | tojson(indent=2)", {"b": [1, [], {}], "a": {"c": "x"}}),
    ("value | tojson(separators=(',', ':'), sort_keys=true)", {"b": 1, "a": [1, 2]}),
    ("value | tojson(ensure_ascii=true)", "\u00e9\U0001f600"),
    ("value", {"a": [1, "x", None, True], "b": "it's"}),
    ("value", [1.0, "a\nb", "\u00e9"]),
    ("value", None),
    ("value | string", True),
    ("value.strip()", "  a b \n"),
    ("value.split('</think>')[-1].lstrip('\\n')", "<think>\nx\n</think>\n\ny"),
    ("value.split()", " a  b\nc "),
    ("value | trim | length", "  ab "),
    ("value[::-1] | join(',')", ["a", "b", "c"]),
    ("value | selectattr('role', 'equalto', 'user') | map(attribute='content') | list", [{"role": "user", "content": "a"}, {"role": "x", "content": "b"}]),
    ("value.items() | list", {"b": 1, "a": 2}),
    ("value | items | map('first') | list", {"b": 1, "a": 2}),
    ("value.get('x', 'none') ~ value['b']", {"b": 1}),
    ("value | default('d', true)", ""),
    ("[value is string, value is mapping, value is iterable, value is none]", [1]),
    ("value.upper().startswith('AB') and value.title().endswith('Cd')", "ab cd"),
    ("value.replace('a', 'b') | capitalize | indent(2, true)", "aa\nac"),
    ("'%s: %d' | format(value, 3)", "x"),
    ("(value | int + 1) // 2 % 3 ** 2", "7"),
    ("value | dictsort | first | last", {"b": 1, "a": 2}),
    ("value | map('upper') | unique | sort(reverse=true) | list", ["b", "a", "B"]),
    ("value | rejectattr('x') | list | count", [{"x": 1}, {"y": 1}]),
    ("missing is defined or missing is none or missing | length", 1),
    ("namespace(a=value).a + dict(b=value).b", 2),
    ("range(value) | batch(2) | list", 3),
    ("{'a': value}.a if value else 'b'", "x"),
    ("value[1:] + value[:1] * 2", "abc"),
]


def named_templates():
    """The templates of the source, as the compiler reads them."""
    source = (ROOT / SOURCE).read_text(encoding="utf-8")
    texts = dict(re.findall(r'^const ([A-Z0-9]+): &str = "((?:[^"\\]|\\.)*)";', source, re.M | re.S))
    names = re.findall(r'\("([a-z0-9-]+)", ([A-Z0-9]+)\)', source)
    plain = {key: re.sub(r"\\\n\s*", "", text).replace("\\\\", "\\") for key, text in texts.items()}
    return {name: plain[key] for name, key in names}


def case(tokenizer, template, turns):
    """A conversation with what transformers makes of it."""
    messages = [{"role": role, "content": content} for role, content in turns]
    options = {"chat_template": template}
    encoded = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True, **options
    )
    return {
        "messages": messages,
        "text": tokenizer.apply_chat_template(messages, tokenize=False, **options),
        "with_prompt": tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True, **options),
        "ids": encoded["input_ids"],
        "mask": encoded["assistant_masks"],
    }


def printed(expression, value):
    """What an expression prints in transformers' environment."""
    compiled = transformers.utils.chat_template_utils._compile_jinja_template("{{ " + expression + " }}")
    return compiled.render(value=value)


def main():
    setup(1)
    tokenizer = load_tokenizer()
    value = {
        "versions": versions(),
        "model": BASE,
        "named": {
            name: {
                "template": template,
                "unmarked": UNMARKED.sub("", template),
                "cases": [case(tokenizer, template, turns) for turns in CONVERSATIONS],
            }
            for name, template in named_templates().items()
        },
        "filters": [
            {"expression": expression, "value": value, "printed": printed(expression, value)} for expression, value in FILTERS
        ],
    }
    write_json(GOLDEN / "chat.json", value)


if __name__ == "__main__":
    main()
