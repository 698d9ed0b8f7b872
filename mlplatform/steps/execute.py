"""Runs one step: its inputs from the artefacts, its outputs into them, its checks decided."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from mlplatform.domain.batch.checks import Check, checks_of
from mlplatform.domain.batch.graph import steps_of
from mlplatform.io.artifacts import Artifacts, Given, Saved, Stored
from mlplatform.steps.context import CheckOutcome, StepContext, StepFailed


def call_step(context: StepContext, step: str, inputs: Mapping[str, Stored]) -> dict[str, Given]:
    """Calls the step's function and returns its outputs by name.

    Frames among them are made while they are read, so that the report is complete only when all outputs
    are saved.
    """
    module, _, function = context.manifest.steps[step].plugin.partition(":")
    outputs = getattr(importlib.import_module(module), function)(context, **inputs)
    declared = context.manifest.steps[step].outputs
    if list(outputs) != declared:
        raise StepFailed(f"step {step} gave {', '.join(outputs)}, and declares {', '.join(declared)}")
    return outputs


def blocks(check: Check, outcome: CheckOutcome) -> bool:
    """Whether the run must end here."""
    return check.blocking and not outcome.passed and not outcome.warning


def run_step(context: StepContext, step: str, artifacts: Artifacts) -> dict[str, Saved]:
    """A step outside Dagster, from artefacts to artefacts.

    Raises:
        StepFailed: a blocking check failed.
    """
    declared = next(each for each in steps_of(context.pipeline) if each.name == step)
    inputs: dict[str, Any] = {name: artifacts.load(name) for name in declared.inputs}
    saved = {
        name: artifacts.save(step, name, value) for name, value in call_step(context, step, inputs).items()
    }
    for check in checks_of(context.pipeline).get(step, ()):
        outcome = context.report.checks[check.name]
        if not outcome.passed and not blocks(check, outcome):
            context.log(f"warning: {_said(check, outcome)}")
    if failures := blocking_failures(context, step):
        raise StepFailed(failures)
    return saved


def blocking_failures(context: StepContext, step: str) -> str:
    """Why the run ends after a finished step: what its blocking checks say that failed; empty if none did."""
    checks = checks_of(context.pipeline).get(step, ())
    outcomes = [(check, context.report.checks[check.name]) for check in checks]
    return "; ".join(_said(check, outcome) for check, outcome in outcomes if blocks(check, outcome))


def _said(check: Check, outcome: CheckOutcome) -> str:
    return f"check {check.name} of {check.artefact}: {outcome.description}"
