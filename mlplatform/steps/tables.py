"""Tables of the warehouse as the steps read them: joined with their feature tables, and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mlplatform.domain.batch.checks import names_of
from mlplatform.domain.batch.data_checks import (
    CheckResult,
    DataChecks,
    SkippedRows,
    class_balance,
    enough_rows,
    key_checks,
)
from mlplatform.domain.batch.frames import arrow_compute
from mlplatform.domain.batch.joins import join_feature_table
from mlplatform.domain.batch.labels import class_of
from mlplatform.domain.batch.pipeline import DataCheck, FeatureTable, Training
from mlplatform.io.project_code import FOLDER, ProjectCode
from mlplatform.steps.context import StepContext

if TYPE_CHECKING:
    import pyarrow as pa

# Columns that say whether a row found features travel under this prefix.
FOUND = "found:"
# Fewer rows leave no test set that says anything.
MINIMUM_ROWS = 10


REASON = "reason"
REPAIR = "repair its rows, and run again"
REPAIR_OR_SKIP = f"{REPAIR}, or change the check in data_checks (on_failure: skip_row leaves rows out)"


def read_table(context: StepContext, name: str) -> pa.Table:
    """The whole table in memory."""
    import pyarrow as pa

    connector = context.plugins.connector
    table = pa.Table.from_batches(connector.read(name), connector.schema(name))
    context.log(f"table {name}: {table.num_rows:,} rows, {table.num_columns} columns")
    return table


class FeatureJoins:
    """The feature tables of a pipeline, read once and joined to any number of chunks.

    With `keep_all`, rows that an inner join would leave out stay, and `missing` tells of them: what is to be
    scored does not get lost.
    """

    def __init__(self, context: StepContext, tables: Sequence[FeatureTable], keep_all: bool = False) -> None:
        self._context = context
        self._keep_all = keep_all
        self._tables = [(table, read_table(context, table.table)) for table in tables]
        # Whether a join gave several rows for one, as `fan_out_check` allows.
        self.fanned_out = False

    def join(self, table: pa.Table) -> pa.Table:
        """Raises JoinError: a join makes too many rows, or its columns are not there."""
        for spec, features in self._tables:
            found = None
            if self._keep_all and spec.join_type == "inner":
                spec, found = spec.model_copy(update={"join_type": "left"}), FOUND + spec.table
            table, report = join_feature_table(table, features, spec, found)
            self.fanned_out |= report.rows_out > report.rows_in
            if report.rows_in:
                self._context.log(
                    f"joined {report.table}: {report.matched:,} of {report.rows_in:,} rows found features"
                )
        return table

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """What the join makes of a table of this schema."""
        return self.join(schema.empty_table()).schema


def without_features(batch: pa.RecordBatch) -> Iterator[tuple[int, str]]:
    """Rows that found no features in a table that they need, with the reason; some more than once."""
    for name in batch.schema.names:
        if name.startswith(FOUND):
            for row in (~batch.column(name).to_numpy(zero_copy_only=False)).nonzero()[0].tolist():
                yield row, f"table {name.removeprefix(FOUND)} has no row for it"


class RowChecks:
    """The data checks that a pipeline declares, over a table that may come in chunks."""

    def __init__(self, context: StepContext, checks: Sequence[DataCheck]) -> None:
        self._context = context
        self._checks = checks
        code = project_code(context)
        functions = {check.function: code.load(check.function) for check in checks if check.function}
        key = context.pipeline.training.schema_.identifiers.primary_key
        self._made = DataChecks(checks, functions, show=key)

    def add(self, chunk: pa.Table | pa.RecordBatch) -> SkippedRows:
        """Which rows must not go on, and why. Raises CheckError."""
        return self._made.add(chunk)

    def report(self) -> None:
        for name, result in zip(names_of(self._checks), self._made.results(), strict=True):
            report(self._context, name, result, remedy=REPAIR_OR_SKIP)


def report(context: StepContext, name: str, *results: CheckResult, remedy: str = REPAIR) -> None:
    """One check of the step's report, made of one or more results; what failed names the table."""
    failed = [result for result in results if not result.passed]
    said = "; ".join(result.description for result in failed or results)
    context.report.check(
        name,
        not failed,
        f"table {_table(context)}: {said}; {remedy}" if failed else said,
        {
            "rows": max(result.rows for result in results),
            "failing_rows": sum(result.failing_rows for result in results),
        },
        warning=all(result.on_failure != "fail" for result in failed),
    )


def check_rows(
    context: StepContext, checks: Sequence[DataCheck], table: pa.Table
) -> tuple[pa.Table, pa.Table]:
    """Makes the declared checks; returns the rows that may go on, and the others with the reason."""
    import pyarrow as pa

    made = RowChecks(context, checks)
    skipped = made.add(table)
    made.report()
    reasons = pa.array(skipped.reasons, pa.string())
    for reason, rows in Counter(filter(None, skipped.reasons)).most_common():
        context.log(f"{rows:,} rows are left out: {reason}")
    refused = table.append_column(REASON, reasons).filter(skipped.mask)
    return table.filter(~skipped.mask), refused


def keys_of(training: Training) -> list[str]:
    """The columns that name a labelled row: a customer may have a label for each month."""
    identifiers = training.schema_.identifiers
    return [identifiers.primary_key, *filter(None, [identifiers.partition_key])]


def check_labels(context: StepContext, table: pa.Table, repeated: bool = False) -> None:
    """Keys, number of rows and balance of the classes of labelled rows; `repeated` keys are no fault."""
    schema, problem = context.pipeline.training.schema_, context.pipeline.project.problem_type
    identifiers, label = schema.identifiers, schema.target.label_column
    keys = keys_of(context.pipeline.training)
    checks = DataChecks(
        [
            *key_checks(identifiers.primary_key)[:1],
            *([] if repeated else [DataCheck(name="unique_key", columns=keys)]),
            DataCheck(name="null_threshold", columns=[label], threshold=0),
        ],
        show=identifiers.primary_key,
    )
    checks.add(table)
    report(context, "keys", *checks.results())
    report(context, "enough_rows", enough_rows(table.num_rows, MINIMUM_ROWS), remedy="load more into it")
    if problem != "regression" and label in table.column_names:
        counts = Counter(class_of(each) for each in table.column(label).to_pylist() if each is not None)
        declared = [class_of(each) for each in schema.target.classes] if schema.target.classes else None
        report(context, "classes", class_balance(counts, declared))
    elif problem != "regression":
        report(context, "classes", CheckResult("classes", False, f"there is no column {label}"))


class UniqueKeys:
    """That no key is repeated in a table that comes in chunks; missing ones are for the quarantine."""

    def __init__(self, context: StepContext, key: str) -> None:
        self._context, self._key = context, key
        self._check = DataChecks([DataCheck(name="unique_key", columns=[key])], show=key)

    def add(self, chunk: pa.Table) -> None:
        if self._key in chunk.column_names:
            chunk = chunk.filter(arrow_compute().is_valid(chunk.column(self._key)))
        self._check.add(chunk)

    def report(self) -> None:
        report(self._context, "keys", *self._check.results())


def _table(context: StepContext) -> str:
    """The table that the pipeline is about."""
    serving = context.pipeline.serving
    return serving.data_source.scoring_table if serving else context.pipeline.training.data_source.label_table


def project_code(context: StepContext) -> ProjectCode:
    """The project's own Python, as it is now."""
    return ProjectCode.read(context.plugins.root / FOLDER)
