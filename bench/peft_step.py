"""Measures a training step of an adapter of PEFT and transformers on this machine's CPU.

    peft_step.py --model DIR [--method lora|dora|vera|ia3] [--rank 16] [--batch 4] [--length 512] [--steps N] [--warmup M]
                 [--dtype f32|bf16|bf16-autocast] [--attention sdpa|eager] [--threads N] [--compile] [--json]

A step is all of it: forward, loss, backward, clipping to norm 1, AdamW, zeroing the gradients. LoRA has alpha = 2 * rank on
all linear layers, AdamW learning rate 1e-4; the ids are random over the whole vocabulary, seeded, new ones every step.

- `f32`: everything in f32.
- `bf16`: the frozen weights are bf16, and PEFT keeps its factors in f32 and casts the activations at each adapter.
- `bf16-autocast`: the frozen weights stay f32, forward and loss run under torch's bf16 autocast.

The loss of every step is in the JSON: a step that computes nothing would show there (the first one is about the logarithm
of the vocabulary for a random model). `first_step_began_at` is seconds since the epoch.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from pathlib import Path

import torch
from peer_common import DTYPES, METHODS, Lora, peak_rss_bytes, prepare, surroundings


def measure(arguments):
    """Runs the steps and returns the object to print."""
    prepare(arguments.threads)
    lora = Lora(
        arguments.model, arguments.dtype, arguments.rank, arguments.attention, arguments.compile, arguments.method
    )
    vocabulary = lora.model.config.vocab_size
    rss_before_steps = peak_rss_bytes()

    first_step_began_at = time.time()
    seconds, losses = [], []
    for _ in range(arguments.warmup + arguments.steps):
        ids = torch.randint(0, vocabulary, (arguments.batch, arguments.length))
        begin = time.perf_counter()
        losses.append(lora.step(input_ids=ids, labels=ids))
        seconds.append(time.perf_counter() - begin)
    if not all(math.isfinite(loss) for loss in losses):
        sys.exit(f"error: a loss is not finite: {losses}")

    timed = seconds[arguments.warmup :]
    median = statistics.median(timed)
    tokens = arguments.batch * arguments.length
    return {
        "program": "peft",
        "model": arguments.model.name,
        "dtype": arguments.dtype,
        "attention": arguments.attention,
        "compile": arguments.compile,
        "method": arguments.method,
        "rank": arguments.rank,
        "batch": arguments.batch,
        "length": arguments.length,
        "trainable_parameters": sum(parameter.numel() for parameter in lora.trainable),
        "warmup_steps": arguments.warmup,
        "steps": arguments.steps,
        "step_seconds_median": median,
        "tokens_per_s": tokens / median,
        "first_step_began_at": first_step_began_at,
        "warmup_seconds": seconds[: arguments.warmup],
        "step_seconds": timed,
        "losses": losses,
        "rss_before_steps_bytes": rss_before_steps,
        "peak_rss_bytes": peak_rss_bytes(),
        **surroundings(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model directory")
    parser.add_argument("--method", choices=METHODS, default="lora", help="adapter; DoRA as LoRA (default lora)")
    parser.add_argument("--rank", type=int, default=16, help="LoRA rank; alpha is twice that (default 16)")
    parser.add_argument("--batch", type=int, default=4, help="sequences a step (default 4)")
    parser.add_argument("--length", type=int, default=512, help="tokens a sequence (default 512)")
    parser.add_argument("--steps", type=int, default=10, help="timed steps (default 10)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before those, not timed (default 2)")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model; give it a warm-up step or two")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args()
    for name in ["rank", "batch", "steps", "threads"]:
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if arguments.length < 2 or arguments.warmup < 0:
        parser.error("--length must be at least 2 and --warmup at least 0")
    result = measure(arguments)
    if arguments.json:
        print(json.dumps(result))
        return
    print(
        f"{result['step_seconds_median']:.3f} s a step (median of {result['steps']}, "
        f"{min(result['step_seconds']):.3f} to {max(result['step_seconds']):.3f}), "
        f"{result['tokens_per_s']:.0f} tokens/s, peak {result['peak_rss_bytes'] / 2**20:.0f} MiB, "
        f"loss {result['losses'][-1]:.4f}, {result['threads']} threads, {result['cpu']}"
    )


if __name__ == "__main__":
    main()
