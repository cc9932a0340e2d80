"""Reads a file of instructions and turns it into token ids, the same for both sides of the comparison.

A file is a JSON array, or JSON Lines, of objects with the fields of one of FIELDS. An example is a prompt followed by its
response. The prompt of `instruction` and `output` is the one that Stanford published with Alpaca; other prompts are taken as
they are. The two are encoded as one text, with the end-of-text token after it. The tokens that are learned are those of the
response, with that last one. Examples longer than a sequence are left out, so that nobody has to cut one.
"""

import json
import random
from dataclasses import dataclass

# (the question, the answer)
FIELDS = [
    ("instruction", "output"),
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
]
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
SEED = 0


@dataclass
class Example:
    """One instruction with its answer."""

    prompt: str
    response: str
    ids: list
    response_begins: int  # the index of the first token of the response

    @property
    def response_tokens(self):
        return len(self.ids) - self.response_begins


def read(path):
    """The pairs of prompt and response in a file."""
    text = path.read_text(encoding="utf-8-sig")
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(row) for row in text.splitlines() if row.strip()]
    pairs = []
    for number, row in enumerate(rows, 1):
        form = next((form for form in FIELDS if form[0] in row and form[1] in row), None)
        if form is None:
            known = ", ".join(f"{question} and {answer}" for question, answer in FIELDS)
            raise ValueError(f"{path}: example {number} has {sorted(row)}, and none of {known}")
        question, answer = form
        prompt = row[question]
        if question == "instruction":
            prompt = (ALPACA_WITH_INPUT if row.get("input") else ALPACA).format_map(row)
        if row[answer].strip():
            pairs.append((prompt, row[answer]))
    if not pairs:
        raise ValueError(f"{path}: no example has a response")
    return pairs


def encode(tokenizer, prompt, response):
    """An example of token ids."""
    encoding = tokenizer(prompt + response, return_offsets_mapping=True, return_special_tokens_mask=True)
    ids = list(encoding["input_ids"])
    begins, end = len(ids), 0
    for index, (span, of_template) in enumerate(zip(encoding["offset_mapping"], encoding["special_tokens_mask"])):
        if of_template:
            continue
        # A token across the border belongs to the prompt: the model is given it. One begins where the token before it ends, for
        # byte-level tokenizers leave its spaces out of its span; but not behind its span, for the tokens of one character all have
        # the character's.
        if min(span[0], end) >= len(prompt):
            begins = index
            break
        begins, end = index + 1, span[1]
    if not ids or ids[-1] != tokenizer.eos_token_id:
        ids.append(tokenizer.eos_token_id)
    return Example(prompt, response, ids, begins)


def examples(path, tokenizer, length, count):
    """`count` examples of at most `length` tokens, drawn from the file, and how many of those drawn were too long."""
    pairs = read(path)
    random.Random(SEED).shuffle(pairs)
    chosen, too_long = [], 0
    for prompt, response in pairs:
        example = encode(tokenizer, prompt, response)
        if len(example.ids) > length:
            too_long += 1
            continue
        chosen.append(example)
        if len(chosen) == count:
            break
    if not chosen:
        raise ValueError(f"{path}: no example has at most {length} tokens")
    return chosen, too_long
