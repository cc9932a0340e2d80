"""Measures LoRA training of PEFT on a file of instructions, as it is usually done.

    peft_instructions.py --model DIR --data FILE [--examples N] [--batch 8] [--length 512] [--dtype bf16-autocast] [--json]
    peft_instructions.py --model DIR --data FILE [--examples N] [--length 512] --write-examples FILE

The prompt is masked (label -100), examples of mixed lengths are shuffled, and a batch is padded to its longest example.
One step on the longest examples comes first and is not timed; then every example is trained on once. The tokens that
matter are those with a label.

With --write-examples nothing is trained: the same examples are written as JSON Lines with `prompt` and `completion`, for a
program that masks and packs them itself, and their tokens are counted.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

import instructions
import torch
import transformers
from peer_common import DTYPES, Lora, peak_rss_bytes, prepare, surroundings

IGNORED = -100


def collate(batch, padding):
    """Ids, attention mask and labels, padded on the right to the longest example."""
    longest = max(len(example.ids) for example in batch)
    ids = torch.full((len(batch), longest), padding)
    mask = torch.zeros((len(batch), longest), dtype=torch.long)
    labels = torch.full((len(batch), longest), IGNORED)
    for row, example in enumerate(batch):
        end = len(example.ids)
        ids[row, :end] = torch.tensor(example.ids)
        mask[row, :end] = 1
        begins = example.response_begins
        labels[row, begins:end] = ids[row, begins:end]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def counts(chosen, too_long):
    """What both sides train on."""
    return {
        "examples": len(chosen),
        "too_long": too_long,
        "tokens": sum(len(example.ids) for example in chosen),
        # The first token of a text is not predicted; a response never begins there.
        "response_tokens": sum(example.response_tokens for example in chosen),
        "characters": sum(len(example.prompt + example.response) for example in chosen),
    }


def write_examples(path, chosen):
    lines = (json.dumps({"prompt": example.prompt, "completion": example.response}) + "\n" for example in chosen)
    path.write_text("".join(lines), encoding="utf-8")


def measure(arguments, tokenizer, chosen):
    """Trains on every example once and returns the object to print."""
    prepare(arguments.threads)
    lora = Lora(arguments.model, arguments.dtype, arguments.rank)
    padding = tokenizer.eos_token_id
    longest = sorted(chosen, key=lambda example: len(example.ids))[-arguments.batch :]
    losses = [lora.step(**collate(longest, padding))]
    seconds, matter, computed = [], 0, 0
    for first in range(0, len(chosen), arguments.batch):
        begin = time.perf_counter()
        batch = collate(chosen[first : first + arguments.batch], padding)
        losses.append(lora.step(**batch))
        seconds.append(time.perf_counter() - begin)
        matter += int((batch["labels"] != IGNORED).sum())
        computed += batch["input_ids"].numel()
    if not all(math.isfinite(loss) for loss in losses):
        sys.exit(f"error: a loss is not finite: {losses}")
    return {
        "program": "peft",
        "dtype": arguments.dtype,
        "batch": arguments.batch,
        "rank": arguments.rank,
        "step_seconds": seconds,
        "losses": losses,
        "matter_tokens": matter,
        "computed_tokens": computed,
        "matter_tokens_per_s": matter / sum(seconds),
        "peak_rss_bytes": peak_rss_bytes(),
        **surroundings(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model directory")
    parser.add_argument("--data", type=Path, required=True, help="JSON or JSON Lines of instructions and answers")
    parser.add_argument("--examples", type=int, default=96, help="examples that are drawn (default 96)")
    parser.add_argument("--batch", type=int, default=8, help="examples a step (default 8)")
    parser.add_argument("--length", type=int, default=512, help="the most tokens of an example (default 512)")
    parser.add_argument("--rank", type=int, default=16, help="LoRA rank; alpha is twice that (default 16)")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16-autocast")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all")
    parser.add_argument("--write-examples", type=Path, help="write the examples here and train nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args()
    for name in ["examples", "batch", "length", "rank", "threads"]:
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(arguments.model))
    if tokenizer.eos_token_id is None:
        sys.exit("error: the tokenizer has no end-of-text token")
    try:
        chosen, too_long = instructions.examples(arguments.data, tokenizer, arguments.length, arguments.examples)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    result = counts(chosen, too_long)
    if arguments.write_examples:
        write_examples(arguments.write_examples, chosen)
    else:
        result |= measure(arguments, tokenizer, chosen)
    if arguments.json or arguments.write_examples:
        print(json.dumps(result))
        return
    print(
        f"{result['matter_tokens_per_s']:.0f} tokens that matter a second, {result['examples']} examples, "
        f"{result['matter_tokens']} of {result['computed_tokens']} computed tokens matter, "
        f"peak {result['peak_rss_bytes'] / 2**20:.0f} MiB"
    )


if __name__ == "__main__":
    main()
