"""Writes `testdata/golden/recurrent/`: tiny recurrent nets made of `torch.nn` modules, and what they compute.

Each `NAME/` is a model directory (no tokenizer): `config.json` and `model.safetensors` with the names that docs/files.md gives.
`NAME.safetensors` has a batch of three rows one behind the other, each computed alone, as those of `encoders/` have:
`outputs` of the head, `loss` (a sum) of `targets`, and all gradients under `grad.`.

`causal` predicts the next token of each row: `outputs` are the logits of all tokens, `targets` the next tokens, and -100 at the
end of a row.
"""

import json
import shutil

from golden_common import GOLDEN, flatten, setup, write_tensors

import torch
from torch import nn

DIRECTORY = GOLDEN / "recurrent"
VOCABULARY = 23
LENGTHS = [9, 1, 14]
CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
MODELS = {
    "lstm-causal": {"num_hidden_layers": 2, "hidden_size": 6, "embedding_size": 5},
    "gru-causal": {"hidden_size": 7, "tie_word_embeddings": True},
    "rnn-causal": {"hidden_size": 6, "nonlinearity": "relu", "bias": False},
    "lstm-sequence": {"num_hidden_layers": 2, "hidden_size": 5, "bidirectional": True},
    "gru-sequence": {"num_hidden_layers": 2, "hidden_size": 5, "bidirectional": True, "classifier_pooling": "last"},
    "rnn-sequence": {"hidden_size": 5, "classifier_pooling": "last"},
    "lstm-token": {"hidden_size": 4, "bidirectional": True},
    "gru-span": {"hidden_size": 4, "bidirectional": True, "embedding_size": 3},
}
OUTPUTS = {"sequence": 3, "token": 3, "span": 2}


class Body(nn.Module):
    def __init__(self, kind, config):
        super().__init__()
        hidden = config["hidden_size"]
        self.embedding = nn.Embedding(VOCABULARY, config.get("embedding_size", hidden))
        options = {"nonlinearity": config["nonlinearity"]} if "nonlinearity" in config else {}
        self.rnn = CELLS[kind](
            self.embedding.embedding_dim,
            hidden,
            num_layers=config.get("num_hidden_layers", 1),
            bias=config.get("bias", True),
            bidirectional=config.get("bidirectional", False),
            **options,
        )


class Net(nn.Module):
    """A body under `model`, and a head as transformers would call it."""

    def __init__(self, kind, head, config):
        super().__init__()
        self.model = Body(kind, config)
        self.config, self.head = config, head
        width = config["hidden_size"] * (2 if config.get("bidirectional") else 1)
        if head == "causal":
            self.lm_head = nn.Linear(width, VOCABULARY, bias=False)
            if config.get("tie_word_embeddings"):
                self.lm_head.weight = self.model.embedding.weight
        else:
            self.classifier = nn.Linear(width, OUTPUTS[head])

    def forward(self, ids):
        states, last = self.model.rnn(self.model.embedding(ids)[:, None])
        states = states[:, 0]
        if self.head == "causal":
            return self.lm_head(states)
        if self.head != "sequence":
            return self.classifier(states)
        if self.config.get("classifier_pooling") == "last":
            last = last[0] if isinstance(last, tuple) else last
            # The last layer's two directions come last.
            directions = 2 if self.config.get("bidirectional") else 1
            pooled = last[-directions:, 0].reshape(1, -1)
        else:
            pooled = states.mean(dim=0, keepdim=True)
        return self.classifier(pooled)


def case(kind, head, config):
    net = Net(kind, head, config)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0.0, 0.4)
    rows = [torch.randint(0, VOCABULARY, (length,)) for length in LENGTHS]
    given = [net(row) for row in rows]
    outputs = torch.cat(given)
    if head == "causal":
        targets = torch.cat([torch.cat([row[1:], torch.tensor([-100])]) for row in rows])
    elif head == "sequence":
        targets = torch.tensor([2, 0, 1])
    elif head == "token":
        targets = torch.randint(0, 3, (sum(LENGTHS),))
    else:
        targets = torch.tensor([[0, 2], [0, 0], [3, 9]])
    if head == "span":
        loss = sum(
            nn.functional.cross_entropy(row[:, end][None], targets[number, end][None]) / 2
            for number, row in enumerate(given)
            for end in range(2)
        )
    else:
        loss = nn.functional.cross_entropy(outputs, targets, reduction="sum")
    loss.backward()
    ids, bounds = flatten([row.tolist() for row in rows])
    tensors = {
        "input_ids": ids,
        "token_type_ids": torch.zeros_like(torch.as_tensor(ids)),
        "bounds": bounds,
        "outputs": outputs.detach(),
        "targets": targets,
        "loss": loss.detach().reshape(1),
    }
    for name, parameter in net.named_parameters():
        tensors[f"grad.{name}"] = parameter.grad.clone()
    return net, tensors


def main():
    setup(41)
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    for name, config in MODELS.items():
        kind, head = name.split("-")
        net, tensors = case(kind, head, config)
        directory = DIRECTORY / name
        directory.mkdir(parents=True)
        full = {"model_type": kind, "vocab_size": VOCABULARY, **config}
        (directory / "config.json").write_text(json.dumps(full, indent=2) + "\n")
        weights = {key: value.detach() for key, value in net.named_parameters()}
        write_tensors(directory / "model.safetensors", weights)
        write_tensors(DIRECTORY / f"{name}.safetensors", tensors)


if __name__ == "__main__":
    main()
