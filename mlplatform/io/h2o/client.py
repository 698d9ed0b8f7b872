"""What we ask of an H2O server, by its REST interface.

Not by h2o's own client: that has one connection for a whole process, waits 90 s for a server that has died,
prints, and removes frames of the server when Python collects garbage.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

from mlplatform.io.plugins.frameworks import FrameworkError

if TYPE_CHECKING:
    from pathlib import Path

    import requests

CONNECT_SECONDS = 5
# A busy server answers late.
READ_SECONDS = 120
ATTEMPTS = 5
SHORTEST_PAUSE_SECONDS = 0.05
COPY_BYTES = 1024**2
LONGEST_MESSAGE = 500
RUNNING = ("CREATED", "RUNNING")
REMEDY = "check h2o.url in profiles.yaml, and that the server runs"


class Unreachable(FrameworkError):
    """The server does not answer."""


class H2OClient:
    """One server.

    Args:
        url: where it is; may hold a user and a password, which no message shows.
        ended: why the server can no longer answer, if we know; None while it should.
    """

    def __init__(self, url: str, ended: Callable[[], str | None] = lambda: None) -> None:
        import requests

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FrameworkError(f"h2o url {self._shown(url)!r}: write it like http://host:54321")
        self.url = self._shown(url).rstrip("/")
        self._ended = ended
        self._session = requests.Session()
        # A server on this machine is behind no proxy, to which its password would go.
        self._session.trust_env = parts.hostname != "127.0.0.1"
        if parts.username is not None:
            self._session.auth = (parts.username, parts.password or "")

    @staticmethod
    def _shown(url: str) -> str:
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def __enter__(self) -> H2OClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self._session.close()

    def version(self) -> str:
        """Raises FrameworkError if no H2O answers there."""
        return str(self._json(self._request("GET", "3/Cloud")).get("version"))

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        # Asked again, as reading twice does no harm and a run of an hour should survive a lost packet.
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._json(self._request("GET", path, params=parameters))
            except Unreachable:
                if attempt == ATTEMPTS or self._ended():
                    raise
                time.sleep(0.2 * 2**attempt)
        raise AssertionError

    def post(self, path: str, **content: Any) -> dict[str, Any]:
        """`content` as of `requests`: `data` (a form), `json` …"""
        return self._json(self._request("POST", path, **content))

    def delete(self, path: str) -> None:
        self._request("DELETE", path).close()

    def download(self, path: str, file: Path) -> None:
        import requests

        with self._request("GET", path, stream=True) as response, file.open("wb") as target:
            try:
                for piece in response.iter_content(COPY_BYTES):
                    target.write(piece)
            except requests.RequestException as error:
                raise self._unreachable(error) from error

    def wait(self, job: str, look: Callable[[], None] = lambda: None) -> None:
        """Until the job has ended, calling `look` in between, once a second at most.

        Raises:
            FrameworkError: it failed, or the server did.
        """
        pause = SHORTEST_PAUSE_SECONDS
        while True:
            state = self.job(job)
            look()
            if state["status"] == "DONE":
                return
            if state["status"] not in RUNNING:
                why = first_line(state.get("exception")) or "it does not say why"
                raise FrameworkError(f"H2O's {state['description']} {state['status'].lower()}: {why}")
            time.sleep(pause)
            pause = min(1.5 * pause, 1.0)

    def job(self, job: str) -> dict[str, Any]:
        """Its `status`, `description`, `exception` …"""
        return self.get(f"3/Jobs/{key(job)}")["jobs"][0]

    def _request(self, method: str, path: str, **content: Any) -> requests.Response:
        import requests

        try:
            response = self._session.request(
                method, f"{self.url}/{path}", timeout=(CONNECT_SECONDS, READ_SECONDS), **content
            )
        except requests.RequestException as error:
            raise self._unreachable(error) from error
        if response.ok:
            return response
        if response.status_code in (401, 403):
            raise FrameworkError(
                f"H2O at {self.url} refuses our user ({response.status_code}): "
                "put user and password into its url"
            )
        raise FrameworkError(f"H2O at {self.url} refuses {method} {path}: {self._reason(response)}")

    def _json(self, response: requests.Response) -> dict[str, Any]:
        try:
            content = response.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise FrameworkError(f"what answers at {self.url} is no H2O server: {REMEDY}")
        return content

    def _unreachable(self, error: Exception) -> Unreachable:
        if ended := self._ended():
            return Unreachable(ended)
        return Unreachable(f"H2O at {self.url} cannot be reached ({first_line(str(error))}): {REMEDY}")

    @staticmethod
    def _reason(response: requests.Response) -> str:
        try:
            content = response.json()
        except ValueError:
            content = None
        if isinstance(content, dict):
            if messages := [one["message"] for one in content.get("messages", []) if "message" in one]:
                return "; ".join(messages)
            return first_line(content.get("msg")) or f"status {response.status_code}"
        return f"status {response.status_code}"


def key(name: str) -> str:
    """A key of H2O's store as a part of a path."""
    return quote(name, safe="")


def first_line(text: str | None) -> str:
    """The first that says something: H2O begins with a headline and an empty line."""
    lines = (line.strip() for line in (text or "").splitlines())
    return next((line for line in lines if line and line != "ERROR MESSAGE:"), "")[:LONGEST_MESSAGE]
