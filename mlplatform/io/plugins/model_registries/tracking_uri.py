"""Which store a profile's `mlflow` block means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

SQLITE = "sqlite:///"
# Beside a database, where nothing else is said.
ARTIFACTS = "mlruns"


@dataclass(frozen=True)
class TrackingStore:
    """`uri` as MLflow takes it; `artifact_location` of new experiments, None if the server chooses it.

    `mapped_from` is the URI that MLflow does not take, if it was one.
    """

    uri: str
    artifact_location: str | None = None
    mapped_from: str | None = None

    @property
    def is_server(self) -> bool:
        return self.uri.startswith(("http://", "https://"))

    @property
    def shown(self) -> str:
        """The URI without user, password and options."""
        if self.uri.startswith(SQLITE):
            return self.uri
        parts = urlsplit(self.uri)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()

    @property
    def secrets(self) -> list[str]:
        """Parts of the URI that nobody may see, longest first."""
        parts = urlsplit(self.uri)
        found = {parts.netloc.rpartition("@")[0], parts.query}
        if parts.password:
            found |= {parts.password, unquote(parts.password)}
        return sorted(filter(None, found), key=len, reverse=True)


def tracking_store(uri: str, artifact_location: str | None, root: Path) -> TrackingStore:
    """The store that `uri` means in the project `root`, to which relative paths refer.

    A folder (`file:` or no scheme), which MLflow no longer writes, becomes an SQLite database beside it.
    """
    scheme = uri.partition(":")[0] if ":" in uri else "file"
    if scheme == "file":
        folder = _folder(uri, root)
        database = folder.with_name(f"{folder.name}.db")
        location = _location(artifact_location, root) or folder.as_uri()
        return TrackingStore(f"{SQLITE}{database}", location, mapped_from=uri)
    if uri.startswith(SQLITE):
        database = (root / uri.removeprefix(SQLITE)).absolute()
        location = _location(artifact_location, root) or (database.parent / ARTIFACTS).as_uri()
        return TrackingStore(f"{SQLITE}{database}", location)
    return TrackingStore(uri, _location(artifact_location, root))


def _folder(uri: str, root: Path) -> Path:
    # Not urlsplit: what it calls the host of file://./mlruns is the first part of a relative path.
    path = unquote(uri.removeprefix("file:").removeprefix("//")) if uri.startswith("file:") else uri
    return (root / path.removeprefix("localhost")).absolute()


def _location(artifact_location: str | None, root: Path) -> str | None:
    if not artifact_location:
        return None
    if artifact_location.startswith("file:") or "://" not in artifact_location:
        return _folder(artifact_location, root).as_uri()
    return artifact_location
