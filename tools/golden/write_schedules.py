"""Writes `testdata/golden/schedules.json`: learning-rate multipliers as transformers' `get_*_schedule*` give them.

Warm-up 10, total 100; the schedules in `wsd` decay over the last 30 steps to `min_lr_ratio` of the learning rate and warm up
linearly, from that same ratio. Entry t of a list is the multiplier of the update number t + 1, that is of step t = 0..99; entry
100 is what would follow the last planned step.
"""

from golden_common import GOLDEN, setup, write_json

import torch
import transformers

WARMUP, TOTAL, DECAY = 10, 100, 30
DECAY_TYPES = ["linear", "cosine", "1-sqrt"]
MIN_LR_RATIOS = [0.0, 0.1]


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


def warmup_stable_decay(decay_type, min_lr_ratio):
    """One schedule with its settings."""
    settings = {
        "num_decay_steps": DECAY,
        "warmup_type": "linear",
        "decay_type": decay_type,
        "min_lr_ratio": min_lr_ratio,
    }
    values = multipliers(
        lambda optimizer: transformers.get_wsd_schedule(optimizer, WARMUP, num_training_steps=TOTAL, **settings)
    )
    return {**settings, "values": values}


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
            "inverse_sqrt": multipliers(lambda optimizer: transformers.get_inverse_sqrt_schedule(optimizer, WARMUP)),
            "inverse_sqrt_without_warmup": multipliers(
                lambda optimizer: transformers.get_inverse_sqrt_schedule(optimizer, 0)
            ),
            "wsd": [warmup_stable_decay(decay, ratio) for decay in DECAY_TYPES for ratio in MIN_LR_RATIOS],
        },
    )


if __name__ == "__main__":
    main()
