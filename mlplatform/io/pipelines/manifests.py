"""Compiled manifests where steps find them: in the project (baked into an image), or in the storage."""

from __future__ import annotations

import io
from pathlib import Path

from pydantic import ValidationError

from mlplatform.domain.batch.manifest import Manifest
from mlplatform.domain.batch.problems import InvalidProject, Problem
from mlplatform.io.pipelines.project import Project


def manifest_path(project: Project, pipeline: str) -> Path:
    return project.root / "target" / pipeline / "manifest.json"


def to_json(manifest: Manifest) -> str:
    return manifest.model_dump_json(indent=2, by_alias=True) + "\n"


def upload(project: Project, manifest: Manifest) -> str:
    """Puts the manifest into the target's storage and returns its address. Raises StorageError."""
    content = io.BytesIO(to_json(manifest).encode())
    return project.plugins.storage.write(_key(project, manifest.name), content)


def find(project: Project, pipeline: str) -> Manifest:
    """The compiled manifest of a pipeline for the project's target.

    Raises:
        InvalidProject: it was compiled nowhere, for another target, or by another version.
        StorageError: the storage cannot be read.
    """
    path = manifest_path(project, pipeline)
    if path.is_file():
        place, content = str(path.relative_to(project.root)), path.read_bytes()
    else:
        storage = project.plugins.storage
        place = storage.uri(_key(project, pipeline))
        try:
            with storage.open(place) as file:
                content = file.read()
        except FileNotFoundError:
            raise _refused(
                str(path.relative_to(project.root)),
                f"there is no such manifest, nor {place}",
                f"`mlplatform compile {pipeline} --target {project.target}`, with --upload for the storage",
            ) from None
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise _refused(
            place,
            f"is no manifest of this version ({error.error_count()} problems)",
            f"`mlplatform compile {pipeline}`",
        ) from None
    if manifest.metadata.target != project.target:
        raise _refused(
            place,
            f"is compiled for the target {manifest.metadata.target}, not {project.target}",
            f"`mlplatform compile {pipeline} --target {project.target}`",
        )
    return manifest


def _key(project: Project, pipeline: str) -> str:
    return f"manifests/{project.target}/{pipeline}.json"


def _refused(place: str, message: str, remedy: str) -> InvalidProject:
    return InvalidProject([Problem(place, 0, 0, "", message, remedy)])
