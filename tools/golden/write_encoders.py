"""Writes `testdata/golden/encoders/`: tiny random encoders with every head, as transformers saves them, and what they compute.

Each `FAMILY-HEAD/` is a model directory (no tokenizer) in f32; heads are `sequence` and `token` (three classes), `span` and
`masked`. `FAMILY-HEAD.safetensors` has `input_ids`, `token_type_ids` [N] and `bounds` [R + 1] of three rows one behind the
other, each computed alone; `outputs`: [R, 3], [N, 3], [N, 2] or [M, vocabulary] of the M places in `places`; `loss`, the sum
over rows (`sequence`; `span`: the mean of start and end), tokens (`token`) or places (`masked`), of the targets in `targets`
(`span`: [R, 2] places in the row); and under `grad.` its gradient for every parameter. A tied table is one parameter.
`deberta-v2-token.safetensors` also has `attentions`, [layers, heads, 16, 16], of the last row.

Sizes are such that every feature shows: windows are shorter than the rows and alternate with full attention (ModernBERT),
tables are narrower than blocks (ELECTRA), positions begin behind padding (RoBERTa), rows are longer than the distances that have
vectors of their own, or any (DeBERTa).

`deberta-v2` has what the published models of version 3 have; `-c2p`, `-p2c` and `-absolute` have the rest, with some of the heads.
`deberta_rows.json` has the rows of the vectors of distances -600 to 600 of keys after queries, by `position_buckets` and
`max_relative_positions`.

Weights are normal with standard deviation 0.3, biases too, norm weights 1 plus that.
"""

import json
import shutil

from golden_common import GOLDEN, flatten, setup, write_tensors

import torch
import transformers
from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

DIRECTORY = GOLDEN / "encoders"
VOCABULARY = 29
WIDE = {"vocab_size": VOCABULARY, "hidden_size": 8, "intermediate_size": 10, "num_hidden_layers": 2, "num_attention_heads": 2}
LABELS = {"num_labels": 3}
CONFIGS = {
    "bert": transformers.BertConfig(**WIDE, max_position_embeddings=24, hidden_act="gelu_new"),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=VOCABULARY, dim=8, hidden_dim=10, n_layers=2, n_heads=2, max_position_embeddings=24
    ),
    "electra": transformers.ElectraConfig(**WIDE, embedding_size=6, max_position_embeddings=24),
    "modernbert": transformers.ModernBertConfig(
        **{**WIDE, "num_hidden_layers": 3},
        max_position_embeddings=24,
        global_attn_every_n_layers=2,
        local_attention=6,
        classifier_pooling="mean",
        pad_token_id=0,
        bos_token_id=1,
        cls_token_id=1,
        eos_token_id=2,
        sep_token_id=2,
    ),
    "roberta": transformers.RobertaConfig(**WIDE, max_position_embeddings=26, type_vocab_size=1, pad_token_id=1),
    "deberta-v2": transformers.DebertaV2Config(
        **WIDE,
        max_position_embeddings=24,
        relative_attention=True,
        pos_att_type="p2c|c2p",
        position_buckets=6,
        max_relative_positions=12,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
    ),
    "deberta-v2-c2p": transformers.DebertaV2Config(
        **WIDE,
        max_position_embeddings=24,
        relative_attention=True,
        pos_att_type=["c2p"],
        max_relative_positions=5,
        type_vocab_size=2,
        embedding_size=6,
        pooler_hidden_act="tanh",
    ),
    "deberta-v2-p2c": transformers.DebertaV2Config(
        **WIDE,
        max_position_embeddings=24,
        relative_attention=True,
        pos_att_type=["p2c"],
        position_buckets=8,
        position_biased_input=False,
        legacy=False,
    ),
    # Its scores are scaled as if there were a second part.
    "deberta-v2-absolute": transformers.DebertaV2Config(**WIDE, max_position_embeddings=24, pos_att_type=["c2p"]),
}
HEADS = {
    "sequence": "SequenceClassification",
    "token": "TokenClassification",
    "span": "QuestionAnswering",
    "masked": "MaskedLM",
}
# Families without all of them.
SOME_HEADS = {
    "deberta-v2-c2p": ("sequence", "masked"),
    "deberta-v2-p2c": ("token", "masked"),
    "deberta-v2-absolute": ("span",),
}
TAKE_TYPES = ("bert", "electra", "deberta-v2-c2p")
LENGTHS = [11, 5, 16]


