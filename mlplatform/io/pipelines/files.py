"""YAML with the place of every key and value, `!include` and `base_pipeline`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import yaml

from mlplatform.domain.batch.problems import InvalidProject, PathOf, Problem, did_you_mean, dotted

INCLUDE = "!include"
MERGE = "tag:yaml.org,2002:merge"
UNQUOTED = re.compile(r"""^[^'"#]*[:\-\[,]\s*\{\{""")
# Aliases of aliases make a file of a kilobyte into gigabytes; no pipeline comes near these.
LARGEST, MOST_LEVELS = 100_000, 100


class Loader(yaml.CSafeLoader):
    """The C parser. Dates stay text, which the schema reads: a date in a framework's configuration would
    not come through JSON.
    """


Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for letter, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.1 takes 1e-3 for text; everybody who writes it means YAML 1.2's number.
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


_resolver = Loader("")
SCALARS: dict[str, Callable[[yaml.ScalarNode], Any]] = {
    f"tag:yaml.org,2002:{name}": getattr(_resolver, f"construct_yaml_{name}")
    for name in ("null", "bool", "int", "float", "str")
}


@dataclass(frozen=True)
class Place:
    """Line and column count from 1; 0 is the file as a whole."""

    file: str
    line: int = 0
    column: int = 0

    def problem(self, path: PathOf | str, message: str, suggestion: str = "") -> Problem:
        shown = path if isinstance(path, str) else dotted(path)
        return Problem(self.file, self.line, self.column, shown, message, suggestion)


@dataclass(frozen=True)
class Node:
    """A value where it stands: a mapping's `value` is `{key: Node}`, a list's `[Node]`, else a scalar.

    `key` is the place of the key that it belongs to. `text` is what a template gave before it was taken
    for a number.
    """

    value: Any
    place: Place
    key: Place | None = None
    text: str | None = None

    @property
    def start(self) -> Place:
        """Where one looks for it: its key, if it has one."""
        return self.key or self.place

    def plain(self) -> Any:
        if isinstance(self.value, dict):
            return {key: below.plain() for key, below in self.value.items()}
        if isinstance(self.value, list):
            return [below.plain() for below in self.value]
        return self.value

    def child(self, part: str | int) -> Node | None:
        if isinstance(self.value, dict):
            return self.value.get(part)
        if isinstance(self.value, list) and isinstance(part, int) and part < len(self.value):
            return self.value[part]
        return None

    def nearest(self, path: PathOf) -> tuple[Node, PathOf]:
        """The node of the path, or the last on the way to it that there is, and the path so far."""
        node, taken = self, 0
        for part in path:
            below = node.child(part)
            if below is None:
                break
            node, taken = below, taken + 1
        return node, path[:taken]

    def walk(self, path: PathOf = ()) -> Iterator[tuple[PathOf, Node]]:
        yield path, self
        if isinstance(self.value, dict):
            for key, below in self.value.items():
                yield from below.walk((*path, key))
        elif isinstance(self.value, list):
            for index, below in enumerate(self.value):
                yield from below.walk((*path, index))


@dataclass
class Files:
    """Reads the files of one project. Problems are collected; what was wrong is left out of the result."""

    root: Path
    problems: list[Problem] = field(default_factory=list)
    _size: int = 0

    def read(self, path: Path) -> Node | None:
        """The file with its `!include`s; None if it cannot be read at all."""
        self._size = 0
        return self._file(path, (), ())

    def parse(self, content: str, name: str) -> Node | None:
        """A text that is no file; None if it cannot be read at all."""
        self._size = 0
        return self._content(content, _Reader(self, None, name, ()), ())

    def name(self, path: Path) -> str:
        """As problems name it: relative to the project."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def _file(self, path: Path, at: PathOf, including: tuple[Path, ...]) -> Node | None:
        whole = Place(self.name(path))
        try:
            content = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            self.problems.append(whole.problem("", f"cannot be read: {error.strerror}"))
            return None
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            self.problems.append(
                Place(whole.file, line, 1).problem("", "is not UTF-8 text", "save it as UTF-8")
            )
            return None
        return self._content(content, _Reader(self, path, whole.file, including), at)

    def _content(self, content: str, reader: _Reader, at: PathOf) -> Node | None:
        whole = Place(reader.file)
        loader = None
        try:
            if line := _too_deep(content):
                self.problems.append(Place(whole.file, line, 1).problem("", "is nested too deeply"))
                return None
            loader = Loader(content)
            root = loader.get_single_node()
        except yaml.MarkedYAMLError as error:
            self.problems.append(_syntax(error, whole, content))
            return None
        except yaml.YAMLError as error:
            self.problems.append(whole.problem("", f"is no YAML: {error}"))
            return None
        finally:
            if loader is not None:
                loader.dispose()
        if root is None:
            return Node(None, Place(whole.file, 1, 1))
        return reader.node(root, at, None)

    def count(self) -> bool:
        self._size += 1
        return self._size <= LARGEST


@dataclass
class _Reader:
    """Turns one file's nodes of PyYAML into ours."""

    files: Files
    # None: it is no file, and may include none.
    path: Path | None
    file: str
    including: tuple[Path, ...]
    open_: set[int] = field(default_factory=set)

    def node(self, node: yaml.Node, at: PathOf, key: Place | None) -> Node | None:
        place = self._place(node)
        if not self.files.count():
            if self.files._size == LARGEST + 1:
                self._problem(place, at, f"the file has more than {LARGEST:,} values", "are aliases nested?")
            return None
        if id(node) in self.open_:
            self._problem(place, at, "an alias that contains itself", "write the block out")
            return None
        if node.tag == INCLUDE:
            return self._include(node, at, place, key)
        self.open_.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, at, place, key)
            if isinstance(node, yaml.SequenceNode):
                return self._sequence(node, at, place, key)
            return self._scalar(cast(yaml.ScalarNode, node), at, place, key)
        finally:
            self.open_.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, at: PathOf, place: Place, key: Place | None) -> Node | None:
        if node.tag != "tag:yaml.org,2002:map":
            return self._tag(node, at, place)
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            key_place = self._place(key_node)
            if key_node.tag == MERGE:
                for below in self._merged(value_node, at):
                    merged = {**below, **merged}
                continue
            name = self._key(key_node, at, key_place)
            if name is None:
                return None
            if name in own:
                first = own[name].start.line
                self._problem(key_place, (*at, name), f"stands twice; the first is in line {first}")
                continue
            below = self.node(value_node, (*at, name), key_place)
            if below is not None:
                own[name] = below
        return Node({**merged, **own}, place, key)

    def _key(self, node: yaml.Node, at: PathOf, place: Place) -> str | None:
        if isinstance(node, yaml.MappingNode):
            self._problem(
                place,
                at,
                "YAML takes an unquoted template for a mapping",
                "quote it: \"{{ env_var('NAME') }}\"",
            )
            return None
        if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
            shown = node.value if isinstance(node, yaml.ScalarNode) else "a list"
            self._problem(place, at, f"the key {shown} is not text", f'write "{shown}" in quotes')
            return None
        return node.value

    def _merged(self, node: yaml.Node, at: PathOf) -> list[dict[str, Node]]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        result = []
        for each in nodes:
            below = self.node(each, at, None)
            if below is not None and not isinstance(below.value, dict):
                self._problem(below.place, at, "<< needs a mapping")
            elif below is not None:
                result.append(below.value)
        return result

    def _sequence(self, node: yaml.SequenceNode, at: PathOf, place: Place, key: Place | None) -> Node | None:
        if node.tag != "tag:yaml.org,2002:seq":
            return self._tag(node, at, place)
        below = (self.node(each, (*at, index), None) for index, each in enumerate(node.value))
        return Node([each for each in below if each is not None], place, key)

    def _scalar(self, node: yaml.ScalarNode, at: PathOf, place: Place, key: Place | None) -> Node | None:
        if node.tag not in SCALARS:
            return self._tag(node, at, place)
        try:
            value = scalar(node)
        except ValueError as error:
            self._problem(place, at, str(error))
            return None
        return Node(value, place, key)

    def _include(self, node: yaml.Node, at: PathOf, place: Place, key: Place | None) -> Node | None:
        if self.path is None:
            self._problem(place, at, "!include is for files of a project", "write the block here")
            return None
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            self._problem(place, at, "!include needs the path of a file")
            return None
        target = (self.path.parent / node.value).resolve()
        chain = (*self.including, self.path.resolve())
        if not target.is_relative_to(self.files.root):
            self._problem(place, at, f"!include {node.value} is outside of the project's folder")
            return None
        if target in chain:
            shown = " -> ".join(self.files.name(each) for each in (*chain, target))
            self._problem(place, at, f"files include each other: {shown}")
            return None
        if not target.is_file():
            near = did_you_mean(target.name, (p.name for p in target.parent.glob("*")))
            self._problem(place, at, f"there is no file {self.files.name(target)} to include", near)
            return None
        included = self.files._file(target, at, chain)
        return replace(included, key=key) if included else None

    def _tag(self, node: yaml.Node, at: PathOf, place: Place) -> None:
        shown = node.tag.replace("tag:yaml.org,2002:", "!!")
        self._problem(place, at, f"the tag {shown} is not known", "there is !include")

    def _place(self, node: yaml.Node) -> Place:
        mark = node.start_mark
        return Place(self.file, mark.line + 1, mark.column + 1)

    def _problem(self, place: Place, at: PathOf, message: str, suggestion: str = "") -> None:
        self.files.problems.append(place.problem(at, message, suggestion))


