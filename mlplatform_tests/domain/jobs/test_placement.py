from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from mlplatform.domain.jobs.placement import Free, Waiting, place
from mlplatform.domain.jobs.specs import Capabilities, Resources

FEATURES = st.frozensets(st.sampled_from(["avx", "ssd", "eu"]))


@st.composite
def workers(draw: st.DrawFn) -> list[Free]:
    number = draw(st.integers(0, 4))
    return [
        Free(
            f"w{each}",
            Capabilities(
                cpu_m=draw(st.integers(0, 4)),
                memory_mb=draw(st.integers(0, 4)),
                gpu=draw(st.integers(0, 1)),
                features=draw(FEATURES),
            ),
            draw(st.integers(0, 3)),
        )
        for each in range(number)
    ]


@st.composite
def waiting(draw: st.DrawFn) -> list[Waiting]:
    number = draw(st.integers(0, 8))
    return [
        Waiting(
            f"e{each}",
            Resources(
                cpu_m=draw(st.integers(0, 3)),
                memory_mb=draw(st.integers(0, 3)),
                gpu=draw(st.integers(0, 1)),
            ),
            draw(FEATURES),
            draw(st.none() | st.sampled_from(["w0", "w1", "gone"])),
        )
        for each in range(number)
    ]


def left(
    workers: Sequence[Free], waiting: Sequence[Waiting], placed: dict[str, str]
) -> dict[str, Counter[str]]:
    """What each worker has left, by plain subtraction."""
    rest = {
        one.id: Counter(
            cpu=one.capabilities.cpu_m,
            memory=one.capabilities.memory_mb,
            gpu=one.capabilities.gpu,
            slots=one.slots,
        )
        for one in workers
    }
    for one in waiting:
        if one.id in placed:
            wanted = one.resources
            taken = {"cpu": wanted.cpu_m, "memory": wanted.memory_mb, "gpu": wanted.gpu, "slots": 1}
            rest[placed[one.id]].subtract(taken)
    return rest


@given(waiting(), workers())
def test_no_worker_is_given_more_than_it_has_or_can(waiting: list[Waiting], workers: list[Free]) -> None:
    placed = place(waiting, workers)
    by_id = {one.id: one for one in workers}
    assert all(amount >= 0 for rest in left(workers, waiting, placed).values() for amount in rest.values())
    for one in waiting:
        if one.id in placed:
            assert one.features <= by_id[placed[one.id]].capabilities.features


@given(waiting(), workers())
def test_nobody_waits_for_who_comes_later_or_for_nothing(waiting: list[Waiting], workers: list[Free]) -> None:
    """Each is given to one, as long as one had room after those before it."""
    placed = place(waiting, workers)
    for number, one in enumerate(waiting):
        before = waiting[:number]
        rest = left(workers, before, placed)
        fits = {
            worker.id
            for worker in workers
            if one.features <= worker.capabilities.features
            and rest[worker.id]["slots"] > 0
            and rest[worker.id]["cpu"] >= one.resources.cpu_m
            and rest[worker.id]["memory"] >= one.resources.memory_mb
            and rest[worker.id]["gpu"] >= one.resources.gpu
        }
        assert (one.id in placed) == bool(fits)
        if fits - {one.lost_by}:
            assert placed[one.id] != one.lost_by
        assert place(before, workers) == {each.id: placed[each.id] for each in before if each.id in placed}


def free(name: str, slots: int = 1, **has: int) -> Free:
    return Free(name, Capabilities.model_validate(has), slots)


def test_work_is_spread_and_keeps_away_from_what_is_rare() -> None:
    def asks(name: str, **wanted: int) -> Waiting:
        return Waiting(name, Resources.model_validate(wanted), frozenset())

    plain = [asks("a"), asks("b"), asks("c")]
    assert place(plain, [free("w0", 2), free("w1", 2)]) == {"a": "w0", "b": "w1", "c": "w0"}
    assert place(plain, [free("gpu", 3, gpu=1), free("plain", 2)]) == {"a": "plain", "b": "plain", "c": "gpu"}
    wide, small = asks("wide", cpu_m=4000), asks("small", cpu_m=500)
    assert place([wide, small], [free("w0", 2, cpu_m=1000)]) == {"small": "w0"}


def test_a_worker_that_was_given_too_much_is_given_nothing_more() -> None:
    too_much = free("w0", 2, cpu_m=1000).without(Resources(cpu_m=1500))
    one = Waiting("e", Resources(cpu_m=1), frozenset())
    assert place([one], [too_much]) == {}
