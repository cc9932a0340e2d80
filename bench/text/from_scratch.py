"""Trains a small language model from nothing with transformers: the settings are those of the run file of the task beside this program.

    from_scratch.py --task shakespeare-llama|shakespeare-bert [--seed 0] [--data DIR] [--threads 2] [--steps N]

Both sides read the tokenizer that prepare.py has trained. A text is cut into pieces of the run file's length, in a new order each
epoch. AdamW without weight decay, a cosine schedule with warm-up, gradients bounded to norm 1. The masked model guesses 15 % of
tokens, 80/10/10, anew in each step. What is measured is the mean loss of the test text's tokens: of the causal model all, of the
masked one those of a mask that stays the same.
"""

import math
import random
import time
from pathlib import Path

import common

SHARE = 0.15


def main():
    chosen = common.arguments(__doc__, ["shakespeare-llama", "shakespeare-bert"])
    import torch
    import transformers

    run = common.settings(chosen)
    model, train = run["model"], run["train"]
    masked = model["task"] == "masked-lm"
    torch.manual_seed(chosen.seed)
    torch.set_num_threads(chosen.threads)
    folder = chosen.work / "shakespeare"
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder / Path(model["tokenizer"]["path"]).name))
    length = train["sequence_length"]

    def pieces(part):
        text = (folder / f"{part}.txt").read_text(encoding="utf-8")
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if masked:
            first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
            return [[first, *ids[at : at + length - 2], last] for at in range(0, len(ids), length - 2)]
        ids.append(tokenizer.eos_token_id)
        return [ids[at : at + length] for at in range(0, len(ids), length) if len(ids) - at > 1]

    rows, test = pieces("train"), pieces("test")
    config = transformers.AutoConfig.for_model(model["architecture"], vocab_size=len(tokenizer), **model["config"])
    kind = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
    net = kind.from_config(config)
    optimizer = torch.optim.AdamW(net.parameters(), lr=run["optimizer"]["learning_rate"], weight_decay=0.0)
    steps, batch_size = train["max_steps"], train["batch_size"]
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, math.ceil(run["optimizer"]["warmup_ratio"] * steps), steps)
    special = torch.tensor(tokenizer.all_special_ids)

    def batch_of(some, generator):
        longest = max(map(len, some))
        pad = tokenizer.pad_token_id or 0
        ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in some])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in some])
        labels = ids.masked_fill(mask == 0, -100)
        if masked:
            drawn = torch.rand(ids.shape, generator=generator)
            guessed = (drawn < SHARE) & (mask == 1) & ~torch.isin(ids, special)
            labels = labels.masked_fill(~guessed, -100)
            kept = torch.rand(ids.shape, generator=generator)
            others = torch.randint(len(tokenizer), ids.shape, generator=generator)
            ids = torch.where(guessed & (kept < 0.8), tokenizer.mask_token_id, torch.where(guessed & (kept >= 0.9), others, ids))
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def measure():
        net.eval()
        loss, count = 0.0, 0
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for first in range(0, len(test), 32):
                batch = batch_of(test[first : first + 32], generator)
                labels = batch["labels"] if masked else batch["labels"][:, 1:]
                n = int((labels != -100).sum())
                loss, count = loss + net(**batch).loss.item() * n, count + n
        net.train()
        return loss / count

    limit = steps if chosen.steps is None else min(steps, chosen.steps)
    shuffled, generator = random.Random(chosen.seed), torch.Generator().manual_seed(chosen.seed)
    order, curve, seconds = [], {0: measure()}, 0.0
    for step in range(1, limit + 1):
        begin = time.perf_counter()
        while len(order) < batch_size:
            order += shuffled.sample(rows, len(rows))
        some, order = order[:batch_size], order[batch_size:]
        net(**batch_of(some, generator)).loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), run["optimizer"]["clip_grad_norm"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        seconds += time.perf_counter() - begin
        if step % train["eval_every"] == 0 or step == limit:
            curve[step] = measure()
    size = sum(parameter.numel() for parameter in net.parameters())
    common.report(
        "from_scratch", chosen, {"loss": curve[limit]}, seconds, ["torch", "transformers"], parameters=size,
        curve={str(step): round(loss, 4) for step, loss in curve.items()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
