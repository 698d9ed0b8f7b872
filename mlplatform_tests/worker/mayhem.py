"""Many jobs on workers that are killed and stopped at any moment."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from mlplatform.domain.jobs.states import TERMINAL, State
from mlplatform_tests.io.control_plane.histories import check
from mlplatform_tests.worker.plane import TIMEOUT_SECONDS, Plane, WorkerProcess

SECONDS = 300
BETWEEN_KILLS = (0.3, 1.2)


def mayhem(plane: Plane, folder: Path, jobs: int, workers: int, seed: int) -> int:
    """Checks what holds for each job whatever happened; returns how many workers were hurt."""
    chance = random.Random(seed)
    print("seed", seed)
    written = folder / "written"
    with ExitStack() as there:

        def begin(number: int) -> WorkerProcess:
            return there.enter_context(plane.worker(f"w{number}", "--slots", "2"))

        alive = [begin(number) for number in range(workers)]
        begun = [_job(plane, chance, written, number) for number in range(jobs)]
        hurt = 0
        deadline = time.monotonic() + SECONDS
        while left := [job for job in begun if State(plane.status(job)) not in TERMINAL]:
            for job in left:
                plane.retry(job)
            assert time.monotonic() < deadline, [dict(each) for job in begun for each in plane.attempts(job)]
            time.sleep(chance.uniform(*BETWEEN_KILLS))
            which = chance.randrange(len(alive))
            if chance.random() < 0.7:
                alive[which].kill()
                alive[which] = begin(workers + hurt)
            else:
                alive[which].stop()
                time.sleep(chance.uniform(0, 1.5 * TIMEOUT_SECONDS))
                alive[which].go_on()
            hurt += 1
    _look(plane, begun, written)
    return hurt


def _job(plane: Plane, chance: random.Random, written: Path, number: int) -> uuid.UUID:
    # Two words in one write each: what several append to a file is not mixed.
    begins, ends = (
        f"echo {number} {word} $MLPLATFORM_EXECUTION_ID >> {written}" for word in ("begins", "ends")
    )
    code = chance.choice((0, 0, 0, 5))
    command = f"{begins}; echo line; sleep {chance.uniform(0, 1.5):.2f}; {ends}; echo last; exit {code}"
    return plane.job("sh", "-c", command, retries=chance.choice((0, 1)))


def _look(plane: Plane, jobs: list[uuid.UUID], written: Path) -> None:
    begun: dict[str, list[str]] = {}
    for line in written.read_text().splitlines():
        number, word, execution = line.split()
        begun.setdefault(number, []).append(f"{word} {execution}")
    for number, job in enumerate(jobs):
        check(plane.database, job)
        attempts = {str(each["id"]): each for each in plane.attempts(job)}
        happened = begun.get(str(number), [])
        # Nothing is begun twice, and nothing that nobody knows of.
        assert all(times == 1 for times in Counter(happened).values())
        assert {line.split()[1] for line in happened} <= attempts.keys()
        for id_, attempt in attempts.items():
            if attempt["status"] == State.SUCCESS or attempt["exit_code"] is not None:
                assert f"ends {id_}" in happened
                assert plane.lines(attempt) == [("stdout", "line"), ("stdout", "last")]
        if plane.status(job) == State.SUCCESS:
            [succeeded] = [id_ for id_, each in attempts.items() if each["status"] == State.SUCCESS]
            # No other goes on behind it.
            assert happened[-1] == f"ends {succeeded}"
