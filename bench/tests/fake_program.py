"""Answers as reparam and the programs of the peers do, at once and with known figures; the tests run it in their place.

The file FAKE_SETTINGS names has what to do otherwise: `fail` and `nan` are lists of words of command lines, and
with `hang` a step of reparam takes a minute. `labelled` is how many tokens reparam says that it learns.
"""

import json
import os
import sys
import time

LN_V = 10.80


def settings():
    with open(os.environ["FAKE_SETTINGS"], encoding="utf-8") as file:
        return json.load(file)


def option(name, default=None):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def loss():
    return float("nan") if any(word in sys.argv for word in settings()["nan"]) else LN_V


def bench():
    if settings().get("hang"):
        time.sleep(60)
    precision, recompute = option("--precision"), "--recompute" in sys.argv
    steps = int(option("--steps"))
    seconds = {"bf16": 1.0, "f32": 2.0}[precision] * (1.5 if recompute else 1.0)
    return {
        "precision": precision, "step_seconds": [seconds] * steps, "losses": [loss()] * steps, "peak_rss_bytes": 1,
        "minor_page_faults": [3] * steps, "limit_gflops": 100.0, "linear_gflops": 50.0, "linear_share_of_limit": 0.5,
    }  # fmt: skip


def train():
    with open(sys.argv[2], encoding="utf-8") as file:
        text = file.read()
    if "sequence-classification" in text:
        return train_classifier("bf16" if '"bf16"' in text else "f32")
    model = next(line for line in text.splitlines() if line.startswith("path"))
    data = {"train_tokens": 400, "labelled_tokens": settings().get("labelled", 195), "blocks": 2}
    start = {"event": "start", "precision": "bf16", "data": data}
    step = {"event": "step", "loss": loss(), "weight": 195.0, "unit": "tokens", "per_second": 195e6}
    print(json.dumps(start), json.dumps(step), json.dumps({"event": "finished", "model": model}), sep="\n")


def train_classifier(precision):
    """Two passes over 512 rows, a step each."""
    step = {"event": "step", "loss": 0.69, "weight": 512.0, "unit": "rows", "per_second": 512.0}
    print(json.dumps({"event": "start", "precision": precision}), *[json.dumps(step)] * 2, sep="\n")


def classifier():
    return {"rows": 512, "tokens": 5120, "rows_per_s": 128.0, "losses": [0.69]}


def instructions():
    counts = {"examples": 10, "too_long": 0, "tokens": 400, "response_tokens": 195, "characters": 1600}
    if option("--write-examples"):
        with open(option("--write-examples"), "w", encoding="utf-8") as file:
            file.write('{"prompt": "a", "completion": "b"}\n')
        return counts
    return {**counts, "losses": [loss()], "matter_tokens": 195, "computed_tokens": 700, "matter_tokens_per_s": 15e6}


def step():
    seconds = {"f32": 7.0, "bf16": 9.0, "bf16-autocast": 8.0}[option("--dtype")] / (2 if "--compile" in sys.argv else 1)
    return {
        "losses": [loss()], "step_seconds": [seconds] * int(option("--steps")), "peak_rss_bytes": 1, "first_step_began_at": 4e9,
    }  # fmt: skip


def decode():
    if "--prompt-only" in sys.argv:
        return {"prompt": "a prompt"}
    count = int(option("--new-tokens"))
    return {"prompt_tokens": 32, "tokens": list(range(count)), "tokens_per_s": 50.0}


def generate():
    tokens = list(range(int(option("--max-new-tokens"))))
    return {"prompt_tokens": 32, "tokens": tokens, "new_tokens": len(tokens), "tokens_per_s": 200.0}


ANSWERS = {
    "bench": bench, "generate": generate, "peft_step.py": step, "peft_instructions.py": instructions,
    "torch_classifier.py": classifier, "transformers_decode.py": decode,
}  # fmt: skip


def main():
    word = os.path.basename(sys.argv[1])
    if any(one in sys.argv for one in settings()["fail"]):
        print("error: it was told to fail", file=sys.stderr)
        sys.exit(1)
    if word == "--version":
        print("reparam 9.9.9")
    elif word == "-c":
        print(json.dumps({"python": "3", "torch": "2"}))
    elif word == "train":
        train()
    elif word in ("make_tokenizer.py", "make_encoder.py"):
        os.makedirs(option("--out"))
    elif word == "make_model.py":
        os.makedirs(option("--out"))
        with open(os.path.join(option("--out"), "config.json"), "w", encoding="utf-8") as file:
            json.dump({"vocab_size": 49152}, file)
    else:
        print(json.dumps(ANSWERS[word]()))


if __name__ == "__main__":
    main()
