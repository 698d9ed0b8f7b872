"""A compiled pipeline as a DAG file of Airflow, for those who schedule with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

from mlplatform.domain.batch.manifest import Manifest
from mlplatform.domain.batch.pipeline import Cadence
from mlplatform.errors import PlatformError

SCHEDULES: dict[Cadence, str] = {
    "hourly": "@hourly",
    "daily": "@daily",
    "weekly": "@weekly",
    "monthly": "@monthly",
}
FILE = Template('''\
"""Pipeline $name as a DAG of Airflow: one task a step.

Written by `mlplatform generate-dags`: change the pipeline or the profile, and write it again.$secrets
"""

from __future__ import annotations

$imports

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG
$operator_import

PIPELINE = "$name"
TARGET = "$target"
# The folder of a run's artefacts: the same in a retry, and no other pipeline's.
# Airflow 3 gives no logical date to a run that is started by hand.
RUN_ID = (
    "run_{% if ds_nodash is defined %}{{ ds_nodash }}_{{ ts_nodash }}"
    "{% else %}{{ dag_run.run_after.strftime('%Y%m%d_%Y%m%dT%H%M%S') }}{% endif %}"
    f"_{PIPELINE}"
)
$constants

$function


with DAG(
    dag_id=PIPELINE,
    schedule=$schedule,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["mlplatform", PIPELINE],
    default_args={
        "owner": $owner,
        "retries": $retries,
        "retry_delay": timedelta(minutes=$retry_delay_minutes),
    },
):
$tasks

$arrows
''')
BASH_IMPORT = """\

