"""The steps of compiled pipelines as ops, and their artefacts as assets."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dagster as dg

from mlplatform.components.batch.automation import PERIODS, PIPELINE_TAG
from mlplatform.components.batch.metadata import figures_metadata, plots_metadata
from mlplatform.components.batch.specs import DESCRIPTIONS, kinds_of
from mlplatform.domain.batch.checks import Check, checks_of
from mlplatform.domain.batch.graph import Step, steps_of
from mlplatform.domain.batch.manifest import Manifest
from mlplatform.io.artifacts import Stored
from mlplatform.io.pipelines.project import Project
from mlplatform.io.pipelines.target_plugins import TargetPlugins
from mlplatform.resources.artifact_io_manager import ArtifactIOManager, Place, readable_failures
from mlplatform.steps.context import StepContext
from mlplatform.steps.execute import blocking_failures, blocks, call_step

# For errors that pass by themselves, such as a database that fails over.
RETRY = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL)


@dataclass(frozen=True)
class Batch:
    """Compiled pipelines of one project, to be shown as one graph."""

    project: Project
    manifests: Sequence[Manifest]
    group: str
    owners: Sequence[str]
    folders: Mapping[str, str]

    def assets(self) -> list[dg.AssetsDefinition]:
        return [
            self._step(manifest, step) for manifest in self.manifests for step in steps_of(manifest.pipeline)
        ]

    def resources(self) -> dict[str, object]:
        return {self._io_manager(manifest): self._artifacts(manifest) for manifest in self.manifests}

    def _trained(self, model_name: str) -> list[dg.AssetKey]:
        """The assets of the pipelines here that train the model."""
        return [
            self.key_of(manifest, "run_id")
            for manifest in self.manifests
            if manifest.pipeline.kind == "training" and manifest.pipeline.model_name == model_name
        ]

    def key_of(self, manifest: Manifest, artefact: str) -> dg.AssetKey:
        """The asset of an artefact. What a pipeline is for has the name by which people know it, the model's
        or the table's, unless another pipeline or table has that name too.
        """
        known = _known_name(manifest, artefact)
        if known and self._known_names[known] == 1:
            return dg.AssetKey(known)
        return dg.AssetKey([manifest.name, artefact])

    @cached_property
    def _known_names(self) -> Counter[str]:
        """How many things there are of each name."""
        names = Counter({table: 1 for manifest in self.manifests for table in _tables(manifest)})
        for manifest in self.manifests:
            names.update(filter(None, (_known_name(manifest, artefact) for artefact in ("run_id", "output"))))
        return names

    def _io_manager(self, manifest: Manifest) -> str:
        return f"{manifest.name}_artifacts"

    def _artifacts(self, manifest: Manifest) -> ArtifactIOManager:
        plugins = self._plugins[manifest.name]
        places = {
            self.key_of(manifest, artefact): Place(
                manifest.name, step.name, artefact, lambda: plugins.storage, plugins.redact
            )
            for step in steps_of(manifest.pipeline)
            for artefact in step.outputs
        }
        return ArtifactIOManager(places, self.folders.get(manifest.name))

    @cached_property
    def _plugins(self) -> dict[str, TargetPlugins]:
        """One a pipeline: its IO manager must know the secrets that its steps have looked up."""
        settings, root = self.project.settings, self.project.root
        return {manifest.name: TargetPlugins(manifest.target, settings, root) for manifest in self.manifests}

    def _step(self, manifest: Manifest, step: Step) -> dg.AssetsDefinition:
        checks = checks_of(manifest.pipeline).get(step.name, ())
        keys = {artefact: self.key_of(manifest, artefact) for artefact in step.outputs}
        inputs = {name: dg.AssetIn(self.key_of(manifest, name)) for name in step.inputs}
        sources = self._sources(manifest, step)
        deps = [*(each.key for each in inputs.values() if isinstance(each.key, dg.AssetKey)), *sources]

        @dg.multi_asset(
            name=f"{manifest.name}__{step.name}",
            specs=[self._spec(manifest, step, artefact, deps) for artefact in step.outputs],
            check_specs=[
                dg.AssetCheckSpec(
                    check.name,
                    asset=self.key_of(manifest, check.artefact),
                    description=check.description,
                    blocking=check.blocking,
                )
                for check in checks
            ],
            ins=inputs,
            retry_policy=RETRY,
            op_tags=_kubernetes(manifest.steps[step.name].resources),
        )
        def run(context: dg.AssetExecutionContext, **inputs: Any):
            yield from _run(context, manifest, self._plugins[manifest.name], step, keys, checks, inputs)

        return run

    def _sources(self, manifest: Manifest, step: Step) -> list[dg.AssetKey]:
        """The assets outside the pipeline that a step reads."""
        if step.name in ("load_data", "load_scoring_data"):
            return [dg.AssetKey(table) for table in _tables(manifest)]
        return self._trained(manifest.pipeline.model_name) if step.name == "load_model" else []

    def _spec(self, manifest: Manifest, step: Step, artefact: str, deps: list[dg.AssetKey]) -> dg.AssetSpec:
        pipeline = manifest.pipeline
        return dg.AssetSpec(
            self.key_of(manifest, artefact),
            description=DESCRIPTIONS[artefact],
            group_name=self.group,
            owners=[_owner(pipeline.project.owner)] if pipeline.project.owner else list(self.owners),
            kinds=kinds_of(manifest, artefact),
            deps=deps,
            tags={PIPELINE_TAG: manifest.name, **{_tag(tag): "" for tag in pipeline.project.tags}},
            code_version=_version(manifest, step),
            freshness_policy=_freshness(manifest) if artefact in ("run_id", "output") else None,
        ).with_io_manager_key(self._io_manager(manifest))


def _known_name(manifest: Manifest, artefact: str) -> str | None:
    """The model or the table that an artefact is; None if it is neither."""
    pipeline = manifest.pipeline
    if artefact == "run_id" and not pipeline.serving:
        return pipeline.model_name
    return pipeline.serving.output.table if artefact == "output" and pipeline.serving else None


def _tables(manifest: Manifest) -> list[str]:
    """The tables that a pipeline reads."""
    pipeline = manifest.pipeline
    if pipeline.serving:
        serving = pipeline.serving.data_source
        return [serving.scoring_table, *(each.table for each in serving.feature_tables)]
    training = pipeline.training.data_source
    return [training.label_table, *(each.table for each in training.feature_tables)]


def _run(
    context: dg.AssetExecutionContext,
    manifest: Manifest,
    plugins: TargetPlugins,
    step: Step,
    keys: Mapping[str, dg.AssetKey],
    checks: Sequence[Check],
    inputs: Mapping[str, Stored],
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    def log(line: str) -> None:
        context.log.info(plugins.redact(line))

    run_id = context.run.root_run_id or context.run.run_id
    with StepContext(manifest, plugins, run_id, log) as step_context:
        report = step_context.report
        with readable_failures(plugins.redact):
            outputs = call_step(step_context, step.name, inputs)
        for artefact, value in outputs.items():
            figures = figures_metadata(report.figures.get(artefact, {}))
            plots = plots_metadata(report.plots.get(artefact, []))
            yield dg.MaterializeResult(asset_key=keys[artefact], value=value, metadata={**figures, **plots})
    for check in checks:
        outcome = report.checks[check.name]
        failed = blocks(check, outcome)
        severity = dg.AssetCheckSeverity.ERROR if failed else dg.AssetCheckSeverity.WARN
        yield dg.AssetCheckResult(
            asset_key=keys[check.artefact],
            check_name=check.name,
            passed=outcome.passed,
            severity=severity,
            description=plugins.redact(outcome.description),
            metadata=figures_metadata(outcome.figures),
        )
    if failures := blocking_failures(step_context, step.name):
        # Dagster would fail the step too, and say no more than the names of the checks.
        raise dg.Failure(plugins.redact(failures), allow_retries=False)


def _kubernetes(resources: Mapping[str, str]) -> dict[str, Any]:
    """Tags of a step's pod. On the op, since Dagster passes those of a job to no step."""
    if not resources:
        return {}
    asked = {"requests": dict(resources), "limits": dict(resources)}
    return {"dagster-k8s/config": {"container_config": {"resources": asked}}}


def _version(manifest: Manifest, step: Step) -> str:
    """Changes with what the step reads of the pipeline, and with the platform's version."""
    config = json.dumps(manifest.steps[step.name].config, sort_keys=True, default=str)
    return f"{manifest.metadata.mlplatform_version}-{hashlib.sha256(config.encode()).hexdigest()[:12]}"


def _freshness(manifest: Manifest) -> dg.FreshnessPolicy | None:
    """Late when one scheduled run is missing, and the next is half a cadence away."""
    cadence = manifest.pipeline.deployment.cadence
    return dg.FreshnessPolicy.time_window(fail_window=1.5 * PERIODS[cadence]) if cadence else None


def _owner(owner: str) -> str:
    """A team, unless it is written as Dagster wants owners."""
    return owner if "@" in owner or owner.startswith("team:") else f"team:{owner}"


def _tag(tag: str) -> str:
    """A tag of the pipeline as Dagster allows its tags to be written."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", tag)[:63]
