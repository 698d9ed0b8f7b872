"""The tables of the control plane, and those of its workers' queue."""

from __future__ import annotations

revision = "0001"
down_revision = None


def upgrade() -> None:
    from alembic import op
    from procrastinate.schema import SchemaManager

    from mlplatform.io.control_plane.tables import METADATA

    # One script of many statements, which the driver takes as it is.
    if (driver := op.get_bind().connection.driver_connection) is not None:
        driver.execute(SchemaManager.get_schema())
    METADATA.create_all(op.get_bind(), checkfirst=False)


def downgrade() -> None:
    raise NotImplementedError("this is the first revision: drop the schema instead")
