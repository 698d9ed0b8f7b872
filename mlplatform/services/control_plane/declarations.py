"""What somebody declares a pipeline to be: JSON, or the YAML of the batch platform."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import MutableHeaders
from starlette.types import Message

from mlplatform.domain.batch.pipeline import Pipeline
from mlplatform.domain.batch.problems import InvalidProject, Problem, dotted
from mlplatform.domain.jobs.specs import PipelineSpec
from mlplatform.io.pipelines.files import parse
from mlplatform.io.pipelines.project import TEXT, Project
from mlplatform.io.pipelines.structure import read_as
from mlplatform.services.refusals import Refused
from mlplatform.settings import Settings

YAML = ("application/yaml", "application/x-yaml", "text/yaml")
EXAMPLE = """\
project:
  name: churn_small_v1
  problem_type: binary_classification
training:
  data_source: {label_table: customers}
  schema:
    target: {label_column: churned}
    identifiers: {primary_key: customer_id}
  model_training: {framework: sklearn, config: {model: LogisticRegression}}
"""
# Of a body that may be YAML too; its text is the field `yaml` of the JSON.
DOCUMENTED = {"requestBody": {"content": {YAML[0]: {"schema": {"type": "string"}, "example": EXAMPLE}}}}
# Until the YAML was read, which has the name.
UNNAMED = "unnamed"


class FoundProblem(BaseModel):
    """`line` and `column` count from 1, 0: of the whole."""

    path: str = Field(description="Of the key: `stages[0].commands`.")
    line: int
    column: int
    message: str
    suggestion: str = Field(description="The remedy, where it is known.")

    @classmethod
    def of(cls, problem: Problem) -> FoundProblem:
        # Not the pipeline's own file: the project's profile.
        where = f"{problem.file}:{problem.line}: " if problem.file not in ("", TEXT) else ""
        return cls(
            path=problem.path,
            line=0 if where else problem.line,
            column=0 if where else problem.column,
            message=f"{where}{problem.message}",
            suggestion=problem.suggestion,
        )


class YamlRoute(APIRoute):
    """A route whose body may be YAML, instead of JSON that has it in its field `yaml`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_either(request: Request) -> Response:
            if is_yaml(request):
                asked = {"name": UNNAMED, "yaml": text_of(await request.body())}
                body = json.dumps(asked).encode()

                async def receive() -> Message:
                    return {"type": "http.request", "body": body, "more_body": False}

                MutableHeaders(scope=request.scope)["content-type"] = "application/json"
                request = Request(request.scope, receive)
            return await handle(request)

        return handle_either


def is_yaml(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() in YAML


def text_of(body: bytes) -> str:
    """
    Raises:
        Refused: 400, it is not UTF-8.
    """
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise Refused(400, "the body is not UTF-8") from None


def understood(settings: Settings, spec: PipelineSpec) -> tuple[PipelineSpec, list[str]]:
    """What is to be kept, and when it is run by itself: both as the YAML says, where there is any.

    Raises:
        Refused: 422, with all problems of the YAML.
    """
    if spec.yaml is None:
        return spec, spec.crons
    try:
        pipeline = _compiled(settings, spec.yaml)
    except InvalidProject as error:
        raise Refused(422, [_detail(problem) for problem in error.problems]) from None
    cron = pipeline.deployment.cron
    return spec.model_copy(update={"name": pipeline.name}), [*spec.crons, *([cron] if cron else [])]


def problems_of(settings: Settings, text: str, is_yaml: bool) -> list[FoundProblem]:
    """Everything that is wrong with a pipeline, with the remedy where it is known."""
    try:
        if is_yaml:
            _compiled(settings, text)
            return []
        try:
            spec = PipelineSpec.model_validate_json(text)
        except ValidationError as error:
            # JSON is YAML, and so the places of its keys are known too.
            found = read_as(PipelineSpec, parse(text, "")).problems
            return [FoundProblem.of(each) for each in found] or [_plain(each) for each in error.errors()]
        if spec.yaml is not None:
            _compiled(settings, spec.yaml)
    except InvalidProject as error:
        return [FoundProblem.of(each) for each in error.problems]
    return []


def _compiled(settings: Settings, text: str) -> Pipeline:
    project = Project.load(settings.project_directory, settings)
    return project.compile(project.declare(text)).pipeline


def _detail(problem: Problem) -> dict[str, Any]:
    """As FastAPI tells of what is wrong with JSON."""
    found = FoundProblem.of(problem).model_dump()
    path, message = found.pop("path"), found.pop("message")
    return {"type": "invalid_pipeline", "loc": ["body", "yaml", path], "msg": message, **found}


def _plain(error: Any) -> FoundProblem:
    return FoundProblem(path=dotted(error["loc"]), line=0, column=0, message=error["msg"], suggestion="")
