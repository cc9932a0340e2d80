"""Writes `testdata/golden/optimizers_basic.json`: torch's SGD and AdamW on a quadratic of six variables.

f(x) = sum(c_i * x_i^2) / 2 with gradient c_i * x_i, 50 steps from x0, in f32 and in f64; `trajectory` has x after the
steps 1, 2, 5, 10 and 50. The gradient is computed as that one product, not by differentiation, so a test can repeat it
exactly. `foreach` and `fused` are off: one tensor, the plain formulas.
"""

from golden_common import GOLDEN, setup, write_json

import torch

CURVATURES = [0.05, 0.3, 1.0, 2.5, 4.0, 7.5]
START = [1.0, -2.0, 0.5, 3.0, -0.25, 1.5]
STEPS = [1, 2, 5, 10, 50]
SGD = {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.01}
OPTIMIZERS = {
    "sgd_momentum": (torch.optim.SGD, {**SGD, "nesterov": False}),
    "sgd_nesterov": (torch.optim.SGD, {**SGD, "nesterov": True}),
    "adamw": (torch.optim.AdamW, {"lr": 0.05, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}),
}


def trajectory(make, options, dtype):
    """x after each of `STEPS`."""
    curvatures = torch.tensor(CURVATURES, dtype=dtype)
    x = torch.tensor(START, dtype=dtype, requires_grad=True)
    optimizer = make([x], foreach=False, fused=False, **options)
    points = {}
    for step in range(1, max(STEPS) + 1):
        x.grad = curvatures * x.detach()
        optimizer.step()
        if step in STEPS:
            points[str(step)] = x.tolist()
    return points


def main():
    setup(8)
    write_json(
        GOLDEN / "optimizers_basic.json",
        {
            "curvatures": CURVATURES,
            "start": START,
            "optimizers": {
                name: {
                    "options": options,
                    "trajectory": {
                        "f32": trajectory(make, options, torch.float32),
                        "f64": trajectory(make, options, torch.float64),
                    },
                }
                for name, (make, options) in OPTIMIZERS.items()
            },
        },
    )


if __name__ == "__main__":
    main()
