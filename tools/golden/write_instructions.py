"""Writes `testdata/golden/instructions.json`: the loss of stories260K on instructions whose prompts are masked.

`examples` are objects as a file in Alpaca's format has them, `ids` and `labels` what is made of each: the prompt that
Stanford published and the output, encoded as one text with BOS in front and EOS behind; a label is -100 where the token
begins before the output. `loss` is what transformers computes for these labels, averaged over the predicted tokens of all
examples, and `loss_f64` the same in f64.
"""

from golden_common import BASE, GOLDEN, InF64, load_base, load_tokenizer, setup, write_json

import torch

PROMPT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
PROMPT_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
EXAMPLES = [
    {"instruction": "Tell a story.", "input": "", "output": "Once upon a time, there was a little girl named Lily."},
    {"instruction": "Continue.", "input": "The dog ran to", "output": " the big tree.\nHe was scared."},
    {"instruction": "Say it with a face.", "output": "\u00e9t\u00e9 \U0001f600!"},
]
IGNORED = -100


def encode(tokenizer, example):
    """The ids and labels of an example."""
    form = PROMPT_WITH_INPUT if example.get("input", "") != "" else PROMPT
    prompt = form.format_map(example)
    encoding = tokenizer(prompt + example["output"], return_offsets_mapping=True)
    ids = [*encoding["input_ids"], tokenizer.eos_token_id]
    # BOS has no place in the text, and the offsets of EOS are behind it.
    begins = [-1, *(begin for begin, _ in encoding["offset_mapping"][1:]), len(prompt)]
    labels = [token if begin >= len(prompt) else IGNORED for token, begin in zip(ids, begins, strict=True)]
    return ids, labels


def mean_loss(model, encoded):
    """The mean over predicted tokens, from the mean of each example as transformers computes it."""
    total, count = 0.0, 0
    for ids, labels in encoded:
        predicted = sum(label != IGNORED for label in labels)
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
        total += loss.item() * predicted
        count += predicted
    return total / count


def main():
    setup(1)
    tokenizer = load_tokenizer()
    encoded = [encode(tokenizer, example) for example in EXAMPLES]
    exact_model = load_base().double()
    with InF64():
        exact = mean_loss(exact_model, encoded)
    value = {
        "model": BASE,
        "examples": EXAMPLES,
        "ids": [ids for ids, _ in encoded],
        "labels": [labels for _, labels in encoded],
        "loss": mean_loss(load_base(), encoded),
        "loss_f64": exact,
    }
    write_json(GOLDEN / "instructions.json", value)


if __name__ == "__main__":
    main()
