"""Logging in and out, and what a route asks for before it is run."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl
from uuid import UUID

from anyio import to_thread
from asgi_correlation_id import correlation_id
from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, OAuth2PasswordBearer, SecurityScopes
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from mlplatform.io.control_plane.audit import Actor
from mlplatform.io.control_plane.sessions import Session
from mlplatform.io.control_plane.users import LONGEST_PASSWORD, NAME, SCOPES
from mlplatform.services.control_plane.accounts import Accounts
from mlplatform.services.refusals import Refused, documented
from mlplatform.services.security import BEARER, Principal, admit, unauthenticated

PREFIX = "/api/v1/auth"
# Their bodies may be forms.
FORMS = frozenset({f"{PREFIX}/login", f"{PREFIX}/refresh"})
ACCESS_SECONDS = 15 * 60
SERVICE_SECONDS = 5 * 60
LONGEST_SERVICE_SECONDS = 24 * 3600

router = APIRouter(prefix=PREFIX, tags=["security"])
_oauth2 = OAuth2PasswordBearer(
    f"{PREFIX}/login",
    "login",
    scopes=SCOPES,
    description="User and password; leave the client's id and secret empty",
    auto_error=False,
    refreshUrl=f"{PREFIX}/refresh",
)


async def _check(
    request: Request,
    scopes: SecurityScopes,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
    # Reads the same header; is there for the document, and for the button of Swagger UI.
    _: Annotated[str | None, Depends(_oauth2)],
) -> Principal:
    return await admit(request, given, *scopes.scopes)


def authorize(*scopes: str) -> Any:
    """The dependency of a route that needs all of the scopes; without any, only to know who asks.

    Its value is the `Principal`, which is `request.state.principal` too.
    """
    return Security(_check, scopes=scopes)


Authorized = Annotated[Principal, authorize()]


class Login(BaseModel):
    """What OAuth 2 asks for a password; what else it knows is passed over, as it says."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"username": "admin", "password": "correct horse battery staple"}]}
    )

    grant_type: Literal["password"] = "password"
    username: str = Field(max_length=100)
    password: SecretStr = Field(max_length=LONGEST_PASSWORD)
    scope: str = Field(
        default="", description="Scopes, with a space between; none asks for all of the user's"
    )


class Refresh(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"refresh_token": "of the reply before"}]})

    grant_type: Literal["refresh_token"] = "refresh_token"
    refresh_token: SecretStr = Field(max_length=200)


