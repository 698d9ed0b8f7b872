"""Features of our own, named in a pipeline as `transform: charges:ChargesPerMonth`."""

from __future__ import annotations

import pandas as pd


class ChargesPerMonth:
    """Adds what a customer has paid per month of tenure; a new customer gets the usual amount."""

    def __init__(self) -> None:
        self.usual = 0.0

    def fit(self, frame: pd.DataFrame, target: pd.Series) -> None:
        """Learns from the training set only. What it keeps must be numbers, texts, lists or arrays."""
        self.usual = float(per_month(frame).dropna().median())

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """One row for each row, in training and in serving alike."""
        return frame.assign(charges_per_month=per_month(frame).fillna(self.usual))


def per_month(frame: pd.DataFrame) -> pd.Series:
    """Missing for customers in their first month."""
    return pd.Series(frame["total_charges"] / frame["tenure"].where(frame["tenure"] > 0), dtype=float)
