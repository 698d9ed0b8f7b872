"""Checks of data: what a pipeline declares, and what its steps always look at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlplatform.domain.batch.frames import (
    EXAMPLES,
    arrow_compute,
    as_table,
    examples,
    is_null,
    key_hashes,
    no_such_column,
)
from mlplatform.domain.batch.pipeline import DataCheck
from mlplatform.errors import PlatformError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from mlplatform.domain.batch.frames import Frame

    # Gives a boolean for each row of a frame: True where it is good.
    RowFunction = Callable[[pd.DataFrame], Sequence[bool] | np.ndarray | pd.Series]

OnFailure = Literal["fail", "warn", "skip_row"]
RARE_SHARE = 0.01


class CheckError(PlatformError):
    """A check cannot be made; the message names it and the remedy."""


@dataclass(frozen=True)
class CheckResult:
    """Of `rows`, `failing_rows` did not pass, of which `examples` shows the first few."""

    name: str
    passed: bool
    description: str
    on_failure: OnFailure = "fail"
    rows: int = 0
    failing_rows: int = 0
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class SkippedRows:
    """(n,) booleans of the rows that must not go on, and for each the reason (empty where it may)."""

    mask: np.ndarray
    reasons: list[str]


class DataChecks:
    """The declared checks, over a frame that may come in chunks: `add` each of them, then ask for `results`.

    - null_threshold: in each column, at most the share `threshold` (0 unless given) of the values is missing;
    - value_range: each value of the columns is between `min` and `max`, ends included; missing ones pass;
    - expected_columns: the columns are there;
    - unique_key: no two rows have the same values in the columns. The first of them passes. Keys of earlier
      chunks are kept as 8 bytes each;
    - type_check: the columns are of the type; numbers that are whole everywhere are integers too, and dates
      timestamps. Of a column of text, the rows that fail are those which could not be read as the type;
    - custom: the function gives True.

    Where `threshold` is given, the last three and value_range let that share of the rows fail. A check with
    `skip_row` skips every row that fails, whatever the threshold; and where no single row can be blamed (a
    column is not there), nothing is skipped, and the result is that of `fail`.

    Args:
        functions: those of custom checks, by their name `module:function`.
        show: column that names a row in examples (its key).
    """

    def __init__(
        self,
        checks: Sequence[DataCheck],
        functions: Mapping[str, RowFunction] | None = None,
        show: str | None = None,
    ) -> None:
        self._checks = [_MAKERS[check.name](check) for check in checks]
        for each in self._checks:
            if isinstance(each, _Custom):
                each.find(functions or {})
        self._show = show

    def add(self, frame: Frame) -> SkippedRows:
        """Looks at the next rows, and says which of them must be skipped.

        Raises:
            CheckError: a custom function failed, or gave something else than a boolean for each row.
        """
        table = as_table(frame)
        mask, reasons = np.zeros(table.num_rows, dtype=bool), [""] * table.num_rows
        for check in self._checks:
            failing = check.add(table, self._show)
            if check.check.on_failure != "skip_row":
                continue
            for row in np.flatnonzero(failing):
                reasons[row] = f"{reasons[row]}; {check.reason}" if reasons[row] else check.reason
            mask |= failing
        return SkippedRows(mask, reasons)

    def results(self) -> list[CheckResult]:
        return [check.result() for check in self._checks]


def key_checks(primary_key: str, on_failure: OnFailure = "fail") -> list[DataCheck]:
    """What must hold for any table: each row has a key of its own."""
    return [
        DataCheck(name="null_threshold", columns=[primary_key], threshold=0, on_failure=on_failure),
        DataCheck(name="unique_key", columns=[primary_key], on_failure=on_failure),
    ]


def enough_rows(rows: int, minimum: int) -> CheckResult:
    return CheckResult(
        "enough_rows", rows >= minimum, f"{rows} rows, at least {minimum} are needed", rows=rows
    )


def class_balance(
    counts: Mapping[Any, int], classes: Sequence[Any] | None = None, rare_share: float = RARE_SHARE
) -> CheckResult:
    """Every class is there, and the rarest is no rarer than `rare_share`. A class that is not there must fail
    the training, a rare one is worth a warning: see `on_failure` of the result.

    Args:
        counts: rows of each class.
        classes: those that the pipeline declares; any others fail too.
    """
    rows = sum(counts.values())
    present = {label: count for label, count in counts.items() if count}
    shown = ", ".join(
        f"{label}: {count}" for label, count in sorted(present.items(), key=lambda item: str(item[0]))
    )
    name = "class_balance"
    if classes is not None:
        absent = [str(label) for label in classes if label not in present]
        strange = [str(label) for label in present if label not in classes]
        if absent or strange:
            what = [f"no rows of {', '.join(absent)}"] if absent else []
            what += [f"undeclared {', '.join(strange)}"] if strange else []
            failing = sum(count for label, count in present.items() if label not in classes)
            return CheckResult(
                name,
                False,
                f"{'; '.join(what)} (rows by class: {shown or 'none'}); correct the label column, or "
                "training.schema.target.classes",
                rows=rows,
                failing_rows=failing,
            )
    if len(present) < 2:
        return CheckResult(
            name, False, f"one class only ({shown or 'no rows'}): two are needed at least", rows=rows
        )
    rarest = min(present, key=lambda label: present[label])
    share = present[rarest] / rows
    return CheckResult(
        name,
        share >= rare_share,
        f"rows by class: {shown}; {share:.2%} are {rarest}"
        + (f", less than {rare_share:.0%}" if share < rare_share else ""),
        "warn",
        rows=rows,
    )


def kind_of(column: pa.DataType) -> str:
    """number, text, boolean, timestamp, or Arrow's own name of the type."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(column):
        return kind_of(column.value_type)  # type: ignore[attr-defined]
    if types.is_integer(column) or types.is_floating(column) or types.is_decimal(column):
        return "number"
    if types.is_string(column) or types.is_large_string(column):
        return "text"
    if types.is_boolean(column):
        return "boolean"
    return "timestamp" if types.is_timestamp(column) or types.is_date(column) else str(column)


