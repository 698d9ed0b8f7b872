from __future__ import annotations

import os
import pickle
import zlib
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pytest

from mlplatform.domain.families import Families, Family
from mlplatform.domain.recipes import load_recipes
from mlplatform.io.object_store import Conflict, ObjectStore
from mlplatform.io.signing import Signer
from mlplatform.io.snapshots import Snapshot, SnapshotStore
from mlplatform.io.states import State, StateStore, versions_of

VERSIONS = {"format": "1"}
ROWS = pa.table({"position": [1, 2], "prediction": [0.5, None]})


class Trap:
    """Leaves a directory behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def snapshots(store: ObjectStore) -> SnapshotStore:
    return SnapshotStore(store, Signer(b"key"))


@pytest.fixture
def states(snapshots: SnapshotStore) -> StateStore:
    return StateStore(snapshots)


def commit(states: StateStore, snapshots: SnapshotStore, state: State) -> str:
    made = states.prepare("linear", 0, VERSIONS, state, {})
    return snapshots.commit(made.snapshot, made.etag)


def test_there_is_the_empty_state_before_the_first_commit(states: StateStore) -> None:
    assert states.load("linear", 0, VERSIONS, {}) == State({})


@pytest.mark.parametrize("unpublished", [None, ROWS, ROWS.slice(0, 0)])
def test_a_state_comes_back_with_its_rows(
    states: StateStore, snapshots: SnapshotStore, unpublished: pa.Table | None
) -> None:
    etag = commit(states, snapshots, State({"a": [1.5]}, 3, unpublished))
    assert states.load("linear", 0, VERSIONS, {}) == State({"a": [1.5]}, 3, unpublished, etag)


def test_a_state_is_committed_over_the_version_that_it_came_from(
    states: StateStore, snapshots: SnapshotStore
) -> None:
    commit(states, snapshots, State(1, 1))
    ours, theirs = (states.load("linear", 0, VERSIONS, 0) for _ in range(2))
    theirs.position = 2
    commit(states, snapshots, theirs)
    ours.position = 3
    with pytest.raises(Conflict):
        commit(states, snapshots, ours)
    assert states.load("linear", 0, VERSIONS, 0).position == 2


def test_a_forged_state_is_refused_and_never_unpickled(
    store: ObjectStore, states: StateStore, tmp_path: Path
) -> None:
    forger = SnapshotStore(store, Signer(b"forger"))
    commit(StateStore(forger), forger, State(Trap(tmp_path / "sprung")))
    state = states.load("linear", 0, VERSIONS, "empty")
    assert (state.content, state.position) == ("empty", 0)
    assert "not signed" in state.refused
    assert not (tmp_path / "sprung").exists()


def test_a_state_of_other_versions_is_refused_and_never_unpickled(
    states: StateStore, snapshots: SnapshotStore, tmp_path: Path
) -> None:
    commit(states, snapshots, State(Trap(tmp_path / "sprung"), 5))
    state = states.load("linear", 0, {"format": "2"}, "empty")
    assert (state.content, state.position) == ("empty", 0)
    assert state.refused == "it was made with format 1 instead of 2"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (zlib.compress(b"cmlplatform.domain.model\nGone\n."), "AttributeError"),
        (zlib.compress(b"cmlplatform.gone\nModel\n."), "ModuleNotFoundError"),
        (zlib.compress(pickle.dumps("no pair")), "ValueError"),
        (b"not compressed", "zlib.error|error"),
    ],
)
def test_a_state_that_is_no_longer_understood_is_refused_and_can_be_replaced(
    states: StateStore, snapshots: SnapshotStore, payload: bytes, reason: str
) -> None:
    snapshots.commit(Snapshot("linear", 0, 5, payload, VERSIONS), None)
    state = states.load("linear", 0, VERSIONS, "empty")
    assert (state.content, state.position) == ("empty", 0)
    assert any(name in state.refused for name in reason.split("|"))
    commit(states, snapshots, State("rebuilt", 5, etag=state.etag))
    assert states.load("linear", 0, VERSIONS, "empty").content == "rebuilt"


def test_versions_name_libraries_recipes_and_families() -> None:
    recipe = load_recipes()["linear"]
    versions = versions_of((recipe,), Families())
    assert versions["river"] == version("river")
    assert versions["numpy"] == version("numpy")
    assert versions["recipe linear"] == recipe.digest
    other = versions_of((recipe,), Families((Family(lags=3),)))
    assert {name for name in versions if versions[name] != other[name]} == {"families"}


def test_a_frozen_state_is_committed_as_it_was(states: StateStore, snapshots: SnapshotStore) -> None:
    state = State({"a": [1]})
    frozen = state.frozen()
    state.content["a"].append(2)
    made = states.prepare("linear", 0, VERSIONS, State(None, 3), {}, frozen)
    snapshots.commit(made.snapshot, None)
    stored = states.load("linear", 0, VERSIONS, {})
    assert (stored.content, stored.position) == ({"a": [1]}, 3)


def test_rows_of_an_older_version_wait_together_with_newer_ones() -> None:
    state = State({}, 3, ROWS)
    state.move_on(4, pa.table({"position": [3], "prediction": [1.0], "observation_id": ["c"]}), 2)
    assert state.unpublished.to_pylist() == [
        {"position": 2, "prediction": None, "observation_id": None},
        {"position": 3, "prediction": 1.0, "observation_id": "c"},
    ]
