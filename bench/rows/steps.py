"""Training steps: LoRA of rank 16 on all linear layers, 4 x 512 tokens."""

import statistics

from suite.measure import Ask, Line, Row, Stats, times
from suite.programs import (
    OURS_BF16,
    OURS_BF16_RECOMPUTE,
    OURS_F32,
    PEFT_AUTOCAST,
    PEFT_AUTOCAST_COMPILED,
    PEFT_BF16,
    PEFT_F32,
    PEFT_F32_COMPILED,
    ours,
)


def _against(ours, theirs, samples, ask, title, note=""):
    """A line of how many times faster our step is than theirs; a line with the reason if theirs failed."""
    if samples[theirs.name].failure:
        ours = Stats.of(_all(samples[ours.name]))
        return Line(title, "s", ours, value_unit="x", ask=ask, failure=f"theirs: {samples[theirs.name].failure}")
    return times(title, "s", samples[ours.name].of("step_seconds"), samples[theirs.name].of("step_seconds"), ask, note=note)


def _all(samples):
    return [seconds for run in samples.of("step_seconds") for seconds in run]


def _bf16(samples, context):
    return [
        _against(OURS_BF16, PEFT_AUTOCAST, samples, Ask(6, 10), "against PEFT, bf16 autocast"),
        _against(OURS_BF16, PEFT_AUTOCAST_COMPILED, samples, Ask(3.5, 6), "against PEFT, bf16 autocast, compiled"),
        _against(OURS_BF16, PEFT_BF16, samples, None, "against PEFT, bf16 weights"),
    ]


BF16 = Row(
    "step-bf16",
    "A step in bf16",
    (OURS_BF16,),
    _bf16,
    optional=(PEFT_AUTOCAST, PEFT_AUTOCAST_COMPILED, PEFT_BF16),
)


def _f32(samples, context):
    sides = {"eager": PEFT_F32, "compiled": PEFT_F32_COMPILED}
    there = {word: one for word, one in sides.items() if not samples[one.name].failure}
    if not there:
        return [_against(OURS_F32, PEFT_F32, samples, Ask(2, 3), "against PEFT, f32")]
    better = min(there, key=lambda word: statistics.median(_all(samples[there[word].name])))
    lines = []
    for word in sides:
        ask = Ask(2, 3) if word == better else None
        note = "the better of both" if word == better and len(there) == 2 else ""
        lines.append(_against(OURS_F32, sides[word], samples, ask, f"against PEFT, f32, {word}", note))
    return lines


F32 = Row("step-f32", "A step in f32", (OURS_F32,), _f32, optional=(PEFT_F32, PEFT_F32_COMPILED))


def _memory(samples, context):
    peak = Stats.of(samples[OURS_BF16.name].of("peak_rss_bytes"))
    lines = [_beside_peft(Line("bf16", "GB", peak, ask=Ask(1.0e9, 0.7e9, is_most=True)), samples)]
    again = samples[OURS_BF16_RECOMPUTE.name]
    if again.failure:
        ask = Ask(0.6e9, 0.45e9, is_most=True)
        return [*lines, Line("bf16, recomputing", "GB", None, ask=ask, failure=f"ours: {again.failure}")]
    small = Stats.of(again.of("peak_rss_bytes"))
    lines.append(Line("bf16, recomputing", "GB", small, ask=Ask(0.6e9, 0.45e9, is_most=True)))
    plain, slow = _all(samples[OURS_BF16.name]), _all(again)
    by_round = [
        statistics.median(b) / statistics.median(a) - 1
        for a, b in zip(samples[OURS_BF16.name].of("step_seconds"), again.of("step_seconds"))
    ]
    value = statistics.median(slow) / statistics.median(plain) - 1
    lines.append(
        Line(
            "bf16, recomputing: how much slower",
            "s",
            Stats.of(slow),
            None,
            value,
            (min(by_round), max(by_round)),
            "%",
            Ask(0.35, is_most=True),
        )  # fmt: skip
    )
    return lines


def _beside_peft(line, samples):
    """Shows PEFT's peak memory beside ours, where that was measured."""
    if not samples[PEFT_AUTOCAST.name].failure:
        line.theirs = Stats.of(samples[PEFT_AUTOCAST.name].of("peak_rss_bytes"))
    return line


MEMORY = Row(
    "memory",
    "Peak memory of a step",
    (OURS_BF16,),
    _memory,
    optional=(OURS_BF16_RECOMPUTE, PEFT_AUTOCAST),
)


def _linear_share(samples, context):
    runs = samples[OURS_BF16.name]
    limit = statistics.median(runs.of("limit_gflops"))
    note = f"{statistics.median(runs.of('linear_gflops')):.0f} of {limit:.0f} GFLOP/s, as the program measures both"
    return [Line("bf16", "%", Stats.of(runs.of("linear_share_of_limit")), ask=Ask(0.45, 0.65), note=note)]


LINEAR_SHARE = Row("linear-share", "Linear layers, share of the machine's limit", (OURS_BF16,), _linear_share)

SHORT = ours("ours bf16 8 x 512", "bf16", batch=8, length=512)
LONG = ours("ours bf16 1 x 4096", "bf16", batch=1, length=4096)


def _long_sequence(samples, context):
    short, long = (samples[one.name].of("peak_rss_bytes") for one in (SHORT, LONG))
    by_round = [b / a - 1 for a, b in zip(short, long)]
    value = statistics.median(long) / statistics.median(short) - 1
    title = "peak memory of 1 x 4096 over 8 x 512 tokens"
    ask = Ask(0.25, 0.10, is_most=True)
    note = f"8 x 512: {statistics.median(short) / 1e9:.2f} GB"
    return [Line(title, "GB", Stats.of(long), None, value, (min(by_round), max(by_round)), "%", ask, note)]


LONG_SEQUENCE = Row("long-sequence", "Eight times longer sequences", (SHORT, LONG), _long_sequence)


def _page_faults(samples, context):
    faults = [count for run in samples[OURS_BF16.name].of("minor_page_faults") for count in run]
    note = "near zero is taken as 256, 1 MiB in small pages; steps after the second"
    return [Line("bf16, one step", "count", Stats.of(faults), ask=Ask(256, 16, is_most=True), note=note)]


PAGE_FAULTS = Row("page-faults", "Page faults of a step", (OURS_BF16,), _page_faults)
