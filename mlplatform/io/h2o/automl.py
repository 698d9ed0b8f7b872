"""One AutoML run on an H2O server: data in, leader out, and nothing of it left there."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.io.h2o.client import RUNNING, H2OClient, first_line, key
from mlplatform.io.plugins.frameworks import FrameworkError

if TYPE_CHECKING:
    import pyarrow as pa

# A model in training notices that it was cancelled only between two trees.
CANCEL_SECONDS = 30
# Of what `ParseSetup` finds in a file, what `Parse` wants to hear again.
PARSING = ("parse_type", "separator", "check_header", "number_columns", "chunk_size")
# In the name of all that H2O makes for a run: its number on this server, and the time.
STAMP = re.compile(r"_?AutoML_\d+_\d+_\d+")
BUILT = re.compile(r"Adding model (\S+) to leaderboard")
LEADER = re.compile(r"New leader: (\S+), (\S+): (\S+)")


@dataclass(frozen=True)
class Result:
    """`leaderboard`: rows best first, each of `model_id`, metrics and `algo`. `importances` are those of the
    model `importances_of` (an ensemble has none), shares of 1 by H2O's names, which are `column.level` for
    some algorithms.
    """

    leaderboard: list[dict[str, Any]]
    importances: Mapping[str, float]
    importances_of: str | None


class AutoMLRun:
    """One run; `with` removes what it made on the server, whatever happened.

    Args:
        log: takes a line of progress for each model.
    """

    def __init__(self, client: H2OClient, log: Callable[[str], None]) -> None:
        self._client = client
        self._log = log
        self._project = f"mlplatform_{uuid.uuid4().hex}"
        self._run: str | None = None
        self._job: str | None = None
        self._stamp: str | None = None
        self._seen = 0
        self._built = 0
        self._best = ""
        self._problem = ""

    def __enter__(self) -> AutoMLRun:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self._remove()
        except FrameworkError as failed:
            if error is None:
                raise
            # The first error says more, as when the server has died.
            error.add_note(
                f"nor could what {self._project} left on the H2O server be removed: {first_line(str(failed))}"
            )

    def upload(self, table: pa.Table, workdir: Path) -> str:
        """Columns of strings become categories with sorted levels; the others are numbers, NaN missing.

        Returns:
            The key of the frame.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        # Unlike CSV, it keeps every double, and strings like NA or with quotes and line ends.
        file = workdir / "upload.parquet"
        pq.write_table(table, file)
        frame = f"{self._project}_{uuid.uuid4().hex}"
        raw = f"{frame}_raw"
        with file.open("rb") as content:
            self._client.post(
                f"3/PostFile?destination_frame={raw}",
                data=content,
                headers={"Content-Type": "application/octet-stream"},
            )
        file.unlink()
        setup = self._client.post("3/ParseSetup", data={"source_frames": _list([raw])})
        types = ["Enum" if pa.types.is_string(field.type) else "Numeric" for field in table.schema]
        parsing = self._client.post(
            "3/Parse",
            data={
                **{name: setup[name] for name in PARSING},
                "destination_frame": frame,
                "source_frames": _list([raw]),
                "column_names": _list(table.column_names),
                "column_types": _list(types),
                "single_quotes": "false",
                "delete_on_done": "true",
                "blocking": "false",
            },
        )
        self._client.wait(parsing["job"]["key"]["name"])
        return frame

    def train(self, frame: str, response: str, build: Mapping[str, Mapping[str, Any]]) -> Result:
        """Trains on a frame of the server.

        Args:
            response: the column to learn.
            build: `build_control`, `build_models` and `input_spec` as of H2O's AutoMLBuilder; names are ours.

        Raises:
            FrameworkError: H2O failed, or built no model.
        """
        control = {**build["build_control"], "project_name": self._project}
        data = {**build["input_spec"], "training_frame": frame, "response_column": response}
        started = self._client.post(
            "99/AutoMLBuilder",
            json={"build_control": control, "build_models": build["build_models"], "input_spec": data},
        )
        self._run = run = started["job"]["dest"]["name"]
        self._job = job = started["job"]["key"]["name"]
        self._client.wait(job, lambda: self._look(run))
        self._job = None
        self._look(run)
        rows = _rows(self._client.get(f"99/Leaderboards/{key(run)}", extensions="algo")["table"])
        if not rows:
            raise FrameworkError(f"H2O AutoML built no model: {self._problem or 'it does not say why'}")
        best, importances = self._importances(rows)
        return Result(rows, importances, best)

    def download_mojo(self, model_id: str, file: Path) -> None:
        self._client.download(f"3/Models/{key(model_id)}/mojo", file)

    def _look(self, run: str) -> None:
        """Logs what has happened since the last look."""
        state = self._client.get(f"99/AutoML/{key(run)}", verbosity="debug")
        events = _rows(state["event_log_table"])[self._seen :]
        self._seen += len(events)
        built = []
        for event in events:
            message = event["message"]
            if stamp := STAMP.search(message):
                self._stamp = stamp[0].strip("_")
            if leader := LEADER.search(message):
                self._best = f"best {leader[2]} {float(leader[3]):.4f} by {short_name(leader[1])}"
            elif model := BUILT.search(message):
                built.append(short_name(model[1]))
            elif event["level"] == "ERROR":
                self._problem = first_line(STAMP.sub("", message))
                self._log(f"H2O AutoML: {self._problem}")
        for name in built:
            self._built += 1
            self._log(f"H2O AutoML: model {self._built} is {name}; {self._best}")

    def _importances(self, rows: list[dict[str, Any]]) -> tuple[str | None, dict[str, float]]:
        """Of the best model that has any."""
        for row in rows:
            output = self._client.get(f"3/Models/{key(row['model_id'])}")["models"][0]["output"]
            if table := output.get("variable_importances"):
                return row["model_id"], {one["variable"]: one["percentage"] for one in _rows(table)}
        return None, {}

    def _remove(self) -> None:
        if self._job:
            self._client.post(f"3/Jobs/{key(self._job)}/cancel")
            deadline = time.monotonic() + CANCEL_SECONDS
            while self._client.job(self._job)["status"] in RUNNING and time.monotonic() < deadline:
                time.sleep(0.2)
        if self._run:
            # With its leaderboard, models, and what belongs to those.
            self._client.delete(f"3/DKV/{key(self._run)}?cascade=true")
        ours = [self._project, *([self._stamp] if self._stamp else [])]
        models = [one["model_id"]["name"] for one in self._client.get("3/Models")["models"]]
        frames = [one["frame_id"]["name"] for one in self._client.get("3/Frames")["frames"]]
        for name in [*models, *frames]:
            if any(part in name for part in ours):
                self._client.delete(f"3/DKV/{key(name)}")


def short_name(model_id: str) -> str:
    """Without the run in it, as `GBM_1`."""
    return STAMP.sub("", model_id)


def _rows(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of one of H2O's tables, which come column by column."""
    names = [column["name"] for column in table["columns"]]
    return [dict(zip(names, row, strict=True)) for row in zip(*table["data"], strict=True)]


def _list(names: list[str]) -> str:
    # H2O does not read escapes, so no \u….
    return json.dumps(names, ensure_ascii=False)
