"""Fitted preprocessing: what is done to a table before any framework sees it, in training and in serving.

The order is that of the YAML's block: columns without use go, gaps are filled, the project's own transforms
run, the selected features stay; then, for frameworks that take numbers only, categories become 0 and 1. All
that is learned on the way is plain JSON, which cannot execute anything when it is read back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlplatform.domain.batch.features import (
    MAX_LEVELS,
    Conformed,
    Feature,
    FeatureError,
    conform,
    describe,
    with_levels,
)
from mlplatform.domain.batch.pipeline import Imputation, Preprocessing
from mlplatform.errors import PlatformError

if TYPE_CHECKING:
    import pandas as pd

# A category gives at most as many columns; its rarer levels count as none of them.
MAX_COLUMNS_OF_CATEGORY = 100
MISSING = "(missing)"
NO_VALUE = "has no value at all"
_ARRAY = "__array__"
_TUPLE = "__tuple__"


# Why a column is not used that feature selection did not choose.
NOT_SELECTED = "was not selected"


class TransformError(PlatformError):
    """A project's own transform does not keep its contract; the message names it and the remedy."""


@dataclass(frozen=True)
class OwnTransform:
    """One of the project's classes: `transform` is its `module:Class`, `fitted` the object."""

    transform: str
    config: Mapping[str, Any]
    fitted: Any

    @classmethod
    def make(cls, transform: str, config: Mapping[str, Any], kind: Callable[..., Any]) -> OwnTransform:
        """A new object of the class `kind`. Raises TransformError."""
        try:
            made = kind(**config)
        except Exception as error:
            raise TransformError(
                f"{transform} cannot be made with config {dict(config)}: {type(error).__name__}: {error}"
            ) from error
        lacking = [name for name in ("fit", "transform") if not callable(getattr(made, name, None))]
        if lacking:
            raise TransformError(f"{transform} has no method {' and '.join(lacking)}")
        return cls(transform, config, made)

    def fit(self, frame: pd.DataFrame, target: pd.Series) -> None:
        """Raises TransformError."""
        try:
            self.fitted.fit(frame.copy(), target.copy())
        except Exception as error:
            raise TransformError(f"{self.transform}.fit failed: {type(error).__name__}: {error}") from error

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Raises TransformError."""
        import pandas as pd

        try:
            result = self.fitted.transform(frame.copy())
        except Exception as error:
            raise TransformError(
                f"{self.transform}.transform failed: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(result, pd.DataFrame):
            raise TransformError(f"{self.transform}.transform gave no DataFrame but {type(result).__name__}")
        if not result.index.equals(frame.index):
            raise TransformError(
                f"{self.transform}.transform gave {len(result):,} rows for {len(frame):,}, or in another"
                " order: it must give each row back under its index"
            )
        return result

    def state(self) -> Any:
        """What the object learned, as JSON: its `get_state()`, else its attributes.

        Raises:
            TransformError: an attribute is none of numbers, texts, lists, tuples, dictionaries, arrays.
        """
        own = getattr(self.fitted, "get_state", None)
        return _encode(own() if own else vars(self.fitted), self.transform)

    def restore(self, state: Any) -> None:
        decoded = _decode(state)
        own = getattr(self.fitted, "set_state", None)
        if own:
            own(decoded)
        else:
            vars(self.fitted).update(decoded)


@dataclass(frozen=True)
class Encoding:
    """From canonical features to numbers only: a column for each level of a category, a column that says
    that a value is missing where training had gaps, and the median where it is missing.
    """

    features: tuple[Feature, ...]
    medians: Mapping[str, float]
    gaps: tuple[str, ...]

    @classmethod
    def fit(cls, frame: pd.DataFrame, features: Sequence[Feature]) -> Encoding:
        """`frame`: (n, len(features)), canonical."""
        columns: Any = frame
        numeric = [feature.name for feature in features if feature.kind != "category"]
        medians = {name: float(columns[name].median()) for name in numeric}
        gaps = tuple(feature.name for feature in features if columns[feature.name].isna().any())
        return cls(tuple(features), medians, gaps)

    @property
    def sources(self) -> dict[str, str]:
        """The columns in order, each with the feature that it comes from."""
        result: dict[str, str] = {}
        for feature in self.features:
            if feature.kind == "category":
                result |= {f"{feature.name}={level}": feature.name for level in _kept(feature)}
            else:
                result[feature.name] = feature.name
        return result | {f"{name}={MISSING}": name for name in self.gaps}

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """(n, len(sources)) floats, none missing; an unseen level is 0 in each of its feature's columns."""
        import numpy as np
        import pandas as pd

        names: Any = list(self.sources)
        values = np.empty((len(frame), len(names)))
        at = 0
        for feature in self.features:
            column = frame[feature.name]
            if feature.kind == "category":
                levels = _kept(feature)
                codes = pd.Categorical(column, categories=list(levels)).codes
                values[:, at : at + len(levels)] = codes[:, None] == np.arange(len(levels))
                at += len(levels)
            else:
                values[:, at] = column.fillna(self.medians[feature.name])
                at += 1
        for name in self.gaps:
            values[:, at] = frame[name].isna()
            at += 1
        return pd.DataFrame(values, index=frame.index, columns=names)