try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:  # Airflow 2
    from airflow.operators.bash import BashOperator"""
BASH = """\
def task(step: str) -> BashOperator:
    options = f"--pipeline {PIPELINE} --step {step} --target {TARGET} --run-id {RUN_ID}"
    return BashOperator(
        task_id=step,
        bash_command=f"mlplatform step execute {options}",
        cwd=PROJECT,
        env=ENVIRONMENT,
        append_env=True,
    )"""
DOCKER_IMPORT = "from airflow.providers.docker.operators.docker import DockerOperator"
DOCKER = """\
def task(step: str) -> DockerOperator:
    return DockerOperator(
        task_id=step,
        image=IMAGE,
        entrypoint=["mlplatform"],
        command=[
            "step", "execute", "--pipeline", PIPELINE, "--step", step, "--target", TARGET, "--run-id", RUN_ID
        ],
        environment=ENVIRONMENT,
        # Passed on from the worker's environment; Airflow neither shows nor stores them.
        private_environment={name: os.environ[name] for name in SECRETS if name in os.environ},
        auto_remove="success",
    )"""
POD_IMPORT = """\
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from kubernetes.client import models as k8s"""
POD = """\
def task(step: str, resources: dict[str, str] | None = None) -> KubernetesPodOperator:
    return KubernetesPodOperator(
        task_id=step,
        name=f"{PIPELINE}-{step}",
        namespace=NAMESPACE,
        service_account_name=SERVICE_ACCOUNT,
        image=IMAGE,
        cmds=["mlplatform"],
        arguments=[
            "step", "execute", "--pipeline", PIPELINE, "--step", step, "--target", TARGET, "--run-id", RUN_ID
        ],
        env_vars=ENVIRONMENT,
        env_from=[
            *(k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name=name)) for name in ENV_FROM_SECRETS),
            *(
                k8s.V1EnvFromSource(config_map_ref=k8s.V1ConfigMapEnvSource(name=name))
                for name in ENV_FROM_CONFIGMAPS
            ),
        ],
        container_resources=k8s.V1ResourceRequirements(requests=resources, limits=resources),
        # A node that never had the image pulls about a gigabyte.
        startup_timeout_seconds=600,
        get_logs=True,
    )"""
NEEDS = {"local": (), "docker": ("image",), "kubernetes": ("image", "namespace")}
TARGET_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class UnsuitableProfile(PlatformError):
    """The profile cannot be made into a DAG; the message names the key and the remedy."""


def dag_file(manifest: Manifest, project: str, secrets: Sequence[str]) -> str:
    """The Python of a DAG with one task a step, for Airflow 2.8 and later, and 3.

    `project` is the project's folder as Airflow's worker sees it, where the executor is `local`. `secrets`
    are names of environment variables that the tasks need; the file holds no value of them.

    Raises:
        UnsuitableProfile: the executor's configuration lacks what its operator needs, or holds a secret.
    """
    profile, target = manifest.profile_config, manifest.metadata.target
    executor, cadence = manifest.target.executor, manifest.pipeline.deployment.cadence
    _check(executor.type, executor.config, target)
    operator_import, function, constants = {
        "local": _bash,
        "docker": _docker,
        "kubernetes": _pod,
    }[executor.type](executor.config, project, secrets)
    defaults = profile.orchestrator.config.default_args
    return FILE.substitute(
        name=manifest.name,
        secrets=_told(secrets, executor.type),
        imports="\n".join(
            [
                *(["import os"] if "os.environ" in function else []),
                "from datetime import datetime, timedelta, timezone",
            ]
        ),
        operator_import=operator_import,
        target=target,
        constants="\n".join(f"{key} = {_literal(value)}" for key, value in constants.items()),
        function=f"\n{function}",
        schedule=_literal(SCHEDULES[cadence] if cadence else None),
        owner=_literal(defaults.owner),
        retries=defaults.retries,
        retry_delay_minutes=f"{defaults.retry_delay_minutes:g}",
        tasks="\n".join(
            f"    {name} = task({', '.join(_arguments(name, step.resources, executor.type))})"
            for name, step in manifest.steps.items()
        ),
        arrows="\n".join(
            f"    {_several(parents)} >> {step}"
            for step, parents in manifest.dag.parent_map.items()
            if parents
        ),
    )


def _bash(config: Mapping[str, Any], project: str, _: Sequence[str]) -> tuple[str, str, dict[str, Any]]:
    return BASH_IMPORT, BASH, {"PROJECT": project, "ENVIRONMENT": _environment(config)}


def _docker(config: Mapping[str, Any], _: str, secrets: Sequence[str]) -> tuple[str, str, dict[str, Any]]:
    constants = {"IMAGE": config["image"], "ENVIRONMENT": _environment(config), "SECRETS": list(secrets)}
    return DOCKER_IMPORT, DOCKER, constants


def _pod(config: Mapping[str, Any], _: str, __: Sequence[str]) -> tuple[str, str, dict[str, Any]]:
    constants = {
        "NAMESPACE": config["namespace"],
        "SERVICE_ACCOUNT": config.get("service_account"),
        "IMAGE": config["image"],
        "ENVIRONMENT": _environment(config),
        "ENV_FROM_SECRETS": list(config.get("env_from_secrets") or []),
        "ENV_FROM_CONFIGMAPS": list(config.get("env_from_configmaps") or []),
    }
    return POD_IMPORT, POD, constants


def _environment(config: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in (config.get("environment") or {}).items()}


def _check(executor: str, config: Mapping[str, Any], target: str) -> None:
    at = f"profiles.yaml: outputs.{target}.executor.config"
    if not TARGET_NAME.fullmatch(target):
        raise UnsuitableProfile(
            f"profiles.yaml: the target {target!r} may hold letters, digits, _, - and . only"
        )
    for key in NEEDS[executor]:
        if not config.get(key):
            raise UnsuitableProfile(f"{at}.{key} is missing: the executor {executor} needs it")
    # Airflow would take it for a template of its own.
    if "{{" in json.dumps(config) or "{%" in json.dumps(config):
        raise UnsuitableProfile(
            f"{at} holds a secret, which would stand in the DAG file: name a secret of Kubernetes in "
            "env_from_secrets, or set the variable where the tasks run"
        )


def _arguments(step: str, resources: Mapping[str, str], executor: str) -> list[str]:
    asked = [_literal(dict(resources))] if resources and executor == "kubernetes" else []
    return [_literal(step), *asked]


def _several(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"[{', '.join(names)}]"


def _told(secrets: Sequence[str], executor: str) -> str:
    told = ""
    if secrets:
        told += f"\nThe tasks need these variables in their environment: {', '.join(secrets)}."
    if executor != "local":
        # On one machine, models are signed by the key of its data directory.
        told += "\nMLPLATFORM_SNAPSHOT_KEY must be there too, the same for all tasks."
    return told


def _literal(value: Any) -> str:
    """Python's spelling of None, text, and lists and mappings of text, with double quotes."""
    if value is None:
        return "None"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return json.dumps(str(value), ensure_ascii=False)
