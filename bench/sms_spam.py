"""Trains the same classifier with reparam and with PEFT, and compares F1 of one class and the time.

    sms_spam.py --reparam PROGRAM --model DIR --data FILE.tsv --work DIR [--seeds 3] [--epochs 1] [--threads 2] [--side both]

The data is a TSV with a header `Label<TAB>SMS`, such as the SMS Spam Collection; a fifth of its rows, drawn with seed 0, is the
test set. Both sides train LoRA (rank 8, alpha 16, on queries and values) with a new head beside it: AdamW without weight
decay, 1e-3, a tenth of the steps warm-up and then linearly to zero, gradients bounded to norm 1, batches of 32 rows in a new
order each epoch, at most 128 tokens a row, the model's own dropouts on. PEFT pads a batch to its longest row, in f32. The
seeds 0, 1, .. decide head, factors, order and dropout. Time is that of the training alone, without loading.

Prints one JSON object: for each side F1 of `spam` and the seconds of every seed with their means.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

POSITIVE = "spam"
BATCH, LENGTH, RATE, RANK = 32, 128, 1e-3, 8

RUN = """[model]
task = "sequence-classification"
path = {model}
[data]
train = {train}
eval_fraction = 0
fields = "text=SMS,label=Label"
[method]
kind = "lora"
rank = {rank}
alpha = {alpha}
target_modules = ["query", "value"]
[optimizer]
kind = "adamw"
learning_rate = {rate}
weight_decay = 0.0
schedule = "linear"
warmup_ratio = 0.1
clip_grad_norm = 1.0
[train]
epochs = {epochs}
batch_size = {batch}
sequence_length = {length}
seed = {seed}
precision = "f32"
threads = {threads}
[output]
dir = {output}
"""


def split(path, work):
    """Writes the two parts as `train.tsv` and `test.tsv`; returns their rows."""
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    assert header == "Label\tSMS", header
    random.Random(0).shuffle(lines)
    n_test = len(lines) // 5
    parts = {"test": lines[:n_test], "train": lines[n_test:]}
    for name, part in parts.items():
        (work / f"{name}.tsv").write_text("\n".join([header, *part]) + "\n", encoding="utf-8")
    return {name: [line.split("\t", 1) for line in part] for name, part in parts.items()}


def f1(actual, predicted):
    hits = sum(a == p == POSITIVE for a, p in zip(actual, predicted))
    both = sum(a == POSITIVE for a in actual) + sum(p == POSITIVE for p in predicted)
    return 2 * hits / both if both else 0.0


def toml(value):
    return json.dumps(str(value), ensure_ascii=False)


def ours(arguments, rows, seed):
    work = arguments.work
    output = work / f"reparam-{seed}"
    run = work / f"reparam-{seed}.toml"
    text = RUN.format(
        model=toml(arguments.model),
        train=toml(work / "train.tsv"),
        output=toml(output),
        rank=RANK,
        alpha=2 * RANK,
        rate=RATE,
        epochs=arguments.epochs,
        batch=BATCH,
        length=LENGTH,
        seed=seed,
        threads=arguments.threads,
    )
    run.write_text(text, encoding="utf-8")
    events = subprocess.run([arguments.reparam, "train", run, "--json"], stdout=subprocess.PIPE, check=True).stdout
    finished = json.loads(events.splitlines()[-1])
    model = ["--model", arguments.model, "--adapter", output / "adapter", "--data", work / "test.tsv", "--json"]
    printed = subprocess.run([arguments.reparam, "predict", *model], stdout=subprocess.PIPE, check=True).stdout
    predicted = [json.loads(line)["label"] for line in printed.splitlines()]
    seconds = finished["seconds"]
    return f1([label for label, _ in rows["test"]], predicted), seconds


def theirs(arguments, rows, seed):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

    torch.manual_seed(seed)
    torch.set_num_threads(arguments.threads)
    labels = sorted({label for label, _ in rows["train"]})
    base = AutoModelForSequenceClassification.from_pretrained(arguments.model, num_labels=len(labels))
    config = LoraConfig(task_type="SEQ_CLS", r=RANK, lora_alpha=2 * RANK, target_modules=["query", "value"])
    model = get_peft_model(base, config)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)

    def batch(part):
        limits = {"truncation": True, "max_length": LENGTH, "padding": True, "return_tensors": "pt"}
        return tokenizer([text for _, text in part], **limits)

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    per_epoch = -(-len(rows["train"]) // BATCH)
    steps = round(per_epoch * arguments.epochs)
    schedule = get_linear_schedule_with_warmup(optimizer, -(-steps // 10), steps)
    shuffled = random.Random(seed)
    model.train()
    start, done = time.perf_counter(), 0
    while done < steps:
        order = rows["train"][:]
        shuffled.shuffle(order)
        for first in range(0, len(order), BATCH):
            part = order[first : first + BATCH]
            targets = torch.tensor([labels.index(label) for label, _ in part])
            model(**batch(part), labels=targets).loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            done += 1
            if done == steps:
                break
    seconds = time.perf_counter() - start
    model.eval()
    predicted = []
    with torch.no_grad():
        for first in range(0, len(rows["test"]), BATCH):
            logits = model(**batch(rows["test"][first : first + BATCH])).logits
            predicted += [labels[index] for index in logits.argmax(1).tolist()]
    return f1([label for label, _ in rows["test"]], predicted), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("reparam", "model", "data", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", choices=["both", "reparam", "peft"], default="both")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = split(arguments.data, arguments.work)
    report = {"epochs": arguments.epochs, "threads": arguments.threads, "train": len(rows["train"]), "test": len(rows["test"])}
    for name, side in (("reparam", ours), ("peft", theirs)):
        if arguments.side not in ("both", name):
            continue
        runs = [side(arguments, rows, seed) for seed in range(arguments.seeds)]
        scores, seconds = zip(*runs)
        report[name] = {
            "f1": scores,
            "seconds": seconds,
            "mean_f1": sum(scores) / len(scores),
            "mean_seconds": sum(seconds) / len(seconds),
        }
        print(name, report[name], file=sys.stderr, flush=True)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
