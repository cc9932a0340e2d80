"""Makes a model directory with random weights in the shape of a published model, for measuring speed and memory.

    make_model.py --out DIR [--preset smollm2-135m] [--dtype f32|bf16]

What a step costs depends on shapes, not on what the weights have learnt, so nothing has to be downloaded. The directory is
in Hugging Face layout (config, safetensors, tokenizer). Weights are normal with standard deviation 0.02 (norms 1), seeded.
The tokenizer is the smallest valid one: one token a byte, with the control tokens that the config names. The file
random-weights.json says that the weights are random, and how they were drawn.
"""

import argparse
import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 0
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
COMMON = {
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "initializer_range": 0.02,
}
# From the config.json of HuggingFaceTB's SmolLM2 models.
PRESETS = {
    "smollm2-135m": {
        **COMMON,
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    },
    "smollm2-360m": {
        **COMMON,
        "hidden_size": 960,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "intermediate_size": 2560,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    },
    "smollm2-1.7b": {
        **COMMON,
        "hidden_size": 2048,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "intermediate_size": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 130000.0},
    },
}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def byte_tokenizer():
    """A byte-level BPE without merges: the special tokens take the ids 0 to 2, the 256 bytes those after."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SPECIAL_TOKENS[0], eos_token=SPECIAL_TOKENS[0],
        unk_token=SPECIAL_TOKENS[0],
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--preset", choices=PRESETS, default="smollm2-135m", help="shape (default smollm2-135m)")
    parser.add_argument("--dtype", choices=DTYPES, default="f32", help="of the saved weights (default f32)")
    arguments = parser.parse_args()

    torch.manual_seed(SEED)
    shape = PRESETS[arguments.preset]
    tokenizer = byte_tokenizer()
    assert len(tokenizer) <= shape["vocab_size"]
    config = LlamaConfig(**shape, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=None)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, shape["initializer_range"])
    model.to(DTYPES[arguments.dtype]).save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    mark = {"preset": arguments.preset, "dtype": arguments.dtype, "seed": SEED}
    (arguments.out / "random-weights.json").write_text(json.dumps(mark) + "\n", encoding="utf-8")
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{arguments.out}: {arguments.preset}, {count} parameters, {arguments.dtype}")


if __name__ == "__main__":
    main()
