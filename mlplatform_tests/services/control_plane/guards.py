"""Walks through the document of an application, so that no route is forgotten when it is secured."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi.testclient import TestClient

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
# Anybody may call them.
PUBLIC = {
    ("get", "/health"),
    ("get", "/ready"),
    ("get", "/openapi.json"),
    ("get", "/docs"),
    ("get", "/docs/oauth2-redirect"),
    ("post", "/api/v1/auth/login"),
    ("post", "/api/v1/auth/refresh"),
}
# Whoever has a good token may, whatever it is for.
FOR_ALL_WHO_ARE_KNOWN = {
    ("get", "/api/v1/auth/me"),
    ("post", "/api/v1/auth/logout"),
    # Gives no more than the caller has.
    ("post", "/api/v1/auth/service-tokens"),
}


def routes(client: TestClient, root: str = "") -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and what the document says, of each route that is in the document below `root`."""
    document = client.get(f"{root}/openapi.json").json()
    return [
        (method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def unguarded(
    client: TestClient,
    poor: Mapping[str, str],
    root: str = "",
) -> Iterator[str]:
    """What is wrong with the guard of each route: nothing, if it is good.

    A guard that stands before everything else needs no body, nor anything that exists, to refuse.

    Args:
        poor: headers of a good token, which has no scope.
        root: where the application is, if it is below another.
    """
    for method, path, operation in routes(client, root):
        if (method, path) in PUBLIC:
            if operation.get("security"):
                yield f"{method} {path} is said to be public, and asks for a token"
            continue
        url = root + re.sub(r"{[^}]*}", "1", path)
        answer = client.request(method, url)
        if answer.status_code != 401 or "WWW-Authenticate" not in answer.headers:
            yield f"{method} {path} answers {answer.status_code} without a token"
        if not operation.get("security"):
            yield f"{method} {path} does not say in the document that it needs a token"
        if (method, path) in FOR_ALL_WHO_ARE_KNOWN:
            continue
        scopes = {
            scope for scheme in operation.get("security", []) for each in scheme.values() for scope in each
        }
        refused = client.request(method, url, headers=dict(poor))
        # The scope that is missed is one of those that the document names.
        if refused.status_code != 403 or refused.json()["detail"].rpartition(" ")[2] not in scopes:
            yield f"{method} {path} answers {refused.status_code} to a token without a scope"
