"""Writes `testdata/golden/optimizers.json`: fifty steps of every optimizer's reference on fixed problems.

`problems` holds the start values and the data; every number there is a multiple of 1/1024, so f32 and f64 start equal.
`trajectory` of a case has all parameters, flattened and concatenated in the problem's order, after the steps of `STEPS`;
`evaluated` in the same form what the reference evaluates with where that is something else (an average). The gradient of
every step is computed by torch's autograd in the case's precision, whichever library the update comes from. f32 numbers are
the shortest decimals that restore them.

Three references do part of their work in a fixed precision, which would hide what the cases compare. That part runs in the
case's own precision here, and `reference` says so: Newton-Schulz of torch's Muon (bf16), the preconditioning of PEFT's
LoRA-FA (bf16 autocast), the SVD of GaLore in the f64 cases (f32). GaLore's singular vectors get a fixed sign besides.

`optimizers.md` beside this script has the formulas. The script fails if a case stands still, if f32 strays from f64 (then the
problem amplifies rounding and proves nothing), or if a clipping rule does not both act and spare.
"""

import contextlib
import importlib.util
import json
import math
import sys
import types
from importlib.metadata import version

from golden_common import GOLDEN, compact, setup, versions

import jax
import jax.numpy as jnp
import numpy
import optax
import peft
import peft.optimizers.lorafa
import schedulefree
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode

# The package's `__init__` imports its 8-bit optimizer, and with it bitsandbytes; its other modules need neither.
package = types.ModuleType("galore_torch")
package.__path__ = importlib.util.find_spec("galore_torch").submodule_search_locations
sys.modules["galore_torch"] = package
from galore_torch.adamw import AdamW as GaLoreAdamW  # noqa: E402
from galore_torch.galore_projector import GaLoreProjector  # noqa: E402

# Without it optax would compute bias corrections in f32 and lose four digits of them in the first steps.
jax.config.update("jax_enable_x64", True)

STEPS = [1, 2, 3, 5, 10, 20, 30, 40, 50]
PRECISIONS = {"f32": torch.float32, "f64": torch.float64}
# Largest distance of f32 to f64, relative to the largest magnitude of the tensor.
MAXIMUM_STRAY = 5e-7
# Smallest movement of the parameters in fifty steps, relative to their largest magnitude.
MINIMUM_MOVEMENT = 0.01


# Problems


def dyadic(values):
    """The nearest multiples of 1/1024."""
    return torch.round(torch.as_tensor(values, dtype=torch.float64) * 1024) / 1024


def normal(shape, std, generator):
    """Normal numbers as multiples of 1/1024, none of them zero."""
    values = dyadic(torch.randn(shape, generator=generator, dtype=torch.float64) * std)
    return torch.where(values == 0, torch.full_like(values, 1 / 1024), values)


class Problem:
    """A function of named tensors: their start values, the constants, and the value."""

    def __init__(self, parameters, constants, value):
        self.parameters, self.constants, self.value = parameters, constants, value

    def start(self, dtype):
        """Leaf tensors with the start values."""
        return {name: values.to(dtype, copy=True).requires_grad_() for name, values in self.parameters.items()}

    def loss(self, parameters):
        """The function's value, in the parameters' precision."""
        dtype = next(iter(parameters.values())).dtype
        return self.value(parameters, {name: values.to(dtype) for name, values in self.constants.items()})


def quadratic(parameters, constants):
    return 0.5 * (constants["curvatures"].reshape(3, 4) * parameters["x"] ** 2).sum()


def rosenbrock(parameters, _):
    first, second = parameters["x"]
    return ((1 - first) ** 2 + 100 * (second - first**2) ** 2).sum()


def network(parameters, constants):
    hidden = constants["x"] @ parameters["layers.0.weight"].T
    if "layers.0.bias" in parameters:
        hidden = hidden + parameters["layers.0.bias"]
    output = torch.tanh(hidden) @ parameters["layers.1.weight"].T
    if "layers.1.bias" in parameters:
        output = output + parameters["layers.1.bias"]
    return ((output - constants["y"]) ** 2).mean()


LORA_RANK, LORA_ALPHA = 2, 4


def lora(parameters, constants):
    def weight(name):
        delta = parameters[f"{name}.lora_B.weight"] @ parameters[f"{name}.lora_A.weight"]
        return constants[name] + LORA_ALPHA / LORA_RANK * delta

    hidden = torch.tanh(constants["x"] @ weight("q_proj").T)
    return ((hidden @ weight("down_proj").T - constants["y"]) ** 2).mean()


