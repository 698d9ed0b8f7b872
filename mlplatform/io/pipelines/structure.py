"""Whether YAML has the form of a schema: pydantic's errors with line, path and the nearest valid name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from mlplatform.domain.batch.problems import PathOf, Problem, did_you_mean, dotted, nearest
from mlplatform.io.pipelines.files import Node

Model = TypeVar("Model", bound=BaseModel)
WORDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a block of keys",
    "model_attributes_type": "a block of keys",
    "date_type": "a date such as 2026-01-31",
    "date_parsing": "a date such as 2026-01-31",
    "date_from_datetime_parsing": "a date such as 2026-01-31",
    "date_from_datetime_inexact": "a date such as 2026-01-31",
}


@dataclass(frozen=True)
class Read(Generic[Model]):
    """What could be read. With problems, `model` leaves out the values at `wrong`, or is None."""

    model: Model | None
    problems: list[Problem]
    wrong: frozenset[PathOf] = frozenset()

    def is_wrong(self, path: PathOf) -> bool:
        return any(path[: len(wrong)] == wrong for wrong in self.wrong)


def read_as(
    schema: type[Model],
    node: Node,
    ignored: frozenset[PathOf] = frozenset(),
    more_keys: Sequence[str] = (),
) -> Read[Model]:
    """The node as an object of the schema, and all that is wrong with it but for the paths `ignored`.

    `more_keys` are the file's keys that were taken out of the node, as the right spelling of others.
    """
    if not isinstance(node.value, dict):
        what = "is empty" if node.value is None else f"is {_shown(node.value)}"
        keys = ", ".join(key for key, field in _fields(schema).items() if field.is_required())
        return Read(None, [node.place.problem("", f"{what}, not a block of keys", f"it needs {keys}")])
    plain = node.plain()
    model, errors = _validate(schema, plain)
    wants_text = {_resolved(node, error) for error in errors if error["type"] == "string_type"}
    if sum(_restore_text(node, plain, path) for path in wants_text):
        model, errors = _validate(schema, plain)
    if model is not None:
        return Read(model, [])
    by_path: dict[PathOf, list[Any]] = {}
    for error in errors:
        by_path.setdefault(_resolved(node, error), []).append(error)
    misspelled = _misspelled(schema, by_path)
    problems = []
    for path, told in by_path.items():
        # A key that is missing because it is misspelled is one mistake, not two.
        follows = path in misspelled.values() and told[0]["type"] == "missing"
        if not follows and not any(path[: len(each)] == each for each in ignored):
            problems.append(_problem(schema, node, path, told, more_keys))
    return Read(_mended(schema, plain, by_path.keys(), misspelled), problems, frozenset(by_path))


def _misspelled(schema: type[BaseModel], by_path: dict[PathOf, list[Any]]) -> dict[PathOf, PathOf]:
    """Unknown keys, each with the missing key that it is most like."""
    found = {}
    for path, told in by_path.items():
        if told[0]["type"] == "extra_forbidden":
            near = nearest(path[-1], _fields_at(schema, path[:-1]))
            meant = (*path[:-1], near or "")
            if meant in by_path and by_path[meant][0]["type"] == "missing":
                found[path] = meant
    return found


def _validate(schema: type[Model], plain: Any) -> tuple[Model | None, list[Any]]:
    try:
        # By alias only: `schema_` is Python's word, not YAML's.
        return schema.model_validate(plain, by_alias=True, by_name=False), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _mended(
    schema: type[Model], plain: Any, wrong: Iterable[PathOf], misspelled: dict[PathOf, PathOf]
) -> Model | None:
    """The object without what is wrong and with the keys that were meant, so that the rest can be judged."""
    for path in wrong:
        block: Any = plain
        for part in path[:-1]:
            block = block[part]
        if isinstance(block, dict) and path and path[-1] in block:
            value = block.pop(path[-1])
            if path in misspelled:
                block[misspelled[path][-1]] = value
    return _validate(schema, plain)[0]


def _resolved(node: Node, error: Any) -> PathOf:
    """Pydantic's location as a path of the YAML: without the names of a union's members."""
    path: list[str | int] = []
    for part in error["loc"]:
        below = node.child(part)
        if below is None:
            continue
        node = below
        path.append(part)
    if error["type"] == "missing":
        path.append(error["loc"][-1])
    return tuple(path)


def _restore_text(node: Node, plain: Any, path: PathOf) -> bool:
    """Takes what a template gave as text again, where the schema wants text: an owner called 007."""
    found, reached = node.nearest(path)
    if reached != path or found.text is None or not path:
        return False
    for part in path[:-1]:
        plain = plain[part]
    plain[path[-1]] = found.text
    return True


def _problem(
    schema: type[BaseModel], node: Node, path: PathOf, told: list[Any], more_keys: Sequence[str]
) -> Problem:
    kind = told[0]["type"]
    found, reached = node.nearest(path)
    if kind == "missing":
        return found.start.problem(path, "is missing", _described(schema, path))
    if kind == "extra_forbidden":
        place = found.start if reached == path else node.start
        return place.problem(path, "no such key", _suggestion(schema, path, more_keys))
    message, suggestion = _said(schema, path, found, told)
    return found.place.problem(path, message, suggestion)


def _said(schema: type[BaseModel], path: PathOf, found: Node, told: list[Any]) -> tuple[str, str]:
    error = told[0]
    kind, value, context = error["type"], found.value, error.get("ctx", {})
    if kind == "literal_error":
        choices = _choices(schema, path)
        return f"{_shown(value)} is not one of {', '.join(map(str, choices))}", did_you_mean(value, choices)
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", error["msg"])), ""
    if kind == "string_pattern_mismatch":
        return f"{_shown(value)} does not match {context['pattern']}", _description(schema, path)
    if kind in WORDS:
        # Each member of a union tells what it wants.
        words = " or ".join(dict.fromkeys(WORDS[each["type"]] for each in told if each["type"] in WORDS))
        if value is None:
            return f"is empty, not {words}", "fill it in, or remove the key"
        quote = any(each["type"] == "string_type" for each in told) and not isinstance(value, dict | list)
        return f"is {_shown(value)}, not {words}", f'quote it: "{_bare(value)}"' if quote else ""
    message = error["msg"]
    return f"{_shown(value)}: {message[0].lower()}{message[1:]}", ""


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return repr(value) if isinstance(value, str) else _bare(value)


def _bare(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "nothing" if value is None else str(value)


def _suggestion(schema: type[BaseModel], path: PathOf, more_keys: Sequence[str]) -> str:
    """The nearest key at this place, else where a key of this name belongs."""
    key, keys = path[-1], [*_fields_at(schema, path[:-1]), *(more_keys if len(path) == 1 else ())]
    if near := did_you_mean(key, keys):
        return near
    if places := [place for place in _everywhere(schema) if place[-1] == key]:
        return f"it belongs to {' or '.join(dotted(place) for place in places[:3])}"
    return f"there are {', '.join(keys)}"


def _described(schema: type[BaseModel], path: PathOf) -> str:
    description = _description(schema, path)
    return f"add {path[-1]}: …{f' ({description.rstrip(chr(46))})' if description else ''}"


def _description(schema: type[BaseModel], path: PathOf) -> str:
    field = _fields_at(schema, path[:-1]).get(str(path[-1])) if path else None
    return (field.description or "") if field else ""


def _choices(schema: type[BaseModel], path: PathOf) -> list[Any]:
    annotation: Any = schema
    for part in path:
        annotation = _below(annotation, part)
    return [
        choice for each in _members(annotation) if get_origin(each) is Literal for choice in get_args(each)
    ]


def _fields(model: Any) -> dict[str, Any]:
    """Fields by the names that YAML uses."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _fields_at(schema: type[BaseModel], path: PathOf) -> dict[str, Any]:
    annotation: Any = schema
    for part in path:
        annotation = _below(annotation, part)
    models = [each for each in _members(annotation) if _is_model(each)]
    return _fields(models[0]) if models else {}


def _below(annotation: Any, part: str | int) -> Any:
    for each in _members(annotation):
        if _is_model(each) and part in _fields(each):
            return _fields(each)[str(part)].annotation
        if get_origin(each) is dict:
            return get_args(each)[1]
        if get_origin(each) is list:
            return get_args(each)[0]
    return None


def _members(annotation: Any) -> list[Any]:
    """The types of a union, without None and annotations."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [
            member for each in get_args(annotation) for member in _members(each) if member is not NoneType
        ]
    return [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _everywhere(model: Any, path: PathOf = ()) -> Iterator[PathOf]:
    for key, field in _fields(model).items():
        yield (*path, key)
        for each in _members(field.annotation):
            inner = [each, *(member for arg in get_args(each) for member in _members(arg))]
            for below in filter(_is_model, inner):
                yield from _everywhere(below, (*path, key))
