"""Writes `testdata/golden/families/`: a tiny random model of each family as transformers saves it, and what it computes.

Each `NAME/` is a model directory (no tokenizer) in f32. `NAME.golden.safetensors` beside it has `input_ids` [2, 24] i64 (of Falcon-RW
[2, 60]), `logits` [2, 24, vocabulary] f32, and under `grad.` the gradient of the mean loss for every parameter (a tied head is none).
`NAME.golden.json` has that loss, the prompt and the greedy continuation, and for Gemma 3 the loss with logits capped.
`NAME.legacy_config.json` describes the same model in the older form that most published checkpoints have; this script
fails unless transformers computes the same from both.
With names of `ADDED`, only those are written.
`ropes.json` has the losses of one of the models with rotary positions of every type, of a long sequence and a short one.
`NAME.adapter/` is a random LoRA of all linear layers as PEFT writes it, of the families whose layers are joined or stored the
other way, and of some of Mamba's, and `adapter_loss` the loss with it.

Sizes are such that every feature shows: windows are shorter than the sequences, key heads fewer than query heads, heads
wider than `hidden_size / heads` where a family allows it, a part of each head is rotated (Phi-3), layer types alternate with
rotary bases of their own (Gemma 3, OLMo 3), every second layer has no positions (SmolLM3, Cohere 2), weights are stored as `[d_in, d_out]` (GPT-2),
halves of a block stand side by side (Phi, GPT-J, GPT-NeoX, Cohere, Falcon), and factors are none that change nothing (Granite).

Weights are normal with standard deviation 0.2, biases too, norm weights as they are initialized plus that.
"""

import json
import shutil
import sys
from unittest import mock

from golden_common import GOLDEN, load_base, lora_factors, randomize, setup, write_json, write_tensors

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM
from transformers import BloomConfig, Cohere2Config, CohereConfig, FalconConfig, Glm4Config, GlmConfig, GPTJConfig, GPTNeoXConfig
from transformers import Gemma2Config, Gemma3TextConfig, GemmaConfig, GPT2Config, GPTNeoConfig, GraniteConfig, MinistralConfig
from transformers import MambaConfig, MistralConfig, Olmo2Config, Olmo3Config, OlmoConfig, OPTConfig, Phi3Config, PhiConfig, Qwen2Config, Qwen3Config
from transformers import SmolLM3Config, StableLmConfig, Starcoder2Config
from transformers.models.falcon import modeling_falcon

