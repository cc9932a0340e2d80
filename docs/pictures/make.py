"""Makes every table and every picture of docs/method.md again.

    python3 docs/pictures/make.py path/to/reparam

From the repository's root; a few minutes on two cores. The tables go to standard output, the pictures beside this file.
Nothing but Python's standard library is needed.
"""

import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

PICTURES = pathlib.Path(__file__).parent
REFERENCE = "examples/linear-regression.toml"
PLAIN, LAW, NOISE, BOUND = (f"examples/method-{name}.toml" for name in ("plain", "law", "noise", "bound"))
SEEDS = "train.seed=1,2,3,4,5"
TUNING_SEEDS = "train.seed=1,2,3"
FRESH_SEEDS = "train.seed=11,12,13,14,15"


class Studies:
    """Runs the program, and numbers the directories that it writes."""

    def __init__(self, program, directory):
        self.program = program
        self.directory = pathlib.Path(directory)
        self.count = 0

    def __call__(self, run_file, *vary, sets=(), pictures=()):
        """Runs a study and returns its runs; `pictures` are pairs of a picture of the study and its name here."""
        self.count += 1
        output = self.directory / f"{self.count:03}"
        command = [self.program, "study", run_file, "--output", str(output), "--quiet"]
        for key in vary:
            command += ["--vary", key]
        for key in sets:
            command += ["--set", key]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for source, name in pictures:
            shutil.copy(output / f"{source}.svg", PICTURES / f"{name}.svg")
        runs = json.loads((output / "study.json").read_text())
        for run in runs:
            directory = pathlib.Path(run["directory"])
            lines = (directory / "events.jsonl").read_text().splitlines()
            events = [json.loads(line) for line in lines]
            run["steps_made"] = [event for event in events if event["event"] == "step"]
            report = directory / "report.json"
            run["report"] = json.loads(report.read_text()) if report.exists() else None
        return runs


def table(title, header, rows):
    print(f"\n{title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")


def short(x, digits=4):
    return f"{x:.{digits}g}"


def whole_table(title, runs):
    """The columns of a study's own table that the text uses."""
    rows = []
    for run in runs:
        diverged = run["diverged"] is not None
        ended = "divergence" if diverged else run["reason"]["reason"]
        held_out = "-" if diverged else f"{run['held_out_after']:.4f}"
        ratio = run["update_variance"] / run["grad_variance"]
        cells = [run["label"], ended, run["steps"], short(run["last_loss"]), held_out]
        rows.append([*cells, short(run["longest_step"]), short(ratio)])
    header = ["setting", "ended by", "steps", "last loss", "held out", "longest step"]
    table(title, [*header, "update / gradient variance"], rows)


def by_setting(runs):
    """Groups the runs that differ in their seed only, which is the last key that a study varies."""
    groups = {}
    for run in runs:
        groups.setdefault(run["label"].rpartition(", seed=")[0], []).append(run)
    return groups


def apart(a, b):
    """The largest relative difference of two runs' losses, step by step."""
    pairs = zip(a["steps_made"], b["steps_made"], strict=True)
    return max(abs(x["loss"] - y["loss"]) / y["loss"] for x, y in pairs)


class Excess:
    """The training error above that of the exact solution, in percent of it."""

    def __init__(self, study, sets=()):
        exact = study(NOISE, "train.seed=1", sets=["train.batch_size=1000", *sets])[0]
        assert exact["report"]["is_least_squares"]
        self.best = exact["report"]["train_mse"]
        self.held_out = exact["report"]["least_squares_test_mse"]

    def __call__(self, run):
        return 100.0 * (run["report"]["train_mse"] / self.best - 1.0)

    def cell(self, runs):
        if any(run["report"] is None for run in runs):
            diverged = sum(run["report"] is None for run in runs)
            return "diverges" if diverged == len(runs) else f"{diverged} of {len(runs)} diverge"
        values = [self(run) for run in runs]
        return f"{short(statistics.mean(values), 3)} ± {short(statistics.stdev(values), 2)}"

    def mean(self, runs):
        if any(run["report"] is None for run in runs):
            return float("inf")
        return statistics.mean(self(run) for run in runs)


