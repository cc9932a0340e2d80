"""Training on a file of instructions: the tokens that matter, those of the responses, a second."""

import atexit
import functools
import tempfile
from pathlib import Path

from suite.measure import Ask, Measurement, Row, check_losses, times
from suite.process import ProgramFailed, run
from suite.programs import RANK, train, train_file
from suite.setup import BENCH, is_random

LENGTH = 512
OUR_BATCH = 4
THEIR_BATCH = 8


@functools.lru_cache(maxsize=1)
def _prepared(python, model, data, examples):
    """The model with a tokenizer for texts, a file of the examples, and their counts."""
    directory = tempfile.TemporaryDirectory(prefix="reparam-bench-")
    atexit.register(directory.cleanup)
    place = Path(directory.name)
    if is_random(model):
        with_words = place / "model"
        run([python, BENCH / "make_tokenizer.py", "--model", model, "--data", data, "--out", with_words])
        model = with_words
    file = place / "examples.jsonl"
    command = [python, BENCH / "peft_instructions.py", "--model", model, "--data", data, "--length", LENGTH]
    counts = run([*command, "--examples", examples, "--write-examples", file]).last_object()
    return model, file, counts


def _examples(context):
    return 16 if context.quick else 96


def _of(context):
    return _prepared(context.python, context.model, context.data, _examples(context))


def _ours(context, directory):
    model, file, counts = _of(context)
    run_file = train_file(directory, model, file, batch=OUR_BATCH, length=LENGTH, train="epochs = 1")
    done, start, steps = train(context, run_file)
    check_losses([step["loss"] for step in steps], context, "reparam train")
    for what, ours, other in [("reads", "train_tokens", "tokens"), ("learns", "labelled_tokens", "response_tokens")]:
        if start["data"][ours] != counts[other]:
            raise ProgramFailed(f"it {what} {start['data'][ours]} tokens where the other side {what} {counts[other]}")
    # An epoch may end in the middle of a batch, which is then filled from the next one: those tokens count, too.
    matter = sum(step["weight"] for step in steps)
    seconds = sum(step["seconds"] for step in steps)
    return {
        "matter_tokens_per_s": matter / seconds, "seconds": seconds, "steps": len(steps), "blocks": start["data"]["blocks"], **counts,
        "peak_rss_bytes": done.peak_rss_bytes,
    }  # fmt: skip


def _theirs(context, directory):
    model, _, _ = _of(context)
    command = [context.python, BENCH / "peft_instructions.py", "--model", model, "--data", context.data, "--json"]
    sizes = ["--length", LENGTH, "--examples", _examples(context), "--batch", THEIR_BATCH, "--rank", RANK]
    done = run([*command, *sizes, "--dtype", "bf16-autocast"])
    report = done.last_object()
    check_losses(report["losses"], context, "PEFT")
    return {**report, "peak_rss_bytes": done.peak_rss_bytes}


OURS = Measurement("ours instructions", "ours", _ours)
THEIRS = Measurement("PEFT instructions", "theirs", _theirs, "bf16-autocast")


def _lines(samples, context):
    ours, theirs = samples[OURS.name], samples[THEIRS.name]
    first, other = ours.values[0], theirs.values[0]
    tokenizer = "a tokenizer trained on the file" if is_random(context.model) else "the model's tokenizer"
    note = (
        f"{first['examples']} examples, {first['tokens']} tokens with {tokenizer}, {first['response_tokens']} of them in "
        f"responses, which both sides learn; PEFT pads to the longest of {THEIR_BATCH}, which makes "
        f"{other['computed_tokens']}, ours packs"
    )
    by_round = ([[sample["matter_tokens_per_s"]] for sample in side.values] for side in (ours, theirs))
    return [times("against PEFT, bf16 autocast, padded", "tokens/s", *by_round, Ask(10, 20), higher_is_better=True, note=note)]


def _skip(context):
    return None if context.data else "no file of instructions: give --data FILE or set REPARAM_DATA"


ROW = Row("instructions", "A file of instructions, tokens that matter", (OURS, THEIRS), _lines, skip=_skip)