def problems():
    """All problems by their names."""
    generator = torch.Generator().manual_seed(20)
    curvatures = dyadic([0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0])
    weights = {
        "layers.0.weight": normal((5, 3), 0.6, generator),
        "layers.0.bias": normal((5,), 0.3, generator),
        "layers.1.weight": normal((2, 5), 0.6, generator),
        "layers.1.bias": normal((2,), 0.3, generator),
    }
    data = {"x": normal((8, 3), 1.0, generator), "y": normal((8, 2), 1.0, generator)}
    factors = {
        "q_proj.lora_A.weight": normal((2, 5), 0.6, generator),
        "q_proj.lora_B.weight": normal((4, 2), 0.4, generator),
        "down_proj.lora_A.weight": normal((2, 4), 0.6, generator),
        "down_proj.lora_B.weight": normal((3, 2), 0.4, generator),
    }
    frozen = {
        "q_proj": normal((4, 5), 0.5, generator),
        "down_proj": normal((3, 4), 0.5, generator),
        "x": normal((8, 5), 1.0, generator),
        "y": normal((8, 3), 1.0, generator),
    }
    matrices = {name: values for name, values in weights.items() if values.ndim == 2}
    start = [[1.0, -2.0, 0.5, 3.0], [-0.25, 1.5, -1.0, 0.75], [2.0, -0.5, 1.25, -1.75]]
    columns = [[-1.2, 0.5, 1.5], [1.0, -0.5, 1.75]]
    return {
        "quadratic": Problem({"x": dyadic(start)}, {"curvatures": curvatures}, quadratic),
        "rosenbrock": Problem({"x": dyadic(columns)}, {}, rosenbrock),
        "network": Problem(weights, data, network),
        "network_without_bias": Problem(matrices, data, network),
        "lora": Problem(factors, frozen, lora),
    }


# References


def gradients(problem, parameters):
    """Sets `.grad` of every parameter that is not frozen."""
    for parameter in parameters.values():
        parameter.grad = None
    problem.loss(parameters).backward()


class Torch:
    """An optimizer in torch's form. `build` takes the parameters by name, the learning rate and the options."""

    def __init__(self, build, before_step=None, around=lambda dtype: contextlib.nullcontext()):
        self.build, self.before_step, self.around = build, before_step, around

    def run(self, problem, dtype, learning_rate, options):
        """Yields the parameters, and what is evaluated with or None, after every step."""
        parameters = problem.start(dtype)
        optimizer = self.build(parameters, learning_rate, options)
        for _ in range(max(STEPS)):
            gradients(problem, parameters)
            if self.before_step is not None:
                self.before_step(list(parameters.values()), options)
            with self.around(dtype):
                optimizer.step()
            yield parameters, None


class Optax:
    """A transformation of optax. `transposed` gives it matrices as [in, out], which its linear layers are."""

    def __init__(self, build, transposed=False):
        self.build, self.transposed = build, transposed

    def to_jax(self, tensor):
        values = tensor.detach().numpy().copy()
        return jnp.asarray(values.T if self.transposed else values)

    def write(self, parameters, values):
        for name, parameter in parameters.items():
            array = numpy.array(values[name])
            assert array.dtype == parameter.detach().numpy().dtype, f"optax left {array.dtype} behind"
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(array.T.copy() if self.transposed else array))

    def run(self, problem, dtype, learning_rate, options):
        """Yields the parameters and None after every step."""
        parameters = problem.start(dtype)
        transformation = self.build(learning_rate, options)

        def tree(of):
            return {name: self.to_jax(of(parameter)) for name, parameter in parameters.items()}

        def gradient_at(values, _=0):
            self.write(parameters, values)
            gradients(problem, parameters)
            return tree(lambda parameter: parameter.grad)

        values = tree(lambda parameter: parameter)
        state = transformation.init(values)
        takes_more = isinstance(transformation, optax.GradientTransformationExtraArgs)
        for _ in range(max(STEPS)):
            extra = {"grad_fn": gradient_at} if takes_more else {}
            updates, state = transformation.update(gradient_at(values), state, values, **extra)
            values = optax.apply_updates(values, updates)
            self.write(parameters, values)
            yield parameters, None


class ScheduleFree:
    """The training point y after every step, and x, which its `eval()` puts in y's place."""

    def run(self, problem, dtype, learning_rate, options):
        parameters = problem.start(dtype)
        leaves = list(parameters.values())
        optimizer = schedulefree.AdamWScheduleFree(leaves, lr=learning_rate, foreach=False, **options)
        optimizer.train()
        for _ in range(max(STEPS)):
            gradients(problem, parameters)
            optimizer.step()
            training_point = [parameter.detach().clone() for parameter in leaves]
            optimizer.eval()
            evaluated = {name: parameter.detach().clone() for name, parameter in parameters.items()}
            optimizer.train()
            # `train()` goes back by arithmetic and rounds; training without evaluations would not have.
            with torch.no_grad():
                for parameter, point in zip(leaves, training_point, strict=True):
                    parameter.copy_(point)
            yield parameters, evaluated


