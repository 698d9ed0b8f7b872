"""What every model registry must be able to do: run each of CHECKS on yours, with a project of its own.

    @pytest.mark.parametrize("check", CHECKS)
    def test_my_registry(check, tmp_path):
        CHECKS[check](MyRegistry(tracking, settings, tmp_path), tmp_path)

Models and experiments have names of their own in each check, so that all may share one server.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from mlplatform.io.plugins.model_registries import ModelRegistry, Plot, RegistryError, TrackedRun

SVG = "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><path d='M0 9L9 0'/></svg>"


def tracked_run(root: Path, **changes) -> TrackedRun:
    """A training with a bundle of some files, which no framework has to read."""
    name = uuid.uuid4().hex[:8]
    bundle = root / f"bundle-{name}"
    (bundle / "estimator").mkdir(parents=True)
    (bundle / "model.json").write_text('{"format": 1}')
    (bundle / "estimator" / "weights.bin").write_bytes(bytes(range(256)) * 40)
    (bundle / "SIGNATURE").write_text("5e")
    run = TrackedRun(
        key=f"run_{name}/training_churn_model_v1",
        experiment=f"churn prediction {name}",
        model_name=f"churn_model_{name}",
        parameters={"framework": "h2o_automl", "problem_type": "binary_classification", "max_models": 10},
        metrics={"roc_auc": 0.84, "f1": 0.5},
        tags={"pipeline_name": "training_churn_model_v1", "owner": "ds-team"},
        plots=[Plot("roc_curve", SVG), Plot("calibration", SVG)],
        tables={"leaderboard.csv": "model,auc\ngbm,0.84\n"},
        model=bundle,
        example=pd.DataFrame({"tenure": [1, 40], "charges": [29.5, 80.0], "contract": ["monthly", None]}),
        prediction=pd.DataFrame({"prediction": [1, 0], "prediction_probability": [0.7, 0.1]}),
        dataset="customers",
        dataset_digest=uuid.uuid4().hex * 2,
        requirements=["h2o==3.46.0.11"],
    )
    return replace(run, **changes)


def files(directory: Path) -> dict[str, bytes]:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def the_bundle_comes_back_as_it_was(registry: ModelRegistry, root: Path) -> None:
    run = tracked_run(root)
    logged = registry.log(run)
    assert logged.run_id
    assert registry.resolve(run.model_name, logged.run_id) == logged
    assert files(registry.fetch(logged, root / "fetched")) == files(run.model)


def the_same_key_is_logged_once(registry: ModelRegistry, root: Path) -> None:
    run = tracked_run(root)
    first = registry.log(run)
    assert registry.log(run) == first
    other = registry.log(replace(run, key=f"{run.key} again"))
    assert other.run_id != first.run_id
    assert other.version != first.version
    assert registry.log(run) == first


def a_champion_is_who_was_promoted(registry: ModelRegistry, root: Path) -> None:
    run = tracked_run(root)
    first = registry.log(run)
    assert registry.champion(run.model_name) is None
    registry.promote(run.model_name, first.version)
    second = registry.log(replace(run, key=f"{run.key} again"))
    assert registry.champion(run.model_name) == registry.resolve(run.model_name, "champion") == first
    registry.promote(run.model_name, second.version)
    assert registry.champion(run.model_name) == second
    assert registry.resolve(run.model_name, first.run_id) == first


def models_do_not_meet(registry: ModelRegistry, root: Path) -> None:
    one, other = tracked_run(root), tracked_run(root)
    registry.promote(one.model_name, registry.log(one).version)
    registry.log(other)
    assert registry.champion(other.model_name) is None


def a_model_that_was_never_trained_has_no_champion(registry: ModelRegistry, root: Path) -> None:
    name = tracked_run(root).model_name
    assert registry.champion(name) is None
    with pytest.raises(RegistryError, match=rf"{name} has no champion.*train"):
        registry.resolve(name, "champion")


def a_run_that_is_not_there_is_named_with_those_that_are(registry: ModelRegistry, root: Path) -> None:
    run = tracked_run(root)
    with pytest.raises(RegistryError, match=rf"no run 'nowhere'.*{run.model_name} is not registered"):
        registry.resolve(run.model_name, "nowhere")
    logged = registry.log(run)
    with pytest.raises(RegistryError, match=rf"no run 'nowhere'.*{logged.run_id}.*'{run.experiment}'"):
        registry.resolve(run.model_name, "nowhere")


def a_failure_in_between_leaves_no_model(registry: ModelRegistry, root: Path) -> None:
    run = tracked_run(root)
    with pytest.raises((RegistryError, OSError)):
        registry.log(replace(run, model=root / "nowhere"))
    with pytest.raises(RegistryError):
        registry.resolve(run.model_name, "champion")
    logged = registry.log(run)
    assert registry.resolve(run.model_name, logged.run_id) == logged


def a_version_that_is_not_there_is_not_promoted(registry: ModelRegistry, root: Path) -> None:
    run = tracked_run(root)
    registry.log(run)
    with pytest.raises(RegistryError):
        registry.promote(run.model_name, "77")
    assert registry.champion(run.model_name) is None


def it_answers(registry: ModelRegistry, root: Path) -> None:
    line = registry.check()
    assert line
    assert "\n" not in line


CHECKS: dict[str, Callable[[ModelRegistry, Path], None]] = {
    check.__name__: check
    for check in (
        the_bundle_comes_back_as_it_was,
        the_same_key_is_logged_once,
        a_champion_is_who_was_promoted,
        models_do_not_meet,
        a_model_that_was_never_trained_has_no_champion,
        a_run_that_is_not_there_is_named_with_those_that_are,
        a_failure_in_between_leaves_no_model,
        a_version_that_is_not_there_is_not_promoted,
        it_answers,
    )
}