class _RowCheck(ABC):
    """A check that blames rows."""

    def __init__(self, check: DataCheck) -> None:
        self.check = check
        self._rows = 0
        self._failing = 0
        self._problem: str | None = None
        self._examples: list[str] = []

    @property
    def reason(self) -> str:
        """Why a row is skipped."""
        return f"{self.check.name} of {', '.join(self.check.columns) or self.check.function}"

    @property
    @abstractmethod
    def _rule(self) -> str:
        """What is asked of a row, or of a column."""

    def add(self, table: pa.Table, show: str | None) -> np.ndarray:
        """(n,) booleans of the rows that fail."""
        self._rows += table.num_rows
        missing = [name for name in self.check.columns if name not in table.column_names]
        if missing:
            self._problem = "; ".join(no_such_column(name, table.column_names) for name in missing)
            return np.zeros(table.num_rows, dtype=bool)
        failing = self._failing_rows(table)
        self._failing += int(failing.sum())
        if failing.any() and len(self._examples) < EXAMPLES:
            columns = [*([show] if show in table.column_names else []), *self.check.columns]
            names = [str(name) for name in columns] or table.column_names[:3]
            self._examples += examples(table, np.flatnonzero(failing), names)
        return failing

    def result(self) -> CheckResult:
        check = self.check
        share = self._failing / self._rows if self._rows else 0.0
        allowed = 0.0 if check.on_failure == "skip_row" else check.threshold or 0.0
        shown = self._examples[:EXAMPLES]
        said = f"{self._rule}: {self._failing} of {self._rows} rows fail"
        if shown:
            said += f" (first: {'; '.join(shown)})"
        return CheckResult(
            check.name,
            self._problem is None and share <= allowed,
            self._problem or said,
            "fail" if self._problem and check.on_failure == "skip_row" else check.on_failure,
            self._rows,
            self._failing,
            tuple(shown),
        )

    @abstractmethod
    def _failing_rows(self, table: pa.Table) -> np.ndarray:
        """(n,) booleans; the columns are there."""


