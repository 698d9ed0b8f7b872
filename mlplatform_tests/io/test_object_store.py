from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import pytest

from mlplatform.io.object_store import Conflict, ObjectStore, StoreUnavailable
from mlplatform.settings import Settings
from mlplatform_tests.io.racing import race

OPERATIONS: dict[str, Callable[[ObjectStore], object]] = {
    "get": lambda store: store.get("key"),
    "put": lambda store: store.put("key", b"content"),
    "put_if": lambda store: store.put_if("key", b"content", None),
    "list": lambda store: store.list("prefix"),
    "delete": lambda store: store.delete("key"),
}
# Of a put that nobody answers, the client tries again for some seconds.
SANE_SECONDS = 15


def test_there_is_no_object_before_it_is_put(store: ObjectStore) -> None:
    assert store.get("key") is None


@pytest.mark.parametrize("content", [b"", b"content", bytes(range(256)) * 4_096])
def test_an_object_comes_back_as_it_was_put(store: ObjectStore, content: bytes) -> None:
    etag = store.put("a/key", content)
    stored = store.get("a/key")
    assert stored is not None
    assert (stored.content, stored.etag) == (content, etag)


def test_a_put_replaces_what_was_there(store: ObjectStore) -> None:
    before, after = store.put("key", b"old"), store.put("key", b"new")
    assert before != after
    assert store.get("key").content == b"new"


def test_creating_what_is_there_is_a_conflict_that_names_the_object(store: ObjectStore) -> None:
    store.put_if("key", b"first", None)
    with pytest.raises(Conflict, match=f"{store.url('key')} was written by someone else"):
        store.put_if("key", b"second", None)
    assert store.get("key").content == b"first"


def test_a_version_is_replaced_only_while_it_is_the_newest(store: ObjectStore) -> None:
    old = store.put_if("key", b"1", None)
    new = store.put_if("key", b"2", old)
    with pytest.raises(Conflict):
        store.put_if("key", b"3", old)
    assert store.get("key") == type(store.get("key"))(b"2", new)


def test_a_conditional_put_whose_answer_was_lost_succeeds_when_it_is_tried_again(store: ObjectStore) -> None:
    old = store.put("key", b"1")
    etag = store.put_if("key", b"2", old)
    assert store.put_if("key", b"2", old) == etag


def test_a_version_that_was_deleted_is_a_conflict(store: ObjectStore) -> None:
    etag = store.put("key", b"1")
    store.delete("key")
    with pytest.raises(Conflict):
        store.put_if("key", b"2", etag)


@pytest.mark.parametrize("there", [False, True])
def test_of_those_that_write_at_once_exactly_one_wins(store: ObjectStore, there: bool) -> None:
    etag = store.put("key", b"before") if there else None
    answers = race(4, lambda number: store.put_if("key", f"by {number}".encode(), etag))
    winners = [number for number, answer in enumerate(answers) if isinstance(answer, str)]
    assert len(winners) == 1
    assert all(isinstance(answer, str | Conflict) for answer in answers)
    assert store.get("key").content == f"by {winners[0]}".encode()


def test_a_list_names_the_keys_below_a_prefix_and_no_others(store: ObjectStore) -> None:
    for key in ("a/1", "a/b/2", "ab/3", "c"):
        store.put(key, b"")
    assert sorted(store.list("a")) == ["a/1", "a/b/2"]


def test_deleting_what_is_not_there_changes_nothing(store: ObjectStore) -> None:
    store.put("other", b"1")
    store.delete("key")
    store.delete("other")
    assert store.list("") == []


def test_prefixes_do_not_meet(settings: Settings, store: ObjectStore) -> None:
    other = ObjectStore(dataclasses.replace(settings.s3, prefix=f"{settings.s3.prefix}-other"))
    other.put("key", b"other")
    assert store.get("key") is None
    assert store.list("") == []


@pytest.mark.parametrize("operation", OPERATIONS)
def test_wrong_credentials_are_said_with_the_endpoint(settings: Settings, operation: str) -> None:
    store = ObjectStore(dataclasses.replace(settings.s3, secret_access_key="wrong"))
    with pytest.raises(StoreUnavailable) as caught:
        OPERATIONS[operation](store)
    assert settings.s3.endpoint_url in str(caught.value)
    assert "mlplatform status" in str(caught.value)
    assert settings.s3.secret_access_key not in str(caught.value)


def test_a_store_that_is_not_there_is_said_within_a_sane_time(settings: Settings) -> None:
    nowhere = "http://127.0.0.1:1"
    store = ObjectStore(dataclasses.replace(settings.s3, endpoint_url=nowhere))
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match=nowhere):
        store.get("key")
    assert time.monotonic() - started < SANE_SECONDS


def test_credentials_are_never_shown(settings: Settings) -> None:
    assert settings.s3.secret_access_key not in repr(settings.s3)
