"""A learner keeps what it has answered, whatever happens to its process, its disk and its stores."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest

from mlplatform.domain.families import Families, Family
from mlplatform.domain.model import ModelSet
from mlplatform.domain.recipes import load_recipes
from mlplatform.errors import TransientError
from mlplatform.io.object_store import ObjectStore
from mlplatform.io.observation_log import QUARANTINE
from mlplatform.io.prediction_table import (
    PREDICTIONS,
    prediction_stream,
    served_entries,
    shown_rows,
)
from mlplatform.io.stores import Stores
from mlplatform.io.tables import Table
from mlplatform.local.stack import RunningStack
from mlplatform.services import learner as module
from mlplatform.services.learner import Call, Learner, NotOwner
from mlplatform.services.refusals import Refused
from mlplatform.settings import FIRST_SERVICE_SHARD, Settings
from mlplatform_tests.domain.recipe_checks import series
from mlplatform_tests.services.proxy import Proxy

RECIPES = load_recipes()
FAMILIES = Families((Family("monthly", ("m*",), lags=28, season=12),))
VALUES = series(120).tolist()
SECONDS = 30


@pytest.fixture
def settings(stack: RunningStack, tmp_path) -> Settings:
    return Settings(
        {
            **stack.variables,
            # The stack's addresses, and a disk of one's own.
            "MLPLATFORM_DATA_DIRECTORY": str(tmp_path),
            "MLPLATFORM_S3_PREFIX": uuid.uuid4().hex,
            "MLPLATFORM_SNAPSHOT_KEY": "key",
            # Tests flush when they want to.
            "MLPLATFORM_FLUSH_SECONDS": "1000",
            **addresses(stack),
        }
    )


def addresses(stack: RunningStack) -> dict[str, str]:
    """Where the stack's object store is, for processes with another data directory."""
    s3 = Settings(stack.variables).s3
    return {
        "MLPLATFORM_S3_ENDPOINT_URL": str(s3.endpoint_url),
        "AWS_ACCESS_KEY_ID": s3.access_key_id,
        "AWS_SECRET_ACCESS_KEY": s3.secret_access_key,
        "MLPLATFORM_S3_BUCKET": s3.bucket,
    }


def changed(settings: Settings, **variables: str) -> Settings:
    return Settings({**settings.variables, **variables})


def make(settings: Settings, recipe: str = "linear", **options: Any) -> Learner:
    return Learner(recipe, RECIPES[recipe], FAMILIES, Stores(settings), **options)


@asynccontextmanager
async def learning(settings: Settings, recipe: str = "linear", **options: Any) -> AsyncIterator[Learner]:
    """A learner that ends as it should."""
    learner = make(settings, recipe, **options)
    await learner.start()
    try:
        yield learner
    finally:
        await learner.stop()


async def started(settings: Settings, recipe: str = "linear", **options: Any) -> Learner:
    """A learner to be killed."""
    learner = make(settings, recipe, **options)
    await learner.start()
    return learner


async def kill(learner: Learner) -> None:
    """As if its process had ended: nothing more is written."""
    learner._ending.set()
    await learner._flusher
    learner._thread.shutdown()
    learner._journal.close()


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def call(at: int, series_id: str = "m", **fields: Any) -> Call:
    """The observation at offset `at`, with 15 lags as a feature service gives them."""
    lags = [*VALUES[:at][::-1], *[0.0] * 15][:15]
    return Call(**{"series_id": series_id, "lags": tuple(lags), "value": VALUES[at], **fields})


async def tell(learner: Learner, start: int, end: int, series_id: str = "m") -> list[float]:
    return [(await learner.learn(call(at, series_id)))["prediction"] for at in range(start, end)]


def uninterrupted(recipe: str, values: list[float] = VALUES, series_id: str = "m") -> list[float]:
    """What the pipeline says of the same series."""
    from mlplatform.domain.lags import lag_matrix
    from mlplatform.domain.model import Model

    family = FAMILIES.of(series_id)
    lags, available = lag_matrix([], np.array(values), family.lags)
    model = Model(RECIPES[recipe], family)
    return model.fold(np.arange(len(values)), lags, available, np.array(values)).tolist()


