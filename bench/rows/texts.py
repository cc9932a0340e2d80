"""Training of text classifiers on rows of real lengths: an encoder with LoRA, an LSTM from nothing.

Both sides make two passes over the same rows; the second one is timed. PEFT pads each batch to its longest row, ours packs.
"""

import atexit
import functools
import json
import tempfile
from pathlib import Path

from suite.measure import Ask, Line, Measurement, Row, Stats, check_losses, times
from suite.process import ProgramFailed, run
from suite.programs import RANK, train
from suite.setup import BENCH

BATCH, LENGTH, CLASSES = 16, 128, 2
LSTM = 'architecture = "lstm"\nconfig = { hidden_size = 256, embedding_size = 256, bidirectional = true, classifier_dropout = 0.0 }'
# Encoders in bf16 train without their own dropout here, so the other side does, too.
DROPOUT = {"f32": 0.1, "bf16": 0.0, "bf16-autocast": 0.0}
LORA = f"""[method]
kind = "lora"
rank = {RANK}
alpha = {2 * RANK}
target_modules = ["query", "key", "value", "dense"]
"""


@functools.lru_cache
def _made(python, shape, rows):
    """A directory of random weights in this shape, with its rows."""
    directory = tempfile.TemporaryDirectory(prefix="reparam-bench-")
    atexit.register(directory.cleanup)
    out = Path(directory.name) / "model"
    run([python, BENCH / "make_encoder.py", "--out", out, "--shape", shape, "--rows", rows])
    return out


def _rows(context):
    return 64 if context.quick else 512


def _of(context, shape):
    return _made(context.python, shape, _rows(context))


def _ours(kind, shape, precision):
    def sample(context, directory):
        made = _of(context, shape)
        file = directory / "run.toml"
        lstm = kind == "lstm"
        model = f"{LSTM}\ntokenizer = {{ path = {json.dumps(str(made))} }}" if lstm else f"path = {json.dumps(str(made))}\ndropout = {DROPOUT[precision]}"
        file.write_text(
            f"""[model]
task = "sequence-classification"
{model}
[data]
train = {json.dumps(str(made / "rows.jsonl"))}
eval_fraction = 0
{"" if lstm else LORA}
[optimizer]
kind = "adamw"
learning_rate = 1e-4
[train]
epochs = 2
batch_size = {BATCH}
sequence_length = {LENGTH}
precision = "{precision}"
[output]
dir = {json.dumps(str(directory / "run"))}
""",
            encoding="utf-8",
        )
        done, _, steps = train(context, file, precision)
        timed = steps[len(steps) // 2 :]
        seconds = sum(step["seconds"] for step in timed)
        rows = sum(step["weight"] for step in timed)
        check_losses(losses := [step["loss"] for step in steps], context, "reparam train", CLASSES)
        if rows != (there := _rows(context)):
            raise ProgramFailed(f"a pass is {rows} rows, not {there}")
        return {"rows_per_s": rows / seconds, "losses": losses, "peak_rss_bytes": done.peak_rss_bytes}

    return Measurement(f"ours {kind} {shape} {precision}", "ours", sample)


def _theirs(kind, shape, dtype):
    def sample(context, directory):
        command = [context.python, BENCH / "torch_classifier.py", "--model", _of(context, shape), "--kind", kind]
        done = run([*command, "--batch", BATCH, "--length", LENGTH, "--rank", RANK, "--dtype", dtype, "--dropout", DROPOUT[dtype], "--json"])
        report = done.last_object()
        check_losses(report["losses"], context, "PyTorch", CLASSES)
        return {**report, "peak_rss_bytes": done.peak_rss_bytes}

    return Measurement(f"PyTorch {kind} {shape} {dtype}", "theirs", sample)


def _row(name, title, kind, shape, pairs):
    """A line a pair of precisions: title, ours, theirs, what is asked."""
    measured = [(title, _ours(kind, shape, ours), _theirs(kind, shape, theirs), ask) for title, ours, theirs, ask in pairs]

    def lines(samples, context):
        results = []
        for title, ours, theirs, ask in measured:
            mine, other = samples[ours.name], samples[theirs.name]
            first = other.values[0]
            note = f"{first['rows']} rows of {first['tokens'] / first['rows']:.0f} tokens in the mean, {BATCH} a step"
            by_round = ([[sample["rows_per_s"]] for sample in side.values] for side in (mine, other))
            results.append(times(title, "rows/s", *by_round, ask, higher_is_better=True, note=note))
            memory = [Stats.of([value["peak_rss_bytes"] for value in side.values]) for side in (mine, other)]
            results.append(Line(f"peak memory, {ours.name.removeprefix('ours ')}", "GB", *memory))
        return results

    return Row(name, title, tuple(one for _, *sides, _ in measured for one in sides), lines)


_PRECISIONS = [
    ("against PEFT in f32, padded", "f32", "f32", Ask(2)),
    ("in bf16, against PEFT under bf16 autocast, padded", "bf16", "bf16-autocast", Ask(2)),
]
MINILM = _row("encoder-minilm", "LoRA on an encoder in MiniLM's shape, rows a second", "encoder", "minilm", _PRECISIONS)
BERT_BASE = _row("encoder-bert-base", "LoRA on an encoder in BERT-base's shape, rows a second", "encoder", "bert-base", _PRECISIONS)
LSTM_ROW = _row(
    "lstm", "A bidirectional LSTM from nothing, rows a second", "lstm", "minilm", [("against PyTorch in f32, packed", "f32", "f32", Ask(1))]
)
