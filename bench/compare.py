"""Measures a LoRA training step of reparam and of PyTorch + PEFT, in turn, on the same machine.

Both sides train LoRA of rank 16 on all linear layers of the same random-weight model (see
make_model.py), in f32, on blocks of the same size, with AdamW and clipping: forward, loss,
backward, update. Each round runs both; the table has medians over all timed steps of all rounds.

    python bench/compare.py --model DIR --reparam target/release/reparam [--rounds 2] [--steps 5]

Prints a Markdown table, and writes the figures as JSON with --out FILE.
"""

import argparse
import json
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
WARMUP_STEPS = 1


def cpu_name():
    for line in open("/proc/cpuinfo", encoding="utf-8"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def run_reparam(args, directory):
    """Returns the seconds of each timed step, and the peak memory in bytes."""
    text = directory / "random.txt"
    letters = random.Random(0)
    # The benchmark model's tokenizer has one token a byte.
    length = args.batch * args.length * (args.steps + WARMUP_STEPS)
    text.write_text("".join(letters.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(length)))
    run_file = directory / "run.toml"
    run_file.write_text(
        f"""
[model]
path = {json.dumps(str(args.model))}
[data]
train = {json.dumps(str(text))}
eval_fraction = 0
[method]
kind = "lora"
rank = {args.rank}
alpha = {2 * args.rank}
[optimizer]
kind = "adamw"
learning_rate = 1e-4
[train]
max_steps = {args.steps + WARMUP_STEPS}
batch_size = {args.batch}
sequence_length = {args.length}
precision = "f32"
[output]
dir = {json.dumps(str(directory / "run"))}
"""
    )
    command = [str(args.reparam), "train", str(run_file), "--json"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    steps = [event for event in map(json.loads, lines) if event["event"] == "step"]
    seconds = [step["tokens"] / step["tokens_per_s"] for step in steps[WARMUP_STEPS:]]
    return seconds, max(step["peak_rss_bytes"] for step in steps)


def run_peft(args):
    """Returns the seconds of each timed step, and the peak memory in bytes."""
    command = [
        sys.executable, str(HERE / "peft_step.py"), "--model", str(args.model),
        "--rank", str(args.rank), "--batch", str(args.batch), "--length", str(args.length),
        "--steps", str(args.steps), "--warmup", str(WARMUP_STEPS), "--dtype", "f32", "--json",
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    report = json.loads(output.splitlines()[-1])
    return report["step_seconds"], report["peak_rss_bytes"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--reparam", type=pathlib.Path, required=True)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()

    sides = {"reparam": ([], []), "PyTorch + PEFT": ([], [])}
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as directory:
            seconds, peak = run_reparam(args, pathlib.Path(directory))
        sides["reparam"][0].extend(seconds)
        sides["reparam"][1].append(peak)
        seconds, peak = run_peft(args)
        sides["PyTorch + PEFT"][0].extend(seconds)
        sides["PyTorch + PEFT"][1].append(peak)

    tokens = args.batch * args.length
    results = {}
    for name, (seconds, peaks) in sides.items():
        median = statistics.median(seconds)
        results[name] = {
            "step_seconds": median,
            "step_seconds_min": min(seconds),
            "step_seconds_max": max(seconds),
            "tokens_per_s": tokens / median,
            "peak_rss_bytes": max(peaks),
            "timed_steps": len(seconds),
        }
    print(f"{cpu_name()}, {args.batch} x {args.length} tokens, rank {args.rank}, f32\n")
    print("| side | step, s (min to max) | tokens/s | peak memory, GB |")
    print("| --- | --- | --- | --- |")
    for name, row in results.items():
        print(
            f"| {name} | {row['step_seconds']:.2f} ({row['step_seconds_min']:.2f} to "
            f"{row['step_seconds_max']:.2f}) | {row['tokens_per_s']:.0f} | "
            f"{row['peak_rss_bytes'] / 1e9:.2f} |"
        )
    ours, theirs = results["reparam"], results["PyTorch + PEFT"]
    print(
        f"\nspeed {ours['tokens_per_s'] / theirs['tokens_per_s']:.2f} x, "
        f"memory {ours['peak_rss_bytes'] / theirs['peak_rss_bytes']:.2f} x"
    )
    if args.out:
        machine = {"cpu": cpu_name(), "system": platform.platform()}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
