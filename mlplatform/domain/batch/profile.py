"""What `profiles.yaml` may say: where the pipelines of a project run, by target."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mlplatform.domain.batch.pipeline import Block, Text


class Plugin(Block):
    """A plugin by name, with its configuration; without one, the platform's own server is meant."""

    type: Text = Field(description="Name of the plugin.")
    config: dict[str, Any] = Field(default={}, description="The plugin's own settings.")


class Executor(Block):
    """Where the steps run that another orchestrator starts."""

    type: Literal["local", "docker", "kubernetes"] = "local"
    config: dict[str, Any] = {}


class DefaultArguments(Block):
    """Airflow's `default_args` of generated DAGs."""

    owner: str = "mlplatform"
    retries: int = Field(default=2, ge=0)
    retry_delay_minutes: float = Field(default=5, ge=0)


class OrchestratorConfig(Block):
    """How DAGs are generated for another orchestrator."""

    dag_directory: str | None = Field(default=None, description="Folder from which Airflow loads its DAGs.")
    default_args: DefaultArguments = DefaultArguments()


class Orchestrator(Block):
    """What launches the pipelines; Dagster needs nothing here."""

    type: Literal["airflow", "dagster"] = "dagster"
    config: OrchestratorConfig = OrchestratorConfig()


class Experiment(Block):
    """What all targets share of MLflow."""

    experiment_name: Text | None = Field(
        default=None, description="MLflow's experiment, where a pipeline names none."
    )


class Tracking(Block):
    """MLflow; without `tracking_uri`, the platform's own server is meant."""

    tracking_uri: Text | None = Field(default=None, description="Address of the server, or a file: URI.")
    artifact_location: Text | None = Field(
        default=None, description="Where a new experiment keeps its models, such as s3://bucket/."
    )


class H2OCluster(Block):
    """Where H2O trains."""

    url: str | None = Field(
        default=None, description="A running cluster; without one, a JVM is started here."
    )


class Secrets(Block):
    """Where the values of `{{ secret('NAME') }}` come from."""

    provider: Text = Field(default="env", description="Name of the plugin; env reads the step's environment.")
    config: dict[str, Any] = Field(default={}, description="The plugin's own settings.")


class Target(Block):
    """One of a profile's `outputs`."""

    executor: Executor = Executor()
    storage: Plugin
    data_connector: Plugin
    mlflow: Tracking = Tracking()
    h2o: H2OCluster = H2OCluster()
    secrets: Secrets = Secrets()


class Profile(Block):
    """Where a project's pipelines run, by target."""

    target: str = Field(description="The target that is used unless another is named.")
    mlflow: Experiment = Experiment()
    orchestrator: Orchestrator = Orchestrator()
    outputs: dict[str, Target] = Field(min_length=1, description="Targets by name, such as dev and prod.")
