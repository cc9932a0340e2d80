"""Trains every task on both sides with several seeds, in turn, and prints a table.

    run.py [--rows sms-spam,ner-en,...] [--seeds 0,1,2] [--threads 2] [--reparam PATH] [--data DIR] [--results FILE]

Seconds are those of training alone, those of the processor and the memory of all that a side does: reading, training, measuring.
Each run is a process of its own; a line of JSON of each is added to FILE (default `bench/text/.data/results.jsonl`). What the file
has already of the same recipe is not run again, so an interrupted comparison goes on where it stopped. Run it from the root of the repository, on
an idle machine; on another one the seconds of the processor, which are there, too, say more than those of the clock.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

HERE = Path(__file__).resolve().parent


class Row:
    """A run file of ours, the program of the peer with its task, and the measure that is compared."""

    def __init__(self, run, program, task, measure, base=False, eval=None, sets=()):
        self.run, self.program, self.task, self.measure, self.base, self.eval = run, program, task, measure, base, eval
        self.sets = [word for value in sets for word in ("--set", value)]

    def recipe(self):
        """Results of another recipe are not this row's. A baseline without a run file has only its flags."""
        text = (HERE / f"{self.run}.toml").read_text(encoding="utf-8") if self.run else ""
        return hashlib.sha256(json.dumps([text, self.sets]).encode()).hexdigest()[:12]


def few(count):
    """Both ways to learn SMS spam from so many examples of each class, which each seed draws."""
    sets = [f"data.examples_per_class={count}", "train.epochs=15"]
    return {
        f"sms-spam-{count}-tfidf": Row(None, "tfidf.py", "sms-spam", "f1_macro", sets=sets[:1]),
        f"sms-spam-{count}": Row("sms-spam", "peft_encoder.py", "sms-spam", "f1_macro", base=True, sets=sets),
    }


ROWS = {
    "sms-spam-tfidf": Row(None, "tfidf.py", "sms-spam", "f1_macro"),
    "sms-spam-lstm": Row("sms-spam-lstm", "lstm.py", "sms-spam", "f1_macro"),
    "sms-spam": Row("sms-spam", "peft_encoder.py", "sms-spam", "f1_macro", base=True),
    "chinese-sentiment-tfidf": Row(None, "tfidf.py", "chinese-sentiment", "f1_macro"),
    "chinese-sentiment-lstm": Row("chinese-sentiment-lstm", "lstm.py", "chinese-sentiment", "f1_macro"),
    "chinese-sentiment": Row("chinese-sentiment", "peft_encoder.py", "chinese-sentiment", "f1_macro", base=True),
    "ner-en": Row("ner-en", "peft_encoder.py", "ner-en", "f1", base=True),
    "ner-zh-lstm": Row("ner-zh-lstm", "lstm.py", "ner-zh", "f1"),
    "squad-small": Row("squad-small", "peft_encoder.py", "squad-small", "exact_match", base=True),
    "stsb-en": Row("stsb-en", "peft_encoder.py", "stsb-en", "spearman", base=True),
    "stsb-zh": Row("stsb-zh", "siamese.py", "stsb-zh", "spearman"),
    "multi30k": Row("multi30k", "seq2seq.py", "multi30k", "bleu", eval=["--data", "{work}/multi30k/test.jsonl", "--generate", "--max-new-tokens", "100"]),
    "e2e": Row("e2e", "seq2seq.py", "e2e", "bleu", eval=["--data", "{work}/e2e/test.jsonl", "--generate", "--max-new-tokens", "100"]),
    "shakespeare-llama": Row("shakespeare-llama", "from_scratch.py", "shakespeare-llama", "loss", eval=["--data", "{work}/shakespeare/test.txt", "--sequence-length", "128"]),
    "shakespeare-bert": Row("shakespeare-bert", "from_scratch.py", "shakespeare-bert", "loss", eval=["--data", "{work}/shakespeare/test.txt", "--sequence-length", "128"]),
    **few(8),
    **few(32),
    **few(128),
    "word-vectors": Row("word-vectors", "word_vectors.py", "word-vectors", "spearman", eval=["--data", "{work}/word-vectors/wordsim353.tsv"]),
}


def measured(command, environment=None):
    """Runs a program; returns the objects it prints, its seconds, those of the processor, and its peak memory."""
    began = time.perf_counter()
    child = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True, env=environment)
    lines = child.stdout.read().splitlines()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{command}: exit code {child.returncode}")
    peak = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024
    objects = [json.loads(line) for line in lines if line.startswith("{")]
    return objects, time.perf_counter() - began, usage.ru_utime + usage.ru_stime, peak