class Token(BaseModel):
    """As OAuth 2 answers."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a word of OAuth 2
    expires_in: int = Field(description="Seconds")
    scope: str = Field(description="Scopes, with a space between")


class LoginToken(Token):
    refresh_token: str = Field(description="Good for one use; the reply has the next")


class ServiceTokenAsked(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "ci", "scopes": ["jobs:write"]}]}
    )

    name: str = Field(pattern=NAME, description="Of the service; the audit log has it")
    scopes: list[str] = Field(max_length=len(SCOPES), description="Some of one's own")
    expires_in: int = Field(default=SERVICE_SECONDS, ge=1, le=LONGEST_SERVICE_SECONDS, description="Seconds")


class Me(BaseModel):
    id: str
    name: str
    type: str
    scopes: list[str]


Body = TypeVar("Body", bound=BaseModel)


def _either(model: type[BaseModel]) -> dict[str, Any]:
    """The document of a body that may be a form or JSON."""
    schema = {"schema": model.model_json_schema()}
    content = {"application/x-www-form-urlencoded": schema, "application/json": schema}
    return {"requestBody": {"required": True, "content": content}}


async def _read(request: Request, model: type[Body]) -> Body:
    body = await request.body()
    try:
        # By the first letter, since curl says of everything that it is a form.
        if body.lstrip().startswith(b"{"):
            return model.model_validate_json(body)
        return model.model_validate(dict(parse_qsl(body.decode(), keep_blank_values=True)))
    except UnicodeDecodeError:
        raise Refused(400, "the body is not UTF-8") from None
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in problems]) from None


@router.post(
    "/login",
    response_model=LoginToken,
    responses={401: documented("User and password do not belong together"), 422: documented("Not a login")},
    openapi_extra=_either(Login),
)
async def login(request: Request, response: Response) -> Any:
    """A token for a user's password, as a form or JSON.

    The access token is good for 15 minutes, the refresh token for one use within 7 days.
    """
    asked = await _read(request, Login)
    accounts, asker = accounts_of(request), _asker(request)
    accounts.attempts.count(asked.username, asker.address)
    password, scopes = asked.password.get_secret_value(), asked.scope.split()
    log_in = partial(accounts.sessions.log_in, asked.username, password, scopes, asker)
    entered = await to_thread.run_sync(log_in, limiter=accounts.attempts.threads)
    if entered is None:
        raise unauthenticated("user and password do not belong together")
    accounts.attempts.forget(asked.username, asker.address)
    return _answer(accounts, response, *entered)


@router.post(
    "/refresh",
    response_model=LoginToken,
    responses={401: documented("The token is not good, or no more"), 422: documented("Not a token")},
    openapi_extra=_either(Refresh),
)
async def refresh(request: Request, response: Response) -> Any:
    """Another token for a refresh token, which is used up by it.

    Who shows one a second time ends the session, since one of the two has stolen it.
    """
    asked = await _read(request, Refresh)
    accounts = accounts_of(request)
    token = asked.refresh_token.get_secret_value()
    refreshed = await to_thread.run_sync(accounts.sessions.refresh, token, _asker(request))
    if refreshed is None:
        raise unauthenticated("the refresh token is not good, or no more: log in again")
    return _answer(accounts, response, *refreshed)


@router.post(
    "/logout", status_code=204, responses={409: documented("Nothing would end: nobody has logged in")}
)
def logout(request: Request, principal: Authorized) -> None:
    """Ends the session: in all replicas, no token of it is good any more."""
    if principal.session is None:
        raise Refused(409, "nobody has logged in with this token: take it out of MLPLATFORM_API_TOKENS")
    accounts_of(request).sessions.end(UUID(principal.session), actor(request, principal))


@router.get("/me")
def me(principal: Authorized) -> Me:
    """Who asks, and what they may do."""
    scopes = sorted(SCOPES if principal.scopes is None else principal.scopes)
    return Me(id=principal.id, name=principal.name, type=principal.type, scopes=scopes)


@router.post(
    "/service-tokens",
    status_code=201,
    response_model=Token,
    responses={403: documented("Not a user, or one without these scopes")},
)
def create_service_token(
    request: Request, response: Response, principal: Authorized, asked: ServiceTokenAsked
) -> Any:
    """A token for a service, with some of one's own scopes; it cannot be refreshed."""
    if principal.type != "user":
        raise Refused(403, "only a user gives tokens to services: log in")
    if missing := [scope for scope in asked.scopes if not principal.may(scope)]:
        raise Refused(403, f"the token has not the scope {', '.join(missing)}")
    accounts = accounts_of(request)
    life = timedelta(seconds=asked.expires_in)
    session = accounts.sessions.begin_service(
        UUID(principal.id), asked.name, asked.scopes, life, actor(request, principal)
    )
    if session is None:
        raise unauthenticated("the token is good no more: log in again")
    _keep_out_of_caches(response)
    token = accounts.access_token(session, asked.expires_in)
    return Token(access_token=token, expires_in=asked.expires_in, scope=_words(session))


def accounts_of(request: Request) -> Accounts:
    return request.app.state.authority


def actor(request: Request, principal: Principal) -> Actor:
    """Who is asking, as the audit log has it."""
    return Actor(principal.id, principal.name, correlation_id.get() or "", _address(request))


def _asker(request: Request) -> Actor:
    return Actor("", "unknown", correlation_id.get() or "", _address(request))


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _answer(accounts: Accounts, response: Response, session: Session, refresh_token: str) -> LoginToken:
    _keep_out_of_caches(response)
    return LoginToken(
        access_token=accounts.access_token(session, ACCESS_SECONDS),
        expires_in=ACCESS_SECONDS,
        refresh_token=refresh_token,
        scope=_words(session),
    )


def _words(session: Session) -> str:
    return " ".join(sorted(session.scopes))


def _keep_out_of_caches(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"