def reference(study):
    runs = study(REFERENCE, "optimizer.lambda=0.01,0.1,1,1/sqrt(T)")
    whole_table("0. the reference case", runs)
    print(f"\n{json.dumps(runs[1]['report'])}")


def plain(study):
    runs = study(
        PLAIN,
        "optimizer.lambda=0.01,0.1,1",
        sets=["train.stop_grad_norm=1e-6"],
        pictures=[("loss", "plain-lambda-loss")],
    )
    whole_table("1. lambda at a fixed eta", runs)
    pair = [
        study(PLAIN, "optimizer.lambda=0.1")[0],
        study(PLAIN, "optimizer.lambda=1", sets=["optimizer.learning_rate=0.01"])[0],
    ]
    print(f"\neta 0.1 lambda 0.1 against eta 0.01 lambda 1: losses apart by {apart(*pair):.1e}")
    print([run["report"]["coefficients"] for run in pair], pair[0]["report"]["train_mse"])


def law(study):
    two = ["method.kind=full,scale", "optimizer.lambda=1,1/sqrt(T)"]
    for name, sets in [
        ("descent", []),
        ("minibatches", ["train.batch_size=16"]),
        ("momentum", ["optimizer.momentum=0.9", "optimizer.learning_rate=0.1"]),
        ("adamw", ["optimizer.kind=adamw", "optimizer.learning_rate=0.01"]),
    ]:
        pictures = [("loss", "law-loss")] if name == "descent" else []
        runs = study(LAW, *two, sets=sets, pictures=pictures)
        whole_table(f"2. the square-root law, {name}", runs)
        print(f"\nW with lambda against V without: {apart(runs[2], runs[1]):.1e}")
        print(f"W with lambda against W without: {apart(runs[0], runs[1]):.1e}")
    rate = "optimizer.learning_rate=0.05"
    mask = 'optimizer.transforms=[{ kind = "mask", branches = [0.5, 1.0] }],[]'
    masked, bare = study(LAW, mask, sets=[rate])
    branches = ["method.kind=overparameterized", "method.branches=[0.5, 1.0]"]
    split = study(LAW, "train.seed=1", sets=[rate, *branches])[0]
    whole_table("2. the mask", [masked, bare, split])
    print(f"\nmask against branches: {apart(masked, split):.1e}, without: {apart(bare, split):.1e}")


def product(label):
    """The product of the values of a label."""
    factors = [float(part.partition("=")[2]) for part in label.split(", ")]
    return f"{factors[0] * factors[1]:.6g}"


def signal_and_noise(steps):
    """Squared length of the mean, variance, and their quotient: of the gradients, then of the updates.

    The mean squared length is the sum of the first two, and the variance is the program's own estimate.
    """
    cells = []
    for size, variance in [("grad_norm", "grad_variance"), ("update_norm", "update_variance")]:
        noise = statistics.mean(step[variance] for step in steps)
        signal = statistics.mean(step[size] ** 2 for step in steps) - noise
        cells += [short(signal), short(noise), short(signal / noise)]
    return cells


