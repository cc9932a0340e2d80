"""Writes `classes.json`: scikit-learn's measures of classes, and PyTorch's losses.

Each case has logits, one list a row, and the rows' classes. `kind` is "one" (the prediction is the largest logit, the loss
`torch.nn.functional.cross_entropy`) or "several" (every logit >= 0, `binary_cross_entropy_with_logits`). F1 is over all
classes of the model, whether or not they occur, with `zero_division=0`. Everything is f64.
"""

import numpy
import sklearn
import torch
from golden_common import GOLDEN, setup, versions, write_json
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef


def rounded(logits):
    """Numbers that f32 holds exactly, so that a reader in f32 loses nothing."""
    return logits.astype(numpy.float32).astype(numpy.float64)


def one(name, logits, classes):
    logits = rounded(logits)
    n_classes = logits.shape[1]
    predicted = logits.argmax(1)
    f1 = {
        average: f1_score(classes, predicted, labels=range(n_classes), average=average, zero_division=0)
        for average in ("macro", "micro")
    }
    loss = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(classes))
    return case(name, "one", logits, [[int(c)] for c in classes], loss, accuracy_score(classes, predicted), f1) | {
        "matthews": float(matthews_corrcoef(classes, predicted))
    }


def several(name, logits, rows):
    logits = rounded(logits)
    n_classes = logits.shape[1]
    actual = numpy.array([[c in row for c in range(n_classes)] for row in rows])
    predicted = logits >= 0
    f1 = {average: f1_score(actual, predicted, average=average, zero_division=0) for average in ("macro", "micro")}
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits), torch.tensor(actual, dtype=torch.float64)
    )
    return case(name, "several", logits, rows, loss, accuracy_score(actual, predicted), f1)


def case(name, kind, logits, rows, loss, accuracy, f1):
    return {
        "name": name,
        "kind": kind,
        "logits": logits.tolist(),
        "classes": rows,
        "loss": float(loss),
        "accuracy": float(accuracy),
        "f1_macro": float(f1["macro"]),
        "f1_micro": float(f1["micro"]),
    }


def main():
    setup(20)
    random = numpy.random.default_rng(20)

    def logits(rows, classes, scale=2.0):
        return random.normal(0.0, scale, (rows, classes))

    skewed = random.choice(4, 60, p=[0.7, 0.2, 0.1, 0.0])
    sets = [sorted(random.choice(3, random.integers(0, 4), replace=False).tolist()) for _ in range(40)]
    cases = [
        one("two_classes", logits(50, 2), random.integers(0, 2, 50)),
        one("five_classes", logits(80, 5), random.integers(0, 5, 80)),
        one("a_class_that_no_row_has", logits(60, 4) + 2 * numpy.eye(4)[skewed], skewed),
        one("one_prediction_for_all", logits(20, 3, 0.1) + numpy.array([9.0, 0.0, 0.0]), random.integers(0, 3, 20)),
        one("all_right", 30 * numpy.eye(3)[[0, 1, 2, 2]], numpy.array([0, 1, 2, 2])),
        one("large_logits", logits(12, 3, 300.0), random.integers(0, 3, 12)),
        several("several", logits(40, 3), sets),
        several("several_without_any", logits(10, 2) - 9.0, [[] for _ in range(10)]),
        several("several_large_logits", logits(10, 2, 300.0), [[0], [1], [0, 1], [], [0], [1], [1], [], [0], [0, 1]]),
    ]
    write_json(GOLDEN / "classes.json", {"versions": versions() | {"scikit-learn": sklearn.__version__}, "cases": cases})


if __name__ == "__main__":
    main()
