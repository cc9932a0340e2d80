"""Writes `testdata/golden/generate.json`: greedy continuations of stories260K by transformers' `generate`.

For each prompt: its text, its ids (the tokenizer's template: BOS first), `max_new_tokens`, the new ids and the text of the
continuation: the decoding of prompt and new ids together, less the decoding of the prompt alone.

`golden_greedy_n256.txt` is not written by this script; it is an independent record of this model's greedy text, and the
script fails unless transformers gives it too: from the empty prompt (BOS alone), 256 new tokens, then a line feed.
"""

from golden_common import BASE, GOLDEN, encode, load_base, load_tokenizer, setup, write_json

import torch

PROMPTS = [
    ("Once upon a time, there was a boy named Tim. He had a", 64),
    ("The dog ran to the big tree because", 64),
]
GREEDY_FILE, GREEDY_PROMPT, GREEDY_NEW_TOKENS = "golden_greedy_n256.txt", "", 256


def generate(model, tokenizer, prompt, max_new_tokens):
    """One greedy continuation as a JSON object."""
    prompt_ids = encode(tokenizer, prompt)
    ids = torch.tensor([prompt_ids], dtype=torch.int64)
    with torch.no_grad():
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_new_tokens
        )[0].tolist()
        # How far the best token leads at the closest call: a margin near rounding would make the test a coin toss.
        logits = model(input_ids=torch.tensor([output])).logits[0, len(prompt_ids) - 1 : -1]
    top = logits.topk(2, dim=-1).values
    whole = tokenizer.decode(output, skip_special_tokens=True)
    start = tokenizer.decode(prompt_ids, skip_special_tokens=True)
    assert whole.startswith(start)
    return {
        "prompt": prompt,
        "prompt_ids": prompt_ids,
        "max_new_tokens": max_new_tokens,
        "new_ids": output[len(prompt_ids) :],
        "text": whole[len(start) :],
        "smallest_margin": (top[:, 0] - top[:, 1]).min().item(),
    }


def main():
    setup(7)
    model, tokenizer = load_base(), load_tokenizer()
    prompts = [generate(model, tokenizer, prompt, count) for prompt, count in PROMPTS]
    greedy = generate(model, tokenizer, GREEDY_PROMPT, GREEDY_NEW_TOKENS)
    given = (GOLDEN / GREEDY_FILE).read_text(encoding="utf-8")
    assert greedy["text"] + "\n" == given, f"transformers does not reproduce {GREEDY_FILE}"
    write_json(
        GOLDEN / "generate.json",
        {"model": BASE, "continuations": prompts, "greedy_file": {"file": GREEDY_FILE, **greedy}},
    )


if __name__ == "__main__":
    main()