def noise(study, excess):
    runs = study(
        NOISE,
        "optimizer.lambda=0.01,0.1,1",
        pictures=[
            ("loss", "noise-lambda-loss"),
            ("update_variance", "noise-lambda-update-variance"),
        ],
    )
    whole_table("3. lambda at a fixed eta", runs)
    grid = ["optimizer.learning_rate=0.01,0.1,1", "optimizer.lambda=0.01,0.1,1"]
    runs = study(NOISE, *grid)
    whole_table("3. eta and lambda", runs)
    print(f"\nproduct 0.01: {apart(runs[4], runs[2]):.1e} and {apart(runs[6], runs[2]):.1e}")
    grid = ["optimizer.learning_rate=0.001,0.01,0.1", "optimizer.lambda=0.01,0.1,1"]
    same_path = [run for run in study(NOISE, *grid) if product(run["label"]) == "0.001"]
    rows = [[run["label"], *signal_and_noise(run["steps_made"][50:150])] for run in same_path]
    kinds = ["signal", "noise", "signal / noise"]
    header = ["setting", *(f"{kind} of g" for kind in kinds), *(f"{kind} of u" for kind in kinds)]
    table("3. signal and noise, steps 51 to 150", header, rows)
    print(f"\nsame path: {apart(same_path[1], same_path[0]):.1e}, {apart(same_path[2], same_path[0]):.1e}")
    floors = study(NOISE, "optimizer.lambda=0.003,0.01,0.03,0.1,0.3,1", SEEDS)
    rates = study(NOISE, "optimizer.learning_rate=0.0003,0.001,0.003,0.01,0.03,0.1", SEEDS)
    rows = [
        [a, excess.cell(x), b, excess.cell(y)]
        for (a, x), (b, y) in zip(by_setting(floors).items(), by_setting(rates).items())
    ]
    table("3. floors", ["eta 0.1", "excess %", "lambda 1", "excess %"], rows)
    middle = study(NOISE, "optimizer.lambda=0.03,0.1,0.3,1", SEEDS, sets=["train.max_steps=2025"])
    rows = [[setting, excess.cell(runs)] for setting, runs in by_setting(middle).items()]
    table("3. floors in the middle of a pass", ["setting", "excess %"], rows)
    batches = study(NOISE, "train.batch_size=20,80,320", SEEDS)
    rows = []
    for setting, runs in by_setting(batches).items():
        variance = statistics.mean(run["grad_variance"] for run in runs)
        rows.append([setting, short(variance, 3), excess.cell(runs)])
    table("3. larger batches", ["setting", "noise of g", "excess %"], rows)
    noiseless = study(NOISE, "optimizer.lambda=0.01,0.1,1", sets=["data.generate.noise=0"])
    whole_table("5. the same without noise", noiseless)


def stability(study):
    runs = study(
        PLAIN,
        "optimizer.lambda=0.1,1",
        sets=["optimizer.learning_rate=1.5", "train.max_steps=50"],
        pictures=[("loss", "stability-loss")],
    )
    whole_table("4. eta 1.5", runs)
    print(runs[1]["diverged"])
    grid = ["optimizer.lambda=0.1,1", "optimizer.learning_rate=0.5,0.9,1.1,5,9,11"]
    whole_table("4. where descent is stable", study(PLAIN, *grid))


def bounds(study, excess):
    none = "1e6"
    grid = [
        "optimizer.learning_rate=0.0001,0.001,0.01,0.1,1",
        f"optimizer.clip_grad_value=0.1,1,{none}",
    ]
    for title, sets in [("as it is", []), ("standardized", ["data.standardize=true"])]:
        rows = {}
        for setting, runs in by_setting(study(BOUND, *grid, TUNING_SEEDS, sets=sets)).items():
            ends = [run["held_out_after"] for run in runs if run["report"] is not None]
            enough = len(ends) == len(runs)
            cell = (
                f"{short(statistics.mean(ends))} ± {short(statistics.stdev(ends), 2)}"
                if enough
                else "diverges"
            )
            rows.setdefault(setting.partition(", ")[0], []).append(cell)
        header = ["", "bound 0.1", "bound 1", "none"]
        table(f"4. the bound, {title}: held out", header, [[rate, *cells] for rate, cells in rows.items()])
    study(
        BOUND,
        f"optimizer.clip_grad_value=0.1,1,{none}",
        pictures=[("loss", "bound-loss")],
    )
    linear = ["optimizer.schedule=linear"]
    long = study(
        NOISE,
        f"optimizer.clip_grad_value=0.01,0.1,1,{none}",
        SEEDS,
        sets=["optimizer.learning_rate=0.2", *linear],
    )
    rows = [[setting, excess.cell(runs)] for setting, runs in by_setting(long).items()]
    table("4. the bound, eta 0.2, linear", ["setting", "excess %"], rows)
    shorter = study(NOISE, "optimizer.learning_rate=0.01,0.03,0.1,0.2", SEEDS, sets=linear)
    rows = [[setting, excess.cell(runs)] for setting, runs in by_setting(shorter).items()]
    table("4. no bound, linear", ["setting", "excess %"], rows)
    slow = study(
        PLAIN,
        f"optimizer.clip_grad_value=0.1,1,{none}",
        sets=["data.standardize=false", "train.stop_grad_norm=1e-6", "train.max_steps=3000"],
    )
    whole_table("4. the bound slows", slow)


