"""One tick of the graph after 1,000, 10,000 and 100,000 observations of a series: is it flat?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from statistics import median

from benchmarks.data import monthly_values
from benchmarks.measure import Row, Session, say
from mlplatform.domain.recipes import load_recipes
from mlplatform.io.sources.push import Pushed
from mlplatform_tests.graphs import Graph

LEARNED = (1_000, 10_000, 100_000)
TICKS, WARM_UP_TICKS = 7, 2
FLAT = 1.3
# A step counts as growing only by more than the clock of a shared machine moves by itself.
NOTICEABLE_SECONDS = 0.02
START = datetime(1900, 1, 1, tzinfo=UTC)


def measure(session: Session) -> Iterator[Row]:
    """All models of the shipped graph. A tick's time is that of its steps, without Dagster around them.

    Each level has a graph of its own and the same number of runs, so that nothing but the observations
    differs; the ticks of the levels alternate.
    """
    levels = {learned: Level(session, learned) for learned in LEARNED}
    for level in levels.values():
        level.learn()
    for number in range(WARM_UP_TICKS + TICKS):
        for level in levels.values():
            level.tick(keep=number >= WARM_UP_TICKS)
    first, last = levels[LEARNED[0]], levels[LEARNED[-1]]
    say(f"milliseconds of each step after {', '.join(f'{learned:,}' for learned in LEARNED)} observations:")
    for step in first.steps:
        say(f"{step:>16} " + " ".join(f"{1000 * level.steps[step]:8.0f}" for level in levels.values()))
    for learned, level in levels.items():
        if level is not first:
            yield Row(f"after {learned:,} against 1,000", level.seconds, first.seconds, "s", FLAT)
    for step, before in first.steps.items():
        after = last.steps[step]
        if after > FLAT * before and after - before > NOTICEABLE_SECONDS:
            yield Row(f"{step}, which grows, after 100,000 against 1,000", after, before, "s", FLAT)
    sizes = {learned: level.snapshot_bytes() for learned, level in levels.items()}
    for name in first.snapshot_bytes():
        say(f"{name:>16} " + " ".join(f"{size[name]:>8,}" for size in sizes.values()) + " bytes")
    totals = {learned: sum(size.values()) for learned, size in sizes.items()}
    for learned in LEARNED[1:]:
        yield Row(
            f"snapshots after {learned:,} against 1,000", totals[learned], totals[LEARNED[0]], "bytes", FLAT
        )


class Level:
    """A graph of one series that has learned so many observations, and what its ticks took."""

    def __init__(self, session: Session, learned: int) -> None:
        recipes = [recipe.name for recipe in load_recipes().values() if not recipe.baseline]
        self._graph = Graph({**session.variables, "MLPLATFORM_S3_PREFIX": f"tick-{learned}"}, models=recipes)
        self._learned = learned
        self._values = monthly_values(learned + WARM_UP_TICKS + TICKS).tolist()
        self._pushed = 0
        self._taken: list[dict[str, float]] = []

    def learn(self) -> None:
        say(f"learning {self._learned:,} observations in one run")
        self._push(self._learned)
        self._run()

    def tick(self, keep: bool) -> None:
        self._push(1)
        steps = self._run()
        if keep:
            self._taken.append(steps)

    @property
    def steps(self) -> dict[str, float]:
        """Median seconds of each step."""
        return {step: median(each[step] for each in self._taken) for step in self._taken[0]}

    @property
    def seconds(self) -> float:
        """Median seconds of all steps of a tick together."""
        return median(sum(each.values()) for each in self._taken)

    def snapshot_bytes(self) -> dict[str, int]:
        """What each state takes on the object store."""
        objects = self._graph.stores.objects
        names = (*self._graph.graph.steps, "lag_features", "champion")
        stored = {name: objects.get(self._graph.stores.snapshots.key(name, 0)) for name in names}
        return {name: len(each.content) for name, each in stored.items() if each is not None}

    def _push(self, count: int) -> None:
        """Puts the next values into the inbox, in one commit however many they are."""
        positions = range(self._pushed, self._pushed + count)
        self._graph.push(
            *(Pushed("series", self._values[at], f"{at}", START + timedelta(hours=at)) for at in positions)
        )
        self._pushed += count

    def _run(self) -> dict[str, float]:
        """Seconds of each step of one run."""
        result = self._graph.run()
        if not result.success:
            raise RuntimeError(f"the run after {self._pushed:,} observations failed")
        return {
            event.step_key: event.step_success_data.duration_ms / 1000
            for event in result.all_events
            if event.is_step_success
        }
