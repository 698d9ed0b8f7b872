"""One recipe's models of the series that a service owns, from what it is told until the object store has it.

An observation is predicted and learned on the event loop at once, then its entry waits for the journal, and
only then comes the answer. Every few seconds the tail of the journal goes to the table of predictions, and
the models as a snapshot to the object store. After a crash, the models are made again: snapshot, rows of the
table after it, entries of the journal after those.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mlplatform.domain.families import Families, Family
from mlplatform.domain.model import Model, ModelError, ModelSet
from mlplatform.domain.observations import (
    BELIEVED_CLOCK_ERROR,
    LARGEST,
    Refusal,
    Submission,
    following,
    untimely,
)
from mlplatform.domain.recipe import Recipe
from mlplatform.errors import PlatformError, TransientError
from mlplatform.io.journal import Entry, Journal, JournalUnavailable
from mlplatform.io.object_store import Conflict
from mlplatform.io.observation_log import QUARANTINE, owner_stream, quarantine_rows
from mlplatform.io.prediction_table import (
    PREDICTIONS,
    prediction_stream,
    served_entries,
    served_rows,
    shown_rows,
)
from mlplatform.io.states import State, versions_of
from mlplatform.io.stores import Stores
from mlplatform.io.tables import Table
from mlplatform.services.group_commit import GroupCommit
from mlplatform.services.refusals import Refused

if TYPE_CHECKING:
    import arro3.core as arro3

# Raised when what a service adds to the models in its snapshot changes its meaning.
FORMAT = "1"
# After a journal that could not be written, nothing is tried for so long: each try makes the models again.
REST_SECONDS = 1.0
# Entries that are read from the journal, and written to the table, at once.
BATCH = 2_000
# What was refused since the last flush; what is more is counted only.
MOST_REFUSALS = 1_000
CLAIMS = 5
# A flush that takes longer (or three times as long as there is between two) is told of before it has failed.
LATE_SECONDS = 15.0
# After so long a service starts without its models, and loads them when its stores are back.
START_SECONDS = 30.0

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Unavailable(TransientError):
    """The models cannot be used at this moment."""


class NotOwner(PlatformError):
    """Another process owns the shard, or this one's journal is not the shard's."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a client tells of one observation.

    `lags` are the earlier values as far as the client gives them, newest first; None leaves them to the
    model. `observation_id` makes a call that is made again get its first answer.
    """

    series_id: str
    lags: tuple[float, ...] | None
    value: float
    observation_id: str | None = None
    event_time: datetime | None = None


@dataclass
class Learned:
    """The models after everything below `position`, and the last entry of each series."""

    models: ModelSet
    last: dict[str, Entry] = field(default_factory=dict)
    position: int = 0

    def model(self, series_id: str) -> Model | None:
        return self.models.models.get((self.models.recipes[0].name, series_id))


class Learner:
    """The models of one recipe in the shard of this service.

    Everything but `flush`'s and the recovery's work in threads happens on one event loop. Between `start` and
    `stop`, one process at a time may learn in a shard: a second one takes it over, and the first stops.

    Args:
        name: of the model as clients know it.
        claimed: whether somebody else owns the series, so that it cannot be learned here.
        told: is called with each entry once it is on the disk.
        versions: what the snapshot depends on (see `versions_of`).
    """

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        families: Families,
        stores: Stores,
        *,
        claimed: Callable[[str], bool] = lambda series_id: False,
        told: Callable[[Entry], None] = lambda entry: None,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.recipe = recipe
        self.families = families
        self.shard = stores.settings.service_shard
        self.versions = dict(versions or versions_of((recipe,), families)) | {"service": FORMAT}
        self.duplicates = 0
        self.refused = 0
        self.flushed_at = time.time()
        self._stores = stores
        self._claimed = claimed
        self._told = told
        self._seconds = stores.settings.flush_seconds
        self._most_series = stores.settings.most_series
        self._stream = prediction_stream(recipe.name, self.shard)
        self._owner = owner_stream(self.shard) + f"/{recipe.name}"
        self._state: Learned | None = None
        # What keeps answers from the object store, and who has the shard instead; empty where all is well.
        self._trouble = ""
        self._lost = ""
        self._rest_until = 0.0
        self._durable = 0
        self._in_work: dict[tuple[str, str], asyncio.Task[dict[str, Any]]] = {}
        self._refusals: deque[Refusal] = deque(maxlen=MOST_REFUSALS)
        self._recovery: asyncio.Task[None] | None = None
        self._flusher: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()
        self._turn = asyncio.Lock()
        # Apart from the threads that the journal's commits take: a store that is away keeps one for long.
        self._thread = ThreadPoolExecutor(1, f"stores-{recipe.name}")
        # Known from the first recovery on.
        self._token: int | None = None
        self._etag: str | None = None
        self._published = 0
        self._snapshot_position = 0

    @property
    def journal_path(self) -> Path:
        directory = self._stores.settings.data_directory / "services"
        return directory / f"{self.recipe.name}-{self.shard}.db"

    @property
    def state(self) -> Learned | None:
        """The models as they are now; None while they are made again."""
        return self._state

    @property
    def degraded(self) -> str | None:
        """Why answers are not on their way to the object store."""
        late = time.time() - self.flushed_at
        if not self._lost and not self._trouble and late > max(LATE_SECONDS, 3 * self._seconds):
            return f"the object store has had nothing of {self.name} for {late:.0f} s: is it away?"
        return self._lost or self._trouble or None

    @property
    def not_ready(self) -> str | None:
        """Why nothing can be learned now."""
        if self._lost:
            return self._lost
        return None if self._state is not None else f"{self.name} is not loaded: {self._trouble or 'wait'}"

    @property
    def waiting(self) -> int:
        """Observations that were learned and are not on the disk yet."""
        return self._state.position - self._durable if self._state else 0

    async def start(self) -> None:
        """Opens the journal and makes the models, unless a store is away: then that is tried again.

        Raises:
            JournalInUse: another process of this machine serves this model.
            NotOwner: the journal is not the shard's.
        """
        self._journal = await asyncio.to_thread(Journal, self.journal_path)
        self._commits = GroupCommit(self._journal, self._committed)
        try:
            await asyncio.wait_for(self.recovered(), START_SECONDS)
        except (TransientError, TimeoutError) as error:
            log.error("%s is not loaded yet: %s", self.name, error or "its stores do not answer")
            if self._lost:
                self._close()
                raise NotOwner(self._lost) from None
        except BaseException:
            self._close()
            raise
        self._flusher = asyncio.create_task(self._flush_again_and_again())

    async def stop(self) -> None:
        """Waits for what is being answered, and flushes it; what cannot be flushed stays in the journal."""
        self._ending.set()
        if self._flusher:
            await self._flusher
        if self._recovery:
            await asyncio.wait([self._recovery])
        await self._commits.drain()
        await self.flush()
        self._close()

    async def recovered(self) -> Learned:
        """The models, made again if they are lost.

        Raises:
            TransientError: a store that they are made from is away, or another process has the shard.
        """
        while not self._lost:
            # Looked at again after each wait: what was made may be lost again.
            if self._state is not None:
                return self._state
            if self._recovery is None:
                self._recovery = asyncio.create_task(self._recover())
            await asyncio.shield(self._recovery)
        raise Unavailable(self._lost)

    async def learn(self, call: Call) -> dict[str, Any]:
        """Predicts the observation, learns it, and returns the answer when both are durable.

        Raises:
            Refused: the call is not fit (422), or somebody else owns the series (409); no model has changed.
            TransientError: it had no effect; the same call may be made again.
        """
        if call.observation_id is None:
            return await self._learn(call, _new_id())
        key = (call.series_id, call.observation_id)
        if key in self._in_work:
            self.duplicates += 1
        else:
            self._in_work[key] = asyncio.create_task(self._learn_once(call, call.observation_id))
            self._in_work[key].add_done_callback(lambda _: self._in_work.pop(key))
        # Who leaves does not take along what others wait for.
        return await asyncio.shield(self._in_work[key])

    def refuse(self, reason: str, call: Call, features: object = None) -> Refused:
        """The refusal of a call, which the quarantine gets with the next flush."""
        self.refused += 1
        told = {"features": call.lags if features is None else features, "target": call.value}
        submission = Submission(
            f"services/{self.recipe.name}",
            0,
            call.series_id,
            call.observation_id or "",
            call.event_time,
            str(told)[:2_000],
        )
        self._refusals.append(Refusal(submission, reason))
        return Refused(422, reason)

    async def flush(self) -> bool:
        """Brings to the object store what it does not have; False if that has to be tried again."""
        async with self._turn:
            try:
                await self._flush_refusals()
                state = self._state
                if state is None or self._lost:
                    return False
                await self._flush(state)
                if self._state is not state:
                    return False
            except NotOwner as error:
                self._lose(str(error))
                return False
            except TransientError as error:
                self._worry(str(error))
                return False
            except Exception as error:
                log.exception("%s was not flushed", self.name)
                self._worry(f"{self.name} was not flushed ({type(error).__name__}: {error})")
                return False
            if self._trouble:
                log.info("%s: the object store has everything again", self.name)
            self._trouble = ""
            self.flushed_at = time.time()
            return True

    # Learning

    async def _learn_once(self, call: Call, observation_id: str) -> dict[str, Any]:
        await self.recovered()
        answer = await self._answered(call.series_id, observation_id)
        if answer is not None:
            self.duplicates += 1
            return answer
        return await self._learn(call, observation_id)

    async def _answered(self, series_id: str, observation_id: str) -> dict[str, Any] | None:
        if not self.waiting and not self._turn.locked():
            return self._journal.answer(series_id, observation_id)
        # The loop must not wait for the disk.
        return await asyncio.to_thread(self._journal.answer, series_id, observation_id)

    async def _learn(self, call: Call, observation_id: str) -> dict[str, Any]:
        if time.monotonic() < self._rest_until:
            raise Unavailable(f"{self._trouble}; this observation was not learned, give it again")
        state = await self.recovered()
        if call.series_id not in state.last:
            self._check_new(call.series_id, len(state.last))
        # Nothing is awaited from here until the entry has its place in the journal.
        entry = self._predict_and_learn(state, call, observation_id)
        try:
            await self._commits.commit(entry)
        except (JournalUnavailable, ValueError) as error:
            raise Unavailable(f"{error}; this observation was not learned, give it again") from None
        return entry.answer

    def _check_new(self, series_id: str, count: int) -> None:
        """Whether the service may take a further series.

        Raises:
            Refused: it is somebody else's, or there are too many already.
        """
        if self._claimed(series_id):
            reason = f"series {series_id!r} belongs to the pipeline, which learns it: push it there"
            raise Refused(409, reason)
        if count >= self._most_series:
            raise Refused(
                409,
                f"{self.name} has {count} series, and takes no more: raise MLPLATFORM_MOST_SERIES if its"
                " memory allows, or send this one to another shard",
            )

    def _committed(self, entries: Sequence[Entry], error: Exception | None) -> None:
        if error is not None:
            self._discard(str(error))
            return
        self._durable = entries[-1].position + 1
        for entry in entries:
            self._told(entry)

    def _predict_and_learn(self, state: Learned, call: Call, observation_id: str) -> Entry:
        if call.series_id in state.models.behind:
            raise Refused(503, f"{self.name} cannot learn series {call.series_id!r}: see the service's log")
        family = self.families.of(call.series_id)
        model = state.model(call.series_id) or Model(self.recipe, family)
        given = np.array(call.lags or (), dtype=float)
        lags, available = model.shown(given)
        known = tuple(lags[:available].tolist())
        now, last = datetime.now(UTC), state.last.get(call.series_id)
        before = last.event_time if last else None
        if reason := _unfit(call.value, given, known, model.earlier, family) or _untimely(call, before, now):
            raise self.refuse(reason, call)
        offset = model.next_offset
        try:
            with np.errstate(all="ignore"):
                prediction = float(
                    model.fold(
                        np.array([offset]), lags[None, :], np.array([available]), np.array([call.value])
                    )[0]
                )
        except (ModelError, ArithmeticError) as error:
            # It may have changed the estimator before it stopped.
            self._discard(f"{self.name} could not learn {call.series_id!r}: {error}", rest=False)
            raise self.refuse(f"{self.name} cannot learn this: {error}", call) from None
        state.models.models[self.recipe.name, call.series_id] = model
        entry = Entry(
            state.position,
            call.series_id,
            offset,
            observation_id,
            call.event_time or following(now, before),
            call.value,
            {
                "prediction": prediction,
                "series_id": call.series_id,
                "observation_id": observation_id,
                "offset": offset,
            },
            now,
            known,
        )
        state.last[call.series_id] = entry
        state.position += 1
        return entry

    def _discard(self, reason: str, rest: bool = True) -> None:
        """The models have learned what nobody was answered for: they are made again."""
        if self._state is None:
            return
        log.error("%s makes its models again: %s", self.name, reason)
        self._state = None
        if rest:
            self._trouble = reason
            self._rest_until = time.monotonic() + REST_SECONDS

    # Recovery

    async def _recover(self) -> None:
        try:
            await self._commits.drain()
            async with self._turn:
                state = await self._in_thread(self._load)
            self._state, self._durable = state, state.position
        except NotOwner as error:
            self._lose(str(error))
        except TransientError as error:
            self._worry(str(error))
            raise
        finally:
            self._recovery = None

    def _load(self) -> Learned:
        table, journal = self._stores.table(PREDICTIONS.name), self._journal
        if self._token is None:
            self._token = self._claim(table)
        head = table.head(self._stream)
        if journal.next_position == 0 and head:
            log.warning("%s: the journal is new, the table has %d observations", self.name, head)
            served = served_entries(table, self.recipe.name, self.shard, 0)
            journal.restore(head, [(each.series_id, each.observation_id, each.answer) for each in served])
        if journal.next_position < head:
            raise NotOwner(
                f"{self.journal_path} ends at {journal.next_position}, and the table of predictions has"
                f" {head} of shard {self.shard}: another process has served it. Give this one another"
                " MLPLATFORM_SERVICE_ORDINAL, or move the journal away after a look at what only it has"
            )
        if head < journal.forgotten:
            raise NotOwner(
                f"{self.journal_path} has handed {journal.forgotten} observations to the table of"
                f" predictions, which has {head}: bring back the bucket that it wrote to, or move the journal"
                " away to begin anew"
            )
        behind: dict[str, str] = {}
        while True:
            try:
                return self._made(table, head, set(behind))
            except ModelError as error:
                if error.series_id in behind:
                    raise
                # What an older version learned, this one cannot; the other series go on.
                log.error("%s: %s", self.name, error)
                behind[error.series_id] = str(error)

    def _made(self, table: Table, head: int, behind: set[str]) -> Learned:
        """The models from the snapshot, the table up to `head` and the journal, without what is `behind`."""
        stored = self._stores.states.load(self.recipe.name, self.shard, self.versions, None)
        self._etag, self._published = stored.etag, head
        state = None
        if stored.content is not None and not stored.content[0].behind:
            models, last = stored.content
            state = Learned(models, last, stored.position)
        elif stored.etag:
            why = stored.refused or "a series was behind"
            log.warning("%s learns its whole log again: %s", self.name, why)
        state = state or Learned(ModelSet((self.recipe,), self.families))
        state.models.behind = behind
        self._snapshot_position = state.position
        served = served_entries(table, self.recipe.name, self.shard, state.position)
        while state.position < head and (entries := list(islice(served, BATCH))):
            self._replay(state, entries)
        while entries := self._journal.since(state.position, BATCH):
            self._replay(state, entries)
        self._warm()
        return state

    def _claim(self, table: Table) -> int:
        """Takes the shard: who had it before can append no more."""
        for _ in range(CLAIMS):
            token = table.head(self._owner) + 1
            nothing = served_rows([], self.recipe.name, self.recipe.digest, self.shard)
            try:
                table.append(nothing, self._owner, token, expected={self._owner: token - 1})
            except Conflict:
                continue
            return token
        raise Unavailable(f"shard {self.shard} of {self.name} is being taken by others again and again")

    def _replay(self, state: Learned, entries: Sequence[Entry]) -> None:
        """Learns again what was learned before."""
        rows = shown_rows(entries, self.families)
        with np.errstate(all="ignore"):
            state.models.fold(rows.without(state.models.behind))
        for entry in entries:
            state.last[entry.series_id] = entry
        state.position = entries[-1].position + 1

    def _warm(self) -> None:
        """Lets what is compiled or imported at the first use be so before a client waits for it."""
        model, rows = Model(self.recipe, Family()), 20
        lags = np.arange(rows * Family().lags, dtype=float).reshape(rows, -1)
        model.fold(np.arange(rows), lags, np.arange(rows), lags[:, 0])
        model.forecast(1)

    # Flushing

    async def _flush_again_and_again(self) -> None:
        while not self._ending.is_set():
            with suppress(asyncio.TimeoutError):
                seconds = self._seconds if self._state else min(self._seconds, REST_SECONDS)
                await asyncio.wait_for(self._ending.wait(), seconds)
                return
            if self._state is None and not self._lost:
                try:
                    await self.recovered()
                except PlatformError:
                    # It has been logged.
                    pass
                except Exception:
                    # Who waits for the models is told; there must be somebody who tries again.
                    log.exception("%s is not loaded", self.name)
            await self.flush()

    async def _flush(self, state: Learned) -> None:
        position = state.position
        if position == self._snapshot_position:
            return
        # Of one moment, since the loop does nothing else meanwhile.
        frozen = State((state.models, state.last)).frozen()
        while self._durable < position:
            if self._state is not state:
                return
            await asyncio.sleep(0.005)
        await self._in_thread(self._publish, position, frozen)

    def _publish(self, position: int, frozen: bytes) -> None:
        table, name = self._stores.table(PREDICTIONS.name), self.recipe.name
        while self._published < position:
            entries = self._journal.since(self._published, min(BATCH, position - self._published))
            head = entries[-1].position + 1
            self._append(table, served_rows(entries, name, self.recipe.digest, self.shard), head)
            self._published = head
        metadata = {"model": self.name}
        commit = self._stores.states.prepare(
            name, self.shard, self.versions, State(None, position, etag=self._etag), metadata, frozen
        )
        try:
            self._etag = self._stores.snapshots.commit(commit.snapshot, commit.etag)
        except Conflict:
            self._check_owner(table)
            # A put whose reply was lost, or the last one of the owner before: either is older than ours.
            etag = self._stores.snapshots.etags().get((name, self.shard))
            self._etag = self._stores.snapshots.commit(commit.snapshot, etag)
        self._snapshot_position = position
        self._journal.forget(position)

    def _append(self, table: Table, rows: arro3.Table, head: int) -> None:
        assert self._token is not None  # noqa: S101 - the first recovery has taken it
        try:
            table.append(rows, self._stream, head, expected={self._owner: self._token})
        except Conflict as conflict:
            self._check_owner(table)
            raise Unavailable(f"{conflict}; the next flush tries again") from conflict

    def _check_owner(self, table: Table) -> None:
        token = table.head(self._owner)
        if token != self._token:
            raise NotOwner(
                f"another process serves shard {self.shard} of {self.name} now (owner {token}, this is"
                f" {self._token}): end one of them, or give it another MLPLATFORM_SERVICE_ORDINAL"
            )

    async def _flush_refusals(self) -> None:
        refusals = list(self._refusals)
        if not refusals:
            return
        # Those that come meanwhile would push out some of these.
        self._refusals.clear()
        try:
            await self._in_thread(self._quarantine, refusals)
        except BaseException:
            self._refusals.extendleft(reversed(refusals))
            raise

    def _quarantine(self, refusals: Sequence[Refusal]) -> None:
        table, stream = self._stores.table(QUARANTINE.name), f"services/{self.recipe.name}/{self.shard}"
        head = table.head(stream)
        numbered = [
            Refusal(replace(each.submission, source_position=head + at), each.reason)
            for at, each in enumerate(refusals)
        ]
        try:
            table.append(quarantine_rows(numbered), stream, head + len(numbered))
        except Conflict as conflict:
            raise Unavailable(f"{conflict}; the next flush tries again") from conflict

    def _close(self) -> None:
        self._thread.shutdown()
        self._journal.close()

    async def _in_thread(self, work: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _worry(self, reason: str) -> None:
        if reason != self._trouble:
            log.error("%s is degraded: %s", self.name, reason)
        self._trouble = reason

    def _lose(self, reason: str) -> None:
        log.error("%s takes nothing more: %s", self.name, reason)
        self._lost = reason


def _new_id() -> str:
    """One that nobody has. They grow, so that the journal writes the ids of one moment side by side."""
    return f"{time.time_ns():016x}{uuid.uuid4().hex[:16]}"


def _unfit(
    value: float,
    given: np.ndarray,
    known: tuple[float, ...],
    earlier: tuple[float, ...],
    family: Family,
) -> str | None:
    """Why the numbers of a call cannot be learned.

    Args:
        given: the lags of the call.
        known: those that the model would be shown.
        earlier: the values that the model has learned last: a client may tell of others, or of few.
    """
    sizes = np.abs(given)
    if abs(value) <= LARGEST and (sizes <= LARGEST).all():
        band = family.band
        if (reason := band.reason(value, known)) or known == earlier:
            return reason
        numbers = (value, max(known, default=value), min(known, default=value))
        return next(filter(None, (band.reason(each, earlier) for each in numbers)), None)
    if not (isfinite(value) and np.isfinite(sizes).all()):
        return "target and features must be finite numbers"
    return f"too large: the size of target and features must not be above {LARGEST:g}"


def _untimely(call: Call, before: datetime | None, now: datetime) -> str | None:
    """Why the time of a call cannot follow the series' last; our own time is as it must be."""
    if call.event_time is None:
        return None
    return untimely(call.event_time, before, now + BELIEVED_CLOCK_ERROR)