def rows(settings: Settings, recipe: str = "linear") -> list[dict[str, Any]]:
    table = Table(PREDICTIONS, ObjectStore(settings.s3))
    return table.read(where=ds.field("model") == recipe).to_pylist()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_service_says_what_the_pipeline_says_also_after_a_crash(settings: Settings, recipe: str) -> None:
    """G3: before a flush, after one, and after one that was followed by more."""

    async def story() -> None:
        said: list[float] = []
        for start, end in ((0, 20), (20, 55), (55, 60), (60, 95)):
            learner = await started(settings, recipe)
            said += await tell(learner, start, (start + end) // 2)
            if start % 20 == 0:
                assert await learner.flush()
            said += await tell(learner, (start + end) // 2, end)
            await kill(learner)
        async with learning(settings, recipe) as learner:
            said += await tell(learner, 95, 120)
        assert said == uninterrupted(recipe)

    run(story())
    found = rows(settings, recipe)
    assert [row["offset"] for row in found] == list(range(120))
    assert [row["prediction"] for row in found] == uninterrupted(recipe)
    assert {row["shard"] for row in found} == {FIRST_SERVICE_SHARD}


def test_the_table_of_predictions_is_enough_to_make_the_models_again(settings: Settings) -> None:
    async def story() -> None:
        async with learning(settings) as learner:
            await tell(learner, 0, 40)
            await tell(learner, 0, 30, "other")

    run(story())
    table = Table(PREDICTIONS, ObjectStore(settings.s3))
    models = ModelSet((RECIPES["linear"],), FAMILIES)
    stored = list(served_entries(table, "linear", FIRST_SERVICE_SHARD, 0))
    said = models.fold(shown_rows(stored, FAMILIES))["linear"]
    assert said.tolist() == [each.answer["prediction"] for each in stored]
    assert len(said) == 70


def test_a_snapshot_of_other_versions_is_refused_and_the_log_learned_again(
    settings: Settings, caplog
) -> None:
    async def story() -> None:
        async with learning(settings, versions={"code": "old"}) as learner:
            await tell(learner, 0, 40)
        learner = await started(settings, versions={"code": "old"})
        await tell(learner, 40, 50)
        await kill(learner)
        async with learning(settings, versions={"code": "new"}) as learner:
            assert "code old instead of new" in caplog.text
            assert await tell(learner, 50, 120) == uninterrupted("linear")[50:]
        caplog.clear()
        async with learning(settings, versions={"code": "new"}) as learner:
            assert learner.state.position == 120
            assert "again" not in caplog.text

    run(story())


def test_a_repeated_observation_gets_its_first_answer(settings: Settings) -> None:
    """G1, G4: at once, later, after a flush, after a crash, and from another disk."""

    async def story() -> None:
        learner = await started(settings)
        first = call(0, observation_id="a")
        answers = await asyncio.gather(*(learner.learn(first) for _ in range(20)))
        await tell(learner, 1, 5)
        answers.append(await learner.learn(first))
        await learner.flush()
        answers.append(await learner.learn(first))
        assert learner.duplicates == 21
        await kill(learner)
        learner = await started(settings)
        answers.append(await learner.learn(first))
        await kill(learner)
        learner.journal_path.unlink()
        async with learning(settings) as learner:
            answers.append(await learner.learn(first))
            assert learner.state.position == 5
            assert (await tell(learner, 5, 120))[-1] == uninterrupted("linear")[-1]
        assert answers == [answers[0]] * 24
        assert answers[0] == {"prediction": 0.0, "series_id": "m", "observation_id": "a", "offset": 0}
        # The same id in another series is another observation.
        async with learning(settings) as learner:
            assert (await learner.learn(call(0, "m2", observation_id="a")))["series_id"] == "m2"

    run(story())


def test_many_clients_at_once_are_learned_once_each_in_one_order(settings: Settings) -> None:
    async def client(learner: Learner, seed: int, answers: dict[tuple[str, str], list[Any]]) -> None:
        random = np.random.default_rng(seed)
        for _ in range(60):
            name = str(random.integers(200))
            series_id = f"m{int(name) % 3}"
            said = await learner.learn(Call(series_id, None, float(name), name))
            answers.setdefault((series_id, name), []).append(said)

    async def story() -> None:
        answers: dict[tuple[str, str], list[Any]] = {}
        async with learning(changed(settings, MLPLATFORM_FLUSH_SECONDS="0.05")) as learner:
            await asyncio.gather(*(client(learner, seed, answers) for seed in range(32)))
            assert learner.duplicates == 32 * 60 - len(answers)
        found = rows(settings)
        assert Counter((row["series_id"], row["observation_id"]) for row in found) == dict.fromkeys(
            answers, 1
        )
        by_id = {(row["series_id"], row["observation_id"]): row for row in found}
        for key, said in answers.items():
            assert all(each == said[0] for each in said)
            assert (said[0]["prediction"], said[0]["offset"]) == (
                by_id[key]["prediction"],
                by_id[key]["offset"],
            )
        for series_id in ("m0", "m1", "m2"):
            mine = [row for row in found if row["series_id"] == series_id]
            assert [row["offset"] for row in mine] == list(range(len(mine)))
            values = [row["value"] for row in mine]
            assert [row["prediction"] for row in mine] == uninterrupted("linear", values)

    run(story())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"value": float("nan")}, "finite"),
        ({"value": 1e31}, "too large"),
        ({"lags": (float("inf"),)}, "finite"),
        ({"lags": (-1e31,)}, "too large"),
        ({"value": 1e9}, "absurd"),
    ],
)
def test_what_would_spoil_a_model_is_refused_and_told_in_the_quarantine(
    settings: Settings, fields: dict[str, Any], reason: str
) -> None:
    """G9."""

    async def story() -> None:
        async with learning(settings) as learner:
            await tell(learner, 0, 40)
            with pytest.raises(Refused, match=reason) as refused:
                await learner.learn(call(40, observation_id="bad", **fields))
            assert refused.value.status_code == 422
            assert await tell(learner, 40, 120) == uninterrupted("linear")[40:]
            assert learner.refused == 1
            await learner.flush()
            # The id was not taken.
            with pytest.raises(Refused):
                await learner.learn(call(40, observation_id="bad", **fields))
        found = Stores(settings).table(QUARANTINE.name).read().to_pylist()
        assert [(row["observation_id"], row["series_id"]) for row in found] == [("bad", "m")] * 2
        assert reason in found[0]["reason"]
        assert len(rows(settings)) == 120

    run(story())


