"""Writes `testdata/golden/streams/`: an LSTM that learns a text in streams, its states carried from step to step.

The directory is a model (`config.json`, `model.safetensors`, a tokenizer of single letters) with `text.txt`, one document of
letters, and `losses.json`: the settings and the loss of each step of plain gradient descent, before its update.

The token behind each token of the document is predicted. These pairs are divided into streams as PyTorch's example
`word_language_model` divides a corpus; a step has the next `length` pairs of each, begins with the states in which the step
before ended, detached, and after the last pair of the streams the text begins anew with zeros.
"""

import json
import shutil

from golden_common import GOLDEN, setup, write_json, write_tensors

import torch
from torch import nn

DIRECTORY = GOLDEN / "streams"
LETTERS = "abcdefghijklmnopqrstu"
END = "</s>"
SETTINGS = {"batch_size": 2, "gradient_accumulation": 2, "length": 5, "learning_rate": 0.8, "steps": 6}
# Four steps a pass, the last of which is shorter: six steps go over its end.
STREAM = 18
SIZES = {"embedding_size": 5, "hidden_size": 6, "num_hidden_layers": 2}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Module()
        self.model.embedding = nn.Embedding(len(LETTERS) + 1, SIZES["embedding_size"])
        self.model.rnn = nn.LSTM(SIZES["embedding_size"], SIZES["hidden_size"], SIZES["num_hidden_layers"], batch_first=True)
        self.lm_head = nn.Linear(SIZES["hidden_size"], len(LETTERS) + 1, bias=False)

    def forward(self, ids, states):
        outputs, states = self.model.rnn(self.model.embedding(ids), states)
        return self.lm_head(outputs), states


def tokenizer():
    vocabulary = {letter: number for number, letter in enumerate(LETTERS)} | {END: len(LETTERS)}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": len(LETTERS), "content": END, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        ],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"},
    }


def main():
    setup(43)
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir()
    net = Net()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0.0, 0.6)
    weights = {name: value.detach().clone() for name, value in net.named_parameters()}
    write_tensors(DIRECTORY / "model.safetensors", weights)

    streams = SETTINGS["batch_size"] * SETTINGS["gradient_accumulation"]
    letters = torch.randint(0, len(LETTERS), (streams * STREAM,))
    ids = torch.cat([letters, torch.tensor([len(LETTERS)])])
    inputs, targets = ids[:-1].view(streams, STREAM), ids[1:].view(streams, STREAM)
    losses, place, states = [], 0, None
    for _ in range(SETTINGS["steps"]):
        if place == STREAM:
            place, states = 0, None
        end = min(place + SETTINGS["length"], STREAM)
        if states is not None:
            states = tuple(state.detach() for state in states)
        logits, states = net(inputs[:, place:end], states)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets[:, place:end].flatten())
        net.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= SETTINGS["learning_rate"] * parameter.grad
        losses.append(loss.item())
        place = end

    config = {"model_type": "lstm", "vocab_size": len(LETTERS) + 1, **SIZES}
    (DIRECTORY / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (DIRECTORY / "tokenizer.json").write_text(json.dumps(tokenizer()) + "\n")
    (DIRECTORY / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}) + "\n")
    (DIRECTORY / "text.txt").write_text(" ".join(LETTERS[number] for number in letters) + "\n")
    write_json(DIRECTORY / "losses.json", {**SETTINGS, "losses": losses})


if __name__ == "__main__":
    main()
