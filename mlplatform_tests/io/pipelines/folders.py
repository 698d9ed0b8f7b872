"""Projects to read: the seed's own files, and one that says everything that can be said."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from mlplatform.domain.batch.problems import Problem
from mlplatform.io.pipelines.project import Project
from mlplatform.settings import Settings

FOLDER = Path(__file__).parent / "projects"
SEED, EVERYTHING = FOLDER / "seed", FOLDER / "everything"
# What the data scientist puts into the seed's serving pipeline.
RUN_ID = "0123456789abcdef0123456789abcdef"
MINIMAL = """
project: {name: small, problem_type: binary_classification}
training:
  data_source: {label_table: customers}
  schema:
    target: {label_column: churned}
    identifiers: {primary_key: customer_id}
  model_training: {config: {model: LogisticRegression}}
"""


def load(root: Path, target: str | None = None, variables: dict | None = None, **environment: str) -> Project:
    return Project.load(root, Settings(environment), variables or {}, target)


def seed_with_run_id(root: Path) -> Path:
    shutil.copytree(SEED, root, dirs_exist_ok=True)
    serving = root / "pipelines/serving_churn_model_v1.yaml"
    serving.write_text(serving.read_text().replace("<run_id_from_mlflow>", RUN_ID))
    return root


def project_of(root: Path, text: str, name: str = "small", **files: str) -> Project:
    """A project of one pipeline; `files` are others, by name without .yaml."""
    shutil.copy(SEED / "profiles.yaml", root)
    (root / "pipelines").mkdir(exist_ok=True)
    for stem, content in {name: text, **files}.items():
        (root / f"pipelines/{stem}.yaml").write_text(content)
    return load(root)


def problems_of(root: Path, text: str, **files: str) -> list[str]:
    return [str(problem) for problem in project_of(root, text, **files).validate()]


def of_path(problems: list[Problem], path: str) -> list[Problem]:
    return [problem for problem in problems if problem.path == path]


class Scalar(NamedTuple):
    """A key or a value of a YAML file: where it stands, and its path with the values above."""

    path: tuple[str | int, ...]
    text: str
    line: int
    start: int
    end: int
    is_key: bool


def scalars(text: str) -> Iterator[Scalar]:
    yield from _scalars(yaml.compose(text), ())


def _scalars(node: yaml.Node | None, path: tuple[str | int, ...]) -> Iterator[Scalar]:
    if isinstance(node, yaml.MappingNode):
        for key, below in node.value:
            yield _scalar(key, (*path, key.value), is_key=True)
            yield from _scalars(below, (*path, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, below in enumerate(node.value):
            yield from _scalars(below, (*path, index))
    elif node is not None:
        yield _scalar(node, path, is_key=False)


def _scalar(node: yaml.Node, path: tuple[str | int, ...], is_key: bool) -> Scalar:
    start, end = node.start_mark, node.end_mark
    return Scalar(path, node.value, start.line + 1, start.index, end.index, is_key)
