"""Writes `testdata/golden/methods/`: adapters of DoRA, IA3 and VeRA as PEFT writes them, with loss and gradients of each.

Each `NAME/` has PEFT's `adapter_config.json` and `adapter_model.safetensors` untouched; only the model card is removed.
What PEFT trains was moved from where it starts by normal numbers, so that no adapter is the identity and no gradient vanishes.
`NAME.gradients.safetensors` has the gradient of the loss for every trained tensor, under its name in the adapter file (biases
under their name in the model). `expected.json` has `batches` (flat `input_ids` and `bounds`) and `adapters`: for each its model
directory, its batch, the `loss` with it and the `base_loss` without it, both the mean negative log-likelihood of all predicted
tokens.

The models are those of `write_variants.py` and `write_families.py`, which must have run before. GPT-2 stores its weights
`[d_in, d_out]`, its queries, keys and values in one layer.
"""

import shutil

from golden_common import (
    BASE,
    GOLDEN,
    SHAKESPEARE,
    STORY,
    encode,
    flatten,
    load_base,
    load_tokenizer,
    mean_nll,
    setup,
    write_json,
    write_tensors,
)

import torch
from peft import IA3Config, LoraConfig, PeftModel, VeraConfig, get_peft_model

BIASED = str(GOLDEN / "variants" / "untied_bias")
GPT2 = str(GOLDEN / "families" / "gpt2")
LENGTHS = [29, 41, 17]
MINIMUM_EFFECT = 1e-3
# What is trained, and how far it is moved; A stays where PEFT starts it.
SPREADS = {
    "lora_A": 0.0,
    "lora_B": 0.05,
    "lora_magnitude_vector": 0.2,
    "ia3_l": 0.3,
    "vera_lambda_b": 0.3,
    "vera_lambda_d": 0.1,
    "bias": 0.2,
}


def lora(**options):
    """A LoRA of rank 4."""
    return LoraConfig(**{"r": 4, "lora_alpha": 8, **options}, task_type="CAUSAL_LM")


def ia3(**options):
    """IA3."""
    return IA3Config(**options, task_type="CAUSAL_LM")


def vera(**options):
    """VeRA whose projections are in the file."""
    return VeraConfig(**{"r": 8, "save_projection": True, **options}, task_type="CAUSAL_LM")


SOME = ["q_proj", "v_proj", "down_proj"]
ADAPTERS = {
    "dora": (BASE, lora(target_modules=SOME, use_dora=True)),
    "dora_bias_all": (
        BIASED,
        lora(target_modules=SOME, use_dora=True, use_rslora=True, bias="all", rank_pattern={"v_proj": 2}),
    ),
    "ia3": (BASE, ia3(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])),
    "ia3_on_biases": (BIASED, ia3(target_modules=["q_proj", "k_proj", "down_proj"], feedforward_modules=["down_proj"])),
    "vera": (BASE, vera(target_modules=SOME)),
    "vera_only": (BIASED, vera(target_modules=SOME, bias="vera_only", d_initial=0.5, layers_to_transform=[1])),
    "gpt2_lora": (GPT2, lora(target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True)),
    "gpt2_dora": (GPT2, lora(target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, use_dora=True)),
    "gpt2_ia3": (GPT2, ia3(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True)),
    "gpt2_vera": (GPT2, vera(target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)),
}


def batches():
    """A batch of text for the model with a tokenizer, of random ids for the others."""
    tokenizer = load_tokenizer()
    shakespeare = SHAKESPEARE.read_text(encoding="utf-8")
    texts = [shakespeare[14000:14600], STORY, shakespeare[25000:25600]]
    stories = [encode(tokenizer, text)[:length] for text, length in zip(texts, LENGTHS)]
    random = [[1, *torch.randint(3, 72, (length - 1,)).tolist()] for length in LENGTHS]
    return {BASE: ("stories", stories), BIASED: ("random", random), GPT2: ("random", random)}


def stored_name(name):
    """The name of a parameter in the adapter file; of a bias, in the model."""
    name = name.replace(".default", "").replace(".base_layer", "")
    return name.removesuffix(".weight") if "magnitude" in name else name


def trained(model):
    """What PEFT trains, by the names above."""
    return {stored_name(name): parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def move(parameters):
    """Moves parameters from where they start."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            spread = next(spread for part, spread in SPREADS.items() if part in name)
            parameter.add_(torch.randn_like(parameter) * spread)


def main():
    setup(11)
    by_model = batches()
    expected = {}
    shutil.rmtree(GOLDEN / "methods", ignore_errors=True)
    for name, (base, config) in ADAPTERS.items():
        batch_name, documents = by_model[base]
        model = get_peft_model(load_base(base), config).eval()
        parameters = trained(model)
        move(parameters)
        loss = mean_nll(model, documents)
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in parameters.items()}
        assert all(gradient.abs().max() > 0 for gradient in gradients.values()), f"{name} has a vanishing gradient"
        with torch.no_grad():
            base_loss = mean_nll(load_base(base), documents).item()

        directory = GOLDEN / "methods" / name
        model.save_pretrained(directory)
        (directory / "README.md").unlink()
        write_tensors(GOLDEN / "methods" / f"{name}.gradients.safetensors", gradients)

        # What the tests will read has to give the loss that they will compare with, in PEFT itself.
        loaded = PeftModel.from_pretrained(load_base(base), str(directory)).eval()
        with torch.no_grad():
            assert mean_nll(loaded, documents).item() == loss.item(), f"{name} does not survive its own files"
        assert abs(loss.item() - base_loss) > MINIMUM_EFFECT, f"{name} changes nothing"
        expected[name] = {"model": base, "batch": batch_name, "loss": loss.item(), "base_loss": base_loss}

    stored = {}
    for batch_name, documents in by_model.values():
        ids, bounds = flatten(documents)
        stored[batch_name] = {"input_ids": ids.tolist(), "bounds": bounds.tolist()}
    write_json(GOLDEN / "methods" / "expected.json", {"batches": stored, "adapters": expected})


if __name__ == "__main__":
    main()
