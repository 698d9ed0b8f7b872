"""Names for Dagster, where letters, digits and _ are all: of everything there ever was, another one."""

from __future__ import annotations

import keyword
import re
import unicodedata
from itertools import count

from sqlalchemy import Connection, Table, or_, select, text

LONGEST = 60
# Dagster's own, and that of the job of single commands.
RESERVED = frozenset(keyword.kwlist) | {
    *("arg_dict", "bool", "command", "conf", "config", "context", "dict", "float", "input", "input_arg_dict"),
    *("int", "meta", "none", "output", "output_arg_dict", "str", "true", "false", "type"),
}


def slug_of(name: str, otherwise: str) -> str:
    """`Ventas diarias (ñ)` is `ventas_diarias_n`; a name without Latin letters and digits is `otherwise`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain)[:LONGEST].strip("_") or otherwise


def lock(connection: Connection, table: Table) -> None:
    """Nobody else names a row of the table until the transaction ends."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || :table, 3))"),
        {"table": table.name},
    )


def take(connection: Connection, table: Table, base: str) -> str:
    """The first of `base`, `base_2`, `base_3`… that no row of the table has, nor had."""
    lock(connection, table)
    slug = table.c.slug
    numbered = slug.regexp_match(f"^{re.escape(base)}_[0-9]+$")
    taken = set(connection.scalars(select(slug).where(or_(slug == base, numbered))))
    names = (base if number == 1 else f"{base}_{number}" for number in count(1))
    return next(name for name in names if name not in taken and name not in RESERVED)