class _NullThreshold(_RowCheck):
    def __init__(self, check: DataCheck) -> None:
        super().__init__(check)
        self._nulls: Counter[str] = Counter()

    @property
    def reason(self) -> str:
        return f"{' or '.join(self.check.columns)} is missing"

    def _failing_rows(self, table: pa.Table) -> np.ndarray:
        failing = np.zeros(table.num_rows, dtype=bool)
        for name in self.check.columns:
            nulls = is_null(table.column(name))
            self._nulls[name] += int(nulls.sum())
            failing |= nulls
        return failing

    def result(self) -> CheckResult:
        result = super().result()
        if self._problem:
            return result
        allowed = 0.0 if self.check.on_failure == "skip_row" else self.check.threshold or 0.0
        shares = {name: count / self._rows if self._rows else 0.0 for name, count in self._nulls.items()}
        shown = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
        at = f" (first: {'; '.join(result.examples)})" if result.examples else ""
        passed = all(share <= allowed for share in shares.values())
        description = f"at most {allowed:.2%} of each column may be missing: {shown}{at}"
        return CheckResult(
            result.name,
            passed,
            description,
            result.on_failure,
            result.rows,
            result.failing_rows,
            result.examples,
        )

    @property
    def _rule(self) -> str:
        return "values may not be missing"


class _ValueRange(_RowCheck):
    @property
    def _rule(self) -> str:
        bounds = [
            f"{word} {bound:g}"
            for word, bound in (("at least", self.check.min), ("at most", self.check.max))
            if bound is not None
        ]
        return f"{', '.join(self.check.columns)} must be {' and '.join(bounds)}"

    @property
    def reason(self) -> str:
        return self._rule

    def _failing_rows(self, table: pa.Table) -> np.ndarray:
        import pyarrow as pa

        pc = arrow_compute()

        failing = np.zeros(table.num_rows, dtype=bool)
        for name in self.check.columns:
            column = table.column(name)
            if kind_of(column.type) != "number" and not pa.types.is_null(column.type):
                self._problem = f"{name} is of type {column.type}, and a range is one of numbers"
                continue
            numbers = pc.cast(column, pa.float64(), safe=False).to_numpy()
            if self.check.min is not None:
                failing |= numbers < self.check.min
            if self.check.max is not None:
                failing |= numbers > self.check.max
        return failing


class _ExpectedColumns(_RowCheck):
    @property
    def _rule(self) -> str:
        return f"the columns {', '.join(self.check.columns)} are there"

    def _failing_rows(self, table: pa.Table) -> np.ndarray:
        return np.zeros(table.num_rows, dtype=bool)


class _UniqueKey(_RowCheck):
    def __init__(self, check: DataCheck) -> None:
        super().__init__(check)
        # Sorted hashes, each part much longer than the next: what is merged again and again is short.
        self._seen: list[np.ndarray] = []

    @property
    def _rule(self) -> str:
        return f"{', '.join(self.check.columns)} must be unique"

    @property
    def reason(self) -> str:
        return f"{', '.join(self.check.columns)} is repeated"

    def _failing_rows(self, table: pa.Table) -> np.ndarray:
        hashes = key_hashes(table, self.check.columns)
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        failing = np.zeros(len(hashes), dtype=bool)
        failing[order[1:]] = ordered[1:] == ordered[:-1]
        for seen in self._seen:
            positions = np.searchsorted(seen, ordered)
            failing[order] |= seen[np.minimum(positions, len(seen) - 1)] == ordered
        if len(ordered):
            self._seen.append(ordered)
        while len(self._seen) > 1 and len(self._seen[-2]) < 2 * len(self._seen[-1]):
            self._seen[-2:] = [np.sort(np.concatenate(self._seen[-2:]), kind="stable")]
        return failing