class Ema:
    """SGD, and torch's exponential moving average of its parameters."""

    def run(self, problem, dtype, learning_rate, options):
        parameters = problem.start(dtype)
        model = torch.nn.ParameterList([torch.nn.Parameter(parameter) for parameter in parameters.values()])
        parameters = dict(zip(parameters, model, strict=True))
        optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, foreach=False)
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(options["decay"]))
        if options["from_start"]:
            average.update_parameters(model)
        for _ in range(max(STEPS)):
            gradients(problem, parameters)
            optimizer.step()
            average.update_parameters(model)
            yield parameters, dict(zip(parameters, average.module, strict=True))


class Peft:
    """An optimizer that PEFT creates for a PEFT model of the LoRA problem."""

    def __init__(self, build, patch=contextlib.nullcontext):
        self.build, self.patch = build, patch

    def run(self, problem, dtype, learning_rate, options):
        model = peft_model(problem, dtype)
        names = {name.removeprefix("base_model.model."): parameter for name, parameter in model.named_parameters()}
        parameters = {name: names[name.replace(".weight", ".default.weight")] for name in problem.parameters}
        forward = torch.nn.functional.mse_loss(model(problem.constants["x"].to(dtype)), problem.constants["y"].to(dtype))
        assert torch.allclose(forward, problem.loss(parameters), rtol=1e-5), "PEFT computes something else"
        with self.patch():
            optimizer = self.build(model, learning_rate, options)
            for _ in range(max(STEPS)):
                gradients(problem, parameters)
                optimizer.step()
                yield parameters, None


class TwoLayers(torch.nn.Module):
    """The base model of the LoRA problem."""

    def __init__(self):
        super().__init__()
        self.q_proj = torch.nn.Linear(5, 4, bias=False)
        self.down_proj = torch.nn.Linear(4, 3, bias=False)

    def forward(self, x):
        return self.down_proj(torch.tanh(self.q_proj(x)))


def peft_model(problem, dtype):
    """The LoRA problem as a PEFT model with the start values."""
    base = TwoLayers()
    with torch.no_grad():
        base.q_proj.weight.copy_(problem.constants["q_proj"])
        base.down_proj.weight.copy_(problem.constants["down_proj"])
    config = peft.LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=["q_proj", "down_proj"])
    model = peft.get_peft_model(base, config).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            short = name.removeprefix("base_model.model.").replace(".default.weight", ".weight")
            if short in problem.parameters:
                parameter.copy_(problem.parameters[short])
    return model


# Where a reference fixes a precision


class Bf16As(TorchFunctionMode):
    """Every bfloat16 that is named becomes `dtype`."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func, types, args=(), kwargs=None):
        def replace(value):
            return self.dtype if value is torch.bfloat16 else value

        return func(*map(replace, args), **{name: replace(value) for name, value in (kwargs or {}).items()})


@contextlib.contextmanager
def without_bf16_autocast():
    """PEFT's LoRA-FA takes the machine for one without bf16."""
    module = peft.optimizers.lorafa
    available = module.is_bf16_available
    module.is_bf16_available = lambda: False
    try:
        yield
    finally:
        module.is_bf16_available = available


SINGULAR_GAPS = []


@contextlib.contextmanager
def galore_projection(_):
    """GaLore's SVD in the gradient's own precision; in every kept vector the entry of largest magnitude is positive."""

    def get_orthogonal_matrix(_, weights, rank, type):
        left, values, right = torch.linalg.svd(weights.data, full_matrices=False)
        # Distances, relative to the largest value, of each kept singular value to the next: small ones amplify rounding.
        padded = torch.cat([values, values.new_zeros(1)]) if len(values) == rank else values
        gaps = (padded[:rank] - padded[1 : rank + 1]) / values[0]
        SINGULAR_GAPS.append(gaps.min().item())
        vectors = left[:, :rank] if type == "left" else right[:rank].T
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        vectors = vectors * largest.sign()
        return vectors if type == "left" else vectors.T

    original = GaLoreProjector.get_orthogonal_matrix
    GaLoreProjector.get_orthogonal_matrix = get_orthogonal_matrix
    try:
        yield
    finally:
        GaLoreProjector.get_orthogonal_matrix = original


