"""`python -m mlplatform_tests.io.plugins.sklearn_parameters` writes the table of hyper-parameters from the
installed scikit-learn, into the file beside the plugin.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from sklearn.utils._param_validation import Hidden, Interval, Options, RealNotInt, StrOptions

from mlplatform.io.plugins.frameworks import sklearn as plugin

TABLE = Path(plugin.__file__).with_name("sklearn_parameters.json")
# What a pipeline cannot say or must not: objects, output, state between calls, and the class order.
LEFT_OUT = {
    "estimator",
    "probability",
    "verbose",
    "warm_start",
    "copy_X",
    "break_ties",
    "decision_function_shape",
}
# Named columns mean nothing to an estimator that gets a matrix.
LEFT_OUT |= {"monotonic_cst", "interaction_cst", "categorical_features"}
ANY_SEED = [{"integer": [0, 2**32 - 1], "open": []}, "null"]


def parameters_of_installed() -> dict[str, dict[str, list[Any]]]:
    return {name: _parameters(name, each.module) for name, each in plugin.ALGORITHMS.items()}


def _parameters(name: str, module: str) -> dict[str, list[Any]]:
    estimator = getattr(importlib.import_module(module), name)
    constraints = estimator._parameter_constraints
    return {
        parameter: _kinds(parameter, constraints[parameter])
        for parameter in inspect.signature(estimator).parameters
        if parameter not in LEFT_OUT
    }


def _kinds(parameter: str, constraints: list[Any]) -> list[Any]:
    if constraints == ["random_state"]:
        return ANY_SEED
    kinds = [kind for each in constraints if (kind := _kind(each, parameter)) is not None]
    assert kinds, (parameter, constraints)
    return kinds


def _kind(constraint: Any, parameter: str) -> Any:
    if constraint is None:
        return "null"
    if constraint == "boolean":
        return "boolean"
    if constraint in ("array-like", list, tuple):
        return None if parameter in ("alpha", "class_weight", "precompute") else "list"
    if constraint is dict:
        return "mapping"
    if constraint is str:
        return {"options": ["accuracy", "loss", "neg_log_loss", "r2", "roc_auc"]}
    if constraint is Integral:
        return {"integer": [None, None], "open": []}
    if isinstance(constraint, Hidden):
        return None
    if isinstance(constraint, StrOptions | Options):
        return {"options": sorted(set(constraint.options) - {"precomputed", "pairwise"})}
    if isinstance(constraint, Interval):
        name = {Integral: "integer", Real: "number", RealNotInt: "fraction"}[constraint.type]
        infinite = (float("inf"), float("-inf"))
        bounds = [None if each in infinite else each for each in (constraint.left, constraint.right)]
        ends = {"left": ["right"], "right": ["left"], "both": [], "neither": ["left", "right"]}
        sides = [s for s in ends[constraint.closed] if bounds[s == "right"] is not None]
        return {name: bounds, "open": sides}
    # Callables and objects.
    return None


def as_text(table: Mapping[str, Any]) -> str:
    """One line a hyper-parameter."""
    models = []
    for name, parameters in table.items():
        lines = ",\n".join(f"    {json.dumps(key)}: {json.dumps(kinds)}" for key, kinds in parameters.items())
        models.append(f"  {json.dumps(name)}: {{\n{lines}\n  }}")
    return "{\n" + ",\n".join(models) + "\n}\n"


if __name__ == "__main__":
    TABLE.write_text(as_text(parameters_of_installed()))