@dataclass(frozen=True)
class Prepared:
    """`features` holds the rows that can be scored, as the estimator takes them; `refused` says of the others
    why they cannot, by index; `unseen` counts texts that training had not, by column.
    """

    features: pd.DataFrame
    refused: pd.Series
    unseen: dict[str, int]


@dataclass(frozen=True)
class Preparation:
    """The fitted whole. `inputs` are the columns that a table must have; `dropped` tells of the others why
    they are not used; `outputs` are the features that the estimator gets (before `encoding`, if any).
    """

    inputs: tuple[Feature, ...]
    dropped: Mapping[str, str]
    fills: Mapping[str, float | str]
    transforms: tuple[OwnTransform, ...]
    outputs: tuple[Feature, ...]
    encoding: Encoding | None = None
    # Rows that cannot be scored, of those that were to be learned.
    refused_rows: int = field(default=0, compare=False)

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        target: np.ndarray,
        preprocessing: Preprocessing | None = None,
        transforms: Sequence[OwnTransform] = (),
        selected: Sequence[str] | None = None,
        numbers_only: bool = False,
    ) -> Preparation:
        """Learns from the candidates for features: n rows without keys, label and ignored columns.

        Args:
            target: (n,) class numbers or values.
            transforms: not yet fitted, in the order of `preprocessing.custom`.
            selected: features to keep (None: all).

        Raises:
            FeatureError: a column is of no usable kind, a selected one is gone, or no feature is left.
            TransformError: a transform fails, gives a row other values in another frame, or learns what
                cannot be kept.
        """
        import numpy as np
        import pandas as pd

        features = describe(frame)
        conformed = conform(frame, features)
        usable = (conformed.reasons == "").to_numpy()
        kept: Any = conformed.frame[usable]
        learned = pd.Series(np.asarray(target)[usable], index=kept.index, name="target")
        dropped = _useless(kept, features, preprocessing)
        features = tuple(feature for feature in features if feature.name not in dropped)
        kept = kept[[feature.name for feature in features]]
        features = with_levels(kept, features)
        imputation = preprocessing.imputation if preprocessing else None
        fills = _fills(kept, features, imputation) if imputation else {}
        current = _filled(kept, fills)
        raw = current
        for transform in transforms:
            transform.fit(current, learned)
            # Now, and not when the model was trained for an hour.
            transform.state()
            current = transform.apply(current)
        if transforms:
            outputs = describe(current)
            current = _finite(conform(current, outputs), transforms)
            outputs = with_levels(current, outputs)
            _check_rowwise(raw, current, transforms, outputs)
            empty = {
                each.name: f"{NO_VALUE} after the transforms" for each in outputs if _empty(current, each)
            }
            dropped |= empty
            outputs = tuple(each for each in outputs if each.name not in empty)
        else:
            outputs = features
        if selected is not None:
            names = [feature.name for feature in outputs]
            gone = sorted(set(selected) - set(names))
            if gone:
                raise FeatureError(
                    f"selected features {', '.join(gone)} are not among those after preprocessing: run the"
                    " step feature_selection again"
                )
            dropped |= {name: NOT_SELECTED for name in names if name not in set(selected)}
            outputs = tuple(feature for feature in outputs if feature.name in set(selected))
        if not outputs:
            reasons = ", ".join(f"{name} {reason}" for name, reason in sorted(dropped.items()))
            raise FeatureError(f"no feature is left to learn from: {reasons or 'the table has none'}")
        if not transforms:
            # What the estimator does not get, a table to score need not have.
            features = outputs
            fills = {each.name: fills[each.name] for each in features if each.name in fills}
        encoding = Encoding.fit(current, outputs) if numbers_only else None
        return cls(features, dropped, fills, tuple(transforms), outputs, encoding, int((~usable).sum()))

    def apply(self, frame: pd.DataFrame) -> Prepared:
        """The same for n rows of another table: in training, in evaluation and in serving.

        Raises:
            FeatureError: columns are gone.
            TransformError: a transform fails.
        """
        conformed = conform(frame, self.inputs)
        reasons: Any = conformed.reasons
        usable = reasons == ""
        rows: Any = conformed.frame[usable]
        current = self._transformed(_filled(rows, self.fills))
        if self.encoding:
            current = self.encoding.apply(current)
        return Prepared(current, reasons[~usable], conformed.unseen)

    def features(self, frame: pd.DataFrame) -> pd.DataFrame:
        """(n, len(outputs)) canonical features before encoding, without the rows that cannot be scored."""
        conformed = conform(frame, self.inputs)
        rows: Any = conformed.frame[conformed.reasons == ""]
        return self._transformed(_filled(rows, self.fills))

    def _transformed(self, frame: pd.DataFrame) -> pd.DataFrame:
        current: Any = frame
        if self.transforms and current.empty:
            # A transform need not know what to do without rows.
            return current.iloc[:0].reindex(columns=[feature.name for feature in self.outputs])
        for transform in self.transforms:
            current = transform.apply(current)
        if self.transforms:
            current = _finite(conform(current, self.outputs), self.transforms)
        return current[[feature.name for feature in self.outputs]]

    def state(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "inputs": [feature.as_dict() for feature in self.inputs],
            "dropped": dict(self.dropped),
            "fills": dict(self.fills),
            "transforms": [
                {"transform": each.transform, "config": dict(each.config), "state": each.state()}
                for each in self.transforms
            ],
            "outputs": [feature.as_dict() for feature in self.outputs],
            "encoding": self.encoding
            and {"medians": dict(self.encoding.medians), "gaps": list(self.encoding.gaps)},
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any], make: Callable[[str, Mapping[str, Any]], Any]) -> Preparation:
        """What `state` gave. `make(transform, config)` makes one of the project's objects anew."""
        transforms = []
        for each in state["transforms"]:
            transform = OwnTransform(
                each["transform"], each["config"], make(each["transform"], each["config"])
            )
            transform.restore(each["state"])
            transforms.append(transform)
        outputs = tuple(map(Feature.from_dict, state["outputs"]))
        encoding = state["encoding"] and Encoding(
            outputs, state["encoding"]["medians"], tuple(state["encoding"]["gaps"])
        )
        inputs = tuple(map(Feature.from_dict, state["inputs"]))
        return cls(inputs, state["dropped"], state["fills"], tuple(transforms), outputs, encoding)


