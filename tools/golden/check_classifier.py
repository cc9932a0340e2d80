"""Loads a classifier's adapter into PEFT and compares its probabilities with those that `reparam predict` printed.

    check_classifier.py --model DIR --adapter DIR --data FILE.jsonl --predictions FILE.jsonl [--tolerance 1e-5] [--json]

`--data` has rows with `text` and maybe `text_pair`, `--predictions` what `reparam predict --json` printed for them. The
labels and the maximal length are those of `reparam.json` beside the adapter. Exit code 1 if PEFT lacks a tensor of the adapter
or has one that it did not find there, or if a probability differs by more than the tolerance.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402
from peft import PeftModel, get_peft_model_state_dict  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "adapter", "data", "predictions"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    card = json.loads((arguments.adapter / "reparam.json").read_text(encoding="utf-8"))
    labels = card["labels"]
    base = AutoModelForSequenceClassification.from_pretrained(arguments.model, num_labels=len(labels))
    model = PeftModel.from_pretrained(base, arguments.adapter).eval()
    stored = load_file(arguments.adapter / "adapter_model.safetensors")
    loaded = get_peft_model_state_dict(model)
    wrong = [name for name in stored.keys() | loaded.keys() if not equal(stored.get(name), loaded.get(name))]
    if wrong:
        sys.exit(f"PEFT has other tensors than the file: {', '.join(sorted(wrong))}")
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    rows = [json.loads(line) for line in arguments.data.read_text(encoding="utf-8").splitlines()]
    found = [json.loads(line) for line in arguments.predictions.read_text(encoding="utf-8").splitlines()]
    if len(rows) != len(found):
        sys.exit(f"{len(rows)} rows, {len(found)} predictions")
    several = card["problem_type"] == "multi_label_classification"
    worst = 0.0
    for row, prediction in zip(rows, found):
        texts = [[row["text"]]] if row.get("text_pair") is None else [[row["text"]], [row["text_pair"]]]
        limits = {"truncation": "longest_first", "max_length": card["sequence_length"], "return_tensors": "pt"}
        with torch.no_grad():
            logits = model(**tokenizer(*texts, **limits)).logits[0].double()
        expected = logits.sigmoid() if several else logits.softmax(0)
        scores = torch.tensor([prediction["scores"][label] for label in labels], dtype=torch.float64)
        worst = max(worst, (scores - expected).abs().max().item())
    report = {"rows": len(rows), "labels": labels, "largest_difference": worst}
    print(json.dumps(report) if arguments.json else "\n".join(f"{key}: {value}" for key, value in report.items()))
    if worst > arguments.tolerance:
        sys.exit(1)


def equal(left, right):
    return left is not None and right is not None and torch.equal(left, right)


if __name__ == "__main__":
    main()