# Cases


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
            {**SGD, "momentum": 0.9, "dampening": 0.5},
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
        ("muon", muon_reference, MUON_RUN, {**MUON, "adjust_lr_fn": "original"}, rates(MATRICES, MIDDLE, MIDDLE / 2, MIDDLE)),
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


# Writing


def flat(parameters):
    """All parameters as one list of f64."""
    return torch.cat([parameter.detach().flatten() for parameter in parameters.values()])


def numbers(tensor):
    """The shortest decimals that restore the numbers, as floats of Python."""
    if tensor.dtype == torch.float64:
        return tensor.tolist()
    values = [float(str(value)) for value in tensor.numpy()]
    assert torch.equal(torch.tensor(values, dtype=torch.float64).float(), tensor)
    return values


def trajectory(problem, runner, precision, learning_rate, options):
    """The points and the evaluated points, by step."""
    points, evaluated = {}, {}
    for step, (parameters, average) in enumerate(runner.run(problem, PRECISIONS[precision], learning_rate, options), 1):
        if step in STEPS:
            points[step] = flat(parameters).clone()
            if average is not None:
                evaluated[step] = flat(average).clone()
    return points, evaluated


def stray(problem, single, double):
    """The largest distance of f32 to f64 over steps and tensors, relative to the largest magnitude of the tensor."""
    sizes = [values.numel() for values in problem.parameters.values()]
    return max(
        ((narrow.double() - wide).abs().max() / wide.abs().max()).item()
        for step in double
        for narrow, wide in zip(single[step].split(sizes), double[step].split(sizes), strict=True)
    )


def described(name, problem):
    """A problem as it stands in the file."""

    def shaped(values):
        return {"shape": list(values.shape), "values": values.flatten().tolist()}

    parameters = [{"name": key, **shaped(values)} for key, values in problem.parameters.items()]
    constants = {key: shaped(values) for key, values in problem.constants.items()}
    if name == "quadratic":
        constants = {"curvatures": problem.constants["curvatures"].tolist()}
    if name == "lora":
        weights = {key: constants.pop(key) for key in ["q_proj", "down_proj"]}
        constants = {"weights": weights, "scaling": LORA_ALPHA / LORA_RANK, **constants}
    return {"parameters": parameters, **constants}


def main():
    setup(20)
    all_problems = problems()
    written, faults = [], []
    for name, reference, runner, options, rates in cases():
        for problem_name, rate in rates.items():
            learning_rate, more = rate if isinstance(rate, tuple) else (rate, {})
            problem_options = {**options, **more}
            problem = all_problems[problem_name]
            CLIPPED.clear()
            SINGULAR_GAPS.clear()
            runs = {}
            for precision in PRECISIONS:
                points, evaluated = trajectory(problem, runner, precision, learning_rate, problem_options)
                runs[precision] = points, evaluated
                case = {
                    "name": name,
                    "reference": reference,
                    "options": problem_options,
                    "learning_rate": learning_rate,
                    "problem": problem_name,
                    "precision": precision,
                    "trajectory": {str(step): numbers(values) for step, values in points.items()},
                }
                if evaluated:
                    case["evaluated"] = {str(step): numbers(values) for step, values in evaluated.items()}
                written.append(case)

            start = torch.cat([values.flatten() for values in problem.parameters.values()])
            distance = stray(problem, runs["f32"][0], runs["f64"][0])
            if runs["f64"][1]:
                distance = max(distance, stray(problem, runs["f32"][1], runs["f64"][1]))
            movement = ((runs["f64"][0][max(STEPS)] - start).abs().max() / start.abs().max()).item()
            line = f"{name:28} {problem_name:22} stray {distance:.1e}  movement {movement:.2f}"
            if SINGULAR_GAPS:
                line += f"  smallest singular gap {min(SINGULAR_GAPS):.2f}"
            if CLIPPED:
                line += f"  clipped {sum(CLIPPED) / len(CLIPPED):.0%}"
            # Written so that a NaN is a fault too.
            sound = distance <= MAXIMUM_STRAY and movement >= MINIMUM_MOVEMENT and math.isfinite(movement)
            if not sound or (CLIPPED and len(set(CLIPPED)) == 1):
                faults.append(line)
            print(line, flush=True)
    assert not faults, "cases that prove nothing:\n" + "\n".join(faults)

    all_versions = versions()
    for package in ["optax", "jax", "jaxlib", "schedulefree", "galore-torch"]:
        all_versions[package] = version(package)
    value = {
        "versions": all_versions,
        "problems": {name: described(name, problem) for name, problem in all_problems.items()},
        "cases": written,
    }
    text = json.dumps(value, indent=0, ensure_ascii=False)
    (GOLDEN / "optimizers.json").write_text(compact(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
