"""A soak of minutes: what it would find in hours is `python -m mlplatform_tests.services.soak`'s to tell."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from mlplatform.local.stack import RunningStack
from mlplatform.settings import Settings
from mlplatform_tests.cli.serving import on_stack
from mlplatform_tests.services.soak import Soaked, soak


def test_minutes_of_traffic_leave_nothing_behind_but_what_was_sent(
    stack: RunningStack, tmp_path: Path
) -> None:
    """G1, G2, G7."""
    own = on_stack(Settings(stack.variables), tmp_path, uuid.uuid4().hex)
    soaked = soak(Settings({**own, "MLPLATFORM_FLUSH_SECONDS": "1"}), 240, ["linear_regression"])
    assert list(soaked.memory) == ["ingestion", "features", "linear_regression"]
    # Of so few observations most is what a process makes once.
    assert all(soaked.growth(name) < 1.15 for name in soaked.memory), soaked.told()
    assert all(20 < size / soaked.observations < 2_000 for size in soaked.disk.values()), soaked.told()


def test_growth_is_what_is_added_after_the_first_quarter() -> None:
    started, leaking = [20.0] * 5, [60.0 + at for at in range(100)]
    soaked = Soaked(100, memory={"flat": [*started, *[50.0] * 95], "leaking": leaking})
    assert soaked.quarters("flat") == [50.0] * 4
    assert soaked.growth("flat") == 1
    assert soaked.quarters("leaking") == [82.0, 107.0, 132.0, 157.0]
    assert soaked.growth("leaking") == pytest.approx(157 / 82)
