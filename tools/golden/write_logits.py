"""Writes `testdata/golden/logits.{safetensors,json}`: what stories260K computes for two real texts.

Tensors: `input_ids` [2, 48] i64 (row 0 Shakespeare, row 1 a story; each row is its own sequence and starts with BOS)
and `logits` [2, 48, 512] f32. The JSON has the distance to the same computation in f64, a floor for tolerances.
"""

from golden_common import (
    BASE,
    GOLDEN,
    SHAKESPEARE,
    STORY,
    InF64,
    encode,
    load_base,
    load_tokenizer,
    setup,
    write_json,
    write_tensors,
)

import torch

LENGTH = 48


def main():
    setup(1)
    tokenizer = load_tokenizer()
    texts = [SHAKESPEARE.read_text(encoding="utf-8")[:400], STORY]
    ids = torch.tensor([encode(tokenizer, text)[:LENGTH] for text in texts], dtype=torch.int64)
    with torch.no_grad():
        logits = load_base()(input_ids=ids).logits
        exact_model = load_base().double()
        with InF64():
            exact = exact_model(input_ids=ids).logits
    write_tensors(GOLDEN / "logits.safetensors", {"input_ids": ids, "logits": logits})
    assert exact.dtype == torch.float64
    difference = (logits.double() - exact).abs().max().item()
    write_json(GOLDEN / "logits.json", {"model": BASE, "max_abs_difference_to_f64": difference})


if __name__ == "__main__":
    main()
