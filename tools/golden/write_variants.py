"""Writes `testdata/golden/variants/`: tiny random Llama models as transformers saves them, and their logits.

Each `NAME/` is a model directory (no tokenizer). `NAME.logits.safetensors` beside it has `input_ids` [1, 40] i64 and
`logits` [1, 40, vocabulary] f32, computed with the saved weights read back and widened to f32.
`llama3_rope.legacy_config.json` and `linear_rope.legacy_config.json` describe the same models in the older form
(`rope_theta` and `rope_scaling` at the top level, `type` for `rope_type`), which most published checkpoints still have;
this script fails unless transformers computes the same from both.

Weights are normal with standard deviation 0.2, biases too, norm weights 1 plus that: large enough that a lost bias, a
wrong head size or unscaled rotary angles change the logits far beyond rounding.
"""

import json
import shutil

from golden_common import GOLDEN, load_base, setup, write_tensors

import torch
from transformers import LlamaConfig, LlamaForCausalLM

LENGTH = 40
MINIMUM_ROPE_EFFECT = 0.05
SHAPE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
    "rms_norm_eps": 1e-5,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # The eight wave lengths of head size 16 are 6.3, 20, 63, ...: with 32 here the first is kept, the second
    # interpolated and the others stretched, so all three branches of the rule are taken.
    "original_max_position_embeddings": 32,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}

VARIANTS = {
    "untied_bias": {
        "config": {"head_dim": 16, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
    },
    "llama3_rope": {
        "config": {"head_dim": 16, "tie_word_embeddings": True, "rope_parameters": LLAMA3_ROPE},
    },
    "linear_rope": {
        "config": {"head_dim": 16, "tie_word_embeddings": True, "rope_parameters": LINEAR_ROPE},
    },
    "bf16_sharded": {
        "config": {"num_key_value_heads": 4, "tie_word_embeddings": True},
        "dtype": torch.bfloat16,
        "max_shard_size": "12KB",
    },
    "f16": {
        "config": {"num_key_value_heads": 1, "tie_word_embeddings": False, "rms_norm_eps": 1e-6},
        "dtype": torch.float16,
    },
}


def build(config):
    """A model of this configuration with random weights, biases and norms."""
    model = LlamaForCausalLM(LlamaConfig(**{**SHAPE, **config}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.2)
            if name.endswith("norm.weight"):
                parameter.add_(1.0)
    return model.eval()


def logits_of(path, ids):
    """The logits of the model saved in `path`, its weights widened to f32."""
    with torch.no_grad():
        return load_base(str(path))(input_ids=ids).logits


def write_legacy_config(directory, rope_key, ids, expected):
    """Writes the older form of a configuration beside the model, after proving that it means the same."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = {rope_key: rope.pop("rope_type"), **rope}
    config["torch_dtype"] = config.pop("dtype")
    config.pop("transformers_version")
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    path = directory.parent / f"{directory.name}.legacy_config.json"
    path.write_text(text, encoding="utf-8")

    trial = directory.parent / f".{directory.name}.trial"
    shutil.rmtree(trial, ignore_errors=True)
    shutil.copytree(directory, trial)
    try:
        (trial / "config.json").write_text(text, encoding="utf-8")
        assert torch.equal(logits_of(trial, ids), expected), f"{path} means something else"
    finally:
        shutil.rmtree(trial)


def main():
    setup(5)
    ids = torch.randint(3, SHAPE["vocab_size"], (1, LENGTH))
    ids[0, 0] = SHAPE["bos_token_id"]
    for name, variant in VARIANTS.items():
        directory = GOLDEN / "variants" / name
        shutil.rmtree(directory, ignore_errors=True)
        model = build(variant["config"]).to(variant.get("dtype", torch.float32))
        model.save_pretrained(directory, max_shard_size=variant.get("max_shard_size", "1GB"))
        logits = logits_of(directory, ids)
        write_tensors(directory.parent / f"{name}.logits.safetensors", {"input_ids": ids, "logits": logits})

        if "max_shard_size" in variant:
            shards = list(directory.glob("model-*.safetensors"))
            assert len(shards) >= 3, f"only {len(shards)} shards"
        if "rope_parameters" in variant["config"]:
            unscaled_config = LlamaConfig(**{**SHAPE, **variant["config"], "rope_parameters": None})
            unscaled = LlamaForCausalLM(unscaled_config).eval()
            unscaled.load_state_dict(model.state_dict())
            with torch.no_grad():
                effect = (unscaled(input_ids=ids).logits - logits).abs().max().item()
            assert effect > MINIMUM_ROPE_EFFECT, f"{name}: the scaling changes the logits by {effect} only"
            write_legacy_config(directory, "type" if name == "linear_rope" else "rope_type", ids, logits)


if __name__ == "__main__":
    main()
