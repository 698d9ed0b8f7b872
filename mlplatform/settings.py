"""Where the platform runs and what it talks to: the only reader (and writer) of environment variables."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from mlplatform.errors import PlatformError

Environment = Literal["local", "compose", "kubernetes"]
Executor = Literal["in_process", "multiprocess", "kubernetes"]

FIRST_SERVICE_SHARD = 1000
# A reply has that many numbers, and Redis keeps them for each series.
MOST_LAGS = 1000

JOB_VARIABLES = "MLPLATFORM_E2E_"
CONTROL_PLANE_PORTS = {
    "orchestrator": "ORCHESTRATOR_PORT",
    "scheduler": "SCHEDULER_PORT",
    "worker-manager": "WORKER_MANAGER_PORT",
}

STACK_FILE = "stack.json"
# Held while the embedded stack runs. A stack file alone may be left from before a reboot.
STACK_LOCK = "stack/supervisor.lock"
# A service that its variable names is used instead of the embedded one.
SERVICE_VARIABLES = {
    "s3": "MLPLATFORM_S3_ENDPOINT_URL",
    "redis": "MLPLATFORM_REDIS_URL",
    "postgresql": "MLPLATFORM_DATABASE_URL",
    # MLflow's own, so that what MLflow's clients are told holds for the platform too.
    "mlflow": "MLFLOW_TRACKING_URI",
}
# MLflow takes these from the environment only, and its own values are those of a program that has minutes
# to wait: a server that restarts is back within ten seconds, a lost one should be said soon.
MLFLOW_CLIENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0.2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class ConfigurationError(PlatformError):
    """A setting is missing or wrong; the message names it and the remedy."""


@dataclass(frozen=True)
class S3Settings:
    """One bucket of an S3-compatible object store; `prefix` keeps this platform's objects together."""

    endpoint_url: str | None
    access_key_id: str
    secret_access_key: str = field(repr=False)
    bucket: str = "mlplatform"
    region: str = "us-east-1"
    prefix: str = ""


