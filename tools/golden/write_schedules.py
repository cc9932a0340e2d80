"""Writes `testdata/golden/schedules.json`: learning-rate multipliers as transformers' `get_*_schedule*` give them.

Warm-up 10, total 100. Entry t of a list is the multiplier of the update number t + 1, that is of step t = 0..99; entry
100 is what would follow the last planned step.
"""

from golden_common import GOLDEN, setup, write_json

import torch
import transformers

WARMUP, TOTAL = 10, 100


def multipliers(make):
    """The learning rate of an optimizer with base rate 1 at every step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = make(optimizer)
    values = []
    for _ in range(TOTAL + 1):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return values


def main():
    setup(4)
    write_json(
        GOLDEN / "schedules.json",
        {
            "warmup_steps": WARMUP,
            "total_steps": TOTAL,
            "constant": multipliers(transformers.get_constant_schedule),
            "constant_with_warmup": multipliers(
                lambda optimizer: transformers.get_constant_schedule_with_warmup(optimizer, WARMUP)
            ),
            "linear": multipliers(
                lambda optimizer: transformers.get_linear_schedule_with_warmup(optimizer, WARMUP, TOTAL)
            ),
            "cosine": multipliers(
                lambda optimizer: transformers.get_cosine_schedule_with_warmup(optimizer, WARMUP, TOTAL)
            ),
        },
    )


if __name__ == "__main__":
    main()
