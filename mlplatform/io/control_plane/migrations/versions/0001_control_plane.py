"""The tables of the control plane, and those of its workers' queue."""

from __future__ import annotations

from pathlib import Path

revision = "0001"
down_revision = None


def upgrade() -> None:
    from alembic import op
    from procrastinate.schema import SchemaManager

    if (driver := op.get_bind().connection.driver_connection) is not None:
        # Scripts of many statements, which the driver takes as they are.
        driver.execute(SchemaManager.get_schema())
        driver.execute(Path(__file__).with_suffix(".sql").read_text().encode())


def downgrade() -> None:
    raise NotImplementedError("this is the first revision: drop the schema instead")
