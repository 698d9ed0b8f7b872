from __future__ import annotations

from dataclasses import replace

import pytest

from mlplatform.io.object_store import Conflict, ObjectStore
from mlplatform.io.signing import Signer
from mlplatform.io.snapshots import MAGIC, Snapshot, SnapshotStore
from mlplatform_tests.io.racing import race

VERSIONS = {"river": "0.26.1", "numpy": "2.0"}
SNAPSHOT = Snapshot("linear", 3, 17, b"state" * 100, VERSIONS, {"mae": 1.5}, "2020-01-01T00:00:00+00:00")


@pytest.fixture
def snapshots(store: ObjectStore) -> SnapshotStore:
    return SnapshotStore(store, Signer(b"key"))


def load(snapshots: SnapshotStore, versions: dict[str, str] = VERSIONS):
    return snapshots.load("linear", 3, versions)


def test_there_is_nothing_before_the_first_commit(snapshots: SnapshotStore) -> None:
    assert load(snapshots) == (None, None, None)


def test_a_snapshot_comes_back_as_it_was_committed(snapshots: SnapshotStore) -> None:
    etag = snapshots.commit(SNAPSHOT, None)
    assert load(snapshots) == (SNAPSHOT, etag, None)


def test_names_and_shards_do_not_meet(snapshots: SnapshotStore) -> None:
    snapshots.commit(SNAPSHOT, None)
    assert snapshots.load("linear", 4, VERSIONS) == (None, None, None)
    assert snapshots.load("knn", 3, VERSIONS) == (None, None, None)


def test_the_payload_is_named_by_its_digest() -> None:
    assert SNAPSHOT.digest == replace(SNAPSHOT, position=18).digest
    assert SNAPSHOT.digest != replace(SNAPSHOT, payload=b"other").digest


def damages(content: bytes) -> dict[str, bytes]:
    middle = len(content) // 2
    flipped = {
        f"bit flipped at {at}": content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        for at in (0, len(MAGIC), len(MAGIC) + 10, middle, len(content) - 33, len(content) - 1)
    }
    return {
        "empty": b"",
        "shorter than a signature": content[:10],
        "first half": content[:middle],
        "without its last byte": content[:-1],
        "a byte more": content + b"\0",
        "torn in the middle": content[:middle] + bytes(len(content) - middle),
        "not ours": b"something else entirely" * 10,
        **flipped,
    }


def test_a_damaged_snapshot_is_refused_and_can_be_replaced(
    store: ObjectStore, snapshots: SnapshotStore
) -> None:
    snapshots.commit(SNAPSHOT, None)
    whole = store.get(snapshots.key("linear", 3)).content
    for damage, content in damages(whole).items():
        etag = store.put(snapshots.key("linear", 3), content)
        found, found_etag, refused = load(snapshots)
        assert (found, found_etag) == (None, etag), damage
        assert refused == "it is torn, or was not signed with this platform's key", damage
        etag = snapshots.commit(SNAPSHOT, found_etag)
        assert load(snapshots) == (SNAPSHOT, etag, None)


def test_a_snapshot_of_another_key_is_refused(store: ObjectStore, snapshots: SnapshotStore) -> None:
    SnapshotStore(store, Signer(b"other key")).commit(SNAPSHOT, None)
    found, _, refused = load(snapshots)
    assert found is None
    assert "not signed with this platform's key" in refused


def test_a_snapshot_in_the_place_of_another_is_refused(store: ObjectStore, snapshots: SnapshotStore) -> None:
    snapshots.commit(SNAPSHOT, None)
    store.put(snapshots.key("knn", 0), store.get(snapshots.key("linear", 3)).content)
    found, _, refused = snapshots.load("knn", 0, VERSIONS)
    assert found is None
    assert refused == "it is the snapshot of linear, shard 3"


@pytest.mark.parametrize(
    ("versions", "reason"),
    [
        ({**VERSIONS, "river": "0.27.0"}, "it was made with river 0.26.1 instead of 0.27.0"),
        ({**VERSIONS, "numba": "1"}, "it was made with numba absent instead of 1"),
        ({"numpy": "2.0"}, "it was made with river 0.26.1 instead of absent"),
        ({}, "it was made with numpy 2.0 instead of absent, river 0.26.1 instead of absent"),
    ],
)
def test_a_snapshot_of_other_versions_is_refused_with_their_names(
    snapshots: SnapshotStore, versions: dict[str, str], reason: str
) -> None:
    etag = snapshots.commit(SNAPSHOT, None)
    assert load(snapshots, versions) == (None, etag, reason)


@pytest.mark.parametrize("based_on", ["nothing", "an older version"])
def test_a_stale_writer_is_refused_and_changes_nothing(snapshots: SnapshotStore, based_on: str) -> None:
    first = snapshots.commit(SNAPSHOT, None)
    newer = replace(SNAPSHOT, position=18)
    etag = snapshots.commit(newer, first)
    with pytest.raises(Conflict):
        snapshots.commit(replace(SNAPSHOT, position=19), None if based_on == "nothing" else first)
    assert load(snapshots) == (newer, etag, None)


def test_of_those_that_commit_at_once_exactly_one_wins(snapshots: SnapshotStore) -> None:
    etag = snapshots.commit(SNAPSHOT, None)
    answers = race(3, lambda number: snapshots.commit(replace(SNAPSHOT, position=20 + number), etag))
    (winner,) = [number for number, answer in enumerate(answers) if isinstance(answer, str)]
    assert load(snapshots)[0].position == 20 + winner
