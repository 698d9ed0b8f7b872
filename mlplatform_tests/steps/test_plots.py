from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mlplatform.domain.batch.metrics import MetricError, Predictions
from mlplatform.steps.plots import evaluation_plots

KILOBYTE = 1_024
IMPORTANCES = {f"a feature with quite a long name {number}": 1 / (number + 1) for number in range(40)}


def binary(rows: int = 20_000) -> Predictions:
    random = np.random.default_rng(0)
    positive = random.beta(1, 2, rows)
    target = (random.random(rows) < positive).astype(int)
    return Predictions("binary_classification", target, np.column_stack([1 - positive, positive]))


def several(classes: int = 3, rows: int = 2_000) -> Predictions:
    random = np.random.default_rng(0)
    target = np.arange(rows) % classes
    scores = random.dirichlet(np.ones(classes), rows) + 0.2 * np.eye(classes)[target]
    return Predictions("multiclass_classification", target, scores / scores.sum(axis=1, keepdims=True))


def regression(rows: int = 20_000) -> Predictions:
    random = np.random.default_rng(0)
    target = random.normal(100, 20, rows)
    return Predictions("regression", target, target + random.normal(0, 5, rows))


CASES = {
    "binary": (
        binary(),
        ["stays", "leaves & <never> returns"],
        ["roc_curve", "precision_recall", "calibration", "confusion_matrix", "feature_importances"],
    ),
    "several": (several(), ["a", "b", "$c$"], ["roc_curve", "confusion_matrix", "feature_importances"]),
    "many": (several(30), list(range(30)), ["roc_curve", "feature_importances"]),
    "regression": (regression(), [], ["predicted_vs_actual", "residuals", "feature_importances"]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_problem_has_its_plots(case: str) -> None:
    predictions, classes, names = CASES[case]
    plots = evaluation_plots(predictions, classes, IMPORTANCES)
    assert [plot.name for plot in plots] == names
    for plot in plots:
        assert len(plot.svg) < 40 * KILOBYTE, plot.name
        root = ElementTree.fromstring(plot.svg)  # noqa: S314 – it is ours
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        # Lines and rectangles, no bitmap.
        assert "<image" not in plot.svg


def test_what_is_read_off_stands_in_the_plot() -> None:
    predictions, classes, _ = CASES["binary"]
    plots = {plot.name: plot.svg for plot in evaluation_plots(predictions, classes, {})}
    assert "feature_importances" not in plots
    assert "model, area 0." in plots["roc_curve"]
    assert "Confusion matrix at probability 0.5" in plots["confusion_matrix"]
    assert "stays" in plots["confusion_matrix"]


def test_the_same_figures_give_the_same_bytes() -> None:
    """In another process, too: no date, no random ids."""
    code = """
from mlplatform.steps.plots import evaluation_plots
from mlplatform_tests.steps.test_plots import CASES, IMPORTANCES
import hashlib, sys
predictions, classes, _ = CASES["several"]
svg = "".join(plot.svg for plot in evaluation_plots(predictions, classes, IMPORTANCES))
print(hashlib.sha256(svg.encode()).hexdigest())
print("matplotlib.pyplot" in sys.modules)
"""
    told = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in "ab"
    ]
    assert told[0] == told[1]
    assert told[0].splitlines()[1] == "False"


def test_one_class_only_is_an_error() -> None:
    only = binary(100).only(binary(100).target == 0)
    with pytest.raises(MetricError, match="two classes"):
        evaluation_plots(only, [0, 1], {})
