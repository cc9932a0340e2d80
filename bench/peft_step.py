"""Measures a LoRA training step of PEFT and transformers on this machine's CPU.

    peft_step.py --model DIR [--rank 16] [--batch 4] [--length 512] [--steps N] [--warmup M]
                 [--dtype f32|bf16|bf16-autocast] [--attention sdpa|eager] [--threads N] [--compile] [--json]

A step is all of it: forward, loss, backward, clipping to norm 1, AdamW, zeroing the gradients. LoRA has alpha = 2 * rank on
all linear layers, AdamW learning rate 1e-4; the ids are random over the whole vocabulary, seeded, new ones every step.

- `f32`: everything in f32.
- `bf16`: the frozen weights are bf16, and PEFT keeps its factors in f32 and casts the activations at each adapter.
- `bf16-autocast`: the frozen weights stay f32, forward and loss run under torch's bf16 autocast.

One process, one setting, so that peak memory means something. The loss of every step is in the JSON: a step that
computes nothing would show there (the first one is about the logarithm of the vocabulary for a random model).
"""

import argparse
import contextlib
import json
import math
import os
import platform
import resource
import statistics
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402

SEED = 0
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LEARNING_RATE = 1e-4
MAX_NORM = 1.0


def cpu_name():
    """The processor's name as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def peak_rss_bytes():
    """The largest resident set of this process so far; Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def build(arguments):
    """The PEFT model in training mode and its trainable parameters."""
    base = transformers.AutoModelForCausalLM.from_pretrained(
        str(arguments.model),
        dtype=torch.bfloat16 if arguments.dtype == "bf16" else torch.float32,
        attn_implementation=arguments.attention,
    )
    base.config.use_cache = False
    config = LoraConfig(
        r=arguments.rank, lora_alpha=2 * arguments.rank, target_modules=TARGETS, task_type="CAUSAL_LM"
    )
    model = get_peft_model(base, config).train()
    return model, [parameter for parameter in model.parameters() if parameter.requires_grad]


def measure(arguments):
    """Runs the steps and returns the object to print."""
    torch.manual_seed(SEED)
    torch.set_num_threads(arguments.threads)
    model, trainable = build(arguments)
    vocabulary = model.config.vocab_size
    optimizer = torch.optim.AdamW(trainable, lr=LEARNING_RATE)
    forward = torch.compile(model) if arguments.compile else model
    rss_before_steps = peak_rss_bytes()

    seconds, losses = [], []
    for _ in range(arguments.warmup + arguments.steps):
        ids = torch.randint(0, vocabulary, (arguments.batch, arguments.length))
        autocast = arguments.dtype == "bf16-autocast"
        begin = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = forward(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, MAX_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
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
        "rank": arguments.rank,
        "batch": arguments.batch,
        "length": arguments.length,
        "trainable_parameters": sum(parameter.numel() for parameter in trainable),
        "warmup_steps": arguments.warmup,
        "steps": arguments.steps,
        "step_seconds_median": median,
        "step_seconds_min": min(timed),
        "step_seconds_max": max(timed),
        "tokens_per_s": tokens / median,
        "warmup_seconds": seconds[: arguments.warmup],
        "step_seconds": timed,
        "losses": losses,
        "rss_before_steps_bytes": rss_before_steps,
        "peak_rss_bytes": peak_rss_bytes(),
        "threads": torch.get_num_threads(),
        "cpu": cpu_name(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model directory")
    parser.add_argument("--rank", type=int, default=16, help="LoRA rank; alpha is twice that (default 16)")
    parser.add_argument("--batch", type=int, default=4, help="sequences a step (default 4)")
    parser.add_argument("--length", type=int, default=512, help="tokens a sequence (default 512)")
    parser.add_argument("--steps", type=int, default=10, help="timed steps (default 10)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before those, not timed (default 2)")
    parser.add_argument("--dtype", choices=["f32", "bf16", "bf16-autocast"], default="f32")
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
    transformers.utils.logging.disable_progress_bar()
    result = measure(arguments)
    if arguments.json:
        print(json.dumps(result))
        return
    print(
        f"{result['step_seconds_median']:.3f} s a step (median of {result['steps']}, "
        f"{result['step_seconds_min']:.3f} to {result['step_seconds_max']:.3f}), "
        f"{result['tokens_per_s']:.0f} tokens/s, peak {result['peak_rss_bytes'] / 2**20:.0f} MiB, "
        f"loss {result['losses'][-1]:.4f}, {result['threads']} threads, {result['cpu']}"
    )


if __name__ == "__main__":
    main()