def test_a_full_disk_is_told_and_leaves_no_trace(settings: Settings, monkeypatch) -> None:
    """G4: what was refused was not learned, and may be given again."""
    monkeypatch.setattr(module, "REST_SECONDS", 0.0)

    async def story() -> None:
        async with learning(settings) as learner:
            said = await tell(learner, 0, 30)
            await learner.flush()
            said += await tell(learner, 30, 40)
            database = learner._journal._database
            (pages,) = database.execute("PRAGMA page_count").fetchone()
            database.execute(f"PRAGMA max_page_count = {pages}")
            # A name that needs pages of its own.
            full = call(40, observation_id="x" * 100_000)

            async def behind() -> dict[str, Any]:
                while not learner.waiting:
                    await asyncio.sleep(0)
                return await learner.learn(call(41))

            results = await asyncio.gather(learner.learn(full), behind(), return_exceptions=True)
            assert all(isinstance(each, TransientError) for each in results), results
            assert "full" in str(results[0])
            assert learner.degraded
            database.execute("PRAGMA max_page_count = 1000000")
            said += await tell(learner, 40, 120)
            assert said == uninterrupted("linear")
            assert await learner.flush()
            assert learner.degraded is None
        assert len(rows(settings)) == 120

    run(story())


def test_while_the_object_store_is_away_answers_go_on(settings: Settings, monkeypatch) -> None:
    """G8."""
    monkeypatch.setattr(module, "LATE_SECONDS", 0.5)
    proxy = Proxy(str(settings.s3.endpoint_url))

    async def story() -> None:
        away = changed(settings, MLPLATFORM_S3_ENDPOINT_URL=proxy.url, MLPLATFORM_FLUSH_SECONDS="0.1")
        async with learning(away) as learner:
            said = await tell(learner, 0, 30)
            while learner._snapshot_position < 30:
                await asyncio.sleep(0.01)
            with proxy.cut():
                said += await tell(learner, 30, 60)
                while learner.degraded is None:
                    await asyncio.sleep(0.05)
                said += await tell(learner, 60, 90)
                assert learner.not_ready is None
            while learner.degraded is not None:
                await asyncio.sleep(0.05)
            said += await tell(learner, 90, 120)
        assert said == uninterrupted("linear")

    try:
        run(story())
    finally:
        proxy.end()
    assert [row["offset"] for row in rows(settings)] == list(range(120))


