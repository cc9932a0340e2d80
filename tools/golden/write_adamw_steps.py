"""Writes `testdata/golden/adamw_steps.{safetensors,json}`: 20 training steps of a LoRA on stories260K.

LoRA r=8, alpha=16 on all linear layers, B = 0 at the start. Each step t = 0..19 takes its own batch of two sequences of 64
tokens, the mean negative log-likelihood of its 126 predicted tokens, torch's `clip_grad_norm_` (1.0, over all factors
together), and torch's AdamW (betas 0.9 and 0.999, eps 1e-8, weight decay 0.01 on A and B alike).

The learning rate of step t is 2e-3 * m(t) with the m of transformers' `get_cosine_schedule_with_warmup` (warm-up 5, total
20): m(t) = t / 5 for t < 5, else (1 + cos(pi * (t - 5) / 15)) / 2. The first step therefore has learning rate 0: it moves
no weight, but enters the two moments of AdamW and its step count. Step 20 would have learning rate 0 again.

Tensors: `batch_ids` [20, 2, 64] i64, and `initial.` / `final.` + PEFT's name of every factor, f32. The JSON has, per step,
the learning rate, the loss and the gradient norm before clipping, and the distance to the same run in f64: AdamW divides
by the root of tiny second moments, so rounding grows with the steps.
"""

from golden_common import (
    ALL_LINEAR,
    BASE,
    GOLDEN,
    SHAKESPEARE,
    InF64,
    encode,
    load_base,
    load_tokenizer,
    lora_factors,
    max_abs_difference,
    mean_nll,
    setup,
    write_json,
    write_tensors,
)

import torch
from peft import LoraConfig, get_peft_model
from transformers import get_cosine_schedule_with_warmup

RANK, ALPHA = 8, 16
STEPS, WARMUP, ROWS, LENGTH = 20, 5, 2, 64
OPTIMIZER = {"lr": 2e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}
MAX_NORM = 1.0


def batches():
    """Consecutive pieces of the text, each beginning with BOS: `[STEPS, ROWS, LENGTH]`."""
    tokenizer = load_tokenizer()
    ids = encode(tokenizer, SHAKESPEARE.read_text(encoding="utf-8")[:20000])[1:]
    body = LENGTH - 1
    rows = [[tokenizer.bos_token_id, *ids[i * body : (i + 1) * body]] for i in range(STEPS * ROWS)]
    return torch.tensor(rows, dtype=torch.int64).reshape(STEPS, ROWS, LENGTH)


def train(model, batch_ids):
    """Runs the steps; returns the per-step records and the factors after the last step."""
    factors = lora_factors(model)
    optimizer = torch.optim.AdamW(
        factors.values(), lr=OPTIMIZER["lr"], betas=tuple(OPTIMIZER["betas"]), eps=OPTIMIZER["eps"],
        weight_decay=OPTIMIZER["weight_decay"], foreach=False,
    )  # fmt: skip
    schedule = get_cosine_schedule_with_warmup(optimizer, WARMUP, STEPS)
    record = {"learning_rate": [], "loss": [], "gradient_norm": []}
    for batch in batch_ids:
        record["learning_rate"].append(optimizer.param_groups[0]["lr"])
        loss = mean_nll(model, list(batch))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(factors.values(), MAX_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        record["loss"].append(loss.item())
        record["gradient_norm"].append(norm.item())
    return record, {name: parameter.detach().clone() for name, parameter in factors.items()}


def main():
    setup(3)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=ALL_LINEAR)
    model = get_peft_model(load_base(), config).eval()
    initial = {name: parameter.detach().clone() for name, parameter in lora_factors(model).items()}
    batch_ids = batches()
    record, final = train(model, batch_ids)

    exact_model = get_peft_model(load_base(), config).eval().double()
    with torch.no_grad():
        for name, parameter in lora_factors(exact_model).items():
            parameter.copy_(initial[name])
    with InF64():
        exact_record, exact_final = train(exact_model, batch_ids)

    tensors = {"batch_ids": batch_ids}
    tensors.update({f"initial.{name}": tensor for name, tensor in initial.items()})
    tensors.update({f"final.{name}": tensor for name, tensor in final.items()})
    write_tensors(GOLDEN / "adamw_steps.safetensors", tensors)
    write_json(
        GOLDEN / "adamw_steps.json",
        {
            "model": BASE,
            "rank": RANK,
            "alpha": ALPHA,
            "target_modules": ALL_LINEAR,
            "optimizer": {"kind": "adamw", **OPTIMIZER},
            "max_gradient_norm": MAX_NORM,
            "schedule": {"kind": "cosine", "warmup_steps": WARMUP, "total_steps": STEPS},
            **record,
            "in_f64": {"loss": exact_record["loss"], "gradient_norm": exact_record["gradient_norm"]},
            "final_max_abs_difference_to_f64": max_abs_difference(final, exact_final),
            "final_mean_abs_difference_to_f64": sum(
                (final[name].double() - exact_final[name]).abs().sum().item() for name in final
            ) / sum(tensor.numel() for tensor in final.values()),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
