"""Long lists, page by page: `limit`, `cursor`, and the next page in the header `Link`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Query, Request, Response
from sqlalchemy import Column, RowMapping, Select

from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.pages import page

Limit = Annotated[int, Query(ge=1, le=1000, description="Rows of a page")]
DEFAULT_LIMIT = 100
Cursor = Annotated[str | None, Query(max_length=200, description="From the header `Link`")]


def rows_of_page(
    request: Request,
    response: Response,
    database: Database,
    query: Select[Any],
    order: tuple[Column[Any], Column[Any]],
    limit: int,
    cursor: str | None,
) -> Sequence[RowMapping]:
    """The rows of one page, the newest first; `response` says where the next one is.

    Args:
        order: the moment by which they are ordered, and the id.

    Raises:
        InvalidCursor: it is none that a page was given with.
    """
    with database.transaction() as connection:
        found = page(connection, query, *order, limit, cursor)
    if found.cursor:
        link_next(request, response, found.cursor)
    return found.rows


def link_next(request: Request, response: Response, cursor: object, name: str = "cursor") -> None:
    """Says where the next page is, which begins after `cursor`; relative, since proxies change the rest."""
    query = {**request.query_params, name: str(cursor)}
    response.headers["Link"] = f'<{request.url.path}?{urlencode(query)}>; rel="next"'