def horizon(study, excess):
    rows = {}
    for factor in ("1/sqrt(T)", "1", "0.1", "0.01"):
        runs = study(NOISE, "train.max_steps=100,1000,10000", SEEDS, sets=[f"optimizer.lambda={factor}"])
        rows[factor] = [excess.cell(group) for group in by_setting(runs).values()]
    linear = ["optimizer.lambda=1", "optimizer.schedule=linear"]
    runs = study(NOISE, "train.max_steps=100,1000,10000", SEEDS, sets=linear)
    rows["1, linear schedule"] = [excess.cell(group) for group in by_setting(runs).values()]
    for rate in ("0.01", "1"):
        sets = ["optimizer.lambda=1/sqrt(T)", f"optimizer.learning_rate={rate}"]
        runs = study(NOISE, "train.max_steps=100,1000,10000", SEEDS, sets=sets)
        name = f"1/sqrt(T), eta {rate}"
        rows[name] = [excess.cell(group) for group in by_setting(runs).values()]
    header = ["lambda", "T = 100", "T = 1000", "T = 10000"]
    table("4. the horizon: excess %", header, [[name, *cells] for name, cells in rows.items()])


def cancels(study):
    adam = ["optimizer.kind=adamw", "optimizer.learning_rate=0.01"]
    runs = study(
        NOISE,
        "optimizer.lambda=1,0.1,0.001,1e-8,1e-10",
        sets=adam,
        pictures=[("loss", "adam-lambda-loss")],
    )
    whole_table("5. adamw, eps 1e-8", runs)
    for factor, run in zip(("0.1", "0.001"), runs[1:3]):
        print(f"lambda {factor} against 1: {apart(run, runs[0]):.1e}")
    larger = study(NOISE, "optimizer.lambda=1,0.1,0.001", sets=[*adam, "optimizer.eps=1e-3"])
    whole_table("5. adamw, eps 1e-3", larger)
    print(f"lambda 0.001, eps 1e-3 against 1e-8, 1e-8: {apart(larger[2], runs[3]):.1e}")
    for kind in ("sign", "lion"):
        command = [study.program, "train", NOISE, "--output", str(study.directory / kind)]
        for key in (f"optimizer.kind={kind}", "optimizer.lambda=0.1"):
            command += ["--set", key]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        print(f"{kind}: exit code {refused.returncode}\n{refused.stderr}")


def grid_of(first, last):
    """Learning rates that double from `first` up to `last`."""
    rates = []
    rate = first
    while rate <= last * 1.001:
        rates.append(f"{rate:g}")
        rate *= 2
    return rates


def tuned(study, excess, rates, sets):
    """Chooses the learning rate on the tuning seeds, and measures it on fresh ones."""
    runs = study(NOISE, "optimizer.learning_rate=" + ",".join(rates), TUNING_SEEDS, sets=sets)
    means = {s: excess.mean(group) for s, group in by_setting(runs).items()}
    best = min(means, key=means.get)
    rate = best.partition("=")[2]
    edge = " (edge)" if rate in (rates[0], rates[-1]) else ""
    fresh = study(NOISE, FRESH_SEEDS, sets=[*sets, f"optimizer.learning_rate={rate}"])
    held_out = statistics.mean(run["held_out_after"] for run in fresh)
    usable = sum(mean < 2 * means[best] for mean in means.values())
    return [rate + edge, excess.cell(fresh), short(held_out), f"{usable} of {len(rates)}"]


