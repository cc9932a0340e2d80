"""Loads an adapter into PEFT, strictly, and prints the evaluation loss that transformers computes with it.

    check_adapter.py --model DIR [--adapter DIR] --data FILE.(txt|jsonl) [--sequence-length N] [--batch-size N] [--json]

The adapter is refused (exit code 1) if PEFT would drop or lack anything of it: an unknown key in `adapter_config.json`, a
tensor that a fresh PEFT model of that configuration does not have, one that it has and the file lacks, a wrong shape.

The loss is what `reparam eval --precision f32` defines: a document is encoded with the tokenizer's own template, then EOS;
one longer than the sequence length is cut into pieces of that length, each scored by itself; the first token of a piece is
not predicted; the summed negative log-likelihood is divided by the number of predicted tokens. `.txt` is one document,
`.jsonl` with a `text` field one document a line. Without `--adapter` the base model is scored.
"""

import argparse
import json
import math
import os
import sys
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch  # noqa: E402
import transformers  # noqa: E402
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

ADAPTER_NAME = "default"
ADAPTER_FILE = "adapter_model.safetensors"


class Refused(Exception):
    """Something that PEFT would accept silently, or that is no input at all."""


def read_documents(path):
    """The documents of a data file."""
    # Bytes are decoded by hand: reading as text would turn every CR LF into LF and change the tokens.
    text = path.read_bytes().decode("utf-8")
    if path.suffix == ".txt":
        return [text]
    if path.suffix == ".jsonl":
        return [json.loads(line)["text"] for line in text.split("\n") if line.strip()]
    raise Refused(f"{path}: neither .txt nor .jsonl")


def cut(tokenizer, documents, sequence_length):
    """The pieces to score; those of one token predict nothing and are left out."""
    pieces = []
    for document in documents:
        ids = tokenizer(document, truncation=False)["input_ids"] + [tokenizer.eos_token_id]
        pieces += [ids[start : start + sequence_length] for start in range(0, len(ids), sequence_length)]
    return [piece for piece in pieces if len(piece) > 1]


def evaluate(model, pieces, batch_size):
    """Summed negative log-likelihood and number of predicted tokens. Pieces of one length share a forward pass."""
    total, count = 0.0, 0
    pieces = sorted(pieces, key=len)
    start = 0
    while start < len(pieces):
        length = len(pieces[start])
        batch = [piece for piece in pieces[start : start + batch_size] if len(piece) == length]
        start += len(batch)
        ids = torch.tensor(batch, dtype=torch.int64)
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        total += losses.double().sum().item()
        count += losses.numel()
    return total, count


def load_adapter(base, directory):
    """`base` with the adapter in `directory`; refuses whatever does not fit exactly."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config = PeftConfig.from_pretrained(str(directory))
    unknown = [str(warning.message) for warning in caught if "Unexpected keyword" in str(warning.message)]
    if unknown:
        raise Refused(f"{directory}/adapter_config.json: {unknown[0]}")

    path = directory / ADAPTER_FILE
    if not path.is_file():
        raise Refused(f"{path}: no such file")
    tensors = load_file(str(path))
    model = get_peft_model(base, config, adapter_name=ADAPTER_NAME)
    expected = get_peft_model_state_dict(model, adapter_name=ADAPTER_NAME)
    differences = [
        *(f"missing: {name}" for name in sorted(expected.keys() - tensors.keys())),
        *(f"unexpected: {name}" for name in sorted(tensors.keys() - expected.keys())),
        *(
            f"shape of {name}: {list(tensors[name].shape)} instead of {list(expected[name].shape)}"
            for name in sorted(tensors.keys() & expected.keys())
            if tensors[name].shape != expected[name].shape
        ),
    ]
    if differences:
        raise Refused(f"{path}: {len(differences)} tensors do not fit PEFT's model:\n  " + "\n  ".join(differences))

    # This is the second half of `PeftModel.from_pretrained`, which only warns about what it finds missing.
    result = model.load_adapter(str(directory), ADAPTER_NAME, is_trainable=False)
    if result.missing_keys or result.unexpected_keys:
        raise Refused(f"{path}: missing {result.missing_keys}, unexpected {result.unexpected_keys}")
    loaded = get_peft_model_state_dict(model, adapter_name=ADAPTER_NAME)
    changed = [name for name in tensors if not torch.equal(loaded[name], tensors[name].to(loaded[name].dtype))]
    if changed:
        raise Refused(f"{path}: PEFT holds other values after loading for {changed}")
    return model


def run(arguments):
    """Loads, scores, and returns the object to print."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(arguments.model))
    if tokenizer.eos_token_id is None:
        raise Refused(f"{arguments.model}: the tokenizer has no EOS token")
    if arguments.sequence_length < 2 or arguments.batch_size < 1:
        raise Refused("--sequence-length must be at least 2 and --batch-size at least 1")
    pieces = cut(tokenizer, read_documents(arguments.data), arguments.sequence_length)
    if not pieces:
        raise Refused(f"{arguments.data}: no token to predict")
    model = transformers.AutoModelForCausalLM.from_pretrained(str(arguments.model), dtype=torch.float32)
    if arguments.adapter is not None:
        model = load_adapter(model, arguments.adapter)
    total, count = evaluate(model.eval(), pieces, arguments.batch_size)
    loss = total / count
    return {"loss": loss, "perplexity": math.exp(loss), "tokens": count}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model directory with its tokenizer")
    parser.add_argument("--adapter", type=Path, help="PEFT adapter directory")
    parser.add_argument("--data", type=Path, required=True, help=".txt or .jsonl")
    parser.add_argument("--sequence-length", type=int, default=512, help="longest piece in tokens (default 512)")
    parser.add_argument("--batch-size", type=int, default=8, help="pieces a forward pass (default 8); not in the result")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, also on refusal")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    try:
        result = run(arguments)
    except (Refused, OSError, ValueError, KeyError, RuntimeError) as error:
        if arguments.json:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        else:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    if arguments.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
