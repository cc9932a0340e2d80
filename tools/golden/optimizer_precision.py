"""Where a reference does part of its work in a precision of its own: there it gets the case's."""

import contextlib
import importlib.util
import sys
import types

import peft.optimizers.lorafa
import torch
from torch.overrides import TorchFunctionMode

# The package's `__init__` imports its 8-bit optimizer, and with it bitsandbytes; its other modules need neither.
package = types.ModuleType("galore_torch")
package.__path__ = importlib.util.find_spec("galore_torch").submodule_search_locations
sys.modules["galore_torch"] = package
from galore_torch.adamw import AdamW as GaLoreAdamW  # noqa: E402, F401  (for the cases)
from galore_torch.galore_projector import GaLoreProjector  # noqa: E402


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