LENGTH = 24
PROMPT = 8
NEW_TOKENS = 32
# The smallest distance between the two largest logits of a greedy step: far beyond rounding, so that the text is defined.
MINIMUM_MARGIN = 5e-3
COMMON = {
    "vocab_size": 72,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
DEFAULT = {"rope_type": "default"}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "beta_fast": 4.0,
    "beta_slow": 0.1,
    "original_max_position_embeddings": 32,
}
HALF = {**DEFAULT, "rope_theta": 1e4, "partial_rotary_factor": 0.5}
POSITIONS = {
    "vocab_size": 72,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

CONFIGS = {
    "qwen2": Qwen2Config(
        **COMMON,
        num_hidden_layers=3,
        use_sliding_window=True,
        sliding_window=5,
        max_window_layers=1,
        tie_word_embeddings=True,
        rope_parameters={**DEFAULT, "rope_theta": 1e6},
    ),
    "qwen3": Qwen3Config(**COMMON, num_hidden_layers=2, head_dim=16),
    "mistral": MistralConfig(**COMMON, num_hidden_layers=2, sliding_window=7),
    "gemma3_text": Gemma3TextConfig(
        **{**COMMON, "num_key_value_heads": 1},
        num_hidden_layers=4,
        head_dim=16,
        query_pre_attn_scalar=24,
        sliding_window=6,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={
            "sliding_attention": {**DEFAULT, "rope_theta": 1e4},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        },
    ),
    "gpt2": GPT2Config(
        vocab_size=72,
        n_embd=32,
        n_head=4,
        n_layer=2,
        n_inner=80,
        n_positions=64,
        scale_attn_by_inverse_layer_idx=True,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "phi3": Phi3Config(
        **{**COMMON, "num_attention_heads": 2, "num_key_value_heads": 1},
        num_hidden_layers=2,
        sliding_window=9,
        rope_parameters={**DEFAULT, "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    ),
    "gemma": GemmaConfig(**COMMON, num_hidden_layers=2, head_dim=16),
    "gemma2": Gemma2Config(
        **COMMON,
        num_hidden_layers=2,
        head_dim=16,
        query_pre_attn_scalar=24,
        sliding_window=6,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=4.0,
    ),
    "ministral": MinistralConfig(
        **COMMON,
        num_hidden_layers=2,
        head_dim=16,
        sliding_window=7,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters=YARN,
    ),
    "smollm3": SmolLM3Config(**COMMON, num_hidden_layers=2, no_rope_layer_interval=2, use_sliding_window=True, sliding_window=6),
    "starcoder2": Starcoder2Config(**COMMON, num_hidden_layers=2, sliding_window=9),
    "stablelm": StableLmConfig(
        **COMMON,
        num_hidden_layers=2,
        use_qkv_bias=True,
        rope_parameters={**DEFAULT, "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    ),
    "olmo2": Olmo2Config(**COMMON, num_hidden_layers=2),
    "olmo3": Olmo3Config(
        **COMMON,
        num_hidden_layers=2,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={"sliding_attention": {**DEFAULT, "rope_theta": 1e4}, "full_attention": YARN},
    ),
    "opt": OPTConfig(**POSITIONS, hidden_size=32, ffn_dim=48, num_attention_heads=4, num_hidden_layers=2),
    "gpt_neo": GPTNeoConfig(
        **POSITIONS,
        hidden_size=32,
        intermediate_size=48,
        num_heads=4,
        num_layers=2,
        attention_types=[[["global", "local"], 1]],
        window_size=7,
    ),
    "phi": PhiConfig(**COMMON, num_hidden_layers=2, qk_layernorm=True, rope_parameters=HALF),
    "gptj": GPTJConfig(
        vocab_size=72,
        n_embd=32,
        n_head=4,
        n_layer=2,
        n_inner=48,
        n_positions=64,
        rotary_dim=4,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "gpt_neox": GPTNeoXConfig(
        **POSITIONS,
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=4,
        num_hidden_layers=2,
        rope_parameters=HALF,
    ),
    "cohere": CohereConfig(**COMMON, num_hidden_layers=2, logit_scale=0.5),
    "cohere2": Cohere2Config(
        **COMMON,
        num_hidden_layers=2,
        logit_scale=0.5,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "granite": GraniteConfig(
        **COMMON,
        num_hidden_layers=2,
        embedding_multiplier=3.0,
        attention_multiplier=0.25,
        residual_multiplier=0.4,
        logits_scaling=0.7,
    ),
    "glm": GlmConfig(**COMMON, num_hidden_layers=2, head_dim=16, rope_parameters=HALF),
    "glm4": Glm4Config(**COMMON, num_hidden_layers=2, head_dim=16, rope_parameters=HALF),
    "falcon": FalconConfig(**POSITIONS, hidden_size=32, ffn_hidden_size=48, num_attention_heads=4, num_hidden_layers=2),
    "falcon_new": FalconConfig(
        **POSITIONS,
        hidden_size=32,
        ffn_hidden_size=48,
        num_attention_heads=4,
        num_kv_heads=2,
        num_hidden_layers=2,
        new_decoder_architecture=True,
        bias=True,
    ),
    "bloom": BloomConfig(
        vocab_size=72, hidden_size=24, n_layer=2, n_head=6, bos_token_id=1, eos_token_id=2, pad_token_id=0
    ),
    "stablelm_parallel": StableLmConfig(**COMMON, num_hidden_layers=2, use_parallel_residual=True, rope_parameters=HALF),
}

# Each begins with the seed anew, so that it can be written alone.
ADDED = {
    "olmo": OlmoConfig(**COMMON, num_hidden_layers=2, clip_qkv=1.0),
    "falcon_alibi": FalconConfig(
        **POSITIONS,
        hidden_size=48,
        ffn_hidden_size=48,
        # Slopes of which some are no powers of two.
        num_attention_heads=12,
        num_hidden_layers=2,
        alibi=True,
        multi_query=False,
        parallel_attn=False,
        bias=True,
    ),
    "cohere_norms": CohereConfig(**COMMON, num_hidden_layers=2, logit_scale=0.5, use_qk_norm=True),
    "stablelm_norms": StableLmConfig(
        **COMMON, num_hidden_layers=2, use_parallel_residual=True, qk_layernorm=True, rope_parameters=HALF
    ),
    "opt_narrow": OPTConfig(
        **POSITIONS,
        hidden_size=32,
        ffn_dim=48,
        num_attention_heads=4,
        num_hidden_layers=2,
        word_embed_proj_dim=16,
        do_layer_norm_before=False,
    ),
    "phi_plain": PhiConfig(**COMMON, num_hidden_layers=2, rope_parameters=HALF),
    "mamba": MambaConfig(
        vocab_size=72, hidden_size=32, state_size=8, num_hidden_layers=2, time_step_rank=4, bos_token_id=1, eos_token_id=2
    ),
    "mamba_biased": MambaConfig(
        vocab_size=72,
        hidden_size=20,
        state_size=5,
        num_hidden_layers=2,
        expand=3,
        conv_kernel=3,
        use_bias=True,
        use_conv_bias=False,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
    ),
}

# transformers 5.23 adds the bias by distance twice where attention is eager.
SDPA = ["falcon_alibi"]

# Others than `LENGTH`: so far that the smaller slopes matter.
LENGTHS = {"falcon_alibi": 60}

BUILD_ALIBI = modeling_falcon.build_alibi_tensor


def alibi_in_f32(*arguments, **options):
    """The bias of Falcon without the rounding of slopes and products to bf16, which reparam does not repeat."""
    with mock.patch.object(torch.Tensor, "bfloat16", lambda tensor: tensor):
        return BUILD_ALIBI(*arguments, **options)


modeling_falcon.build_alibi_tensor = alibi_in_f32

# Whose layers are joined, or stored the other way.
ADAPTED = ["gpt2", "phi3", "gpt_neox", "falcon_new", "mamba"]
# PEFT refuses an adapter of the last layer of Mamba's, and transformers reads the stored weight of that of the steps alone.
TARGETS = {"mamba": ["in_proj", "x_proj"]}

# Rotary positions of every type, each on the model of `ROPE_FAMILY`: what its configuration says, and the longest sequence it is for.
ROPE_FAMILY = "qwen3"
EIGHT = [1.0, 1.1, 1.3, 1.6, 2.0, 2.5, 3.1, 3.8]
LONG = {
    "rope_type": "longrope",
    "short_factor": EIGHT,
    "long_factor": [2 * factor for factor in EIGHT],
}
ROPES = [
    ({"rope_type": "linear", "factor": 2.0}, 128),
    ({"rope_type": "dynamic", "factor": 2.0}, 24),
    ({"rope_type": "dynamic", "factor": 3.0}, 16),
    (YARN, 128),
    ({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16}, 128),
    ({**YARN, "truncate": False, "attention_factor": 1.5}, 128),
    ({**YARN, "mscale": 0.7, "mscale_all_dim": 1.3}, 128),
    ({**LONG, "original_max_position_embeddings": 24}, 128),
    ({**LONG, "original_max_position_embeddings": 16}, 128),
    ({**LONG, "original_max_position_embeddings": 16, "factor": 0.5}, 128),
    ({**LONG, "original_max_position_embeddings": 16, "attention_factor": 1.25}, 128),
    (
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
        128,
    ),
]
SHORT = 12

# What the older form says in place of `rope_parameters`.
LEGACY = {
    "gemma3_text": {
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window_pattern": 3,
    },
    "phi3": {"rope_theta": 1e4, "partial_rotary_factor": 0.5, "rope_scaling": None},
    "phi": {"rope_theta": 1e4, "partial_rotary_factor": 0.5, "rope_scaling": None},
    "gpt_neox": {"rotary_emb_base": 1e4, "rotary_pct": 0.5},
}


def build(config):
    """A model of this configuration with random weights, biases and norms."""
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_kept = any(part in name for part in ["norm", ".ln_", ".A_log", ".D", "dt_proj.bias"])
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter if is_kept else 0.0))
    return model.eval()


def mean_loss(model, ids):
    """The mean negative log-likelihood of the next tokens."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def greedy(model, prompt):
    """The greedy continuation by whole passes, and by transformers' own cached generation, which has to agree."""
    ids, margin = prompt, float("inf")
    with torch.no_grad():
        for _ in range(NEW_TOKENS):
            top = model(input_ids=ids, use_cache=False).logits[0, -1].topk(2)
            margin = min(margin, (top.values[0] - top.values[1]).item())
            ids = torch.cat([ids, top.indices[:1].reshape(1, 1)], dim=1)
        # A tiny random model may say any token; here none ends the text.
        model.generation_config.eos_token_id = None
        cached = model.generate(prompt, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
    assert torch.equal(cached, ids), "transformers' cache disagrees with its whole passes"
    return ids[0, prompt.shape[1] :].tolist(), margin


def greedy_case(model, vocabulary):
    """A prompt whose greedy continuation does not depend on rounding, and that."""
    while True:
        prompt = torch.randint(3, vocabulary, (1, PROMPT))
        continuation, margin = greedy(model, prompt)
        if margin > MINIMUM_MARGIN:
            return {"prompt": prompt[0].tolist(), "greedy": continuation}


def write_adapter(directory, ids):
    """Writes a random adapter of all linear layers, and returns the loss with it."""
    torch.manual_seed(12)
    modules = TARGETS.get(directory.name, "all-linear")
    config = LoraConfig(r=2, lora_alpha=4, target_modules=modules, task_type="CAUSAL_LM")
    model = get_peft_model(load_base(str(directory)), config).eval()
    randomize(lora_factors(model).values(), std=0.2)
    target = directory.parent / f"{directory.name}.adapter"
    shutil.rmtree(target, ignore_errors=True)
    model.save_pretrained(target)
    (target / "README.md").unlink()
    with torch.no_grad():
        return mean_loss(model, ids).item()


def write_legacy_config(name, ids, expected):
    """Writes the older form of a configuration beside the model, after proving that it means the same."""
    directory = GOLDEN / "families" / name
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config.pop("rope_parameters")
    config.pop("transformers_version")
    config["torch_dtype"] = config.pop("dtype")
    if "sliding_window_pattern" in LEGACY[name]:
        # What transformers saves beside the list of the types.
        config.pop("_sliding_window_pattern", None)
        config.pop("layer_types")
    config.update(LEGACY[name])
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (directory.parent / f"{name}.legacy_config.json").write_text(text, encoding="utf-8")
    trial = directory.parent / f".{name}.trial"
    shutil.rmtree(trial, ignore_errors=True)
    shutil.copytree(directory, trial)
    try:
        (trial / "config.json").write_text(text, encoding="utf-8")
        with torch.no_grad():
            assert torch.equal(load_base(str(trial))(input_ids=ids).logits, expected), f"{name} means something else"
    finally:
        shutil.rmtree(trial)


def write_ropes():
    """The mean loss of a long sequence and of a short one, each by itself, with every type of rotary positions."""
    directory = GOLDEN / "families" / ROPE_FAMILY
    ids = torch.randint(3, COMMON["vocab_size"], (LENGTH + SHORT,))
    sequences = [ids[:LENGTH].unsqueeze(0), ids[LENGTH:].unsqueeze(0)]
    cases = []
    for parameters, longest in ROPES:
        config = AutoConfig.from_pretrained(directory)
        config.max_position_embeddings = longest
        config.rope_parameters = {"rope_theta": 1e4, **parameters}
        model = AutoModelForCausalLM.from_pretrained(directory, config=config, attn_implementation="eager").eval()
        with torch.no_grad():
            # The short one first: transformers keeps the frequencies of a longer one for a while.
            losses = [mean_loss(model, sequence).item() for sequence in reversed(sequences)]
        changes = {"max_position_embeddings": longest, "rope_parameters": config.rope_parameters}
        cases.append({"config": changes, "short": losses[0], "long": losses[1]})
    tokens = [sequence[0].tolist() for sequence in sequences]
    write_json(directory.parent / "ropes.json", {"family": ROPE_FAMILY, "long": tokens[0], "short": tokens[1], "cases": cases})


def write(name, config):
    """Writes the model of a family and what it computes."""
    directory = GOLDEN / "families" / name
    shutil.rmtree(directory, ignore_errors=True)
    build(config).save_pretrained(directory)
    if name in SDPA:
        model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="sdpa").eval()
    else:
        model = load_base(str(directory))
    ids = torch.randint(3, config.vocab_size, (2, LENGTHS.get(name, LENGTH)))
    loss = mean_loss(model, ids)
    loss.backward()
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits
    gradients = {f"grad.{key}": parameter.grad for key, parameter in model.named_parameters()}
    path = directory.parent / f"{name}.golden.safetensors"
    write_tensors(path, {"input_ids": ids, "logits": logits, **gradients})
    golden = {"loss": loss.item(), **greedy_case(model, config.vocab_size)}
    if name == "gemma3_text":
        model.config.final_logit_softcapping = 3.0
        with torch.no_grad():
            golden["final_logit_softcapping"] = 3.0
            golden["capped_loss"] = mean_loss(model, ids).item()
        model.config.final_logit_softcapping = None
    if name in ADAPTED:
        golden["adapter_loss"] = write_adapter(directory, ids)
    write_json(directory.parent / f"{name}.golden.json", golden)
    if name in LEGACY:
        write_legacy_config(name, ids, logits)


def main():
    names = sys.argv[1:]
    if not names:
        setup(11)
        for name, config in CONFIGS.items():
            write(name, config)
        write_ropes()
    for name in names or ADDED:
        setup(11)
        write(name, ADDED[name])


if __name__ == "__main__":
    main()
