"""Writes `testdata/golden/peft/`: adapters as PEFT's `save_pretrained` writes them, and the loss each one gives.

Each `NAME/` has PEFT's `adapter_config.json` and `adapter_model.safetensors` untouched; only the model card is removed.
The factors A are PEFT's, the factors B and the biases normal with standard deviation 0.05 (biases: 0.2), so no adapter is
the identity. `expected.json` has `batches` (flat `input_ids` and `bounds`) and `adapters`: for each its model directory,
its batch, the `loss` with it and the `base_loss` without it, both the mean negative log-likelihood of all predicted tokens.

The adapters with biases belong to `variants/untied_bias`, which `write_variants.py` must have written before.
"""

import shutil

from golden_common import (
    ALL_LINEAR,
    BASE,
    GOLDEN,
    SHAKESPEARE,
    STORY,
    encode,
    flatten,
    load_base,
    load_tokenizer,
    mean_nll,
    randomize,
    setup,
    write_json,
)

import torch
from peft import LoraConfig, PeftModel, get_peft_model

BIASED = str(GOLDEN / "variants" / "untied_bias")
LENGTHS = [37, 64, 21]
QV = ["q_proj", "v_proj"]
MINIMUM_EFFECT = 1e-3

ADAPTERS = {
    "plain": (BASE, {"r": 4, "lora_alpha": 8, "target_modules": QV}),
    "rslora": (BASE, {"r": 4, "lora_alpha": 8, "target_modules": ALL_LINEAR, "use_rslora": True}),
    "patterns": (
        BASE,
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": QV,
            "rank_pattern": {"q_proj": 2, "layers.1.self_attn.v_proj": 6},
            "alpha_pattern": {"v_proj": 12},
        },
    ),
    "regex_target": (
        BASE,
        {"r": 4, "lora_alpha": 8, "target_modules": r"model\.layers\.[0-2]\.mlp\.(up|down)_proj"},
    ),
    "layers_to_transform": (
        BASE,
        {"r": 4, "lora_alpha": 8, "target_modules": QV, "layers_to_transform": [1, 3]},
    ),
    "bias_lora_only": (BIASED, {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "bias": "lora_only"}),
    "bias_all": (BIASED, {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "bias": "all"}),
}


def batches():
    """One batch a model: text for the one with a tokenizer, random ids for the other."""
    tokenizer = load_tokenizer()
    shakespeare = SHAKESPEARE.read_text(encoding="utf-8")
    texts = [shakespeare[9000:9600], STORY, shakespeare[20000:20600]]
    stories = [encode(tokenizer, text)[:length] for text, length in zip(texts, LENGTHS)]
    random = [[1, *torch.randint(3, 96, (length - 1,)).tolist()] for length in LENGTHS]
    return {BASE: ("stories", stories), BIASED: ("random", random)}


def main():
    setup(6)
    by_model = batches()
    expected = {}
    for name, (base, options) in ADAPTERS.items():
        batch_name, documents = by_model[base]
        model = get_peft_model(load_base(base), LoraConfig(task_type="CAUSAL_LM", **options)).eval()
        randomize(parameter for key, parameter in model.named_parameters() if ".lora_B." in key)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                # `lora_only` trains the biases of the adapted layers, `all` every bias; exactly those are saved.
                if key.endswith(".bias") and parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.2)
            loss = mean_nll(model, documents).item()
            base_loss = mean_nll(load_base(base), documents).item()

        directory = GOLDEN / "peft" / name
        shutil.rmtree(directory, ignore_errors=True)
        model.save_pretrained(directory)
        (directory / "README.md").unlink()

        # What the tests will read has to give the loss that they will compare with, in PEFT itself.
        loaded = PeftModel.from_pretrained(load_base(base), str(directory)).eval()
        with torch.no_grad():
            assert mean_nll(loaded, documents).item() == loss, f"{name} does not survive its own files"
        assert abs(loss - base_loss) > MINIMUM_EFFECT, f"{name} changes nothing"
        expected[name] = {"model": base, "batch": batch_name, "loss": loss, "base_loss": base_loss}

    stored = {}
    for batch_name, documents in by_model.values():
        ids, bounds = flatten(documents)
        stored[batch_name] = {"input_ids": ids.tolist(), "bounds": bounds.tolist()}
    write_json(GOLDEN / "peft" / "expected.json", {"batches": stored, "adapters": expected})


if __name__ == "__main__":
    main()
