"""A project's own Python, `lib/*.py`: read once, imported under a name of its own, kept with a model.

Code is taken from memory and not from the search path: a model runs the very source that it was trained
with, whatever stands in the project's folder by then, and two models with different sources run side by side.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.abc import MetaPathFinder, SourceLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from mlplatform.errors import PlatformError

FOLDER = "lib"


class ProjectCodeError(PlatformError):
    """Code of `lib/` cannot be found or imported; the message names the file and the remedy."""


@dataclass(frozen=True)
class ProjectCode:
    """`sources` maps paths below `lib/` (with slashes) to their bytes."""

    sources: Mapping[str, bytes]

    @classmethod
    def read(cls, directory: Path) -> ProjectCode:
        """All Python below a folder but its tests; nothing if there is no such folder."""
        files = {path.relative_to(directory): path for path in sorted(directory.rglob("*.py"))}
        return cls({name.as_posix(): path.read_bytes() for name, path in files.items() if not _is_test(name)})

    def write(self, directory: Path) -> None:
        for name, source in self.sources.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source)

    @cached_property
    def digest(self) -> str:
        content = "".join(
            f"{hashlib.sha256(source).hexdigest()} {name}\n" for name, source in sorted(self.sources.items())
        )
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def package(self) -> str:
        return f"mlplatform_lib_{self.digest[:16]}"

    def load(self, reference: str) -> Any:
        """What `module:name` means, `module` being a path below `lib/` with dots.

        Raises:
            ProjectCodeError: there is no such module or name, or importing it fails.
        """
        module, _, name = reference.partition(":")
        paths = [f"{module.replace('.', '/')}.py", f"{module.replace('.', '/')}/__init__.py"]
        if not any(path in self.sources for path in paths):
            there = ", ".join(f"{FOLDER}/{path}" for path in sorted(self.sources)) or "nothing"
            raise ProjectCodeError(f"{reference}: there is no {FOLDER}/{paths[0]} (there is {there})")
        self._refuse_absolute_imports()
        _FINDER.add(self)
        try:
            imported = importlib.import_module(f"{self.package}.{module}")
        except Exception as error:
            raise ProjectCodeError(
                f"{FOLDER}/{paths[0]} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        try:
            return getattr(imported, name)
        except AttributeError:
            raise ProjectCodeError(f"{FOLDER}/{paths[0]} defines no {name}") from None

    def _refuse_absolute_imports(self) -> None:
        """`import helpers` would find the project's file of today, and not the one kept with the model."""
        own = {FOLDER, *(path.split("/")[0].removesuffix(".py") for path in self.sources)}
        # `lib/statistics.py` does not forbid the standard one.
        own -= sys.stdlib_module_names
        for path, source in self.sources.items():
            try:
                tree = ast.parse(source, filename=f"{FOLDER}/{path}")
            except SyntaxError as error:
                raise ProjectCodeError(f"{FOLDER}/{path}:{error.lineno}: {error.msg}") from error
            for line, name in _absolute_imports(tree):
                if name.split(".")[0] in own:
                    raise ProjectCodeError(
                        f"{FOLDER}/{path}:{line}: imports {name} by its full name: write"
                        " `from . import …` or `from .module import …`, so that the copy kept with the"
                        " model is found"
                    )


def _is_test(name: Path) -> bool:
    return name.name == "conftest.py" or name.name.startswith("test_") or "tests" in name.parts[:-1]


def _absolute_imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines and modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module or ""


class _Loader(SourceLoader):
    """Source from memory; nothing is cached on disk."""

    def __init__(self, source: bytes, path: str) -> None:
        self._source = source
        self._path = path

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_data(self, path: str | bytes) -> bytes:
        return self._source


class _Finder(MetaPathFinder):
    def __init__(self) -> None:
        self._codes: dict[str, ProjectCode] = {}

    def add(self, code: ProjectCode) -> None:
        self._codes[code.package] = code
        if self not in sys.meta_path:
            sys.meta_path.append(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, below = fullname.partition(".")
        code = self._codes.get(package)
        if code is None:
            return None
        stem = below.replace(".", "/")
        module, folder = f"{stem}.py", f"{stem}/__init__.py".lstrip("/")
        if below and module in code.sources:
            return self._spec(fullname, code.sources[module], module, False)
        if folder in code.sources:
            return self._spec(fullname, code.sources[folder], folder, True)
        if not below or any(name.startswith(f"{stem}/") for name in code.sources):
            return self._spec(fullname, b"", folder, True)
        return None

    def _spec(
        self, fullname: str, source: bytes, name: str, package: bool
    ) -> importlib.machinery.ModuleSpec | None:
        path = f"<{fullname.partition('.')[0]}>/{name}"
        loader = _Loader(source, path)
        return importlib.util.spec_from_file_location(
            fullname, path, loader=loader, submodule_search_locations=[] if package else None
        )


_FINDER = _Finder()
