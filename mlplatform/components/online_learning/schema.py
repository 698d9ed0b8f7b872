"""Column schemas and lineage as Dagit shows them."""

from __future__ import annotations

import dagster as dg

from mlplatform.io.tables import TableSpec


def column_schema(spec: TableSpec, more: dict[str, str] | None = None) -> dg.TableSchema:
    """The columns of a table; `more` are columns beyond those that it declares."""
    columns = {**spec.columns, **(more or {})}
    return dg.TableSchema([dg.TableColumn(name, type_) for name, type_ in columns.items()])
