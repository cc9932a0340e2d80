"""Writes `testdata/golden/recurrent.json`: recurrent layers of torch.nn, bidirectional, over sequences of different lengths.

A case is a layer of `input` 3 and `hidden` 4 in both directions; the second one's parameters end in `_reverse`. `x` and
`output` are flat, `bounds` says where the sequences lie; torch runs them packed. `output` is `[N, 2 hidden]`, `h0`, `c0`,
`h_n` and `c_n` are `[2, sequences, hidden]`. The objective is the sum of all outputs, each times a number of
`weights`; `gradients` has that of `x`, of the initial states and of each parameter. Everything is f64.
"""

from golden_common import GOLDEN, setup, write_json

import torch
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

LENGTHS = [3, 1, 5]
INPUT, HIDDEN = 3, 4
LAYERS = {
    "tanh": (torch.nn.RNN, {"nonlinearity": "tanh"}),
    "relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (torch.nn.LSTM, {}),
    "gru": (torch.nn.GRU, {}),
}


def flat(tensor):
    """All numbers in a row."""
    return tensor.detach().flatten().tolist()


def case(name):
    """One layer with its inputs, outputs and gradients."""
    make, settings = LAYERS[name]
    layer = make(INPUT, HIDDEN, bidirectional=True, dtype=torch.float64, **settings)
    x = torch.randn(sum(LENGTHS), INPUT, dtype=torch.float64, requires_grad=True)
    names = ["h0", "c0"] if name == "lstm" else ["h0"]
    initial = {key: torch.randn(2, len(LENGTHS), HIDDEN, dtype=torch.float64, requires_grad=True) for key in names}
    state = tuple(initial.values()) if name == "lstm" else initial["h0"]
    packed, last = layer(pack_sequence(list(torch.split(x, LENGTHS)), enforce_sorted=False), state)
    outputs = {"output": torch.cat(unpack_sequence(packed))}
    outputs.update(zip(["h_n", "c_n"], last if name == "lstm" else [last]))
    weights = {key: torch.randn_like(output) for key, output in outputs.items()}
    sum((outputs[key] * weights[key]).sum() for key in outputs).backward()
    parameters = dict(layer.named_parameters())
    gradients = {"x": x.grad}
    gradients.update({key: tensor.grad for key, tensor in [*initial.items(), *parameters.items()]})
    groups = {
        "inputs": {"x": x, **initial},
        "parameters": parameters,
        "outputs": outputs,
        "weights": weights,
        "gradients": gradients,
    }
    return {group: {key: flat(tensor) for key, tensor in tensors.items()} for group, tensors in groups.items()}


def main():
    setup(9)
    bounds = [0, *torch.tensor(LENGTHS).cumsum(0).tolist()]
    write_json(
        GOLDEN / "recurrent.json",
        {"input": INPUT, "hidden": HIDDEN, "bounds": bounds, "cases": {name: case(name) for name in LAYERS}},
    )


if __name__ == "__main__":
    main()
