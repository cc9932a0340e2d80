"""Writes the splits that both sides read, one folder a task, from the data sets as they were published.

    prepare.py [--data DIR] [--work DIR]

- `sms-spam`, `chinese-sentiment`: `train.jsonl` and `test.jsonl` with `text` and `label`. They have no split of their own: a row
  is in the test set if the first four bytes of SHA-256 of its text, as a big-endian number, divide by five. Any program can
  repeat that, and duplicates, of which SMS Spam has several hundred, are on one side.
- `ner-en`: WNUT 2017's own parts, `tokens` and `tags`.
- `squad-small`: `train.json` and `test.json` in SQuAD's form, as they are.
- `stsb-en`: the benchmark's own parts, `text`, `text_pair` and `score`, divided by 5 so that a cosine can be equal to it.
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path


def write(path, rows):
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    print(f"{path}: {len(lines)} rows", file=sys.stderr)


def is_test(text):
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 5 == 0


def split(rows, out):
    write(out / "train.jsonl", (row for row in rows if not is_test(row["text"])))
    write(out / "test.jsonl", (row for row in rows if is_test(row["text"])))


def sms_spam(data, out):
    lines = (data / "text/sms-spam/SMSSpamCollection").read_text(encoding="utf-8").split("\n")
    cells = [line.split("\t", 1) for line in lines[1:] if line]
    split([{"text": text, "label": label} for label, text in cells], out)


def chinese_sentiment(data, out):
    with (data / "text/chinese-sentiment/waimai_10k.csv").open(encoding="utf-8", newline="") as file:
        names = {"0": "negative", "1": "positive"}
        rows = [{"text": row["review"], "label": names[row["label"]]} for row in csv.DictReader(file)]
    split(rows, out)


def sentences(path):
    sentence = []
    for line in [*path.read_text(encoding="utf-8").split("\n"), ""]:
        if line.strip():
            sentence.append(line.rstrip("\r").split("\t"))
        elif sentence:
            yield {"tokens": [token for token, _ in sentence], "tags": [tag for _, tag in sentence]}
            sentence = []


def ner_en(data, out):
    files = {"train": "wnut17train.conll", "dev": "emerging.dev.conll", "test": "emerging.test.annotated"}
    for part, name in files.items():
        write(out / f"{part}.jsonl", sentences(data / "text/ner-en" / name))


def squad_small(data, out):
    for part in ("train", "test"):
        shutil.copyfile(data / f"text/squad-small/squad2-{part}.json", out / f"{part}.json")
        print(out / f"{part}.json", file=sys.stderr)


def stsb_en(data, out):
    for part in ("train", "dev", "test"):
        with (data / f"text/stsb-multi-mt/stsb-en-{part}.csv").open(encoding="utf-8", newline="") as file:
            rows = [{"text": a, "text_pair": b, "score": float(score) / 5} for a, b, score in csv.reader(file)]
        write(out / f"{part}.jsonl", rows)


def into(make):
    """Makes the folder first, and under another name, so that a folder that is there is whole."""

    def prepare(data, out):
        partial = out.with_name(out.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        make(data, partial)
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)

    return prepare


TASKS = {
    "sms-spam": into(sms_spam),
    "chinese-sentiment": into(chinese_sentiment),
    "ner-en": into(ner_en),
    "squad-small": into(squad_small),
    "stsb-en": into(stsb_en),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("REPARAM_DATA"), help="directory of the data sets ($REPARAM_DATA)")
    parser.add_argument("--work", type=Path, default=Path(__file__).resolve().parent / ".data")
    chosen = parser.parse_args()
    if chosen.data is None:
        parser.error("say where the data sets are: --data or REPARAM_DATA")
    for name, task in TASKS.items():
        task(chosen.data, chosen.work / name)


if __name__ == "__main__":
    main()
