"""Compares reparam with PyTorch, transformers and PEFT on this machine, in one command.

    python3 bench/run.py [--quick] [--rows NAME,...] [--venv DIR] [--model DIR] [--reparam PATH] [--data FILE] [--out DIR]

Installs the peers, makes a model, builds the program, checks the answers of both sides, measures them in turn, and writes
results.json and results.md. Needs Python 3.11 and nothing but its standard library. See bench/README.md for the rows.

A measurement that fails is recorded with its reason, and the others go on. Exits with 0 if everything that was asked for
has been measured, with 1 if something failed, and with 2 if nothing could be measured. Whether the figures are as good as
they should be is said in the table and does not change that.
"""

import argparse
import datetime
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rows import ROWS
from suite import machine, report, setup
from suite.checks import check
from suite.measure import Context, measure


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(row.name for row in ROWS)
    parser.add_argument("--rows", metavar="NAME,...", help=f"only these rows: {names}")
    parser.add_argument("--quick", action="store_true", help="one round of few steps, to see that everything works")
    parser.add_argument("--rounds", type=int, help="rounds (default 3; quick 1)")
    parser.add_argument("--steps", type=int, help="timed steps of a process (default 5; quick 2)")
    parser.add_argument("--venv", type=Path, help="a virtual environment that has the peers (default: make bench/.venv)")
    parser.add_argument("--index-url", help="index that torch is installed from, such as one of builds for CPUs")
    parser.add_argument("--model", type=Path, help="model directory (default: random weights, made in bench/.model)")
    parser.add_argument("--reparam", type=Path, help="the program (default: build it)")
    data = os.environ.get("REPARAM_DATA")
    parser.add_argument(
        "--data", type=Path, default=Path(data) if data else None, help="file of instructions (default: $REPARAM_DATA)"
    )
    parser.add_argument("--out", type=Path, help="folder of the results (default: bench/results/<machine>)")
    arguments = parser.parse_args()
    for name in ["rounds", "steps"]:
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1")
    if arguments.venv and arguments.index_url:
        parser.error("--index-url has no effect with --venv, which installs nothing")
    if arguments.data and not arguments.data.is_file():
        parser.error(f"--data {arguments.data}: there is no such file")
    wanted = [row.name for row in ROWS] if arguments.rows is None else arguments.rows.split(",")
    unknown = [name for name in wanted if name not in {row.name for row in ROWS}]
    if unknown:
        parser.error(f"--rows: there is no row {', '.join(unknown)}; there are {names}")
    arguments.rows = [row for row in ROWS if row.name in wanted]
    return arguments


def prepare(arguments):
    """Makes what is missing; returns the context of the measurements and the versions of all programs."""
    python = setup.peers(arguments.venv, arguments.index_url)
    versions = setup.versions(python)
    model = setup.model(arguments.model, python)
    program = setup.reparam(arguments.reparam)
    try:
        said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise setup.SetupFailed(f"{program} --version: {error}") from error
    context = Context(
        reparam=program,
        python=python,
        model=model.absolute(),
        data=arguments.data.absolute() if arguments.data else None,
        vocabulary=setup.config(model)["vocab_size"],
        random=setup.is_random(model),
        steps=arguments.steps or (2 if arguments.quick else 5),
        warmup=2,
        rounds=arguments.rounds or (1 if arguments.quick else 3),
        quick=arguments.quick,
    )
    return context, {"reparam": said.strip().removeprefix("reparam "), **versions}


def main():
    arguments = parse()
    # A program that is being measured is in a session of its own, so it is ended here rather than left to run on.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        context, versions = prepare(arguments)
    except setup.SetupFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    here = machine.describe()
    out = arguments.out or setup.BENCH / "results" / machine.slug(here)
    load, begin = machine.load(), time.monotonic()
    rows = [row for row in arguments.rows if not row.skip(context)]
    needed = list({one.name: one for row in rows for one in (*row.needs, *row.optional)}.values())
    checks, failed = check(needed, rows, context)
    samples = measure(needed, failed, context)
    facts = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "seconds": time.monotonic() - begin,
        "machine": here,
        "load_at_start": load,
        "versions": versions,
        "settings": {
            "model": context.model.name,
            "random_weights": context.random,
            "data": context.data.name if context.data else None,
            "rounds": context.rounds,
            "steps": context.steps,
            "warmup": context.warmup,
            "quick": context.quick,
            "rows": [row.name for row in arguments.rows],
        },
    }
    results = report.rows_of(arguments.rows, samples, context)
    report.write(out, results, facts, checks, samples)
    print(report.as_markdown(results, facts, checks), end="")
    print(f"\nwritten to {out}", file=sys.stderr)
    went_wrong = any(of.failure for of in samples.values()) or any(row["status"] == "failed" for row in results)
    return 1 if went_wrong or not all(one["holds"] for one in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
