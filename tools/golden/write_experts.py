"""Writes the models with experts of `testdata/golden/families/`, and adapters of their experts as PEFT writes them.

The files of each model are those of `write_families.py`. `NAME.adapter/` is a random LoRA of attention and, by `target_parameters`, of
experts: of both their parameters (Qwen3-MoE), of one (Qwen2-MoE), and of what PEFT makes of `all-linear` (Mixtral: router and experts, the joined gate and up with twice
the rank). `NAME.adapter.golden.safetensors` has under `grad.` the gradient of every factor by its name in the file, and under `merged.`
every parameter of the base that PEFT's merge changes; `adapter_loss` is the loss.

Layers with experts and without them alternate where a family has both. Tokens are drawn until no router is near a tie, in any layer,
for the two sequences and for all tokens as one: the tests compare models whose numbers are rounded to bf16, too, where a
near tie would be another model. The last expert that is chosen leads the next by `MINIMUM_GAP` in the router's logits, which are of size one.

`testdata/golden/gguf/NAME/` are models of the two Qwen families with experts in all layers, as llama.cpp has them, drawn until no router
is near a tie on the tokens of `gguf_logits.py`. With `gguf` as an argument only those are written.
"""

import shutil
import sys

from golden_common import GOLDEN, load_base, lora_factors, randomize, setup, write_json, write_tensors
from write_families import COMMON, LENGTH, build, greedy_case, mean_loss

import torch
from peft import LoraConfig, get_peft_model
from transformers import MixtralConfig, Qwen2MoeConfig, Qwen3MoeConfig

MINIMUM_GAP = 0.025
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
CONFIGS = {
    "mixtral": MixtralConfig(
        **{**COMMON, "intermediate_size": 24},
        num_hidden_layers=2,
        sliding_window=7,
        num_local_experts=5,
        num_experts_per_tok=2,
    ),
    "qwen2_moe": Qwen2MoeConfig(
        **COMMON,
        num_hidden_layers=3,
        use_sliding_window=True,
        sliding_window=5,
        max_window_layers=2,
        mlp_only_layers=[1],
        moe_intermediate_size=20,
        shared_expert_intermediate_size=28,
        num_experts=6,
        num_experts_per_tok=2,
    ),
    "qwen3_moe": Qwen3MoeConfig(
        **COMMON,
        num_hidden_layers=4,
        head_dim=16,
        decoder_sparse_step=2,
        moe_intermediate_size=20,
        num_experts=6,
        num_experts_per_tok=3,
        norm_topk_prob=True,
    ),
}
OF_GGUF = {
    "qwen2_moe": Qwen2MoeConfig(
        **COMMON,
        num_hidden_layers=2,
        moe_intermediate_size=20,
        shared_expert_intermediate_size=28,
        num_experts=6,
        num_experts_per_tok=2,
    ),
    "qwen3_moe": Qwen3MoeConfig(
        **COMMON,
        num_hidden_layers=2,
        head_dim=16,
        moe_intermediate_size=20,
        num_experts=6,
        num_experts_per_tok=3,
        norm_topk_prob=True,
    ),
}
ADAPTERS = {
    "mixtral": {"target_modules": "all-linear"},
    "qwen2_moe": {"target_modules": ["q_proj", "v_proj"], "target_parameters": EXPERTS[1:]},
    "qwen3_moe": {"target_modules": ["q_proj", "v_proj"], "target_parameters": EXPERTS},
}


def smallest_gap(model, ids):
    """How far the last expert that is chosen is before the next one, over all tokens and layers."""
    gaps = []
    hooks = []

    def see(module, inputs, _):
        hidden = inputs[0].reshape(-1, inputs[0].shape[-1])
        logits = torch.nn.functional.linear(hidden, module.weight).sort(dim=-1, descending=True).values
        gaps.append((logits[:, module.top_k - 1] - logits[:, module.top_k]).min().item())

    for name, module in model.named_modules():
        if name.endswith("mlp.gate"):
            hooks.append(module.register_forward_hook(see))
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    return min(gaps)


def draw(model, vocabulary):
    """Two sequences far from ties of the routers, each by itself and one behind the other.

    The longer one is made a token at a time: a token that comes near a tie is drawn again.
    """
    for _ in range(1000):
        ids = torch.randint(3, vocabulary, (1, 1))
        tries = 0
        while ids.shape[1] < 2 * LENGTH and tries < 4000:
            tries += 1
            longer = torch.cat([ids, torch.randint(3, vocabulary, (1, 1))], dim=1)
            second = longer[:, LENGTH:]
            if smallest_gap(model, longer) > MINIMUM_GAP and (second.shape[1] == 0 or smallest_gap(model, second) > MINIMUM_GAP):
                ids = longer
        if ids.shape[1] == 2 * LENGTH:
            return ids.reshape(2, LENGTH)
    raise AssertionError("no sequence is far from ties")


def write_adapter(name, directory, ids):
    """Writes a random adapter, its gradients and what PEFT merges of it; returns the loss with it."""
    torch.manual_seed(12)
    config = LoraConfig(r=2, lora_alpha=3, task_type="CAUSAL_LM", **ADAPTERS[name])
    model = get_peft_model(load_base(str(directory)), config).eval()
    factors = lora_factors(model)
    randomize(factors.values(), std=0.2)
    target = directory.parent / f"{name}.adapter"
    shutil.rmtree(target, ignore_errors=True)
    model.save_pretrained(target)
    (target / "README.md").unlink()
    loss = mean_loss(model, ids)
    loss.backward()
    tensors = {}
    for key, parameter in factors.items():
        short = key.removeprefix("base_model.model.").replace(".default", "")
        tensors[f"grad.{short}"] = parameter.grad
    base = dict(load_base(str(directory)).named_parameters())
    merged = model.merge_and_unload()
    for key, parameter in merged.named_parameters():
        if not torch.equal(parameter, base[key]):
            tensors[f"merged.{key}"] = parameter
    write_tensors(directory.parent / f"{name}.adapter.golden.safetensors", tensors)
    return loss.item()


def write_for_gguf(name, config):
    """Writes a model whose routers are far from ties on the tokens that llama.cpp reads."""
    ids = torch.tensor([[(7 * place + 11) % 69 + 3 for place in range(12)]])
    model = build(config)
    while smallest_gap(model, ids) <= MINIMUM_GAP:
        model = build(config)
    directory = GOLDEN / "gguf" / name
    shutil.rmtree(directory, ignore_errors=True)
    model.save_pretrained(directory)


def main():
    setup(29)
    for name, config in OF_GGUF.items():
        write_for_gguf(name, config)
    if sys.argv[1:] == ["gguf"]:
        return
    setup(23)
    for name, config in CONFIGS.items():
        directory = GOLDEN / "families" / name
        shutil.rmtree(directory, ignore_errors=True)
        build(config).save_pretrained(directory)
        model = load_base(str(directory))
        ids = draw(model, config.vocab_size)
        loss = mean_loss(model, ids)
        loss.backward()
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits
        gradients = {f"grad.{key}": parameter.grad for key, parameter in model.named_parameters()}
        path = directory.parent / f"{name}.golden.safetensors"
        write_tensors(path, {"input_ids": ids, "logits": logits, **gradients})
        golden = {"loss": loss.item(), **greedy_case(model, config.vocab_size)}
        golden["adapter_loss"] = write_adapter(name, directory, ids)
        write_json(directory.parent / f"{name}.golden.json", golden)


if __name__ == "__main__":
    main()
