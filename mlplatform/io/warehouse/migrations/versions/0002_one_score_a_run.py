"""A customer has one score in a run, and the rows of a run are found without reading the table."""

from __future__ import annotations

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    from alembic import op

    op.execute(
        "CREATE UNIQUE INDEX IF NOT EXISTS churn_predictions_run_key "
        "ON churn_predictions (serving_run_id, customer_id)"
    )


def downgrade() -> None:
    from alembic import op

    op.execute("DROP INDEX churn_predictions_run_key")
