"""Writes the adapters and answers of PEFT that the tests of this crate compare with.

Run in this directory with torch, peft 0.21.2, transformers 5.23 and safetensors installed.
"""

import json
import os
import shutil

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import _ExcludedModule, check_target_module_exists
from peft.utils.other import get_pattern_key
from transformers import LlamaConfig, LlamaForCausalLM

ADAPTERS = {
    "plain": dict(),
    "bias_all": dict(bias="all"),
    "bias_only": dict(bias="lora_only"),
    "patterns": dict(
        rank_pattern={"v_proj": 2, r"layers\.1\.self_attn\.\w_proj": 3},
        alpha_pattern={"model.layers.0.self_attn.q_proj": 3.5e-6, "v_proj": 1e16},
        lora_dropout=1e-5,
        use_rslora=True,
        layers_to_transform=[0, 1],
        layers_pattern="layers",
        exclude_modules=["layers.1.self_attn.v_proj"],
        init_lora_weights="gaussian",
    ),
    "regex": dict(target_modules=r"^(?!.*layers\.0).*\.(gate|up)_proj$", lora_alpha=2.5),
}


def write_adapters():
    answers = {}
    for name, options in ADAPTERS.items():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=32,
                hidden_size=8,
                intermediate_size=12,
                num_hidden_layers=2,
                num_attention_heads=2,
                attention_bias=name.startswith("bias"),
            )
        )
        arguments = dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        arguments.update(options)
        model = get_peft_model(model, LoraConfig(**arguments))
        for key, parameter in model.named_parameters():
            if "lora_" in key or key.endswith("bias"):
                torch.nn.init.normal_(parameter)
        shutil.rmtree(name, ignore_errors=True)
        model.save_pretrained(name)
        os.remove(os.path.join(name, "README.md"))
        answers[name] = {
            path.removeprefix("base_model.model."): [module.r["default"], module.scaling["default"]]
            for path, module in model.named_modules()
            if hasattr(module, "lora_A")
        }
    return answers


PATHS = [
    "model.embed_tokens",
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.q_proj",
    "model.layers.1.self_attn.v_proj",
    "model.layers.11.self_attn.v_proj",
    "model.layers.1.mlp.experts.0.up_proj",
    "model.layers.1.xq_proj",
    "layers.0.q_proj",
    "q_proj",
    "vision.blocks.2.q_proj",
    "vision.blocks.2.layers.1.q_proj",
    "lm_head",
]
CONFIGS = [
    dict(target_modules=["q_proj", "v_proj"]),
    dict(target_modules=["self_attn.q_proj"]),
    dict(target_modules=["model.layers.1.self_attn.v_proj"]),
    dict(target_modules=["proj"]),
    dict(target_modules=[]),
    dict(target_modules=r".*\.q_proj"),
    dict(target_modules="q_proj"),
    dict(target_modules=r"q_proj|model\.layers\.1\..*"),
    dict(target_modules=r"^(?!vision).*_proj$"),
    dict(target_modules=["q_proj", "v_proj"], exclude_modules=["vision.blocks.2.q_proj", "v_proj"]),
    dict(target_modules=["q_proj", "up_proj"], exclude_modules=r".*layers\.1\..*"),
    dict(target_modules=["q_proj", "v_proj", "up_proj"], layers_to_transform=1),
    dict(target_modules=["q_proj", "v_proj", "up_proj"], layers_to_transform=[0, 11]),
    dict(target_modules=["q_proj", "v_proj"], layers_to_transform=[]),
    dict(target_modules=["q_proj", "lm_head", "layers.0.q_proj"], layers_to_transform=[2]),
    dict(target_modules=["q_proj"], layers_to_transform=[2], layers_pattern="blocks"),
    dict(target_modules=["q_proj"], layers_to_transform=[0, 1], layers_pattern="layers"),
    dict(target_modules=["q_proj"], layers_to_transform=[1, 2], layers_pattern=["layers", "blocks"]),
    dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern=r"lay\w+"),
]
PATTERNS = ["q_proj", r"layers\.1\..*", "model.layers.0.self_attn.q_proj", "proj", "v_proj|q_proj", "^q_proj", "x?q_proj"]


def match(config, path):
    found = check_target_module_exists(LoraConfig(**config), path)
    return bool(found) and not isinstance(found, _ExcludedModule)


def main():
    answers = {
        "numbers": write_adapters(),
        "paths": PATHS,
        "matches": [
            {"config": config, "matched": [path for path in PATHS if match(config, path)]} for config in CONFIGS
        ],
        "patterns": {
            pattern: [path for path in PATHS if get_pattern_key([pattern], path) == pattern and path != pattern]
            for pattern in PATTERNS
        },
    }
    with open("answers.json", "w") as file:
        json.dump(answers, file, indent=1, sort_keys=True)
        file.write("\n")


main()