def _kept(feature: Feature) -> tuple[str, ...]:
    return (feature.levels or ())[:MAX_COLUMNS_OF_CATEGORY]


def _empty(frame: pd.DataFrame, feature: Feature) -> bool:
    return bool(frame[feature.name].isna().all())


def _useless(
    frame: pd.DataFrame, features: Sequence[Feature], preprocessing: Preprocessing | None
) -> dict[str, str]:
    missing: Any = frame.isna().mean()
    high = preprocessing.remove_high_missing if preprocessing else None
    constant = preprocessing.remove_constant if preprocessing else False
    dropped = {}
    for feature in features:
        name = feature.name
        if missing[name] == 1:
            dropped[name] = NO_VALUE
        elif feature.kind == "category" and frame[name].nunique() > MAX_LEVELS:
            dropped[name] = f"has more than {MAX_LEVELS:,} different texts"
        elif high and high.enabled and missing[name] >= high.threshold:
            dropped[name] = f"is missing in {missing[name]:.1%} of the rows"
        elif constant and frame[name].nunique(dropna=False) == 1:
            dropped[name] = "is constant"
    return dropped


def _fills(
    frame: pd.DataFrame, features: Sequence[Feature], imputation: Imputation
) -> dict[str, float | str]:
    """The value for gaps of each feature: a category's most frequent level whatever the strategy."""
    fills: dict[str, float | str] = {}
    for feature in features:
        column: Any = frame[feature.name]
        if feature.kind == "category" or imputation.strategy == "mode":
            counts = column.value_counts()
            common = min(counts.index[counts == counts.iloc[0]])
            fills[feature.name] = common if feature.kind == "category" else float(common)
        else:
            fills[feature.name] = float(column.median() if imputation.strategy == "median" else column.mean())
    return fills


