"""Writes `testdata/golden/optimizers.json`: fifty steps of every optimizer's reference on fixed problems.

`problems` holds the start values and the data; every number there is a multiple of 1/1024, so f32 and f64 start equal.
`trajectory` of a case has all parameters, flattened and concatenated in the problem's order, after the steps of `STEPS`;
`evaluated` in the same form what the reference evaluates with where that is something else (an average). The gradient of
every step is computed by torch's autograd in the case's precision, whichever library the update comes from. f32 numbers are
the shortest decimals that restore them.

Three references do part of their work in a fixed precision, which would hide what the cases compare. That part runs in the
case's own precision here, and `reference` says so: Newton-Schulz of torch's Muon (bf16), the preconditioning of PEFT's
LoRA-FA (bf16 autocast), the SVD of GaLore in the f64 cases (f32). GaLore's singular vectors get a fixed sign besides.

`README.md` beside this script has the formulas, `optimizer_*.py` the problems, references and cases. The script fails if a
case stands still, if f32 strays from f64 (then the problem amplifies rounding and proves nothing), or if a clipping rule
does not both act and spare.
"""

import json
import math
from importlib.metadata import version

from golden_common import GOLDEN, compact, setup, versions

import torch
from optimizer_cases import CLIPPED, cases
from optimizer_precision import SINGULAR_GAPS
from optimizer_problems import LORA_ALPHA, LORA_RANK, problems
from optimizer_runs import STEPS

PRECISIONS = {"f32": torch.float32, "f64": torch.float64}
# Largest distance of f32 to f64, relative to the largest magnitude of the tensor.
MAXIMUM_STRAY = 5e-7
# Smallest movement of the parameters in fifty steps, relative to their largest magnitude.
MINIMUM_MOVEMENT = 0.01


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
