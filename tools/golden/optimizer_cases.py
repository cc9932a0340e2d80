"""Every optimizer with its reference, its options and its learning rates."""

import jax
import numpy
import optax
import peft
import torch
from optimizer_precision import Bf16As, GaLoreAdamW, galore_projection, without_bf16_autocast
from optimizer_problems import LORA_ALPHA, LORA_RANK
from optimizer_runs import Ema, Optax, Peft, ScheduleFree, Torch


def torch_optimizer(make):
    """A class of torch.optim with `foreach` off: the plain formulas."""
    return Torch(lambda parameters, lr, options: make(list(parameters.values()), lr=lr, foreach=False, **options))


def plain_sgd(parameters, learning_rate, _):
    return torch.optim.SGD(list(parameters.values()), lr=learning_rate, foreach=False)


def muon(parameters, learning_rate, options):
    return torch.optim.Muon(list(parameters.values()), lr=learning_rate, **options)


def galore(parameters, learning_rate, options):
    shared = {name: options[name] for name in ["betas", "eps", "weight_decay"]}
    projected = {name: options[name] for name in ["rank", "update_proj_gap", "scale", "proj_type"]}
    matrices = [parameter for parameter in parameters.values() if parameter.ndim == 2]
    vectors = [parameter for parameter in parameters.values() if parameter.ndim != 2]
    groups = [{"params": matrices, **projected}] + ([{"params": vectors}] if vectors else [])
    return GaLoreAdamW(groups, lr=learning_rate, no_deprecation_warning=True, **shared)


CLIPPED = []


def clip_by_global_norm(parameters, options):
    norm = torch.nn.utils.clip_grad_norm_(parameters, options["max_norm"], foreach=False)
    CLIPPED.append(norm.item() > options["max_norm"])


def clip_by_value(parameters, options):
    for parameter in parameters:
        CLIPPED.extend((parameter.grad.abs() > options["clip_value"]).flatten().tolist())
    torch.nn.utils.clip_grad_value_(parameters, options["clip_value"], foreach=False)


def adaptive_grad_clip(learning_rate, options):
    # The rule itself is optax's; this only watches which units it will act on.
    def count(updates, state, params):
        def units(gradient, parameter):
            g, p = (numpy.sqrt((numpy.asarray(x) ** 2).sum(0 if x.ndim == 2 else None)) for x in (gradient, parameter))
            CLIPPED.extend(numpy.atleast_1d(g >= options["clipping"] * numpy.maximum(p, options["eps"])).tolist())

        jax.tree.map(units, updates, params)
        return updates, state

    watch = optax.GradientTransformation(lambda _: optax.EmptyState(), count)
    return optax.chain(watch, optax.adaptive_grad_clip(**options), optax.sgd(learning_rate))


def sam(learning_rate, options):
    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(options["rho"]))
    outer = optax.sgd(learning_rate, momentum=options["momentum"] or None)
    return optax.contrib.sam(outer, adversary, sync_period=2, opaque_mode=True)


def loraplus(model, learning_rate, options):
    return peft.optimizers.create_loraplus_optimizer(
        model,
        torch.optim.AdamW,
        lr=learning_rate,
        loraplus_lr_ratio=options["lr_ratio"],
        loraplus_weight_decay=options["weight_decay"],
        betas=options["betas"],
        eps=options["eps"],
        foreach=False,
    )


def lorafa(model, learning_rate, options):
    optimizer = peft.optimizers.create_lorafa_optimizer(
        model, r=options["r"], lora_alpha=options["alpha"], lr=learning_rate, weight_decay=options["weight_decay"]
    )
    group = optimizer.param_groups[0]
    # An argument of the optimizer that the function which creates it does not pass on.
    group["eps"] = options["eps"]
    assert list(group["betas"]) == options["betas"]
    assert {scaling for scaling in group["scaling_factors"] if scaling is not None} == {options["scaling"]}
    return optimizer


def riemannian(model, learning_rate, options):
    rest = {name: value for name, value in options.items() if name != "base"}
    base = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[options["base"]]
    return peft.optimizers.create_riemannian_optimizer(model, base, lr=learning_rate, foreach=False, **rest)


ALL = ["quadratic", "rosenbrock", "network"]
MATRICES = ["quadratic", "rosenbrock", "network_without_bias"]
LORA = ["lora"]