class _TypeCheck(_RowCheck):
    @property
    def _rule(self) -> str:
        return f"{', '.join(self.check.columns)} must be of type {self.check.type}"

    @property
    def reason(self) -> str:
        return f"{', '.join(self.check.columns)} is no {self.check.type}"

    def _failing_rows(self, table: pa.Table) -> np.ndarray:
        failing = np.zeros(table.num_rows, dtype=bool)
        for name in self.check.columns:
            column = table.column(name)
            wrong = _not_of_type(column, str(self.check.type))
            if wrong is None:
                self._problem = f"{name} is of type {column.type}, and must be {self.check.type}"
            else:
                failing |= wrong & ~is_null(column)
        return failing


def _not_of_type(column: pa.ChunkedArray, wanted: str) -> np.ndarray | None:
    """(n,) booleans of the values that are not; None if the column as a whole is of another type."""
    import pyarrow as pa

    kind = kind_of(column.type)
    good = np.zeros(len(column), dtype=bool)
    if wanted == "integer" and pa.types.is_floating(column.type):
        numbers = column.to_numpy()
        return ~(np.isfinite(numbers) & (numbers == np.floor(numbers)))
    if pa.types.is_null(column.type) or kind == {"integer": "number", "string": "text"}.get(wanted, wanted):
        return good
    if kind != "text" or wanted == "string":
        return None
    wrong = _unreadable(column, wanted)
    # All can be read, and yet the column is text: no row is to blame.
    return wrong if wrong.any() else None


def _unreadable(column: pa.ChunkedArray, wanted: str) -> np.ndarray:
    import pandas as pd
    import pyarrow as pa

    pc = arrow_compute()

    if wanted == "boolean":
        known = pc.is_in(pc.utf8_lower(column), pa.array(["true", "false", "t", "f", "0", "1"]))
        return ~known.to_numpy(zero_copy_only=False).astype(bool)
    texts = pd.Series(column.to_pandas())
    if wanted == "timestamp":
        return pd.Series(pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=True)).isna().to_numpy()
    numbers = np.asarray(pd.to_numeric(texts, errors="coerce"), dtype=float)
    return np.isnan(numbers) | ((wanted == "integer") & (numbers != np.floor(numbers)))


class _Custom(_RowCheck):
    _function: RowFunction

    def find(self, functions: Mapping[str, RowFunction]) -> None:
        name = self.check.function or ""
        if name not in functions:
            raise CheckError(
                f"custom check: there is no function {name!r}; name one of lib/ as module:function in "
                "`function`"
            )
        self._function = functions[name]

    @property
    def _rule(self) -> str:
        return f"{self.check.function} must give True"

    @property
    def reason(self) -> str:
        return f"{self.check.function} gave False"

    def _failing_rows(self, table: pa.Table) -> np.ndarray:
        name = self.check.function
        try:
            answer = np.asarray(self._function(table.to_pandas()))
        except Exception as error:
            raise CheckError(
                f"custom check {name} failed on {table.num_rows} rows: {type(error).__name__}: {error}; "
                "correct the "
                "function in lib/"
            ) from error
        if answer.shape != (table.num_rows,) or answer.dtype != bool:
            raise CheckError(
                f"custom check {name} gave {answer.dtype} of shape {answer.shape} for {table.num_rows} rows: "
                "it must "
                "give a boolean for each row, True where the row is good"
            )
        return ~answer


_MAKERS: dict[str, type[_RowCheck]] = {
    "null_threshold": _NullThreshold,
    "value_range": _ValueRange,
    "expected_columns": _ExpectedColumns,
    "unique_key": _UniqueKey,
    "type_check": _TypeCheck,
    "custom": _Custom,
}
