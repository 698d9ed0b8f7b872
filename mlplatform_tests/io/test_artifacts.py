"""Artefacts of runs: what is saved comes back, and the registry names all of it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from mlplatform.io.artifacts import REGISTRY, Artifacts, Frame, PackedModel, Rows
from mlplatform.io.plugins.data_connectors import CHUNK_ROWS
from mlplatform.io.plugins.storages import Storage, StorageError
from mlplatform.io.plugins.storages.local import LocalStorage
from mlplatform.io.plugins.storages.s3 import S3Storage
from mlplatform.settings import Settings
from mlplatform_tests.faults.harness import processes
from mlplatform_tests.io.racing import race


def opened(kind: str, settings: Settings, root: Path) -> Storage:
    return LocalStorage({}, settings, root) if kind == "local" else S3Storage({}, settings, root)


@pytest.fixture(params=["local", "s3"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def storage(kind, settings, tmp_path) -> Storage:
    return opened(kind, settings, tmp_path)


def table(rows: int) -> pa.Table:
    return pa.table(
        {"key": [f"C{number}" for number in range(rows)], "value": pa.array(range(rows), pa.int64())}
    )


def test_a_frame_comes_back_in_chunks(storage):
    frame = table(CHUNK_ROWS + 10)
    saved = Artifacts(storage, ["run_1"]).save("load_data", "raw_data", Rows.of(frame))
    assert saved.rows == CHUNK_ROWS + 10
    assert saved.uri.endswith("/run_1/load_data/raw_data")
    loaded = Artifacts(storage, ["run_1"]).load("raw_data")
    assert isinstance(loaded, Frame)
    assert loaded.schema == frame.schema
    assert loaded.count == frame.num_rows
    assert loaded.to_table().equals(frame)
    assert [batch.num_rows for batch in loaded.batches(["key"])] == [CHUNK_ROWS, 10]
    # Again, since each call opens the object anew.
    assert sum(batch.num_rows for batch in loaded.batches()) == frame.num_rows


def test_an_empty_frame_keeps_its_columns(storage):
    artifacts = Artifacts(storage, ["run_1"])
    assert artifacts.save("load_data", "raw_data", Rows(table(1).schema, iter(()))).rows == 0
    loaded = artifacts.load("raw_data")
    assert loaded.count == 0
    assert loaded.to_pandas().columns.tolist() == ["key", "value"]


def test_a_document_comes_back(storage):
    artifacts = Artifacts(storage, ["run_1"])
    document = {"auc": 0.8, "names": ["é", "PAR1"], "nested": {"none": None}}
    saved = artifacts.save("evaluate", "eval_metrics", document)
    assert saved.rows is None
    assert artifacts.load("eval_metrics") == document


def test_a_folder_comes_back_and_goes_away(storage, tmp_path):
    (tmp_path / "bundle" / "estimator").mkdir(parents=True)
    (tmp_path / "bundle" / "estimator" / "weights").write_bytes(b"\0\1")
    artifacts = Artifacts(storage, ["run_1"])
    artifacts.save("train_model", "model", tmp_path / "bundle")
    loaded = artifacts.load("model")
    assert isinstance(loaded, PackedModel)
    with loaded.unpacked() as folder:
        assert (folder / "estimator" / "weights").read_bytes() == b"\0\1"
    assert not folder.exists()


def test_the_registry_names_the_addresses_of_a_run(storage):
    artifacts = Artifacts(storage, ["run_1"])
    uris = {name: artifacts.save("evaluate", name, {"a": 1}).uri for name in ("eval_metrics", "eval_plots")}
    Artifacts(storage, ["run_2"]).save("evaluate", "eval_metrics", {"a": 2})
    with storage.open(storage.uri(f"run_1/{REGISTRY}")) as file:
        assert json.load(file) == uris
    assert artifacts.registry("run_1") == uris
    assert artifacts.registry("run_3") == {}


def test_saved_again_it_is_replaced(storage):
    artifacts = Artifacts(storage, ["run_1"])
    for number in (1, 2):
        artifacts.save("evaluate", "eval_metrics", {"a": number})
    assert artifacts.load("eval_metrics") == {"a": 2}
    assert len(artifacts.registry("run_1")) == 1


def test_runs_before_are_asked_for_what_a_run_has_not(storage):
    Artifacts(storage, ["first"]).save("load_data", "raw_data", {"of": "first"})
    Artifacts(storage, ["first"]).save("split_data", "train_set", {"of": "first"})
    Artifacts(storage, ["second"]).save("split_data", "train_set", {"of": "second"})
    third = Artifacts(storage, ["third", "second", "first"])
    assert third.load("raw_data") == {"of": "first"}
    assert third.load("train_set") == {"of": "second"}


def test_what_was_not_made_is_named(storage):
    with pytest.raises(StorageError, match=r"artifact not found: no step of run run_1 has made 'model'"):
        Artifacts(storage, ["run_1"]).load("model")
    with pytest.raises(StorageError, match=r"artifact not found: .* is gone; run the step"):
        Artifacts(storage, ["run_1"]).open(storage.uri("run_1/train_model/model"))


def test_rows_that_fail_on_their_way_leave_nothing(storage):
    def rows():
        yield from table(5).to_batches()
        raise ValueError("half-way")

    artifacts = Artifacts(storage, ["run_1"])
    artifacts.save("split_data", "train_set", {"a": 1})
    with pytest.raises(ValueError, match="half-way"):
        artifacts.save("load_data", "raw_data", Rows(table(1).schema, rows()))
    assert set(artifacts.registry("run_1")) == {"train_set"}
    keys = storage.list("run_1")
    assert not [key for key in keys if "raw_data" in key]


def save_from_elsewhere(kind: str, settings: Settings, root: Path) -> None:
    save_many(opened(kind, settings, root), "child", 10)


def save_many(storage: Storage, prefix: str, count: int) -> None:
    artifacts = Artifacts(storage, ["run_1"])
    for number in range(count):
        artifacts.save("step", f"{prefix}{number}", {"number": number})


def test_steps_that_end_at_once_lose_no_entry_of_the_registry(storage, kind, settings, tmp_path):
    """In two processes, one of them with several threads."""
    child = processes.Process(target=save_from_elsewhere, args=(kind, settings, tmp_path))
    child.start()
    assert race(3, lambda thread: save_many(storage, f"thread{thread}_", 5)) == [None] * 3
    child.join()
    assert child.exitcode == 0
    assert len(Artifacts(storage, ["run_1"]).registry("run_1")) == 25
