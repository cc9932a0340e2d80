"""What the programs of this folder share: flags, splits, measures, the line that each prints."""

import argparse
import json
import os
import platform
import random
import resource
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import prepare

HERE = Path(__file__).resolve().parent
WORK = HERE / ".data"


def arguments(doc, tasks, has_steps=True, settable=None):
    """Reads the flags, limits the threads of all libraries that are imported later, and makes the split if it is missing."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=tasks, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, default=os.environ.get("REPARAM_DATA"), help="directory of the data sets ($REPARAM_DATA)")
    parser.add_argument("--work", type=Path, default=WORK, help="directory of the splits, see prepare.py")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another value of the run file, such as train.epochs=2")
    if has_steps:
        parser.add_argument("--steps", type=int, help="stop after so many steps (peft_encoder.py also measures few rows), to see that it works; the figures are no results")
    chosen = parser.parse_args()
    if settable is not None and (other := [word for word in chosen.set if word.split("=")[0] not in settable]):
        parser.error(f"this program reads no run file: --set takes {', '.join(settable)}, not {other[0]}")
    if chosen.data is None:
        parser.error("say where the data sets are: --data or REPARAM_DATA")
    # Libraries read these once, when they are imported.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(chosen.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    split = "shakespeare" if chosen.task.startswith("shakespeare-") else chosen.task
    if not (chosen.work / split).is_dir():
        prepare.TASKS[split](Path(chosen.data), chosen.work / split)
    return chosen


def changed(chosen):
    """What `--set` says, by section and key."""
    found = {}
    for word in chosen.set:
        key, value = word.split("=", 1)
        section, key = key.split(".", 1)
        found.setdefault(section, {})[key] = tomllib.loads(f"value = {value}")["value"]
    return found


def settings(chosen):
    """The run file of the task, with what `--set` says."""
    run = tomllib.loads((HERE / f"{chosen.task}.toml").read_text(encoding="utf-8"))
    for section, values in changed(chosen).items():
        run.setdefault(section, {}).update(values)
    return run


def rows(chosen, part):
    """The rows of a part of the split, `train` or `test`; of those to learn as many of each class as `data.examples_per_class` says."""
    path = chosen.work / chosen.task / f"{part}.jsonl"
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    count = changed(chosen).get("data", {}).get("examples_per_class")
    if part != "train" or count is None:
        return found
    random.Random(chosen.seed).shuffle(found)
    labels = sorted({row["label"] for row in found})
    return [row for label in labels for row in [row for row in found if row["label"] == label][:count]]


def batches(rows, size, seed, steps):
    """So many batches, of the rows in a new order each epoch."""
    order, shuffled, done = list(rows), random.Random(seed), 0
    while True:
        shuffled.shuffle(order)
        for first in range(0, len(order), size):
            if done == steps:
                return
            yield order[first : first + size]
            done += 1


def steps_of(chosen, rows, size, epochs):
    """The steps of so many epochs, or fewer if the flags say so."""
    steps = -(-len(rows) // size) * epochs
    return steps if chosen.steps is None else min(steps, chosen.steps)


def class_metrics(actual, predicted, labels):
    """The measures of `reparam eval` over the labels of a model; of two, also F1 of the last one, such as `spam`."""
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    metrics = {
        "accuracy": accuracy_score(actual, predicted),
        "f1_macro": f1_score(actual, predicted, labels=labels, average="macro", zero_division=0),
        "matthews": matthews_corrcoef(actual, predicted),
    }
    if len(labels) == 2:
        metrics["f1"] = f1_score(actual, predicted, pos_label=labels[1], zero_division=0)
    return metrics


def report(program, chosen, metrics, seconds, packages, **more):
    """Prints the result. `seconds` is the training alone, the memory the largest resident set of the process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "program": program,
        "task": chosen.task,
        "seed": chosen.seed,
        "threads": chosen.threads,
        "metrics": {name: float(value) for name, value in metrics.items()},
        "seconds": round(seconds, 3),
        # Linux counts in KiB, macOS in bytes.
        "peak_memory_bytes": peak if sys.platform == "darwin" else peak * 1024,
        **more,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }
    print(json.dumps(result))
