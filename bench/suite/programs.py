"""How each program of the comparison is called, and what is taken of its answer."""

import json

from .measure import Measurement, check_losses
from .process import ProgramFailed, run
from .setup import BENCH

RANK = 16


def bench_command(context, precision, batch, length, steps, warmup, recompute=False):
    """The command line of `reparam bench`."""
    command = [
        context.reparam, "bench", "--model", context.model, "--rank", RANK, "--batch-size", batch, "--sequence-length", length,
        "--steps", steps, "--warmup", warmup, "--precision", precision, "--json",
    ]  # fmt: skip
    return [*command, "--recompute"] if recompute else command


def bench_sample(context, command, precision):
    """Runs `reparam bench` and checks its answer."""
    done = run(command)
    report = done.last_object()
    check_losses(report["losses"], context, "reparam bench")
    if report["precision"] != precision:
        raise ProgramFailed(f"it computed in {report['precision']}, not {precision}")
    if any(seconds <= 0 for seconds in report["step_seconds"]) or not report["step_seconds"]:
        raise ProgramFailed(f"its step_seconds cannot be: {report['step_seconds']}")
    # Counted from outside, as it is for the other side; its own count stays beside it.
    return {**report, "own_peak_rss_bytes": report["peak_rss_bytes"], "peak_rss_bytes": done.peak_rss_bytes}


def ours(name, precision, batch=4, length=512, recompute=False):
    """Training steps of reparam."""

    def sample(context, directory):
        command = bench_command(context, precision, batch, length, context.steps, context.warmup, recompute)
        return bench_sample(context, command, precision)

    return Measurement(name, "ours", sample, precision)


def peft_command(context, dtype, batch, length, steps, warmup, compile=False):
    """The command line of peft_step.py."""
    command = [
        context.python, BENCH / "peft_step.py", "--model", context.model, "--rank", RANK, "--batch", batch, "--length", length,
        "--steps", steps, "--warmup", warmup, "--dtype", dtype, "--json",
    ]  # fmt: skip
    return [*command, "--compile"] if compile else command


def peft_sample(context, command):
    """Runs peft_step.py and checks its answer."""
    done = run(command)
    report = done.last_object()
    check_losses(report["losses"], context, "PEFT")
    start = report["first_step_began_at"] - done.began_at
    return {
        **report, "own_peak_rss_bytes": report["peak_rss_bytes"], "peak_rss_bytes": done.peak_rss_bytes, "start_seconds": start,
    }  # fmt: skip


def theirs(name, dtype, compile=False):
    """Training steps of PEFT."""

    def sample(context, directory):
        # The first step compiles, so it is never one of those that are timed.
        warmup = max(context.warmup, 1)
        return peft_sample(context, peft_command(context, dtype, 4, 512, context.steps, warmup, compile))

    return Measurement(name, "theirs", sample, dtype)


# The measurements that more than one row needs.
OURS_BF16 = ours("ours bf16", "bf16")
OURS_BF16_RECOMPUTE = ours("ours bf16 recompute", "bf16", recompute=True)
OURS_F32 = ours("ours f32", "f32")
PEFT_AUTOCAST = theirs("PEFT bf16 autocast", "bf16-autocast")
PEFT_AUTOCAST_COMPILED = theirs("PEFT bf16 autocast compiled", "bf16-autocast", compile=True)
PEFT_BF16 = theirs("PEFT bf16 weights", "bf16")
PEFT_F32 = theirs("PEFT f32", "f32")
PEFT_F32_COMPILED = theirs("PEFT f32 compiled", "f32", compile=True)


def train_file(directory, model, data, *, batch, length, train):
    """Writes a run file for `reparam train` in bf16 and returns its path; `train` has more lines of [train]."""
    path = directory / "run.toml"
    path.write_text(
        f"""[model]
path = {json.dumps(str(model.absolute()))}
[data]
train = {json.dumps(str(data.absolute()))}
eval_fraction = 0
[method]
kind = "lora"
rank = {RANK}
alpha = {2 * RANK}
target_modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
[optimizer]
kind = "adamw"
learning_rate = 1e-4
[train]
batch_size = {batch}
sequence_length = {length}
precision = "bf16"
{train}
[output]
dir = {json.dumps(str(directory / "run"))}
""",
        encoding="utf-8",
    )
    return path


def train(context, run_file, precision="bf16"):
    """Runs `reparam train`; returns what ran, its `start` event, and its steps with their seconds and arrival."""
    done = run([context.reparam, "train", run_file, "--json"])
    events = [(json.loads(line), arrival) for line, arrival in zip(done.lines, done.arrivals) if line.startswith("{")]
    start = next((event for event, _ in events if event["event"] == "start"), None)
    steps = [
        {**event, "seconds": event["weight"] / event["per_second"], "arrival": arrival}
        for event, arrival in events
        if event["event"] == "step"
    ]
    if start is None or not steps:
        raise ProgramFailed("it printed no event of a start and a step")
    if start["precision"] != precision:
        raise ProgramFailed(f"it computed in {start['precision']}, not {precision}")
    return done, start, steps
