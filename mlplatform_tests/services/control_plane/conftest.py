"""The same database as that of what these services stand on."""

from __future__ import annotations

from mlplatform_tests.io.control_plane.conftest import cheap_passwords, database

__all__ = ["cheap_passwords", "database"]
