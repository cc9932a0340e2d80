"""The five functions that `write_optimizers.py` has the optimizers minimize."""

import torch


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