def ours(name, row, seed, chosen):
    with tempfile.TemporaryDirectory(prefix="reparam-text-") as directory:
        out = Path(directory) / "run"
        file = HERE / f"{row.run}.toml"
        command = [chosen.reparam, "train", file, "--json", "--output", out, "--set", f"train.seed={seed}", "--set", f"train.threads={chosen.threads}", *row.sets]
        base = chosen.data / "models/all-MiniLM-L6-v2"
        if row.base:
            command += ["--model", base]
        events, _, processor, peak = measured(command)
        model = ["--model", base, "--adapter", out / "adapter"] if row.base else ["--model", out / "model"]
        data = row.eval or ["--data", f"{{work}}/{row.task}/test.json" + ("" if row.task == "squad-small" else "l")]
        data = [word.format(work=chosen.work) for word in data]
        metrics, eval_seconds, more, peak_of_eval = measured([chosen.reparam, "eval", *model, *data, "--json"])
        steps = [event for event in events if event["event"] == "step"]
        seconds = sum(event["weight"] / event["per_second"] for event in steps)
        curve = {event["step"]: event["metrics"][event["primary"]] for event in events if event["event"] == "evaluation"}
        return {
            "metrics": metrics[-1], "seconds": seconds, "processor_seconds": processor + more,
            "peak_memory_bytes": max(peak, peak_of_eval),
            "eval_seconds": eval_seconds, "steps": len(steps), "losses": [steps[0]["loss"], steps[-1]["loss"]],
            "curve": curve,
        }  # fmt: skip


def theirs(name, row, seed, chosen):
    command = [sys.executable, HERE / row.program, "--task", row.task, "--seed", seed, "--threads", chosen.threads, "--data", chosen.data, "--work", chosen.work, *row.sets]
    objects, _, processor, peak = measured(command)
    return {**objects[-1], "processor_seconds": processor, "peak_memory_bytes": peak}


def table(results, rows):
    print("| row | side | measure | seeds | mean | sd | seconds | of the processor | memory |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in rows:
        for side in ("theirs", "ours"):
            of = (name, side, ROWS[name].recipe())
            found = [one for one in results if (one["row"], one["side"], one.get("recipe")) == of]
            if not found:
                continue
            measure = ROWS[name].measure
            values = [one["metrics"][measure] for one in found]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            middle = [statistics.median(one[key] for one in found) for key in ("seconds", "processor_seconds", "peak_memory_bytes")]
            each = ", ".join(f"{value:.4g}" for value in values)
            print(f"| {name} | {side} | {measure} | {each} | {statistics.mean(values):.4g} | {spread:.2g} | {middle[0]:.0f} | {middle[1]:.0f} | {middle[2] / 1e6:.0f} MB |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--reparam", default="target/release/reparam")
    parser.add_argument("--data", type=Path, default=os.environ.get("REPARAM_DATA"), help="directory of the data sets ($REPARAM_DATA)")
    parser.add_argument("--work", type=Path, default=common.WORK, help="directory of the splits, see prepare.py")
    parser.add_argument("--results", type=Path, help="default: results.jsonl in the directory of the splits")
    parser.add_argument("--side", choices=["ours", "theirs"], help="only this side")
    chosen = parser.parse_args()
    if chosen.data is None:
        parser.error("say where the data sets are: --data or REPARAM_DATA")
    rows = chosen.rows.split(",")
    if unknown := [name for name in rows if name not in ROWS]:
        parser.error(f"there is no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    file = chosen.results or chosen.work / "results.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    results = [json.loads(line) for line in lines]
    for seed in map(int, chosen.seeds.split(",")):
        for name in rows:
            for side, run in (("theirs", theirs), ("ours", ours)):
                key = {"row": name, "side": side, "seed": seed, "threads": chosen.threads, "recipe": ROWS[name].recipe()}
                is_there = any(all(one.get(part) == key[part] for part in key) for one in results)
                row = ROWS[name]
                # Without a draw of rows, every seed of a baseline is the same.
                no_side = row.run is None and (side == "ours" or (seed > 0 and not row.sets))
                if is_there or no_side or chosen.side not in (None, side):
                    continue
                print(f"{name}, {side}, seed {seed}", file=sys.stderr, flush=True)
                result = {**key, **run(name, row, seed, chosen)}
                results.append(result)
                with file.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(result) + "\n")
    table(results, rows)


if __name__ == "__main__":
    main()