@dataclass(frozen=True)
class Settings:
    """Settings of one process, read once from `variables` and the running embedded stack.

    A service that a variable names wins over the embedded one. Services are looked up when they are
    asked for, so that importing the definitions needs none of them.
    """

    variables: Mapping[str, str] = field(repr=False)

    @classmethod
    def load(cls) -> Settings:
        return cls(dict(os.environ))

    @property
    def environment(self) -> Environment:
        return self._choice("MLPLATFORM_ENV", "local", get_args(Environment))

    @property
    def executor(self) -> Executor:
        default = "kubernetes" if self.environment == "kubernetes" else "in_process"
        return self._choice("MLPLATFORM_EXECUTOR", default, get_args(Executor))

    @property
    def data_directory(self) -> Path:
        """Absolute path of everything that this machine keeps (`.mlplatform` unless set)."""
        return Path(self.variables.get("MLPLATFORM_DATA_DIRECTORY", ".mlplatform")).absolute()

    @property
    def stack_services(self) -> tuple[str, ...]:
        """Names of the services that the embedded stack may run; all of them unless set."""
        value = self.variables.get("MLPLATFORM_STACK_SERVICES", "")
        names = tuple(filter(None, (name.strip() for name in value.split(",")))) or tuple(SERVICE_VARIABLES)
        for name in names:
            if name not in SERVICE_VARIABLES:
                known = ", ".join(SERVICE_VARIABLES)
                raise ConfigurationError(
                    f"MLPLATFORM_STACK_SERVICES={value!r}: {name!r} is not one of {known}"
                )
        return names

    @property
    def snapshot_key(self) -> str | None:
        """The secret that signs model snapshots; None leaves it to the data directory."""
        return self.variables.get("MLPLATFORM_SNAPSHOT_KEY")

    @property
    def lease_seconds(self) -> float:
        """How long a shard stays with an owner that is no longer heard of."""
        # Between two pods of a run, nobody renews.
        return self._number("MLPLATFORM_LEASE_SECONDS", 30 if self.environment == "local" else 300)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources to read instead of those that are enabled in YAML; empty: those."""
        names = (name.strip() for name in self.variables.get("MLPLATFORM_SOURCES", "").split(","))
        return tuple(filter(None, names))

    @property
    def replay_primed(self) -> float:
        """Share of a replay that is read at once; the rest comes one observation a read."""
        return self._number("MLPLATFORM_REPLAY_PRIMED", 1)

    @property
    def replay_file(self) -> Path | None:
        """The file that the ingestion service replays; None: that of the source `retail_employment`."""
        value = self.variables.get("MLPLATFORM_REPLAY_FILE")
        return Path(value) if value else None

    @property
    def service_shard(self) -> int:
        """The shard of the log that the services of this process own; the pipeline's are below 1,000."""
        return FIRST_SERVICE_SHARD + self._count("MLPLATFORM_SERVICE_ORDINAL", 0)

    @property
    def api_tokens(self) -> str:
        """JSON: SHA-256 digests of the tokens that services take, with the scopes of each; empty: none."""
        return self.variables.get("MLPLATFORM_API_TOKENS", "")

    @property
    def traces_endpoint(self) -> str | None:
        """Where traces go, by OpenTelemetry's own variables; None: nowhere."""
        names = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
        return next(filter(None, map(self.variables.get, names)), None)

    @property
    def control_plane_schema(self) -> str:
        """The schema of the database that has the control plane's tables."""
        return self.variables.get("MLPLATFORM_CONTROL_PLANE_SCHEMA") or "control_plane"

    @property
    def project_directory(self) -> Path:
        """The project of batch pipelines whose profile, `lib/` and data YAML from the API stands on."""
        value = self.variables.get("MLPLATFORM_PROJECT_DIRECTORY")
        return Path(value).absolute() if value else Path(__file__).parent / "defs" / "churn"

    @property
    def job_history_days(self) -> int:
        """How long a job is kept that has ended."""
        return self._count("MLPLATFORM_JOB_HISTORY_DAYS", 90, least=1, most=36_500)

    @property
    def control_plane_ports(self) -> dict[str, int]:
        """The ports that variables name for the faces of the control plane, as the seed's services do."""
        return {
            name: self._count(variable, 0, most=65535)
            for name, variable in CONTROL_PLANE_PORTS.items()
            if self.variables.get(variable)
        }

    @property
    def dagit_url(self) -> str:
        """Where Dagit answers."""
        return self.variables.get("MLPLATFORM_DAGIT_URL", "http://127.0.0.1:3000").rstrip("/")

    @property
    def jwt_key(self) -> str | None:
        """The secret that signs the tokens of those who log in; None leaves it to the data directory."""
        return self.variables.get("MLPLATFORM_JWT_KEY") or None

    @property
    def jwt_previous_key(self) -> str | None:
        """The one before, whose tokens are taken until they expire."""
        return self.variables.get("MLPLATFORM_JWT_PREVIOUS_KEY") or None

    @property
    def webhook_key(self) -> str | None:
        """The secret from which those of webhooks are made; None leaves it to the data directory."""
        return self.variables.get("MLPLATFORM_WEBHOOK_KEY") or None

    @property
    def authentication_required(self) -> bool:
        """Whether who logs in to the control plane is asked who they are: always outside `local`."""
        asked = self._choice("MLPLATFORM_AUTHENTICATION", "optional", ("optional", "required"))
        return asked == "required" or self.environment != "local"

    @property
    def api_url(self) -> str:
        """Where a client of the control plane finds it."""
        return self.variables.get("MLPLATFORM_API_URL") or "http://127.0.0.1:8080"

    @property
    def api_token(self) -> str | None:
        """The token that a client of the services shows."""
        return self.variables.get("MLPLATFORM_TOKEN") or None

    @property
    def job(self) -> dict[str, str]:
        """What variables tell the end-to-end job: MLPLATFORM_E2E_SERIES_ID its `series_id`, and so on."""
        return {
            name.removeprefix(JOB_VARIABLES).lower(): value
            for name, value in self.variables.items()
            if name.startswith(JOB_VARIABLES)
        }

    @property
    def secrets_directory(self) -> Path | None:
        """A folder with a file for each secret of commands that a worker runs, as Kubernetes mounts them."""
        value = self.variables.get("MLPLATFORM_SECRETS_DIRECTORY")
        return Path(value) if value else None

    def secret(self, name: str) -> str | None:
        """The secret that a worker's variable has, MLPLATFORM_SECRET_<NAME>."""
        return self.variables.get(self.secret_variable(name))

    @staticmethod
    def secret_variable(name: str) -> str:
        return f"MLPLATFORM_SECRET_{name.upper()}"

    @property
    def cors_origins(self) -> tuple[str, ...]:
        """Web pages of these origins may call the services."""
        origins = (origin.strip() for origin in self.variables.get("MLPLATFORM_CORS_ORIGINS", "").split(","))
        return tuple(filter(None, origins))

    @property
    def rate_limit(self) -> str | None:
        """What one client may ask of a service, such as `600/minute`; None: as much as it likes."""
        return self.variables.get("MLPLATFORM_RATE_LIMIT") or None

    @property
    def flush_seconds(self) -> float:
        """How long a service keeps on its disk alone what it has answered."""
        seconds = self._number("MLPLATFORM_FLUSH_SECONDS", 10)
        if not 0 < seconds < math.inf:
            raise ConfigurationError(f"MLPLATFORM_FLUSH_SECONDS={seconds:g} is no time to wait")
        return seconds

    @property
    def model_name(self) -> str:
        """The model of a model service; empty: all of them."""
        return self.variables.get("MODEL_NAME", "")

    @property
    def challenger(self) -> tuple[str, float] | None:
        """The model that answers a share (0 to 1) of the champion's observations, and the share."""
        value = self.variables.get("MLPLATFORM_CHALLENGER", "")
        if not value:
            return None
        name, _, share = value.partition(":")
        try:
            if name and 0 <= float(share) <= 1:
                return name, float(share)
        except ValueError:
            pass
        raise ConfigurationError(
            f"MLPLATFORM_CHALLENGER={value!r} is no model with its share from 0 to 1, such as"
            " amf_regressor:0.1"
        )

    @property
    def most_series(self) -> int:
        """How many series a service takes: each has a place in its memory, and in each snapshot."""
        return self._count("MLPLATFORM_MOST_SERIES", 10_000, least=1)

    @property
    def labelled_series(self) -> int:
        """Of how many series a model service's metrics tell each; the rest are only counted."""
        return self._count("MLPLATFORM_LABELLED_SERIES", 100)

    @property
    def forecasts_in_a_label(self) -> bool:
        """Whether metrics tell forecasts also as the seed does, where each forecast makes a new series."""
        return self._choice("MLPLATFORM_FORECASTS_IN_A_LABEL", "no", ("no", "yes")) == "yes"

    @property
    def served_lags(self) -> int | None:
        """How many lags the feature service answers with; None: those of the series' family."""
        return self._count("N_LAGS", 0, most=MOST_LAGS) or None

    @cached_property
    def s3(self) -> S3Settings:
        endpoint = self.variables.get(SERVICE_VARIABLES["s3"])
        region = self.variables.get("AWS_REGION", "us-east-1")
        prefix = self.variables.get("MLPLATFORM_S3_PREFIX", "").strip("/")
        if endpoint or self.environment != "local":
            return S3Settings(
                endpoint,
                self._required("AWS_ACCESS_KEY_ID"),
                self._required("AWS_SECRET_ACCESS_KEY"),
                self.variables.get("MLPLATFORM_S3_BUCKET", "mlplatform"),
                region,
                prefix,
            )
        service = self._embedded("s3")
        return S3Settings(
            service["url"],
            service["access_key_id"],
            service["secret_access_key"],
            service["bucket"],
            region,
            prefix,
        )

    @cached_property
    def redis_url(self) -> str:
        # By these names the seed's deployments say where Redis is.
        host = self.variables.get("REDIS_HOST")
        if host and not self.variables.get(SERVICE_VARIABLES["redis"]):
            # Where a service of Kubernetes is called `redis`, the port is a whole address.
            return f"redis://{host}:{self.variables.get('REDIS_PORT', '6379').rpartition(':')[2]}"
        return self._url("redis")

    @cached_property
    def database_url(self) -> str:
        """SQLAlchemy URL with an explicit driver, `postgresql+psycopg2://…`."""
        return self._url("postgresql")

    @cached_property
    def mlflow_tracking_uri(self) -> str:
        """MLflow's server, or a store that MLflow reads by itself (`sqlite:///…`)."""
        return self._url("mlflow")

    def _url(self, service: str) -> str:
        variable = SERVICE_VARIABLES[service]
        if named := self.variables.get(variable):
            return named
        if self.environment != "local":
            return self._required(variable)
        return self._embedded(service)["url"]

    def _required(self, variable: str) -> str:
        if value := self.variables.get(variable):
            return value
        raise ConfigurationError(f"{variable} is not set; MLPLATFORM_ENV={self.environment} needs it")

    def _embedded(self, service: str) -> dict[str, Any]:
        variable = SERVICE_VARIABLES[service]
        path = self.data_directory / STACK_FILE
        try:
            if not is_locked(self.data_directory / STACK_LOCK):
                raise FileNotFoundError
            return json.loads(path.read_text())["services"][service]
        except FileNotFoundError:
            raise ConfigurationError(
                f"no embedded stack runs for {self.data_directory}: "
                f"start it with `mlplatform up`, or set {variable}"
            ) from None
        except KeyError:
            raise ConfigurationError(
                f"{path} names no service {service!r}: set {variable}, or restart with "
                "`mlplatform down` and `mlplatform up`"
            ) from None

    def _number(self, variable: str, default: float) -> float:
        value = self.variables.get(variable, "")
        try:
            return float(value) if value else default
        except ValueError:
            raise ConfigurationError(f"{variable}={value!r} is not a number") from None

    def _count(self, variable: str, default: int, least: int = 0, most: int = 1_000_000_000) -> int:
        value = self._number(variable, default)
        if not (least <= value <= most and value == int(value)):
            raise ConfigurationError(
                f"{variable}={self.variables[variable]!r} is not a whole number from {least} to {most}"
            )
        return int(value)

    def _choice(self, variable: str, default: str, allowed: tuple[str, ...]) -> Any:
        value = self.variables.get(variable, default)
        if value not in allowed:
            raise ConfigurationError(f"{variable}={value!r} is not one of {', '.join(allowed)}")
        return value


def prepare_mlflow() -> None:
    """Sets what MLflow's client takes from the environment, unless it is set; call it before the import."""
    for name, value in MLFLOW_CLIENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def hurried_mlflow(seconds: int) -> Iterator[None]:
    """Lets MLflow's client try each request once, for so many seconds, whatever else is set."""
    hurried = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    before = {name: os.environ.get(name) for name in hurried}
    os.environ.update(hurried)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock file `path`."""
    try:
        file = path.open()
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
