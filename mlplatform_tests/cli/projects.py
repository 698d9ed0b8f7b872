"""Projects of batch pipelines, as `mlplatform init` makes them, and the command line on them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlplatform.cli.main import main

TRAINING, SERVING = "training_churn_model_v1", "serving_churn_model_v1"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def make(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Path:
    """A new project `demo-project` in the folder, which is then the working directory."""
    monkeypatch.chdir(folder)
    result = call("init", "demo-project", *options)
    assert result.exit_code == 0, result.output
    monkeypatch.chdir("demo-project")
    return folder / "demo-project"


def replace(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
