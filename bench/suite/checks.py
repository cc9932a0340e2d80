"""Checks answers before anything is timed: a fast wrong answer is no result."""

import functools
import os
import sys

from . import programs
from .process import ProgramFailed, run
from .setup import BENCH, REPOSITORY

# A model that has learnt something, so that its likeliest tokens are clear ones.
TRAINED = REPOSITORY / "assets" / "stories260K"
PROMPT = "Once upon a time, there was a little girl named"
TOKENS = 64


def _step(one, context):
    """One small training step: the loss is finite and, for random weights, that of a guess."""
    if one.side == "ours":
        command = programs.bench_command(context, one.precision, 1, 64, 1, 0)
        report = programs.bench_sample(context, command, one.precision)
    else:
        report = programs.peft_sample(context, programs.peft_command(context, one.precision, 1, 64, 1, 0))
    return f"loss {report['losses'][0]:.3f}"


def greedy(context, model, prompt):
    """The greedy tokens of both sides in f32 are equal."""
    command = [context.reparam, "generate", "--model", model, "--precision", "f32", "--json"]
    ours = run([*command, "--prompt", prompt, "--max-new-tokens", TOKENS]).last_object()
    command = [context.python, BENCH / "transformers_decode.py", "--model", model, "--dtype", "f32", "--json"]
    theirs = run([*command, "--prompt", prompt, "--new-tokens", TOKENS]).last_object()
    if ours["prompt_tokens"] != theirs["prompt_tokens"]:
        raise ProgramFailed(f"prompts of {ours['prompt_tokens']} and {theirs['prompt_tokens']} tokens")
    # Ours ends at an end-of-text token, theirs is told to go on.
    count = len(ours["tokens"])
    equal = len(os.path.commonprefix([ours["tokens"], theirs["tokens"]]))
    if count == 0 or equal < count:
        raise ProgramFailed(f"token {equal + 1} of {count} differs")
    return f"{count} tokens are equal"


def check(measurements, rows, context):
    """Returns the checks as objects, and the reasons by name of the measurements that need not be made."""
    results, failed = [], {}

    def attempt(name, function, guarded):
        print(f"check: {name}", file=sys.stderr, flush=True)
        try:
            results.append({"name": name, "holds": True, "said": function()})
        except (ProgramFailed, KeyError, TypeError, ValueError) as error:
            said = str(error) if isinstance(error, ProgramFailed) else f"its answer cannot be used: {error!r}"
            results.append({"name": name, "holds": False, "said": said})
            print(f"  failed: {said}", file=sys.stderr, flush=True)
            failed.update({one.name: f"{name}: {said}" for one in guarded})

    kinds = dict.fromkeys((one.side, one.precision) for one in measurements if one.precision)
    for side, precision in kinds:
        guarded = [one for one in measurements if (one.side, one.precision) == (side, precision)]
        who = "reparam" if side == "ours" else "PEFT"
        attempt(f"a step of {who}, {precision}", functools.partial(_step, guarded[0], context), guarded)
    decoding = [one for row in rows if row.name == "decode" for one in row.needs if one.side == "ours"]
    if decoding:
        models = [TRAINED] if context.random else [TRAINED, context.model]
        for model in models:
            attempt(f"greedy tokens of {model.name}, f32", functools.partial(greedy, context, model, PROMPT), decoding)
    return results, failed
