"""Commands on pipelines of YAML, each in a fresh process, against the interpreter's start and MBT's figures.

MBT is the origin of these commands. Its figures are the middle of what was measured of it once, on 20 rows
and another state of the machine; `python -c "import mlflow"`, which is most of what both do, tells how the
machine is now.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.measure import Row, Session, alternate, say, seconds
from mlplatform.settings import SERVICE_VARIABLES

PIPELINE = "training_churn_model_v1"
MANY = 200
CUSTOMERS = 20
STEPS = ("load_data", "split_data", "train_model", "evaluate", "log_run")
MBT_COMPILE, MBT_RUN, MBT_STEPS = 7.35, 14.8, 36.0
COMPILE_GOAL, RUN_GOAL, STEPS_GOAL = 0.2, 0.8, 0.6
FRAMEWORK = """\
    framework: sklearn
    config:
      model: RandomForestClassifier
"""
INTERPRETER = ("-c", "pass")


def measure(session: Session) -> Iterator[Row]:
    """Whole processes: `validate` and `compile` of one pipeline and of many, `run`, and single steps."""
    folder = session.directory / "pipelines"
    bench = Bench(folder, _environment(session))
    one, many = bench.project("one"), bench.project("many", MANY)
    yield from _reading(bench, one, many)
    yield from _running(bench, one)


class Bench:
    """Runs commands on projects of the template that `init` makes, cut to the origin's size."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        folder.mkdir()

    def project(self, name: str, pipelines: int = 1) -> Path:
        """A project that trains scikit-learn's random forest on 20 customers."""
        root = self._folder / name
        self.mlplatform(self._folder, "init", name)
        for file in (root / "pipelines").glob("serving_*"):
            file.unlink()
        customers = root / "sample_data/customers.csv"
        customers.write_text("".join(customers.read_text().splitlines(keepends=True)[: CUSTOMERS + 1]))
        file = root / f"pipelines/{PIPELINE}.yaml"
        text = re.sub(r"    framework: .*?(?=\n\n  evaluation)", FRAMEWORK, file.read_text(), flags=re.DOTALL)
        file.write_text(text)
        for number in range(1, pipelines):
            copy = f"{PIPELINE}_{number:03d}"
            (root / f"pipelines/{copy}.yaml").write_text(text.replace(f"name: {PIPELINE}", f"name: {copy}"))
        return root

    def mlplatform(self, root: Path, *arguments: str) -> None:
        self._run(root, str(Path(sys.executable).with_name("mlplatform")), *arguments)

    def python(self, root: Path, *arguments: str) -> None:
        self._run(root, sys.executable, *arguments)

    def _run(self, root: Path, *command: str) -> None:
        done = subprocess.run(command, cwd=root, env=self._environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _reading(bench: Bench, one: Path, many: Path) -> Iterator[Row]:
    say(f"validate and compile of 1 and of {MANY} pipelines, in turn")
    acts: dict[str, Callable[[], object]] = {
        "python -c pass": lambda: bench.python(one, *INTERPRETER),
        "validate of 1": lambda: bench.mlplatform(one, "validate"),
        "compile of 1": lambda: bench.mlplatform(one, "compile"),
        f"validate of {MANY}": lambda: bench.mlplatform(many, "validate"),
        f"compile of {MANY}": lambda: bench.mlplatform(many, "compile"),
    }
    times = alternate(acts, 5)
    start = times.pop("python -c pass")
    for name, ours in times.items():
        yield Row(f"{name}, against python -c pass", ours, start)
    yield Row("compile of 1, against MBT", times["compile of 1"], MBT_COMPILE, "s", COMPILE_GOAL)
    yield Row(f"compile of {MANY}, against MBT for 1", times[f"compile of {MANY}"], MBT_COMPILE)


def _running(bench: Bench, root: Path) -> Iterator[Row]:
    say(f"five steps on {CUSTOMERS} customers (RandomForestClassifier), by run and each in a process")
    first = seconds(lambda: bench.mlplatform(root, "run", "--select", PIPELINE))
    say(f"the first run, which makes MLflow's database: {first:.3g} s")
    # What step execute runs.
    bench.mlplatform(root, "compile")
    numbers = iter(range(1_000))
    times = alternate(
        {
            "import mlflow": lambda: bench.python(root, "-c", "import mlflow"),
            "run": lambda: bench.mlplatform(root, "run", "--select", PIPELINE),
            "step executes": lambda: _steps(bench, root, f"run_{next(numbers)}"),
        },
        3,
    )
    yield Row("a project's first run of five steps, against MBT", first, MBT_RUN)
    yield Row("run of five steps, against MBT", times["run"], MBT_RUN, "s", RUN_GOAL)
    yield Row("five step executes, against MBT", times["step executes"], MBT_STEPS, "s", STEPS_GOAL)
    for name in ("run", "step executes"):
        yield Row(f"{name}, against import mlflow", times[name], times["import mlflow"])


def _steps(bench: Bench, root: Path, run_id: str) -> None:
    for step in STEPS:
        bench.mlplatform(root, "step", "execute", "--pipeline", PIPELINE, "--step", step, "--run-id", run_id)


def _environment(session: Session) -> dict[str, str]:
    """The caller's without what it says of services, which the projects shall not meet."""
    unwanted = {*SERVICE_VARIABLES.values(), "MLPLATFORM_ENV"}
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, "MLPLATFORM_DATA_DIRECTORY": str(session.directory / "none")}
