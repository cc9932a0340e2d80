"""Writes `testdata/golden/tokens/`: LoRA adapters with rows of new tokens (`trainable_token_indices`) as PEFT writes them.

Each base gets three tokens (two ordinary ones and a special one) and as many rows. `tied/` is on `assets/stories260K`, whose head is its
table; the tables, which PEFT stores of a model whose vocabulary grew, are taken out of the file, as PEFT itself leaves them out
where it did not. The others are in the files that PEFT wrote: `untied/` on `variants/untied_bias` with rows of table and head,
`untied_list/` with rows of the table alone, beside which PEFT stores the whole head by its own name; `tied_list/` and `tied_dict/`
on `variants/linear_rope`, whose head is its table, in which PEFT stores the rows and the table under both names, though the dict
says the table alone. The factors B and the rows are normal with standard deviation 0.05.

`expected.json` has for each its base, `input_ids` of one document with the new tokens in it, the `loss` (the mean negative
log-likelihood of all tokens but the first) and, for `tied`, a `text` and its `text_ids` by the tokenizer beside the adapter.
`gradients.safetensors` has the gradient of the loss with respect to each tensor of rows, as `<adapter>.<tensor>`.
"""

import json
import shutil

from golden_common import BASE, GOLDEN, STORY, setup, write_json

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

UNTIED = str(GOLDEN / "variants" / "untied_bias")
TIED = str(GOLDEN / "variants" / "linear_rope")
STD = 0.05
TOKENS = ["<tool>", "</tool>", "<|call|>"]


def adapted(base, indices, rows):
    """A model with more rows, under an adapter whose values are drawn."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.resize_token_embeddings(rows)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], task_type="CAUSAL_LM", trainable_token_indices=indices)
    model = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "trainable_tokens_delta" in name:
            torch.nn.init.normal_(parameter, std=STD)
    return model.eval()


def save(model, name, with_tables):
    directory = GOLDEN / "tokens" / name
    model.save_pretrained(directory)
    (directory / "README.md").unlink()
    if not with_tables:
        path = directory / "adapter_model.safetensors"
        kept = {key: value for key, value in load_file(path).items() if "base_layer" not in key}
        # Of a head that is the table, only the table's rows are the adapter's.
        kept = {key: value for key, value in kept.items() if ".lm_head." not in key}
        save_file(kept, path, metadata={"format": "pt"})
    return directory


def measured(model, ids, name, gradients):
    ids = torch.tensor([ids])
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    for key, parameter in model.named_parameters():
        if "trainable_tokens_delta" in key:
            short = key.removeprefix("base_model.model.").removesuffix(".default")
            gradients[f"{name}.{short}"] = parameter.grad.clone()
    return loss.item()


def main():
    setup(17)
    shutil.rmtree(GOLDEN / "tokens", ignore_errors=True)
    gradients, expected = {}, {}

    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.add_tokens(TOKENS[:2])
    tokenizer.add_tokens(TOKENS[2:], special_tokens=True)
    text = f"<|call|>{STORY[:60]}<tool>big dog</tool> and {STORY[100:140]} <tool></tool>"
    new = [tokenizer.convert_tokens_to_ids(token) for token in TOKENS]
    model = adapted(BASE, new, len(tokenizer))
    directory = save(model, "tied", with_tables=False)
    tokenizer.save_pretrained(directory)
    ids = tokenizer(text).input_ids
    loss = measured(model, ids, "tied", gradients)
    expected["tied"] = {"base": BASE, "input_ids": ids, "loss": loss, "text": text, "text_ids": ids, "indices": new}

    rows = json.loads((GOLDEN / "variants" / "untied_bias" / "config.json").read_text())["vocab_size"]
    new = [rows, rows + 1, rows + 2]
    model = adapted(UNTIED, {"embed_tokens": new, "lm_head": new}, rows + 3)
    save(model, "untied", with_tables=True)
    ids = [1, *torch.randint(3, rows, (12,)).tolist(), rows, 7, rows + 2, rows + 1, 9, rows]
    loss = measured(model, ids, "untied", gradients)
    expected["untied"] = {"base": UNTIED, "input_ids": ids, "loss": loss, "indices": new}

    for name, base, named in [("untied_list", UNTIED, None), ("tied_list", TIED, None), ("tied_dict", TIED, "embed_tokens")]:
        model = adapted(base, new if named is None else {named: new}, rows + 3)
        save(model, name, with_tables=True)
        loss = measured(model, ids, name, gradients)
        expected[name] = {"base": base, "input_ids": ids, "loss": loss, "indices": new}

    save_file(gradients, GOLDEN / "tokens" / "gradients.safetensors")
    write_json(GOLDEN / "tokens" / "expected.json", expected)


if __name__ == "__main__":
    main()
