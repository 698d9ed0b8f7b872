"""Plots of an evaluated model as SVG: the same figures give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlplatform.domain.batch import curves
from mlplatform.domain.batch.metrics import Predictions, evaluate
from mlplatform.io.plugins.model_registries import Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES = (5.0, 4.0)
BLUE, GREY, RED = "#2a6fbb", "#8a8f98", "#b3402a"
# More classes than colours tell apart, or cells hold readable numbers.
MAX_CURVES = 8
MAX_CELLS = 20
# A dot is some 150 bytes.
MAX_DOTS = 150
_NAME_LENGTH = 28


def evaluation_plots(
    predictions: Predictions, classes: Sequence[int | str], importances: Mapping[str, float]
) -> list[Plot]:
    """The figures for the problem type: ROC, precision-recall, calibration and confusion; predicted against
    actual and residuals for regression; and importances, if there are any.

    Raises:
        MetricError: the rows are of one class only.
    """
    if predictions.problem_type == "regression":
        drawn = {"predicted_vs_actual": _predicted(predictions), "residuals": _residuals(predictions)}
    elif predictions.problem_type == "binary_classification":
        drawn = {
            "roc_curve": _roc(predictions),
            "precision_recall": _precision_recall(predictions),
            "calibration": _calibration(predictions),
            "confusion_matrix": _confusion(predictions, classes),
        }
    else:
        drawn = {"roc_curve": _roc_each(predictions, classes)}
        if len(classes) <= MAX_CELLS:
            drawn["confusion_matrix"] = _confusion(predictions, classes)
    if importances:
        drawn["feature_importances"] = _importances(importances)
    return [Plot(name, as_svg(figure)) for name, figure in drawn.items()]


def as_svg(figure: Figure) -> str:
    from matplotlib import rc_context

    content = io.StringIO()
    # Fixed ids and no date; text stays text, which is smaller than its outlines.
    with rc_context({"svg.hashsalt": "mlplatform", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """Without pyplot, whose figures are global."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _unit(axes: Axes) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def _roc(predictions: Predictions) -> Figure:
    area = evaluate(["roc_auc"], predictions)["roc_auc"]
    figure, axes = _axes("ROC curve", "false positive rate", "true positive rate")
    curve = curves.roc(predictions)
    axes.plot([0, 1], [0, 1], "--", color=GREY, label="chance")
    axes.plot(curve.x, curve.y, color=BLUE, label=f"model, area {area:.3f}")
    _unit(axes)
    axes.legend(loc="lower right")
    return figure


def _roc_each(predictions: Predictions, classes: Sequence[int | str]) -> Figure:
    area = evaluate(["roc_auc"], predictions)["roc_auc"]
    figure, axes = _axes(f"ROC curves, mean area {area:.3f}", "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], "--", color=GREY)
    for number, name in enumerate(classes[:MAX_CURVES]):
        curve = curves.roc(predictions, number)
        axes.plot(curve.x, curve.y, label=f"{_short(name)} against the rest")
    _unit(axes)
    axes.legend(loc="lower right")
    return figure


def _precision_recall(predictions: Predictions) -> Figure:
    average = evaluate(["average_precision"], predictions)["average_precision"]
    share = float(predictions.positives.mean())
    figure, axes = _axes("Precision and recall", "recall", "precision")
    curve = curves.precision_recall(predictions)
    axes.plot([0, 1], [share, share], "--", color=GREY, label=f"chance, {share:.3f}")
    axes.plot(curve.x, curve.y, color=BLUE, label=f"model, average precision {average:.3f}")
    _unit(axes)
    axes.legend(loc="upper right")
    return figure


def _calibration(predictions: Predictions) -> Figure:
    figure, axes = _axes("Calibration", "predicted probability", "share of positives")
    points = curves.calibration(predictions)
    axes.plot([0, 1], [0, 1], "--", color=GREY, label="calibrated")
    axes.plot(
        points.probability, points.share, "o-", color=BLUE, label=f"model, about {points.rows[0]:,} rows each"
    )
    _unit(axes)
    axes.legend(loc="upper left")
    return figure


def _confusion(predictions: Predictions, classes: Sequence[int | str]) -> Figure:
    table = curves.confusion(predictions)
    shares = table / table.sum(axis=1, keepdims=True).clip(min=1)
    title = "Confusion matrix"
    if predictions.problem_type == "binary_classification":
        title += f" at probability {predictions.threshold:g}"
    figure, axes = _axes(title, "predicted", "actual")
    # Rectangles and not an image, which would be a bitmap in the SVG.
    axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1)
    names = [_short(name) for name in classes]
    centers = [number + 0.5 for number in range(len(names))]
    axes.set_xticks(centers, names, rotation=0 if len(names) <= 5 else 90)
    axes.set_yticks(centers, names)
    axes.invert_yaxis()
    for (row, column), count in _cells(table):
        color = "white" if shares[row, column] > 0.6 else "black"
        text = f"{count:,}\n{shares[row, column]:.0%}" if len(names) <= 5 else f"{count}"
        axes.text(column + 0.5, row + 0.5, text, color=color, ha="center", va="center")
    return figure


def _cells(table: Any) -> Any:
    import numpy as np

    return np.ndenumerate(table)


def _importances(importances: Mapping[str, float]) -> Figure:
    listed = curves.largest(importances)
    rest = len(importances) - len(listed)
    figure, axes = _axes("Feature importances", "share" + (f"; {rest} smaller ones" if rest else ""), "")
    axes.barh([_short(name) for name in listed], list(listed.values()), color=BLUE)
    axes.invert_yaxis()
    return figure


def _predicted(predictions: Predictions) -> Figure:
    determination = evaluate(["r2"], predictions)["r2"]
    figure, axes = _axes(f"Predicted against actual, R² {determination:.3f}", "actual", "predicted")
    rows = curves.sample(predictions.rows, MAX_DOTS)
    actual, predicted = predictions.target[rows], predictions.scores[rows]
    ends = [min(actual.min(), predicted.min()), max(actual.max(), predicted.max())]
    axes.plot(ends, ends, "--", color=GREY)
    axes.plot(actual, predicted, "o", color=BLUE, markersize=3, alpha=0.6)
    return figure


def _residuals(predictions: Predictions) -> Figure:
    residuals = predictions.target - predictions.scores
    figure, axes = _axes("Residuals", "actual minus predicted", "rows")
    axes.hist(residuals, bins=30, color=BLUE)
    axes.axvline(float(residuals.mean()), color=RED, label=f"mean {residuals.mean():.4g}")
    axes.legend(loc="upper right")
    return figure


def _short(name: int | str) -> str:
    text = str(name)
    # Matplotlib would take a dollar for mathematics.
    text = text if len(text) <= _NAME_LENGTH else text[: _NAME_LENGTH - 1] + "…"
    return text.replace("$", r"\$")
