"""What is read without Dagster is what the graph has."""

from __future__ import annotations

import pytest
import yaml

from mlplatform.components.online_learning.component import OnlineLearning
from mlplatform.domain.families import AbsurdityBand, Families, Family
from mlplatform.io import declaration


def test_the_families_are_those_of_the_graph() -> None:
    declared = yaml.safe_load((declaration.FOLDER / "defs.yaml").read_text())["attributes"]
    assert (
        declaration.families() == OnlineLearning.model_validate(declared).graph(declaration.FOLDER).families
    )
    assert len(declaration.families().families) > 0


def test_all_that_a_family_may_declare() -> None:
    given = {"name": "n", "series": ["a*"], "lags": 20, "season": 7, "absurd_beyond": 3.0}
    declared = {"sources": [], "families": [given, {"name": "m", "series": ["b"]}]}
    graph = OnlineLearning.model_validate(declared).graph(declaration.FOLDER)
    assert Families(tuple(map(declaration._family, declared["families"]))) == graph.families
    assert graph.families.of("a1") == Family("n", ("a*",), 20, 7, AbsurdityBand(width=3.0))


def test_the_replay_is_a_file_that_is_there() -> None:
    replay = declaration.replay("retail_employment")
    assert replay.path.is_file()
    assert (replay.series_id, replay.last) == ("us_retail_employment", 744)
    with pytest.raises(KeyError):
        declaration.replay("nobody's")
