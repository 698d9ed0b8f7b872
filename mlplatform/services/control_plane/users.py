"""Users, for those who may change them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from mlplatform.io.control_plane.users import (
    ADMINISTRATION,
    LEAST_PASSWORD,
    LONGEST_PASSWORD,
    NAME,
    SCOPES,
    InvalidUser,
    LastAdministrator,
    UnknownUser,
    User,
    UserExists,
)
from mlplatform.services.control_plane.auth import PREFIX, accounts_of, actor, authorize
from mlplatform.services.control_plane.pages import DEFAULT_LIMIT, Limit, link_next
from mlplatform.services.refusals import Refused, documented
from mlplatform.services.security import Principal

router = APIRouter(prefix=f"{PREFIX}/users", tags=["security"])
Administrator = Annotated[Principal, authorize(ADMINISTRATION)]
Password = Annotated[SecretStr, Field(min_length=LEAST_PASSWORD, max_length=LONGEST_PASSWORD)]
Scopes = Annotated[list[str], Field(max_length=len(SCOPES), examples=[["jobs:read", "jobs:write"]])]
STATUS: dict[type[Exception], int] = {
    InvalidUser: 422,
    UnknownUser: 404,
    UserExists: 409,
    LastAdministrator: 409,
}
UNKNOWN: dict[int | str, dict[str, Any]] = {404: documented("There is nobody of that name")}
LAST: dict[int | str, dict[str, Any]] = {409: documented("Nobody who may change users would be left")}
# PostgreSQL has no word for what others could contain.
Name = Annotated[str, Path(pattern=NAME)]


class NewUser(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "ada",
                    "password": "correct horse battery staple",
                    "scopes": ["jobs:read", "jobs:write"],
                }
            ]
        },
    )

    name: str = Field(pattern=NAME, examples=["ada"])
    password: Password
    scopes: Scopes = []


class UserChange(BaseModel):
    """What is left out stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"disabled": True}]})

    password: Password | None = None
    scopes: Scopes | None = None
    disabled: bool | None = None


class UserRead(BaseModel):
    id: str
    name: str
    scopes: list[str]
    disabled: bool
    created_at: datetime


@router.get("")
def list_users(
    request: Request,
    response: Response,
    _: Administrator,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Annotated[str, Query(pattern=f"^$|{NAME}", description="From the header `Link`")] = "",
) -> list[UserRead]:
    """In the order of their names."""
    page = accounts_of(request).users.page(limit + 1, cursor)
    if len(page) > limit:
        link_next(request, response, page[limit - 1].name)
    return [_read(user) for user in page[:limit]]


@router.post("", status_code=201, responses={409: documented("The name is taken")})
def create_user(request: Request, administrator: Administrator, user: NewUser) -> UserRead:
    """A user with any scopes."""
    with _refusals():
        return _read(
            accounts_of(request).users.create(
                user.name, user.password.get_secret_value(), user.scopes, actor(request, administrator)
            )
        )


@router.patch("/{name}", responses=UNKNOWN | LAST)
def change_user(request: Request, administrator: Administrator, name: Name, change: UserChange) -> UserRead:
    """Another password, other scopes, disabled or no more; at once for all tokens.

    Another password, or to be disabled, ends all sessions of the user.
    """
    with _refusals():
        return _read(
            accounts_of(request).users.change(
                name,
                actor(request, administrator),
                password=change.password.get_secret_value() if change.password else None,
                scopes=change.scopes,
                disabled=change.disabled,
            )
        )


@router.delete(
    "/{name}",
    status_code=204,
    responses=UNKNOWN | LAST,
)
def delete_user(request: Request, administrator: Administrator, name: Name) -> None:
    """Also ends all sessions of the user; what they did stays in the audit log."""
    with _refusals():
        accounts_of(request).users.delete(name, actor(request, administrator))


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except tuple(STATUS) as error:
        raise Refused(STATUS[type(error)], str(error)) from None


def _read(user: User) -> UserRead:
    return UserRead(
        id=str(user.id),
        name=user.name,
        scopes=list(user.scopes),
        disabled=user.disabled,
        created_at=user.created_at,
    )
