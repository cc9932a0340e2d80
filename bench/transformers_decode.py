"""Measures greedy decoding of one sequence with transformers on this machine's CPU.

    transformers_decode.py --model DIR (--prompt TEXT | --prompt-tokens N) [--new-tokens 128] [--dtype bf16|f32] [--json]
    transformers_decode.py --model DIR --prompt-tokens N --prompt-only

`tokens_per_s` is that of decoding alone: the tokens after the first one, over the time from the first to the last. The end
of the text does not end the decoding. With --prompt-tokens the prompt is a text that has just so many tokens, and
--prompt-only prints it.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import torch
import transformers
from peer_common import load, peak_rss_bytes, prepare, surroundings

TEXT = "The old clock in the hall had stopped years ago, but nobody in the house wanted to take it down. " * 16


class Clock(transformers.generation.streamers.BaseStreamer):
    """Notes when each token is there."""

    def __init__(self):
        self.times = []

    def put(self, value):
        self.times.append(time.perf_counter())

    def end(self):
        pass


def prompt_of(tokenizer, count):
    """The start of TEXT that has `count` tokens."""
    for end in range(1, len(TEXT) + 1):
        if len(tokenizer(TEXT[:end])["input_ids"]) == count:
            return TEXT[:end]
    sys.exit(f"error: no start of the built-in text has {count} tokens")


def measure(arguments, tokenizer, prompt):
    """Decodes and returns the object to print."""
    prepare(arguments.threads)
    begin = time.perf_counter()
    model = load(arguments.model, arguments.dtype).eval()
    load_seconds = time.perf_counter() - begin
    # Both sides make all the tokens that were asked for.
    model.generation_config.eos_token_id = None
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    clock = Clock()
    with torch.inference_mode():
        begin = time.perf_counter()
        options = {"do_sample": False, "max_new_tokens": arguments.new_tokens, "pad_token_id": 0}
        ids = model.generate(**inputs, **options, streamer=clock)[0].tolist()
    # The streamer is told of the prompt first.
    first, last = clock.times[1], clock.times[-1]
    prompt_tokens = inputs["input_ids"].shape[1]
    return {
        "program": "transformers",
        "dtype": arguments.dtype,
        "prompt": prompt,
        "prompt_tokens": prompt_tokens,
        "tokens": ids[prompt_tokens:],
        "load_seconds": load_seconds,
        "prompt_seconds": first - begin,
        "tokens_per_s": (arguments.new_tokens - 1) / (last - first),
        "peak_rss_bytes": peak_rss_bytes(),
        **surroundings(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model directory")
    prompts = parser.add_mutually_exclusive_group(required=True)
    prompts.add_argument("--prompt", help="the text to continue")
    prompts.add_argument("--prompt-tokens", type=int, help="continue a built-in text of so many tokens")
    parser.add_argument("--prompt-only", action="store_true", help="print the prompt and decode nothing")
    parser.add_argument("--new-tokens", type=int, default=128, help="tokens to add (default 128)")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args()
    if arguments.new_tokens < 2:
        parser.error("--new-tokens must be at least 2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(arguments.model))
    prompt = arguments.prompt or prompt_of(tokenizer, arguments.prompt_tokens)
    if arguments.prompt_only:
        print(json.dumps({"prompt": prompt}) if arguments.json else prompt)
        return
    result = measure(arguments, tokenizer, prompt)
    if arguments.json:
        print(json.dumps(result))
        return
    print(
        f"{result['tokens_per_s']:.1f} tokens/s, {len(result['tokens'])} tokens after {result['prompt_tokens']}, "
        f"peak {result['peak_rss_bytes'] / 2**20:.0f} MiB"
    )


if __name__ == "__main__":
    main()
