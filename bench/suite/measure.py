"""Measurements, and the order they are made in.

A measurement runs one program once and returns the figures of that run, a *sample*. Rows name the measurements that
they need; those that several rows need are made once. In each round every measurement is made once, ours and theirs in
turn, so that a change of the machine's speed meets both sides.
"""

import math
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .process import ProgramFailed

# A random model guesses: its first loss is the logarithm of the vocabulary, a little more for the spread of its logits,
# and further off on a text whose few different tokens come again and again.
LOSS_TOLERANCE = 1.0


@dataclass
class Context:
    """What the measurements run on."""

    reparam: Path
    python: Path
    model: Path
    data: Path | None  # a file of instructions
    vocabulary: int
    random: bool  # whether the model has random weights
    steps: int  # timed steps of a process
    warmup: int  # steps before those
    rounds: int
    quick: bool


@dataclass(frozen=True)
class Measurement:
    """One program with one setting."""

    name: str
    side: str  # "ours" or "theirs"
    sample: Callable[[Context, Path], dict]  # takes an empty directory to write in
    precision: str | None = None  # of a training step; its answer is checked before anything is timed


@dataclass
class Samples:
    """The samples of a measurement, one a round, or why there are none."""

    values: list = field(default_factory=list)
    failure: str | None = None

    def of(self, key):
        """One figure of every round."""
        return [value[key] for value in self.values]


def check_losses(losses, context, what, choices=None):
    """Raises ProgramFailed unless the losses can be those of training steps: of tokens, or of one of so many choices."""
    if not losses or any(not isinstance(loss, (int, float)) or not math.isfinite(loss) for loss in losses):
        raise ProgramFailed(f"{what}: a loss is not finite: {losses}")
    expected = math.log(choices or context.vocabulary)
    if (context.random or choices) and abs(losses[0] - expected) > LOSS_TOLERANCE:
        raise ProgramFailed(f"{what}: the first loss of random weights is {losses[0]:.3f}, not about {expected:.3f}")


def measure(measurements, failed, context):
    """Makes every measurement once a round; `failed` has a reason for those that are not to be made."""
    samples = {one.name: Samples(failure=failed.get(one.name)) for one in measurements}
    for number in range(1, context.rounds + 1):
        for one in measurements:
            if samples[one.name].failure:
                continue
            print(f"round {number} of {context.rounds}: {one.name}", file=sys.stderr, flush=True)
            try:
                with tempfile.TemporaryDirectory(prefix="reparam-bench-") as directory:
                    samples[one.name].values.append(one.sample(context, Path(directory)))
            except ProgramFailed as error:
                samples[one.name].failure = str(error)
            except (KeyError, TypeError, ValueError, OSError) as error:
                # An answer that lacks what was agreed on fails its rows, not the others.
                samples[one.name].failure = f"its answer cannot be used: {error!r}"
            if samples[one.name].failure:
                print(f"  failed: {samples[one.name].failure}", file=sys.stderr, flush=True)
    return samples


@dataclass
class Stats:
    """Median, least and greatest of some figures."""

    median: float
    least: float
    greatest: float
    count: int

    @classmethod
    def of(cls, values):
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Ask:
    """What a figure should be: a bound that it has to reach, and one that is hoped for."""

    bound: float
    aim: float | None = None
    is_most: bool = False  # whether the figure has to be at most, not at least, these

    def verdict(self, value):
        def holds(bound):
            return value <= bound if self.is_most else value >= bound

        if not holds(self.bound):
            return "no"
        if self.aim is None:
            return "yes"
        return "yes, and the aim" if holds(self.aim) else "yes"


@dataclass
class Line:
    """A line of the table: a figure of ours, mostly beside one of theirs, and what is asked of it."""

    title: str
    unit: str  # of ours and theirs; see report.format_value
    ours: Stats | None
    theirs: Stats | None = None
    value: float | None = None  # what is judged; by default the median of ours
    value_range: tuple | None = None  # of single rounds
    value_unit: str | None = None  # by default `unit`
    ask: Ask | None = None
    note: str = ""
    failure: str | None = None  # why a side that belongs to it has no figure

    def judged(self):
        return self.ours.median if self.value is None else self.value

    def verdict(self):
        if self.failure:
            return "failed"
        return "-" if self.ask is None else self.ask.verdict(self.judged())


@dataclass(frozen=True)
class Row:
    """A row of figures that are judged together."""

    name: str
    title: str
    needs: tuple  # of Measurement
    lines: Callable[[dict, Context], list]  # from the samples by name; all of `needs` are there
    optional: tuple = ()  # of Measurement; a line that lacks one says so, the others stand
    skip: Callable[[Context], str | None] = lambda context: None  # why the row cannot be measured here


def times(title, unit, ours, theirs, ask, *, higher_is_better=False, note=""):
    """A line with how many times better ours is. Figures are by round; each is a list, one entry a run."""
    ours_all = [value for run in ours for value in run]
    theirs_all = [value for run in theirs for value in run]

    def ratio(a, b):
        return a / b if higher_is_better else b / a

    by_round = [ratio(statistics.median(a), statistics.median(b)) for a, b in zip(ours, theirs)]
    value = ratio(statistics.median(ours_all), statistics.median(theirs_all))
    return Line(title, unit, Stats.of(ours_all), Stats.of(theirs_all), value, (min(by_round), max(by_round)), "x", ask, note)
