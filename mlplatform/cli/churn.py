"""What the churn pipelines have left: the champion in MLflow, and the newest scores in the warehouse."""

from __future__ import annotations

from contextlib import closing

import click
from rich.console import Console
from rich.table import Table

from mlplatform.settings import Settings

NEWEST = """
    SELECT customer_id, prediction, prediction_probability, model_run_id, serving_run_id
    FROM churn_predictions
    WHERE serving_run_id = (SELECT serving_run_id FROM churn_predictions ORDER BY execution_date DESC LIMIT 1)
    ORDER BY prediction_probability DESC
"""
SHOWN = 5


def show_churn(settings: Settings) -> None:
    """Prints the newest serving run: how many rows, and the customers who will most likely leave."""
    import psycopg2

    url = settings.database_url.replace("+psycopg2", "")
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(NEWEST)
        rows = cursor.fetchall()
    leaving = sum(row[1] for row in rows)
    table = Table(title="Customers most likely to leave (table churn_predictions)", title_justify="left")
    for name in ("customer_id", "prediction", "probability"):
        table.add_column(name, justify="left" if name == "customer_id" else "right")
    for customer, prediction, probability, *_ in rows[:SHOWN]:
        table.add_row(customer, str(prediction), f"{probability:.3f}")
    Console().print(table)
    click.echo(f"{len(rows):,} customers scored, {leaving:,} of them as leaving.")
    if rows:
        model_run, serving_run = rows[0][3:]
        click.echo(f"Model: MLflow run {model_run}; serving run {serving_run}.")
