"""Webhooks over HTTP: who has events posted to them."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, AnyHttpUrl, ConfigDict, Field, StringConstraints
from sqlalchemy import RowMapping

from mlplatform.domain.jobs.specs import Part
from mlplatform.io.control_plane import tables, webhooks
from mlplatform.io.control_plane.webhook_requests import AddressRefused, check_url
from mlplatform.io.control_plane.webhook_secrets import WebhookSecrets
from mlplatform.services.control_plane.auth import Authorized, authorize
from mlplatform.services.control_plane.delivering import webhook_publishers
from mlplatform.services.control_plane.pages import DEFAULT_LIMIT, Cursor, Limit, rows_of_page
from mlplatform.services.control_plane.requests import Stored
from mlplatform.services.control_plane.views import View
from mlplatform.services.refusals import Refused, documented
from mlplatform.settings import ConfigurationError, Settings

READ, WRITE = "events:read", "webhooks:write"
UNKNOWN: dict[int | str, dict[str, Any]] = {404: documented("There is no such webhook")}
NO_KEY: dict[int | str, dict[str, Any]] = {409: documented("MLPLATFORM_WEBHOOK_KEY is not set")}

# Who has events posted reads them.
may_change = authorize(WRITE, READ)
router = APIRouter(prefix="/api/v1/webhooks", tags=["webhooks"])

Type = Annotated[
    str, StringConstraints(pattern=r"^[a-z_]+(\.[a-z_]+)*(\.\*)?$", max_length=100), Field(examples=["job.*"])
]
Types = Annotated[
    list[Type],
    Field(max_length=50, description="Types of events; `job.*` is all that begin with `job.`. None: all."),
]


def _written(url: str) -> str:
    # Of a name with other letters, what the Internet knows it by.
    return str(AnyHttpUrl(url))


Address = Annotated[
    str, Field(max_length=2000, json_schema_extra={"format": "uri"}), AfterValidator(_written)
]


class WebhookRequest(Part):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"url": "https://example.com/hook", "types": ["job.success"]}]}
    )

    url: Address
    types: Types = []
    after: Annotated[
        int | None, Field(ge=0, le=2**62, description="Id of the event behind which to begin; else now.")
    ] = None


class WebhookChange(Part):
    """What is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"paused": False}]})

    url: Address | None = None
    types: Types | None = None
    paused: bool | None = None


class WebhookView(View):
    id: UUID
    url: str
    types: list[str]
    paused: bool
    position: int = Field(description="Id of the newest event that was delivered, or not wanted.")
    failures: int = Field(description="Attempts since the last success.")
    failing_since: datetime | None
    trouble: str | None = Field(description="Why the last attempt failed.")
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    both_secrets_until: datetime | None = Field(description="Until then, the secret before signs too.")
    created_by: str
    created_at: datetime
    updated_at: datetime


class WebhookSecretView(WebhookView):
    secret: str = Field(description="Shown only now; verifies the header `webhook-signature`.")


class TriedView(View):
    delivered: bool
    trouble: str | None
    milliseconds: float


@router.post(
    "", status_code=201, response_model=WebhookSecretView, dependencies=[may_change], responses=NO_KEY
)
def create_webhook(
    request: Request, response: Response, database: Stored, asked: WebhookRequest, principal: Authorized
) -> Any:
    """Has events posted to an address, each at least once and in order, from now on.

    They are signed as Standard Webhooks specifies it. One that does not answer with 2xx within 15 seconds is
    tried again, first after seconds and in the end after hours; after three days the webhook is paused.
    """
    secrets = _secrets(request)
    _check(request, asked.url)
    with database.transaction() as connection:
        made = webhooks.create(connection, asked.url, asked.types, asked.after, principal.name)
    return _with_secret(response, made, secrets)


@router.get("", dependencies=[authorize(READ)])
def list_webhooks(
    request: Request,
    response: Response,
    database: Stored,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> list[WebhookView]:
    """The newest first."""
    webhook = tables.webhooks
    order = (webhook.c.created_at, webhook.c.id)
    found = rows_of_page(request, response, database, webhook.select(), order, limit, cursor)
    return [WebhookView.model_validate(row) for row in found]


@router.get("/{webhook_id}", dependencies=[authorize(READ)], responses=UNKNOWN)
def get_webhook(database: Stored, webhook_id: UUID) -> WebhookView:
    """How far it has got, and what keeps it."""
    with database.transaction() as connection:
        return WebhookView.model_validate(webhooks.get(connection, webhook_id))


@router.patch("/{webhook_id}", dependencies=[may_change], responses=UNKNOWN)
def change_webhook(
    request: Request, database: Stored, webhook_id: UUID, change: WebhookChange
) -> WebhookView:
    """Another address, other events; paused, or no more: then it goes on where it was."""
    if change.url is not None:
        _check(request, change.url)
    with database.transaction() as connection:
        changed = webhooks.change(
            connection, webhook_id, url=change.url, types=change.types, paused=change.paused
        )
        return WebhookView.model_validate(changed)


@router.delete("/{webhook_id}", status_code=204, dependencies=[may_change], responses=UNKNOWN)
def delete_webhook(database: Stored, webhook_id: UUID) -> None:
    """Nothing more is posted to it."""
    with database.transaction() as connection:
        webhooks.remove(connection, webhook_id)


@router.post("/{webhook_id}/test", dependencies=[may_change], responses=UNKNOWN | NO_KEY)
def test_webhook(request: Request, database: Stored, webhook_id: UUID) -> TriedView:
    """Posts an event `webhook.test` to it now, also if it is paused, and tells what came of it."""
    _secrets(request)
    with database.transaction() as connection:
        webhook = webhooks.get(connection, webhook_id)
    began = time.perf_counter()
    tried = webhook_publishers(request.app.state.settings)(webhook).test()
    return TriedView(
        delivered=tried.trouble is None,
        trouble=tried.trouble,
        milliseconds=round(1000 * (time.perf_counter() - began), 1),
    )


@router.post(
    "/{webhook_id}/rotate",
    response_model=WebhookSecretView,
    dependencies=[may_change],
    responses=UNKNOWN | NO_KEY,
)
def rotate_secret(request: Request, response: Response, database: Stored, webhook_id: UUID) -> Any:
    """Another secret. For a day, the one before signs too: a receiver takes whichever it knows."""
    secrets = _secrets(request)
    with database.transaction() as connection:
        rotated = webhooks.rotate(connection, webhook_id)
    return _with_secret(response, rotated, secrets)


def _secrets(request: Request) -> WebhookSecrets:
    try:
        return WebhookSecrets.from_settings(request.app.state.settings)
    except ConfigurationError as error:
        raise Refused(409, str(error)) from None


def _check(request: Request, url: str) -> None:
    settings: Settings = request.app.state.settings
    try:
        check_url(url, public=settings.environment != "local")
    except AddressRefused as error:
        raise Refused(422, str(error)) from None


def _with_secret(response: Response, row: RowMapping, secrets: WebhookSecrets) -> WebhookSecretView:
    response.headers["Cache-Control"] = "no-store"
    secret = secrets.secret(row["id"], row["secret_number"])
    return WebhookSecretView(**WebhookView.model_validate(row).model_dump(), secret=secret)
