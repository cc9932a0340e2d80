"""From the start of the process to the beginning of the first training step.

That is the time at which the first `step` event arrives, less the duration of that step. The model's file is in the
page cache: it has been read before.
"""

from suite import setup
from suite.measure import Ask, Measurement, Row, Stats, check_losses
from suite.measure import Line as TableLine
from suite.programs import peft_command, peft_sample, train, train_file

SEQUENCE_LENGTH = 64


def _sample(context, directory):
    model = context.model
    if setup.config(model).get("dtype", setup.config(model).get("torch_dtype")) != "bfloat16":
        model = setup.model(None, context.python)
    for file in model.glob("*.safetensors"):
        with file.open("rb") as weights:
            while weights.read(1 << 24):
                pass
    text = directory / "text.txt"
    text.write_text("It is a short text, for one step. " * 64, encoding="utf-8")
    run_file = train_file(directory, model, text, batch=1, length=SEQUENCE_LENGTH, train="max_steps = 1")
    done, _, steps = train(context, run_file)
    first = steps[0]
    check_losses([first["loss"]], context, "reparam train")
    return {"start_seconds": first["arrival"] - first["seconds"], "first_step_seconds": first["seconds"]}


def _peft(context, directory):
    return peft_sample(context, peft_command(context, "bf16", 1, SEQUENCE_LENGTH, 1, 0))


OURS = Measurement("ours start", "ours", _sample)
PEFT = Measurement("PEFT start", "theirs", _peft)


def _lines(samples, context):
    stats = Stats.of(samples[OURS.name].of("start_seconds"))
    line = TableLine("reparam train, bf16 file", "s", stats, ask=Ask(2, 0.5, is_most=True))
    if not samples[PEFT.name].failure:
        line.theirs = Stats.of(samples[PEFT.name].of("start_seconds"))
        line.note = "theirs: PEFT with bf16 weights, imports included"
    return [line]


ROW = Row("start", "From start to the first step", (OURS,), _lines, optional=(PEFT,))
