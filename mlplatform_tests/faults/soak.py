"""`make soak`: kills the graph at random moments until it has been killed often enough.

    python -m mlplatform_tests.faults.soak --kills 1000

Each round replays a series in many small runs on fresh objects, kills the process again and again
wherever it is, lets it finish, and compares what is left with an uninterrupted run.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import uuid
from pathlib import Path

from mlplatform.local.stack import running_stack
from mlplatform.settings import Settings
from mlplatform_tests.faults.harness import differences, run_in_child, waiting, what_is_left
from mlplatform_tests.graphs import Graph, replay

MODELS = ["ridge", "linear", "knn"]
OBSERVATIONS = 160
LIMIT = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    chance = random.Random(options.seed)
    print(f"{options.kills} kills, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        data = str(Path(directory) / "stack")
        settings = Settings(
            {"MLPLATFORM_DATA_DIRECTORY": data, "MLPLATFORM_STACK_SERVICES": "s3,redis,postgresql"}
        )
        with running_stack(settings) as stack:
            sys.exit(_soak(stack.variables, options.kills, chance))


def _soak(variables: dict[str, str], kills: int, chance: random.Random) -> int:
    expected = _finished(_graph(variables))
    done, rounds, began = 0, 0, time.monotonic()
    while done < kills:
        graph = _graph(variables)
        while done < kills:
            outcome = run_in_child(
                graph, limit=LIMIT, runs=None, kill_after_seconds=chance.uniform(0.05, 2.0)
            )
            if not outcome.killed and not waiting(graph):
                break
            done += outcome.killed
        rounds += 1
        different = differences(expected, _finished(graph))
        minutes = (time.monotonic() - began) / 60
        print(f"round {rounds}: {done} kills in {minutes:.1f} min, different: {different}", flush=True)
        if different:
            return 1
    print(f"{done} kills in {rounds} rounds: every round ended where an uninterrupted run does")
    return 0


def _graph(variables: dict[str, str]) -> Graph:
    own = {"MLPLATFORM_S3_PREFIX": uuid.uuid4().hex, "MLPLATFORM_LEASE_SECONDS": "0.3"}
    return Graph({**variables, **own}, [replay(last=OBSERVATIONS)], MODELS)


def _finished(graph: Graph) -> dict[str, object]:
    outcome = run_in_child(graph, limit=1000, runs=None)
    if outcome.exit_code != 0:
        raise RuntimeError(f"an uninterrupted run failed with exit code {outcome.exit_code}")
    return what_is_left(graph)


if __name__ == "__main__":
    main()