def adaptive(study, excess):
    runs = study(
        NOISE,
        "optimizer.lambda=adaptive,1/sqrt(T),0.1,1",
        pictures=[("update_variance", "adaptive-update-variance")],
    )
    ranges = [(1, 10), (11, 30), (31, 100), (101, 300), (301, 2000)]
    problems = [("minibatches", runs[0])]
    exact = study(PLAIN, "optimizer.lambda=adaptive", sets=["train.max_steps=2000"])
    problems.append(("all rows, plain", exact[0]))
    rows = []
    for name, run in problems:
        factors = [step["update_norm"] / step["grad_norm"] for step in run["steps_made"]]
        rows.append([name, *(short(statistics.mean(factors[a - 1 : b]), 3) for a, b in ranges)])
    header = ["problem", *(f"steps {a} to {b}" for a, b in ranges)]
    table("6. what the adaptive lambda is", header, rows)
    stop = ["train.stop_grad_norm=1e-6", "train.max_steps=3000"]
    exact = study(PLAIN, "optimizer.lambda=adaptive,1/sqrt(T),0.1,1", sets=stop)
    whole_table("6. without noise", exact)
    untuned = study(NOISE, "optimizer.lambda=adaptive,1/sqrt(T),0.1,1", SEEDS)
    rows = [[setting, excess.cell(group)] for setting, group in by_setting(untuned).items()]
    table("6. at eta 0.1", ["setting", "excess %"], rows)
    rows = []
    for steps in (200, 2000):
        horizon = f"train.max_steps={steps}"
        for name, rates, sets in [
            ("adaptive", grid_of(0.0125, 3.2), ["optimizer.lambda=adaptive"]),
            ("1/sqrt(T)", grid_of(0.0125, 3.2), ["optimizer.lambda=1/sqrt(T)"]),
            ("1", grid_of(0.00078125, 0.2), []),
            ("1, linear", grid_of(0.00078125, 0.2), ["optimizer.schedule=linear"]),
        ]:
            rows.append([steps, name, *tuned(study, excess, rates, [*sets, horizon])])
    header = ["T", "lambda", "chosen eta", "excess %", "held out", "within twice the best"]
    table("6. tuned", header, rows)


def updates(study, excess):
    kinds = [
        ("sgd", []),
        ("sgd, momentum 0.9", ["optimizer.momentum=0.9"]),
        ("sgd, linear schedule", ["optimizer.schedule=linear"]),
        ("sgd, ema 0.98", ['optimizer.transforms=[{ kind = "ema", decay = 0.98 }]']),
        ("sgd, sam 0.05", ['optimizer.transforms=[{ kind = "sam", rho = 0.05 }]']),
        ("adamw", ["optimizer.kind=adamw"]),
        ("adamw, linear schedule", ["optimizer.kind=adamw", "optimizer.schedule=linear"]),
        ("schedule_free_adamw", ["optimizer.kind=schedule_free_adamw"]),
        ("lion", ["optimizer.kind=lion"]),
        ("lion, linear schedule", ["optimizer.kind=lion", "optimizer.schedule=linear"]),
    ]
    rates = grid_of(0.00025, 0.512)
    steps = "train.max_steps=500"
    rows = [[name, *tuned(study, excess, rates, [*sets, steps])] for name, sets in kinds]
    header = ["update", "chosen eta", "excess %", "held out", "within twice the best"]
    table(f"7. other updates, eta from {rates}", header, rows)
    print(f"held out, exact solution: {excess.held_out:.0f}")
    command = [study.program, "train", NOISE, "--output", str(study.directory / "muon")]
    refused = subprocess.run(
        [*command, "--set", "optimizer.kind=muon"], capture_output=True, text=True, check=False
    )
    print(f"muon: exit code {refused.returncode}\n{refused.stderr}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as directory:
        study = Studies(sys.argv[1], directory)
        reference(study)
        plain(study)
        law(study)
        excess = Excess(study)
        noise(study, excess)
        stability(study)
        bounds(study, excess)
        horizon(study, excess)
        cancels(study)
        adaptive(study, excess)
        updates(study, excess)


if __name__ == "__main__":
    main()
