"""What the YAML of the online-learning graph declares, for those who run without Dagster."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mlplatform.domain.families import DEFAULT_LAGS, AbsurdityBand, Families, Family

FOLDER = Path(__file__).parents[1] / "defs" / "online_learning"


@dataclass(frozen=True)
class Replay:
    """A file that is replayed: of its series `series_id` only the newest `last` observations."""

    path: Path
    series_id: str
    last: int | None


@cache
def families() -> Families:
    """The families of series, as the graph has them."""
    return Families(tuple(_family(each) for each in _attributes().get("families", [])))


@cache
def replay(name: str) -> Replay:
    """The replay source of that name.

    Raises:
        KeyError: there is none.
    """
    for source in _attributes()["sources"]:
        if source["name"] == name and source["type"] == "replay":
            return Replay(FOLDER / source["path"], source.get("series_id", ""), source.get("last"))
    raise KeyError(name)


@cache
def replayed() -> frozenset[str]:
    """The series that sources of the pipeline replay, whether or not it has read any of them yet."""
    return frozenset(source["series_id"] for source in _attributes()["sources"] if "series_id" in source)


@cache
def _attributes() -> dict[str, Any]:
    import yaml

    return yaml.safe_load((FOLDER / "defs.yaml").read_text(encoding="utf-8"))["attributes"]


def _family(declared: dict[str, Any]) -> Family:
    band = AbsurdityBand(width=declared["absurd_beyond"]) if "absurd_beyond" in declared else AbsurdityBand()
    return Family(
        declared["name"],
        tuple(declared["series"]),
        declared.get("lags", DEFAULT_LAGS),
        declared.get("season"),
        band,
    )
