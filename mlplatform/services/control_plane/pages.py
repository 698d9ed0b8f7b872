"""Long lists, page by page: `limit`, `cursor`, and the next page in the header `Link`."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Request, Response

Limit = Annotated[int, Query(ge=1, le=1000, description="Rows of a page")]
DEFAULT_LIMIT = 100


def link_next(request: Request, response: Response, cursor: object, name: str = "cursor") -> None:
    """Says where the next page is, which begins after `cursor`; relative, since proxies change the rest."""
    query = {**request.query_params, name: str(cursor)}
    response.headers["Link"] = f'<{request.url.path}?{urlencode(query)}>; rel="next"'
