"""Greedy decoding of one sequence: 128 tokens after a prompt of 32."""

from suite.measure import Ask, Measurement, Row, times
from suite.process import ProgramFailed, run
from suite.setup import BENCH

PROMPT_TOKENS = 32
NEW_TOKENS = 128


def _decode_command(context, *more):
    script = [context.python, BENCH / "transformers_decode.py", "--model", context.model, "--json"]
    return [*script, "--prompt-tokens", PROMPT_TOKENS, *more]


def _speed(report, count):
    """Checks that all tokens were made; returns tokens a second."""
    if report["prompt_tokens"] != PROMPT_TOKENS or count != NEW_TOKENS:
        raise ProgramFailed(f"it made {count} tokens after {report['prompt_tokens']}, not {NEW_TOKENS} after {PROMPT_TOKENS}")
    return {"tokens_per_s": report["tokens_per_s"]}


def _ours(precision):
    def sample(context, directory):
        prompt = run(_decode_command(context, "--prompt-only")).last_object()["prompt"]
        command = [context.reparam, "generate", "--model", context.model, "--precision", precision, "--json"]
        done = run([*command, "--prompt", prompt, "--max-new-tokens", NEW_TOKENS])
        report = done.last_object()
        return {**_speed(report, len(report["tokens"])), "peak_rss_bytes": done.peak_rss_bytes}

    return sample


def _theirs(dtype):
    def sample(context, directory):
        done = run(_decode_command(context, "--dtype", dtype, "--new-tokens", NEW_TOKENS))
        report = done.last_object()
        return {**_speed(report, len(report["tokens"])), "peak_rss_bytes": done.peak_rss_bytes}

    return sample


OURS = Measurement("ours decode bf16", "ours", _ours("bf16"))
INT8 = Measurement("ours decode int8", "ours", _ours("int8"))
BF16 = Measurement("transformers decode bf16", "theirs", _theirs("bf16"))
F32 = Measurement("transformers decode f32", "theirs", _theirs("f32"))


def _lines(samples, context):
    def line(ours, theirs, ask, title):
        speeds = ([[speed] for speed in samples[side.name].of("tokens_per_s")] for side in (ours, theirs))
        return times(title, "tokens/s", *speeds, ask, higher_is_better=True)

    lines = [
        line(OURS, BF16, Ask(3, 6), "bf16, against transformers, bf16"),
        line(INT8, BF16, None, "bf16 with int8 weights, against transformers, bf16"),
    ]
    if not samples[F32.name].failure:
        lines.append(line(OURS, F32, None, "bf16, against transformers, f32"))
    return lines


ROW = Row("decode", "Greedy decoding, 128 tokens after 32", (OURS, INT8, BF16), _lines, optional=(F32,))
