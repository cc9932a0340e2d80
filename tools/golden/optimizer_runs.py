"""How a reference takes its steps: torch's form, optax's, schedulefree's, averages, and PEFT's for LoRA models.

Each class has `run(problem, dtype, learning_rate, options)`, which yields after every one of `STEPS[-1]` steps the parameters
by name, and what the reference evaluates with, or None where that is the same.
"""

import contextlib

import jax
import jax.numpy as jnp
import numpy
import optax
import peft
import schedulefree
import torch
from optimizer_problems import LORA_ALPHA, LORA_RANK
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

# Without it optax would compute bias corrections in f32 and lose four digits of them in the first steps.
jax.config.update("jax_enable_x64", True)

STEPS = [1, 2, 3, 5, 10, 20, 30, 40, 50]


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
        forward = torch.nn.functional.mse_loss(
            model(problem.constants["x"].to(dtype)), problem.constants["y"].to(dtype)
        )
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
