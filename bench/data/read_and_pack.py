"""Compares reading, tokenizing and packing of a large JSON Lines file: `reparam train` against `datasets` with `tokenizers`.

    bench/data/read_and_pack.py --reparam target/release/reparam --bytes 1e9 --processes 2

Both read the same file, made of texts (`--text`) by repetition with a number before each row, encode it with the tokenizer of
assets/stories260K, add the end-of-text token, and put pieces of 512 tokens together. reparam does it up to the first step of a
training, once with an empty cache and once more with a full one; `datasets` does it with `map`, in as many processes, with its own
cache. Printed of each: seconds, megabytes of text a second, and the most memory that all its processes had at once (PSS, which
counts a shared page once, looked at every 50 ms).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "assets" / "stories260K"
LENGTH = 512

PEER = """
import sys
from pathlib import Path
import datasets
from tokenizers import Tokenizer

data, model, processes, length, cache = sys.argv[1:]
tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
eos = tokenizer.token_to_id("</s>")

def encode(rows):
    return {"input_ids": [encoding.ids + [eos] for encoding in tokenizer.encode_batch(rows["text"])]}

def pack(rows):
    size = int(length)
    ids = [one for row in rows["input_ids"] for one in row]
    return {"input_ids": [ids[at : at + size] for at in range(0, len(ids), size)]}

texts = datasets.load_dataset("json", data_files=data, split="train", cache_dir=cache)
encoded = texts.map(encode, batched=True, num_proc=int(processes), remove_columns=texts.column_names)
packed = encoded.map(pack, batched=True, num_proc=int(processes))
print(len(packed))
"""


def make(path: Path, size: int, texts: list[Path]) -> None:
    """Writes about `size` bytes of rows."""
    text = "".join(text.read_text(encoding="utf-8") for text in texts)
    parts = [text[at : at + 1000] for at in range(0, len(text), 1000)]
    written = number = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            row = {"text": f"{number}: {parts[number % len(parts)]}"}
            written += file.write(json.dumps(row, ensure_ascii=False) + "\n")
            number += 1


def tree(root: int) -> list[int]:
    """The process and all below it."""
    found = [root]
    for pid in found:
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                children = Path(f"/proc/{pid}/task/{thread}/children").read_text()
                found.extend(map(int, children.split()))
        except OSError:
            pass
    return found


def memory(root: int) -> int:
    """The memory of a process and all below it, in bytes."""
    total = 0
    for pid in tree(root):
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            pass
    return total


def measure(name: str, command: list[str], size: int, environment: dict[str, str]) -> None:
    """Runs a command, and prints what it took."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | environment)
    most = 0
    while process.poll() is None:
        most = max(most, memory(process.pid))
        time.sleep(0.05)
    seconds = time.monotonic() - begin
    if process.returncode != 0:
        sys.exit(f"{name}: {process.stderr.read().decode()}")
    print(f"{name:34} {seconds:8.1f} s {size / seconds / 1e6:8.1f} MB/s {most / 1e6:8.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reparam", default="target/release/reparam")
    parser.add_argument("--bytes", type=float, default=1e9)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--text", type=Path, nargs="+", default=[ROOT / "assets" / "tinyshakespeare.txt"], help="what rows are made of")
    parser.add_argument("--skip-peer", action="store_true", help="measure reparam alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data.jsonl"
        make(data, int(arguments.bytes), arguments.text)
        size = data.stat().st_size
        settings = {
            "data.cache": f"{place}/cache",
            "data.eval_fraction": 0,
            "train.max_steps": 1,
            "train.batch_size": 1,
            "train.sequence_length": LENGTH,
            "train.threads": arguments.processes,
        }
        for name in ["reparam, empty cache", "reparam, full cache"]:
            command = [arguments.reparam, "train", "--model", str(MODEL), "--data", str(data)]
            command += ["--output", f"{place}/{name.replace(' ', '-')}"]
            for key, value in settings.items():
                command += ["--set", f"{key}={json.dumps(value)}"]
            measure(name, command, size, {"REPARAM_NO_PROGRESS": "1"})
        if not arguments.skip_peer:
            command = [sys.executable, "-c", PEER, str(data), str(MODEL), str(arguments.processes), str(LENGTH), f"{place}/peer"]
            measure("datasets and tokenizers", command, size, {"HF_DATASETS_CACHE": f"{place}/peer"})


if __name__ == "__main__":
    main()
