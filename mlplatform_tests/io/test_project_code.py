from __future__ import annotations

import sys
import traceback
from pathlib import Path

import pytest

from mlplatform.io.project_code import ProjectCode, ProjectCodeError


def code(**sources: str) -> ProjectCode:
    """`features__ratios="…"` stands for lib/features/ratios.py."""
    return ProjectCode({f"{name.replace('__', '/')}.py": text.encode() for name, text in sources.items()})


def test_a_name_of_a_module_is_found() -> None:
    assert code(features="class Ratio:\n    size = 3\n").load("features:Ratio").size == 3


def test_modules_may_lie_in_folders_and_import_their_neighbours() -> None:
    sources = code(
        constants="BASE = 20\n",
        features__scale="from ..constants import BASE\nfrom . import shift\nTOTAL = BASE + shift.BY\n",
        features__shift="BY = 2\n",
    )
    assert sources.load("features.scale:TOTAL") == 22


def test_a_package_may_be_named_itself() -> None:
    sources = ProjectCode({"features/__init__.py": b"from .a import X\n", "features/a.py": b"X = 1\n"})
    assert sources.load("features:X") == 1


def test_two_versions_of_a_module_run_side_by_side() -> None:
    old, new = code(features="VALUE = 1\n"), code(features="VALUE = 2\n")
    assert (old.load("features:VALUE"), new.load("features:VALUE")) == (1, 2)
    assert old.load("features:VALUE") == 1
    assert old.digest != new.digest


def test_the_same_code_is_imported_once() -> None:
    assert code(m="class A: ...\n").load("m:A") is code(m="class A: ...\n").load("m:A")


def test_it_shadows_nothing_and_leaves_no_files(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("VALUE = 'own'\n")
    assert ProjectCode.read(tmp_path).load("json:VALUE") == "own"
    assert not hasattr(sys.modules.get("json"), "VALUE")
    assert [path.name for path in tmp_path.rglob("*")] == ["json.py"]


def test_reading_takes_all_python_but_tests(tmp_path: Path) -> None:
    kept = ("features.py", "folder/more.py")
    others = ("test_features.py", "conftest.py", "tests/helpers.py", "notes.md")
    for name in (*kept, *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("X = 1\n")
    assert set(ProjectCode.read(tmp_path).sources) == set(kept)
    assert ProjectCode.read(tmp_path / "gone").sources == {}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    sources = code(a="X = 1\n", b__c="Y = 2\n")
    sources.write(tmp_path / "copy")
    assert ProjectCode.read(tmp_path / "copy") == sources


@pytest.mark.parametrize(
    ("sources", "reference", "message"),
    [
        ({"features": ""}, "feature:Ratio", r"there is no lib/feature\.py \(there is lib/features\.py\)"),
        ({}, "features:Ratio", r"there is no lib/features\.py \(there is nothing\)"),
        ({"features": ""}, "features:Ratio", r"lib/features\.py defines no Ratio"),
        ({"features": "import no_such_thing\n"}, "features:X", "cannot be imported: ModuleNotFoundError"),
        ({"features": "1 / 0\n"}, "features:X", "cannot be imported: ZeroDivisionError"),
        ({"features": "X =\n"}, "features:X", r"lib/features\.py:1: invalid syntax"),
        (
            {"features": "\nimport helpers\n", "helpers": ""},
            "features:X",
            r"lib/features\.py:2: imports helpers",
        ),
        (
            {"features": "from lib.helpers import y\n", "helpers": ""},
            "features:X",
            "imports lib.helpers by its",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_file(sources: dict[str, str], reference: str, message: str) -> None:
    with pytest.raises(ProjectCodeError, match=message):
        code(**sources).load(reference)


def test_a_traceback_shows_the_source() -> None:
    function = code(features="def f(x):\n    return 1 / x  # here\n").load("features:f")
    with pytest.raises(ZeroDivisionError) as failed:
        function(0)
    assert "return 1 / x  # here" in "".join(traceback.format_exception(failed.value))
