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
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

SEED = 0
DEVIATION = 0.02
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SMOLLM2 = {
    "model_type": "llama",
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
# From the config.json of the published models.
PRESETS = {
    "smollm2-135m": {
        **SMOLLM2,
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    },
    "smollm2-360m": {
        **SMOLLM2,
        "hidden_size": 960,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "intermediate_size": 2560,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    },
    "smollm2-1.7b": {
        **SMOLLM2,
        "hidden_size": 2048,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "intermediate_size": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 130000.0},
    },
    "qwen3-0.6b": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "max_position_embeddings": 40960,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    },
    "llama-3.2-1b": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "intermediate_size": 8192,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    },
    "gemma-3-1b": {
        "model_type": "gemma3_text",
        "vocab_size": 262144,
        "hidden_size": 1152,
        "num_hidden_layers": 26,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "intermediate_size": 6912,
        "query_pre_attn_scalar": 256,
        "sliding_window": 512,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
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
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape, **special))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # A norm multiplies by 1 at first, which in Gemma is a weight of 0.
            if not name.endswith("norm.weight"):
                parameter.normal_(0.0, DEVIATION)
    model.to(DTYPES[arguments.dtype]).save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    mark = {"preset": arguments.preset, "dtype": arguments.dtype, "seed": SEED}
    (arguments.out / "random-weights.json").write_text(json.dumps(mark) + "\n", encoding="utf-8")
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{arguments.out}: {arguments.preset}, {count} parameters, {arguments.dtype}")


if __name__ == "__main__":
    main()