SGD = {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0}
ADAM = {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0}
ADAFACTOR = {"beta2_decay": -0.8, "eps1": 1e-6, "eps2": 1e-3, "d": 1.0, "weight_decay": 0.0}
RMSPROP = {"alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "centered": False, "weight_decay": 0.0}
ADAGRAD = {"lr_decay": 0.0, "eps": 1e-10, "initial_accumulator_value": 0.1, "weight_decay": 0.0}
MUON = {
    "momentum": 0.95,
    "nesterov": True,
    "ns_coefficients": [3.4445, -4.775, 2.0315],
    "eps": 1e-7,
    "ns_steps": 5,
    "weight_decay": 0.1,
}
FREE = {"betas": [0.9, 0.999], "eps": 1e-8, "warmup_steps": 0, "weight_decay": 0.01, "r": 0.0, "weight_lr_power": 2.0}
GALORE = {
    "rank": 2,
    "update_proj_gap": 200,
    "scale": 0.25,
    "proj_type": "std",
    "betas": [0.9, 0.999],
    "eps": 1e-6,
    "weight_decay": 0.01,
}
LORAFA = {
    "r": LORA_RANK,
    "alpha": LORA_ALPHA,
    "scaling": LORA_ALPHA / LORA_RANK,
    "betas": [0.9, 0.999],
    "eps": 1e-6,
    "delta": 1e-8,
    "weight_decay": 0.01,
}


def adafactor(parameters, learning_rate, options):
    rest = {name: value for name, value in options.items() if name not in ["eps1", "eps2"]}
    eps = (options["eps1"], options["eps2"])
    return torch.optim.Adafactor(list(parameters.values()), lr=learning_rate, eps=eps, foreach=False, **rest)


GALORE_RUN = Torch(galore, around=galore_projection)
MUON_RUN = Torch(muon, around=Bf16As)
IN_PRECISION = "in the case's precision"


# Learning rates of which `1 - lr * weight_decay` is exact in f32 (weight decay 0.01 or 0.1): its rounding error would
# otherwise be the same at every step and add up.
FINE, MIDDLE = 100 / 2**13, 10 / 2**10


def cases():
    """(name, reference, runner, options, what differs by problem: the learning rate, or also some options)."""

    def rates(names, *values):
        return dict(zip(names, values, strict=True))

    sgd, adam, adamw, rmsprop, adagrad = (
        torch_optimizer(getattr(torch.optim, name)) for name in ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"]
    )
    muon_reference = f"torch.optim.Muon, Newton-Schulz {IN_PRECISION} instead of bf16"
    galore_reference = f"galore_torch.GaLoreAdamW, SVD {IN_PRECISION}, largest entry of a singular vector positive"
    lorafa_reference = f"peft.optimizers.LoraFAOptimizer, {IN_PRECISION} instead of under bf16 autocast"
    return [
        ("sgd", "torch.optim.SGD", sgd, SGD, rates(ALL, 0.05, 0.0005, 0.1)),
        ("sgd_momentum", "torch.optim.SGD", sgd, {**SGD, "momentum": 0.9}, rates(ALL, 0.01, 0.0002, 0.05)),
        (
            "sgd_nesterov",
            "torch.optim.SGD",
            sgd,
            {**SGD, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
            rates(ALL, 0.005, 0.0002, 0.05),
        ),
        (
            "sgd_dampening",
            "torch.optim.SGD",
            sgd,
            {**SGD, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.01},
            rates(ALL, 0.01, 0.0002, 0.05),
        ),
        ("adam", "torch.optim.Adam", adam, ADAM, rates(ALL, 0.01, 0.01, 0.01)),
        ("adam_l2", "torch.optim.Adam", adam, {**ADAM, "weight_decay": 0.01}, rates(ALL, 0.01, 0.01, 0.01)),
        ("adamw", "torch.optim.AdamW", adamw, {**ADAM, "weight_decay": 0.01}, rates(ALL, FINE, FINE, FINE)),
        ("adam_eps", "torch.optim.Adam", adam, {**ADAM, "eps": 0.1}, rates(ALL, 0.02, 0.01, 0.02)),
        ("adafactor", "torch.optim.Adafactor", Torch(adafactor), ADAFACTOR, rates(ALL, 0.02, 0.01, 0.01)),
        (
            "adafactor_decay",
            "torch.optim.Adafactor",
            Torch(adafactor),
            {**ADAFACTOR, "weight_decay": 0.1},
            rates(ALL, 2 * MIDDLE, MIDDLE, MIDDLE),
        ),
        (
            "adafactor_bounds",
            "torch.optim.Adafactor",
            Torch(adafactor),
            ADAFACTOR,
            rates(
                ALL,
                (0.02, {"eps1": 1.5, "eps2": 2.0}),
                (0.01, {"eps1": 40.0, "eps2": 2.0}),
                (0.01, {"eps1": 0.05, "eps2": 0.5}),
            ),
        ),
        (
            "lion",
            "optax.lion",
            Optax(lambda lr, options: optax.lion(lr, **options)),
            {"b1": 0.9, "b2": 0.99, "weight_decay": 0.01},
            rates(ALL, 0.004, 0.002, 0.004),
        ),
        ("rmsprop", "torch.optim.RMSprop", rmsprop, RMSPROP, rates(ALL, 0.004, 0.004, 0.004)),
        (
            "rmsprop_centered_momentum",
            "torch.optim.RMSprop",
            rmsprop,
            {**RMSPROP, "momentum": 0.9, "centered": True, "weight_decay": 0.01},
            rates(ALL, 0.0005, 0.0005, 0.0005),
        ),
        ("rmsprop_eps", "torch.optim.RMSprop", rmsprop, {**RMSPROP, "eps": 0.1}, rates(ALL, 0.004, 0.004, 0.004)),
        ("adagrad", "torch.optim.Adagrad", adagrad, ADAGRAD, rates(ALL, 0.05, 0.05, 0.05)),
        ("adagrad_lr_decay", "torch.optim.Adagrad", adagrad, {**ADAGRAD, "lr_decay": 0.1}, rates(ALL, 0.1, 0.05, 0.1)),
        (
            "adagrad_l2_eps",
            "torch.optim.Adagrad",
            adagrad,
            {**ADAGRAD, "eps": 0.1, "weight_decay": 0.01},
            rates(ALL, 0.05, 0.05, 0.05),
        ),
        (
            "lamb",
            "optax.lamb",
            Optax(lambda lr, options: optax.lamb(lr, **options)),
            {"b1": 0.9, "b2": 0.999, "eps": 1e-6, "eps_root": 0.0, "weight_decay": 0.01},
            rates(ALL, 0.01, 0.005, 0.01),
        ),
        (
            "lamb_eps",
            "optax.lamb",
            Optax(lambda lr, options: optax.lamb(lr, **options)),
            {"b1": 0.9, "b2": 0.999, "eps": 0.01, "eps_root": 0.001, "weight_decay": 0.1},
            rates(ALL, 0.01, 0.005, 0.01),
        ),
        (
            "muon",
            muon_reference,
            MUON_RUN,
            {**MUON, "adjust_lr_fn": "original"},
            rates(MATRICES, MIDDLE, MIDDLE / 2, MIDDLE),
        ),
        (
            "muon_match_rms_adamw",
            muon_reference,
            MUON_RUN,
            {**MUON, "adjust_lr_fn": "match_rms_adamw"},
            rates(MATRICES, 2 * MIDDLE, MIDDLE, 2 * MIDDLE),
        ),
        (
            "muon_plain_momentum",
            muon_reference,
            MUON_RUN,
            {**MUON, "nesterov": False, "adjust_lr_fn": "original"},
            rates(MATRICES, MIDDLE / 2, MIDDLE / 2, MIDDLE),
        ),
        (
            "muon_eps",
            muon_reference,
            MUON_RUN,
            {**MUON, "adjust_lr_fn": "original"},
            rates(MATRICES, (MIDDLE, {"eps": 2.0}), (MIDDLE / 2, {"eps": 20.0}), (MIDDLE, {"eps": 0.5})),
        ),
        (
            "schedule_free_adamw",
            "schedulefree.AdamWScheduleFree",
            ScheduleFree(),
            FREE,
            rates(ALL, 0.01, 0.01, 0.01),
        ),
        (
            "schedule_free_adamw_warmup",
            "schedulefree.AdamWScheduleFree",
            ScheduleFree(),
            {**FREE, "warmup_steps": 10},
            rates(ALL, 0.01, 0.01, 0.01),
        ),
        (
            "schedule_free_adamw_weighted",
            "schedulefree.AdamWScheduleFree",
            ScheduleFree(),
            {**FREE, "warmup_steps": 10, "eps": 0.1, "r": 1.0, "weight_lr_power": 1.0},
            rates(ALL, 0.01, 0.01, 0.02),
        ),
        (
            "sam",
            "optax.contrib.sam over optax.sgd",
            Optax(sam),
            {"rho": 0.05, "eps": 0.0, "momentum": 0.0},
            rates(ALL, 0.05, 0.0005, 0.1),
        ),
        (
            "sam_momentum",
            "optax.contrib.sam over optax.sgd",
            Optax(sam),
            {"rho": 0.05, "eps": 0.0, "momentum": 0.9},
            rates(ALL, 0.005, 0.0001, 0.05),
        ),
        (
            "ema",
            "torch.optim.swa_utils.AveragedModel over torch.optim.SGD",
            Ema(),
            {"decay": 0.9, "from_start": False},
            rates(ALL, 0.05, 0.0005, 0.1),
        ),
        (
            "ema_from_start",
            "torch.optim.swa_utils.AveragedModel over torch.optim.SGD",
            Ema(),
            {"decay": 0.9, "from_start": True},
            rates(ALL, 0.05, 0.0005, 0.1),
        ),
        (
            "agc",
            "optax.adaptive_grad_clip, then optax.sgd",
            Optax(adaptive_grad_clip, transposed=True),
            {"eps": 1e-3},
            rates(ALL, (0.05, {"clipping": 0.75}), (0.0005, {"clipping": 25.0}), (0.1, {"clipping": 0.1})),
        ),
        (
            "agc_eps",
            "optax.adaptive_grad_clip, then optax.sgd",
            Optax(adaptive_grad_clip, transposed=True),
            {"eps": 2.0},
            rates(ALL, (0.05, {"clipping": 0.75}), (0.0005, {"clipping": 25.0}), (0.1, {"clipping": 0.1})),
        ),
        (
            "clip_by_global_norm",
            "torch.nn.utils.clip_grad_norm_, then torch.optim.SGD",
            Torch(plain_sgd, before_step=clip_by_global_norm),
            {},
            rates(ALL, (0.05, {"max_norm": 4.0}), (0.0005, {"max_norm": 100.0}), (0.1, {"max_norm": 0.5})),
        ),
        (
            "clip_by_value",
            "torch.nn.utils.clip_grad_value_, then torch.optim.SGD",
            Torch(plain_sgd, before_step=clip_by_value),
            {},
            # Exact products in f32: many a step here is the same, and so would be its rounding error.
            rates(ALL, (3 / 64, {"clip_value": 0.5}), (1 / 2048, {"clip_value": 64.0}), (1 / 8, {"clip_value": 0.125})),
        ),
        ("sign", "optax.sign_sgd", Optax(lambda lr, _: optax.sign_sgd(lr)), {}, rates(ALL, 1 / 256, 1 / 512, 1 / 256)),
        (
            "centralize",
            "optax.centralize, then optax.sgd",
            Optax(lambda lr, _: optax.chain(optax.centralize(), optax.sgd(lr))),
            {},
            rates(ALL, 0.05, 0.0005, 0.1),
        ),
        (
            "loraplus",
            "peft.optimizers.create_loraplus_optimizer over torch.optim.AdamW",
            Peft(loraplus),
            {**ADAM, "lr_ratio": 16.0},
            rates(LORA, 0.001),
        ),
        (
            "loraplus_decay",
            "peft.optimizers.create_loraplus_optimizer over torch.optim.AdamW",
            Peft(loraplus),
            {**ADAM, "lr_ratio": 16.0, "weight_decay": 0.01},
            rates(LORA, FINE / 16),
        ),
        ("lorafa", lorafa_reference, Peft(lorafa, patch=without_bf16_autocast), LORAFA, rates(LORA, 0.01)),
        (
            "lorafa_eps",
            lorafa_reference,
            Peft(lorafa, patch=without_bf16_autocast),
            {**LORAFA, "eps": 0.01},
            rates(LORA, 0.0075),
        ),
        (
            "riemannian",
            "peft.optimizers.create_riemannian_optimizer over torch.optim.AdamW",
            Peft(riemannian),
            {"base": "adamw", "reg": 0.01, **ADAM, "weight_decay": 0.01},
            rates(LORA, FINE / 2),
        ),
        (
            "riemannian_sgd",
            "peft.optimizers.create_riemannian_optimizer over torch.optim.SGD",
            Peft(riemannian),
            {"base": "sgd", "reg": 0.01, **SGD},
            rates(LORA, 0.02),
        ),
        ("galore", galore_reference, GALORE_RUN, GALORE, rates([*MATRICES, "network"], 0.005, 0.0075, 0.02, 0.005)),
        (
            "galore_gap",
            galore_reference,
            GALORE_RUN,
            {**GALORE, "update_proj_gap": 20},
            rates([*MATRICES, "network"], 0.005, 0.0075, 0.02, 0.005),
        ),
    ]