def test_a_service_that_starts_while_the_object_store_is_away_waits_for_it(
    settings: Settings, monkeypatch
) -> None:
    monkeypatch.setattr(module, "START_SECONDS", 0.3)
    proxy = Proxy(str(settings.s3.endpoint_url))

    async def story() -> None:
        async with learning(settings) as learner:
            await tell(learner, 0, 30)
        learner = make(changed(settings, MLPLATFORM_S3_ENDPOINT_URL=proxy.url))
        with proxy.cut():
            await learner.start()
            assert "not loaded" in str(learner.not_ready)
            first = asyncio.create_task(learner.learn(call(30)))
        assert (await first)["prediction"] == uninterrupted("linear")[30]
        assert learner.not_ready is None
        assert await tell(learner, 31, 120) == uninterrupted("linear")[31:]
        await learner.stop()

    try:
        run(story())
    finally:
        proxy.end()
    assert len(rows(settings)) == 120


def test_a_second_owner_takes_the_shard_and_the_first_stops(settings: Settings, tmp_path) -> None:
    async def story() -> None:
        first = await started(settings)
        await tell(first, 0, 20)
        await first.flush()
        await tell(first, 20, 25)
        elsewhere = changed(settings, MLPLATFORM_DATA_DIRECTORY=str(tmp_path / "another machine"))
        async with learning(elsewhere) as second:
            await tell(second, 20, 30)
            await first.flush()
            assert "another process serves shard 1000 of linear" in str(first.degraded)
            assert first.not_ready
            with pytest.raises(TransientError, match="another process"):
                await tell(first, 25, 26)
            await second.flush()
            assert await tell(second, 30, 120) == uninterrupted("linear")[30:]
        await kill(first)
        # Its journal is of another life of the shard.
        with pytest.raises(NotOwner, match="another process has served it"):
            await started(settings)

    run(story())
    assert [row["offset"] for row in rows(settings)] == list(range(120))


def test_a_journal_whose_bucket_is_gone_is_not_begun_anew(settings: Settings) -> None:
    async def story() -> None:
        async with learning(settings) as learner:
            await tell(learner, 0, 20)
        with pytest.raises(NotOwner, match="bring back the bucket"):
            await started(changed(settings, MLPLATFORM_S3_PREFIX=uuid.uuid4().hex))

    run(story())


def test_rows_that_reached_the_table_without_the_snapshot_are_learned_from_there(
    settings: Settings, monkeypatch
) -> None:
    """A crash between the two commits of a flush, and another that hides the first one's reply."""

    async def story() -> None:
        learner = await started(settings)
        await tell(learner, 0, 30)
        await learner.flush()
        await tell(learner, 30, 50)

        def crash(*_: Any) -> None:
            raise RuntimeError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(learner._stores.snapshots, "commit", crash)
            assert not await learner.flush()
        assert "killed" in str(learner.degraded)
        await kill(learner)
        async with learning(settings) as learner:
            assert learner.state.position == 50
            assert await tell(learner, 50, 120) == uninterrupted("linear")[50:]

    run(story())
    assert [row["offset"] for row in rows(settings)] == list(range(120))


def test_a_snapshot_whose_reply_was_lost_is_replaced_by_the_next(settings: Settings) -> None:
    async def story() -> None:
        async with learning(settings) as learner:
            await tell(learner, 0, 30)
            await learner.flush()
            learner._etag = '"another"'
            await tell(learner, 30, 40)
            assert await learner.flush()
        async with learning(settings) as learner:
            assert learner._snapshot_position == 40

    run(story())


