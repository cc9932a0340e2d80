"""Measures training of a text classifier in PyTorch: LoRA on an encoder with PEFT, or a bidirectional LSTM from nothing.

    torch_classifier.py --model DIR [--kind encoder|lstm] [--batch 16] [--length 128] [--dtype f32] [--json]

DIR is what make_encoder.py has made; the LSTM takes its tokenizer and rows alone. Two passes over the rows in a new order
each, batches padded to their longest row (the LSTM's are packed then, as torch.nn does it); the second pass is timed. A step
is forward, loss, backward, clipping to norm 1 and AdamW.
"""

import argparse
import json
import math
import os
import random
import sys
import time
from pathlib import Path

import torch
import transformers
from peer_common import DTYPES, LEARNING_RATE, MAX_NORM, SEED, peak_rss_bytes, prepare, surroundings
from peft import LoraConfig, get_peft_model
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

LABELS = ["question", "statement"]
TARGETS = ["query", "key", "value", "dense"]
WIDTH = 256


def encoder(arguments):
    """BERT with a new head, LoRA on its linear layers; the head is trained, too."""
    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        str(arguments.model), num_labels=len(LABELS), dtype=torch.bfloat16 if arguments.dtype == "bf16" else torch.float32,
        hidden_dropout_prob=arguments.dropout, attention_probs_dropout_prob=arguments.dropout,
    )  # fmt: skip
    config = LoraConfig(r=arguments.rank, lora_alpha=2 * arguments.rank, target_modules=TARGETS, modules_to_save=["classifier"])
    model = get_peft_model(base, config)
    return model, lambda batch: model(**batch).logits


class Lstm(torch.nn.Module):
    """Token vectors, a bidirectional LSTM, the mean of its states, a linear head."""

    def __init__(self, vocabulary):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, WIDTH)
        self.lstm = torch.nn.LSTM(WIDTH, WIDTH, batch_first=True, bidirectional=True)
        self.head = torch.nn.Linear(2 * WIDTH, len(LABELS))

    def forward(self, batch):
        lengths = batch["attention_mask"].sum(1)
        vectors = self.embedding(batch["input_ids"])
        packed = pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
        # Behind the end of a row, states are zero.
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.head(states.sum(1) / lengths.unsqueeze(1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="directory that make_encoder.py has made")
    parser.add_argument("--kind", choices=["encoder", "lstm"], default="encoder")
    parser.add_argument("--batch", type=int, default=16, help="rows a step (default 16)")
    parser.add_argument("--length", type=int, default=128, help="the most tokens of a row (default 128)")
    parser.add_argument("--rank", type=int, default=16, help="LoRA rank; alpha is twice that (default 16)")
    parser.add_argument("--dropout", type=float, default=0.1, help="of an encoder's states and attention (default 0.1)")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args()

    prepare(arguments.threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(arguments.model))
    lines = (arguments.model / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    if arguments.kind == "encoder":
        model, logits = encoder(arguments)
    else:
        model = logits = Lstm(len(tokenizer))
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
    texts = [row["text"] for row in rows]
    encoded = tokenizer(texts, truncation=True, max_length=arguments.length)
    rows = [(dict(zip(encoded, values)), row["label"]) for *values, row in zip(*encoded.values(), rows)]
    order, losses, tokens, seconds = random.Random(SEED), [], 0, 0.0
    for timed in (False, True):
        order.shuffle(rows)
        begin = time.perf_counter()
        for first in range(0, len(rows), arguments.batch):
            part = rows[first : first + arguments.batch]
            batch = tokenizer.pad([inputs for inputs, _ in part], return_tensors="pt")
            targets = torch.tensor([LABELS.index(label) for _, label in part])
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=arguments.dtype == "bf16-autocast"):
                loss = torch.nn.functional.cross_entropy(logits(batch), targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, MAX_NORM)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            tokens += int(batch["attention_mask"].sum()) if timed else 0
        seconds = time.perf_counter() - begin
    if not all(math.isfinite(loss) for loss in losses):
        sys.exit(f"error: a loss is not finite: {losses}")
    result = {
        "program": "torch",
        "kind": arguments.kind,
        "dtype": arguments.dtype,
        "batch": arguments.batch,
        "rows": len(rows),
        "tokens": tokens,
        "seconds": seconds,
        "rows_per_s": len(rows) / seconds,
        "losses": losses,
        "trained_parameters": sum(parameter.numel() for parameter in trained),
        "peak_rss_bytes": peak_rss_bytes(),
        **surroundings(),
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"{result['rows_per_s']:.1f} rows a second, last loss {losses[-1]:.3f}, peak {result['peak_rss_bytes'] / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
