"""What is wrong with a project's files, so that it can be found and mended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

PathOf = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Problem:
    """One problem. `line` and `column` count from 1; 0 means the file as a whole. `path` names the key."""

    file: str
    line: int
    column: int
    path: str
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        what = f"{self.path}: {self.message}" if self.path else self.message
        return f"{where}: {what}; {self.suggestion}" if self.suggestion else f"{where}: {what}"


class InvalidProject(Exception):
    """Files of a project are wrong; `problems` are all that was found, in the order of the files' lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(map(str, self.problems)))


def dotted(path: PathOf) -> str:
    """`training.data_checks[0].name`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def did_you_mean(word: object, candidates: Iterable[object]) -> str:
    """A question that names the nearest candidate; empty if none is near."""
    found = nearest(word, candidates)
    return "" if found is None else f"did you mean {found}?"


def nearest(word: object, candidates: Iterable[object]) -> str | None:
    """The candidate that is most like the word, whatever the case and the order of their parts; None if none
    is near.
    """
    by_lower = {str(candidate).lower(): str(candidate) for candidate in candidates}
    lower = str(word).lower()
    found = [each for each in by_lower if sorted(each.split("_")) == sorted(lower.split("_"))]
    found = found or get_close_matches(lower, by_lower, 1)
    return by_lower[found[0]] if found else None