def test_a_series_that_a_new_version_cannot_learn_stops_no_other(settings: Settings, monkeypatch) -> None:
    async def story() -> None:
        async with learning(settings, versions={"code": "old"}) as learner:
            await tell(learner, 0, 40)
            await tell(learner, 0, 40, "other")
        fold = module.Model.fold

        def fails(model: Any, offsets: Any, lags: Any, *rest: Any) -> Any:
            if lags.shape[1] == 15 and len(offsets) == 40:
                raise ArithmeticError("not any more")
            return fold(model, offsets, lags, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(module.Model, "fold", fails)
            async with learning(settings, versions={"code": "new"}) as learner:
                assert await tell(learner, 40, 80) == uninterrupted("linear")[40:80]
                with pytest.raises(Refused, match="cannot learn series 'other'"):
                    await tell(learner, 40, 41, "other")
        # Once it can be learned, it is, from the beginning of the log.
        async with learning(settings, versions={"code": "new"}) as learner:
            assert await tell(learner, 80, 120) == uninterrupted("linear")[80:]
            assert await tell(learner, 40, 60, "other") == uninterrupted("linear", series_id="other")[40:60]

    run(story())


def test_a_series_of_somebody_else_is_not_learned(settings: Settings) -> None:
    async def story() -> None:
        async with learning(settings, claimed=lambda series_id: series_id == "theirs") as learner:
            with pytest.raises(Refused, match="belongs to the pipeline") as refused:
                await tell(learner, 0, 1, "theirs")
            assert refused.value.status_code == 409
            assert learner.state.position == 0

    run(story())


def test_a_table_of_before_the_services_takes_their_rows(settings: Settings) -> None:
    import dataclasses

    columns = {
        name: kind for name, kind in PREDICTIONS.columns.items() if name not in ("observation_id", "lags")
    }
    old = Table(dataclasses.replace(PREDICTIONS, columns=columns), ObjectStore(settings.s3))
    row = dict.fromkeys(columns) | {"model": "linear", "shard": 0, "position": 0, "series_id": "p"}
    old.append(
        old.spec.schema.empty_table().from_pylist([row], old.spec.schema), prediction_stream("linear", 0), 1
    )

    async def story() -> None:
        async with learning(settings) as learner:
            await tell(learner, 0, 20)
        async with learning(settings) as learner:
            assert await tell(learner, 20, 120) == uninterrupted("linear")[20:]

    run(story())
    assert len(rows(settings)) == 121


def test_a_snapshot_waits_for_what_the_disk_does_not_have_yet(settings: Settings) -> None:
    """Else a crash would leave learned what nobody was answered for, and a retry learn it again."""

    async def story() -> None:
        learner = await started(settings)
        await tell(learner, 0, 20)
        append, allowed = learner._journal.append, threading.Event()

        def slow(entries: Any) -> None:
            assert allowed.wait(30)
            append(entries)

        learner._journal.append = slow
        learned = asyncio.create_task(learner.learn(call(20)))
        while learner.waiting == 0:
            await asyncio.sleep(0)
        flushed = asyncio.create_task(learner.flush())
        await asyncio.wait([flushed], timeout=0.3)
        assert not flushed.done()
        assert learner._stores.snapshots.etags() == {}
        allowed.set()
        assert await flushed
        assert (await learned)["offset"] == 20
        assert learner._snapshot_position == 21
        await kill(learner)

    run(story())


def test_a_client_that_leaves_stops_neither_its_observation_nor_the_next_flush(settings: Settings) -> None:
    async def story() -> None:
        async with learning(settings) as learner:
            left = asyncio.create_task(learner.learn(call(0)))
            while learner.waiting == 0:
                await asyncio.sleep(0)
            left.cancel()
            with pytest.raises(asyncio.CancelledError):
                await left
            assert await learner.flush()
            assert await tell(learner, 1, 120) == uninterrupted("linear")[1:]

    run(story())
    assert len(rows(settings)) == 120


def test_models_that_flush_at_once_do_not_hinder_each_other(settings: Settings) -> None:
    async def story() -> None:
        names = ["linear", "bagging", "knn", "ridge", "naive"]
        learners = [make(settings, name) for name in names]
        await asyncio.gather(*(learner.start() for learner in learners))
        for start in range(0, 50, 10):
            await asyncio.gather(*(tell(learner, start, start + 10) for learner in learners))
            assert await asyncio.gather(*(learner.flush() for learner in learners)) == [True] * len(names)
        await asyncio.gather(*(learner.stop() for learner in learners))
        for name in names:
            assert [row["prediction"] for row in rows(settings, name)] == uninterrupted(name)[:50]

    run(story())


def test_a_failure_that_nobody_foresaw_keeps_nobody_from_trying_again(
    settings: Settings, monkeypatch
) -> None:
    """Nor from flushing what comes after it."""

    async def story() -> None:
        async with learning(changed(settings, MLPLATFORM_FLUSH_SECONDS="0.05")) as learner:
            said = await tell(learner, 0, 10)
            load, failures = learner._load, iter([RuntimeError("unforeseen")])

            def loaded() -> Any:
                for failure in failures:
                    raise failure
                return load()

            monkeypatch.setattr(learner, "_load", loaded)
            learner._discard("a test", rest=False)
            async with asyncio.timeout(SECONDS):
                while learner.state is None:
                    await asyncio.sleep(0.01)
                said += await tell(learner, 10, 20)
                while learner._snapshot_position < 20:
                    await asyncio.sleep(0.01)
            assert said == uninterrupted("linear", VALUES[:20])

    run(story())
    assert len(rows(settings)) == 20


def test_what_is_refused_while_the_quarantine_is_written_gets_there_too(
    settings: Settings, monkeypatch
) -> None:
    monkeypatch.setattr(module, "MOST_REFUSALS", 3)

    async def story() -> None:
        async with learning(settings) as learner:
            began, go, quarantine = threading.Event(), threading.Event(), learner._quarantine

            def slowly(refusals: Any) -> None:
                began.set()
                go.wait(SECONDS)
                quarantine(refusals)

            monkeypatch.setattr(learner, "_quarantine", slowly)
            for at in range(3):
                learner.refuse(str(at), call(at))
            flushing = asyncio.create_task(learner.flush())
            await asyncio.to_thread(began.wait, SECONDS)
            for at in range(3, 5):
                learner.refuse(str(at), call(at))
            go.set()
            await flushing
            await learner.flush()

    run(story())
    refused = Table(QUARANTINE, ObjectStore(settings.s3)).read()
    assert refused["reason"].to_pylist() == [str(at) for at in range(5)]


def test_models_are_not_made_again_for_every_call_that_a_broken_disk_fails(settings: Settings) -> None:
    async def story() -> None:
        async with learning(settings) as learner:
            learner._discard("the disk is full")
            with pytest.raises(TransientError, match="the disk is full; this observation was not learned"):
                await learner.learn(call(0))
            assert learner.state is None
            assert learner._recovery is None

    run(story())


def test_a_store_that_says_nothing_is_told_of_before_a_flush_has_failed(settings: Settings) -> None:
    async def story() -> None:
        async with learning(changed(settings, MLPLATFORM_FLUSH_SECONDS="10")) as learner:
            learner.flushed_at -= 25
            assert learner.degraded is None
            learner.flushed_at -= 10
            assert "nothing of linear for 35 s" in str(learner.degraded)
            assert await learner.flush()
            assert learner.degraded is None

    run(story())


def test_models_are_made_again_of_what_is_on_its_way_to_the_disk_too(settings: Settings, monkeypatch) -> None:
    async def story() -> None:
        async with learning(settings) as learner:
            began, go, append = threading.Event(), threading.Event(), learner._journal.append

            def slowly(entries: Any) -> None:
                began.set()
                go.wait(SECONDS)
                append(entries)

            monkeypatch.setattr(learner._journal, "append", slowly)
            learned = asyncio.create_task(learner.learn(call(0)))
            await asyncio.to_thread(began.wait, SECONDS)
            learner._discard("a test", rest=False)
            recovered = asyncio.create_task(learner.recovered())
            await asyncio.wait([recovered], timeout=0.3)
            go.set()
            assert (await learned)["offset"] == 0
            assert (await recovered).position == 1
            assert (await learner.learn(call(1)))["offset"] == 1

    run(story())


def test_who_was_taken_over_puts_no_older_snapshot_in_the_place_of_a_newer_one(
    settings: Settings, tmp_path, monkeypatch
) -> None:
    """Also where it has nothing to append, which would be refused before."""

    async def story() -> None:
        async with learning(settings) as first:
            snapshots = first._stores.snapshots
            await tell(first, 0, 10)

            def unavailable(*_: Any) -> str:
                raise TransientError("not now")

            with monkeypatch.context() as away:
                away.setattr(snapshots, "commit", unavailable)
                assert not await first.flush()
            elsewhere = changed(settings, MLPLATFORM_DATA_DIRECTORY=str(tmp_path / "another machine"))
            async with learning(elsewhere) as second:
                await tell(second, 10, 20)
                assert await second.flush()
            newer = snapshots.etags()
            assert not await first.flush()
            assert "another process serves" in str(first.not_ready)
            assert snapshots.etags() == newer

    run(story())
