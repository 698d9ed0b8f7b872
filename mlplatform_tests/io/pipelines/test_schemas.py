from __future__ import annotations

import json
from pathlib import Path

import mlplatform
from mlplatform.io.pipelines.schemas import FOLDER, pipeline_schema, profiles_schema
from mlplatform_tests.io.pipelines.folders import FOLDER as PROJECTS

ROOT = Path(mlplatform.__file__).parents[1]


def published(name: str) -> dict:
    return json.loads((ROOT / FOLDER / f"{name}.schema.json").read_text())


def test_what_is_published_is_what_the_code_says() -> None:
    remedy = "python -m mlplatform.io.pipelines.schemas"
    assert published("pipeline") == pipeline_schema(), remedy
    assert published("profiles") == profiles_schema(), remedy


def test_no_block_takes_unknown_keys_and_all_definitions_are_there() -> None:
    for schema in (pipeline_schema(), profiles_schema()):
        definitions = schema["definitions"]
        for name, definition in definitions.items():
            if "properties" in definition:
                assert definition["additionalProperties"] is False, name
        text = json.dumps(schema)
        named = {part.split('"')[0] for part in text.split("#/definitions/")[1:]}
        assert named <= definitions.keys()


def test_with_a_base_nothing_is_required_at_any_level() -> None:
    definitions = pipeline_schema()["definitions"]
    assert definitions["Training"]["required"] == ["data_source", "schema"]
    assert "required" not in definitions["TrainingOnBase"]
    below = definitions["TrainingOnBase"]["properties"]["schema"]
    assert below["$ref"] == "#/definitions/SchemaOnBase"
    assert "base_pipeline" in definitions["PipelineOnBase"]["properties"]
    assert "base_pipeline" not in definitions["Pipeline"]["properties"]


def test_every_key_is_described() -> None:
    """An editor shows the description; a block has that of its class."""
    for schema in (pipeline_schema(), profiles_schema()):
        for name, definition in schema["definitions"].items():
            if "properties" in definition and not name.endswith("OnBase"):
                assert definition.get("description"), name


def test_the_line_for_the_editor_names_the_published_schema() -> None:
    file = PROJECTS / "everything/pipelines/training_everything.yaml"
    first = file.read_text().splitlines()[0]
    assert (file.parent / first.partition("$schema=")[2]).resolve() == ROOT / FOLDER / "pipeline.schema.json"
