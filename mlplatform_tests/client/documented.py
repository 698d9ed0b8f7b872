"""An API that exists on paper only: it takes what its OpenAPI document says, and answers as that says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

import httpx
import jsonschema_rs
from pydantic import TypeAdapter

# What says something of values, and nothing of types.
OF_VALUES = {
    *("title", "description", "default", "examples", "uniqueItems", "pattern", "propertyNames"),
    *("minLength", "maxLength", "minItems", "maxItems", "maxProperties"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}
EXAMPLES = {
    "uuid": "6d1f8f0e-8b53-4f0e-8a2a-2b6d7a1c9e55",
    "date-time": "2026-01-31T12:00:00Z",
    None: "text",
}


class Undocumented(AssertionError):
    """A client did what the document does not know."""


class Document:
    """
    Attributes:
        asked: the routes that were, as the document writes them.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._components = {"components": document["components"]}
        self.asked: set[tuple[str, str]] = set()
        # Of the streams, of which the document says that there are events.
        self.streamed: type[Any] | None = None

    def routes(self) -> Iterator[tuple[str, str]]:
        for path, item in self._document["paths"].items():
            for method in item:
                yield method.upper(), path

    def answer(self, request: httpx.Request) -> httpx.Response:
        """
        Raises:
            Undocumented: the document does not allow the request.
        """
        path, operation = self._operation(request)
        where = f"{request.method} {path}"
        self.asked.add((request.method, path))
        parameters = operation.get("parameters", [])
        self._check_parameters(where, request, parameters)
        self._check_body(where, request, operation)
        for status, response in operation["responses"].items():
            if status.startswith("2"):
                return self._response(int(status), response.get("content", {}))
        raise Undocumented(f"{where} has no success")

    def schema_of_answer(self, method: str, path: str) -> Any:
        """The schema of what a route answers in JSON."""
        responses = self._document["paths"][path][method.lower()]["responses"]
        [content] = [each.get("content", {}) for status, each in responses.items() if status.startswith("2")]
        return content["application/json"]["schema"]

    def differences(self, read: Any, schema: Any, where: str = "") -> Iterator[str]:
        """What a client reads, as a type, and the schema does not say so."""
        mine = TypeAdapter(read).json_schema(mode="serialization")
        yield from _differences(mine, mine, schema, self._document, where)

    def example(self, schema: Any) -> Any:
        """A value that the schema allows; of several kinds the first, of several words the last."""
        schema = _resolved(schema, self._document)
        if "anyOf" in schema:
            return self.example(schema["anyOf"][0])
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][-1]
        kind = schema.get("type", "object")
        if kind == "object":
            properties = schema.get("properties", {})
            return {name: self.example(each) for name, each in properties.items()}
        if kind == "array":
            return [self.example(schema["items"])]
        if kind == "string":
            return EXAMPLES[schema.get("format")]
        return {"integer": 7, "number": 0.5, "boolean": True}[kind]

    def _operation(self, request: httpx.Request) -> tuple[str, Any]:
        for path, item in self._document["paths"].items():
            pattern = re.sub(r"\\{path\\}", ".+", re.sub(r"\\{(?!path\\)[^}]*\\}", "[^/]+", re.escape(path)))
            if re.fullmatch(pattern, request.url.path) and request.method.lower() in item:
                return path, item[request.method.lower()]
        raise Undocumented(f"there is no route {request.method} {request.url.path}")

    def _check_parameters(self, where: str, request: httpx.Request, parameters: list[Any]) -> None:
        known = {(each["in"], each["name"].lower()): each for each in parameters}
        for name, value in parse_qsl(request.url.query.decode(), keep_blank_values=True):
            if ("query", name) not in known:
                raise Undocumented(f"{where} takes no {name}")
            schema = known["query", name]["schema"]
            # All that a query has is text.
            if not (
                self._valid(schema, value)
                or (value.lstrip("-").isdecimal() and self._valid(schema, int(value)))
            ):
                raise Undocumented(f"{where}: {name}={value} is not {schema}")
        sent = "idempotency-key" in request.headers
        if sent != (("header", "idempotency-key") in known):
            raise Undocumented(f"{where} takes {'no' if sent else 'an'} Idempotency-Key")

    def _check_body(self, where: str, request: httpx.Request, operation: Any) -> None:
        if "requestBody" not in operation:
            if request.content:
                raise Undocumented(f"{where} takes no body")
            return
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        validator = jsonschema_rs.validator_for({**schema, **self._components})
        for error in validator.iter_errors(json.loads(request.content or b"null")):
            raise Undocumented(f"{where}: {error}")

    def _valid(self, schema: Any, value: Any) -> bool:
        return jsonschema_rs.validator_for({**schema, **self._components}).is_valid(value)

    def _response(self, status: int, content: Any) -> httpx.Response:
        if "text/event-stream" in content:
            schema = TypeAdapter(self.streamed).json_schema(mode="serialization")
            example = Document({"components": {}, "paths": {}, **schema}).example(schema)
            said = f"id: 1\nevent: any\ndata: {json.dumps(example)}\n\nevent: end\ndata: {{}}\n\n"
            return httpx.Response(status, text=said)
        if "application/json" in content:
            return httpx.Response(status, json=self.example(content["application/json"]["schema"]))
        return httpx.Response(status, content=b"bytes" if content else b"")


def _resolved(schema: Any, document: Mapping[str, Any]) -> Any:
    while "$ref" in schema:
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def _differences(mine: Any, my_document: Any, theirs: Any, their_document: Any, where: str) -> Iterator[str]:
    mine, theirs = _resolved(mine, my_document), _resolved(theirs, their_document)
    if "properties" in mine:
        yield from _different_fields(mine, my_document, theirs, their_document, where)
        return
    if "anyOf" in mine and len(mine["anyOf"]) == len(theirs.get("anyOf", ())):
        for one, other in zip(mine["anyOf"], theirs["anyOf"], strict=True):
            yield from _differences(one, my_document, other, their_document, where)
        return
    if "items" in mine and "items" in theirs:
        yield from _differences(mine["items"], my_document, theirs["items"], their_document, f"{where}[]")
    ignored = {*OF_VALUES, "items", "$defs"}
    # Of a name for anything, only what is behind the name matters.
    if "patternProperties" in theirs:
        theirs = {**theirs, "additionalProperties": next(iter(theirs["patternProperties"].values()))}
        ignored.add("patternProperties")
    one, other = ({name: each[name] for name in each.keys() - ignored} for each in (mine, theirs))
    for each in (one, other):
        if isinstance(inner := each.get("additionalProperties"), dict):
            each["additionalProperties"] = {name: inner[name] for name in inner.keys() - OF_VALUES}
    if one != other:
        yield f"{where}: {one} is read, {other} is documented"


def _different_fields(
    mine: Any, my_document: Any, theirs: Any, their_document: Any, where: str
) -> Iterator[str]:
    documented = theirs.get("properties", {})
    for name, field in mine["properties"].items():
        if name not in documented:
            yield f"{where}.{name} is not documented"
            continue
        if (
            name in mine.get("required", ())
            and name not in theirs.get("required", ())
            and "default" not in documented[name]
        ):
            yield f"{where}.{name} need not be there"
        yield from _differences(field, my_document, documented[name], their_document, f"{where}.{name}")
