"""The tables of a new project: real customers, or made-up ones with months of features."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import mlplatform
from mlplatform.io.warehouse.telco import to_score

if TYPE_CHECKING:
    import numpy as np

TELCO = Path(mlplatform.__file__).parent / "defs" / "churn" / "data" / "telco_churn.csv"
MONTHS = [date(2025, month, 1) for month in range(7, 13)]
SCORED_MONTH = date(2026, 1, 1)
CHURN_RATE = 0.2
MISSING_RATE = 0.15
CONSTANT_RATE = 0.05
# Features by which the made-up customers stay or leave; the others are noise.
INFORMATIVE = 5
SEED = 42


@dataclass(frozen=True)
class SampleData:
    """Contents of files by their names, and what is worth knowing of them."""

    files: Mapping[str, str]
    told: str


def telco() -> SampleData:
    """`customers.csv` (with the label, about four fifths) and `customers_to_score.csv`: IBM's sample of 7,043
    customers, divided as the warehouse's. Eleven of them, who only joined, have no total_charges: 0 so far.
    """
    with open(TELCO, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    total, label = header.index("total_charges"), header.index("churned")
    known, new = [header], [[*header[:label], *header[label + 1 :]]]
    empty = 0
    for row in rows:
        empty += not row[total]
        row[total] = row[total] or "0"
        if to_score(row[header.index("customer_id")]):
            new.append([*row[:label], *row[label + 1 :]])
        else:
            known.append(row)
    return SampleData(
        {"customers.csv": _text(known), "customers_to_score.csv": _text(new)},
        f"{len(known) - 1:,} customers and {len(new) - 1:,} to score; {empty} of them had no total_charges,"
        " which is 0 now",
    )


def monthly_features(customers: int, features: int) -> SampleData:
    """Made-up tables, one row a customer and month: `labels.csv` (a fifth churn), `features_a.csv` (what is
    known of the contract), `features_b.csv` (`features` columns, a twentieth of them constant), and
    `customers_to_score.csv` for the month after. Of the features, 15 % are missing, and of one column 97 %.
    """
    import numpy as np

    random = np.random.default_rng(SEED)
    months = [*MONTHS, SCORED_MONTH]
    ids = [f"CUST_{number:05d}" for number in range(1, customers + 1)]
    keys = [[id_, month.isoformat()] for month in months for id_ in ids]
    rows = len(keys)
    elapsed = np.repeat(np.arange(len(months)), customers)
    tenure = np.tile(random.integers(1, 60, customers), len(months)) + elapsed
    monthly = np.round(np.tile(random.uniform(20, 110, customers), len(months)), 2)
    contract = np.tile(random.choice(["monthly", "yearly", "two_years"], customers), len(months))
    calls = random.poisson(1.5, rows)
    noise = random.normal(size=(rows, features))
    noise[:, random.random(features) < CONSTANT_RATE] = 1.0
    risk = -0.03 * tenure + 0.02 * monthly + 0.5 * calls + 1.2 * (contract == "monthly")
    risk += noise[:, :INFORMATIVE].sum(axis=1) * 0.4 + random.logistic(size=rows)
    labelled = elapsed < len(MONTHS)
    churns = (risk > np.quantile(risk[labelled], 1 - CHURN_RATE)).astype(int)
    contracts = {
        "tenure": tenure.astype(str),
        "monthly_charges": _with_gaps(monthly, random, MISSING_RATE),
        "contract": contract,
        "support_calls": _with_gaps(calls, random, MISSING_RATE),
        "discount": _with_gaps(np.round(random.uniform(0, 30, rows), 2), random, 0.97),
    }
    usage = {
        f"feature_{number + 1:04d}": _with_gaps(np.round(noise[:, number], 4), random, MISSING_RATE)
        for number in range(features)
    }
    known = keys[: int(labelled.sum())]
    files = {
        "labels.csv": _table(
            ["customer_id", "snapshot_date", "is_churn"], known, [churns[labelled].astype(str)]
        ),
        "features_a.csv": _table(
            ["customer_id", "snapshot_date", *contracts], keys, list(contracts.values())
        ),
        "features_b.csv": _table(["customer_id", "snapshot_date", *usage], keys, list(usage.values())),
        "customers_to_score.csv": _table(["customer_id", "snapshot_date"], keys[len(known) :], []),
    }
    return SampleData(files, f"{customers:,} made-up customers in {len(months)} months")


def _with_gaps(values: np.ndarray, random: np.random.Generator, rate: float) -> np.ndarray:
    text = values.astype(str)
    text[random.random(len(text)) < rate] = ""
    return text


def _table(header: list[str], keys: Sequence[list[str]], columns: Sequence[np.ndarray]) -> str:
    values = zip(*(column.tolist() for column in columns), strict=True) if columns else [()] * len(keys)
    return _text([header, *([*key, *row] for key, row in zip(keys, values, strict=True))])


def _text(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
