"""The shipped customers: some with a label to learn from, the others to score."""

from __future__ import annotations

import csv
import hashlib
import io
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mlplatform.io.plugins.data_connectors.postgres import address_of
from mlplatform.io.warehouse.schema import CONNECT_SECONDS, WarehouseError

FEATURES = ("tenure", "monthly_charges", "total_charges")
TABLES = {
    "customers": ("customer_id", *FEATURES, "churned"),
    "customers_to_score": ("customer_id", *FEATURES),
}
# One in so many has no label.
PARTS = 5


@dataclass(frozen=True)
class LoadedCustomers:
    """Rows in the tables, and how many of these had no total_charges (customers of less than a month, who
    have paid nothing yet: 0). `loaded` is False if the tables had rows before, and so were left alone.
    """

    customers: int
    customers_to_score: int
    empty_total_charges: int
    loaded: bool = True


def load_telco(database_url: str, csv_path: Path, schema: str = "public") -> LoadedCustomers:
    """Fills `customers` and `customers_to_score` from telco_churn.csv, unless one of them has rows.

    A customer's table follows from a hash of the id, so that it is the same on every machine: about four
    fifths have a label. Both tables or none are filled.

    Raises:
        WarehouseError: the file or the database cannot be used, or `migrate` was not called.
    """
    import psycopg2
    from psycopg2.sql import SQL, Identifier

    rows, empty = _read(csv_path)
    try:
        with (
            closing(
                psycopg2.connect(**address_of(database_url), connect_timeout=CONNECT_SECONDS)
            ) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            names = [Identifier(schema, table) for table in TABLES]
            # Against another one who finds them empty now; readers are not held up.
            cursor.execute(SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(SQL(", ").join(names)))
            counts = []
            for name in names:
                cursor.execute(SQL("SELECT count(*) FROM {}").format(name))
                counts.append((cursor.fetchone() or (0,))[0])
            if any(counts):
                return LoadedCustomers(*counts, empty_total_charges=0, loaded=False)
            for (table, columns), name in zip(TABLES.items(), names, strict=True):
                copy = SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
                    name, SQL(", ").join(map(Identifier, columns))
                )
                cursor.copy_expert(copy, _lines([[row[column] for column in columns] for row in rows[table]]))
    except psycopg2.Error as error:
        said = str(error).strip().splitlines()[0]
        raise WarehouseError(
            f"the customers of {csv_path} were not loaded into schema {schema!r}: {said}; run `migrate` "
            "first if "
            "the tables are missing"
        ) from error
    return LoadedCustomers(len(rows["customers"]), len(rows["customers_to_score"]), empty)


def to_score(customer_id: str) -> bool:
    """Whether the customer is one without a label."""
    return int.from_bytes(hashlib.sha256(customer_id.encode()).digest()[:8]) % PARTS == 0


def _read(path: Path) -> tuple[dict[str, list[dict[str, str]]], int]:
    """{table: rows}, and how many of them had no total_charges."""
    rows: dict[str, list[dict[str, str]]] = {table: [] for table in TABLES}
    empty = 0
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file)
            missing = [name for name in TABLES["customers"] if name not in (lines.fieldnames or ())]
            if missing:
                raise WarehouseError(f"{path}:1 does not name the columns {', '.join(missing)}")
            for row in lines:
                if not row["total_charges"]:
                    row["total_charges"] = "0"
                    empty += 1
                rows["customers_to_score" if to_score(row["customer_id"]) else "customers"].append(row)
    except OSError as error:
        raise WarehouseError(f"{path} cannot be read: {error.strerror}; reinstall mlplatform") from error
    return rows, empty


def _lines(rows: list[list[str]]) -> io.StringIO:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    text.seek(0)
    return text
