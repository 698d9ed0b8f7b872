"""The tables of the churn pipelines. What is there already, made by hand, stays."""

from __future__ import annotations

revision = "0001"
down_revision = None


def upgrade() -> None:
    from alembic import op

    op.execute(
        """
        CREATE TABLE IF NOT EXISTS customers (
            customer_id VARCHAR(20) PRIMARY KEY,
            tenure INT NOT NULL,
            monthly_charges FLOAT NOT NULL,
            total_charges FLOAT NOT NULL,
            churned INT NOT NULL CHECK (churned IN (0, 1))
        )
        """
    )
    op.execute(
        """
        CREATE TABLE IF NOT EXISTS customers_to_score (
            customer_id VARCHAR(20) PRIMARY KEY,
            tenure INT NOT NULL,
            monthly_charges FLOAT NOT NULL,
            total_charges FLOAT NOT NULL
        )
        """
    )
    op.execute(
        """
        CREATE TABLE IF NOT EXISTS churn_predictions (
            customer_id VARCHAR(20),
            prediction INT,
            prediction_probability FLOAT,
            execution_date TIMESTAMP DEFAULT NOW(),
            model_run_id VARCHAR(100),
            serving_run_id VARCHAR(100)
        )
        """
    )


def downgrade() -> None:
    from alembic import op

    for table in ("churn_predictions", "customers_to_score", "customers"):
        op.execute(f"DROP TABLE {table}")
