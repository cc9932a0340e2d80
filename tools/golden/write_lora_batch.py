"""Writes `testdata/golden/lora_batch.{safetensors,json}`: one loss and all gradients of a LoRA on stories260K.

LoRA r=8, alpha=16 on all linear layers; A as PEFT initializes it (kaiming uniform), B normal with standard deviation
0.05, so that no gradient vanishes. Tensors: `input_ids` [122] i64 and `bounds` [4] i64 (three documents of 37, 64 and 21
tokens), every factor under PEFT's own name, and `grad.` + that name. The JSON has the loss: the summed negative
log-likelihood of the predicted tokens (a document's first is none) divided by their number over all documents.
"""

from golden_common import (
    ALL_LINEAR,
    BASE,
    GOLDEN,
    SHAKESPEARE,
    STORY,
    InF64,
    encode,
    flatten,
    load_base,
    load_tokenizer,
    lora_factors,
    max_abs_difference,
    mean_nll,
    randomize,
    setup,
    write_json,
    write_tensors,
)

import torch
from peft import LoraConfig, get_peft_model

RANK, ALPHA = 8, 16
LENGTHS = [37, 64, 21]


def documents():
    """Three documents of the lengths above; the last one ends with EOS."""
    tokenizer = load_tokenizer()
    shakespeare = SHAKESPEARE.read_text(encoding="utf-8")
    texts = [shakespeare[:600], STORY, shakespeare[5000:5600]]
    cut = [encode(tokenizer, text)[:length] for text, length in zip(texts, LENGTHS)]
    cut[-1][-1] = tokenizer.eos_token_id
    return cut


def main():
    setup(2)
    model = get_peft_model(load_base(), LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=ALL_LINEAR))
    model.eval()
    factors = lora_factors(model)
    randomize(parameter for name, parameter in factors.items() if ".lora_B." in name)

    batch = documents()
    loss = mean_nll(model, batch)
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in factors.items()}
    with torch.no_grad(), model.disable_adapter():
        base_loss = mean_nll(model, batch)

    ids, bounds = flatten(batch)
    tensors = {"input_ids": ids, "bounds": bounds}
    tensors.update({name: parameter.detach().clone() for name, parameter in factors.items()})
    tensors.update({f"grad.{name}": gradient for name, gradient in gradients.items()})

    model.zero_grad()
    model.double()
    with InF64():
        exact_loss = mean_nll(model, batch)
        exact_loss.backward()
    exact = {name: parameter.grad for name, parameter in lora_factors(model).items()}

    write_tensors(GOLDEN / "lora_batch.safetensors", tensors)
    write_json(
        GOLDEN / "lora_batch.json",
        {
            "model": BASE,
            "rank": RANK,
            "alpha": ALPHA,
            "target_modules": ALL_LINEAR,
            "loss": loss.item(),
            "loss_in_f64": exact_loss.item(),
            "base_loss": base_loss.item(),
            "predicted_tokens": sum(LENGTHS) - len(LENGTHS),
            "gradient_norm": torch.linalg.vector_norm(
                torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients.values()])
            ).item(),
            "gradient_max_abs_difference_to_f64": max_abs_difference(gradients, exact),
        },
    )


if __name__ == "__main__":
    main()