def scalar(node: yaml.ScalarNode) -> Any:
    """The value of a scalar of the core tags. Raises ValueError."""
    try:
        value = SCALARS[node.tag](node)
    except (ValueError, LookupError):
        raise ValueError(f"{node.value!r} is no {node.tag.rpartition(':')[2]}") from None
    if isinstance(value, float) and not abs(value) < float("inf"):
        raise ValueError(f"{node.value} is not a finite number")
    return value


def typed(text: str) -> Any:
    """What YAML takes an unquoted text for: a number, true, false, nothing, or text."""
    tag = _resolver.resolve(yaml.ScalarNode, text, (True, False))
    return scalar(yaml.ScalarNode(tag, text)) if tag in SCALARS else text


def merge(base: Node, over: Node) -> Node:
    """`over` on `base`: mappings are merged, all else is replaced."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    merged = dict(base.value)
    for key, below in over.value.items():
        merged[key] = merge(merged[key], below) if key in merged else below
    return replace(over, value=merged)


def _too_deep(content: str) -> int:
    """The line where collections are nested more than MOST_LEVELS deep; 0 if they are nowhere.

    To make nodes of them, libyaml's binding calls itself for each level, beyond the end of the stack at last.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    levels = 0
    for event in yaml.parse(content, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            levels += 1
            if levels > MOST_LEVELS:
                return event.start_mark.line + 1
        elif isinstance(event, yaml.CollectionEndEvent):
            levels -= 1
    return 0


def _syntax(error: yaml.MarkedYAMLError, whole: Place, content: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    message = f"is no YAML: {error.problem or error.context}"
    if mark is None:
        return whole.problem("", message)
    lines = content.splitlines()
    # The parser may notice only in the line after the one that is wrong.
    for number in (mark.line, mark.line - 1):
        if 0 <= number < len(lines) and UNQUOTED.search(lines[number]):
            column = lines[number].index("{{") + 1
            return Place(whole.file, number + 1, column).problem(
                "", "an unquoted template", "quote it: \"{{ env_var('NAME') }}\""
            )
    tab = mark.line < len(lines) and lines[mark.line].startswith("\t")
    return Place(whole.file, mark.line + 1, mark.column + 1).problem(
        "", message, "indent with spaces, not with tabs" if tab else ""
    )


def read(root: Path, path: Path) -> Node:
    """One file of a project, with its places.

    Raises:
        InvalidProject: it cannot be read, or is wrong in itself.
    """
    files = Files(root.resolve())
    node = files.read(path if path.is_absolute() else files.root / path)
    if files.problems or node is None:
        raise InvalidProject(files.problems)
    return node


def parse(content: str, name: str) -> Node:
    """A text that is no file; problems call it `name`.

    Raises:
        InvalidProject: it is wrong in itself.
    """
    files = Files(Path())
    node = files.parse(content, name)
    if files.problems or node is None:
        raise InvalidProject(files.problems)
    return node


def read_pipeline(root: Path, path: Path) -> Node:
    """A pipeline's file on its `base_pipeline`, if it names one: `_name.yaml` or `name.yaml` beside it.

    Raises:
        InvalidProject: as `read`; or there is no such base, or the base has a base of its own.
    """
    node = read(root, path)
    if not isinstance(node.value, dict) or "base_pipeline" not in node.value:
        return node
    named = node.value["base_pipeline"]
    own = replace(node, value={key: below for key, below in node.value.items() if key != "base_pipeline"})
    found = _base(path, named)
    base = read(root, found)
    if isinstance(base.value, dict) and "base_pipeline" in base.value:
        place = base.value["base_pipeline"].start
        raise InvalidProject(
            [
                place.problem(
                    ("base_pipeline",),
                    f"the base of {path.stem} has a base of its own",
                    "write its blocks here, or !include them",
                )
            ]
        )
    if base.value is not None and not isinstance(base.value, dict):
        raise InvalidProject([base.place.problem("", "a base pipeline is a mapping of blocks")])
    return own if base.value is None else merge(base, own)


def _base(path: Path, named: Node) -> Path:
    name = named.value
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise InvalidProject(
            [named.place.problem(("base_pipeline",), "needs the name of a pipeline beside this one")]
        )
    name = name.removesuffix(".yaml")
    choices = [path.with_name(f"{prefix}{name}.yaml") for prefix in ("_", "")]
    found = [each for each in choices if each.is_file() and each != path]
    if len(found) == 1:
        return found[0]
    if found:
        message = f"both _{name}.yaml and {name}.yaml are there"
        raise InvalidProject([named.place.problem(("base_pipeline",), message, "rename one of them")])
    others = [each.stem.removeprefix("_") for each in path.parent.glob("*.yaml") if each != path]
    message = f"there is no {path.parent.name}/_{name}.yaml and no {path.parent.name}/{name}.yaml"
    raise InvalidProject(
        [named.place.problem(("base_pipeline",), message, did_you_mean(name.removeprefix("_"), others))]
    )
