"""Who may use the control plane: users who log in, services they gave a token to, and static tokens."""

from __future__ import annotations

from collections.abc import Callable

from fastapi.concurrency import run_in_threadpool

from mlplatform.io.control_plane.audit import AuditLog
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.sessions import Session, Sessions
from mlplatform.io.control_plane.users import FIRST, Users
from mlplatform.services.control_plane.attempts import Attempts
from mlplatform.services.control_plane.tokens import AccessTokens, InvalidToken, Kind
from mlplatform.services.security import LOCAL, Principal, Tokens, unauthenticated
from mlplatform.settings import ConfigurationError, Settings


class Accounts:
    """The `Authority` of the control plane.

    Whether a token is still good is asked of the database at each request, so that all replicas know at once
    who has logged out, was disabled, or has lost a scope.

    Raises:
        ConfigurationError: there is no key for the tokens, it is too short, or the static tokens are none.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._environment = settings.environment
        self._static = Tokens(settings, alone=False)
        self.required = settings.authentication_required or self._static.required
        self.tokens = AccessTokens.from_settings(settings)
        self.users = Users(database)
        self.sessions = Sessions(database)
        self.audit = AuditLog(database)
        self.attempts = Attempts()

    def prepare(self, show: Callable[[str], None]) -> None:
        """Sees that somebody can log in; in `local`, makes the first user.

        Args:
            show: tells the person at the terminal the password of the first user; no log does.

        Raises:
            ConfigurationError: there is nobody, outside `local`.
        """
        if self._environment != "local":
            if not self.users.any():
                raise ConfigurationError(
                    f"nobody could log in, which MLPLATFORM_ENV={self._environment} needs: make a user with"
                    " `mlplatform users create NAME`"
                )
        elif password := self.users.create_first():
            show(
                f"The first user is {FIRST}, the password {password}\n"
                f"It is not shown again; `mlplatform users password {FIRST}` sets another."
            )

    async def principal(self, token: str | None) -> Principal:
        if token is None:
            if self.required:
                raise unauthenticated("a bearer token is needed: log in with POST /api/v1/auth/login")
            return LOCAL
        if static := self._static.find(token):
            return static
        try:
            claims = self.tokens.read(token)
        except InvalidToken as error:
            raise unauthenticated(str(error)) from None
        session = await run_in_threadpool(self.sessions.find, claims.session_id)
        if session is None or (session.user_id, kind(session)) != (claims.user_id, claims.kind):
            raise unauthenticated("the token is good no more: log in again")
        scopes = session.scopes & claims.scopes
        return Principal(str(session.user_id), session.name, claims.kind, scopes, str(session.id))

    def knows(self, token: str) -> bool:
        if self._static.knows(token):
            return True
        try:
            return bool(self.tokens.read(token))
        except InvalidToken:
            return False

    def access_token(self, session: Session, seconds: float) -> str:
        return self.tokens.make(session.user_id, session.id, session.scopes, kind(session), seconds)


def kind(session: Session) -> Kind:
    return "service" if session.service else "user"
