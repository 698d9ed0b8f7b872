"""JSON Schemas of pipelines and profiles, for completion in an editor.

`python -m mlplatform.io.pipelines.schemas` writes them to docs/reference. A file names its own in its first
line: `# yaml-language-server: $schema=…/pipeline.schema.json`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlplatform.domain.batch.metric_names import METRICS
from mlplatform.domain.batch.pipeline import Pipeline
from mlplatform.domain.batch.profile import Profile

DIALECT = "http://json-schema.org/draft-07/schema#"
FOLDER = Path("docs/reference")
TEMPLATE = {"type": "string", "pattern": r"\{\{"}


def pipeline_schema() -> dict[str, Any]:
    """The schema of pipelines/*.yaml; with a `base_pipeline`, no key is required."""
    schema = Pipeline.model_json_schema(by_alias=True, ref_template="#/definitions/{model}")
    definitions = _definitions(schema)
    evaluation = definitions["Evaluation"]["properties"]
    metrics = sorted({name for names in METRICS.values() for name in names})
    evaluation["primary_metric"] |= {"enum": metrics}
    evaluation["additional_metrics"]["items"] |= {"enum": metrics}
    _allow_templates(definitions)
    partial = {f"{name}OnBase": _on_base(each) for name, each in definitions.items() if "properties" in each}
    base = {"type": "string", "description": "Pipeline beside this one: _name.yaml or name.yaml."}
    partial["PipelineOnBase"]["properties"] = {
        "base_pipeline": base,
        **partial["PipelineOnBase"]["properties"],
    }
    return {
        "$schema": DIALECT,
        "title": "Pipeline of mlplatform",
        "if": {"required": ["base_pipeline"]},
        "then": {"$ref": "#/definitions/PipelineOnBase"},
        "else": {"$ref": "#/definitions/Pipeline"},
        "definitions": {**definitions, **partial},
    }


def profiles_schema() -> dict[str, Any]:
    """The schema of profiles.yaml: profiles by name."""
    schema = Profile.model_json_schema(by_alias=True, ref_template="#/definitions/{model}")
    definitions = _definitions(schema)
    _allow_templates(definitions)
    return {
        "$schema": DIALECT,
        "title": "Profiles of mlplatform",
        "type": "object",
        "additionalProperties": {"$ref": "#/definitions/Profile"},
        "definitions": definitions,
    }


def write(folder: Path) -> list[Path]:
    """Writes both schemas into the folder, and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, schema in (("pipeline", pipeline_schema()), ("profiles", profiles_schema())):
        paths.append(folder / f"{name}.schema.json")
        paths[-1].write_text(json.dumps(schema, indent=2) + "\n")
    return paths


def _definitions(schema: dict[str, Any]) -> dict[str, Any]:
    definitions = dict(schema.pop("$defs"))
    return {schema["title"]: schema, **definitions}


def _properties(definitions: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for definition in definitions.values():
        for name in definition.get("properties", {}):
            yield definition["properties"], name


def _allow_templates(definitions: dict[str, Any]) -> None:
    """Where a value must have a form, a template may stand for it."""
    for properties, name in _properties(definitions):
        schema = properties[name]
        schema.pop("title", None)
        is_text = schema.get("type") == "string" and not schema.keys() & {"enum", "pattern", "format"}
        if is_text or schema.get("type") in ("object", "array") or "$ref" in schema:
            continue
        if "anyOf" in schema:
            schema["anyOf"].append(TEMPLATE)
            continue
        kept = {key: schema.pop(key) for key in ("description", "default") if key in schema}
        properties[name] = {**kept, "anyOf": [schema, TEMPLATE]}


def _on_base(definition: dict[str, Any]) -> dict[str, Any]:
    """The same with nothing required, down to the innermost block."""
    text = json.dumps({key: value for key, value in definition.items() if key != "required"})
    partial = json.loads(text)
    for properties, name in _properties({"": partial}):
        # A list is replaced, so its items are whole.
        if "items" not in properties[name]:
            properties[name] = _renamed(copy.deepcopy(properties[name]))
    return partial


def _renamed(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        schema["$ref"] += "OnBase"
    for each in schema.get("anyOf", ()):
        if "items" not in each:
            _renamed(each)
    return schema


if __name__ == "__main__":
    for path in write(FOLDER):
        print(path)
