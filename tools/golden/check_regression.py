"""Compares a regression run of `reparam train` with scikit-learn's LinearRegression on the same rows and columns.

    check_regression.py RUN [--data FILE.csv] [--json]

Reads from the run directory `config.resolved.toml` (`[data] train = "file.csv"`, `features`, `target`), `split.json`
(`train` and `test`: numbers of the file's data rows, counted from 0, without blank lines) and `report.json` (`test_mse`,
`test_r2`, `least_squares_test_mse`). Fits LinearRegression on the training rows and computes mean squared error and R^2 on
the test rows, in f64 and in the units of the file. A relative path is looked for from the working directory, then from the
run directory; `--data` names another place. Without `features` every other column is one.

Two numbers agree if they differ by at most half a unit in the fourth significant digit of scikit-learn's. Errors below
1e-10 of the test target's variance count as equal: an exact fit leaves nothing but rounding. Exit code 1 on a difference,
and on anything that is missing.
"""

import argparse
import csv
import json
import math
import sys
import tomllib
from pathlib import Path

import numpy
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_squared_error, r2_score

DIGITS = 4
ROUNDING = 1e-10


class Refused(Exception):
    """The run directory or the data cannot be compared."""


def field(value, name, where):
    """A field that has to be there."""
    if not isinstance(value, dict) or name not in value:
        raise Refused(f"{where}: no `{name}`")
    return value[name]


def data_file(config, run, override):
    """The CSV file of a run."""
    if override is not None:
        return override
    files = field(field(config, "data", "config.resolved.toml"), "train", "config.resolved.toml [data]")
    files = [files] if isinstance(files, str) else files
    if len(files) != 1:
        raise Refused(f"config.resolved.toml [data] train: {len(files)} files, but row numbers mean one")
    candidates = [Path(files[0]), run / files[0]]
    for path in candidates:
        if path.is_file():
            return path
    raise Refused(f"{files[0]}: not found from the working directory or from {run}; name it with --data")


def read_table(path):
    """The names of the columns and the rows of a CSV file, cells without white space around them."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(cell.strip() for cell in row)]
    if not rows:
        raise Refused(f"{path}: empty")
    header, rows = rows[0], rows[1:]
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise Refused(f"{path}: data row {number} has {len(row)} cells instead of {len(header)}")
    return header, rows


def select(path, header, rows, columns, numbers):
    """The numbers in `columns` of the rows with the given numbers."""
    for name in columns:
        if header.count(name) != 1:
            raise Refused(f"{path}: {header.count(name)} columns are called `{name}`")
    indices = [header.index(name) for name in columns]
    try:
        values = [[float(rows[number][index]) for index in indices] for number in numbers]
    except ValueError as error:
        raise Refused(f"{path}: {error}") from error
    table = numpy.array(values, dtype=numpy.float64).reshape(len(numbers), len(columns))
    if not numpy.isfinite(table).all():
        raise Refused(f"{path}: a number of the chosen rows is not finite")
    return table


def split_rows(split, n_rows):
    """The two lists of row numbers: inside the file, without repetition, apart from each other."""
    train, test = (field(split, name, "split.json") for name in ["train", "test"])
    for name, numbers in [("train", train), ("test", test)]:
        if not numbers:
            raise Refused(f"split.json: `{name}` is empty")
        outside = [number for number in numbers if type(number) is not int or not 0 <= number < n_rows]
        if outside:
            raise Refused(f"split.json: `{name}` has {outside[0]}, the file has the data rows 0 to {n_rows - 1}")
    if len(set(train + test)) != len(train) + len(test):
        raise Refused("split.json: a row is there twice")
    return train, test


def agrees(reported, expected, floor):
    """Whether two numbers are the same to four significant digits, or differ by at most `floor`."""
    if not (isinstance(reported, int | float) and math.isfinite(reported) and math.isfinite(expected)):
        return False
    half_unit = 0.5 * 10.0 ** (math.floor(math.log10(abs(expected))) - DIGITS + 1) if expected != 0 else 0.0
    return abs(reported - expected) <= max(half_unit, floor)


def compare(run, override):
    """What was reported, what scikit-learn computes, and whether they agree, by name."""
    config = tomllib.loads((run / "config.resolved.toml").read_text(encoding="utf-8"))
    split = json.loads((run / "split.json").read_text(encoding="utf-8"))
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    path = data_file(config, run, override)
    header, rows = read_table(path)
    data = field(config, "data", "config.resolved.toml")
    target = field(data, "target", "config.resolved.toml [data]")
    features = data.get("features") or [name for name in header if name != target]
    train, test = split_rows(split, len(rows))

    x, test_x = (select(path, header, rows, features, numbers) for numbers in [train, test])
    y, test_y = (select(path, header, rows, [target], numbers)[:, 0] for numbers in [train, test])
    prediction = LinearRegression().fit(x, y).predict(test_x)
    mse = float(mean_squared_error(test_y, prediction))
    expected = {"test_mse": mse, "test_r2": float(r2_score(test_y, prediction)), "least_squares_test_mse": mse}
    floors = {"test_mse": ROUNDING * float(test_y.var()), "test_r2": ROUNDING}
    floors["least_squares_test_mse"] = floors["test_mse"]
    return {
        name: {
            "reported": field(report, name, "report.json"),
            "scikit_learn": value,
            "agrees": agrees(report[name], value, floors[name]),
        }
        for name, value in expected.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory of `reparam train`")
    parser.add_argument("--data", type=Path, help="the CSV file, where the run's path does not lead to it")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, also on refusal")
    arguments = parser.parse_args()
    try:
        result = compare(arguments.run, arguments.data)
    except (Refused, OSError, ValueError, TypeError) as error:
        if arguments.json:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        else:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    if arguments.json:
        print(json.dumps(result))
    else:
        for name, row in result.items():
            verdict = "agrees" if row["agrees"] else "DIFFERS"
            print(f"{name}: {row['reported']} reported, {row['scikit_learn']} by scikit-learn: {verdict}")
    if not all(row["agrees"] for row in result.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