def build(family, head):
    """A model of this family with this head and random weights."""
    auto = getattr(transformers, f"AutoModelFor{HEADS[head]}")
    config = type(CONFIGS[family])(**CONFIGS[family].to_dict())
    if head in ("sequence", "token"):
        config.num_labels = LABELS["num_labels"]
    model = auto.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm = "norm" in name.lower() and name.endswith("weight")
            parameter.normal_(0.0, 0.3)
            if is_norm:
                parameter.add_(1.0)
    return model.eval()


def outputs(model, head, ids, types, takes_types):
    """What the model gives for one row."""
    inputs = {"input_ids": ids[None]}
    if takes_types:
        inputs["token_type_ids"] = types[None]
    given = model(**inputs)
    if head == "span":
        return torch.stack([given.start_logits[0], given.end_logits[0]], dim=1)
    return given.logits if head == "sequence" else given.logits[0]


def case(family, head):
    """The tensors of one golden file, and the model."""
    model = build(family, head)
    takes_types = family in TAKE_TYPES
    # 0 and 1 are padding somewhere.
    rows = [torch.randint(3, VOCABULARY, (length,)) for length in LENGTHS]
    types = [torch.arange(len(row)) * 2 // len(row) if takes_types else torch.zeros_like(row) for row in rows]
    given = [outputs(model, head, row, kind, takes_types) for row, kind in zip(rows, types)]
    all_given = torch.cat(given)
    tensors = {}
    if head == "sequence":
        targets = torch.tensor([2, 0, 1])
        loss = torch.nn.functional.cross_entropy(all_given, targets, reduction="sum")
    elif head == "token":
        targets = torch.randint(0, 3, (sum(LENGTHS),))
        loss = torch.nn.functional.cross_entropy(all_given, targets, reduction="sum")
    elif head == "span":
        targets = torch.tensor([[0, 0], [2, 4], [3, 9]])
        loss = sum(
            torch.nn.functional.cross_entropy(row[:, end][None], targets[number, end][None]) / 2
            for number, row in enumerate(given)
            for end in range(2)
        )
    else:
        places = torch.tensor([1, 4, 12, 20, 27])
        targets = torch.randint(3, VOCABULARY, (5,))
        all_given = all_given[places]
        loss = torch.nn.functional.cross_entropy(all_given, targets, reduction="sum")
        tensors["places"] = places
    loss.backward()
    ids, bounds = flatten([row.tolist() for row in rows])
    kinds, _ = flatten([kind.tolist() for kind in types])
    tensors |= {
        "input_ids": ids,
        "token_type_ids": kinds,
        "bounds": bounds,
        "outputs": all_given.detach(),
        "targets": targets,
        "loss": loss.detach().reshape(1),
    }
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            tensors[f"grad.{name}"] = parameter.grad.clone()
    if (family, head) == ("deberta-v2", "token"):
        with torch.no_grad():
            tensors["attentions"] = torch.cat(model(rows[-1][None], output_attentions=True).attentions)
    return model, tensors


def rows_of_distances(buckets, max_distance):
    """The rows of the vectors of distances that a query of 601 tokens to either side looks for."""
    far = torch.zeros(1, 601, 1)
    near = build_relative_position(far, far, bucket_size=buckets, max_position=max_distance)[0]
    span = buckets if buckets > 0 else max_distance
    # Keys from 600 before the last query, then those up to 600 after the first one.
    places = torch.cat([near[-1], near[0, 1:]])
    return torch.clamp(places + span, 0, 2 * span - 1).tolist()


def main():
    setup(37)
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    for family in CONFIGS:
        for head in SOME_HEADS.get(family, HEADS):
            model, tensors = case(family, head)
            model.save_pretrained(DIRECTORY / f"{family}-{head}")
            write_tensors(DIRECTORY / f"{family}-{head}.safetensors", tensors)
    rows = [
        {"buckets": buckets, "max_distance": max_distance, "rows": rows_of_distances(buckets, max_distance)}
        for buckets, max_distance in [(256, 512), (32, 128), (6, 12), (8, 24), (-1, 512), (-1, 5)]
    ]
    (DIRECTORY / "deberta_rows.json").write_text(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
