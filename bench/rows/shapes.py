"""Training steps in the shapes of other families: LoRA of rank 16 on all linear layers, 4 x 512 tokens, bf16.

The weights are random. Our linear layers should come as near to the limit of the machine's registers as in the shape of SmolLM2.
"""

import atexit
import functools
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from suite.measure import Ask, Line, Measurement, Row, Stats, times
from suite.process import run
from suite.programs import OURS_BF16, PEFT_AUTOCAST
from suite.setup import BENCH, config

# A tenth below the share that SmolLM2's shape reaches in the same run.
SHARE = Ask(0.9)


@functools.lru_cache
def _made(python, preset):
    """A model of random weights in this shape."""
    directory = tempfile.TemporaryDirectory(prefix="reparam-bench-")
    atexit.register(directory.cleanup)
    out = Path(directory.name) / f"{preset}-bf16"
    run([python, BENCH / "make_model.py", "--out", out, "--preset", preset, "--dtype", "bf16"])
    return out


def _in_shape(preset, one):
    """The same measurement of another model, which is made when it is first asked for."""

    def sample(context, directory):
        model = _made(context.python, preset)
        vocabulary = config(model)["vocab_size"]
        return one.sample(replace(context, model=model, vocabulary=vocabulary, random=True), directory)

    return Measurement(f"{one.name} {preset}", one.side, sample)


def _row(preset, title):
    ours, theirs = _in_shape(preset, OURS_BF16), _in_shape(preset, PEFT_AUTOCAST)

    def lines(samples, context):
        mine, other, usual = samples[ours.name], samples[theirs.name], samples[OURS_BF16.name]
        shares = mine.of("linear_share_of_limit")
        by_round = [share / of for share, of in zip(shares, usual.of("linear_share_of_limit"))]
        value, span = statistics.median(by_round), (min(by_round), max(by_round))
        result = [Line("share of the limit, over that of SmolLM2's shape", "%", Stats.of(shares), None, value, span, "x", SHARE)]
        memory = Line("peak memory", "GB", Stats.of(mine.of("peak_rss_bytes")))
        if other.failure:
            seconds = Stats.of([one for run in mine.of("step_seconds") for one in run])
            speed = Line("against PEFT, bf16 autocast", "s", seconds, failure=f"theirs: {other.failure}")
        else:
            speed = times("against PEFT, bf16 autocast", "s", mine.of("step_seconds"), other.of("step_seconds"), None)
            memory.theirs = Stats.of(other.of("peak_rss_bytes"))
        return [speed, memory, *result]

    return Row(f"step-{preset}", f"A step in bf16, {title}", (OURS_BF16, ours), lines, optional=(theirs,))


ROWS = [
    _row("qwen3-0.6b", "Qwen3 0.6B"),
    _row("llama-3.2-1b", "Llama 3.2 1B"),
    _row("gemma-3-1b", "Gemma 3 1B"),
]
