"""A project: a folder with `pipelines/*.yaml` and `profiles.yaml`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from mlplatform.domain.batch.manifest import Manifest, compile_pipeline
from mlplatform.domain.batch.pipeline import Pipeline
from mlplatform.domain.batch.problems import InvalidProject, Problem, did_you_mean
from mlplatform.domain.batch.profile import Profile
from mlplatform.domain.batch.rules import Finding, broken_profile_rules, broken_rules
from mlplatform.io.pipelines import references
from mlplatform.io.pipelines.files import Node, Place, parse, read, read_pipeline
from mlplatform.io.pipelines.secrets import PLACEHOLDER
from mlplatform.io.pipelines.structure import Read, read_as
from mlplatform.io.pipelines.target_plugins import TargetPlugins
from mlplatform.io.pipelines.templates import Templates, is_template
from mlplatform.settings import Settings

PIPELINES = "pipelines"
PROFILES = "profiles.yaml"
# What problems call a pipeline that is in no file.
TEXT = "pipeline.yaml"


class Checked(NamedTuple):
    """A pipeline that was read, and what the person who wrote it should know."""

    pipeline: Pipeline
    warnings: list[Problem]


@dataclass
class Project:
    """Files are read when they are asked for, and once; a project that changed is loaded anew."""

    root: Path
    settings: Settings
    variables: Mapping[str, str]
    chosen_target: str | None
    _pipelines: dict[str, Checked | InvalidProject] = field(default_factory=dict, repr=False)
    _profiles: dict[str | None, Profile] = field(default_factory=dict, repr=False)

    @classmethod
    def load(
        cls,
        root: Path,
        settings: Settings,
        variables: Mapping[str, str] | None = None,
        target: str | None = None,
    ) -> Project:
        """The project in the folder `root`. `variables` are those of `--vars`; `target` one of the profile's
        outputs, else the profile's own choice.

        Raises:
            InvalidProject: there is no such folder.
        """
        if not root.is_dir():
            raise InvalidProject([Place(str(root)).problem("", "there is no such folder", "mlplatform init")])
        return cls(root.resolve(), settings, dict(variables or {}), target)

    def names(self) -> list[str]:
        """Names of the pipelines; a file whose name begins with _ is a part of others."""
        return [path.stem for path in self._files() if not path.stem.startswith("_")]

    def declare(self, text: str) -> str:
        """Adds a pipeline that is in no file, from somebody who may know less than this machine does.

        So its text is whole: of templates, it may have those of secrets, which are known when a step runs.

        Returns:
            The pipeline's name, as the text has it.

        Raises:
            InvalidProject: with all problems of the text.
        """
        node = parse(text, TEXT)
        problems = [
            below.place.problem(
                path, "is a template", "write the value; only {{ secret('NAME') }} is known here"
            )
            for path, below in node.walk()
            if is_template(below.value) and not PLACEHOLDER.fullmatch(below.value)
        ]
        outcome = read_as(Pipeline, node)
        name = outcome.model.name if outcome.model else ""
        if outcome.model and (self.root / PIPELINES / f"{name}.yaml").is_file():
            place = node.nearest(("project", "name"))[0].place
            message = f"the project has a pipeline {name} of its own"
            problems.append(place.problem(("project", "name"), message, "take another name"))
        checked = self._judged(node, outcome, problems)
        self._pipelines[name] = checked
        return name

    def pipeline(self, name: str) -> Pipeline:
        """Raises InvalidProject with all problems of the pipeline's files."""
        return self._checked(name).pipeline

    @cached_property
    def profile(self) -> Profile:
        """The profile with all of its targets. A template of a target that is not chosen stays one if it asks
        for a variable that is not set.

        Raises:
            InvalidProject: with all problems of profiles.yaml.
        """
        return self._read_profile(self.chosen_target)

    @property
    def target(self) -> str:
        """The target that is chosen."""
        return self.chosen_target or self.profile.target

    @cached_property
    def plugins(self) -> TargetPlugins:
        """Those of the target that is chosen."""
        return TargetPlugins(self.profile.outputs[self.target], self.settings, self.root)

    def compile(self, name: str, target: str | None = None) -> Manifest:
        """The manifest of a pipeline for a target.

        Raises:
            InvalidProject: the pipeline or the profile is wrong, or there is no such target.
        """
        pipeline = self.pipeline(name)
        chosen = target or self.chosen_target
        if chosen not in self._profiles:
            self._profiles[chosen] = self._read_profile(chosen)
        profile = self._profiles[chosen]
        return compile_pipeline(
            pipeline, profile, chosen or profile.target, version("mlplatform"), datetime.now(UTC)
        )

    def validate(self, names: Iterable[str] | None = None) -> list[Problem]:
        """All problems of the profile and of the named pipelines, or of all pipelines."""
        problems: list[Problem] = []
        wanted = self.names() if names is None else list(names)
        if wanted or (self.root / PROFILES).is_file():
            try:
                _ = self.profile
            except InvalidProject as error:
                problems += error.problems
        if names is None:
            problems += self._misplaced()
        for name in wanted:
            try:
                self._checked(name)
            except InvalidProject as error:
                problems += error.problems
        # A file that several pipelines include has its problems once.
        return list(dict.fromkeys(problems))

    def warnings(self, names: Iterable[str] | None = None) -> list[Problem]:
        """What is allowed and perhaps not meant, in those of the pipelines that are valid."""
        result = []
        for name in self.names() if names is None else names:
            try:
                result += self._checked(name).warnings
            except InvalidProject:
                # `validate` tells them.
                continue
        return list(dict.fromkeys(result))

    def _files(self) -> list[Path]:
        return sorted((self.root / PIPELINES).glob("*.yaml"))

    def _misplaced(self) -> list[Problem]:
        return [
            Place(f"{PIPELINES}/{path.name}").problem("", "is not read", f"rename it to {path.stem}.yaml")
            for path in sorted((self.root / PIPELINES).glob("*.yml"))
        ]

    def _checked(self, name: str) -> Checked:
        if name not in self._pipelines:
            try:
                self._pipelines[name] = self._read_pipeline(name)
            except InvalidProject as error:
                self._pipelines[name] = error
        found = self._pipelines[name]
        if isinstance(found, InvalidProject):
            raise found
        return found

    def _read_pipeline(self, name: str) -> Checked:
        path = self.root / PIPELINES / f"{name}.yaml"
        if name.startswith("_") or not path.is_file():
            names = self.names()
            near = did_you_mean(name, names) or (f"there are {', '.join(names[:20])}" if names else "")
            raise InvalidProject([Place(f"{PIPELINES}/{name}.yaml").problem("", "no such pipeline", near)])
        templates = Templates(self.settings.variables, self.variables)
        node = templates.render(read_pipeline(self.root, path))
        outcome = read_as(Pipeline, node, frozenset(templates.failed), more_keys=("base_pipeline",))
        problems = templates.problems
        if (
            (pipeline := outcome.model)
            and pipeline.name != name
            and not outcome.is_wrong(("project", "name"))
        ):
            place = node.nearest(("project", "name"))[0].place
            message = f"is {pipeline.name!r}, but the file is {name}.yaml"
            remedy = f"write name: {name}, or rename the file to {pipeline.name}.yaml"
            problems.append(place.problem(("project", "name"), message, remedy))
        return self._judged(node, outcome, problems)

    def _judged(self, node: Node, outcome: Read[Pipeline], problems: list[Problem]) -> Checked:
        problems = problems + outcome.problems
        warnings: list[Problem] = []
        if pipeline := outcome.model:
            named = references.of_pipeline(pipeline, self.root)
            problems += _placed(node, outcome, [*broken_rules(pipeline), *named.problems])
            warnings = _placed(node, outcome, named.warnings)
        if problems or pipeline is None:
            raise InvalidProject(problems)
        return Checked(pipeline, warnings)

    @cached_property
    def _profile_node(self) -> tuple[str, Node]:
        """The profile's name, and its node in profiles.yaml, its templates as they are written."""
        path = self.root / PROFILES
        if not path.is_file():
            remedy = "write one, as `mlplatform init` does"
            raise InvalidProject([Place(PROFILES).problem("", "is missing", remedy)])
        whole = read(self.root, path)
        if not isinstance(whole.value, dict) or not whole.value:
            raise InvalidProject([whole.place.problem("", "is not a mapping of profiles by name")])
        profiles = ", ".join(whole.value)
        name = _profile_name(self.root)
        if name is None and len(whole.value) == 1:
            name = next(iter(whole.value))
        if name is None:
            remedy = 'name one in pyproject.toml: [tool.mlplatform] profile = "…"'
            raise InvalidProject([whole.place.problem("", f"holds several profiles: {profiles}", remedy)])
        if name not in whole.value:
            near = did_you_mean(name, whole.value)
            message = f"there is no profile {name}, which pyproject.toml names; there are {profiles}"
            raise InvalidProject([whole.place.problem("", message, near)])
        return name, whole.value[name]

    def _read_profile(self, target: str | None) -> Profile:
        name, node = self._profile_node
        chosen = target
        if chosen is None:
            own = node.child("target")
            chosen = own.value if own else None
        strict = Templates(self.settings.variables, self.variables)
        lenient = Templates(self.settings.variables, self.variables, strict=False)
        if is_template(chosen) and (own := node.child("target")):
            chosen = strict.render(own, ("target",)).value
        outputs = node.child("outputs")
        names = list(outputs.value) if outputs and isinstance(outputs.value, dict) else []
        if isinstance(node.value, dict):
            below = {key: strict.render(each, (key,)) for key, each in node.value.items() if key != "outputs"}
            if outputs and names:
                rendered = {
                    each: (strict if each == chosen else lenient).render(value, ("outputs", each))
                    for each, value in outputs.value.items()
                }
                below["outputs"] = replace(outputs, value=rendered)
            elif outputs:
                below["outputs"] = outputs
            node = replace(node, value={key: below[key] for key in node.value})
        outcome = read_as(Profile, node, frozenset(strict.failed | lenient.failed))
        problems = strict.problems + lenient.problems + outcome.problems
        if profile := outcome.model:
            found = [*broken_profile_rules(profile), *references.of_profile(profile)]
            problems += _placed(node, outcome, found)
        problems = [replace(each, path=f"{name}.{each.path}" if each.path else name) for each in problems]
        if target is not None and names and target not in names:
            near = did_you_mean(target, names)
            message = f"there is no target {target!r}: there are {', '.join(names)}"
            problems.append(node.nearest(("outputs",))[0].start.problem((name, "outputs"), message, near))
        if problems or profile is None:
            raise InvalidProject(problems)
        return profile


def _placed(node: Node, outcome: Read, findings: Iterable[Finding]) -> list[Problem]:
    """Findings as problems with their places; not those that only follow from what is wrong already."""
    problems = []
    for finding in findings:
        if outcome.is_wrong(finding.path):
            continue
        found, reached = node.nearest(finding.path)
        place = found.place if reached == finding.path and not isinstance(found.value, dict) else found.start
        problems.append(place.problem(finding.path, finding.message, finding.suggestion))
    return problems


def _profile_name(root: Path) -> str | None:
    path = root / "pyproject.toml"
    if not path.is_file():
        return None
    try:
        tools = tomllib.loads(path.read_text()).get("tool", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidProject([Place(path.name).problem("", f"is no TOML: {error}")]) from None
    for tool in ("mlplatform", "mbt"):
        if isinstance(named := tools.get(tool, {}).get("profile"), str):
            return named
    return None
