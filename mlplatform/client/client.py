"""The control plane from Python."""

from __future__ import annotations

from typing import Self

from mlplatform.client.connection import Connection
from mlplatform.client.jobs import Events, Executions, Jobs
from mlplatform.client.models import Me
from mlplatform.client.pipelines import Pipelines, Schedules
from mlplatform.client.tokens import InMemory, Tokens, TokenStore
from mlplatform.client.webhooks import Webhooks
from mlplatform.client.workers import Workers
from mlplatform.settings import ConfigurationError, Settings

AUTH = "/api/v1/auth"


class Client:
    """The control plane at one address.

        with Client() as client:
            job = client.jobs.create(["python", "-c", "print(42)"])
            for execution, line in client.jobs.follow_logs(job.id):
                print(line.message)
            assert client.jobs.get(job.id).status == "Success"

    Threads may share one. Whatever it does may raise `ApiError` (another answer came) and `ApiUnreachable`
    (none came, for as long as it was patient); both are a `PlatformError`.

    Args:
        url: None: MLPLATFORM_API_URL, or port 8080 of this machine.
        token: of a service, instead of a login; None: MLPLATFORM_TOKEN, if it is set; empty: none.
        store: keeps the tokens of a login; None: they end with this client.
        patience: seconds in which a request is tried again, where that is safe.

    Raises:
        ConfigurationError: the address or the token cannot be one.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        store: TokenStore | None = None,
        patience: float = 10.0,
    ) -> None:
        settings = Settings.load()
        self._store = store or InMemory()
        shown = settings.api_token if token is None else token
        self._connection = Connection(url or settings.api_url, _shown(shown), self._store, patience)
        self.executions = Executions(self._connection)
        self.pipelines = Pipelines(self._connection)
        self.schedules = Schedules(self._connection)
        self.jobs = Jobs(self._connection, self.executions)
        self.workers = Workers(self._connection)
        self.events = Events(self._connection)
        self.webhooks = Webhooks(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the control plane is; without a password, if the address has one."""
        return self._connection.where

    def close(self) -> None:
        """Closes its connections; a login stays."""
        self._connection.close()

    def login(self, username: str, password: str) -> None:
        """
        Raises:
            ApiError: 401, they do not belong together.
        """
        # Nobody is asked for before: an old login has nothing to do with it.
        self._store.save(None)
        answer = self._connection.ask(
            "POST", f"{AUTH}/login", body={"username": username, "password": password}
        )
        self._store.save(Tokens.of(answer))

    def logout(self) -> None:
        """Ends the login: its tokens are good no more, wherever they are."""
        self._connection.ask("POST", f"{AUTH}/logout")
        self._store.save(None)

    def me(self) -> Me:
        """Who asks, and what they may do."""
        return self._connection.get(Me, f"{AUTH}/me")


def _shown(token: str | None) -> str | None:
    # Files of secrets end with a line break.
    token = (token or "").strip()
    if not (token.isascii() and token.isprintable()):
        # Not told which: it is a secret, also when it is wrong.
        raise ConfigurationError(
            "the token has characters that no header can have: is MLPLATFORM_TOKEN right?"
        )
    return token or None