def _filled(frame: pd.DataFrame, fills: Mapping[str, float | str]) -> pd.DataFrame:
    columns: Any = frame
    gaps = [name for name in fills if columns[name].isna().any()]
    return columns.assign(**{name: columns[name].fillna(fills[name]) for name in gaps})


def _finite(conformed: Conformed, transforms: Sequence[OwnTransform]) -> pd.DataFrame:
    bad: Any = conformed.reasons[conformed.reasons != ""]
    if len(bad):
        names = ", ".join(transform.transform for transform in transforms)
        raise TransformError(
            f"{names} gave values that no model takes in {len(bad):,} rows (row {bad.index[0]}:"
            f" {bad.iloc[0]}): give a missing value instead"
        )
    return conformed.frame


def _check_rowwise(
    raw: pd.DataFrame,
    whole: pd.DataFrame,
    transforms: Sequence[OwnTransform],
    outputs: Sequence[Feature],
) -> None:
    """A row's values may depend on what `fit` learned, but on no other row of its frame: in serving, rows
    come in chunks.
    """
    part = raw.iloc[: max(1, len(raw) // 3)]
    current = part
    for transform in transforms:
        current = transform.apply(current)
    current: Any = conform(current, outputs).frame
    wanted: Any = whole.loc[:, current.columns].iloc[: len(part)]
    different = [name for name in wanted.columns if not _equal(wanted[name], current[name])]
    if different:
        names = ", ".join(transform.transform for transform in transforms)
        raise TransformError(
            f"{names} gave other values of {', '.join(different)} for the same rows in a smaller frame: learn"
            " in fit() whatever depends on other rows, and only use it in transform()"
        )


def _equal(first: pd.Series, second: pd.Series) -> bool:
    if first.dtype == object:
        return first.equals(second)
    return bool(np.allclose(first, second, rtol=1e-9, atol=1e-12, equal_nan=True))


def _encode(value: Any, owner: str, path: str = "") -> Any:
    import math

    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        # JSON has no words for these; float() reads ours back.
        return value if math.isfinite(value) else {_ARRAY: [str(value)], "dtype": "float64", "shape": []}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        flat = [str(each) if value.dtype.kind == "f" else each for each in value.ravel().tolist()]
        return {_ARRAY: flat, "dtype": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, tuple):
        return {_TUPLE: [_encode(each, owner, f"{path}[{i}]") for i, each in enumerate(value)]}
    if isinstance(value, list):
        return [_encode(each, owner, f"{path}[{i}]") for i, each in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _encode(each, owner, f"{path}.{key}") for key, each in value.items()}
    raise TransformError(
        f"{owner}{path} is a {type(value).__name__}, which cannot be kept with the model: keep numbers,"
        " texts, lists, dictionaries with text keys or numpy arrays, or write get_state() and"
        " set_state(state)"
    )


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(each) for each in value]
    if not isinstance(value, dict):
        return value
    if _ARRAY in value:
        array = np.array(value[_ARRAY], dtype=value["dtype"]).reshape(value["shape"])
        return array if value["shape"] else array.item()
    if _TUPLE in value:
        return tuple(_decode(each) for each in value[_TUPLE])
    return {key: _decode(each) for key, each in value.items()}
